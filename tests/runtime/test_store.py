"""The memory of windows is bounded; robots are never forgotten."""

import gc

import torch
from tiny_loops import STEPS, make_model, make_runtime, run

from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.state import Session
from lerobot_wam.runtime.store import SessionStore, forget_windows, held_bytes


def begun(count: int) -> tuple[Runtime, list[Session]]:
    runtime = make_runtime(make_model())
    sessions = [runtime.new_session(seed) for seed in range(count)]
    for robot, session in enumerate(sessions):
        run(runtime, session, range(STEPS), robot)
    return runtime, sessions


def test_a_session_counts_with_the_room_of_its_cache():
    _, (session,) = begun(1)
    assert session.branch is not None
    cache = session.branch.cache.storage.kv
    context = sum(tensor.nbytes for tensor in session.branch.context.tensors)
    assert held_bytes(session.branch) == cache.nbytes + context
    assert held_bytes(session) > held_bytes(session.branch)


def test_the_windows_unused_longest_are_forgotten_until_the_bound_holds():
    _, sessions = begun(3)
    room = max(map(held_bytes, sessions))
    store = SessionStore(2 * room)
    assert store.use(sessions[:2]) == 0
    assert store.use([sessions[0]]) == 0
    assert store.use([sessions[2]]) == 1
    assert [session.branch is None for session in sessions] == [False, True, False]
    assert store.bytes <= 2 * room


def test_a_bound_that_one_window_exceeds_forgets_even_the_newest():
    _, sessions = begun(2)
    assert SessionStore(1).use(sessions) == 2


def test_a_forgotten_session_goes_on_with_a_new_window():
    runtime, (session, other) = begun(2)
    forget_windows([session])
    assert torch.isfinite(run(runtime, session, [STEPS])).all()
    run(runtime, other, [STEPS], robot=1)
    assert session.dream is not None
    assert other.dream is not None
    assert (session.dream.starts_window, other.dream.starts_window) == (True, False)


def test_sessions_that_nobody_holds_leave_by_themselves():
    _, sessions = begun(1)
    store = SessionStore(1e9)
    store.use(sessions)
    assert store.bytes > 0
    sessions.clear()
    gc.collect()
    assert store.bytes == 0
