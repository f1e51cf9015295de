"""Physical states and actions to normalised numbers and back: relative to the chunk's start, then scaled (spec §2.4).

Shape legend: B batch, n chunks, H actions per chunk, A action dimensions, S state dimensions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lerobot_wam.embodiments.spec import EmbodimentSpec


@dataclass(frozen=True, eq=False)
class ActionStatistics:
    """Ranges of one embodiment's data: facts, before any floor of ``Normalization`` is applied.

    Attributes:
        action_low: [H, A], or [1, A] when pooled over the horizon; relative dimensions hold action minus
            anchor state.
        action_high: same shape.
        state_low: [S].
        state_high: [S].
        steps: control steps that were read.
        windows: chunk anchors that entered the action ranges.
    """

    action_low: np.ndarray
    action_high: np.ndarray
    state_low: np.ndarray
    state_high: np.ndarray
    steps: int = 0
    windows: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON values; :meth:`from_dict` gives the same numbers back, to the last bit."""
        return {key: v.tolist() if isinstance(v, np.ndarray) else v for key, v in vars(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ActionStatistics":
        """The inverse of :meth:`to_dict`."""
        arrays = {key: np.asarray(v, dtype=np.float64) for key, v in data.items() if isinstance(v, list)}
        return cls(**arrays, steps=data["steps"], windows=data["windows"])


class ActionSpace:
    """One embodiment's numbers as the model sees them. Works in the dtype and on the device of what it is given.

    A range [low, high] maps to [-1, 1]; on the way in numbers are clipped to ``normalization.clip``, on the
    way back never. With a positive ``min_half_range`` every range is widened to at least that, around its
    middle, and both ways are inverse. With 0 a dimension whose range is a single value behaves as in
    DreamZero: it passes raw on the way in (unclipped), and the way back returns that value whatever the
    model says.

    Args:
        spec: the embodiment.
        statistics: its ranges.

    Raises:
        ValueError: the statistics have other dimensions than the spec.
    """

    def __init__(self, spec: EmbodimentSpec, statistics: ActionStatistics) -> None:
        A, S = len(spec.action), len(spec.state)
        steps = spec.chunk_steps if spec.normalization.per_step else 1
        found = [statistics.action_low.shape, statistics.action_high.shape]
        found += [statistics.state_low.shape, statistics.state_high.shape]
        if found != [(steps, A)] * 2 + [(S,)] * 2:
            raise ValueError(
                f"statistics of {spec.name!r} have shapes {found}, expected action ({steps}, {A}) and state ({S},): "
                "compute them anew for this embodiment with compute_statistics"
            )
        floor = spec.normalization.min_half_range
        self.spec = spec
        self._action_range = _widen(statistics.action_low, statistics.action_high, floor)
        self._state_range = _widen(statistics.state_low, statistics.state_high, floor)
        self._relative = [i for i, dimension in enumerate(spec.action) if dimension.relative]
        self._anchor = [spec.state_names.index(spec.action_names[i]) for i in self._relative]

    def encode_state(self, state: Tensor) -> Tensor:
        """Physical states [..., S] to normalised ones.

        Raises:
            ValueError: a NaN or infinite number, with the dimension's name and index.
        """
        _require_finite(state, self.spec.state_names, "state")
        return _normalise(state, self._state_range, self.spec.normalization.clip)

    def encode(self, actions: Tensor, anchor_state: Tensor) -> Tensor:
        """Absolute physical actions to what the model learns.

        Args:
            actions: [B, n, H, A].
            anchor_state: [B, n, S], the physical state at each chunk's start.

        Returns:
            [B, n, H, A].

        Raises:
            ValueError: a NaN or infinite number, with the dimension's name and index.
        """
        _require_finite(actions, self.spec.action_names, "action")
        _require_finite(anchor_state, self.spec.state_names, "anchor state")
        relative = self.to_relative(actions, anchor_state)
        return _normalise(relative, self._action_range, self.spec.normalization.clip)

    def decode(self, normalised: Tensor, anchor_state: Tensor) -> Tensor:
        """Model output [B, n, H, A] to absolute physical actions, anchored at the physical states [B, n, S].

        The result has the anchor's dtype and device, so a bfloat16 model does not round joint targets.
        """
        x = normalised.to(anchor_state)
        low, high = (bound.to(anchor_state) for bound in self._action_range)
        return self.to_absolute((x + 1) / 2 * (high - low) + low, anchor_state)

    def to_relative(self, actions: Tensor, anchor_state: Tensor) -> Tensor:
        """Subtract the anchor [B, n, S] from the relative dimensions of absolute actions [B, n, H, A]; no scaling."""
        relative = actions.clone()
        relative[..., self._relative] -= anchor_state[..., None, self._anchor]
        return relative

    def to_absolute(self, actions: Tensor, anchor_state: Tensor) -> Tensor:
        """The inverse of :meth:`to_relative`."""
        absolute = actions.clone()
        absolute[..., self._relative] += anchor_state[..., None, self._anchor]
        return absolute


def _widen(low: np.ndarray, high: np.ndarray, min_half_range: float) -> tuple[Tensor, Tensor]:
    """Both bounds as float64 tensors, ranges narrower than the floor widened around their middle."""
    middle = (low + high) / 2
    narrow = (high - low) / 2 < min_half_range
    low = np.where(narrow, middle - min_half_range, low)
    high = np.where(narrow, middle + min_half_range, high)
    return torch.from_numpy(low), torch.from_numpy(high)


def _normalise(x: Tensor, bounds: tuple[Tensor, Tensor], clip: float | None) -> Tensor:
    low, high = (bound.to(x) for bound in bounds)
    flat = high == low
    scaled = 2 * (x - low) / torch.where(flat, 1, high - low) - 1
    if clip is not None:
        scaled = scaled.clamp(-clip, clip)
    return torch.where(flat, x, scaled)


def _require_finite(x: Tensor, names: tuple[str, ...], what: str) -> None:
    bad = ~torch.isfinite(x)
    if bad.any():
        where = bad.nonzero()[0].tolist()
        raise ValueError(
            f"{what} {names[where[-1]]!r} is {x[tuple(where)].item()} at index {where}, expected a finite number: "
            "repair or drop the frame (a sensor dropout, or a division by zero in the recording?)"
        )
