"""What a guard is to do. Imports nothing: configurations hold it."""

from dataclasses import dataclass

ON_FAULT = ("hold", "ramp", "none")
"""What a guard may do; see `GuardSettings`."""


@dataclass(frozen=True)
class GuardSettings:
    """What the guard does.

    Attributes:
        on_fault: "hold" the last command at once; "ramp" down from the speed of the last commands; "none" checks
            nothing.
        max_age_s: Seconds that an action may come late: the time since the observation that its chunk was computed
            from, less the action's place in the chunk. None for any.
        patience: Faults in a row that are held; one more and the guard stops for good. Late actions are held for as
            long as it takes and do not count: they are no fault of the policy.
    """

    on_fault: str = "hold"  # no Literal: it comes from a flag
    max_age_s: float | None = 3.0
    patience: int = 10

    def __post_init__(self) -> None:
        if self.on_fault not in ON_FAULT:
            raise ValueError(f"guard is {self.on_fault!r}; expected {', '.join(ON_FAULT)}.")
        if self.patience < 0 or (self.max_age_s is not None and self.max_age_s <= 0):
            raise ValueError(
                f"guard_max_age_s is {self.max_age_s}, guard_patience {self.patience}; expected seconds above 0 (or "
                "null), and 0 faults or more."
            )
