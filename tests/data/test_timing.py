"""Windows by time, whatever the rates."""

import pytest

from lerobot_wam.data.timing import retimed, window_timing
from lerobot_wam.embodiments.spec import CameraView, Dimension, EmbodimentSpec


def robot(fps: float, stride: int, action: bool = True) -> EmbodimentSpec:
    return EmbodimentSpec(
        name="arm",
        cameras=(CameraView("observation.images.front"),),
        state=(),
        action=(Dimension("a"),) if action else (),
        fps=fps,
        video_stride=stride,
        chunk_steps=8 * stride,
    )


def test_in_a_policy_a_chunk_keeps_its_seconds():
    spec = retimed(robot(fps=15, stride=3), video_stride=1, chunk_steps=8)
    assert (spec.fps, spec.video_stride, spec.chunk_steps) == (5, 1, 8)
    assert retimed(spec, 3, 24) == robot(fps=15, stride=3)


def test_a_dataset_of_the_same_rate_gives_every_frame():
    timing = window_timing(robot(fps=10, stride=1), 10, max_chunks=2)
    assert timing.frame_offsets == tuple(range(17))
    assert timing.state_offsets == (0, 8)
    assert timing.action_offsets == tuple(range(16))
    assert timing.exact


def test_a_faster_dataset_gives_every_nth_frame():
    timing = window_timing(robot(fps=10, stride=2), 30, max_chunks=1)
    assert timing.frame_offsets == tuple(range(0, 49, 6))
    assert timing.state_offsets == (0,)
    assert timing.action_offsets == tuple(range(0, 48, 3))
    assert timing.exact
    assert timing.text == "30 frames/s -> 10 actions/s (every 3), 5 video frames/s (every 6), exact"


def test_between_frames_the_nearest_one_stands_in_and_it_is_said():
    timing = window_timing(robot(fps=10, stride=1), 25, max_chunks=1)
    assert timing.action_offsets == (0, 3, 5, 8, 10, 13, 15, 18)
    assert not timing.exact
    assert "every 2.5" in timing.text
    assert "the nearest frame where none fits" in timing.text


@pytest.mark.parametrize("fps", [10, 10.1, 12.5, 15, 29.97])
def test_no_frame_is_taken_twice(fps: float):
    offsets = window_timing(robot(fps=10, stride=1), fps, max_chunks=4).action_offsets
    assert len(set(offsets)) == 32


def test_a_rate_that_is_no_binary_fraction_stays_exact():
    timing = window_timing(retimed(robot(fps=30, stride=6), 1, 8), 30, max_chunks=4)
    assert timing.exact
    assert timing.frame_offsets == tuple(range(0, 193, 6))


def test_a_dataset_too_slow_for_the_actions_is_refused():
    with pytest.raises(ValueError, match=r"5 frames/s, 'arm' needs 10 actions/s \(8 steps in 0.8 s\)"):
        window_timing(robot(fps=10, stride=1), 5, max_chunks=1)


def test_video_alone_needs_no_more_frames_than_are_shown():
    timing = window_timing(robot(fps=15, stride=3, action=False), 5, max_chunks=1)
    assert timing.frame_offsets == tuple(range(9))
    assert timing.exact
    with pytest.raises(ValueError, match="needs 5 video frames/s"):
        window_timing(robot(fps=15, stride=3, action=False), 4, max_chunks=1)
