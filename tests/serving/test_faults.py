"""Whatever goes wrong between a robot and its server, the robot gets actions within its contract, or none.

Who is not let in is tested in test_door.py, what `lerobot-rollout` makes of faults in tests/guard and tests/remote.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from faulty_network import faulty_network
from served_policies import Served, served, untrained_policy
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from lerobot_wam.embodiments.spec import load_embodiment
from lerobot_wam.guard.contract import Contract
from lerobot_wam.guard.guard import Guard
from lerobot_wam.guard.settings import GuardSettings
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.serving.client import WAMClient
from lerobot_wam.serving.protocol import PATH, VERSION, pack, unpack

SIZE, TASK, PATIENCE_S = 32, "push red", 60.0
ARM = load_embodiment("wam_sim_viperx")
CAMERA, CHUNK = ARM.cameras[0].key, ARM.chunk_steps
CONTRACT = Contract.of(ARM)


@pytest.fixture(scope="module")
def policy() -> WAMPolicy:
    return untrained_policy(ARM, (SIZE, SIZE))


@pytest.fixture(scope="module")
def server(policy: WAMPolicy) -> Iterator[Served]:
    with served(policy) as server:
        yield server


def see(step: int) -> tuple[dict[str, Any], np.ndarray, str]:
    """What the robot sees at a control step, whatever it did."""
    rng = np.random.default_rng(step)
    states = np.array([0.5 * ((d.low or -1.0) + (d.high or 1.0)) for d in ARM.state]) + rng.normal(
        0, 0.1, len(ARM.state)
    )
    return {CAMERA: rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)}, states.astype(np.float32), TASK


class Arm:
    """A robot without LeRobot: a client, and the guard as the last step before the motors."""

    def __init__(self, client: WAMClient) -> None:
        self.client, self.guard, self.step = client, Guard(CONTRACT, GuardSettings()), 0

    def move(self) -> np.ndarray:
        """One control step; nothing may reach the motors that is outside the contract."""
        images, state, task = see(self.step)
        self.step += 1
        sent = self.guard.check(self.client.act(images, state, task), state).actions
        assert sent.shape == (len(ARM.action),)
        assert np.isfinite(sent).all()
        assert ((sent >= CONTRACT.low - 1e-6) & (sent <= CONTRACT.high + 1e-6)).all()
        return sent

    def move_until(self, met: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not met():
            assert time.monotonic() < deadline
            self.move()
            time.sleep(0.01)


class Line:
    """A robot's connection, one message at a time, so that each can be damaged, held back or repeated."""

    def __init__(self, server: Served, **hello: Any) -> None:
        self.socket = connect(server.url + PATH, compression=None)
        self.say(type="hello", protocol=VERSION, robot="", session=None, **hello)
        self.welcome = self.hear("welcome")
        self.epoch = self.welcome["epoch"]

    def say(self, **message: Any) -> None:
        self.socket.send(pack(message))

    def observation(self, step: int, **changes: Any) -> dict[str, Any]:
        images, state, task = see(step)
        known = {
            "type": "observe",
            "epoch": self.epoch,
            "sequence": step,
            "time": 0.1 * step,
            "plan": step % CHUNK == 0,
        }
        return known | {"images": images, "state": state, "task": task} | changes

    def hear(self, kind: str) -> dict[str, Any]:
        data = self.socket.recv(PATIENCE_S)
        assert isinstance(data, bytes)
        message = unpack(data)
        assert message["type"] == kind, message
        return message

    def show(self, *steps: int, **changes: Any) -> list[dict[str, Any]]:
        """Say what is seen at these steps, in this order; return the chunks that come for it."""
        for step in steps:
            self.say(**self.observation(step, **changes))
        return [self.hear("chunk") for step in steps if step % CHUNK == 0]

    def refused(self, step: int, **changes: Any) -> str:
        self.say(**self.observation(step, **changes))
        error = self.hear("error")
        assert not error["fatal"]
        return f"{error['code']}: {error['message']}"


@contextmanager
def line(server: Served) -> Iterator[Line]:
    opened = Line(server)
    try:
        yield opened
    finally:
        opened.socket.close()


def whole(server: Served, chunks: int) -> list[dict[str, Any]]:
    """The chunks of an undisturbed episode."""
    with line(server) as calm:
        return [chunk for n in range(chunks) for chunk in calm.show(*range(n * CHUNK, (n + 1) * CHUNK))]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(np.array_equal(one["actions"], other["actions"])) and one["starts_window"] == other["starts_window"]


class SlowModel:
    """Stops a policy's model in its thread until told to go on."""

    def __init__(self, server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        runtime = server.server.engine.runtime
        plan = runtime.plan

        def slow(*args: Any, **kwargs: Any) -> Any:
            self.reached.set()
            self.go_on.wait(PATIENCE_S)
            return plan(*args, **kwargs)

        monkeypatch.setattr(runtime, "plan", slow)


def test_server_killed_while_it_computes_and_restarted(policy, monkeypatch):
    first = Served(policy)
    with WAMClient(first.url) as client:
        arm = Arm(client)
        for _ in range(CHUNK):
            arm.move()
        before, slow = client.chunk, SlowModel(first, monkeypatch)
        killer = threading.Thread(target=lambda: (slow.reached.wait(PATIENCE_S), first.kill()))
        killer.start()
        held = arm.move()  # it waits for a chunk that never comes
        np.testing.assert_array_equal(held, CONTRACT.limited(before.actions[-1]).astype(np.float32))
        slow.go_on.set()
        killer.join()
        with served(policy, port=first.port):
            arm.move_until(lambda: client.chunk is not before)
            assert client.chunk.starts_window
            assert not client.welcome["resumed"]


def test_network_cut_for_five_seconds_of_control(server):
    with faulty_network(server.host, server.port) as network, WAMClient(f"ws://127.0.0.1:{network.port}") as client:
        arm = Arm(client)
        for _ in range(2 * CHUNK + 3):
            arm.move()
        before = client.chunk
        network.cut()
        rest = [arm.move() for _ in range(round(5 * ARM.fps))]
        last = CONTRACT.limited(before.actions[-1]).astype(np.float32)
        np.testing.assert_array_equal(rest[CHUNK - 3 :], np.stack([last] * (len(rest) - CHUNK + 3)))
        network.restore()
        arm.move_until(lambda: client.chunk is not before)
        assert client.welcome["resumed"]
        assert client.chunk.starts_window  # nobody saw what happened meanwhile


def test_client_vanishes_while_its_chunk_is_computed(server, monkeypatch):
    calm = whole(server, 2)
    with line(server) as other:
        assert same(other.show(*range(CHUNK))[0], calm[0])
        slow = SlowModel(server, monkeypatch)
        vanishing = Line(server)
        vanishing.say(**vanishing.observation(0))
        slow.reached.wait(PATIENCE_S)
        vanishing.socket.socket.shutdown(socket.SHUT_RDWR)  # no goodbye
        slow.go_on.set()
        assert same(other.show(CHUNK)[0], calm[1])


def test_frames_of_an_older_episode_that_come_late_are_dropped(server):
    calm = whole(server, 1)
    with line(server) as late:
        late.show(*range(3))
        stragglers = [late.observation(step) for step in range(3, 6)]
        late.epoch += 1
        late.say(type="reset", epoch=late.epoch)
        assert late.hear("ready")["epoch"] == late.epoch
        for straggler in stragglers:
            late.say(**straggler)
        assert same(late.show(0)[0], calm[0])


def test_duplicated_frames_count_once(server):
    calm = whole(server, 3)
    with line(server) as doubled:
        chunks = []
        for step in range(2 * CHUNK + 1):
            chunks += doubled.show(step)
            doubled.say(**doubled.observation(step))
        assert [same(*pair) for pair in zip(chunks, calm, strict=True)] == [True] * 3


@pytest.mark.parametrize("order", [[1, 2, 4, 3, 5, 6, 7], [1, 2, 3, 5, 6, 7]], ids=["reordered", "missing"])
def test_frames_out_of_order_or_missing_end_the_window(server, order):
    calm = whole(server, 2)
    assert not calm[1]["starts_window"]
    with line(server) as torn:
        assert same(torn.show(0)[0], calm[0])
        torn.show(*order)
        chunk = torn.show(CHUNK)[0]
    assert chunk["starts_window"]
    assert np.isfinite(chunk["actions"]).all()


def test_frames_of_another_size_are_refused_and_the_robot_is_served_on(server):
    with line(server) as zoomed:
        zoomed.show(*range(3))
        wide = {CAMERA: np.zeros((SIZE, 2 * SIZE, 3), np.uint8)}
        assert f"bad_observation: pictures are {CAMERA} 32x64, expected {CAMERA} 32x32" in zoomed.refused(
            3, images=wide
        )
        assert zoomed.show(*range(4, CHUNK + 1))[0]["starts_window"]


def test_clocks_that_are_skewed_or_jump_change_nothing(server):
    calm = whole(server, 2)
    with line(server) as skewed:
        chunks = []
        for step in range(CHUNK + 1):
            chunks += skewed.show(step, time=(-1e9, 0.0, 1e12)[step % 3])
        assert [chunk["time"] for chunk in chunks] == [-1e9, 1e12]  # echoed, for the robot to subtract
        assert all(map(same, chunks, calm))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_refused_by_its_joint(server, value):
    with line(server) as blind:
        state = see(0)[1]
        state[2] = value
        assert f"bad_observation: state of {ARM.state[2].name} is not finite" in blind.refused(0, state=state)
        assert np.isfinite(blind.show(CHUNK)[0]["actions"]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_commitment_that_is_not_finite_is_refused(server, value):
    with line(server) as torn:
        actions = np.full((4, len(ARM.action)), value, np.float32)
        assert "commitment.actions must be finite" in torn.refused(0, commitment={"actions": actions, "delay": 1})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_chunk_leaves_a_server_whose_weights_are_broken(value):
    broken = untrained_policy(ARM, (SIZE, SIZE))
    with served(broken) as server, WAMClient(server.url, max_outage_s=0.5) as client:
        arm = Arm(client)
        for _ in range(CHUNK):
            arm.move()
        with torch.no_grad():
            for parameter in broken.parameters():
                parameter.fill_(value)
        with pytest.raises(ConnectionError, match="not finite"):
            arm.move_until(lambda: False)


def test_an_action_that_is_not_finite_does_not_pass_the_robots_guard(server, monkeypatch):
    with WAMClient(server.url) as client:
        arm = Arm(client)
        good = arm.move()
        monkeypatch.setattr(client, "act", lambda *seen: np.full(len(ARM.action), np.nan, np.float32))
        np.testing.assert_array_equal(arm.move(), good)
        assert arm.guard.tally.faults["not finite"] == 1


def test_an_oversize_message_ends_its_connection_and_no_other(policy):
    with served(policy, max_message_mb=0.1) as server, line(server) as good:
        with line(server) as big:
            big.say(**big.observation(0, images={CAMERA: np.zeros((400, 400, 3), np.uint8)}))
            with pytest.raises(ConnectionClosed) as closed:
                big.socket.recv(PATIENCE_S)
            assert closed.value.rcvd.code == 1009
        assert np.isfinite(good.show(0)[0]["actions"]).all()
