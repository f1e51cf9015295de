"""Record scripted episodes of the simulated tabletop into a LeRobotDataset.

Interrupted, it continues where it stopped; asked for more episodes, it extends the dataset.
"""

import argparse
import os
from pathlib import Path

from lerobot_wam.sim.arms import ARMS

HELP = "record simulated demonstrations and play"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--episodes", type=int, required=True, help="episodes that the dataset shall hold")
    parser.add_argument("--arm", default="viperx", help=f"{', '.join(ARMS)} (default: viperx)")
    parser.add_argument(
        "--tasks",
        default="single",
        help="single, seen, unseen, two_stage, two_stage_seen, two_stage_unseen, play, named_play (called after what "
        "happened), task names such as left-red,touch-blue, or shares of these such as single:12,two_stage:3,play:1 "
        "(default: single)",
    )
    parser.add_argument(
        "--looks", default="plain", help="plain, varied, unseen, or the name of one look such as oak (default: plain)"
    )
    parser.add_argument("--image-size", type=int, default=64, help="edge of the camera image in pixels (default: 64)")
    parser.add_argument("--cameras", default="front", help="front, side, or front,side (default: front)")
    parser.add_argument(
        "--fps", type=int, default=10, help="control steps and frames per second: 10 or 20 (default: 10)"
    )
    parser.add_argument("--seed", type=int, default=0, help="recordings of different seeds share no scene")
    parser.add_argument("--videos", action="store_true", help="store video instead of single images")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")


def run(args: argparse.Namespace) -> int:
    """Record, and say what was written."""
    from lerobot_wam.sim.episodes import Recipe
    from lerobot_wam.sim.record import record

    cameras = tuple(args.cameras.split(","))
    recipe = Recipe(args.tasks, args.arm, args.image_size, args.seed, cameras=cameras, fps=args.fps, looks=args.looks)
    report = record(args.root, args.episodes, recipe, use_videos=args.videos, workers=args.workers)
    print(f"{report.root}: {report.episodes} episodes, {report.recorded} of them new ({report.attempts} attempts)")
    return 0
