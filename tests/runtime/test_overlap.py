"""The closed loop that computes while the arm moves."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest
import torch
from tiny_loops import STEPS, frames, make_model, make_runtime, same, see
from torch import Tensor

from lerobot_wam.runtime.overlap import Join, OverlappedLoop
from lerobot_wam.runtime.session import Runtime


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return make_runtime(make_model())


@pytest.fixture(scope="module")
def worker() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def act(loop: OverlappedLoop, steps: range, task: str = "push red") -> list[Tensor | None]:
    return [loop.act(see(step, task=task)) for step in steps]


def test_the_arm_moves_at_every_step_but_the_first_few(runtime: Runtime, worker: Executor):
    loop = OverlappedLoop(runtime, 0, 3, "switch", worker)
    assert [action is None for action in act(loop, range(40))] == [True] * 3 + [False] * 37


@pytest.mark.parametrize("join", ["switch", "blend", "guide"])
def test_actions_depend_on_what_is_seen_and_not_on_time(runtime: Runtime, worker: Executor, join: Join):
    first, second = (act(OverlappedLoop(runtime, 0, 2, join, worker), range(20)) for _ in range(2))
    assert [a is None for a in first] == [a is None for a in second]
    assert all(torch.equal(a, b) for a, b in zip(first[2:], second[2:], strict=True))


def test_a_chunk_begins_at_the_observation_that_its_plan_began_with(runtime: Runtime, worker: Executor):
    """The first plan, from step 0, is in use at 2 and executed from its start, as the arm stood still until then. The
    second, from step 4, is in use at 6, and its first two steps have passed."""
    loop = OverlappedLoop(runtime, 0, 2, "switch", worker)
    done = act(loop, range(7))
    session = runtime.new_session(0)
    first = runtime.plan([session], [see(0)])[0].actions
    assert torch.equal(torch.stack(done[2:6]), first[:4])
    fresh = runtime.new_session(0)
    fresh.generator = session.generator
    second = runtime.plan([fresh], [see(4)])[0].actions
    torch.testing.assert_close(done[6], second[2])


def test_both_windows_remember_whole_blocks(runtime: Runtime, worker: Executor):
    """Plans at 0, 4, 8, 12: the windows of 0 and 4 have each seen their block of 8 steps, computing or not."""
    loop = OverlappedLoop(runtime, 0, 3, "switch", worker)
    act(loop, range(16))
    for start, window in zip((0, 4), loop._windows, strict=True):
        assert window.branch is not None
        latents = runtime.video_codec.encode(frames(range(start, start + STEPS + 1)))
        first = runtime.model.write_observation(latents[:, :, :1], window.branch.context)
        both = runtime.model.write_observation(latents[:, :, 1:], window.branch.context, first)
        assert window.branch.cache.frames == 3
        same(window.branch.cache, both)


def test_windows_start_anew_where_computing_takes_longer_than_half_a_chunk(runtime: Runtime, worker: Executor):
    loop = OverlappedLoop(runtime, 0, 6, "switch", worker)
    assert loop.period == 6
    actions = act(loop, range(40))
    assert [window.branch.cache.frames for window in loop._windows if window.branch] == [1, 1]
    assert sum(action is None for action in actions[6:]) < 12


def test_a_new_instruction_drops_the_plan_and_the_chunk(runtime: Runtime, worker: Executor):
    loop = OverlappedLoop(runtime, 0, 3, "guide", worker)
    act(loop, range(9))  # a plan has been under way since step 8
    assert loop._plan is not None
    told = act(loop, range(9, 14), task="touch blue")
    assert [action is None for action in told] == [True] * 3 + [False] * 2
    assert {window.task for window in loop._windows} == {"touch blue"}
    assert all(window.branch is None or window.branch.cache.frames in (0, 1) for window in loop._windows)


def test_without_delay_a_plan_is_used_at_once(runtime: Runtime, worker: Executor):
    loop = OverlappedLoop(runtime, 0, 0, "switch", worker)
    actions = act(loop, range(4))
    dream = runtime.plan([runtime.new_session(0)], [see(0)])[0]
    assert torch.equal(torch.stack(actions), dream.actions[:4])


def test_a_change_of_chunks_is_smaller_where_they_are_joined(runtime: Runtime, worker: Executor):
    """By how far the first action in use is from what the old chunk would have done."""

    def gap(join: Join) -> float:
        loop, gaps = OverlappedLoop(runtime, 0, 2, join, worker), []
        for step in range(27):
            plan = loop._plan
            action = loop.act(see(step))
            if plan is not None and len(plan.old) and loop._plan is None:
                gaps.append((action - plan.old[2]).norm())
        assert len(gaps) == 6
        return float(torch.stack(gaps).mean())

    assert gap("guide") < 0.8 * gap("switch")
    assert gap("blend") < 0.5 * gap("switch")


@pytest.mark.parametrize(("delay", "join", "reason"), [(-1, "switch", "delay is -1"), (0, "cut", "join 'cut'")])
def test_wrong_settings_are_named(runtime: Runtime, worker: Executor, delay: int, join: Join, reason: str):
    with pytest.raises(ValueError, match=reason):
        OverlappedLoop(runtime, 0, delay, join, worker)
