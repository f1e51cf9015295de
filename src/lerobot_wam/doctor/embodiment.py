"""Embodiments drafted for a new robot, and held against what they are meant for."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lerobot.configs import PreTrainedConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from lerobot_wam.checkpoints.source import Source
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.data.recipe import MixtureEntry
from lerobot_wam.data.source import open_metadata
from lerobot_wam.data.timing import retimed, window_timing
from lerobot_wam.drivers import Driver
from lerobot_wam.embodiments.datasets import Features, cameras_of, misfits
from lerobot_wam.embodiments.resolve import check_numbers, find_embodiment, load_stored_embodiment
from lerobot_wam.embodiments.spec import EmbodimentSpec
from lerobot_wam.embodiments.statistics import read_columns
from lerobot_wam.embodiments.text import short_name

type Findings = tuple[list[str], list[str]]
"""What does not fit, each with the way out; and what one should know."""


def draft(features: Features, fps: float, robot_type: str | None, name: str | None) -> EmbodimentSpec:
    """Write down a robot from what a dataset or a driver declares, at its rate, for a person to look over.

    A built-in robot's numbers keep their units and limits, and its chunk about its seconds.

    Args:
        features: What is declared.
        fps: Control steps per second.
        robot_type: LeRobot's robot type.
        name: The embodiment's; None takes the built-in robot's or the robot type.

    Raises:
        ValueError: No camera, or a vector that is none.
    """
    spec = find_embodiment("auto", features, fps, robot_type)
    stride = max(1, round(spec.video_stride * fps / spec.fps))
    return replace(
        spec,
        name=name or spec.name,
        fps=float(fps),
        video_stride=stride,
        chunk_steps=spec.frames_per_chunk * stride,
    )


def dataset_metadata(repo_id: str | None, root: Path | None) -> LeRobotDatasetMetadata:
    """Return the metadata of `--dataset.repo_id` and `--dataset.root`, of which one is enough.

    Raises:
        FileNotFoundError: There is no such dataset.
    """
    if root is not None and not (root / "meta" / "info.json").is_file():
        raise FileNotFoundError(f"no dataset at {root}: expected a LeRobotDataset folder with meta/info.json")
    return open_metadata(
        MixtureEntry(repo_id or f"local/{root.name if root else ''}", None if root is None else str(root))
    )


def against_dataset(spec: EmbodimentSpec, meta: LeRobotDatasetMetadata) -> Findings:
    """Compare with a dataset's features, rate, episode lengths and, where they are on this disk, its numbers."""
    problems = list(misfits(spec, meta.features, spec.fps))
    notes = _other_type(spec, meta.robot_type)
    try:
        notes.append(window_timing(spec, meta.fps, 1).text)
    except ValueError as error:
        problems.append(str(error))
    longest = max(meta.episodes["length"], default=0) / meta.fps
    if longest < spec.video_stride / spec.fps:
        problems.append(f"its longest episode lasts {longest:.2g} s, less than two video frames: record longer ones")
    elif longest < spec.chunk_steps / spec.fps:
        notes.append(
            f"its longest episode lasts {longest:.2g} s, a chunk {spec.chunk_steps / spec.fps:.2g} s: the rest is "
            "masked in training (needs --policy.drop_n_last_frames=0)"
        )
    if not problems and (meta.root / "data").is_dir():
        try:
            check_numbers(spec, read_columns(meta.root))
        except ValueError as error:
            problems.append(str(error))
    return problems, notes


def against_driver(spec: EmbodimentSpec, driver: Driver) -> Findings:
    """Compare with what a robot's driver declares."""
    notes, features = _other_type(spec, driver.robot_type), driver.features
    if not cameras_of(features):
        features = {**features, **{camera.key: {"dtype": "video"} for camera in spec.cameras}}
        notes.append(f"run it with --robot.cameras named {', '.join(short_name(camera) for camera in spec.cameras)}")
    notes.append(f"run it at {spec.fps:g} steps/s")
    return list(misfits(spec, features, spec.fps, f"the driver {driver.robot_type}")), notes


def against_policy(spec: EmbodimentSpec, path: str) -> Findings:
    """Compare with a checkpoint, of which only `config.json` is read.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: It is no policy of ours.
    """
    config = PreTrainedConfig.from_pretrained(Source.parse(path).fetch(["config.json"]))
    if not isinstance(config, WAMConfig):
        raise ValueError(f"{path} is a policy of type {config.type!r}, expected one of type 'wam'")
    at_policy_rate = retimed(spec, config.video_stride, config.chunk_steps)
    seconds = f"its chunk of {spec.chunk_steps / spec.fps:.3g} s has {config.chunk_steps} actions there, one every "
    notes = [seconds + f"{1 / at_policy_rate.fps:.3g} s"]
    if spec.name in config.embodiments:
        known, _ = load_stored_embodiment(spec.name, config.embodiments[spec.name])
        return list(_changes(at_policy_rate, known)), notes
    names = ", ".join(config.embodiments) or "none"
    notes.append(f"the checkpoint knows {names}; lerobot-wam adapt adds {spec.name}")
    sizes = {"state": (len(spec.state), config.state_dim), "action": (len(spec.action), config.action_dim)}
    return [
        f"{kind} has {found} numbers, the checkpoint room for {room}: it takes a policy trained with "
        f"--policy.{kind}_dim={found} or more"
        for kind, (found, room) in sizes.items()
        if found > room
    ], notes


def _changes(spec: EmbodimentSpec, known: EmbodimentSpec) -> Iterator[str]:
    """Where an embodiment differs from the one of its name that a checkpoint was trained with."""
    sides = [
        {
            "cameras": [
                (short_name(camera), (cell.row, cell.col)) for camera, cell in zip(e.cameras, e.cells, strict=True)
            ],
            "the state": list(e.state_names),
            "the action": list(e.action_names),
            "relative actions": [d.name for d in e.action if d.relative],
            "grippers": [d.name for d in (*e.state, *e.action) if d.gripper],
            "steps/s at the checkpoint's chunk": round(e.fps, 3),
            "prompt": e.prompt,
            "crop and colours": e.video,
            "scaling": e.normalization,
        }
        for e in (spec, known)
    ]
    for what, found in sides[0].items():
        if found != sides[1][what]:
            yield (
                f"{what}: {found}, the checkpoint was trained with {sides[1][what]}: the checkpoint keeps its own, so "
                "correct the file, or give it another name and add it with lerobot-wam adapt"
            )


def _other_type(spec: EmbodimentSpec, robot_type: str | None) -> list[str]:
    if robot_type in (None, *spec.robot_types):
        return []
    return [f"its robot type is {robot_type}, the embodiment's {' or '.join(spec.robot_types) or 'none'}"]
