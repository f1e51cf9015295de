"""Flash in one step against its coupled twin in eight: closed-loop success over several training seeds.

Two policies learn from the same recording with the same seed, order of windows, number of steps and flags but one: the
Flash one has `--policy.noise_mode=decoupled`, that is video noise levels from Beta(7, 1) and one uniform action level
per chunk. Then Flash plans with `--policy.speed=flash` (1 step, the video stopped at sigma 0.8), the twin with 8 steps
and, to tell what decoupling is good for, with 1; all on the same scenes. A scene's outcome is its mean over the seeds.

Trainings go on from their last checkpoint and evaluations are kept in --folder, so seeds may run as processes of their
own first, and the last one all.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.claims.training import last_checkpoint, resumed_or_new
from benchmarks.common import command_line, write_result
from benchmarks.paired import by_scene, compared, evaluate, rate
from lerobot_wam.data.recipe import MixtureEntry, MixtureRecipe
from lerobot_wam.presets import SPEEDS
from lerobot_wam.training.loop import train

NOISE = {"flash": "decoupled", "twin": "coupled"}
_TWIN = {"computed_steps": "all", "guidance_scale": 1.0, "video_final_sigma": 0.0}
ACTING: dict[str, tuple[str, dict[str, Any]]] = {
    "flash_1_step": ("flash", SPEEDS["flash"]),
    "twin_8_steps": ("twin", _TWIN | {"num_inference_steps": 8}),
    "twin_1_step": ("twin", _TWIN | {"num_inference_steps": 1}),
}
"""Name -> which of the two policies acts, and with which fields."""


def trained(
    noise_mode: str,
    dataset: Path,
    steps: int,
    batch_size: int,
    seed: int,
    folder: Path,
    device: str = "cpu",
    further: Sequence[str] = (),
) -> Path:
    """Train, or go on with a training that was interrupted; returns the last checkpoint.

    `further` are flags that a new training gets besides.
    """
    own = ["--policy.type=wam", "--policy.preset=nano", f"--policy.noise_mode={noise_mode}", *further]
    flags = resumed_or_new(folder, steps, batch_size, seed, device, own)
    if flags is not None:
        entry = MixtureEntry(f"local/{dataset.resolve().name}", root=str(dataset), in_memory=True)
        train(flags, MixtureRecipe((entry,)))
    return last_checkpoint(folder)


def measure(
    dataset: Path, arm: str, seeds: Sequence[int], steps: int, batch_size: int, episodes: int, scene: int, folder: Path
) -> dict[str, Any]:
    """Train both policies of every seed and evaluate them on scenes `scene`, `scene` + 1, ..."""
    trials: dict[str, list[list[bool]]] = {name: [] for name in ACTING}
    for seed in seeds:
        own = folder / f"seed_{seed}"
        policies = {
            name: trained(noise_mode, dataset, steps, batch_size, seed, own / name)
            for name, noise_mode in NOISE.items()
        }
        for name, (policy, fields) in ACTING.items():
            flags = [f"--policy.{field}={value}" for field, value in fields.items()]
            trials[name].append(evaluate(policies[policy], arm, episodes, scene, own / "evaluation" / name, flags))
    twins = [name for name in ACTING if name != "flash_1_step"]
    return {
        "arm": arm,
        "training_steps": steps,
        "batch_size": batch_size,
        "acting": {name: {"policy": NOISE[policy]} | fields for name, (policy, fields) in ACTING.items()},
        "success": {name: rate([success for trial in found for success in trial]) for name, found in trials.items()},
        "success_by_seed": {
            f"{name}_seed_{seed}": rate(trial)
            for name, found in trials.items()
            for seed, trial in zip(seeds, found, strict=True)
        },
        **{
            f"flash_against_{twin}": compared(by_scene(trials[twin]), by_scene(trials["flash_1_step"]))
            for twin in twins
        },
        **{
            f"flash_against_{twin}_by_seed": {
                str(seed): compared(before, after)
                for seed, before, after in zip(seeds, trials[twin], trials["flash_1_step"], strict=True)
            }
            for twin in twins
        },
    }


def show(metrics: Mapping[str, Any]) -> None:
    """Print what matters."""
    for name, found in metrics["success"].items():
        low, high = found["success_wilson_95"]
        print(f"{name}: {found['successes']}/{found['n_episodes']} ({100 * low:.0f}-{100 * high:.0f} %)")
    for name in ("twin_8_steps", "twin_1_step"):
        change = metrics[f"flash_against_{name}"]
        low, high = change["change_95"]
        print(
            f"flash_1_step against {name}: {100 * change['change']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
        )


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="folder of the recording, such as a demo's dataset")
    parser.add_argument("--arm", default="viperx", help="the recording's arm (default: viperx)")
    parser.add_argument("--seeds", default="0,1,2", help="of training (default: 0,1,2)")
    parser.add_argument("--steps", type=int, default=1100, help="optimizer steps (default: 1100)")
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    parser.add_argument("--episodes", type=int, default=200, help="of each success rate (default: 200)")
    parser.add_argument("--eval-seed", type=int, default=100_000, help="first scene (default: 100000)")
    parser.add_argument("--folder", type=Path, default=Path("outputs/flash"), help="default: outputs/flash")
    args = parser.parse_args(arguments)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    torch.set_num_threads(1)
    metrics = measure(
        args.dataset, args.arm, seeds, args.steps, args.batch_size, args.episodes, args.eval_seed, args.folder
    )
    show(metrics)
    write_result("flash", metrics, seeds, command_line("flash", arguments))


if __name__ == "__main__":
    main()
