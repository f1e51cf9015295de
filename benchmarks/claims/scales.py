"""The sizes at which the claims are tested. What a cell's result depends on, besides its own settings, stands here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

NANO = "nano"
OUTPUTS = Path("outputs/claims")


@dataclass(frozen=True)
class Scale:
    """One size; times are those of a quiet machine.

    Attributes:
        name: What `--scale` says. Results and outputs lie in folders of this name.
        device: Where policies learn and act.
        seeds: Of training, each a cell of its own.
        contestants: Who takes part in claim A, in the order of work.
        seen: The tasks that are demonstrated, as `select_tasks` takes them.
        unseen: The tasks that never are.
        looks: Of the scenes in which they are demonstrated.
        labels: Demonstrations of each seen task: the settings of claim A.
        deciding: Those of them in which claim A is decided; they come first.
        few: Demonstrations of each seen task in claim B and of the mechanism.
        fewer_tasks: Parts of `seen`, fewest tasks first, that scaling demonstrates in as many episodes.
        budgets: "clock", as much training time for all, and "samples", as many samples for all -> which of `labels`
            claim A compares by it.
        seconds: Training time of ours under "clock".
        steps: Optimizer steps of all contestants in place of `seconds`, where nothing about time is claimed.
        batch_size: Windows a step.
        episodes: Played under each condition.
        sizes: Sizes of ours, smallest first, and the flags of training that make them.
        sizes_in_claim_a: Those that take part in claim A.
        flags: Further flags of training for ours.
        prior_tasks: What the prior's videos show, as `Recipe.tasks`.
        prior_episodes: Of each of the four arms, for the prior.
        prior_steps: Optimizer steps of the prior.
        held_out: Episodes of each held-out recording that only losses and dreams are measured on.
        video_minutes: Simulated minutes of video without actions in claim B, of three arms together.
        play_minutes: Simulated minutes of play on the fourth arm in claim C.
        arm_episodes: Of each of the three arms that claim C begins with.
        arm_steps: Optimizer steps of the policy that knows these three.
        adapt_steps: Optimizer steps of an adaptation, at most.
        again: Whether everything is done once more, from nothing.
    """

    name: str
    device: str = "cpu"
    seeds: tuple[int, ...] = (0, 1, 2)
    contestants: tuple[str, ...] = (
        "ours_prior",
        "no_video_scratch",
        "act",
        "ours_scratch",
        "diffusion",
        "no_video_prior",
        "multi_task_dit",
        "fastwam",
    )
    seen: str = "seen"
    unseen: str = "unseen"
    looks: str = "varied"
    labels: tuple[int, ...] = (5, 20, 100)
    deciding: tuple[int, ...] = (5, 20)
    few: int = 20
    fewer_tasks: tuple[str, ...] = (
        "left-green,right-blue,away-red",
        "left-green,right-blue,away-red,left-blue,right-red,away-green",
    )
    budgets: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {"clock": (5, 20, 100), "samples": (20,)})
    seconds: float = 300.0
    steps: int | None = None
    batch_size: int = 32
    episodes: int = 108
    sizes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sizes_in_claim_a: tuple[str, ...] = (NANO,)
    flags: tuple[str, ...] = ()
    prior_tasks: str = "seen:2,two_stage_seen:1"
    prior_episodes: int = 400
    prior_steps: int = 2000
    held_out: int = 36
    video_minutes: float = 15.0
    play_minutes: tuple[float, ...] = (5.0, 10.0, 30.0)
    arm_episodes: int = 400
    arm_steps: int = 1500
    adapt_steps: int = 1200
    again: bool = False

    @property
    def outputs(self) -> Path:
        """Where recordings, policies and trials are kept."""
        return OUTPUTS / (f"{self.name}_again" if self.again else self.name)


def size(dim: int, layers: int, head: int = 32) -> tuple[str, ...]:
    """Flags of a network of this width and depth, with heads of `head` channels."""
    shape = {"dim": dim, "num_heads": dim // head, "num_layers": layers, "ffn_dim": 4 * dim}
    return tuple(f"--policy.{name}={value}" for name, value in shape.items())


SMOKE = Scale(
    "smoke",
    seeds=(0,),
    contestants=("ours_prior", "act"),
    seen="touch-red",
    unseen="touch-blue",
    looks="plain",
    labels=(40,),
    deciding=(40,),
    few=40,
    fewer_tasks=(),
    budgets={"samples": (40,)},
    steps=40,
    batch_size=16,
    episodes=8,
    sizes={"32x1": size(32, 1), NANO: size(64, 2)},
    # Few steps: no long warm-up, a short average, and windows from all of an episode's few frames.
    flags=("--policy.ema_decay=0.9", "--policy.warmup_steps=5", "--policy.drop_n_last_frames=4"),
    prior_tasks="touch-red",
    prior_episodes=3,
    prior_steps=20,
    held_out=1,
    video_minutes=0.3,
    play_minutes=(0.5,),
    arm_episodes=8,
    arm_steps=20,
    adapt_steps=12,
)
CPU = Scale("cpu", sizes={"64x3": size(64, 3), NANO: (), "192x6": size(192, 6)})
GPU = Scale(
    "gpu",
    device="cuda",
    seconds=240.0,
    sizes={NANO: (), "256x6": size(256, 6), "small": size(512, 8, head=64)},
    sizes_in_claim_a=(NANO, "small"),
    prior_episodes=4000,
    prior_steps=20_000,
    arm_episodes=1200,
    arm_steps=6000,
    adapt_steps=1500,
)
SCALES = {scale.name: scale for scale in (SMOKE, CPU, GPU)}
