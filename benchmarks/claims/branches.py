"""Counterfactuals on the tabletop: several chunks of actions from one state, what the simulator shows of each, and how
motion is measured on images alone.

Shape legend: H actions per chunk, A joints, K video frames per chunk, S pixels of an image's edge.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np
import torch

from lerobot_wam.embodiments.action_space import ActionSpace
from lerobot_wam.embodiments.spec import FRAMES_PER_LATENT
from lerobot_wam.sim.experts import TaskExpert
from lerobot_wam.sim.tabletop import COLOURS, Tabletop
from lerobot_wam.sim.tasks import Judge, Task, place_cubes, select_tasks

HOLD, REVERSED, RANDOM = "hold still", "reversed", "random"
CHUNKS = (*COLOURS, HOLD, REVERSED, RANDOM)
"""What is done from each state: an expert's next chunk toward each cube, holding still, the first of these mirrored in
the joints, and a random motion in the policy's range."""
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_STREAM = 9
_LONGEST_PRELUDE = 8


@dataclass(frozen=True, eq=False)
class Branch:
    """A chunk of actions and what it leads to.

    Attributes:
        actions: Joint targets (rad), [H, A].
        frames: Images after the start, [K, S, S, 3] uint8.
        tip: Where the tool tip ends, [3] (m).
        travel: How far the tip has gone in the image over the last latent's frames, right and down, [2] (pixels).
    """

    actions: np.ndarray
    frames: np.ndarray
    tip: np.ndarray
    travel: np.ndarray


@dataclass(frozen=True, eq=False)
class Start:
    """A state of the world that chunks start from.

    Attributes:
        seed: The scene.
        state: All of the simulator's state.
        frame: What is seen, [S, S, 3] uint8.
        joints: Joint positions (rad), [A].
        tip: Tool tip, [3] (m).
        cubes: Cube centres, [3, 3] (m).
        tasks: One task for each cube.
        branches: Name of a chunk, of `CHUNKS`, -> what it leads to.
    """

    seed: int
    state: np.ndarray
    frame: np.ndarray
    joints: np.ndarray
    tip: np.ndarray
    cubes: np.ndarray
    tasks: tuple[Task, ...]
    branches: Mapping[str, Branch]


def draw(world: Tabletop, seed: int, space: ActionSpace, size: int) -> Start:
    """Draw a state, and execute every chunk of `CHUNKS` from it.

    The arm has done 0 to 8 steps of some seen task, so that it may be anywhere on its way to a cube.

    Args:
        world: The simulator.
        seed: Of the scene; the same whatever the policy.
        space: A policy's actions. A chunk that leaves their range is executed as far as the policy can be told of it.
        size: S.
    """
    rng = np.random.default_rng([_STREAM, seed])
    placement = place_cubes(rng)
    world.reset(placement.xy, placement.yaw)
    seen = select_tasks("seen")
    _expert_chunk(world, seen[rng.integers(len(seen))], int(rng.integers(_LONGEST_PRELUDE + 1)))
    state, joints = snapshot(world), world.joints
    of_cube = [[task for task in seen if task.stages[0].cube == cube] for cube in range(len(COLOURS))]
    tasks = tuple(choices[rng.integers(len(choices))] for choices in of_cube)
    chunks = {}
    for colour, task in zip(COLOURS, tasks, strict=True):
        restore(world, state)
        chunks[colour] = _expert_chunk(world, task, space.spec.chunk_steps)
    chunks[HOLD] = np.broadcast_to(joints, chunks[COLOURS[0]].shape)
    chunks[REVERSED] = 2 * joints - chunks[COLOURS[0]]
    there = torch.from_numpy(rng.uniform(-1, 1, len(joints))).expand(1, 1, len(chunks[HOLD]), -1)
    anchor = torch.from_numpy(joints)[None, None]
    chunks[RANDOM] = space.decode(there, anchor)[0, 0].numpy()
    restore(world, state)
    frame, tip, cubes = world.image(size), world.tip, world.cubes
    branches = {}
    for name, chunk in chunks.items():
        in_range = space.decode(space.encode(torch.tensor(chunk)[None, None], anchor), anchor)[0, 0].numpy()
        branches[name] = execute(world, state, in_range, space.spec.video_stride, size)
    return Start(seed, state, frame, joints, tip, cubes, tasks, branches)


def execute(world: Tabletop, state: np.ndarray, actions: np.ndarray, stride: int, size: int) -> Branch:
    """Do `actions` [H, A] from a state."""
    restore(world, state)
    before, frames, pixels = _pixel(world, size), [], []
    for number, action in enumerate(actions, 1):
        world.step(action)
        if number % stride == 0:
            frames.append(world.image(size))
            pixels.append(_pixel(world, size))
    travel = np.mean(pixels[-FRAMES_PER_LATENT:], axis=0) - before
    return Branch(actions, np.stack(frames), world.tip, travel)


def snapshot(world: Tabletop) -> np.ndarray:
    """All that decides how the simulation goes on."""
    state = np.empty(mujoco.mj_stateSize(world.scene.model, _STATE))
    mujoco.mj_getState(world.scene.model, world.data, state, _STATE)
    return state


def restore(world: Tabletop, state: np.ndarray) -> None:
    """Go back to a snapshot; what follows is the same to the last bit."""
    mujoco.mj_setState(world.scene.model, world.data, state, _STATE)
    mujoco.mj_forward(world.scene.model, world.data)


def motion(before: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure how the dark arm moves between an image and the last latent's frames after it, on pixels alone.

    Darkness is 1 minus the brightest colour, so a coloured cube is hardly dark. Where the frames' mean is darker than
    the image, the arm has arrived; where it is lighter, it has left.

    Args:
        before: Images [..., S, S, 3] uint8.
        frames: Images after them, [..., K, S, S, 3] uint8.

    Returns:
        The way [..., 2] from the centroid of what was left to that of where it arrived, right and down, in pixels; and
        the size of the motion [...], sqrt(darkness that changed in pixels · length of the way), which grows with the
        distance and is 0 where nothing changes.
    """
    change = _darkness(frames[..., -FRAMES_PER_LATENT:, :, :, :]).mean(axis=-3) - _darkness(before)
    arrived, left = np.clip(change, 0, None), np.clip(-change, 0, None)
    way = _centroid(arrived) - _centroid(left)
    changed = (arrived + left).sum(axis=(-2, -1))
    return way, np.sqrt(changed * np.linalg.norm(way, axis=-1))


def _darkness(images: np.ndarray) -> np.ndarray:
    return 1 - images.max(axis=-1) / 255


def _centroid(weights: np.ndarray) -> np.ndarray:
    """Centre [..., 2] of weights [..., S, S]; the corner without any."""
    rows, columns = np.indices(weights.shape[-2:])
    moments = np.stack([(weights * axis).sum(axis=(-2, -1)) for axis in (columns, rows)], axis=-1)
    return moments / np.maximum(weights.sum(axis=(-2, -1)), 1e-9)[..., None]


def _expert_chunk(world: Tabletop, task: Task, steps: int) -> np.ndarray:
    """Do the next steps of a task as its expert does; returns the joint targets [H, A]."""
    judge, expert, actions = Judge(task, world.cubes, world.tip), TaskExpert(world), []
    for _ in range(steps):
        actions.append(np.clip(expert.action(judge), world.scene.joint_low, world.scene.joint_high))
        world.step(actions[-1])
        judge.update(world.cubes, world.tip)
    return np.array(actions)


def _pixel(world: Tabletop, size: int, camera: str = "front") -> np.ndarray:
    """Where the tool tip is in a camera's image, right and down, [2] (pixels)."""
    model, data = world.scene.model, world.data
    index = model.camera(camera).id
    right, up, back = (world.tip - data.cam_xpos[index]) @ data.cam_xmat[index].reshape(3, 3)
    focal = size / 2 / np.tan(np.deg2rad(model.cam_fovy[index]) / 2)
    return size / 2 + focal * np.array([right, -up]) / -back
