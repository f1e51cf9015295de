"""Let a policy dream from a clip and compare the dream with what happened.

Shape legend: n chunks, K video frames per chunk, T = n*K imagined frames, R <= T real ones, S state dimensions,
A action dimensions, H W pixels.
"""

import time
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from tqdm import trange

from lerobot_wam.embodiments.spec import EmbodimentSpec
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.report.clips import Clip
from lerobot_wam.report.metrics import FrameScores, score_frames
from lerobot_wam.runtime.session import Observation, Runtime

Mode = Literal["act", "simulate", "label"]
Loop = Literal["closed", "open"]


@dataclass(frozen=True, eq=False)
class DreamResult:
    """A dream beside reality.

    Attributes:
        mode: What was given: "act" nothing, "simulate" the actions, "label" the video.
        loop: "closed": every chunk starts from recorded frames; "open": from the frames imagined before it.
        task: Instruction.
        source: Where the clip comes from.
        fps: Video frames per second.
        steps_per_frame: Control steps between two video frames.
        frames_per_chunk: K.
        start: The conditioning frame of the first chunk, [H, W, 3] uint8.
        imagined: [T, H, W, 3] uint8. In "label" mode the given video after the codec.
        real: What was recorded at the same moments, as far as the recording goes, [R, H, W, 3] uint8.
        actions: Actions of all chunks, physical and absolute, [n*steps, A].
        recorded_actions: As far as the recording goes, [r, A].
        action_names: Names of the A dimensions.
        action_units: Their units.
        scores: Of "imagined", "copy" (repeating the last frame observed) and "codec" (real frames encoded and
            decoded: the best that any latents can do); empty without real frames.
        seconds: Wall time of each chunk.
        notes: What a reader must know to read the numbers.
    """

    mode: Mode
    loop: Loop
    task: str
    source: str
    fps: float
    steps_per_frame: int
    frames_per_chunk: int
    start: np.ndarray
    imagined: np.ndarray
    real: np.ndarray
    actions: np.ndarray
    recorded_actions: np.ndarray
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    scores: dict[str, FrameScores]
    seconds: list[float]
    notes: tuple[str, ...]

    @property
    def chunks(self) -> int:
        """Chunks dreamed."""
        return len(self.seconds)

    @property
    def action_rmse(self) -> dict[str, float]:
        """Root mean square difference to the recorded actions of each dimension, in its unit; empty without any."""
        count = min(len(self.actions), len(self.recorded_actions))
        if count == 0:
            return {}
        squared = (self.actions[:count] - self.recorded_actions[:count]) ** 2
        return {
            name: float(value) for name, value in zip(self.action_names, np.sqrt(squared.mean(axis=0)), strict=True)
        }

    def metrics(self) -> dict[str, Any]:
        """Every number as plain values; infinite PSNR (identical frames) and nan (nothing to compare) stay floats."""
        return {
            "mode": self.mode,
            "loop": self.loop,
            "task": self.task,
            "source": self.source,
            "chunks": self.chunks,
            "frames": len(self.imagined),
            "frames_compared": len(self.real),
            "video": {name: score.summary() for name, score in self.scores.items()},
            "video_per_frame": {
                name: {"psnr": score.psnr_per_frame, "ssim": score.ssim.tolist()} for name, score in self.scores.items()
            },
            "action_rmse": self.action_rmse,
            "seconds_per_chunk": self.seconds,
            "notes": list(self.notes),
        }


def dream(
    policy: WAMPolicy,
    clip: Clip,
    mode: Mode = "act",
    loop: Loop = "closed",
    chunks: int | None = None,
    actions: np.ndarray | None = None,
    seed: int | None = None,
    progress: bool = False,
) -> DreamResult:
    """Dream chunk after chunk from a clip, the way the policy runs on a robot.

    Args:
        policy: A policy in any mode; the weights that act are used.
        clip: Where to start, and reality to compare with.
        mode: "act": dream video and actions; "simulate": actions are given, dream the video; "label": the recorded
            video is given, find the actions.
        loop: "closed": the history in the cache and the state of each chunk come from the recording. "open": imagined
            frames are taken as observed, and where an action has the name of a state dimension the next chunk's
            state is its last value (the robot is assumed to have reached its joint target); other states stay.
        chunks: How many; None takes what can be compared with the recording or what the given actions fill, at
            least 1.
        actions: Actions to simulate, [n*steps, A]; None takes the recorded ones.
        seed: Seed of the noise; None takes the policy's.
        progress: Show a progress bar.

    Raises:
        ValueError: The mode or loop does not exist, the actions do not fit, or the recording is too short.
    """
    spec, config = policy.action_spaces[policy.category].spec, policy.config
    K, steps = spec.frames_per_chunk, spec.chunk_steps
    given = _given_actions(spec, clip, mode, actions)
    count = _count_chunks(clip, mode, loop, chunks, K, None if given is None else len(given) // steps)
    policy.eval()
    runtime = policy.runtime
    session = runtime.new_session(config.seed if seed is None else seed, policy.category)
    prompt = spec.render_prompt(clip.task)
    history, state = clip.frames[:1], clip.states[0]
    imagined, found, conditioning, seconds = [], [], [], []
    for chunk in trange(count, desc=mode, unit="chunk", disable=not progress):
        began = time.perf_counter()
        if chunk:  # the steps of a whole chunk have passed, and all but the newest frame were seen on the way
            session.frames.extend(history[:-1])
            session.steps = steps
        observation = Observation(history[-1], state, prompt)
        runtime.observe(session, observation)
        made = runtime.plan(
            [session],
            [observation],
            given_action=None if given is None else [given[chunk * steps : (chunk + 1) * steps]],
            given_latents=[_encode(runtime, clip.frames[chunk * K : (chunk + 1) * K + 1])] if mode == "label" else None,
        )[0]
        imagined.append(runtime.imagine(made).cpu())
        found.append(made.actions)
        seconds.append(time.perf_counter() - began)
        if loop == "open":
            conditioning.append(clip.frames[0])
            history, state = imagined[-1], _reached(spec, state, made.actions)
        else:
            conditioning.append(observation.frame)
            history = clip.frames[chunk * K + 1 : (chunk + 1) * K + 1]
            state = clip.states[min((chunk + 1) * K, len(clip.states) - 1)]
    pictures, real = _pixels(torch.cat(imagined)), _pixels(clip.frames[1 : 1 + count * K])
    last_seen = _pixels(torch.stack(conditioning)).repeat(K, axis=0)[: len(real)]
    scores = {}
    if len(real):
        decoded = _through_codec(runtime, clip.frames[: 1 + len(real)], K)
        candidates = {"imagined": pictures[: len(real)], "copy": last_seen, "codec": decoded}
        scores = {name: score_frames(frames, real, last_seen) for name, frames in candidates.items()}
    result = torch.cat(found)
    return DreamResult(
        mode=mode,
        loop=loop,
        task=clip.task,
        source=clip.source,
        fps=spec.fps / config.video_stride,
        steps_per_frame=config.video_stride,
        frames_per_chunk=K,
        start=_pixels(clip.frames[:1])[0],
        imagined=pictures,
        real=real,
        actions=result.numpy(),
        recorded_actions=clip.actions[: len(result)].numpy(),
        action_names=spec.action_names,
        action_units=tuple(dimension.unit for dimension in spec.action),
        scores=scores,
        seconds=seconds,
        notes=_notes(policy, mode, loop, count, given, result),
    )


def _given_actions(spec: EmbodimentSpec, clip: Clip, mode: Mode, actions: np.ndarray | None) -> Tensor | None:
    if mode not in get_args(Mode):
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(get_args(Mode))}")
    if mode != "simulate":
        if actions is not None:
            raise ValueError(f"actions were given in mode {mode!r}: only 'simulate' takes them")
        return None
    if actions is None:
        if not len(clip.actions):
            raise ValueError(f"{clip.source} has no recorded actions to simulate: give some with --actions=FILE.npy")
        return clip.actions[: len(clip.actions) // spec.chunk_steps * spec.chunk_steps]
    if actions.ndim != 2 or actions.shape[1] != len(spec.action) or not len(actions) or len(actions) % spec.chunk_steps:
        raise ValueError(
            f"actions have shape {actions.shape}, expected (n*{spec.chunk_steps}, {len(spec.action)}): whole chunks of "
            f"{', '.join(spec.action_names)}"
        )
    return torch.from_numpy(actions).float()


def _count_chunks(clip: Clip, mode: Mode, loop: Loop, asked: int | None, K: int, given_chunks: int | None) -> int:
    """Return how many chunks to dream: what was asked for, if the recording and the given actions reach that far."""
    if loop not in get_args(Loop):
        raise ValueError(f"loop is {loop!r}, expected one of {', '.join(get_args(Loop))}")
    if mode == "label" and loop == "open":
        raise ValueError(
            "mode 'label' reads the recorded video, so there is nothing to imagine ahead: use loop 'closed'"
        )
    recorded = len(clip.frames) - 1
    limits = {}
    if loop == "closed":
        limits["recorded frames to start from"] = recorded // K + 1
    if mode == "label":
        limits["whole chunks of recorded video"] = recorded // K
    if given_chunks is not None:
        limits["whole chunks of actions"] = given_chunks
    why, most = min(limits.items(), key=lambda limit: limit[1], default=("", None))
    if asked is None:
        asked = max(1, -(-recorded // K) if given_chunks is None else given_chunks)
        asked = max(1, min(asked, recorded // K)) if mode == "label" else asked
    if asked < 1:
        raise ValueError(f"chunks is {asked}, expected 1 or more")
    if most is not None and asked > most:
        hint = ", or use --loop=open" if loop == "closed" and mode == "act" else ""
        raise ValueError(
            f"{asked} chunks do not fit: {clip.source} has {why} for {most}; lower --chunks or --frame{hint}"
        )
    return asked


def _reached(spec: EmbodimentSpec, state: Tensor, actions: Tensor) -> Tensor:
    """The state [S] of a robot that reached its last joint targets [..., A]; dimensions without a target stay."""
    targets = dict(zip(spec.action_names, actions[-1], strict=True))
    return torch.stack([targets.get(name, value) for name, value in zip(spec.state_names, state, strict=True)])


def _notes(
    policy: WAMPolicy, mode: Mode, loop: Loop, chunks: int, given: Tensor | None, actions: Tensor
) -> tuple[str, ...]:
    notes = []
    config = policy.config
    if mode != "act" and not config.given_probability:
        seldom = "clean actions beside noisy video" if mode == "simulate" else "clean video beside noisy actions"
        notes.append(
            f"The checkpoint was trained with noise_mode={config.noise_mode} and given_probability=0, which shows "
            f"{seldom} rarely or never, so mode {mode} is approximate. Train with --policy.noise_mode=independent "
            "--policy.given_probability=0.7 for a better one."
        )
    if loop == "open" and chunks > 1:
        notes.append("Open loop: each chunk's state is taken to be the last joint target of the chunk before it.")
    if given is not None and not torch.allclose(given[: len(actions)], actions, atol=1e-3):
        notes.append("The given actions leave the range of the training data: what was simulated is clipped to it.")
    return tuple(notes)


def _encode(runtime: Runtime, frames: Tensor) -> Tensor:
    """Latents [C, F, h, w] of a chunk's frames [1 + K, 3, H, W], without the conditioning frame's own."""
    return runtime.video_codec.encode(frames.transpose(0, 1)[None].to(runtime.device))[0, :, 1:]


@torch.no_grad()
def _through_codec(runtime: Runtime, frames: Tensor, K: int) -> np.ndarray:
    """Encode and decode frames [1 + R, 3, H, W] chunk by chunk; the last chunk is filled with its last frame."""
    count = len(frames) - 1
    decoded = []
    for first in range(0, count, K):
        block = frames[first : first + K + 1]
        block = torch.cat([block, block[-1:].expand(K + 1 - len(block), -1, -1, -1)])
        latents = runtime.video_codec.encode(block.transpose(0, 1)[None].to(runtime.device))
        decoded.append(runtime.video_codec.decode(latents)[0, :, 1:].transpose(0, 1).cpu())
    return _pixels(torch.cat(decoded)[:count])


def _pixels(frames: Tensor) -> np.ndarray:
    """[T, 3, H, W] in [-1, 1] to [T, H, W, 3] uint8."""
    return ((frames.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(1, 3).contiguous().numpy()
