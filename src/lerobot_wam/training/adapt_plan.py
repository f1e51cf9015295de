"""What an adaptation is asked to do, and what came of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lerobot_wam.data.recipe import MixtureEntry, MixtureRecipe

Mode = Literal["full", "lora", "heads"]


@dataclass(frozen=True)
class AdaptPlan:
    """What an adaptation is to do.

    Attributes:
        checkpoint: Folder of the policy, see `local_checkpoint`.
        data: The new robot's recording.
        folder: Where everything goes.
        mode: What is trained: all weights ("full"), low-rank adapters and the robot's own weights ("lora"), or only
            the robot's own ("heads").
        like: Known robot to begin with; None takes the nearest.
        cotrain: Earlier data, together as much as the new; None trains on the new alone, as mode "heads" has to.
        lr: Learning rate of the network; None takes a tenth of the checkpoint's, for adapters all of it. Muon's follows
            in proportion.
        heads_lr: Learning rate of the robots' own weights; None takes the checkpoint's.
        lora_rank: Rank of the adapters.
        steps: Most optimizer steps.
        batch_size: Windows per step.
        eval_every: Steps between two evaluations.
        patience: Evaluations without a new lowest error after which training ends.
        eval_split: Share of the episodes that is held out, at least one.
        windows: Held-out windows that are predicted in an evaluation.
        seed: Of the split and of training.
        device: Where to train and act; None takes the checkpoint's.
        flags: Further flags of `lerobot-train`.
    """

    checkpoint: Path
    data: MixtureEntry
    folder: Path
    mode: Mode = "full"
    like: str | None = None
    cotrain: MixtureRecipe | None = None
    lr: float | None = None
    heads_lr: float | None = None
    lora_rank: int = 16
    steps: int = 2000
    batch_size: int = 32
    eval_every: int = 100
    patience: int = 5
    eval_split: float = 0.1
    windows: int = 200
    seed: int = 0
    device: str | None = None
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mode == "heads" and self.cotrain is not None:
            raise ValueError(
                "--cotrain is given, but --mode=heads trains the new robot's weights alone: drop one of them"
            )
        if not 0 < self.eval_split < 1:
            raise ValueError(f"--eval-split is {self.eval_split}, expected a share of the episodes between 0 and 1")
        for flag, value in (
            ("steps", self.steps),
            ("batch-size", self.batch_size),
            ("eval-every", self.eval_every),
            ("patience", self.patience),
            ("windows", self.windows),
            ("lora-rank", self.lora_rank),
        ):
            if value < 1:
                raise ValueError(f"--{flag} is {value}, expected 1 or more")


@dataclass(frozen=True)
class Evaluation:
    """Open-loop error after some steps.

    Attributes:
        step: Optimizer steps done.
        errors: Mean absolute error of each action dimension, physical units.
        overall: One number for all of them, see `open_loop.share_of_range`.
    """

    step: int
    errors: list[float]
    overall: float


@dataclass(frozen=True)
class Adaptation:
    """What came of it.

    Attributes:
        embodiment: The new robot's name.
        like: The robot that it began with.
        joints: Names of its action dimensions.
        units: Their units.
        history: Every evaluation, the first one before training.
        best: Step whose weights were kept.
        hold_still: Errors of a robot that does not move (step 0).
        copy_last_motion: Errors of one that repeats its last motion (step 0).
        windows: Held-out windows behind each error.
        episodes: Episodes of the new recording that were trained on.
        held_out: Episodes that were not.
    """

    embodiment: str
    like: str
    joints: list[str]
    units: list[str]
    history: list[Evaluation]
    best: int
    hold_still: Evaluation
    copy_last_motion: Evaluation
    windows: int
    episodes: list[int]
    held_out: list[int]

    @property
    def before(self) -> Evaluation:
        """The error before training."""
        return self.history[0]

    @property
    def after(self) -> Evaluation:
        """The error of the weights that were kept."""
        return next(evaluation for evaluation in self.history if evaluation.step == self.best)
