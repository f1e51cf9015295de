"""What each way of making fewer passes costs: the actions' distance from `exact`, and success in closed loop.

Takes a trained policy of a simulated arm and recorded episodes that it was not trained on. Every setting plans the same
held-out windows from the same noise; its distance is that of its actions from those of `exact`, and its error that from
what the expert did, both per joint and as the mean share of the joints' range of motion in a chunk. Then every setting
is evaluated on the same scenes as `exact`; the change in success is paired, with its 95 % interval.

Evaluations are kept in --folder, and what is there is not done again: several processes may do --settings of their own
first, and the last one all. The first setting is what the others are compared with; a result is written of `exact`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from torch import Tensor

from benchmarks.common import command_line, write_result
from benchmarks.paired import compared, evaluate, rate
from lerobot_wam.approximations import approximations
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.data.recipe import MixtureEntry
from lerobot_wam.embodiments.resolve import load_stored_embodiment
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.presets import PRESETS, SPEEDS
from lerobot_wam.training.loop import window_shape
from lerobot_wam.training.open_loop import joint_errors, predict, read_held_out, share_of_range

_EXACT, _FAST = SPEEDS["exact"], SPEEDS["fast"]
SETTINGS: dict[str, dict[str, Any]] = {
    "exact": _EXACT,
    "official": SPEEDS["official"],
    **{f"{steps}_of_16": _EXACT | {"computed_steps": steps} for steps in ("7", "6", "5")},
    "dynamic": _EXACT | {"computed_steps": "dynamic"},
    **{
        f"{steps}_of_16_extrapolated": _EXACT | {"computed_steps": steps, "skipped_steps": "extrapolate"}
        for steps in ("8", "7", "6", "5")
    },
    "dynamic_extrapolated": _EXACT | {"computed_steps": "dynamic", "skipped_steps": "extrapolate"},
    "fast": _FAST,
    **{f"{steps}_steps": _FAST | {"num_inference_steps": steps} for steps in (3, 2, 1)},
    "flash": SPEEDS["flash"],
}
"""Name -> fields of the configuration; where they leave guidance out, it is the preset's."""


def flags_of(preset: str, setting: str) -> list[str]:
    """The fields of a setting as NAME=VALUE."""
    fields = {"guidance_scale": PRESETS[preset]["guidance_scale"]} | SETTINGS[setting]
    return [f"{name}={value}" for name, value in fields.items()]


def configured(checkpoint: Path, robot: str, fields: Sequence[str] = ()) -> WAMConfig:
    """The checkpoint's configuration for one robot, with some fields (NAME=VALUE) changed."""
    flags = [f"--{field}" for field in (f"embodiment={robot}", *fields)]
    config = PreTrainedConfig.from_pretrained(checkpoint, cli_overrides=flags)
    assert isinstance(config, WAMConfig)
    return config


def measure(
    checkpoint: Path,
    dataset: Path,
    arm: str,
    names: Sequence[str],
    windows: int,
    episodes: int,
    seed: int,
    folder: Path,
) -> dict[str, Any]:
    """Every setting of `names`, the first of which the others are compared with."""
    robot = f"wam_sim_{arm}"
    base = configured(checkpoint, robot)
    spec, statistics = load_stored_embodiment(robot, base.embodiments[robot])
    entry = MixtureEntry(f"local/{dataset.resolve().name}", root=str(dataset))
    held_out = read_held_out(entry, spec, window_shape(base), windows)
    found: dict[str, Any] = {}
    actions: dict[str, Tensor] = {}
    successes: dict[str, list[bool]] = {}
    for name in names:
        fields = flags_of(base.preset, name)
        config = configured(checkpoint, robot, fields)
        actions[name] = predict(WAMPolicy.from_pretrained(checkpoint, config=config), held_out)
        flags = [f"--policy.{field}" for field in fields]
        successes[name] = evaluate(checkpoint, arm, episodes, seed, folder / name, flags)
        distance = joint_errors(actions[name], replace(held_out, present=actions[names[0]]))
        error = joint_errors(actions[name], held_out)
        found[name] = {
            "settings": fields,
            "approximations": approximations(config),
            "action_distance": distance,
            "action_distance_share_of_range": share_of_range(distance, spec, statistics),
            "action_error": error,
            "action_error_share_of_range": share_of_range(error, spec, statistics),
            **rate(successes[name]),
            **{f"success_{key}": value for key, value in compared(successes[names[0]], successes[name]).items()},
        }
    return {
        "preset": base.preset,
        "solver": base.solver,
        "noise_mode": base.noise_mode,
        "robot": robot,
        "joints": list(spec.action_names),
        "units": [dimension.unit for dimension in spec.action],
        "windows": len(held_out.task),
        "settings": found,
    }


def show(found: Mapping[str, Any]) -> None:
    """Print a row for each setting."""
    print(f"{'setting':22} {'distance':>9} {'error':>9} {'success':>9}  change in points (95 %)")
    for name, row in found.items():
        low, high = row["success_change_95"]
        print(
            f"{name:22} {100 * row['action_distance_share_of_range']:8.2f}% "
            f"{100 * row['action_error_share_of_range']:8.2f}% {100 * row['success_rate']:8.1f}%  "
            f"{100 * row['success_change']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        )


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of a trained policy")
    parser.add_argument("--dataset", type=Path, required=True, help="folder of episodes it was not trained on")
    parser.add_argument("--arm", default="viperx", help="default: viperx")
    parser.add_argument("--settings", default=",".join(SETTINGS), help=f"default: {','.join(SETTINGS)}")
    parser.add_argument("--windows", type=int, default=400, help="held-out windows (default: 400)")
    parser.add_argument("--episodes", type=int, default=200, help="of each success rate (default: 200)")
    parser.add_argument("--eval-seed", type=int, default=100_000, help="first scene (default: 100000)")
    parser.add_argument("--folder", type=Path, default=Path("outputs/lossy_settings"), help="of the evaluations")
    args = parser.parse_args(arguments)
    names = args.settings.split(",")
    if unknown := set(names) - SETTINGS.keys():
        parser.error(f"--settings has {', '.join(sorted(unknown))}; expected some of {', '.join(SETTINGS)}")
    torch.set_num_threads(1)
    metrics = measure(
        args.checkpoint, args.dataset, args.arm, names, args.windows, args.episodes, args.eval_seed, args.folder
    )
    show(metrics["settings"])
    if names[0] == "exact":
        write_result("lossy_settings", metrics, args.eval_seed, command_line("lossy_settings", arguments))


if __name__ == "__main__":
    main()
