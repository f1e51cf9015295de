"""The model card that travels with a pushed checkpoint."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

TEMPLATE = Path(__file__).with_name("model_card_template.md")
SUMMARY = "A robot policy trained with LeRobot."
_NONE = "none"

Row = Mapping[str, Any]


def generate_card(
    repo_id: str,
    *,
    name: str | None = None,
    summary: str = SUMMARY,
    license: str = "apache-2.0",
    tags: Sequence[str] = (),
    datasets: Sequence[str] = (),
    base_model: str | None = None,
    embodiments: Sequence[Row] = (),
    data: Sequence[Row] = (),
    training: Row | None = None,
    results: Sequence[Row] = (),
    results_note: str | None = None,
    robot_type: str | None = None,
    env_type: str | None = None,
    task: str | None = None,
) -> ModelCard:
    """Write the card of one checkpoint; needs no network.

    A table is a list of rows with the same keys, which head its columns in their order.

    Args:
        repo_id: Where the checkpoint is published, as ``user/name``; the commands on the card use it.
        name: Title; None takes the last part of ``repo_id``.
        summary: One or two sentences below the title.
        license: Licence identifier of the weights, as the Hub spells it.
        tags: Tags besides robotics, lerobot and wam.
        datasets: Hub ids of the training data; the first one appears in the commands.
        base_model: Hub id of the checkpoint that training started from.
        embodiments: Table of the robots that the checkpoint knows.
        data: Table of the training data.
        training: Settings and their values, in the order to show them.
        results: Table of measurements.
        results_note: Said in place of an empty results table.
        robot_type: LeRobot's robot type for the rollout command.
        env_type: LeRobot's environment type for the evaluation command.
        task: Example instruction for the rollout command.

    Raises:
        ValueError: the rows of a table differ in their keys.
    """
    for table, rows in {"embodiments": embodiments, "data": data, "results": results}.items():
        for row in rows:
            if list(row) != list(rows[0]):
                raise ValueError(
                    f"card table {table!r} has a row with columns {list(row)}, expected {list(rows[0])} "
                    "as in its first row: give all rows the same keys in the same order"
                )
    metadata = ModelCardData(
        license=license,
        library_name="lerobot",
        pipeline_tag="robotics",
        tags=sorted({"robotics", "lerobot", "wam", *tags}),
        datasets=list(datasets) or None,
        base_model=base_model,
    )
    return ModelCard.from_template(
        metadata,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        repo_id=repo_id,
        name=name or repo_id.rpartition("/")[2],
        summary=summary,
        dataset=datasets[0] if datasets else None,
        embodiments=embodiments,
        watches=bool(embodiments) and all(row.get("Actions") == _NONE for row in embodiments),
        data=data,
        training=training,
        results=results,
        results_note=results_note,
        robot_type=robot_type,
        env_type=env_type,
        task=task,
    )


def robot_rows(embodiments: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """The table of robots, from a configuration's stored embodiments."""
    return [
        {
            "Robot": name,
            "Cameras": ", ".join(camera["key"].rpartition(".")[2] for camera in spec["cameras"]),
            "State": _dimensions(spec["state"]),
            "Actions": _dimensions(spec["action"]),
            "Rate": f"{spec['fps']:g} Hz, chunks of {spec['chunk_steps']} steps",
        }
        for name, spec in ((name, stored["spec"]) for name, stored in embodiments.items())
    ]


def _dimensions(dimensions: Sequence[Mapping[str, Any]]) -> str:
    """Names, with the unit behind those that share it: ``waist.pos, elbow.pos (rad), gripper.pos (unit unknown)``."""
    groups = groupby(dimensions, key=lambda dimension: dimension["unit"] or "unit unknown")
    return ", ".join(f"{', '.join(d['name'] for d in group)} ({unit})" for unit, group in groups) or _NONE


def data_row(meta: Any) -> Row:
    """What LeRobot's dataset metadata tells about the training data."""
    return {
        "Dataset": meta.repo_id,
        "Robot": meta.robot_type or "unknown",
        "Episodes": meta.total_episodes,
        "Frames": meta.total_frames,
        "Rate": f"{meta.fps:g} Hz",
        "Tasks": len(meta.tasks),
    }


def training_rows(cfg: Any) -> Row:
    """The settings of LeRobot's training configuration."""
    return {
        "Preset": cfg.policy.preset,
        "Steps": cfg.steps,
        "Batch size": cfg.batch_size,
        "Seed": cfg.seed,
        "Optimizer": cfg.optimizer.type,
        "Learning rate": f"{cfg.optimizer.lr:g}",
        "Schedule": cfg.scheduler.type if cfg.scheduler else "constant",
        "Precision": cfg.policy.dtype,
        "Adapters": cfg.peft.method_type if cfg.peft else "none",
    }
