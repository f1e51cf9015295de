"""Teach a trained policy another robot, from a few minutes of its data.

The robot gets state and action weights of its own in the checkpoint, which begin as those of the robot nearest to it.
Then the policy trains on the new recording and, in equal parts, on earlier data, so that old skills stay. Training ends
when the error of predicted actions on held-out episodes no longer falls; the best weights are kept.

Writes OUT/policy (for lerobot-eval, lerobot-rollout and lerobot-train), OUT/report.html and OUT/adaptation.json. Run
the same command again to continue an interrupted adaptation. Flags that are not listed are lerobot-train's.

examples:
  lerobot-wam adapt --policy.path=outputs/mix/checkpoints/last/pretrained_model --dataset.repo_id=local/play \\
      --dataset.root=outputs/play --out=outputs/adapted
  lerobot-wam adapt --policy.path=... --dataset.repo_id=me/play --embodiment=my_arm.yaml --mode=lora --cotrain=mix.yaml
"""

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lerobot_wam.training.adapt_plan import Adaptation, AdaptPlan

HELP = "teach a trained policy another robot from a few minutes of data"
PASSES_ON = True
"""Flags that are not ours are lerobot-train's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument(
        "--policy.path", dest="policy_path", required=True, metavar="DIR", help="checkpoint, or its id on the Hub"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where everything goes")
    data = parser.add_argument_group("the new robot")
    data.add_argument("--dataset.repo_id", dest="repo_id", required=True, metavar="ID", help="its recording")
    data.add_argument("--dataset.root", dest="root", metavar="DIR", help="the recording's folder (LeRobot's cache)")
    data.add_argument("--dataset.revision", dest="revision", metavar="REV", help="of the recording on the Hub")
    data.add_argument("--dataset.episodes", dest="episodes", metavar="A:B,C", help="which ones (all)")
    data.add_argument(
        "--embodiment",
        default="auto",
        metavar="NAME|FILE.yaml",
        help="its description: a built-in name, a YAML file, or auto: from the recording (%(default)s)",
    )
    data.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="ROBOT=RECORDING",
        help="the description's camera and what the recording calls it, where they differ; repeatable",
    )
    data.add_argument(
        "--text", default="{task}", metavar="TEXT", help='what the policy is told, such as "play: {task}"'
    )
    data.add_argument("--in-memory", action="store_true", help="keep a small recording of stored images decoded")
    data.add_argument("--like", metavar="NAME", help="known robot whose weights it begins with (the nearest)")
    training = parser.add_argument_group("training")
    training.add_argument(
        "--mode",
        choices=("full", "lora", "heads"),
        default="full",
        help="what is trained: all weights, adapters and the robot's own weights, or only the latter (%(default)s)",
    )
    training.add_argument(
        "--lr",
        type=float,
        metavar="X",
        help="learning rate of what all robots share (a tenth of the checkpoint's; adapters: all of it)",
    )
    training.add_argument(
        "--heads-lr", type=float, metavar="X", help="that of the robots' own weights (the checkpoint's)"
    )
    training.add_argument("--lora-rank", type=int, default=16, metavar="N", help="rank of the adapters (%(default)s)")
    training.add_argument(
        "--cotrain",
        metavar="FILE.yaml|none",
        help="earlier data as a mixture, half of all samples (what the checkpoint was trained on, if that is here)",
    )
    training.add_argument("--steps", type=int, default=2000, metavar="N", help="at most (%(default)s)")
    training.add_argument("--batch-size", type=int, default=32, metavar="N", help="windows per step (%(default)s)")
    training.add_argument("--seed", type=int, default=0, metavar="N", help="(%(default)s)")
    training.add_argument("--device", metavar="NAME", help="cpu, cuda or mps (the checkpoint's)")
    judging = parser.add_argument_group("when to stop")
    judging.add_argument(
        "--eval-split", type=float, default=0.1, metavar="X", help="share of episodes held out (%(default)s)"
    )
    judging.add_argument("--eval-every", type=int, default=100, metavar="N", help="in steps (%(default)s)")
    judging.add_argument(
        "--patience", type=int, default=5, metavar="N", help="evaluations without progress before it ends (%(default)s)"
    )
    judging.add_argument("--windows", type=int, default=200, metavar="N", help="predicted each time (%(default)s)")
    judging.add_argument("--dreams", type=int, default=8, metavar="N", help="held-out clips to dream (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Adapt, dream, report.

    Raises:
        FileNotFoundError: The checkpoint or a dataset is missing.
        ValueError: Something does not fit.
    """
    import lerobot_wam.plugin  # noqa: F401  (LeRobot's own programs register plugins before they parse)
    from lerobot_wam.training.adapt import adapt

    began = time.perf_counter()
    plan = make_plan(args)
    result = adapt(plan)
    seconds = {"adapt": time.perf_counter() - began}
    _print_summary(result)
    page = report(plan, result, args.dreams, seconds)
    print(f"\nreport: {page}\npolicy: {plan.folder / 'policy'}")
    return 0


def make_plan(args: argparse.Namespace) -> "AdaptPlan":
    """Return what the arguments ask for, and say which earlier data is used."""
    from lerobot_wam.data.recipe import MixtureEntry, load_recipe
    from lerobot_wam.training.adapt import local_checkpoint, stored_cotraining
    from lerobot_wam.training.adapt_plan import AdaptPlan

    cameras = [pair.partition("=") for pair in args.camera]
    if wrong := [camera for camera, equals, _ in cameras if not equals]:
        raise ValueError(f"--camera is {wrong[0]!r}, expected the robot's camera = the recording's")
    checkpoint = local_checkpoint(args.policy_path)
    cotrain, line = None, "Old skills may fade: no earlier data, as --cotrain=none asks"
    if args.mode == "heads" and args.cotrain in (None, "none"):
        line = "Old skills stay: the new robot's weights alone are trained"
    elif args.cotrain is None:
        cotrain, line = stored_cotraining(checkpoint)
    elif args.cotrain != "none":
        cotrain, line = load_recipe(args.cotrain), f"Co-training on {args.cotrain}"
    print(line, flush=True)
    return AdaptPlan(
        checkpoint,
        MixtureEntry(
            args.repo_id,
            root=args.root,
            revision=args.revision,
            embodiment=args.embodiment,
            cameras={camera: theirs for camera, _, theirs in cameras},
            episodes=args.episodes,
            text=args.text,
            in_memory=args.in_memory,
        ),
        args.out,
        mode=args.mode,
        like=args.like,
        cotrain=cotrain,
        lr=args.lr,
        heads_lr=args.heads_lr,
        lora_rank=args.lora_rank,
        steps=args.steps,
        batch_size=args.batch_size,
        eval_every=args.eval_every,
        patience=args.patience,
        eval_split=args.eval_split,
        windows=args.windows,
        seed=args.seed,
        device=args.device,
        flags=tuple(args.passed_on),
    )


def report(plan: "AdaptPlan", result: "Adaptation", dreams: int, seconds: dict[str, float]) -> Path:
    """Dream held-out clips before and after, and write the page; returns its path."""
    import dataclasses
    import json

    from lerobot_wam.report.adaptation import adaptation_page, video_scores
    from lerobot_wam.report.clips import window_clips
    from lerobot_wam.report.dream import dream
    from lerobot_wam.report.page import write_page
    from lerobot_wam.training.adapt import load
    from lerobot_wam.training.loop import window_shape

    began = time.perf_counter()
    films = []
    for name in ("start", "policy"):
        policy = load(plan.folder / name, plan.device)
        spec = policy.action_spaces[policy.category].spec
        held_out = dataclasses.replace(
            plan.data, episodes=",".join(map(str, result.held_out)), embodiment=spec.name, in_memory=False
        )
        clips = window_clips(held_out, spec, window_shape(policy.config), dreams)
        films.append([dream(policy, clip) for clip in clips])
    before, after = films
    seconds["dream"] = time.perf_counter() - began
    (plan.folder / "video.json").write_text(json.dumps(video_scores(before, after), indent=1) + "\n")
    command = shlex.join(["lerobot-wam", *sys.argv[1:]])
    page = adaptation_page(dataclasses.asdict(result), before, after, seconds, command, plan.seed)
    return write_page(page, plan.folder / "report.html")


def _print_summary(result: "Adaptation") -> None:
    columns = {
        "before": result.before,
        "after": result.after,
        "hold still": result.hold_still,
        "copy last": result.copy_last_motion,
    }
    print(f"\n{result.embodiment}, begun like {result.like}: action error on {len(result.held_out)} held-out episodes")
    print(f"{'':24}" + "".join(f"{name:>12}" for name in columns))
    for index, (joint, unit) in enumerate(zip(result.joints, result.units, strict=True)):
        print(f"{joint:24}" + "".join(f"{column.errors[index]:12.4f}" for column in columns.values()) + f" {unit}")
    print(f"{'share of range':24}" + "".join(f"{100 * column.overall:10.1f} %" for column in columns.values()))
    print(f"best after {result.best} of {result.history[-1].step} steps")
