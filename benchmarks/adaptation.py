"""Does a pre-trained policy carry over to an arm that it has never seen?

Takes a checkpoint that was trained on several simulated arms and a few minutes of play of another one. Two policies
learn from the same play and stop by the same rule:

- adapted: `lerobot-wam adapt`, its robot's weights begin as those of the nearest arm; with --mode=full or lora the
  shared weights learn too, from earlier data in equal parts.
- heads from scratch: the same network, frozen; the robot's own weights begin at random and are all that is trained.

Measured: open-loop action error of each on held-out play, beside holding still and copying the last motion; success of
each on the new arm's instructed tasks; and the checkpoint's success on the arms that it knew, before and after, on the
same scenes. All of that for every seed of split and training; a scene's outcome is then its mean over the seeds.
Every stage is kept in --folder, and what is there is not done again, so seeds may run as processes of their own first.
"""

import argparse
import math
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig

from benchmarks.common import command_line, write_result
from benchmarks.paired import by_scene, compared, evaluate, outcomes, rate
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.data.recipe import MixtureEntry, load_recipe
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.training.adapt import adapt, stored_cotraining
from lerobot_wam.training.adapt_plan import Adaptation, AdaptPlan
from lerobot_wam.training.growth import grow_checkpoint
from lerobot_wam.weights import is_per_robot

SCRATCH = "scratch"


def with_random_robot(checkpoint: Path, out: Path, seed: int) -> Path:
    """Write a copy of a checkpoint that also knows a robot whose weights were never trained, to begin with."""
    if not (out / "config.json").is_file():
        config = PreTrainedConfig.from_pretrained(checkpoint)
        assert isinstance(config, WAMConfig)
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent) as grown:
            grow_checkpoint(checkpoint, Path(grown), next(iter(config.embodiments.values())), SCRATCH)
            policy = WAMPolicy.from_pretrained(grown)
            torch.manual_seed(seed)
            fresh = WorldActionModel(policy.config.model_config).state_dict()
            with torch.no_grad():
                for name, parameter in policy.named_parameters():
                    if is_per_robot(name):
                        parameter[policy.category] = fresh[name.partition("model.")[2]][policy.category]
            for processor in Path(grown).glob("policy_p*"):
                shutil.copy(processor, out)
            policy.save_pretrained(out)
    return out


def joined[T](parts: Sequence[Sequence[T]]) -> list[T]:
    """One list of several."""
    return [item for part in parts for item in part]


def errors(result: Adaptation) -> dict[str, Any]:
    """The action errors of an adaptation, and how far the policy's is below the better yardstick's."""
    kinds = {
        "before": result.before,
        "after": result.after,
        "hold_still": result.hold_still,
        "copy_last_motion": result.copy_last_motion,
    }
    yardstick = min(result.hold_still.overall, result.copy_last_motion.overall)
    return {
        "joints": result.joints,
        "units": result.units,
        "action_error": {name: kind.errors for name, kind in kinds.items()},
        "action_error_share_of_range": {name: kind.overall for name, kind in kinds.items()},
        "below_better_yardstick": 1 - result.after.overall / yardstick,
        "like": result.like,
        "best_step": result.best,
        "last_step": result.history[-1].step,
        "windows": result.windows,
        "episodes": len(result.episodes),
        "held_out_episodes": len(result.held_out),
    }


def measure(
    plans: Sequence[AdaptPlan],
    arm: str,
    seen_arms: Sequence[str],
    episodes: int,
    eval_seed: int,
    seen_episodes: int | None = None,
) -> dict[str, Any]:
    """Go through all stages of every plan, in its folder.

    Args:
        plans: Alike but for seed and folder.
        arm: The new arm.
        seen_arms: Those that the checkpoint knows.
        episodes: On the new arm.
        eval_seed: The first scene.
        seen_episodes: On each seen arm; None shares `episodes` among them.
    """
    new: dict[str, list[list[bool]]] = {"adapted": [], "heads_from_scratch": []}
    seen: dict[str, dict[str, list[list[bool]]]] = {known: {"before": [], "after": []} for known in seen_arms}
    share = seen_episodes or math.ceil(episodes / len(seen_arms))
    by_seed: dict[str, Any] = {}
    for plan in plans:
        adapted = replace(plan, folder=plan.folder / "adapted")
        blank = with_random_robot(plan.checkpoint, plan.folder / "with_random_robot", plan.seed)
        scratch = replace(
            plan, checkpoint=blank, folder=plan.folder / "scratch", mode="heads", like=SCRATCH, cotrain=None
        )
        own = by_seed[str(plan.seed)] = {}
        for name, what in (("adapted", adapted), ("heads_from_scratch", scratch)):
            found = errors(adapt(what))
            evaluation = plan.folder / "evaluation" / f"{name}_{arm}"
            new[name].append(evaluate(what.folder / "policy", arm, episodes, eval_seed, evaluation))
            own[name] = found | outcomes(new[name][-1])
        before = plan.folder.parent / "before"  # no seed changes it
        for known, trials in seen.items():
            trials["before"].append(evaluate(plan.checkpoint, known, share, eval_seed, before / known))
            after = plan.folder / "evaluation" / f"after_{known}"
            trials["after"].append(evaluate(adapted.folder / "policy", known, share, eval_seed, after))
            own[known] = {name: outcomes(tried[-1]) for name, tried in trials.items()}
    scenes = {name: [by_scene(trials[name]) for trials in seen.values()] for name in ("before", "after")}
    return {
        "arm": arm,
        "mode": plans[0].mode,
        "earlier_data": plans[0].cotrain is not None,
        "seeds": [plan.seed for plan in plans],
        "by_seed": by_seed,
        "success": {name: rate(joined(trials)) for name, trials in new.items()},
        "adapted_against_heads_from_scratch": compared(by_scene(new["heads_from_scratch"]), by_scene(new["adapted"])),
        "seen_arms": compared(joined(scenes["before"]), joined(scenes["after"]))
        | {name: statistics.fmean(joined(found)) for name, found in scenes.items()},
    }


def show(metrics: Mapping[str, Any]) -> None:
    """Print what matters."""
    for name, found in metrics["success"].items():
        low, high = found["success_wilson_95"]
        below = [100 * own[name]["below_better_yardstick"] for own in metrics["by_seed"].values()]
        print(
            f"{name}: action error {', '.join(f'{share:.0f}' for share in below)} % below the better yardstick, "
            f"success {found['successes']}/{found['n_episodes']} ({100 * low:.0f}-{100 * high:.0f} %)"
        )
    for name in ("adapted_against_heads_from_scratch", "seen_arms"):
        low, high = metrics[name]["change_95"]
        print(f"{name}: {100 * metrics[name]['change']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})")


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="policy trained on the seen arms")
    parser.add_argument("--play", type=Path, required=True, help="folder of the new arm's recorded play")
    parser.add_argument("--arm", required=True, help="the new arm")
    parser.add_argument("--seen-arms", required=True, help="the others, such as viperx,so101,panda")
    parser.add_argument(
        "--cotrain", help="earlier data (default: what the checkpoint was trained on, if shared weights are trained)"
    )
    parser.add_argument("--folder", type=Path, default=Path("outputs/adaptation"), help="default: outputs/adaptation")
    parser.add_argument("--mode", choices=("full", "lora", "heads"), default="full", help="default: full")
    parser.add_argument("--lr", type=float, help="of the network (default: a tenth of the checkpoint's)")
    parser.add_argument("--heads-lr", type=float, help="of the robots' own weights (default: the checkpoint's)")
    parser.add_argument("--steps", type=int, default=1000, help="at most (default: 1000)")
    parser.add_argument("--eval-every", type=int, default=100, help="default: 100")
    parser.add_argument("--patience", type=int, default=4, help="default: 4")
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    parser.add_argument("--windows", type=int, default=200, help="held-out windows per evaluation (default: 200)")
    parser.add_argument("--episodes", type=int, default=240, help="of each success rate (default: 240)")
    parser.add_argument("--seeds", default="0,1,2", help="of split and training (default: 0,1,2)")
    parser.add_argument("--eval-seed", type=int, default=100_000, help="first scene (default: 100000)")
    args = parser.parse_args(arguments)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    cotrain = load_recipe(args.cotrain) if args.cotrain else None
    if cotrain is None and args.mode != "heads":
        cotrain = stored_cotraining(args.checkpoint)[0]
    plan = AdaptPlan(
        args.checkpoint,
        MixtureEntry(f"local/{args.play.resolve().name}", root=str(args.play), in_memory=True),
        args.folder,
        mode=args.mode,
        cotrain=cotrain,
        lr=args.lr,
        heads_lr=args.heads_lr,
        steps=args.steps,
        batch_size=args.batch_size,
        eval_every=args.eval_every,
        patience=args.patience,
        windows=args.windows,
        flags=("--num_workers=0",),
    )
    plans = [replace(plan, folder=args.folder / f"seed_{seed}", seed=seed) for seed in seeds]
    metrics = measure(plans, args.arm, args.seen_arms.split(","), args.episodes, args.eval_seed)
    show(metrics)
    write_result("adaptation", metrics, seeds, command_line("adaptation", arguments))


if __name__ == "__main__":
    main()
