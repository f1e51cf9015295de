"""What the demonstration does: its sizes, its folders, and the command that repeats each step."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

EVALUATION_SEED = 100_000
"""First environment seed of the evaluations. Recordings draw from another stream, so no scene is ever shared."""


@dataclass(frozen=True)
class Condition:
    """One evaluation.

    Attributes:
        name: Short name, also its folder.
        explanation: A few words for the report.
        episodes: How many.
        flags: Further `--env.*` flags.
    """

    name: str
    explanation: str
    episodes: int
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class DemoPlan:
    """Sizes of one demonstration.

    Attributes:
        folder: Where everything goes.
        arm: Simulated arm.
        episodes: Recorded episodes.
        shares: Shares of task groups and play among them.
        steps: Training steps.
        batch_size: Windows per step.
        eval_episodes: Episodes of the policy on the single-stage tasks.
        control_episodes: Episodes of each control.
        two_stage_episodes: Episodes on the two-stage tasks.
        dreams: Held-out clips that are dreamed.
        seed: Seed of recording and training.
        workers: Processes that simulate.
        quick: Whether this is the short run that claims nothing.
    """

    folder: Path
    arm: str = "viperx"
    episodes: int = 1800
    shares: str = "single:14,two_stage:1,play:1"
    steps: int = 1100
    batch_size: int = 32
    eval_episodes: int = 240
    control_episodes: int = 96
    two_stage_episodes: int = 48
    dreams: int = 24
    seed: int = 0
    workers: int = 2
    quick: bool = False

    def shortened(self) -> "DemoPlan":
        """Return the plan of a run that only shows that every step works."""
        return replace(
            self,
            episodes=32,
            steps=20,
            batch_size=8,
            eval_episodes=12,
            control_episodes=12,
            two_stage_episodes=4,
            dreams=4,
            quick=True,
        )

    def resized(self, episodes: int | None, steps: int | None) -> "DemoPlan":
        """Return the plan with other sizes; None keeps one."""
        return replace(self, episodes=episodes or self.episodes, steps=steps or self.steps)

    @property
    def dataset(self) -> Path:
        """The recorded training data."""
        return self.folder / "dataset"

    @property
    def held_out(self) -> Path:
        """Episodes that are never trained on, for the dreams."""
        return self.folder / "held_out"

    @property
    def training(self) -> Path:
        """LeRobot's training folder."""
        return self.folder / "train"

    @property
    def last_checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.training / "checkpoints" / "last" / "pretrained_model"

    def evaluation(self, condition: str) -> Path:
        """Folder of one evaluation."""
        return self.folder / "evaluation" / condition

    @property
    def conditions(self) -> list[Condition]:
        """The evaluations that `lerobot-eval` runs; hold-still and random are no policies and run beside them."""
        n = self.control_episodes
        return [
            Condition("policy", "the trained policy", self.eval_episodes),
            Condition("wrong instruction", "told another task than the real one", n, ("--env.instruction=wrong",)),
            Condition("blank image", "sees black frames", n, ("--env.blank_image=true",)),
            Condition("two-stage", "two tasks in one instruction", self.two_stage_episodes, ("--env.task=two_stage",)),
        ]

    @property
    def train_arguments(self) -> list[str]:
        """Arguments of `lerobot-train`."""
        return [
            f"--dataset.repo_id=local/{self.dataset.name}",
            f"--dataset.root={self.dataset}",
            "--dataset.video_backend=pyav",
            "--policy.type=wam",
            "--policy.preset=nano",
            "--policy.device=cpu",
            "--policy.push_to_hub=false",
            f"--output_dir={self.training}",
            f"--steps={self.steps}",
            f"--batch_size={self.batch_size}",
            f"--save_freq={max(1, self.steps // 5)}",
            f"--log_freq={max(1, self.steps // 100)}",
            f"--seed={self.seed}",
            "--env_eval_freq=0",
            "--num_workers=0",
        ]

    @property
    def resume_arguments(self) -> list[str]:
        """Arguments of `lerobot-train` that continue an interrupted training."""
        return [f"--config_path={self.last_checkpoint / 'train_config.json'}", "--resume=true"]

    def eval_arguments(self, condition: Condition) -> list[str]:
        """Arguments of `lerobot-eval`."""
        return [
            f"--policy.path={self.last_checkpoint}",
            "--policy.device=cpu",
            f"--policy.save_predicted_video={str(condition.name == 'policy').lower()}",
            "--env.type=wam_tabletop",
            f"--env.arm={self.arm}",
            "--env.visualization_size=128",
            *condition.flags,
            f"--eval.n_episodes={condition.episodes}",
            f"--eval.batch_size={min(48, condition.episodes)}",
            f"--seed={EVALUATION_SEED}",
            f"--output_dir={self.evaluation(condition.name)}",
        ]

    @property
    def record_command(self) -> str:
        """What records the same data."""
        return shlex.join(
            [
                "lerobot-wam",
                "record",
                f"--root={self.dataset}",
                f"--episodes={self.episodes}",
                f"--tasks={self.shares}",
                f"--arm={self.arm}",
                f"--seed={self.seed}",
            ]
        )
