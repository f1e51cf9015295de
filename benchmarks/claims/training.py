"""Trainings that go on where they were interrupted."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paired import unchanged


def last_checkpoint(folder: Path) -> Path:
    """Where the policy of a training's last checkpoint lies."""
    return folder / "checkpoints" / "last" / "pretrained_model"


def resumed_or_new(
    folder: Path, steps: int, batch_size: int, seed: int, device: str, flags: Sequence[str]
) -> list[str] | None:
    """Return what `lerobot-train` is to be told.

    Args:
        folder: The training's output folder. One without a checkpoint is removed: LeRobot refuses a folder that exists.
        steps: Optimizer steps; a checkpoint is saved in the middle and at the end.
        batch_size: Samples a step.
        seed: Of weights and order.
        device: Where it learns.
        flags: Which policy of which form learns from which data; a training that goes on has them kept.

    Returns:
        The flags of a new training, those that resume one, or None: it is done.

    Raises:
        ValueError: The folder holds a training with other flags.
    """
    last = last_checkpoint(folder)
    asked = [f"--batch_size={batch_size}", f"--seed={seed}", f"--policy.device={device}", *flags]
    unchanged(folder.with_name(f"{folder.name}.flags.json"), [f"--steps={steps}", *asked], begun=last.is_dir())
    if (folder / "checkpoints" / f"{steps:06d}" / "pretrained_model" / "config.json").is_file():
        return None
    if last.is_dir():
        return [f"--config_path={last / 'train_config.json'}", "--resume=true"]
    shutil.rmtree(folder, ignore_errors=True)
    return [
        f"--output_dir={folder}",
        f"--steps={steps}",
        f"--save_freq={max(1, steps // 2)}",
        "--policy.push_to_hub=false",
        "--env_eval_freq=0",
        "--num_workers=0",
        *asked,
    ]
