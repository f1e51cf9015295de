"""LeRobot's pre- and post-processing pipelines for `WAMPolicy`, with the guard as the last step.

Actions stay physical on both sides: the policy normalises them, relative to each chunk's anchor state, with its
embodiment's own statistics. LeRobot's normaliser is kept, as identity, because its tools look for it by name.

The guard must know what was observed, and when. LeRobot loads the two pipelines of a checkpoint apart from one another;
the one pair of steps that it joins afterwards are those of relative actions, by their class. So `wam_watch` and
`wam_guard` are of these classes, switched off. The settings of the guard are the policy's own, so that
`--policy.guard_max_age_s=1` reaches it: the watch puts a `Note` into the batch, and the policy answers on it.
"""

import hashlib
import logging
import math
import time
import weakref
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from lerobot.lerobot_types import EnvTransition, TransitionKey
from lerobot.processor import (
    AbsoluteActionsProcessorStep,
    PolicyProcessorPipeline,
    ProcessorStepRegistry,
    RelativeActionsProcessorStep,
    make_default_policy_processor_steps,
    make_policy_processor_pipelines,
)
from lerobot.utils.constants import OBS_STATE
from torch import Tensor

from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.guard.contract import Contract
from lerobot_wam.guard.guard import Guard, GuardError
from lerobot_wam.guard.note import NOTE, Answer, Note

logger = logging.getLogger(__name__)


def make_wam_pre_post_processors(
    config: WAMConfig, dataset_stats: dict[str, dict[str, Tensor]] | None = None
) -> tuple[PolicyProcessorPipeline[Any, Any], PolicyProcessorPipeline[Any, Any]]:
    """Build the pipelines: rename, batch, watch, move, (identity) normalise; and back to the CPU and past the guard.

    Args:
        config: The policy's configuration.
        dataset_stats: LeRobot's dataset statistics; stored, not used.

    Returns:
        Preprocessor and postprocessor.
    """
    steps = make_default_policy_processor_steps(config, dataset_stats, normalizer_device=config.device)
    watch, guard = guard_steps()
    return make_policy_processor_pipelines(
        input_steps=[steps.rename_observations, steps.add_batch_dim, watch, steps.to_device, steps.normalize],
        output_steps=[steps.unnormalize, steps.to_cpu, guard],
    )


def guard_steps() -> "tuple[WatchStep, GuardStep]":
    """Return a watch for a pre-processor, behind what renames and batches, and its guard, to end the post-processor.

    A policy between them is guarded if it answers: `batch[NOTE].answer = Answer(spec, settings, episode, due)`.
    """
    watch = WatchStep()
    return watch, GuardStep(relative_step=watch)


@ProcessorStepRegistry.register("wam_watch")
@dataclass
class WatchStep(RelativeActionsProcessorStep):
    """Notes what is observed and when, for the policy and for the guard.

    Attributes:
        note: The newest; None before the first observation.
        live: Whether this is a loop on a robot. LeRobot resets the pipelines of those, and never the pipelines of an
            evaluation, in which the world waits for the policy.
        refused: Robots whose last action the guard refused.
    """

    note: Note | None = field(default=None, init=False, repr=False)
    live: bool = field(default=False, init=False, repr=False)
    refused: tuple[int, ...] = field(default=(), init=False, repr=False)

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """Put a note into the batch, unless it comes with actions, as in training."""
        if transition.get(TransitionKey.ACTION) is not None:
            return transition
        observation = transition.get(TransitionKey.OBSERVATION) or {}
        state = observation.get(OBS_STATE)
        self.note = Note(
            time=time.monotonic(),
            live=self.live,
            state=None if state is None else (state[:, -1] if state.ndim == 3 else state).cpu().numpy(),
            inputs=partial(_digest, observation),
            replan=self.refused,
        )
        self.refused = ()
        transition = transition.copy()
        extras = transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}
        transition[TransitionKey.COMPLEMENTARY_DATA] = {**extras, NOTE: self.note}
        return transition

    def reset(self) -> None:
        """Begin an episode on a robot."""
        self.live, self.refused = True, ()

    def get_config(self) -> dict[str, Any]:
        """Nothing is configured here."""
        return {}


@ProcessorStepRegistry.register("wam_guard")
@dataclass
class GuardStep(AbsoluteActionsProcessorStep):
    """Lets through what the robot may be told, for each robot of a batch by itself.

    Attributes:
        guards: One per robot; their `tally` counts clips and faults.
    """

    guards: list[Guard] = field(default_factory=list, init=False, repr=False)
    _answer: Answer | None = field(default=None, init=False, repr=False)
    _seen: float = field(default=0.0, init=False, repr=False)
    _told: set[str] = field(default_factory=set, init=False, repr=False)

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """Check the actions [B, A], or the chunks [B, T, A], of the newest note.

        Raises:
            GuardError: Too many faults in a row, or one before there is anything to hold.
        """
        actions = transition[TransitionKey.ACTION]
        watch = self.relative_step
        note = watch.note if isinstance(watch, WatchStep) else None
        if note is None or note.answer is None:
            self._say("no policy tells the guard what robot this is: it only refuses what is not finite")
            if not torch.isfinite(actions).all():
                raise GuardError("an action is not finite, and the guard does not know the robot: nothing can be held")
            return transition
        if note.answer.settings.on_fault == "none":
            self._say("guard=none: NO ACTION IS CHECKED before the robot gets it")
            return transition
        self._follow(note.answer, len(actions))
        fps, now = note.answer.spec.fps, time.monotonic()
        elapsed, passed = actions[0, ..., 0].numel(), 0
        if note.answer.overlaps:
            # LeRobot drops what has passed by when the chunk is ready, and that is a little later than now.
            elapsed, passed = round((note.time - self._seen) * fps), math.ceil((now - note.time) * fps) + 1
        self._seen = note.time
        sent = []
        for row, guard in enumerate(self.guards):
            checked = guard.check(
                actions[row].numpy(),
                None if note.state is None else note.state[row],
                now - note.answer.due[row] if note.live else None,
                partial(note.inputs, row),
                elapsed,
                passed,
            )
            sent.append(torch.from_numpy(checked.actions))
            if checked.fault is not None:
                watch.refused += (row,)
                if guard.in_a_row & (guard.in_a_row - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...
                    logger.warning("guard of %s holds: %s", note.answer.spec.name, checked.fault)
        transition = transition.copy()
        transition[TransitionKey.ACTION] = torch.stack(sent)
        return transition

    def _follow(self, answer: Answer, robots: int) -> None:
        """Have a guard for each robot that is as the policy says, and begin anew with its episodes."""
        before = self._answer
        self._answer = answer
        if before is None or answer.spec is not before.spec or answer.settings != before.settings:
            self.guards = []
        elif answer.episode != before.episode:
            self.reset()
        if len(self.guards) != robots:
            self.guards = [Guard(Contract.of(answer.spec), answer.settings) for _ in range(robots)]
            weakref.finalize(self, _report, self.guards)

    def reset(self) -> None:
        """Begin an episode; what the guard did in the last one is logged."""
        _report(self.guards)
        for guard in self.guards:
            guard.reset()

    def get_config(self) -> dict[str, Any]:
        """Nothing is configured here: the policy says it."""
        return {}

    def _say(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            logger.warning(message)


def _report(guards: list[Guard]) -> None:
    for guard in guards:
        if guard.tally.is_news():
            logger.warning("%s", guard.tally)


def _digest(observation: dict[str, Any], row: int) -> str:
    """Return twelve letters that stand for what a robot observed."""
    digest = hashlib.sha256()
    for key in sorted(observation):
        if isinstance(observation[key], Tensor):
            digest.update(key.encode() + observation[key][row].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
