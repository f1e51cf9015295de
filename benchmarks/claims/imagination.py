"""Asking a policy counterfactuals: what it simulates of several chunks, how it labels video, what it does when told.

Shape legend: N states, C chunks from each, K video frames per chunk, S pixels of an image's edge, H actions per chunk,
A joints; films are uint8.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import trange

from benchmarks.claims.branches import CHUNKS, HOLD, Start, draw, execute, motion
from lerobot_wam.data.recipe import MixtureEntry
from lerobot_wam.embodiments.resolve import load_stored_embodiment
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.report.clips import window_clips
from lerobot_wam.runtime.state import Observation
from lerobot_wam.sim.tabletop import COLOURS, Tabletop
from lerobot_wam.training.loop import window_shape
from lerobot_wam.training.open_loop import HeldOut, copy_last_motion, hold_still, joint_errors, predict, share_of_range

FIRST = 500_000
"""Scene of the first state."""
MOVED = 3.0
"""A chunk moves the arm if the tool tip goes this far in the image (pixels)."""


def begin(policy: WAMPolicy, arm: str, count: int) -> list[Start]:
    """Draw states of an arm's world, and execute every chunk from each."""
    world, space = Tabletop(arm), policy.action_spaces[policy.category]
    scenes = trange(FIRST, FIRST + count, desc="states", unit="state")
    return [draw(world, seed, space, policy.config.image_size[0]) for seed in scenes]


def measure(policy: WAMPolicy, arm: str, starts: Sequence[Start], recording: MixtureEntry) -> dict[str, Any]:
    """Ask a policy everything: what it simulates and does from these states, and how it labels a recording."""
    real = np.stack([[start.branches[name].frames for name in CHUNKS] for start in starts])
    before = np.stack([start.frame for start in starts])
    travel = np.stack([[start.branches[name].travel for name in CHUNKS] for start in starts])
    moves = np.linalg.norm(travel, axis=-1) >= MOVED
    coded = np.stack([through_codec(policy, start.frame, films) for start, films in zip(starts, real, strict=True)])
    coded_before, coded = coded[:, 0, 0], coded[:, :, 1:]
    return {
        "starts": len(starts),
        "chunks": CHUNKS,
        "method": {
            "on_the_simulators_images": validity(before, real, travel, moves),
            "after_the_codec": validity(coded_before, coded, travel, moves),
        },
        "simulate": {
            "dream": likeness(coded_before, simulated(policy, starts), before, real, moves),
            "codec_alone": likeness(coded_before, coded, before, real, moves),
        },
        "label": labelled(policy, recording),
        "act": acted(policy, Tabletop(arm), starts),
    }


def simulated(policy: WAMPolicy, starts: Sequence[Start]) -> np.ndarray:
    """What a policy imagines of each chunk of each state, [N, C, K, S, S, 3] uint8.

    All chunks of a state have the same noise and the same instruction, which names one of the cubes.
    """
    dreamt = []
    for start in starts:
        task = start.tasks[start.seed % len(start.tasks)]
        given = [torch.from_numpy(start.branches[name].actions).float() for name in CHUNKS]
        dreamt.append(dream(policy, start, [task.instruction] * len(CHUNKS), given)[1])
    return np.stack(dreamt)


def dream(
    policy: WAMPolicy, start: Start, instructions: Sequence[str], given: Sequence[Tensor] | None = None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Dream from one state and one noise under each instruction, with actions given or not.

    Returns:
        The actions of each dream, [H, A] float64, and its film, [K, S, S, 3] uint8.
    """
    runtime, spec = policy.runtime, policy.action_spaces[policy.category].spec
    frame = torch.from_numpy(start.frame).movedim(2, 0) / 127.5 - 1
    joints = torch.from_numpy(start.joints).float()
    seen = [Observation(frame, joints, spec.render_prompt(instruction)) for instruction in instructions]
    sessions = [runtime.new_session(start.seed, policy.category) for _ in seen]
    made = runtime.plan(sessions, seen, given_action=given)
    return [one.actions.double().numpy() for one in made], films(torch.stack([runtime.imagine(one) for one in made]))


@torch.no_grad()
def through_codec(policy: WAMPolicy, frame: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Encode and decode films [C, K, S, S, 3] behind the frame that all begin with; [C, 1 + K, S, S, 3]."""
    whole = np.concatenate([np.broadcast_to(frame, (len(after), 1, *frame.shape)), after], axis=1)
    video = torch.from_numpy(whole).movedim(4, 1).to(policy.config.device) / 127.5 - 1
    return films(policy.video_codec.decode(policy.video_codec.encode(video)).movedim(1, 2))


def films(frames: Tensor) -> np.ndarray:
    """[N, T, 3, H, W] in [-1, 1] to [N, T, H, W, 3] uint8."""
    return ((frames.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(2, 4).cpu().numpy()


def validity(before: np.ndarray, shown: np.ndarray, travel: np.ndarray, moves: np.ndarray) -> dict[str, float]:
    """How well motion on images, [N, S, S, 3] and [N, C, K, S, S, 3], says where the tool tip went, [N, C, 2]."""
    way, size = motion(before[:, None], shown)
    distance = np.linalg.norm(travel, axis=-1)
    return {
        "direction_cosine": float(cosine(way, travel)[moves].mean()),
        "size_correlation": float(np.corrcoef(size.flat, distance.flat)[0, 1]),
    }


def likeness(
    before: np.ndarray, shown: np.ndarray, real_before: np.ndarray, real: np.ndarray, moves: np.ndarray
) -> dict[str, Any]:
    """How films [N, C, K, S, S, 3] of each chunk, behind an image [N, S, S, 3], agree with the simulator's.

    Direction and size are of the chunks that move the arm, [N, C]; sizes are ratios to the simulator's mean motion.
    """
    way, size = motion(before[:, None], shown)
    real_way, real_size = motion(real_before[:, None], real)
    alike, right = cosine(way, real_way), np.stack([identified(*pair) for pair in zip(shown, real, strict=True)])
    usual = real_size[moves].mean()
    return {
        "direction_cosine": mean_95([own[on].mean() for own, on in zip(alike, moves, strict=True) if on.any()]),
        "size_ratio": float(size[moves].mean() / usual),
        "size_correlation": float(np.corrcoef(size[moves], real_size[moves])[0, 1]),
        "hold_still_size_ratio": float(size[:, CHUNKS.index(HOLD)].mean() / usual),
        "identified": mean_95(right.mean(axis=1)),
        "identified_by_chance": 1 / len(CHUNKS),
        "spread_ratio": float(np.mean([spread(own) for own in shown]) / np.mean([spread(own) for own in real])),
        "by_chunk": {
            name: {"identified": float(right[:, column].mean())}
            | ({"direction_cosine": float(alike[on, column].mean())} if (on := moves[:, column]).any() else {})
            for column, name in enumerate(CHUNKS)
        },
    }


def identified(shown: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Whether each of C films is closer to the one of its own number than to the others, [C]."""
    away = [[np.square(one - other.astype(np.float32)).mean() for other in real] for one in shown]
    return np.argmin(away, axis=1) == np.arange(len(real))


def spread(films: np.ndarray) -> float:
    """Mean distance of any two of C films (root mean square, in grey levels)."""
    return float(np.mean([np.sqrt(np.square(a - b.astype(np.float32)).mean()) for a, b in combinations(films, 2)]))


def acted(policy: WAMPolicy, world: Tabletop, starts: Sequence[Start]) -> dict[str, Any]:
    """What a policy chooses and dreams when it is told of each cube in turn; the expert's ways are what is asked."""
    rows, stride = [], policy.config.video_stride
    for start in starts:
        actions, shown = dream(policy, start, [task.instruction for task in start.tasks])
        done = [execute(world, start.state, chunk, stride, len(start.frame)) for chunk in actions]
        asked = [start.branches[colour] for colour in COLOURS]
        went, right_way = (np.stack([branch.tip for branch in own]) - start.tip for own in (done, asked))
        nearest = np.linalg.norm(went[:, None] - right_way, axis=-1).argmin(axis=1) == np.arange(len(COLOURS))
        dreamed_way, _ = motion(through_codec(policy, start.frame, shown)[:, 0], shown)
        done_way, _ = motion(start.frame, np.stack([branch.frames for branch in done]))
        rows.append(
            {
                "arm_goes_the_asked_way": nearest.mean(),
                "arm_cosine_to_the_experts_way": cosine(went, right_way).mean(),
                "arm_cosine_to_the_cube": cosine(went[:, :2], (start.cubes - start.tip)[:, :2]).mean(),
                "dream_shows_the_asked_way": identified(shown, np.stack([branch.frames for branch in asked])).mean(),
                "dream_cosine_to_what_the_arm_does": cosine(dreamed_way, done_way).mean(),
            }
        )
    return {name: mean_95([row[name] for row in rows]) for name in rows[0]} | {"by_chance": 1 / len(COLOURS)}


@torch.no_grad()
def labelled(policy: WAMPolicy, recording: MixtureEntry, windows: int = 200) -> dict[str, Any]:
    """Errors of the actions found for recorded video, beside those of three who do not see it.

    The video is of one chunk; where the arm stood at its start is known to all, the chunk before only to the last two.
    """
    space, config, runtime = policy.action_spaces[policy.category], policy.config, policy.runtime
    spec, H, K = space.spec, space.spec.chunk_steps, space.spec.frames_per_chunk
    clips = window_clips(recording, spec, replace(window_shape(config), max_chunks=2), windows)
    clips = [clip for clip in clips if len(clip.frames) == 1 + 2 * K]
    real = HeldOut(
        frame=torch.stack([clip.frames[K] for clip in clips]).add(1).mul(127.5),
        task=[clip.task for clip in clips],
        state=torch.stack([clip.states[K] for clip in clips]),
        past_state=torch.stack([clip.states[0] for clip in clips]),
        past=torch.stack([clip.actions[:H] for clip in clips]),
        present=torch.stack([clip.actions[H:] for clip in clips]),
        real=torch.ones(len(clips), H, dtype=torch.bool),
    )
    found = []
    for row, clip in enumerate(clips):
        video = clip.frames[K:].movedim(0, 1)[None].to(config.device)
        seen = Observation(clip.frames[K], real.state[row], spec.render_prompt(clip.task))
        session = runtime.new_session(config.seed + row, policy.category)
        found += runtime.plan([session], [seen], given_latents=[policy.video_codec.encode(video)[0, :, 1:]])
    ways = {
        "label": torch.stack([one.actions for one in found]),
        "act": predict(policy, real),
        "hold_still": hold_still(space, real),
        "copy_last_motion": copy_last_motion(space, real),
    }
    _, ranges = load_stored_embodiment(spec.name, config.embodiments[spec.name])
    errors = {name: joint_errors(actions, real) for name, actions in ways.items()}
    return {
        "windows": len(clips),
        "action_error_share_of_range": {name: share_of_range(error, spec, ranges) for name, error in errors.items()},
        "action_error_rad": errors,
    }


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of the angle between vectors [..., D]; 0 where one is 0."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(axis=-1) / np.where(lengths > 0, lengths, 1)


def mean_95(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Mean over states with its 95 % interval (normal)."""
    mean, half = float(np.mean(values)), 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return {"mean": mean, "mean_95": (mean - half, mean + half)}
