"""Claim D: training with decoupled noise (Flash) makes one denoising step nearly as good as many.

A cell is one noise mode, number of solver steps and seed: nano learns from one recording, the same windows in the same
order in either mode, and is tried on the same scenes. The coupled policy denoises video and actions fully; the
decoupled one leaves the noise in its video that it was trained with. The last checkpoint's weight average acts. How
long a chunk takes is a cell of its own, the only one whose numbers depend on the machine.

Policies are those of `benchmarks.flash`, trained where they are missing.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.claims.cells import Cell
from benchmarks.claims.contestants import Condition, evaluate
from benchmarks.claims.data import ARM
from benchmarks.claims.findings import Finding, Report, by_change, percent
from benchmarks.claims.runs import FIRST_SCENE
from benchmarks.claims.scales import NANO, Scale
from benchmarks.common import milliseconds
from benchmarks.flash import NOISE, trained
from benchmarks.injected_latency import observe
from benchmarks.paired import contrast, outcomes, rate, trial
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.presets import SPEEDS
from lerobot_wam.report.charts import Series, line_chart
from lerobot_wam.report.page import NumberTable
from lerobot_wam.sim.env import TabletopEnv
from lerobot_wam.sim.episodes import Recipe
from lerobot_wam.sim.record import record

TITLE = "D · One denoising step in place of many"
STEPS = (1, 2, 4, 8)
FEW, MANY = STEPS[0], STEPS[-1]
MARGIN = 0.05
"""Of success that may be lost in "nearly as good"."""
COUPLED, DECOUPLED = "coupled", "decoupled"
FINAL_SIGMA = {COUPLED: 0.0, DECOUPLED: SPEEDS["flash"]["video_final_sigma"]}
LATENCY = "chunk_latency"
_FOLDERS = {mode: name for name, mode in NOISE.items()}
_TURNS = 40


@dataclass(frozen=True)
class Study:
    """What is trained and tried at one scale.

    Attributes:
        folder: Where the demonstration's recording, `demo/dataset`, and the trainings, `flash`, lie; None takes the
            scale's own.
        recorded: Tasks of the recording, as `Recipe.tasks`.
        demonstrations: Its episodes.
        tried: Tasks of the trials, as `select_tasks` takes them.
        episodes: Of each trial.
        steps: Optimizer steps.
    """

    folder: Path | None = None
    recorded: str = "single:14,two_stage:1,play:1"
    demonstrations: int = 1800
    tried: str = "single"
    episodes: int = 200
    steps: int = 700


STUDIES = {
    "smoke": Study(recorded="touch-red", demonstrations=8, tried="touch-red", episodes=4, steps=20),
    "cpu": Study(Path("outputs")),
    "gpu": Study(steps=4000),
}
"""Scale -> study; "cpu" shares folders with `lerobot-wam demo` and `benchmarks.flash`."""


def cells(scale: Scale) -> list[Cell]:
    """Few and many steps first, then those between, then time."""
    order = product(scale.seeds, (FEW, MANY, *STEPS[1:-1]), FINAL_SIGMA)
    found = [
        Cell("d", cell_name(mode, steps, seed), seed, partial(success, scale, mode, steps, seed))
        for seed, steps, mode in order
    ]
    return [*found, Cell("d", LATENCY, scale.seeds[0], partial(chunk_latency, scale))]


def cell_name(mode: str, steps: int, seed: int) -> str:
    """Name of a cell."""
    return f"{mode}-{steps}_steps-seed_{seed}"


def policy(scale: Scale, mode: str, seed: int) -> Path:
    """Return the last checkpoint of a noise mode's training, done as far as it is not."""
    study = STUDIES[scale.name]
    folder = study.folder or scale.outputs
    root, own = folder / "demo" / "dataset", folder / "flash" / f"seed_{seed}" / _FOLDERS[mode]
    record(root, study.demonstrations, Recipe(study.recorded, ARM))
    flags = (*scale.flags, *scale.sizes[NANO])
    return trained(mode, root, study.steps, scale.batch_size, seed, own, scale.device, flags)


def acting(mode: str, steps: int) -> dict[str, Any]:
    """Fields of a policy of this mode that denoises in so many steps."""
    return {
        "num_inference_steps": steps,
        "computed_steps": "all",
        "guidance_scale": 1.0,
        "video_final_sigma": FINAL_SIGMA[mode],
    }


def success(scale: Scale, mode: str, steps: int, seed: int) -> dict[str, Any]:
    """Train a policy and try it; what a cell's file holds."""
    study, fields = STUDIES[scale.name], acting(mode, steps)
    trials = evaluate(
        policy(scale, mode, seed),
        Condition("trained", study.tried, flags=tuple(f"--policy.{field}={value}" for field, value in fields.items())),
        episodes=study.episodes,
        seed=FIRST_SCENE,
        folder=scale.outputs / "trials" / "flash" / cell_name(mode, steps, seed),
        device=scale.device,
    )
    return {
        "noise_mode": mode,
        "acting": fields,
        "training_steps": study.steps,
        "batch_size": scale.batch_size,
        "demonstrations": study.demonstrations,
        "tasks": study.tried,
        "first_scene": FIRST_SCENE,
        **outcomes(trials.successes),
        "progress": statistics.fmean(trials.progress),
    }


def chunk_latency(scale: Scale) -> dict[str, Any]:
    """Time of a chunk's actions by number of steps, which take turns; the passes are the same in both modes."""
    study = STUDIES[scale.name]
    acts = WAMPolicy.from_pretrained(policy(scale, COUPLED, scale.seeds[0])).to(scale.device).eval()
    env, runtime = TabletopEnv(study.tried, ARM, acts.config.image_size[0]), acts.runtime
    seen = observe(acts, env, env.reset(seed=FIRST_SCENE)[0])
    taken: dict[int, list[float]] = {steps: [] for steps in STEPS}
    for turn in range(1 + _TURNS):
        for steps, times in taken.items():
            runtime.sampler = replace(runtime.sampler, steps=steps)
            session = runtime.new_session(turn, acts.category)
            spent = milliseconds(scale.device, partial(runtime.plan, [session], [seen]))
            times += [spent] if turn else []  # the first turn warms up
    env.close()
    median = {str(steps): statistics.median(times) for steps, times in taken.items()}
    return {"repetitions": _TURNS, "threads": torch.get_num_threads(), "chunk_latency_p50_ms_by_steps": median}


def report(scale: Scale, records: Mapping[str, Mapping[str, Any]]) -> Report:
    """Success by noise mode and steps over the seeds that are there, and what one step gives up and saves."""
    trials = {
        (mode, steps): {
            seed: trial(records[name]["metrics"])
            for seed in scale.seeds
            if (name := cell_name(mode, steps, seed)) in records
        }
        for mode, steps in product(FINAL_SIGMA, STEPS)
    }
    rates = {
        way: rate([outcome for own in by_seed.values() for outcome in own])
        for way, by_seed in trials.items()
        if by_seed
    }
    pairs = {
        "nearly_as_good": ((COUPLED, MANY), (DECOUPLED, FEW)),
        "better_than_coupled": ((COUPLED, FEW), (DECOUPLED, FEW)),
        "what_coupled_loses": ((COUPLED, MANY), (COUPLED, FEW)),
    }
    changes = {name: _change(trials[before], trials[after]) for name, (before, after) in pairs.items()}
    latency = records[LATENCY]["metrics"]["chunk_latency_p50_ms_by_steps"] if LATENCY in records else {}

    def finding(name: str, claim: str, rule: str, goal: float) -> Finding:
        complete = all(len(trials[way]) == len(scale.seeds) for way in pairs[name])
        return by_change(claim, rule, changes[name] if complete else None, goal, scale.seeds)

    findings = [
        finding(
            "nearly_as_good",
            "Asked again of known trainings: with decoupled noise one step is nearly as good as eight of the coupled "
            "policy.",
            f"Holds where the 95 % interval of the paired difference lies above {-100 * MARGIN:.0f} points.",
            -MARGIN,
        ),
        finding(
            "better_than_coupled",
            "It is decoupling that makes one step good: the coupled policy succeeds less often in one.",
            "Holds where the 95 % interval of the paired difference lies above 0.",
            0.0,
        ),
    ]
    rows = {
        f"{mode}, {steps} step{'s' if steps > 1 else ''}": [
            percent(rates[mode, steps]),
            f"{latency[str(steps)]:.0f} ms" if latency else "",
        ]
        for mode, steps in rates
    }
    table = NumberTable(
        "Success and time of a chunk by training noise and steps",
        "Episodes that succeeded over all trainings, with 95 % Wilson intervals, on the same scenes; the decoupled "
        f"policy leaves its video at noise level {FINAL_SIGMA[DECOUPLED]:g}.",
        ("success", "chunk, median"),
        rows,
        [_chart(rates)] if rows else [],
    )
    metrics = {
        "success": dict(zip(rows, rates.values(), strict=True)),
        "changes": {name: change for name, change in changes.items() if change},
        "chunk_latency_p50_ms_by_steps": latency,
    }
    return Report(findings, [table] if rows else [], metrics)


def _change(before: Mapping[int, Sequence[bool]], after: Mapping[int, Sequence[bool]]) -> dict[str, Any]:
    """Success of one way of acting less another's, over the seeds that both have; empty without any."""
    both = sorted(before.keys() & after.keys())
    if not both:
        return {}
    ways = ([by_seed[seed] for seed in both] for by_seed in (before, after))
    return contrast(*ways, matched=True) | {"seeds": len(both)}


def _chart(rates: Mapping[tuple[str, int], Mapping[str, Any]]) -> str:
    lines = [
        Series(
            mode,
            [steps for way, steps in rates if way == mode],
            [100 * found["success_rate"] for (way, _), found in rates.items() if way == mode],
        )
        for mode in FINAL_SIGMA
    ]
    return line_chart("Success (%)", [line for line in lines if line.x], x_label="steps")
