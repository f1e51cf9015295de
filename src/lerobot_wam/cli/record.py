"""Record scripted episodes of the simulated tabletop, or of Meta-World, into a LeRobotDataset.

Interrupted, it continues where it stopped; asked for more episodes, it extends the dataset.
"""

import argparse
import os
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from lerobot_wam.sim.arms import ARMS

HELP = "record simulated demonstrations and play"
WORLDS = {"tabletop": "lerobot_wam.sim.episodes", "metaworld": "lerobot_wam.metaworld.episodes"}
RECIPE = ("tasks", "arm", "image_size", "seed", "cameras", "fps", "looks")
"""The options that say what is recorded."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--episodes", type=int, required=True, help="episodes that the dataset shall hold")
    parser.add_argument("--world", choices=WORLDS, default="tabletop", help="default: tabletop")
    parser.add_argument("--arm", help=f"of the tabletop: {', '.join(ARMS)} (default: viperx)")
    parser.add_argument(
        "--tasks",
        help="of the tabletop: single, seen, unseen, two_stage, two_stage_seen, two_stage_unseen, play, named_play "
        "(called after what happened), with a gripper place, stack (each also with _seen or _unseen) and tower, task "
        "names such as left-red,touch-blue, or shares of these such as "
        "single:12,two_stage:3,play:1 (default: single). Of Meta-World: all, seen, unseen, mirror_seen, mirror_unseen, "
        "or names such as drawer-open-v3 (default: all)",
    )
    parser.add_argument(
        "--looks",
        help="of the tabletop: plain, varied, unseen, or the name of one look such as oak (default: plain)",
    )
    parser.add_argument("--image-size", type=int, help="edge of the camera image in pixels (default: 64)")
    parser.add_argument("--cameras", type=_names, help="of the tabletop: front, side, or front,side (default: front)")
    parser.add_argument(
        "--fps", type=int, help="of the tabletop, control steps and frames per second: 10 or 20 (default: 10)"
    )
    parser.add_argument("--seed", type=int, help="recordings of different seeds share no scene (default: 0)")
    parser.add_argument("--videos", action="store_true", help="store video instead of single images")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def run(args: argparse.Namespace) -> int:
    """Record, and say what was written.

    Raises:
        ValueError: the world has no such option, or the option no such value.
    """
    from lerobot_wam.sim.record import record

    world: Any = import_module(WORLDS[args.world]).Recipe
    given = {name: value for name in RECIPE if (value := getattr(args, name)) is not None}
    if foreign := given.keys() - {field.name for field in fields(world)}:
        raise ValueError(f"--world={args.world} has no {', '.join(sorted(foreign))}; leave it out")
    report = record(args.root, args.episodes, world(**given), use_videos=args.videos, workers=args.workers)
    print(f"{report.root}: {report.episodes} episodes, {report.recorded} of them new ({report.attempts} attempts)")
    return 0
