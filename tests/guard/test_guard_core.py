"""The guard's state machine, in numbers alone."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lerobot_wam.embodiments.spec import CameraView, Dimension, EmbodimentSpec
from lerobot_wam.guard.contract import Contract
from lerobot_wam.guard.guard import RAMP_SECONDS, Guard, GuardError
from lerobot_wam.guard.settings import GuardSettings

FPS = 10.0
SPEC = EmbodimentSpec(
    name="cart",
    cameras=(CameraView("observation.images.front"),),
    state=(Dimension("grip.pos"), Dimension("lift.pos"), Dimension("x.vel")),
    action=(
        Dimension("lift.pos", low=-1, high=1, max_rate=2.0),
        Dimension("grip.pos", low=0, high=100),
        Dimension("x.vel", rest=0),
    ),
    fps=FPS,
    video_stride=1,
    chunk_steps=8,
)
CONTRACT = Contract.of(SPEC)
STATE = np.array([40.0, 0.5, 0.3])  # grip, lift, x
NAN = np.full(3, np.nan)


def guard(**settings: object) -> Guard:
    return Guard(CONTRACT, GuardSettings(**settings))


def told(*commands: list[float], **settings: object) -> Guard:
    """A guard that has let these commands through."""
    made = guard(**settings)
    for command in commands:
        assert made.check(np.array(command)).fault is None
    return made


# What passes


def test_numbers_within_the_limits_pass_to_the_last_bit():
    chunk = np.random.default_rng(0).uniform(-0.05, 0.05, (8, 3)).astype(np.float32)
    chunk[:, 1] += 50
    checked = guard().check(chunk)
    assert checked.actions.dtype == np.float32
    assert np.array_equal(checked.actions, chunk)
    assert checked.clipped.tolist() == [0, 0, 0]


def test_positions_are_clipped_and_counted_by_joint():
    made = guard()
    checked = made.check(np.array([1.5, -3.0, 9.0]))
    assert checked.actions.tolist() == [1.0, 0.0, 9.0]
    assert checked.clipped.tolist() == [1, 1, 0]
    assert str(made.tally) == "guard of cart: 1 control steps; lift.pos clipped 1 times, grip.pos clipped 1 times"


def test_a_step_is_limited_from_the_last_command():
    made = told([0.0, 0, 0])
    assert [made.check(np.array([0.9, 0, 0])).actions[0] for _ in range(3)] == pytest.approx([0.2, 0.4, 0.6])


def test_the_first_step_is_limited_from_the_observed_state():
    assert guard().check(np.array([0.0, 40, 0]), STATE).actions.tolist() == pytest.approx([0.3, 40, 0])


def test_without_a_state_the_first_step_is_free():
    assert guard().check(np.array([-1.0, 40, 0])).actions.tolist() == [-1.0, 40, 0]


def test_the_steps_of_a_chunk_are_limited_from_one_another():
    chunk = np.zeros((4, 3))
    chunk[1:, 0] = 1
    assert told([0.0, 0, 0]).check(chunk).actions[:, 0].tolist() == pytest.approx([0, 0.2, 0.4, 0.6])


def test_a_chunk_goes_on_from_the_command_that_is_due_when_it_comes():
    """Chunks of LeRobot's real-time engine come every few steps, and their first actions have passed by then."""
    made = told([0.0, 0, 0])
    made.check(np.column_stack([np.linspace(0.1, 0.8, 8), np.zeros(8), np.zeros(8)]))
    new = np.zeros((8, 3))
    new[:, 0] = -1
    sent = made.check(new, elapsed=3, passed=2).actions
    # Old commands were 0.1 .. 0.8; three are over, the next two are executed meanwhile.
    assert sent[:4, 0].tolist() == pytest.approx([0.4, 0.5, 0.3, 0.1])


# Faults


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_replaced_by_the_last_command(bad: float):
    checked = told([0.1, 5, 0.4]).check(np.array([0.2, bad, 0.4]), inputs=lambda: "abc")
    assert checked.actions.tolist() == [0.1, 5, 0]  # the wheels stand still
    assert checked.fault is not None
    assert str(checked.fault) == f"step 1, inputs abc: action grip.pos is {bad} 0 steps ahead"


@pytest.mark.parametrize("shape", [(2,), (4,), (8, 2), (2, 8, 3)])
def test_another_form_is_replaced(shape: tuple[int, ...]):
    checked = told([0.1, 5, 0]).check(np.zeros(shape))
    assert checked.fault is not None
    assert checked.fault.kind == "shape"
    assert checked.actions.shape[-1] == 3
    assert np.array_equal(np.atleast_2d(checked.actions)[0], [0.1, 5, 0])


def test_before_any_command_the_robot_is_held_where_it_is():
    assert guard().check(NAN, STATE).actions.tolist() == [0.5, 40, 0]


@pytest.mark.parametrize("state", [None, np.array([40.0, np.nan, 0.0])])
def test_where_nobody_knows_what_to_hold_nothing_is_sent(state: np.ndarray | None):
    with pytest.raises(GuardError, match=r"cart: step 0, inputs unknown: action lift.pos is nan .* no command yet"):
        guard().check(NAN, state)


def test_a_late_action_is_held_and_the_next_in_time_passes():
    made = told([0.1, 5, 0])
    late = made.check(np.array([0.2, 6, 0]), age_s=3.1)
    assert late.actions.tolist() == [0.1, 5, 0]
    assert "comes 3.1 s late, at most 3 s are allowed" in str(late.fault)
    assert made.check(np.array([0.2, 6, 0]), age_s=0.1).actions.tolist() == [0.2, 6, 0]
    assert told([0.1, 5, 0], max_age_s=None).check(np.array([0.2, 6, 0]), age_s=99).fault is None


def test_a_ramp_slows_down_to_a_stop_within_the_limits():
    made = told([0.0, 5, 1], [0.1, 5, 1], [0.2, 5, 1], on_fault="ramp")
    sent = np.array([made.check(NAN).actions for _ in range(10)])
    fade = math.exp(-1 / (RAMP_SECONDS * FPS))
    assert np.diff(sent[:3, 0], prepend=0.2) == pytest.approx([0.1 * fade, 0.1 * fade**2, 0.1 * fade**3])
    assert sent[:3, 2] == pytest.approx([fade, fade**2, fade**3])  # and the wheels spin down
    assert np.abs(np.diff(sent[-2:, 0])).max() < 1e-4
    near = told([0.9, 5, 1], [0.99, 5, 1], on_fault="ramp")
    assert max(near.check(NAN).actions[0] for _ in range(5)) == 1


def test_repeated_faults_stop_the_guard_for_good_until_a_reset():
    made = told([0.1, 5, 0], patience=2)
    for _ in range(2):
        made.check(NAN)
    for _ in range(2):
        with pytest.raises(GuardError, match="faults in a row, the last at step 3"):
            made.check(NAN)
    made.reset()
    assert made.check(np.array([0.1, 5, 0])).fault is None


def test_one_good_action_ends_the_row_of_faults():
    made = told([0.1, 5, 0], patience=2)
    for bad in (True, True, False, True, True):
        made.check(NAN if bad else np.array([0.1, 5, 0]))
    assert made.tally.faults == {"not finite": 4}


def test_lateness_never_stops_the_guard():
    made = told([0.1, 5, 0], patience=2)
    for _ in range(50):
        assert made.check(np.array([0.2, 5, 0]), age_s=9).actions.tolist() == [0.1, 5, 0]
    assert made.in_a_row == 50


def test_after_a_reset_the_robot_may_be_elsewhere():
    made = told([-0.9, 5, 0])
    made.reset()
    assert made.check(np.array([0.5, 40, 0]), STATE).actions.tolist() == [0.5, 40, 0]


def test_another_robot_is_refused_by_the_names_of_its_joints():
    CONTRACT.check_names(["lift.pos", "grip.pos", "x.vel"])
    with pytest.raises(
        ValueError, match=r"actions are grip.pos, lift.pos, x.vel; embodiment 'cart' has lift.pos, grip"
    ):
        CONTRACT.check_names(["grip.pos", "lift.pos", "x.vel"])


@pytest.mark.parametrize("wrong", [{"on_fault": "stop"}, {"patience": -1}, {"max_age_s": 0}])
def test_settings_that_cannot_be(wrong: dict):
    with pytest.raises(ValueError, match="expected"):
        GuardSettings(**wrong)


NUMBERS = st.floats(width=32) | st.floats(-2, 2, width=32)
COMMANDS = st.lists(st.tuples(*[NUMBERS] * 3), min_size=1, max_size=6)


@settings(deadline=None)
@given(st.lists(st.tuples(COMMANDS, st.integers(0, 8), st.integers(0, 4), st.floats(0, 6)), max_size=8), st.booleans())
def test_whatever_comes_what_is_sent_keeps_the_contract(chunks: list, ramp: bool):
    made = guard(on_fault="ramp" if ramp else "hold", patience=10**6)
    last = made.check(np.array([0.0, 50, 0], dtype=np.float32)).actions
    for rows, _, _, age in chunks:
        for row in rows:
            sent = made.check(np.array(row, dtype=np.float32), age_s=age).actions
            assert np.isfinite(sent).all()
            assert ((CONTRACT.low <= sent) & (sent <= CONTRACT.high)).all()
            assert abs(sent[0] - last[0]) <= 0.2 + 1e-6
            last = sent


@settings(deadline=None)
@given(st.lists(st.tuples(COMMANDS, st.integers(0, 4), st.floats(0, 6)), max_size=6), st.booleans())
def test_chunks_that_overtake_one_another_keep_it_too(chunks: list, ramp: bool):
    """Executed as by LeRobot's engine: a chunk comes into use after `passed` steps of the one before."""
    made = guard(on_fault="ramp" if ramp else "hold", patience=10**6)
    plan = made.check(np.tile(np.array([0.0, 50, 0]), (8, 1))).actions
    executed, at = [plan[0]], 0
    for rows, passed, age in chunks:
        elapsed = 2
        run = [plan[min(at + 1 + k, len(plan) - 1)] for k in range(elapsed - 1)]
        chunk = np.array([rows[i % len(rows)] for i in range(8)])
        new = made.check(chunk, age_s=age, elapsed=elapsed + at, passed=passed).actions
        run += [plan[min(at + elapsed + k, len(plan) - 1)] for k in range(passed)] + [new[passed]]
        executed, plan, at = executed + run, new, passed
    path = np.array(executed)
    assert np.isfinite(path).all()
    assert ((CONTRACT.low <= path) & (path <= CONTRACT.high)).all()
    assert np.abs(np.diff(path[:, 0])).max(initial=0) <= 0.2 + 1e-6
