"""The native protocol between a robot and the server (version 1): messages, arrays, limits. Needs numpy and msgpack.

Every websocket message is binary and one msgpack map with a "type". An array is a map of its own,
`{"array": {"dtype", "shape", "data"}}`, in C order and little endian. A picture is an array [H, W, 3] of uint8, or
`{"jpeg": bytes}`. Nothing that arrives is executed or unpickled, and what it may hold is bounded before it is built.

Robot to server:
    hello    protocol (int), robot (embodiment or LeRobot robot type, "" for the policy's own), session (secret of a
             session to go on with, or null)
    reset    epoch (int): a new episode; greater than the last one's
    observe  epoch, sequence (int, one more each control step), time (the robot's own seconds, sent back), images
             {camera key: picture}, state (float32 [S]), task (str), plan (bool: whether a chunk is wanted), and at will
             commitment {actions (float32 [n, A]), delay (int) or weights (float32 [n]), strength (float)}
Server to robot:
    welcome  protocol, session (a secret), resumed (bool), epoch, sequence (newest one seen, -1 for none), embodiment
             (its spec), pictures {camera key: [height, width] trained on}, chunk_steps, execute_steps, approximations,
             max_message_bytes, version
    ready    epoch
    chunk    epoch, sequence, time (of the observation that it was planned from), actions (float32 [T, A], absolute and
             physical), execute (how many of them), starts_window, surprise (or null), timing {queue_ms, compute_ms}
    replan   epoch, sequence, surprise (or null): drop the rest of the chunk and ask for another, because the policy is
             surprised and reacts, or because the task is another one
    error    code (one of `CODES`), message, fatal (bool: the connection ends), and epoch and sequence where known

What comes twice or late is dropped. A gap in the sequence, and a plan after another number of steps than a chunk has,
end the window. Of several plans that wait for one robot only the newest is computed; the others get no answer.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import msgpack
import numpy as np

from lerobot_wam.serving.limits import LIMITS, Limits

VERSION = 1
"""Of this protocol. Another one is refused."""
PATH = "/robot"
"""Where a server speaks it."""
DTYPES = ("uint8", "float32", "float64", "int32", "int64", "bool")
"""Element types that an array may have."""
CODES = (
    "unauthorized",
    "bad_message",
    "bad_observation",
    "too_large",
    "rate_limited",
    "stale",
    "overloaded",
    "shutting_down",
    "internal",
)
"""What an error can be."""


class ProtocolError(ValueError):
    """A message that is not as agreed.

    Attributes:
        code: One of `CODES`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def pack(message: dict[str, Any]) -> bytes:
    """Encode a message; numpy arrays may be anywhere in it.

    Raises:
        TypeError: A value that has no place in a message, such as an array of objects.
    """
    return msgpack.packb(message, default=_encoded)


def unpack(data: bytes | str, limits: Limits = LIMITS) -> dict[str, Any]:
    """Decode a message; arrays come back as numpy arrays, which are read-only views of `data`.

    Raises:
        ProtocolError: Not one well-formed map with a "type", or more than the limits allow.
    """
    message = load(data, limits, partial(_decoded, limits=limits))
    field(message, "type", str)
    return message


def load(data: bytes | str, limits: Limits, decoded: Callable[[dict[Any, Any]], Any]) -> dict[Any, Any]:
    """Decode one msgpack map, every map in it replaced by what `decoded` makes of it.

    Raises:
        ProtocolError: Not one well-formed map, or more than the limits allow.
    """
    if not isinstance(data, bytes):
        raise ProtocolError("bad_message", "found a text message, expected binary msgpack")
    if len(data) > limits.message_bytes:
        raise ProtocolError("too_large", f"message has {len(data)} bytes, expected at most {limits.message_bytes}")
    left = limits.containers

    def counted(container: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ProtocolError("bad_message", f"message has more than {limits.containers} maps and lists")
        return decoded(container) if isinstance(container, dict) else container

    try:
        message = msgpack.unpackb(
            data,
            object_hook=counted,
            list_hook=counted,
            max_str_len=limits.text_bytes,
            max_bin_len=limits.message_bytes,
            max_array_len=limits.entries,
            max_map_len=limits.entries,
            max_ext_len=0,
        )
    except ProtocolError:
        raise
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ProtocolError("bad_message", f"message is not one msgpack map within the limits: {reason}") from error
    if not isinstance(message, dict):
        raise ProtocolError("bad_message", f"message is a {type(message).__name__}, expected one msgpack map")
    return message


def field(message: dict[str, Any], name: str, kind: type, **default: Any) -> Any:
    """Return a field of a message that must have this type.

    Args:
        message: From `unpack`.
        name: Of the field.
        kind: Its type. A float may be written as an integer, and is finite.
        default: `default=VALUE` for a field that may be absent or null.

    Raises:
        ProtocolError: The field is absent or of another type.
    """
    value = message.get(name)
    if value is None and default:
        return default["default"]
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
        found = "absent" if value is None else type(value).__name__
        raise ProtocolError("bad_message", f"field {name!r} is {found}, expected {kind.__name__}")
    return value


def _encoded(value: Any) -> dict[str, Any]:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"a message cannot hold {type(value).__name__}: pass plain values and numpy arrays")
    name = value.dtype.name
    if name not in DTYPES:
        raise TypeError(f"array has dtype {name}, expected one of {', '.join(DTYPES)}")
    # `ascontiguousarray` makes a number an array of one.
    data = np.ascontiguousarray(value.astype(_wire(name), copy=False)).tobytes()
    return {"array": {"dtype": name, "shape": list(value.shape), "data": data}}


def _decoded(container: dict[Any, Any], limits: Limits) -> Any:
    if "array" not in container:
        return container
    body = container["array"]
    if len(container) != 1 or not isinstance(body, dict) or body.keys() != {"dtype", "shape", "data"}:
        raise ProtocolError("bad_message", "array is malformed, expected {'array': {'dtype', 'shape', 'data'}}")
    return as_array(body["dtype"], body["shape"], body["data"], limits)


def as_array(name: Any, shape: Any, data: Any, limits: Limits) -> np.ndarray[Any, Any]:
    """Return the array of these bytes, a read-only view of them.

    Raises:
        ProtocolError: The dtype is not one of `DTYPES`, or the shape and the bytes do not fit.
    """
    if name not in DTYPES:
        raise ProtocolError("bad_message", f"array has dtype {name!r:.40}, expected one of {', '.join(DTYPES)}")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ProtocolError("bad_message", "array has a shape that is not a list of sizes")
    if len(shape) > limits.rank:
        raise ProtocolError("bad_message", f"array has {len(shape)} axes, expected at most {limits.rank}")
    needed = math.prod(shape) * np.dtype(name).itemsize
    if not isinstance(data, bytes) or len(data) != needed:
        found = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise ProtocolError("bad_message", f"array of {name} {shape} holds {found}, expected {needed} bytes")
    return np.frombuffer(data, _wire(name)).reshape(shape)


def _wire(name: str) -> np.dtype[Any]:
    return np.dtype(name).newbyteorder("<")
