"""Run every step of the demonstration in order and write its report."""

import json
import logging
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lerobot_wam.demo.plan import EVALUATION_SEED, DemoPlan
from lerobot_wam.demo.steps import control_step, eval_step, record_step, train_step
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.report.clips import open_episodes, read_clip
from lerobot_wam.report.dream import DreamResult, dream
from lerobot_wam.report.environment import environment
from lerobot_wam.report.metrics import pool
from lerobot_wam.report.page import (
    Cell,
    Command,
    Headline,
    LossCurve,
    ReportData,
    SuccessTable,
    Timing,
    write_page,
)
from lerobot_wam.report.pictures import dream_panel
from lerobot_wam.sim.tasks import select_tasks

CONTROLS = {"hold still": "keeps the arm where it is", "random": "random chunks in the policy's action range"}
SHOWN_DREAMS = 3


def run_demo(plan: DemoPlan) -> Path:
    """Run what is missing and return the report's path.

    Timings of steps that were done in an earlier run are kept from there.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    stages = _Stages(plan.folder / "timings.json")
    stages.time("record", f"{plan.episodes} episodes", lambda: record_step(plan))
    curve = stages.time("train", f"{plan.steps} steps of {plan.batch_size} windows", lambda: train_step(plan))
    successes: dict[str, list[bool]] = {}
    for condition in plan.conditions:
        detail = f"{condition.episodes} episodes"
        successes[condition.name] = stages.time(
            f"evaluate: {condition.name}", detail, partial(eval_step, plan, condition)
        )
    for name in CONTROLS:
        detail = f"{plan.control_episodes} episodes"
        successes[name] = stages.time(f"evaluate: {name}", detail, partial(control_step, plan, name))
    dreams = stages.time("dream", f"{plan.dreams} held-out clips", lambda: dream_step(plan))
    data, results = build_report(plan, successes, dreams, curve, stages)
    (plan.folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    return write_page(data, plan.folder / "report.html")


def dream_step(plan: DemoPlan) -> list[DreamResult]:
    """Dream every held-out episode from its first frame, in closed loop."""
    policy = WAMPolicy.from_pretrained(plan.last_checkpoint)
    episodes = open_episodes(policy, f"local/{plan.held_out.name}", plan.held_out)
    return [dream(policy, read_clip(policy, episodes, i), loop="closed") for i in range(plan.dreams)]


class _Stages:
    """Wall time of the steps, kept on disk because a step may have been done by an earlier run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.timings: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}

    def time[T](self, name: str, detail: str, step: Callable[[], T]) -> T:
        """Run a step and note how long it took; several parts of an interrupted step add up."""
        logging.getLogger(__name__).info("%s (%s)", name, detail)
        started, before = time.perf_counter(), self.timings.get(name, {"seconds": 0.0})
        try:
            return step()
        finally:
            seconds = time.perf_counter() - started
            self.timings[name] = {"seconds": before["seconds"] + seconds, "detail": detail}
            self.path.write_text(json.dumps(self.timings, indent=1))


def build_report(
    plan: DemoPlan, successes: dict[str, list[bool]], dreams: list[DreamResult], curve: Path, stages: _Stages
) -> tuple[ReportData, dict[str, Any]]:
    """Gather the page's content and the same numbers as plain values."""
    tasks = [task.instruction for task in select_tasks("single")]
    columns = {"policy": plan.conditions[0].explanation, **{c.name: c.explanation for c in plan.conditions[1:3]}}
    columns |= CONTROLS
    rows = {
        instruction: [
            Cell(sum(outcomes[i :: len(tasks)]), len(outcomes[i :: len(tasks)]))
            for outcomes in (successes[name] for name in columns)
        ]
        # Seed s plays task s mod 12; the first evaluation seed decides which one that is.
        for i, instruction in enumerate(_rotate(tasks, EVALUATION_SEED))
    }
    table = SuccessTable("Single-stage tasks", columns, rows, note="Wilson 95 % intervals; scenes never trained on.")
    two_stage = Cell(sum(successes["two-stage"]), len(successes["two-stage"]))
    tables = [
        table,
        SuccessTable("Two-stage instructions", {"policy": "two tasks in a row"}, {"all two-stage tasks": [two_stage]}),
    ]
    scores = {name: pool([d.scores[name] for d in dreams]).summary() for name in dreams[0].scores}
    chunk_seconds = np.array([s for d in dreams for s in d.seconds[1:]] or [s for d in dreams for s in d.seconds])
    policy_cell = table.total[0]
    assert policy_cell is not None
    imagined, copied = scores["imagined"]["psnr_moving"], scores["copy"]["psnr_moving"]
    lines = [json.loads(line) for line in curve.read_text().splitlines()] if curve.is_file() else []
    losses = [
        LossCurve(name, [line["steps"] for line in lines], [line[name] for line in lines])
        for name in ("loss", "video_loss", "action_loss", "bc_loss")
        if lines and name in lines[0]
    ]
    data = ReportData(
        title="A world action model, trained on this machine",
        lead="One small diffusion transformer learned to imagine the next moments of video and the robot's actions "
        "together, from simulated demonstrations with language instructions.",
        notice="Quick run: it shows that every step works and claims no success." if plan.quick else "",
        headlines=[
            Headline(f"{100 * policy_cell.rate:.0f} %", "success on unseen scenes", policy_cell.interval_text),
            Headline(f"{100 * two_stage.rate:.0f} %", "success on two-stage tasks", two_stage.interval_text),
            Headline(f"{imagined - copied:+.1f} dB", "imagined video against copying the last frame", "moving pixels"),
            Headline(f"{1000 * np.median(chunk_seconds):.0f} ms", "per chunk of 8 actions and 8 frames", "median"),
        ],
        success=tables,
        dreams=[dream_panel(d) for d in dreams[:SHOWN_DREAMS]],
        losses=losses,
        timings=[Timing(name, t["seconds"], t["detail"]) for name, t in stages.timings.items()],
        environment=environment(),
        seed=plan.seed,
        commands=_commands(plan),
        links={"results.json": "results.json", "training_curve.jsonl": "training_curve.jsonl"},
    )
    metrics: dict[str, Any] = {
        "success_rate": policy_cell.rate,
        "n_episodes": policy_cell.episodes,
        "success_wilson_95": policy_cell.interval,
        "success_by_condition": {
            name: {"successes": sum(outcomes), "n_episodes": len(outcomes)} for name, outcomes in successes.items()
        },
        "success_by_task": {task: asdict(cells[0]) for task, cells in rows.items() if cells[0] is not None},
        "video_scores": scores,
        "chunk_latency_p50_ms": float(1000 * np.median(chunk_seconds)),
        "seconds": {name: t["seconds"] for name, t in stages.timings.items()},
        "plan": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(plan).items()},
        "training": lines[-1] if lines else {},
    }
    return data, {"environment": environment(), "seed": plan.seed, "metrics": metrics}


def _rotate(tasks: list[str], seed: int) -> list[str]:
    start = seed % len(tasks)
    return tasks[start:] + tasks[:start]


def _commands(plan: DemoPlan) -> list[Command]:
    evaluations = [
        Command(f"Evaluate: {c.name}", shlex.join(["lerobot-eval", *plan.eval_arguments(c)])) for c in plan.conditions
    ]
    dream_arguments = [
        f"--policy.path={plan.last_checkpoint}",
        f"--dataset.root={plan.held_out}",
        "--episode=0",
        f"--out={plan.folder / 'dream'}",
    ]
    return [
        Command("Record", plan.record_command),
        Command("Train", shlex.join(["lerobot-train", *plan.train_arguments])),
        *evaluations,
        Command("Dream", shlex.join(["lerobot-wam", "dream", *dream_arguments])),
    ]
