"""What the closed loop keeps of one robot, and the rules it follows: values without behaviour of their own."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from lerobot_wam.codecs.video import VideoState
from lerobot_wam.model.cache import KVCache
from lerobot_wam.model.inputs import Context


@dataclass(frozen=True)
class LoopRules:
    """What the closed loop does where the official code (spec §3.1, §3.3) and this package differ.

    Attributes:
        window_full: "restart" begins a new window on the newest frame; "slide" drops the oldest chunk behind the
            first frame and turns the other cached keys back by one chunk (see `KVCache.slide`).
        restart_frame: "newest" conditions a new window on the newest frame, and a block begins with the frame that
            the last one ended with. "official" conditions it on the oldest of eight frames, and a block begins with
            a copy of its own first frame.
        noise_stream: "session" draws on from the session's generator; "fixed" starts it again from its seed for the
            video and for the actions of every chunk, which gives each chunk the same noise.
        padded_actions: What the dimensions hold that the robot does not have: "zero", or "noise" that is denoised
            like the rest (official).
        smoothing: Whether every chunk's actions but grippers are smoothed as in the paper (see `stitching.smooth`).
    """

    window_full: Literal["restart", "slide"] = "restart"
    restart_frame: Literal["newest", "official"] = "newest"
    noise_stream: Literal["session", "fixed"] = "session"
    padded_actions: Literal["zero", "noise"] = "zero"
    smoothing: bool = False


@dataclass(frozen=True)
class Savings:
    """What the closed loop does not compute twice. None of it changes a result; each can be switched off.

    Attributes:
        remember_context: Keep every layer's keys and values of the text for a task, of the image for a window.
        fuse_observation: Write the observation in the same pass as the first denoising step.
        batched_guidance: Compute the branches of the task and of the negative prompt as one batch.
        preallocate: Take the memory of a whole window at once, and keep it as long as the session lasts.
        skip_last_negative: With actions only, leave out the negative branch in the last computed step.
        stream_video: Encode frames as they arrive, and the first frame's conditioning as it is needed, so that little
            of either is left when a chunk is due.
    """

    remember_context: bool = True
    fuse_observation: bool = True
    batched_guidance: bool = True
    preallocate: bool = True
    skip_last_negative: bool = True
    stream_video: bool = True

    @classmethod
    def none(cls) -> "Savings":
        """Return the plain path: everything is computed whenever it is needed."""
        return cls(**dict.fromkeys(cls.__dataclass_fields__, False))


@dataclass(frozen=True)
class Observation:
    """What one robot sees now.

    Attributes:
        frame: The tiled view, pixels in [-1, 1], [3, H, W].
        state: Physical proprioception [S].
        task: Instruction text.
    """

    frame: Tensor
    state: Tensor
    task: str


@dataclass(frozen=True)
class Dream:
    """One denoised chunk.

    Attributes:
        actions: Absolute physical actions [steps, A].
        latents: Imagined video latents [C, F, h, w]; None where only actions were asked for.
        starts_window: Whether the window was restarted on the newest frame for this chunk.
        anchor_frame: The observed frame that the chunk starts from, [3, H, W].
        expected: Estimate of the clean latents that will be observed, [C, F, h, w], however much noise is left in
            `latents`; without guidance where only actions were asked for.
    """

    actions: Tensor
    latents: Tensor | None
    starts_window: bool
    anchor_frame: Tensor
    expected: Tensor


@dataclass(frozen=True)
class Branch:
    """A window as one or two instructions see it: embedded context, and what was observed.

    Row 0 of the batch is the task; with guidance, row 1 is the negative prompt. Several sessions' branches are joined
    one session after the other.
    """

    context: Context
    cache: KVCache

    @staticmethod
    def stack(branches: "Sequence[Branch]") -> "Branch":
        """Join branches of several sessions along the batch."""
        return Branch(Context.stack([b.context for b in branches]), KVCache.stack([b.cache for b in branches]))

    def rows(self, which: slice) -> "Branch":
        """Return some of the batch's rows; nothing is copied."""
        return Branch(self.context.rows(which), self.cache.rows(which))

    def pick(self, which: slice) -> "Branch":
        """Return some of the batch's rows, with storage of their own."""
        return Branch(self.context.pick(which), self.cache.pick(which))


@dataclass
class Stream:
    """A clip that is encoded as far as it is known.

    Attributes:
        latents: Latent frames so far, [1, C, 1, h, w] each.
        state: What the codec remembers of them; None before the first.
        compared: How many, after the first, were compared with what had been dreamed.
    """

    latents: list[Tensor] = field(default_factory=list)
    state: VideoState | None = None
    compared: int = 0


@dataclass(eq=False)
class Session:
    """State of one robot's episode. Create it with `Runtime.new_session`; drop it to forget.

    Attributes:
        generator: Stream of this session's sampling noise.
        category: Index of the robot's embodiment.
        task: The current task.
        instructed: Whether `branch` has been told the current task.
        branch: The current window; None before the first chunk, and without observations after a change of task.
        condition: First-frame conditioning channels of the window; None for models without.
        frames: Frames observed since, and including, the last one in the cache; a block once they are complete.
        stream: What is encoded of them.
        steps: Control steps since the last chunk was computed.
        queue: Actions of the current chunk that are still to be executed, [A] each.
        dream: The newest chunk.
        chunks: Chunks computed so far.
        surprise: How far the newest latent frame that was compared was from the dreamed one, 1 at the calibrated
            threshold; None before the first, and without a calibration.
        cautious: Whether only half of a chunk's actions are to be executed.
        held: The command [A] with which the robot stands still until a person has taken over; None while it acts.
    """

    generator: torch.Generator
    category: int = 0
    task: str | None = None
    instructed: bool = False
    branch: Branch | None = None
    condition: Stream | None = None
    frames: list[Tensor] = field(default_factory=list)
    stream: Stream = field(default_factory=Stream)
    steps: int = 0
    queue: list[Tensor] = field(default_factory=list)
    dream: Dream | None = None
    chunks: int = 0
    surprise: float | None = None
    cautious: bool = False
    held: Tensor | None = None

    def end_window(self) -> None:
        """Forget what was observed; the next chunk starts a window, in the same storage."""
        if self.branch is not None:
            self.branch = replace(self.branch, cache=self.branch.cache.emptied())

    def begin_block(self, frames: list[Tensor]) -> None:
        """Start to observe anew, with these frames."""
        self.frames, self.stream = frames, Stream()
