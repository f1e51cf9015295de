"""What the monitor remembers of the robots, for how long, and what it tells those who look."""

import json
import threading
from typing import Any

import numpy as np
import pytest

from lerobot_wam.serving.monitor import CHUNKS, FORGET_S, IDLE_S, ROBOTS, STEPS, Monitor, PlanRecord, Viewer


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def monitor(clock: Clock) -> Monitor:
    return Monitor("a policy", ["guide"], clock)


def picture(value: int = 0) -> np.ndarray:
    return np.full((4, 6, 3), value, np.uint8)


def record(value: float = 0.0, **changes: Any) -> PlanRecord:
    """A chunk of 8 actions of 2 joints, 4 of them executed."""
    fields: dict[str, Any] = {"names": ("a", "b"), "execute": 4, "robot": "two_joints", "task": "push red"}
    return PlanRecord(np.full((8, 2), value), **(fields | changes))


def detail(monitor: Monitor, name: str = "r1") -> dict[str, Any]:
    return monitor.news(Viewer(chosen=name))["detail"]


def states(monitor: Monitor) -> dict[str, str]:
    return {robot["name"]: robot["state"] for robot in monitor.news(Viewer())["robots"]}


def test_news_are_json_whatever_a_broken_model_says(monitor: Monitor):
    monitor.observed("r1", picture())
    monitor.planned("r1", record(np.nan, surprise=np.inf, compute_ms=np.float32(3)))
    news = json.loads(json.dumps(monitor.news(Viewer()), allow_nan=False))
    assert news["detail"]["actions"] == [[None, None]] * 8
    assert news["robots"][0]["surprise"] is None


def test_a_robot_drives_falls_silent_and_leaves(monitor: Monitor, clock: Clock):
    monitor.observed("r1", picture())
    assert states(monitor) == {"r1": "driving"}
    clock.now += IDLE_S + 0.1
    assert states(monitor) == {"r1": "idle"}
    monitor.closed("r1")
    assert states(monitor) == {"r1": "left"}
    clock.now += FORGET_S + 0.1
    assert states(monitor) == {}


def test_an_evicted_robot_drives_again_with_its_next_chunk(monitor: Monitor):
    monitor.observed("r1", picture())
    monitor.evicted("r1")
    assert states(monitor) == {"r1": "evicted"}
    monitor.planned("r1", record())
    assert states(monitor) == {"r1": "driving"}


def test_strangers_are_not_listed(monitor: Monitor):
    monitor.failed("nobody", "unauthorized")
    monitor.closed("nobody")
    monitor.evicted("nobody")
    news = monitor.news(Viewer())
    assert news["robots"] == []
    assert news["errors"] == [{"code": "unauthorized", "count": 1, "ago_s": 0}]


def test_errors_are_counted_by_code_and_by_robot(monitor: Monitor, clock: Clock):
    monitor.observed("r1", picture())
    for code in ("stale", "stale", "internal"):
        monitor.failed("r1", code)
    clock.now += 7
    assert monitor.news(Viewer())["errors"][0] == {"code": "stale", "count": 2, "ago_s": 7}
    assert detail(monitor)["errors"] == {"stale": 2, "internal": 1}


def test_what_was_executed_is_what_was_observed_to_pass(monitor: Monitor):
    monitor.observed("r1", picture())
    monitor.planned("r1", record(1.0))
    for _ in range(3):  # cut short
        monitor.observed("r1", picture())
    monitor.planned("r1", record(2.0))
    for _ in range(6):  # 4 actions, then it held
        monitor.observed("r1", picture())
    monitor.planned("r1", record(3.0))
    assert detail(monitor)["executed"] == [[1.0, 1.0]] * 3 + [[2.0, 2.0]] * 4


def test_histories_are_bounded(monitor: Monitor):
    for _ in range(2 * CHUNKS):
        monitor.planned("r1", record())
        for _ in range(4):
            monitor.observed("r1", picture())
    seen = detail(monitor)
    assert len(seen["surprise"]) == CHUNKS
    assert len(seen["executed"]) == STEPS


def test_robots_are_bounded_and_the_longest_silent_goes(monitor: Monitor, clock: Clock):
    for number in range(ROBOTS + 1):
        clock.now += 0.01
        monitor.observed(f"r{number}", picture())
    assert len(states(monitor)) == ROBOTS
    assert "r0" not in states(monitor)


def test_the_dream_shows_the_moment_of_the_picture(monitor: Monitor):
    dream = np.stack([picture(k) for k in range(4)])  # frame k after 2 (k + 1) of 8 actions
    monitor.observed("r1", picture())
    plan = record()
    monitor.planned("r1", plan)
    monitor.dreamed("r1", plan, dream)
    shown = []
    for _ in range(10):
        shown.append(int(monitor.pictures("r1")[2][0, 0, 0]))
        monitor.observed("r1", picture())
    assert shown == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]


def test_a_dream_that_comes_late_is_not_taken_for_the_next_chunks(monitor: Monitor):
    old = record()
    monitor.planned("r1", old)
    monitor.planned("r1", record())
    monitor.dreamed("r1", old, np.stack([picture()]))
    assert monitor.pictures("r1")[2] is None


def test_the_last_dreams_end_stays_until_the_next_is_decoded(monitor: Monitor):
    with monitor.viewing() as viewer:
        plan = record()
        monitor.planned("r1", plan)
        monitor.news(viewer)
        monitor.dreamed("r1", plan, np.stack([picture(k) for k in range(4)]))
        for _ in range(4):
            monitor.observed("r1")
        monitor.planned("r1", record())
        assert int(monitor.pictures("r1")[2][0, 0, 0]) == 1
    monitor.planned("r1", record())
    assert monitor.pictures("r1")[2] is None


def test_an_old_picture_is_not_shown_as_a_new_one(monitor: Monitor):
    monitor.observed("r1", picture())
    monitor.observed("r1")  # nobody looked
    assert monitor.pictures("r1") == (2, None, None)


def test_latency_counts_waiting_and_computing(monitor: Monitor):
    for wait in range(101):
        monitor.planned("r1", record(queue_ms=wait, compute_ms=10))
    assert detail(monitor)["latency"] == {"p50": 60.0, "p95": 105.0}


def test_clips_add_up_by_joint(monitor: Monitor):
    monitor.planned("r1", record(clips={"a": 2}))
    monitor.planned("r1", record(clips={"a": 1, "b": 1}))
    assert detail(monitor)["clips"] == {"a": 3, "b": 1}


def test_nobody_looks_until_somebody_does(monitor: Monitor):
    monitor.observed("r1", picture())
    assert not monitor.watched
    with monitor.viewing() as viewer:
        assert monitor.watched
        assert not monitor.watches("r1")
        monitor.news(viewer)
        assert monitor.watches("r1")
    assert not monitor.watched
    assert not monitor.watches("r1")


def test_a_wall_screen_stays_with_one_robot_until_it_leaves(monitor: Monitor, clock: Clock):
    viewer = Viewer()
    monitor.observed("r1", picture())
    monitor.observed("r2", picture())
    assert monitor.news(viewer)["shown"] == "r1"
    clock.now += IDLE_S + 1
    monitor.observed("r2", picture())
    assert monitor.news(viewer)["shown"] == "r1"
    monitor.closed("r1")
    assert monitor.news(viewer)["shown"] == "r2"


def test_a_chosen_robot_is_shown_even_after_it_left(monitor: Monitor):
    monitor.observed("r1", picture())
    monitor.observed("r2", picture())
    monitor.closed("r2")
    assert monitor.news(Viewer(chosen="r2"))["shown"] == "r2"
    assert monitor.news(Viewer(chosen="unknown"))["shown"] == "r1"


def test_threads_may_call_it_at_the_same_time(monitor: Monitor):
    def drive(name: str) -> None:
        for _ in range(200):
            monitor.observed(name, picture())
            monitor.planned(name, record())
            monitor.news(Viewer())
            monitor.closed(name)

    threads = [threading.Thread(target=drive, args=(f"r{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {robot["plans"] for robot in monitor.news(Viewer())["robots"]} == {200}
