"""Windows by time: which frames of a dataset a policy's window takes, whatever their rates.

An embodiment says in seconds how long a chunk is, and a policy in steps. In a policy the seconds stay: the robot's
control rate there is the policy's `chunk_steps` in the time of the embodiment's chunk. Datasets are faster than that,
or as fast, and every nth frame is taken.
"""

import math
from dataclasses import dataclass, replace

from lerobot_wam.embodiments.spec import EmbodimentSpec


@dataclass(frozen=True)
class Timing:
    """Where a window's values lie, in dataset frames from its first.

    Attributes:
        frame_offsets: video frames, T = 1 + max_chunks * chunk_steps / video_stride.
        state_offsets: states, one at each chunk's first step, N = max_chunks.
        action_offsets: actions, one a control step, N * chunk_steps.
        exact: every offset is a whole number of frames; else the nearest frame stands in.
        text: the same in words.
    """

    frame_offsets: tuple[int, ...]
    state_offsets: tuple[int, ...]
    action_offsets: tuple[int, ...]
    exact: bool
    text: str


def retimed(spec: EmbodimentSpec, video_stride: int, chunk_steps: int) -> EmbodimentSpec:
    """Return an embodiment with a policy's steps; its chunk keeps its seconds, so the control rate changes."""
    fps = chunk_steps * spec.fps / spec.chunk_steps
    return replace(spec, fps=fps, video_stride=video_stride, chunk_steps=chunk_steps)


def window_timing(spec: EmbodimentSpec, dataset_fps: float, max_chunks: int) -> Timing:
    """Return the frames of a dataset that the windows of an embodiment take.

    Args:
        spec: The embodiment at the policy's rate (see `retimed`). Without actions, only its video is looked at.
        dataset_fps: Frames per second of the dataset.
        max_chunks: Chunks in a window.

    Raises:
        ValueError: The dataset has fewer frames per second than the window needs.
    """
    ratio = dataset_fps / spec.fps
    what, needed = ("actions", spec.fps) if spec.action else ("video frames", spec.fps / spec.video_stride)
    if dataset_fps < needed and not math.isclose(dataset_fps, needed):
        raise ValueError(
            f"the dataset has {dataset_fps:g} frames/s, {spec.name!r} needs {needed:g} {what}/s "
            f"({spec.chunk_steps} steps in {spec.chunk_steps / spec.fps:g} s): use a faster recording, or an "
            "embodiment file whose chunk lasts longer (chunk_steps / fps)"
        )
    step = ratio if spec.action else ratio * spec.video_stride
    exact = math.isclose(step, round(step))
    steps = max_chunks * spec.chunk_steps
    kind = "exact" if exact else "the nearest frame where none fits"
    return Timing(
        frame_offsets=_offsets(range(0, steps + 1, spec.video_stride), ratio),
        state_offsets=_offsets(range(0, steps, spec.chunk_steps), ratio),
        action_offsets=_offsets(range(steps), ratio),
        exact=exact,
        text=f"{dataset_fps:g} frames/s -> {spec.fps:g} actions/s (every {ratio:g}), "
        f"{spec.fps / spec.video_stride:g} video frames/s (every {ratio * spec.video_stride:g}), {kind}",
    )


def _offsets(steps: range, ratio: float) -> tuple[int, ...]:
    # Half a frame is always rounded up: halves to even would take some frames twice. The digits behind the ninth are
    # the ratio's own rounding.
    return tuple(math.floor(round(step * ratio, 9) + 0.5) for step in steps)
