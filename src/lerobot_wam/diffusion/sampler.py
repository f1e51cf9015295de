"""Joint sampling of one chunk of video and actions, with either modality optionally given (spec §3.1).

Both denoised: the network acts. Actions given: it simulates. Video given: it labels. A given modality is fed clean,
at timestep 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from lerobot_wam.diffusion.schedule import TRAIN_STEPS, UNIPC_START, sampling_sigmas
from lerobot_wam.diffusion.steps import STATIC_STEPS, STATIC_TOTAL, HeldVelocity, computed_steps

# (video [B,C,F,h,w], action [B,T,A], video timestep, action timestep, guided) -> velocities of both. Where it is not
# `guided`, nothing will come of the video velocity: guidance, which changes nothing else, may be left out.
VelocityFunction = Callable[[Tensor, Tensor, float, float, bool], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SamplerConfig:
    """How a chunk is sampled.

    Attributes:
        solver: "euler", or "unipc" (order 2, bh2, as in the official sampler).
        steps: Solver steps, each one pass through the network (two with guidance).
        shift: Shift of the sampling table.
        guidance: Classifier-free guidance scale on the video velocity; 1 means no negative pass.
        video_final_sigma: Noise that is left in the video at the end; 0 denoises it fully.
        computed_steps: Steps that run the network (spec §3.2): "all"; "8", "7", "6" or "5" of 16; or "dynamic", by
            the similarity of successive velocities.
        skipped_steps: What the other steps do with the last velocities: "repeat" them, or "extrapolate" the line
            through the last two computed ones in sigma.
    """

    solver: Literal["euler", "unipc"] = "euler"
    steps: int = 4
    shift: float = 5.0
    guidance: float = 1.0
    video_final_sigma: float = 0.0
    computed_steps: str = "all"
    skipped_steps: Literal["repeat", "extrapolate"] = "repeat"

    def __post_init__(self) -> None:
        if self.solver not in ("euler", "unipc"):
            raise ValueError(f"solver {self.solver!r} is unknown; choose euler or unipc.")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; sampling needs at least 1.")
        if not 0 <= self.video_final_sigma < 1:
            raise ValueError(f"video_final_sigma is {self.video_final_sigma}; expected 0 (denoised) to below 1.")
        if self.computed_steps not in ("all", "dynamic", *STATIC_STEPS):
            choices = ", ".join(("all", *STATIC_STEPS, "dynamic"))
            raise ValueError(f"computed_steps {self.computed_steps!r} is unknown; choose one of {choices}.")
        if self.skipped_steps not in ("repeat", "extrapolate"):
            raise ValueError(f"skipped_steps {self.skipped_steps!r} is unknown; choose repeat or extrapolate.")
        if self.computed_steps in STATIC_STEPS and self.steps != STATIC_TOTAL:
            raise ValueError(
                f"computed_steps {self.computed_steps!r} chooses among {STATIC_TOTAL} steps, but there are "
                f"{self.steps}; set the steps to {STATIC_TOTAL}, or computed_steps to all."
            )


class Solver(Protocol):
    """Integrates one modality from noise to data, through noise levels `sigmas`; `timesteps` tells the network."""

    sigmas: list[float]
    timesteps: list[float]

    def step(self, index: int, velocity: Tensor, sample: Tensor) -> Tensor:
        """Advance `sample` from noise level `index` to `index + 1`."""
        ...


class EulerSolver:
    """First-order steps from sigma = 1 exactly; the network is told the exact timestep."""

    def __init__(self, config: SamplerConfig, final_sigma: float) -> None:
        self.sigmas = sampling_sigmas(config.steps, config.shift, final=final_sigma).tolist()
        self.timesteps = [TRAIN_STEPS * sigma for sigma in self.sigmas[:-1]]

    def step(self, index: int, velocity: Tensor, sample: Tensor) -> Tensor:
        """Move along the velocity."""
        return sample + (self.sigmas[index + 1] - self.sigmas[index]) * velocity


class UniPCSolver:
    """diffusers' UniPC on the official table, which starts at sigma 0.9998 and truncates timesteps to integers."""

    def __init__(self, config: SamplerConfig, final_sigma: float) -> None:
        from diffusers import UniPCMultistepScheduler  # Euler needs none of it

        sigmas = sampling_sigmas(config.steps, config.shift, start=UNIPC_START, final=final_sigma)
        self.sigmas = sigmas.tolist()
        self.timesteps = [float(int(TRAIN_STEPS * sigma)) for sigma in sigmas[:-1]]
        make: Any = UniPCMultistepScheduler  # diffusers is not typed
        self._scheduler = make(
            prediction_type="flow_prediction", use_flow_sigmas=True, solver_order=2, solver_type="bh2"
        )
        self._scheduler.set_timesteps(config.steps)
        # The library's own table differs by up to 0.003, and truncated timesteps repeat: set both by step index.
        self._scheduler.sigmas = sigmas
        self._scheduler.timesteps = torch.arange(config.steps)
        self._scheduler.set_begin_index(0)

    def step(self, index: int, velocity: Tensor, sample: Tensor) -> Tensor:
        """Apply corrector and predictor; must be called with ascending indices."""
        return self._scheduler.step(velocity, index, sample, return_dict=False)[0]


def make_solver(config: SamplerConfig, final_sigma: float = 0.0) -> Solver:
    """Build a fresh solver for one modality of one chunk."""
    return (EulerSolver if config.solver == "euler" else UniPCSolver)(config, final_sigma)


def guide(conditional: Tensor, negative: Tensor, scale: float) -> Tensor:
    """Return the video velocity with classifier-free guidance (spec §3.1).

    Actions follow the conditional branch alone.
    """
    return negative + scale * (conditional - negative)


@torch.no_grad()
def sample_chunk(
    velocity: VelocityFunction,
    video: Tensor,
    action: Tensor,
    config: SamplerConfig,
    given: Literal["none", "video", "action"] = "none",
    action_only: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Denoise one chunk.

    Args:
        velocity: The network, guidance included.
        video: Noise [B, C, F, h, w], or the given clean latents.
        action: Noise [B, T, A], or the given clean normalised actions.
        config: Solver, steps, guidance.
        given: Which modality is given clean.
        action_only: Whether nobody wants the video: its last computed velocity is then not guided.

    Returns:
        Video latents and normalised actions, a given modality as it came; and the estimate of the clean video latents,
        x_sigma - sigma * velocity, which the first are where the video is denoised fully.
    """
    video_solver = make_solver(config, config.video_final_sigma)
    action_solver = make_solver(config)
    choice = computed_steps(config.computed_steps, config.steps, len(video))
    last = max(STATIC_STEPS.get(config.computed_steps, (config.steps - 1,)))
    extrapolate = config.skipped_steps == "extrapolate"
    video_velocity, action_velocity = HeldVelocity(extrapolate), HeldVelocity(extrapolate)
    for index in range(config.steps):
        video_sigma, action_sigma = video_solver.sigmas[index], action_solver.sigmas[index]
        due_B = choice.due(index)
        if due_B.any():
            video_timestep = 0.0 if given == "video" else video_solver.timesteps[index]
            action_timestep = 0.0 if given == "action" else action_solver.timesteps[index]
            guided = not (action_only and index == last)
            video_new, action_new = velocity(video, action, video_timestep, action_timestep, guided)
            due_B = due_B.to(video.device)
            video_held = video_velocity.note(video_new, video_sigma, due_B)
            action_held = action_velocity.note(action_new, action_sigma, due_B)
            choice.note(action_held if given == "video" else video_held, due_B)
        if given != "video":
            video = video_solver.step(index, video_velocity.at(video_sigma), video)
        if given != "action":
            action = action_solver.step(index, action_velocity.at(action_sigma), action)
    if given == "video" or config.video_final_sigma == 0:
        return video, action, video
    return video, action, video - video_solver.sigmas[-1] * video_velocity.at(video_sigma)
