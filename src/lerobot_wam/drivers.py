"""What LeRobot's robot drivers declare about themselves. A driver is built, never connected."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from tempfile import TemporaryDirectory
from typing import Any, get_type_hints

import yaml

from lerobot_wam.embodiments.datasets import ACTION, Features

PREFIX = "--robot."


@dataclass(frozen=True)
class Driver:
    """What `lerobot-record` would write into a dataset's metadata.

    Attributes:
        robot_type: The driver's name, which need not be the type that it is called by: `so_follower` for both arms.
        features: The dataset's features.
    """

    robot_type: str
    features: Features


def describe_driver(kind: str, settings: Sequence[str] = ()) -> Driver:
    """Build a robot's driver and return what it declares.

    Args:
        kind: LeRobot's robot type, such as `so101_follower`; plugins' robots included.
        settings: Flags as `lerobot-record` takes them, `--robot.cameras={...}` above all. What only a connection needs,
            such as a port, may be left out.

    Raises:
        ValueError: LeRobot knows no such type, a setting is wrong, or the driver cannot be built here.
    """
    import draccus
    from draccus.utils import DecodingError
    from lerobot.robots import RobotConfig, make_robot_from_config
    from lerobot.scripts import lerobot_record  # noqa: F401 (registers LeRobot's robot types)
    from lerobot.utils.feature_utils import hw_to_dataset_features
    from lerobot.utils.import_utils import register_third_party_plugins

    register_third_party_plugins()
    known = RobotConfig.get_known_choices()
    if kind not in known:
        raise ValueError(f"LeRobot knows no robot type {kind!r}: choose one of {', '.join(sorted(known))}")
    with TemporaryDirectory() as calibration:  # a driver makes its folder for that at once
        values = {**_needed(known[kind]), "calibration_dir": calibration, **dict(map(_assignment, settings))}
        try:
            robot = make_robot_from_config(draccus.decode(known[kind], _nested(values)))
        except (DecodingError, ImportError, TypeError, AttributeError, ValueError) as error:
            reason = str(error.__cause__ or error).partition("\n")[0]
            raise ValueError(f"robot type {kind!r} cannot be built here: {reason}") from error
        return Driver(
            robot.name,
            {
                **hw_to_dataset_features(robot.observation_features, "observation"),
                **hw_to_dataset_features(robot.action_features, ACTION),
            },
        )


def _assignment(word: str) -> tuple[str, Any]:
    """`--robot.a.b=VALUE` as `a.b` and the value, which is YAML."""
    name, sign, value = word.partition("=")
    if not name.startswith(PREFIX) or not sign:
        raise ValueError(f"found the argument {word!r}, expected {PREFIX}NAME=VALUE as lerobot-record takes it")
    return name.removeprefix(PREFIX), yaml.safe_load(value)


def _needed(kind: type) -> dict[str, Any]:
    """Placeholders for a configuration's settings without a default, by their dotted names."""
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for field in fields(kind):
        if field.default is field.default_factory is MISSING:
            inner = _needed(hints[field.name]) if is_dataclass(hints[field.name]) else {"": "none"}
            found |= {f"{field.name}.{name}".rstrip("."): value for name, value in inner.items()}
    return found


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """Dotted names as mappings in mappings."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        branch = tree
        for step in path:
            branch = branch.setdefault(step, {})
        branch[last] = value
    return tree
