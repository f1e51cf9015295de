"""The bare client against a real server: what a robot without LeRobot gets, and what it does without a server."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faulty_network import FaultyNetwork, faulty_network
from served_policies import Served, served
from tiny_policies import SIZE, build_policy, write_dataset

from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.runtime.surprise import Alarm, Calibration
from lerobot_wam.serving.client import WAMClient

TASK, CAMERA, CHUNK = "push red", "observation.images.front", 8
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> WAMPolicy:
    return build_policy(write_dataset(tmp_path_factory.mktemp("data") / "arm")).eval()


@pytest.fixture
def server(policy: WAMPolicy) -> Iterator[Served]:
    with served(policy) as running:
        yield running


@pytest.fixture
def network(server: Served) -> Iterator[FaultyNetwork]:
    with faulty_network(server.host, server.port) as between:
        yield between


def see(step: int) -> tuple[dict[str, Any], np.ndarray, str]:
    rng = np.random.default_rng(step)
    return {CAMERA: rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)}, rng.random(6, np.float32), TASK


def near(policy: WAMPolicy, steps: range, tasks: Sequence[str] | None = None) -> np.ndarray:
    """What the policy does here with the same."""
    policy.reset()
    actions = []
    for (images, state, _), task in zip(map(see, steps), tasks or [TASK] * len(steps), strict=True):
        view = (torch.from_numpy(images[CAMERA]).float() / 255).permute(2, 0, 1).contiguous()[None]
        batch = {CAMERA: view, "observation.state": torch.from_numpy(state)[None], "task": [task]}
        actions.append(policy.select_action(batch)[0].numpy())
    return np.stack(actions)


def act_until(client: WAMClient, met: Any, step: int, pause_s: float = 0.02) -> list[np.ndarray]:
    """Act until the condition is met; returns the actions."""
    actions, deadline = [], time.monotonic() + PATIENCE_S
    while not met() and time.monotonic() < deadline:
        actions.append(client.act(*see(step + len(actions))))
        time.sleep(pause_s)
    assert met()
    return actions


def test_far_actions_are_bitwise_those_of_the_policy(server: Served, policy: WAMPolicy):
    steps = range(3 * CHUNK + 3)
    with WAMClient(server.url) as client:
        far = np.stack([client.act(*see(step)) for step in steps])
    np.testing.assert_array_equal(far, near(policy, steps))


def test_another_task_is_planned_for_at_once(server: Served, policy: WAMPolicy):
    tasks = [TASK, TASK, TASK, "push blue", "push blue"]
    with WAMClient(server.url) as client:
        far = np.stack([client.act(*see(step)[:2], task) for step, task in enumerate(tasks)])
    np.testing.assert_array_equal(far, near(policy, range(len(tasks)), tasks))


def test_a_surprised_policy_makes_the_robot_ask_anew(server: Served):
    calibration = Calibration([[1e-6] * 24] * 2, [1e-6] * 2, 0.9, [10, 10], "a test", {})  # nothing is as dreamed
    server.server.engine.runtime.watching = Alarm({0: calibration}, "replan", {0: np.full(6, np.nan)})
    with WAMClient(server.url) as client:
        for step in range(5):
            client.act(*see(step))
        deadline = time.monotonic() + PATIENCE_S
        while not client._link._inbox and time.monotonic() < deadline:
            time.sleep(0.02)
        client.act(*see(5))
        assert client.chunk is not None
        assert (client.chunk.sequence, client.chunk.starts_window) == (5, True)


def test_an_episode_begins_anew_with_a_reset(server: Served):
    with WAMClient(server.url) as client:
        first = [client.act(*see(step)) for step in range(CHUNK + 3)]
        client.reset()
        again = [client.act(*see(step)) for step in range(CHUNK + 3)]
    np.testing.assert_array_equal(first, again)


def test_the_client_runs_where_no_model_code_is_installed(server: Served):
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "lerobot", "diffusers", "transformers", "PIL"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np
from lerobot_wam.serving.client import WAMClient
with WAMClient({server.url!r}) as client:
    for step in range({CHUNK} + 2):
        action = client.act({{{CAMERA!r}: np.full(({SIZE}, {SIZE}, 3), step, np.uint8)}}, np.zeros(6), "push red")
print(action.shape, np.isfinite(action).all())
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.stdout == "(6,) True\n", result.stderr


def test_jpeg_pictures_are_smaller_and_understood(server: Served):
    images = {CAMERA: np.full((SIZE, SIZE, 3), 100, np.uint8)}
    with WAMClient(server.url, jpeg=90) as client:
        assert len(client._encoded(images[CAMERA])["jpeg"]) < images[CAMERA].nbytes
        compressed = client.act(images, np.zeros(6), TASK)
    with WAMClient(server.url) as client:
        np.testing.assert_allclose(compressed, client.act(images, np.zeros(6), TASK), atol=0.1)


def test_asked_ahead_a_robot_gets_each_chunk_from_the_row_that_is_due(server: Served):
    with WAMClient(server.url, ahead=3) as client:
        taken = {client._sequence: client.act(*see(0))}
        chunks = {0: client.chunk}
        for step in range(1, 3 * CHUNK):
            time.sleep(0.02)
            taken[step] = client.act(*see(step))
            assert client.chunk is not None
            chunks[client.chunk.sequence] = client.chunk
            np.testing.assert_array_equal(taken[step], client.chunk.actions[step - client.chunk.sequence])
    assert list(chunks)[:2] == [0, CHUNK - 3]
    assert client.held == 0


def test_a_chunk_asked_for_ahead_is_to_agree_with_what_is_executed_meanwhile(
    server: Served, monkeypatch: pytest.MonkeyPatch
):
    with WAMClient(server.url, ahead=4, commit=True) as client:
        client.act(*see(0))
        first, sent = client.chunk, []
        send = client._link.send
        monkeypatch.setattr(client._link, "send", lambda message: sent.append(message) or send(message))
        for step in range(1, CHUNK):
            client.act(*see(step))
        assert first is not None
        asked = [message for message in sent if message["plan"]]
        assert [message["sequence"] for message in asked] == [4]
        np.testing.assert_array_equal(asked[0]["commitment"]["actions"], first.actions[4:])
        assert asked[0]["commitment"]["delay"] == 4


def test_a_killed_server_that_restarts_is_found_again(policy: WAMPolicy):
    first = Served(policy)
    with WAMClient(first.url) as client:
        taken = [client.act(*see(step)) for step in range(3)]
        assert client.chunk is not None
        chunk = client.chunk
        first.kill()
        taken += act_until(client, lambda: client.held > 2, 3)
        np.testing.assert_array_equal(taken[:CHUNK], chunk.actions)  # what is left of the chunk is still good
        np.testing.assert_array_equal(taken[CHUNK:], np.stack([chunk.actions[-1]] * (len(taken) - CHUNK)))
        with served(policy, port=first.port):
            act_until(client, lambda: client.chunk is not chunk, 100)
            assert client.outages == 1
            assert not client.welcome["resumed"]


def test_after_a_cut_the_session_goes_on_with_a_new_window(network: FaultyNetwork, server: Served):
    with WAMClient(f"ws://127.0.0.1:{network.port}") as client:
        for step in range(CHUNK + 2):
            client.act(*see(step))
        chunk = client.chunk
        assert chunk is not None
        assert not chunk.starts_window
        network.cut()
        held = act_until(client, lambda: client.held > 2, 20)
        np.testing.assert_array_equal(held[-1], chunk.actions[-1])
        network.restore()
        act_until(client, lambda: client.chunk is not chunk, 100)
        assert client.welcome["resumed"]
        assert client.chunk is not None
        assert client.chunk.starts_window


def test_a_pulled_cable_is_noticed_and_survived(network: FaultyNetwork):
    with WAMClient(f"ws://127.0.0.1:{network.port}", timeout_s=0.5) as client:
        client.act(*see(0))
        chunk = client.chunk
        network.hold()
        act_until(client, lambda: client.held > 1, 1)
        network.restore()
        act_until(client, lambda: client.chunk is not chunk, 100)
        assert client.outages == 1


def test_before_the_first_action_a_robot_is_held_where_it_is(network: FaultyNetwork):
    with WAMClient(f"ws://127.0.0.1:{network.port}") as client:
        network.cut()
        images, state, task = see(0)
        np.testing.assert_array_equal(client.act(images, state, task), state)


def test_a_velocity_stands_still_at_rest_and_a_position_where_it_was(server: Served):
    with WAMClient(server.url) as client:
        client.act(*see(0))
        client.welcome["embodiment"]["action"][1]["rest"] = 0.0
        expected = client._last.copy()
        expected[1] = 0.0
        np.testing.assert_array_equal(client._hold(np.zeros(6)), expected)


def test_an_outage_that_lasts_too_long_is_an_error(network: FaultyNetwork):
    with WAMClient(f"ws://127.0.0.1:{network.port}", max_outage_s=0.2) as client:
        network.cut()
        with pytest.raises(ConnectionError, match=r"no actions from ws://127\.0\.0\.1:\d+/robot for .* s: no server"):
            act_until(client, lambda: False, 0)


def test_what_answers_an_older_episode_is_dropped(server: Served):
    with WAMClient(server.url) as client:
        client.request(*see(0))
        client.reset()
        assert not client.waiting
        sequence = client.request(*see(1))
        chunk = client.poll(PATIENCE_S)
        assert chunk is not None
        assert chunk.sequence == sequence


def test_a_reset_ends_the_wait_of_another_thread(server: Served):
    with WAMClient(server.url) as client:
        client.act(*see(0))
        client._asked = 12345  # an answer that never comes
        waiting = threading.Thread(target=client.poll, args=[PATIENCE_S])
        waiting.start()
        client.reset()
        waiting.join(PATIENCE_S / 2)
        assert not waiting.is_alive()


def test_the_age_of_a_chunk_is_measured_by_the_robots_own_clock(network: FaultyNetwork):
    with WAMClient(f"ws://127.0.0.1:{network.port}") as client:
        network.delay_s = 0.2
        before = time.monotonic()
        client.act(*see(0))
        assert client.chunk is not None
        assert 0.4 < client.chunk.age_s < time.monotonic() - before


def test_a_network_slower_than_the_pictures_drops_frames_and_not_the_robot(
    server: Served, monkeypatch: pytest.MonkeyPatch
):
    with WAMClient(server.url) as client:
        connection, passing = client._link._connection, threading.Event()
        assert connection is not None
        send = connection.send
        monkeypatch.setattr(connection, "send", lambda data: passing.wait(PATIENCE_S) and send(data))
        for step in range(60):
            client.observe(*see(step))
        assert client.dropped > 0
        passing.set()
        client.reset()
        client.request(*see(60))
        assert client.poll(PATIENCE_S) is not None


@pytest.mark.parametrize("actions", [np.full((8, 6), np.nan, np.float32), np.zeros((8, 5), np.float32)])
def test_a_chunk_that_no_robot_should_get_is_not_executed(
    server: Served, actions: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    with WAMClient(server.url) as client:
        receive = client._link.receive

        def damaged(timeout_s: float) -> dict[str, Any] | None:
            message = receive(timeout_s)
            return message | {"actions": actions} if message is not None and message["type"] == "chunk" else message

        monkeypatch.setattr(client._link, "receive", damaged)
        images, state, task = see(0)
        np.testing.assert_array_equal(client.act(images, state, task), state)
        assert client.held == 1


def test_a_refused_observation_is_an_error_that_says_why(server: Served):
    images, state, task = see(0)
    with WAMClient(server.url) as client:
        with pytest.raises(ValueError, match=r"camera observation\.images\.front is missing \(found wrong\)"):
            client.act({"wrong": images[CAMERA]}, state, task)
        client.reset()
        with pytest.raises(ValueError, match=r"state is float32 \[5\], expected float32 \[6\]"):
            client.act(images, state[:5], task)
        client.reset()
        assert np.isfinite(client.act(images, state, task)).all()


def test_a_refused_frame_between_two_chunks_is_counted(server: Served):
    images, _, task = see(1)
    with WAMClient(server.url) as client:
        client.act(*see(0))
        client.act(images, np.full(6, np.nan, np.float32), task)
        act_until(client, lambda: client.refused == 1, 2)


@pytest.mark.parametrize(
    ("url", "settings", "kind", "message"),
    [
        ("ws://127.0.0.1:9", {}, ConnectionError, "lerobot-wam serve --policy.path"),
        ("127.0.0.1:8000", {}, ValueError, "expected ws://HOST:PORT"),
        ("{url}/elsewhere", {"token": "sixteen letters!"}, ValueError, "HTTP status 404"),
        ("{url}", {"token": "guess"}, PermissionError, "refused the token"),
        ("{url}", {"token": "sixteen letters!", "robot": "toaster"}, ValueError, "robot 'toaster', expected one of"),
        ("{url}", {"jpeg": 100}, ValueError, "jpeg is 100, expected a quality from 1 to 95"),
        ("{url}", {"token": "sixteen letters!", "ahead": 8}, ValueError, "ahead is 8, expected 0 to 7"),
    ],
)
def test_a_connection_that_cannot_be_made_says_what_to_do(
    guarded: Served, url: str, settings: dict[str, Any], kind: type[Exception], message: str
):
    with pytest.raises(kind, match=message):
        WAMClient(url.format(url=guarded.url), **settings)


@pytest.fixture(scope="module")
def guarded(policy: WAMPolicy) -> Iterator[Served]:
    with served(policy, token="sixteen letters!") as running:
        yield running


def test_a_server_that_comes_back_with_another_robot_is_refused(policy: WAMPolicy, tmp_path: Path):
    other = build_policy(write_dataset(tmp_path / "other", (12, 12), joints=["a.pos", "b.pos"], robot_type="other"))
    first = Served(policy)
    with WAMClient(first.url) as client:
        client.act(*see(0))
        first.kill()
        with served(other, port=first.port), pytest.raises(ValueError, match="came back serving 'other'"):
            act_until(client, lambda: False, 1)


def test_the_client_says_that_it_leaves(server: Served):
    client = WAMClient(server.url)
    client.act(*see(0))
    client.close()
    assert not client._link.up
    assert not client._link._thread.is_alive()
