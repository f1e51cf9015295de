"""Make a LeRobotDataset of a folder of videos: people or robots at work, without actions.

Searches FOLDER and the folders within it for mp4, mov, webm, mkv, avi and m4v. Captions come from captions.csv,
captions.jsonl, metadata.csv or metadata.jsonl in FOLDER (columns `file` or `file_name`, and `caption`, `text` or
`task`), else from a .txt file beside each clip; a clip without one is called by its file name. Every clip is brought to
one frame rate, by the frame nearest in time, and to one size, with its proportions kept. All clips are looked at before
any is written. Interrupted, the same command goes on where it stopped.

examples:
  lerobot-wam ingest my_videos --out=outputs/humans
  lerobot-wam ingest my_videos --out=outputs/humans --fps=5 --size=240x320 --max-seconds=60 --captions=labels.csv
then:
  lerobot-train --policy.type=wam --dataset.repo_id=local/humans --dataset.root=outputs/humans \\
      --policy.push_to_hub=false
"""

import argparse
import logging
import re
from pathlib import Path

HELP = "a LeRobotDataset without actions, from a folder of videos and captions"


def _size(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"\d+x\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r}, expected HEIGHTxWIDTH such as 240x320")
    height, _, width = text.partition("x")
    return int(height), int(width)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the videos are")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the dataset's folder; must not exist")
    parser.add_argument("--fps", type=int, default=10, metavar="N", help="frames per second of the dataset (10)")
    parser.add_argument(
        "--size",
        type=_size,
        metavar="HxW",
        help="height and width of the pictures (those of the first clip, the shorter side at most 256)",
    )
    parser.add_argument("--letterbox", action="store_true", help="fit pictures in with black bars, do not cut them")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="CSV or JSON lines, in place of those in FOLDER")
    parser.add_argument("--max-seconds", type=float, metavar="S", help="make several episodes of longer clips")
    parser.add_argument("--camera", default="video", metavar="NAME", help="camera observation.images.NAME (video)")
    parser.add_argument(
        "--robot-type", default="video", metavar="NAME", help="whose videos: the embodiment's name in a policy (video)"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out what cannot be read, instead of stopping")


def run(args: argparse.Namespace) -> int:
    """Write the dataset, and say what is in it.

    Raises:
        FileNotFoundError: There is no folder, no video in it, or no such file of captions.
        ValueError: A setting, a clip or a caption is bad, or the dataset's folder holds something else.
    """
    from lerobot_wam.training.ingest import IngestSettings, ingest

    logging.basicConfig(format="%(message)s", force=True)
    logging.getLogger("lerobot_wam.training").setLevel(logging.INFO)
    settings = IngestSettings(
        args.fps, args.size, args.letterbox, args.camera, args.robot_type, max_seconds=args.max_seconds
    )
    report = ingest(args.folder, args.out, settings, args.captions, args.skip_bad)
    left_out = f"; {len(report.skipped)} left out" if report.skipped else ""
    print(f"{report.root}: {report.episodes} episodes, {report.frames} frames{left_out}")
    return 0
