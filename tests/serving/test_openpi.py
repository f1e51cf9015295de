"""Clients of openpi, RoboArena and DreamZero get chunks. They are played here as their protocol is described."""

import functools
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from served_policies import Served, served, untrained_policy
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lerobot_wam.embodiments.spec import load_embodiment
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.runtime.state import Dream

HEIGHT, WIDTH, STEPS = 36, 64, 24
TASK, TOKEN = "push red", "a token that nobody guesses"
DROID = load_embodiment("oxe_droid")
CAMERAS = ("exterior_image_0_left", "exterior_image_1_left", "wrist_image_left")
METADATA = {
    "image_resolution": [HEIGHT, WIDTH],
    "needs_wrist_camera": True,
    "n_external_cameras": 2,
    "needs_stereo_camera": False,
    "needs_session_id": True,
    "action_space": "joint_position",
}


class Client:
    """Speaks openpi's protocol: msgpack, with numpy arrays as maps; a text is an error, but for a reset's reply."""

    def __init__(self, url: str, **headers: str) -> None:
        self.socket = connect(url, compression=None, max_size=None, additional_headers=headers)
        self.metadata = self.hear()

    def say(self, message: dict[str, Any]) -> None:
        self.socket.send(self.packed(message))

    def hear(self) -> Any:
        reply = self.socket.recv(60)
        if isinstance(reply, str):
            raise RuntimeError(reply)
        return msgpack.unpackb(reply, object_hook=self.array)

    def infer(self, observation: dict[str, Any]) -> Any:
        self.say(observation)
        return self.hear()

    def reset(self, **info: Any) -> str | bytes:
        self.say({"endpoint": "reset", **info})
        return self.socket.recv(60)

    @staticmethod
    def packed(message: dict[str, Any]) -> bytes:
        def pack(value: Any) -> dict[bytes, Any]:
            if isinstance(value, np.ndarray):
                data = {b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
                return {b"__ndarray__": True, **data}
            return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}

        return msgpack.packb(message, default=pack)

    @staticmethod
    def array(value: dict[Any, Any]) -> Any:
        if b"__ndarray__" not in value:
            return value
        return np.ndarray(buffer=value[b"data"], dtype=np.dtype(value[b"dtype"]), shape=value[b"shape"])


@pytest.fixture(scope="module")
def droid() -> WAMPolicy:
    return untrained_policy(DROID, (HEIGHT, WIDTH))


@pytest.fixture(scope="module")
def server(droid: WAMPolicy) -> Iterator[Served]:
    with served(droid) as server:
        yield server


@pytest.fixture
def client(server: Served) -> Iterator[Client]:
    client = Client(server.url)
    yield client
    client.socket.close()


@functools.cache
def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def observation(*numbers: int, **changes: Any) -> dict[str, Any]:
    """What a DreamZero client sends that shows these frames: one picture a camera, or several as one array."""
    frames = {c: [picture(10 * number + i) for number in numbers] for i, c in enumerate(CAMERAS)}
    views = {f"observation/{c}": f[0] if len(f) == 1 else np.stack(f) for c, f in frames.items()}
    joints = np.random.default_rng(numbers[-1]).normal(size=8).astype(np.float32)
    return views | {
        "observation/joint_position": joints[:7],
        "observation/cartesian_position": np.zeros(6),
        "observation/gripper_position": joints[7:],
        "prompt": TASK,
        "session_id": "a",
        "endpoint": "infer",
        **changes,
    }


def expected(policy: WAMPolicy, *calls: tuple[int, ...]) -> list[np.ndarray]:
    """The chunks of a session of its own that is shown exactly these frames at each call."""
    runtime = policy.runtime
    session = runtime.new_session(policy.config.seed, policy.category)
    dreams: list[Dream] = []
    for call in calls:
        seen = [observation(number) for number in call]
        views = {
            camera.key: torch.stack([torch.from_numpy(o[f"observation/{name}"]).float() / 255 for o in seen])
            for camera, name in zip(DROID.cameras, CAMERAS, strict=True)
        }
        tiled = policy.reader.tiled({key: view.permute(0, 3, 1, 2)[None] for key, view in views.items()})[0] * 2 - 1
        state = np.concatenate([seen[-1]["observation/joint_position"], seen[-1]["observation/gripper_position"]])
        dreams += runtime.plan_frames([session], [tiled], [torch.from_numpy(state)], [DROID.render_prompt(TASK)])
    return [dream.actions.numpy() for dream in dreams]


def test_the_server_speaks_first_and_says_what_it_needs(client):
    assert client.metadata == METADATA


def test_a_dreamzero_client_gets_what_the_runtime_plans_from_its_frames(client, droid):
    calls = [(0,), (1, 2, 3, 4), (5, 6, 7, 8)]
    chunks = [client.infer(observation(*call)) for call in calls]
    assert all(chunk.shape == (STEPS, 8) and chunk.dtype == np.float32 for chunk in chunks)
    np.testing.assert_allclose(chunks, expected(droid, *calls), rtol=0, atol=1e-5)


def test_of_a_client_that_sends_single_frames_the_last_four_are_used(client, droid):
    chunks = [client.infer(observation(number)) for number in range(6)]
    shown = [(0,), (0, 0, 0, 1), (0, 0, 1, 2), (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5)]
    np.testing.assert_allclose(chunks, expected(droid, *shown), rtol=0, atol=1e-5)


def test_a_client_that_sends_a_whole_blocks_frames_is_taken_at_its_word(client, droid):
    calls = [(0,), tuple(range(1, 9))]
    chunks = [client.infer(observation(*call)) for call in calls]
    np.testing.assert_allclose(chunks, expected(droid, *calls), rtol=0, atol=1e-5)


def test_what_is_approximated_is_said_once(droid, caplog):
    with served(droid) as server:
        client = Client(server.url)
        for number in range(3):
            client.infer(observation(number))
        client.socket.close()
    assert caplog.text.count("approximation: clients show 4 of a block's 8 pictures, each is taken twice") == 1


def test_of_several_frames_the_first_chunk_takes_the_newest(client, droid):
    chunk = client.infer(observation(0, 1, 2, 3))
    np.testing.assert_allclose(chunk, expected(droid, (3,))[0], rtol=0, atol=1e-5)


def test_of_more_frames_than_a_block_holds_the_newest_are_read(client, droid):
    chunks = [client.infer(observation(*call)) for call in ((0,), range(1, 20))]
    np.testing.assert_allclose(chunks, expected(droid, (0,), tuple(range(12, 20))), rtol=0, atol=1e-5)


def test_sessions_of_one_client_do_not_mix(client, droid):
    alone = expected(droid, (0,), (1, 2, 3, 4))
    for call in ((0,), (1, 2, 3, 4)):
        chunk = client.infer(observation(*call))
        client.infer(observation(*(9 + number for number in call), session_id="b"))
    np.testing.assert_allclose(chunk, alone[1], rtol=0, atol=1e-5)


def test_a_reset_begins_anew_one_session_or_all(client, droid):
    first = expected(droid, (0,))[0]
    for call in ((0,), (1, 2, 3, 4)):
        client.infer(observation(*call))
        client.infer(observation(*call, session_id="b"))
    assert client.reset(session_id="a") == "reset successful"
    np.testing.assert_allclose(client.infer(observation(0)), first, rtol=0, atol=1e-5)
    goes_on = expected(droid, (0,), (1, 2, 3, 4), (5, 6, 7, 8))[2]
    np.testing.assert_allclose(client.infer(observation(5, 6, 7, 8, session_id="b")), goes_on, rtol=0, atol=1e-5)
    assert client.reset() == "reset successful"
    np.testing.assert_allclose(client.infer(observation(0, session_id="b")), first, rtol=0, atol=1e-5)


def test_a_sessions_name_opens_nothing_on_another_connection(server, client, droid):
    client.infer(observation(0))
    stranger = Client(server.url)
    chunk = stranger.infer(observation(1, 2, 3, 4))
    np.testing.assert_allclose(chunk, expected(droid, (4,))[0], rtol=0, atol=1e-5)
    stranger.socket.close()


def test_openpis_own_client_gets_named_actions_and_timing(client):
    request = observation(0, session_id=np.zeros(1, np.int32))
    del request["endpoint"]
    first, second = client.infer(request), client.infer(request)
    assert first["actions"].shape == (STEPS, 8)
    assert set(first["server_timing"]) == {"infer_ms"}
    assert set(second["server_timing"]) == {"infer_ms", "prev_total_ms"}
    assert second["server_timing"]["prev_total_ms"] >= first["policy_timing"]["infer_ms"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endpoint": "shutdown"}, "bad_message: endpoint is 'shutdown'"),
        ({"endpoint": np.zeros(2)}, "bad_message: endpoint is array"),
        ({"observation/wrist_image_left": [[1], [2, 3]]}, "wrist_left sent a value of type list"),
        ({"prompt": " "}, "task is empty"),
        ({"prompt": 3}, "prompt is a value of type int"),
        ({"observation/joint_position": np.full(7, np.nan)}, "not finite"),
        ({"observation/joint_position": np.zeros(6, np.float32)}, r"expected float32 \[8\]"),
        ({"observation/joint_position": "zero"}, "no list of numbers"),
        ({"observation/wrist_image_left": np.zeros((HEIGHT, WIDTH, 3))}, "expected uint8"),
        ({"observation/wrist_image_left": None}, "wrist_left sent"),
        ({"observation/wrist_image_left": np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)}, "different numbers of frames"),
        ({f"observation/{c}": np.zeros((0, 4, 4, 3), np.uint8) for c in CAMERAS}, "frames or none"),
        ({"note": {b"__ndarray__": True, b"dtype": "|O", b"shape": [1], b"data": b"\x80\x04N."}}, r"dtype '\|O'"),
        ({"note": {b"__ndarray__": True, b"dtype": "<f4", b"shape": [9], b"data": b""}}, "expected 36 bytes"),
    ],
)
def test_a_wrong_request_is_answered_with_a_text_and_the_next_is_served(client, changes, message):
    with pytest.raises(RuntimeError, match=message):
        client.infer(observation(0, **changes))
    assert client.infer(observation(0)).shape == (STEPS, 8)


def test_a_missing_camera_is_named(client):
    request = observation(0)
    del request["observation/exterior_image_1_left"]
    with pytest.raises(RuntimeError, match="observation/exterior_image_1_left is missing"):
        client.infer(request)


def test_numbers_may_come_plain_or_as_numpys(client):
    chunk = client.infer(observation(0))
    client.reset()
    joints, gripper = (observation(0)[f"observation/{part}_position"] for part in ("joint", "gripper"))
    plain = {"observation/joint_position": joints.tolist(), "observation/gripper_position": gripper[0]}
    np.testing.assert_array_equal(client.infer(observation(0, **plain)), chunk)


def test_another_robot_is_served_by_its_own_names():
    spec = load_embodiment("wam_sim_viperx")
    with served(untrained_policy(spec, (HEIGHT, WIDTH))) as server:
        client = Client(server.url)
        names = [f"observation/{camera.key.removeprefix('observation.images.')}" for camera in spec.cameras]
        state = np.zeros(len(spec.state), np.float32)
        chunk = client.infer({name: picture(0) for name in names} | {"observation/state": state, "prompt": TASK})
        assert chunk["actions"].shape == (spec.chunk_steps, len(spec.action))
        client.socket.close()


def test_a_token_opens_the_door_in_openpis_form_and_in_ours(droid):
    with served(droid, token=TOKEN) as server:
        for header in ({}, {"Authorization": "Api-Key wrong"}):
            with pytest.raises(InvalidStatus, match="401"):
                Client(server.url, **header)
        for scheme in ("Api-Key", "Bearer"):
            client = Client(server.url, Authorization=f"{scheme} {TOKEN}")
            assert client.metadata == METADATA
            client.socket.close()
