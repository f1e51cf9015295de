"""What a configuration has to do with LeRobot's command line: errors that it prints in a line, a flag it must check."""

import sys
from pathlib import Path

import httpx
from draccus.utils import DecodingError
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from lerobot.configs import parser
from lerobot.utils.constants import HF_LEROBOT_HOME


class SettingError(DecodingError):
    """A setting that does not fit. LeRobot's command line prints the message of this kind of error, no traceback."""

    def __init__(self, message: str) -> None:
        super().__init__((), message)


def check_dataset_argument() -> None:
    """Refuse `lerobot-train --dataset.repo_id=...` of what is neither on this disk nor on the Hub.

    Other commands may name a dataset that they are about to record.

    Raises:
        SettingError: One line, where the Hub's client would report sixty.
    """
    repo_id, root = parser.parse_arg("dataset.repo_id"), parser.parse_arg("dataset.root")
    training = Path(sys.argv[0]).stem.replace("-", "_") == "lerobot_train"
    if not training or repo_id is None or parser.parse_arg("dataset.repo_type") == "bucket":
        return
    folder = Path(root) if root else HF_LEROBOT_HOME / repo_id
    if (folder / "meta" / "info.json").is_file():
        return
    try:
        on_hub = HfApi().repo_exists(repo_id, repo_type="dataset")
    except (OSError, httpx.HTTPError, HFValidationError):
        # Offline, LeRobot's own cache may still hold what no --dataset.root names.
        on_hub = root is None
    if not on_hub:
        raise SettingError(
            f"no dataset {repo_id!r}: {folder} has no meta/info.json, and the Hub has none of that name (or cannot be "
            "reached): set --dataset.root to the folder of a LeRobotDataset v3, or correct --dataset.repo_id"
        )


def check_rollout_rate(robot: str, trained: float) -> None:
    """Refuse `lerobot-rollout` at another number of control steps a second than the policy knows.

    LeRobot tells a policy nothing about `--fps`, whose default is 30: a policy of 10 steps a second would move the arm
    three times as fast as it was shown.

    Raises:
        SettingError: One line with the flag to give.
    """
    if Path(sys.argv[0]).stem.replace("-", "_") != "lerobot_rollout" or parser.parse_arg("config_path") is not None:
        return
    given = parser.parse_arg("fps")
    asked = 30.0 if given is None else float(given)
    if asked != trained:
        raise SettingError(
            f"--fps is {asked:g}{" (LeRobot's default)" if given is None else ''}, but the policy was trained on "
            f"{robot!r} at {trained:g} control steps a second: give --fps={trained:g}; with --interpolation_multiplier "
            "the arm gets more steps in between"
        )
