"""The steps of the demonstration. Each leaves its result on disk and is skipped when that is already there."""

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import lerobot_wam.sim.config_tabletop  # noqa: F401  (LeRobot's own programs register plugins before they parse)
from lerobot_wam.data.memory import InMemoryDataset
from lerobot_wam.demo.plan import EVALUATION_SEED, Condition, DemoPlan
from lerobot_wam.embodiments.action_space import ActionSpace
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.sim.env import TabletopEnv
from lerobot_wam.sim.episodes import Recipe
from lerobot_wam.sim.record import record
from lerobot_wam.training.loop import swapped


def record_step(plan: DemoPlan) -> None:
    """Record task, two-stage and play episodes, and a few held-out ones of other seeds."""
    record(plan.dataset, plan.episodes, Recipe(plan.shares, plan.arm, seed=plan.seed), workers=plan.workers)
    record(plan.held_out, plan.dreams, Recipe("single", plan.arm, seed=plan.seed + 1), workers=1)


def train_step(plan: DemoPlan) -> Path:
    """Train through `lerobot-train`, continuing an interrupted run; return the curve's file (JSON lines)."""
    from lerobot.scripts import lerobot_train

    curve = plan.folder / "training_curve.jsonl"
    trained = _steps_done(plan)
    if trained >= plan.steps:
        return curve
    if not trained:  # nothing to continue from, and LeRobot refuses a folder that exists
        shutil.rmtree(plan.training, ignore_errors=True)
        curve.unlink(missing_ok=True)
    arguments = plan.resume_arguments if trained else plan.train_arguments
    load = lerobot_train.make_train_eval_datasets

    def load_into_memory(config: Any) -> tuple[InMemoryDataset, Any]:
        train, held_out = load(config)
        return InMemoryDataset(train), held_out

    # What runs is what the report prints. Decoding the same images again at every step would cost half the time.
    with (
        swapped(sys, argv=["lerobot-train", *arguments]),
        swapped(lerobot_train, make_train_eval_datasets=load_into_memory),
        _log_filter(_CurveFilter(curve)),
    ):
        lerobot_train.train()
    return curve


def eval_step(plan: DemoPlan, condition: Condition) -> list[bool]:
    """Evaluate through `lerobot-eval`; return the success of each episode, the i-th of seed EVALUATION_SEED + i."""
    from lerobot.scripts.lerobot_eval import eval_main

    result = plan.evaluation(condition.name) / "eval_info.json"
    if not result.is_file():
        with swapped(sys, argv=["lerobot-eval", *plan.eval_arguments(condition)]), _log_filter(_BriefFilter()):
            eval_main()
    return _successes(result)


def control_step(plan: DemoPlan, name: str) -> list[bool]:
    """Run a control that is no policy: "hold still" keeps the joints, "random" executes random chunks.

    Random chunks are uniform in the trained policy's normalised action range, anchored like its own.
    """
    result = plan.evaluation(name) / "eval_info.json"
    if not result.is_file():
        space = WAMPolicy.from_pretrained(plan.last_checkpoint).action_spaces[0]
        rng = np.random.default_rng(plan.seed)
        env = TabletopEnv(task="single", arm=plan.arm)
        successes = []
        for i in tqdm(range(plan.control_episodes), desc=name, unit="episode"):
            observation, _ = env.reset(seed=EVALUATION_SEED + i)
            act = _holder(observation) if name == "hold still" else _random_actor(space, rng)
            ended, info = False, {"is_success": False}
            while not ended:
                observation, _, terminated, truncated, info = env.step(act(observation))
                ended = terminated or truncated
            successes.append(bool(info["is_success"]))
        env.close()
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text(json.dumps({"per_task": [{"metrics": {"successes": successes}}]}, indent=1))
    return _successes(result)


def _successes(eval_info: Path) -> list[bool]:
    return [bool(success) for success in json.loads(eval_info.read_text())["per_task"][0]["metrics"]["successes"]]


def _holder(first: dict[str, Any]) -> Callable[[dict[str, Any]], np.ndarray]:
    return lambda observation: first["agent_pos"]


def _random_actor(space: ActionSpace, rng: np.random.Generator) -> Callable[[dict[str, Any]], np.ndarray]:
    queue: list[np.ndarray] = []

    def act(observation: dict[str, Any]) -> np.ndarray:
        if not queue:
            chunk = torch.from_numpy(rng.uniform(-1, 1, (1, 1, space.spec.chunk_steps, len(space.spec.action))))
            anchor = torch.from_numpy(observation["agent_pos"])[None, None].double()
            queue.extend(space.decode(chunk, anchor)[0, 0].float().numpy())
        return queue.pop(0)

    return act


def _steps_done(plan: DemoPlan) -> int:
    state = plan.last_checkpoint.parent / "training_state" / "training_step.json"
    return int(json.loads(state.read_text())["step"]) if state.is_file() else 0


class _BriefFilter(logging.Filter):
    """Leaves out the pages of settings that LeRobot logs; a filter survives its clearing of handlers."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let single lines pass."""
        return "\n" not in record.getMessage()


class _CurveFilter(_BriefFilter):
    """Writes the numbers that LeRobot logs while it trains, as JSON lines."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def filter(self, record: logging.LogRecord) -> bool:
        """Note the metrics trackers among what is logged."""
        to_dict = getattr(record.msg, "to_dict", None)
        if callable(to_dict):
            with self.path.open("a") as file:
                file.write(json.dumps(to_dict()) + "\n")
        return super().filter(record)


@contextmanager
def _log_filter(log_filter: logging.Filter) -> Iterator[None]:
    logging.getLogger().addFilter(log_filter)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(log_filter)
