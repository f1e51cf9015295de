"""The websocket protocol of openpi's, RoboArena's and DreamZero's clients, which work unchanged (spec §3.6).

The server speaks first and says what it needs. After that every request is answered once: with a chunk of actions, or
with a text message where it asked for a reset or something is wrong with it. A request holds what a robot sees now;
what it saw at its last calls is kept here. Messages are msgpack, arrays in openpi's form of it.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from lerobot_wam.batches import BatchReader
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.embodiments.spec import EmbodimentSpec
from lerobot_wam.runtime.state import Observation
from lerobot_wam.serving.engine import Seat, Superseded
from lerobot_wam.serving.limits import Limits
from lerobot_wam.serving.observations import read_observation, read_pictures
from lerobot_wam.serving.protocol import DTYPES, PATH, ProtocolError, as_array, load
from lerobot_wam.serving.robots import REFUSED, Allowance

if TYPE_CHECKING:
    from lerobot_wam.serving.server import Server

logger = logging.getLogger(__name__)

DROID_CAMERAS = (
    "observation/exterior_image_0_left",
    "observation/exterior_image_1_left",
    "observation/wrist_image_left",
)
"""What RoboArena calls the cameras of the layout "droid", in the layout's order."""
DROID_STATE = ("observation/joint_position", "observation/gripper_position")
STATE = "observation/state"
_LONGEST_NAME = 256
RESET = "reset successful"
"""What a client is told that asked for a reset."""

_DTYPES = {np.dtype(name).newbyteorder("<").str: name for name in DTYPES}


def pack(message: Any) -> bytes:
    """Encode what openpi's clients read: plain values, and arrays as maps with the key `__ndarray__` (bytes)."""

    def encoded(array: NDArray[Any]) -> dict[bytes, Any]:
        return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}

    return msgpack.packb(message, default=encoded)


def unpack(data: bytes | str, limits: Limits) -> dict[str, Any]:
    """Decode what openpi's clients send. Numbers of numpy come back as plain ones.

    Raises:
        ProtocolError: Not one well-formed map, more than the limits allow, or an array of another type than `DTYPES`.
    """
    return load(data, limits, partial(_decoded, limits=limits))


def _decoded(container: dict[Any, Any], limits: Limits) -> Any:
    if b"__npgeneric__" in container:
        return container.get(b"data")
    if b"__ndarray__" not in container:
        return container
    dtype = container.get(b"dtype")
    name = _DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
    return as_array(name, container.get(b"shape"), container.get(b"data"), limits)


def metadata(spec: EmbodimentSpec, config: WAMConfig) -> dict[str, Any]:
    """Return the server's first message. RoboArena's clients build a dataclass of it: it has just these fields."""
    wrist = [camera for camera in spec.cameras if "wrist" in camera.key]
    trained = (config.input_features or {}).get(spec.cameras[0].key)
    return {
        "image_resolution": list(config.image_size if trained is None else trained.shape[1:]),
        "needs_wrist_camera": bool(wrist),
        "n_external_cameras": len(spec.cameras) - len(wrist),
        "needs_stereo_camera": False,
        "needs_session_id": True,
        "action_space": "joint_position",
    }


def camera_names(spec: EmbodimentSpec) -> dict[str, str]:
    """Return what a request calls each camera: RoboArena's names for a DROID, else `observation/NAME`."""
    keys = [camera.key for camera in spec.cameras]
    if spec.view_layout == "droid":
        return dict(zip(keys, DROID_CAMERAS, strict=True))
    return {key: f"observation/{key.removeprefix('observation.images.')}" for key in keys}


def read_frames(request: Mapping[str, Any], reader: BatchReader, newest: int) -> list[Observation]:
    """Return the observations in a request, oldest first: one, or the newest of its pictures [T, H, W, 3].

    The state is `observation/state`, or joints and gripper as a DROID has them; it goes with the newest picture.

    Args:
        request: What a client sent.
        reader: Of the robot's embodiment.
        newest: How many pictures to read at most.

    Raises:
        ProtocolError: Something is missing or does not fit the robot.
    """
    spec = reader.space.spec
    names = camera_names(spec)
    views = {key: request[name] for key, name in names.items() if name in request}
    missing = [name for key, name in names.items() if key not in views]
    if missing:
        raise ProtocolError("bad_observation", f"{', '.join(missing)} is missing, expected {', '.join(names.values())}")
    clips = {key: view if isinstance(view, np.ndarray) and view.ndim == 4 else [view] for key, view in views.items()}
    lengths = {names[key]: len(clip) for key, clip in clips.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ProtocolError("bad_observation", f"cameras sent different numbers of frames or none: {lengths}")
    prompt = request.get("prompt", "")
    if not isinstance(prompt, str):
        raise ProtocolError("bad_observation", f"prompt is a value of type {type(prompt).__name__}, expected text")
    state = _state(request)
    ends = [clip[-newest:] for clip in clips.values()]
    rows = [dict(zip(clips, row, strict=True)) for row in zip(*ends, strict=True)]
    return [read_observation(reader, read_pictures(row, list(names)), state, prompt) for row in rows]


def _state(request: Mapping[str, Any]) -> NDArray[np.float32]:
    parts = [request[name] for name in ((STATE,) if STATE in request else DROID_STATE) if name in request]
    try:
        return np.concatenate([np.atleast_1d(np.asarray(part, dtype=np.float32)) for part in parts or [[]]])
    except (ValueError, TypeError) as error:
        raise ProtocolError("bad_observation", f"{STATE} or {', '.join(DROID_STATE)} is no list of numbers") from error


@dataclass(eq=False)
class Episode:
    """What is kept of one session of a client.

    Attributes:
        seat: Its place at the engine.
        frames: The newest tiled frames.
        begun: Whether it was given a chunk.
    """

    seat: Seat
    frames: list[Tensor] = field(default_factory=list)
    begun: bool = False

    def clip(self, arrived: list[Tensor], block: int) -> Tensor:
        """Return the frames [T, 3, H, W] to plan from, when these have just arrived.

        The first chunk is planned from one frame, the others from half a block's: the newest, the oldest repeated
        where there are fewer (spec §3.6). A client that sends a whole block's is taken at its word.
        """
        self.frames = [*self.frames, *arrived][-block:]
        count = 1 if not self.begun else block if len(arrived) >= block else block // 2
        frames = self.frames[-count:]
        return torch.stack([frames[0]] * (count - len(frames)) + frames)


class Openpi:
    """Serves the clients of this protocol for as long as a server runs.

    A client names its sessions itself, so a name is worth something on its own connection only.

    Args:
        server: Its engine, settings, metrics and monitor.
    """

    def __init__(self, server: "Server") -> None:
        self.server = server
        self._announced = False

    async def serve(self, connection: ServerConnection) -> None:
        """Serve one connection: say what is needed, then answer every request."""
        server, settings = self.server, self.server.settings
        allowance, episodes, timing = Allowance(settings.rate_limit), dict[str, Episode](), dict[str, float]()
        try:
            reader = server.reader(server.category_of(""))
            await self._send(connection, pack(metadata(reader.space.spec, server.policy.config)))
            while True:
                async with asyncio.timeout(settings.idle_timeout):
                    data = await connection.recv()
                server.metrics.bytes.labels("in").inc(len(data))
                began = time.perf_counter()
                try:
                    if not allowance.take():
                        raise ProtocolError("rate_limited", f"more than {settings.rate_limit:g} messages a second")
                    reply = await self._answer(unpack(data, settings.limits), reader, episodes, timing)
                except ProtocolError as error:
                    server.metrics.errors.labels(error.code).inc()
                    reply = f"{error.code}: {error}"
                await self._send(connection, reply)
                timing = {"prev_total_ms": 1e3 * (time.perf_counter() - began)}
        except TimeoutError:  # it is silent, or does not read
            connection.transport.abort()
        except Superseded:
            await connection.close(CloseCode.GOING_AWAY, "shutting down")
        except ProtocolError as error:
            await connection.close(REFUSED, f"{error.code}: connect at {PATH}, where robots say which they are")
        except ConnectionClosed:
            pass
        finally:
            for episode in episodes.values():
                server.engine.leave(episode.seat)

    async def _answer(
        self, request: dict[Any, Any], reader: BatchReader, episodes: dict[str, Episode], timing: dict[str, float]
    ) -> bytes | str:
        """Return the reply to a request; `timing` is what is known of the last one.

        Raises:
            ProtocolError: The request does not fit.
            Superseded: The server stops.
        """
        engine = self.server.engine
        name, endpoint = _session_of(request), request.get("endpoint", "infer")
        if not isinstance(endpoint, str) or endpoint not in ("infer", "reset"):
            raise ProtocolError("bad_message", f"endpoint is {endpoint!r:.40}, expected 'infer' or 'reset'")
        if endpoint == "reset":
            for gone in [name] if name else list(episodes):
                episodes.pop(gone, None)
            return RESET
        block = engine.runtime.block_frames - 1
        observations = await asyncio.to_thread(read_frames, request, reader, block)
        self.server.metrics.frames.inc(len(observations))
        if name not in episodes:
            while len(episodes) >= self.server.settings.max_sessions:
                del episodes[next(iter(episodes))]
            episodes[name] = Episode(engine.seat(reader.category))
        episode, newest = episodes[name], observations[-1]
        clip = episode.clip([o.frame for o in observations], block)
        if 1 < len(clip) < block and not self._announced:
            self._announced = True
            logger.warning(
                f"approximation: clients show {len(clip)} of a block's {block} pictures, each is taken twice; arrays "
                f"[{block}, height, width, 3] show all"
            )
        planned = await engine.plan_frames(episode.seat, clip, newest.state, newest.task)
        episode.begun = True
        self.server.metrics.plans.inc()
        actions = planned.dream.actions.numpy()
        if "endpoint" in request:  # RoboArena's and DreamZero's clients
            return pack(actions)
        here = {"infer_ms": planned.queue_ms + planned.compute_ms}
        return pack({"actions": actions, "policy_timing": here, "server_timing": here | timing})

    async def _send(self, connection: ServerConnection, reply: bytes | str) -> None:
        async with asyncio.timeout(self.server.settings.send_timeout):
            await connection.send(reply)
        self.server.metrics.bytes.labels("out").inc(len(reply))


def _session_of(request: Mapping[Any, Any]) -> str:
    """Return a request's session, of whatever type its name is; clients of openpi's own have none."""
    name = request.get("session_id", "")
    return str(name.tolist() if isinstance(name, np.ndarray) else name)[:_LONGEST_NAME]
