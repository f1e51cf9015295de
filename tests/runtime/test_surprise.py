"""Surprise: reality against the dream, in units of what is usual, and what follows from it."""

import numpy as np
import pytest
import torch
from tiny_loops import CHUNKS, STEPS, frames, make_model, make_runtime, run, see
from torch import Tensor

from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.state import Session
from lerobot_wam.runtime.surprise import Alarm, Calibration, Reaction, Recorder, distance

HALF = STEPS // 2
NEVER, ALWAYS = torch.inf, 1e-9


def watched(reaction: Reaction = "ignore", threshold: float = NEVER, rest: float = np.nan) -> Runtime:
    """A runtime with an alarm at this distance."""
    runtime = make_runtime(make_model())
    calibration = Calibration([[1.0] * 24] * 2, [threshold] * 2, 0.99, [1, 1], "nothing", {})
    runtime.watching = Alarm({0: calibration}, reaction, {0: np.full(2, rest)})
    return runtime


def surprised(at: int, reaction: Reaction, steps: int, rest: float = np.nan) -> tuple[Session, Tensor, list[int]]:
    """Act on and on, surprised at step `at` alone: the session, its actions, and the steps at which it planned."""
    calm, alarmed = watched(), watched(reaction, ALWAYS, rest).watching
    easy, session = watched(reaction).watching, calm.new_session(0)
    actions, planned = [], []
    for step in range(steps):
        calm.watching = alarmed if step == at else easy
        actions.append(run(calm, session, [step])[0])
        planned += [step] if session.steps == 1 else []
    return session, torch.stack(actions), planned


def usual_errors(count: int, generator: torch.Generator) -> list[Tensor]:
    size = torch.tensor([1.0, 2.0, 9.0])[:, None, None]
    return [torch.randn(3, 4, 4, generator=generator) * size for _ in range(count)]


def test_the_distance_is_that_of_the_worst_cells_in_units_of_each_channels_usual_error():
    error = torch.zeros(2, 5, 2)
    error[:, 0, 0], error[:, 3, 1] = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 9.0])
    assert distance(error, torch.tensor([1.0, 3.0])) == pytest.approx((4 / 2 + 9 / 2) / 2)


def test_what_is_usual_exceeds_the_threshold_as_seldom_as_the_quantile_says():
    generator = torch.Generator().manual_seed(0)
    calibration = Calibration.fit([usual_errors(400, generator)], 0.9, "noise", {})
    assert calibration.scale[0] == pytest.approx([1, 2, 9], rel=0.1)
    above = [calibration.surprise(0, error) > 1 for error in usual_errors(2000, generator)]
    assert np.mean(above) == pytest.approx(0.1, abs=0.04)


def test_too_few_recordings_for_a_quantile_are_refused():
    found = usual_errors(18, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"18 recorded chunks reach latent frame 1, a quantile of 0\.95 needs 19"):
        Calibration.fit([[*found, found[0]], found], 0.95, "noise", {})


def test_every_chunk_is_compared_with_what_came_also_where_the_window_starts_anew():
    runtime = make_runtime(make_model(), video_final_sigma=0.5)
    runtime.watching = recorder = Recorder(([], []))
    session = runtime.new_session(0)
    for chunk in range(CHUNKS + 1):
        run(runtime, session, range(chunk * STEPS, (chunk + 1) * STEPS))
        dream = session.dream
        run(runtime, session, [(chunk + 1) * STEPS]) if chunk == CHUNKS else runtime.encode_ahead([session])
        assert dream is not None
        assert dream.starts_window == (chunk % CHUNKS == 0)
        seen = runtime.video_codec.encode(frames(range(chunk * STEPS, (chunk + 1) * STEPS + 1)))[0, :, 1:]
        assert len(recorder.errors[0]) == chunk + 1
        torch.testing.assert_close(recorder.errors[0][chunk], (seen - dream.expected)[:, 0])
    assert len(recorder.errors[1]) == CHUNKS + 1
    torch.testing.assert_close(recorder.errors[1][CHUNKS], (seen - dream.expected)[:, 1])


def test_watching_changes_no_action():
    plain, runtime = make_runtime(make_model()), watched("ignore", ALWAYS)
    steps = range(4 * STEPS)
    assert torch.equal(run(plain, plain.new_session(0), steps), run(runtime, runtime.new_session(0), steps))


def test_the_first_surprise_is_known_after_half_a_chunk():
    runtime = watched("ignore", ALWAYS)
    session = runtime.new_session(0)
    run(runtime, session, range(HALF))
    assert session.surprise is None
    run(runtime, session, [HALF])
    assert session.surprise is not None
    assert session.surprise > 1


def test_robots_of_one_batch_are_surprised_as_alone():
    runtime, single = watched("ignore", 1.0), watched("ignore", 1.0)
    robots, alone = [runtime.new_session(robot) for robot in (0, 1)], [single.new_session(robot) for robot in (0, 1)]
    for step in range(STEPS + HALF + 1):
        runtime.act(robots, [see(step, robot) for robot in (0, 1)])
        for robot in (0, 1):
            run(single, alone[robot], [step], robot)
    assert [s.surprise for s in robots] == pytest.approx([s.surprise for s in alone], rel=1e-4)
    assert robots[0].surprise != robots[1].surprise


def test_replanning_starts_a_window_in_the_middle_of_a_chunk():
    session, _, planned = surprised(STEPS + HALF, "replan", STEPS + HALF + 1)
    assert planned == [0, STEPS, STEPS + HALF]
    assert session.dream is not None
    assert session.dream.starts_window


def test_a_shortened_chunk_is_half_executed_and_the_next_one_whole_again():
    assert surprised(STEPS, "shorten", 4 * STEPS)[2] == [0, STEPS, STEPS + HALF, 2 * STEPS + HALF, 3 * STEPS + HALF]


def test_handing_over_repeats_the_last_command_until_another_instruction():
    session, actions, _ = surprised(STEPS + HALF, "hand_over", 3 * STEPS)
    at = STEPS + HALF
    assert torch.equal(actions[at:], actions[at - 1].expand(3 * STEPS - at, -1))
    runtime = watched("hand_over")
    run(runtime, session, [3 * STEPS], task="push blue")
    assert session.held is None


def test_a_velocity_stands_still_at_rest():
    _, actions, _ = surprised(STEPS + HALF, "hand_over", 2 * STEPS, rest=0.0)
    assert torch.equal(actions[STEPS + HALF :], torch.zeros(HALF, 2))


def test_frames_that_were_lost_on_the_way_surprise_nobody():
    runtime = watched("ignore", ALWAYS)
    session = runtime.new_session(0)
    run(runtime, session, range(HALF))
    session.end_window()
    session.begin_block([])
    run(runtime, session, range(HALF, STEPS + 1))
    assert session.surprise is None


def test_a_dream_of_no_number_is_no_calm():
    runtime = watched("replan")
    session = runtime.new_session(0)
    run(runtime, session, range(HALF))
    assert session.dream is not None
    session.dream.expected.fill_(torch.nan)
    run(runtime, session, [HALF])
    assert session.steps == 1
