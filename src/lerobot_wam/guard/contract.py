"""What a robot may be told: which joints, within which limits, how far in one control step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lerobot_wam.embodiments.spec import Dimension, EmbodimentSpec


@dataclass(frozen=True, eq=False)
class Contract:
    """The form and the limits of a robot's actions, from its embodiment.

    Attributes:
        robot: The embodiment's name, for messages.
        names: Of the A action dimensions, in order.
        low: Lower limits [A] in physical units; -inf where there is none.
        high: Upper limits [A]; inf where there is none.
        max_step: Largest change between two control steps [A]; inf where the embodiment gives no `max_rate`.
        rest: Command at which a velocity or a delta stands still [A]; NaN for positions, which stand where they are.
        measured: For each action dimension the state dimension of the same name, if any.
        fps: Control steps per second.
    """

    robot: str
    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    max_step: np.ndarray
    rest: np.ndarray
    measured: tuple[int | None, ...]
    fps: float

    @classmethod
    def of(cls, spec: EmbodimentSpec) -> "Contract":
        """Return the contract that an embodiment stands for."""
        index = {name: i for i, name in enumerate(spec.state_names)}

        def each(field: str, missing: float) -> np.ndarray:
            return np.array([_value(dimension, field, missing) for dimension in spec.action], dtype=np.float64)

        return cls(
            robot=spec.name,
            names=spec.action_names,
            low=each("low", -np.inf),
            high=each("high", np.inf),
            max_step=each("max_rate", np.inf) / spec.fps,
            rest=each("rest", np.nan),
            measured=tuple(index.get(name) for name in spec.action_names),
            fps=spec.fps,
        )

    def check_names(self, names: Sequence[str]) -> None:
        """Refuse a robot whose actions have other names, or another order.

        Raises:
            ValueError: With what differs first.
        """
        if tuple(names) != self.names:
            raise ValueError(
                f"the robot's actions are {', '.join(names) or 'none'}; embodiment {self.robot!r} has "
                f"{', '.join(self.names)}: drive the robot that the policy was trained for"
            )

    def limited(self, actions: np.ndarray) -> np.ndarray:
        """Return actions [..., A] with every position inside its limits."""
        return np.clip(actions, self.low, self.high)

    def standing(self, state: np.ndarray | None) -> np.ndarray:
        """Return the command [A] that keeps a robot in this state [S] where it is; NaN where nobody can tell."""
        if state is None:
            return self.rest
        measured = np.array([np.nan if i is None else state[i] for i in self.measured])
        return np.where(np.isnan(self.rest), measured, self.rest)


def _value(dimension: Dimension, field: str, missing: float) -> float:
    value = getattr(dimension, field)
    return missing if value is None else value
