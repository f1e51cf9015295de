"""What a robot sent, checked and turned into what the model sees. Nothing that does not fit reaches a session."""

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lerobot_wam.batches import BatchReader
from lerobot_wam.commitment import Commitment
from lerobot_wam.runtime.state import Observation
from lerobot_wam.runtime.stitching import soft_mask
from lerobot_wam.serving.protocol import ProtocolError
from lerobot_wam.serving.protocol import field as field_of

MAX_PIXELS = 2**24
"""Of one picture, decoded."""


def read_pictures(images: Mapping[str, Any], keys: list[str]) -> dict[str, NDArray[np.uint8]]:
    """Return the pictures [H, W, 3] of these cameras; further ones are ignored.

    Raises:
        ProtocolError: A camera is missing, or what it sent is no picture.
    """
    missing = [key for key in keys if key not in images]
    if missing:
        found = ", ".join(sorted(map(str, images))) or "none"
        raise _bad(
            f"camera {', '.join(missing)} is missing (found {found}): send it, or rename one on the robot's side"
        )
    return {key: _picture(key, images[key]) for key in keys}


def read_observation(
    reader: BatchReader, pictures: Mapping[str, NDArray[np.uint8]], state: Any, task: str
) -> Observation:
    """Check state and task, and tile the pictures as a policy near the robot does.

    Args:
        reader: Of the robot's embodiment.
        pictures: Per camera, from `read_pictures`.
        state: Proprioception [S] in physical units, float32.
        task: Instruction, without the text that the policy was trained with around it.

    Raises:
        ProtocolError: The state or the task does not fit.
    """
    spec = reader.space.spec
    if not isinstance(state, np.ndarray) or state.dtype != np.float32 or state.shape != (len(spec.state),):
        names = ", ".join(spec.state_names)
        raise _bad(f"state is {_form(state)}, expected float32 [{len(spec.state)}] ({names}) in physical units")
    if not np.isfinite(state).all():
        wrong = [name for name, value in zip(spec.state_names, state, strict=True) if not math.isfinite(value)]
        raise _bad(f"state of {', '.join(wrong)} is not finite: check the robot's sensors")
    if not task.strip():
        raise _bad("task is empty: say what to do, in the words that the policy was trained with")
    # The division before anything else, as LeRobot does it: near and far see the same numbers.
    views = {key: torch.from_numpy(picture.astype(np.float32)) / 255 for key, picture in pictures.items()}
    frame = reader.tiled({key: view.permute(2, 0, 1).contiguous()[None] for key, view in views.items()})[0, -1]
    return Observation(frame * 2 - 1, torch.from_numpy(state.copy()), spec.render_prompt(task))


def read_commitment(message: dict[str, Any], names: tuple[str, ...], steps: int) -> Commitment | None:
    """Return what a chunk is to agree with: `actions` [n, A], and `weights` [n] or the `delay` that they follow from.

    Args:
        message: An `observe`; None where it has no commitment.
        names: Of the A action dimensions.
        steps: Actions of a chunk; further ones are ignored.

    Raises:
        ProtocolError: Arrays of another form, or not finite.
    """
    if (given := field_of(message, "commitment", dict, default=None)) is None:
        return None
    actions, weights = given.get("actions"), given.get("weights")
    if not _is_finite_float32(actions) or actions.ndim != 2 or actions.shape[1] != len(names) or not len(actions):
        raise ProtocolError("bad_observation", f"commitment.actions must be finite float32 [n, {len(names)}], n > 0")
    actions = torch.from_numpy(actions[:steps].copy())
    if weights is None:
        weights = soft_mask(max(0, field_of(given, "delay", int)), len(actions))
    elif not _is_finite_float32(weights) or weights.ndim != 1 or len(weights) < len(actions):
        raise ProtocolError("bad_observation", "commitment.weights must be finite float32 [n], one for each action")
    else:
        weights = torch.from_numpy(weights[: len(actions)].copy())
    return Commitment(actions, weights, field_of(given, "strength", float, default=float("inf")))


def _picture(key: str, value: Any) -> NDArray[np.uint8]:
    if isinstance(value, dict) and isinstance(value.get("jpeg"), bytes):
        value = _jpeg(key, value["jpeg"])
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3:
        raise _bad(f"camera {key} sent {_form(value)}, expected uint8 [height, width, 3] or {{'jpeg': bytes}}")
    if not 0 < value.shape[0] * value.shape[1] <= MAX_PIXELS:
        raise _bad(f"camera {key} sent {_form(value)}, expected 1 to {MAX_PIXELS} pixels")
    return value


def _jpeg(key: str, data: bytes) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if math.prod(image.size) > MAX_PIXELS:  # known before anything is decoded
                width, height = image.size
                raise _bad(f"camera {key} sent a JPEG of {height}x{width}, expected at most {MAX_PIXELS} pixels")
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise _bad(f"camera {key} sent {len(data)} bytes that are no whole JPEG picture") from error


def _form(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name} {list(value.shape)}"
    return "nothing" if value is None else f"a value of type {type(value).__name__}"


def _bad(message: str) -> ProtocolError:
    return ProtocolError("bad_observation", message)


def _is_finite_float32(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.float32 and bool(np.isfinite(value).all())
