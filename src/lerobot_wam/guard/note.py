"""What pre-processor, policy and post-processor tell one another about an action, beside the numbers themselves."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lerobot_wam.embodiments.spec import EmbodimentSpec
from lerobot_wam.guard.settings import GuardSettings

NOTE = "wam_note"
"""Key of a batch's note."""


@dataclass(frozen=True)
class Answer:
    """What the policy says about the actions that it returns.

    Attributes:
        spec: The robot that they are for.
        settings: What the guard is to do.
        episode: A number that is another one in each episode.
        due: Per robot, when its action (of a chunk: the first) would leave if nothing took any time: the time of the
            observation that it was computed from, plus its place in the chunk, in seconds of `time.monotonic`.
        overlaps: Whether a chunk comes into use as soon as it is there, in place of the rest of the last one (LeRobot's
            real-time chunking); otherwise it follows the last one.
    """

    spec: EmbodimentSpec
    settings: GuardSettings
    episode: int
    due: Sequence[float]
    overlaps: bool = False


@dataclass(eq=False)
class Note:
    """One observation on its way through the policy.

    Attributes:
        time: When it came, in seconds of `time.monotonic`.
        live: Whether time passes while the policy computes, as it does not in a simulated evaluation.
        state: Observed physical states [B, S], if any.
        inputs: Per call a hash that names what robot number `row` observed.
        replan: Robots whose last action the guard refused: what is left of its chunk is to be dropped.
        answer: The policy writes it.
    """

    time: float = field(default_factory=time.monotonic)
    live: bool = False
    state: np.ndarray | None = None
    inputs: Callable[[int], str] = lambda row: "unknown"
    replan: Sequence[int] = ()
    answer: Answer | None = None
