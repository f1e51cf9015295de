"""Embodiments as text for a terminal."""

from collections.abc import Iterator

from lerobot_wam.embodiments.spec import CameraView, Dimension, EmbodimentSpec
from lerobot_wam.terminal import table, wrapped


def overview(specs: list[EmbodimentSpec]) -> str:
    """One line each, for `embodiment list`."""
    head = ("name", "state", "action", "cameras", "steps/s", "chunk", "LeRobot's robot types")
    rows = [
        (
            spec.name,
            str(len(spec.state)),
            str(len(spec.action)),
            str(len(spec.cameras)),
            f"{spec.fps:g}",
            f"{spec.chunk_steps / spec.fps:.2g} s",
            ", ".join(spec.robot_types),
        )
        for spec in specs
    ]
    return "\n".join(table([head, *rows], "<>>>>><"))


def as_text(spec: EmbodimentSpec) -> str:
    """Everything about one robot, for `embodiment show`."""
    rows, columns = spec.grid
    places = ", ".join(
        f"{short_name(camera)} in row {cell.row}, column {cell.col}"
        for camera, cell in zip(spec.cameras, spec.cells, strict=True)
    )
    normalization = spec.normalization
    clip = "not clipped" if normalization.clip is None else f"clipped at {normalization.clip:g}"
    lines = [
        spec.name,
        wrapped(f"  robot types: {', '.join(spec.robot_types) or 'none'}"),
        wrapped(f"  prompt: {spec.prompt}"),
        wrapped(f"  cameras: {places}, of a picture of {rows} x {columns} ({spec.view_layout})"),
        f"  timing: {spec.fps:g} steps/s; chunks of {spec.chunk_steps} actions, {spec.chunk_steps / spec.fps:.3g} s; "
        f"a video frame every {spec.video_stride} steps, {spec.fps / spec.video_stride:.3g} frames/s",
        f"  scaling: {normalization.mode}, grippers {normalization.gripper_mode}, "
        f"{'per step of the chunk' if normalization.per_step else 'pooled over the chunk'}, half ranges of at least "
        f"{normalization.min_half_range:g}, {clip}",
    ]
    if spec.state or spec.action:
        lines += ["", *table([("number", "unit", "from", "to", "state", "action", ""), *_numbers(spec)], "<<>>>><")]
    return "\n".join(lines)


def short_name(camera: CameraView) -> str:
    """A camera's name as its owner gave it to the driver."""
    return camera.key.removeprefix("observation.images.")


def _numbers(spec: EmbodimentSpec) -> Iterator[tuple[str, ...]]:
    """The rows of the table: every name once, with its place in either vector."""
    for name, dimension in {d.name: d for d in (*spec.state, *spec.action)}.items():
        places = [names.index(name) if name in names else None for names in (spec.state_names, spec.action_names)]
        yield (
            name,
            dimension.unit,
            *("" if limit is None else f"{limit:g}" for limit in (dimension.low, dimension.high)),
            *("" if place is None else str(place) for place in places),
            ", ".join(_marks(dimension)),
        )


def _marks(dimension: Dimension) -> Iterator[str]:
    if dimension.relative:
        yield "relative"
    if dimension.gripper:
        yield "gripper"
    if dimension.max_rate is not None:
        yield f"at most {dimension.max_rate:g} per second"
    if dimension.rest is not None:
        yield f"rests at {dimension.rest:g}"
