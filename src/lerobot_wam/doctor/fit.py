"""Hold a policy's configuration against a dataset or a robot that it is meant for."""

from pathlib import Path
from typing import Any

from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.drivers import describe_driver
from lerobot_wam.embodiments.datasets import ACTION, STATE, check_dataset, derive_embodiment
from lerobot_wam.embodiments.resolve import load_stored_embodiment
from lerobot_wam.embodiments.spec import EmbodimentSpec


def fit_dataset(config: WAMConfig, name: str) -> tuple[list[str], list[str]]:
    """Compare with a dataset's features, rate, cameras, widths, episode lengths and tasks.

    Args:
        config: The policy's.
        name: Folder of a LeRobotDataset, or its id on the Hub, of which only the metadata is fetched.

    Returns:
        What does not fit, each with the way out; and what one should know.
    """
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

    root = Path(name)
    if root.is_dir() and not (root / "meta" / "info.json").is_file():
        raise FileNotFoundError(f"no dataset at {name}: expected a LeRobotDataset folder with meta/info.json")
    local = root.is_dir()
    meta = LeRobotDatasetMetadata(f"local/{root.name}" if local else name, root=root if local else None)
    problems, notes = _fit(config, meta.features, meta.fps, meta.robot_type)
    longest = max(meta.episodes["length"])
    if longest <= config.drop_n_last_frames:
        problems.append(
            f"its longest episode has {longest} steps, but no window starts in the last {config.drop_n_last_frames}: "
            "set --policy.drop_n_last_frames=0 to train on masked tails"
        )
    tasks = [str(task) for task in meta.tasks.index]
    if not all(task.strip() for task in tasks):
        notes.append("some of its episodes have no task text")
    notes.append(f"{meta.total_episodes} episodes, {meta.total_frames} frames, {len(tasks)} tasks such as {tasks[0]!r}")
    return problems, notes


def fit_robot(config: WAMConfig, kind: str) -> tuple[list[str], list[str]]:
    """Compare with the joints of one of LeRobot's robot types; it is built, not connected. Returns as `fit_dataset`.

    Raises:
        ValueError: LeRobot knows no such type, or cannot make it here.
    """
    features = {key: feature for key, feature in describe_driver(kind).features.items() if key in (STATE, ACTION)}
    spec = _robot_of(config)
    cameras = [] if spec is None else [camera.key for camera in spec.cameras]
    # A robot type has no cameras and no rate of its own: the user gives it both.
    features |= {key: {"dtype": "video", "shape": (1, 1, 3)} for key in cameras}
    problems, notes = _fit(config, features, None, kind)
    if spec is not None:
        names = ", ".join(key.removeprefix("observation.images.") for key in cameras)
        notes.append(f"run it with cameras named {names} at {spec.fps:g} steps/s")
    return problems, notes


def _robot_of(config: WAMConfig) -> EmbodimentSpec | None:
    """The robot that the policy acts for."""
    if not config.embodiments:
        return None
    name = config.embodiment if config.embodiment in config.embodiments else next(iter(config.embodiments))
    return load_stored_embodiment(name, config.embodiments[name])[0]


def _fit(config: WAMConfig, features: Any, fps: float | None, robot_type: str | None) -> tuple[list[str], list[str]]:
    spec, notes = _robot_of(config), []
    try:
        if spec is None:
            spec = derive_embodiment(features, fps or 30, robot_type)
            notes.append(f"training on it would add the robot {spec.name!r}")
        else:
            check_dataset(spec, features, spec.fps if fps is None else fps)
            if robot_type not in (None, *spec.robot_types):
                notes.append(f"its robot type is {robot_type}, the policy's {' or '.join(spec.robot_types) or 'none'}")
    except ValueError as error:
        return [str(error)], notes
    sizes = {ACTION: (len(spec.action), config.action_dim), STATE: (len(spec.state), config.state_dim)}
    problems = [
        f"{key} has {found} dimensions, the policy room for {room}: it takes a policy with more"
        for key, (found, room) in sizes.items()
        if found > room
    ]
    return problems, notes
