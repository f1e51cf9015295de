"""Find the embodiment that a policy is to be trained for, and measure its statistics."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lerobot_wam.embodiments.action_space import ActionStatistics
from lerobot_wam.embodiments.datasets import EmbodimentMismatchError, check_dataset, derive_embodiment
from lerobot_wam.embodiments.spec import EmbodimentSpec, builtin_names, load_embodiment
from lerobot_wam.embodiments.statistics import Columns, compute_statistics


def resolve_embodiment(
    name: str,
    features: Mapping[str, Mapping[str, Any]],
    fps: float,
    robot_type: str | None,
    video_stride: int,
    chunk_steps: int,
) -> EmbodimentSpec:
    """Return the spec that fits a dataset.

    Args:
        name: Built-in name, path of a YAML file, or "auto": the built-in embodiment of `robot_type` if it fits the
            dataset, else one derived from the dataset's features.
        features: The dataset's features.
        fps: The dataset's control steps per second.
        robot_type: The dataset's robot type.
        video_stride: Control steps between video frames that the policy was configured with. Where it differs from
            the embodiment's, it was set on purpose, for a dataset of another rate.
        chunk_steps: Actions per chunk that the policy was configured with.

    Raises:
        EmbodimentMismatchError: The dataset does not fit the named embodiment; the message names the fix.
    """
    if name == "auto":
        spec = _builtin_for(robot_type, features, fps) or derive_embodiment(
            features, fps, robot_type, video_stride=video_stride
        )
    else:
        spec = load_embodiment(name)
    if (spec.video_stride, spec.chunk_steps) != (video_stride, chunk_steps):
        spec = replace(spec, fps=fps, video_stride=video_stride, chunk_steps=chunk_steps)
    check_dataset(spec, features, fps)
    return spec


def _builtin_for(
    robot_type: str | None, features: Mapping[str, Mapping[str, Any]], fps: float
) -> EmbodimentSpec | None:
    for name in builtin_names():
        spec = load_embodiment(name)
        if robot_type in spec.robot_types and ("action" in features or not spec.action):
            try:
                check_dataset(spec, features, fps)
            except EmbodimentMismatchError:
                continue  # the same robot with other cameras or another rate: derive what is really there
            return spec
    return None


def stored_embodiment(spec: EmbodimentSpec, columns: Columns) -> dict[str, Any]:
    """Return what a checkpoint keeps of an embodiment: its spec and the statistics of its data, as JSON values."""
    return {"spec": spec.to_dict(), "statistics": compute_statistics(columns, spec).to_dict()}


def check_numbers(spec: EmbodimentSpec, columns: Columns) -> None:
    """Refuse numbers that a stored embodiment cannot take; states or actions that the data lacks are left out.

    Raises:
        ValueError: A column has another width than the spec's, or holds NaN or infinity.
    """
    state = () if columns.state is None else spec.state
    action = () if columns.action is None else spec.action
    compute_statistics(columns, replace(spec, state=state, action=action))


def load_stored_embodiment(
    name: str, stored: Mapping[str, Any], prompt: str | None = None
) -> tuple[EmbodimentSpec, ActionStatistics]:
    """The inverse of `stored_embodiment`; a `prompt` that the weights were trained with replaces the spec's own."""
    spec = EmbodimentSpec.from_dict(stored["spec"], where=f"stored embodiment {name}")
    return spec if prompt is None else replace(spec, prompt=prompt), ActionStatistics.from_dict(stored["statistics"])
