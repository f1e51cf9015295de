"""Say what is in a checkpoint, what it needs, and whether it fits a dataset or a robot.

Reads headers only: it takes seconds whatever the size, and fetches no weights. Ends with 1 if something does not fit.
With --table: the memory that each preset needs on a GPU, for each way of training it and of spreading it over GPUs.

examples:
  lerobot-wam doctor outputs/train/checkpoints/last/pretrained_model
  lerobot-wam doctor user/policy --dataset user/recordings
  lerobot-wam doctor checkpoints/droid --robot so101_follower --json
  lerobot-wam doctor --table
"""

import argparse
import json
from dataclasses import asdict

HELP = "what is in a checkpoint, what it needs, whether it fits a dataset or a robot"
MISFIT = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "source", nargs="?", metavar="PATH|HUB_ID", help="checkpoint folder, or REPO[@REVISION] on the Hub"
    )
    what.add_argument("--table", action="store_true", help="memory per GPU of every preset, no checkpoint")
    parser.add_argument("--dataset", metavar="REPO_OR_FOLDER", help="LeRobotDataset that it is to be used with")
    parser.add_argument("--robot", metavar="TYPE", help="LeRobot's robot type that it is to act on")
    parser.add_argument("--verify", action="store_true", help="read an imported checkpoint whole, compare sha256")
    parser.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    """Print the findings.

    Raises:
        FileNotFoundError: The checkpoint or the dataset is missing.
        ValueError: It is no checkpoint, or the robot type is unknown.
    """
    if args.table:
        from lerobot_wam.doctor import table

        print(json.dumps([asdict(row) for row in table.rows()], indent=1) if args.json else table.as_text())
        return 0
    from lerobot_wam.doctor.checkup import check_up
    from lerobot_wam.doctor.fit import fit_dataset, fit_robot
    from lerobot_wam.doctor.text import as_text

    found, config = check_up(args.source, args.verify)
    for what, name, fit in (("dataset", args.dataset, fit_dataset), ("robot", args.robot, fit_robot)):
        if name is not None and config is not None:
            problems, notes = fit(config, name)
            found.problems += [f"{what} {name}: {text}" for text in problems]
            found.notes += [f"{what} {name}: {text}" for text in notes]
    print(json.dumps(asdict(found), indent=1) if args.json else as_text(found))
    return MISFIT if found.problems else 0
