"""How far predicted actions are from recorded ones, joint by joint, beside what needs no policy at all.

Each window has a *past* and a *present* chunk. The policy sees the picture and the state between the two and predicts
the present one; two yardsticks know the past one as well. Every step of an episode counts; in its first chunk, where
there is no whole chunk before, the robot is taken to have stood. Shape legend: N windows, H actions per chunk, A action
and S state dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lerobot_wam.data.batch import ACTION, ACTION_IS_PAD, STATE, WINDOW
from lerobot_wam.data.recipe import MixtureEntry
from lerobot_wam.data.source import Source, WindowShape
from lerobot_wam.embodiments.action_space import ActionSpace, ActionStatistics
from lerobot_wam.embodiments.spec import EmbodimentSpec
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.runtime.state import Observation


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Windows of recorded episodes, in physical units.

    Attributes:
        frame: The tiled picture between past and present, uint8 [N, 3, height, width].
        task: Instruction of each window.
        state: State between past and present, [N, S].
        past_state: State at the past chunk's start, [N, S].
        past: Actions of the past chunk, [N, H, A].
        present: Actions to be predicted, [N, H, A].
        real: Which of these were recorded and belong to the task, [N, H].
    """

    frame: Tensor
    task: list[str]
    state: Tensor
    past_state: Tensor
    past: Tensor
    present: Tensor
    real: Tensor


def read_held_out(entry: MixtureEntry, spec: EmbodimentSpec, shape: WindowShape, windows: int) -> HeldOut:
    """Read windows that are spread evenly over the episodes of a recording.

    Args:
        entry: The recording and its held-out episodes.
        spec: The robot, at the rate that it has in the policy.
        shape: The policy's windows.
        windows: How many to read; fewer where the episodes hold fewer.

    Raises:
        ValueError: No episode is long enough, or the recording is too slow.
    """
    source = Source(entry, 0, spec, 0, replace(shape, max_chunks=1, drop_n_last_frames=0))
    reach = source.timing.frame_offsets[-1]
    numbers = np.linspace(0, source.starts - 1, min(windows, source.starts)).round().astype(int)
    states, past_states, actions, past_actions, frames, real, tasks = ([] for _ in range(7))
    for number in tqdm(numbers.tolist(), desc="held-out windows", unit="window"):
        start = source.start(number)
        item = source.window(start)
        state, action = item[STATE][0, : len(spec.state)], item[ACTION][:, : len(spec.action)]
        past_state, past_action = state, _standing(spec, state, action)
        if round(float(item["timestamp"]) * source.fps) >= reach:
            before = source.window(start - reach)
            past_state, past_action = before[STATE][0, : len(spec.state)], before[ACTION][:, : len(spec.action)]
        states.append(state)
        past_states.append(past_state)
        actions.append(action)
        past_actions.append(past_action)
        frames.append(item[WINDOW][0])
        real.append(~item[ACTION_IS_PAD])
        tasks.append(item["task"])
    return HeldOut(
        frame=torch.stack(frames),
        task=tasks,
        state=torch.stack(states),
        past_state=torch.stack(past_states),
        past=torch.stack(past_actions),
        present=torch.stack(actions),
        real=torch.stack(real),
    )


def _standing(spec: EmbodimentSpec, state: Tensor, action: Tensor) -> Tensor:
    """The chunk [H, A] of a robot that has stood at a state so far; a gripper's command is the one that comes."""
    standing = action[:1].expand_as(action).clone()
    for column, dimension in enumerate(spec.action):
        if dimension.relative:
            standing[:, column] = state[spec.state_names.index(dimension.name)]
    return standing


@torch.no_grad()
def predict(policy: WAMPolicy, held_out: HeldOut, batch_size: int = 32) -> Tensor:
    """Return the chunks [N, H, A] that a policy predicts, the same at every call; its mode stays as it is."""
    was_training = policy.training
    policy.eval()
    runtime, spec, seed = policy.runtime, policy.action_spaces[policy.category].spec, policy.config.seed
    chunks = []
    for rows in torch.arange(len(held_out.task)).split(batch_size):
        sessions = [runtime.new_session(seed + row, policy.category) for row in rows.tolist()]
        observations = [
            Observation(held_out.frame[row] / 127.5 - 1, held_out.state[row], spec.render_prompt(held_out.task[row]))
            for row in rows.tolist()
        ]
        chunks += [dream.actions for dream in runtime.plan(sessions, observations)]
    policy.train(was_training)
    return torch.stack(chunks)


def hold_still(space: ActionSpace, held_out: HeldOut) -> Tensor:
    """Return chunks [N, H, A] of a robot that stays where it is.

    Its targets are the current state; where an action is not relative, as a gripper's, the last command.
    """
    stay = space.to_relative(held_out.past[:, None, -1:], held_out.state[:, None])
    stay[..., [dimension.relative for dimension in space.spec.action]] = 0
    return space.to_absolute(stay, held_out.state[:, None])[:, 0].expand_as(held_out.present)


def copy_last_motion(space: ActionSpace, held_out: HeldOut) -> Tensor:
    """Return chunks [N, H, A] of a robot that repeats its last chunk, from where it is now.

    What is repeated of a relative action is its distance to the state at the chunk's start; any other, as it was.
    """
    motion = space.to_relative(held_out.past[:, None], held_out.past_state[:, None])
    return space.to_absolute(motion, held_out.state[:, None])[:, 0]


def joint_errors(actions: Tensor, held_out: HeldOut) -> list[float]:
    """Mean absolute error of each action dimension [A] over the real steps of all windows, in physical units."""
    return (actions - held_out.present)[held_out.real].abs().mean(dim=0).tolist()


def share_of_range(errors: Sequence[float], spec: EmbodimentSpec, statistics: ActionStatistics) -> float:
    """Return one number for joints of different units: the mean over joints of error by range of motion in a chunk.

    Args:
        errors: Of each action dimension.
        spec: The robot.
        statistics: Its ranges. A joint that never moves there does not count.
    """
    width = (statistics.action_high - statistics.action_low).mean(axis=0)
    width = np.maximum(width, 2 * spec.normalization.min_half_range)
    moves = width > 0
    return float(np.mean(np.asarray(errors)[moves] / width[moves]))
