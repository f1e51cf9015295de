"""What a policy's configuration says of its closed loop, as the values that the runtime takes."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from lerobot_wam.diffusion.sampler import SamplerConfig
from lerobot_wam.embodiments.action_space import ActionSpace
from lerobot_wam.runtime.state import LoopRules
from lerobot_wam.runtime.surprise import Alarm, Calibration

if TYPE_CHECKING:
    from lerobot_wam.configuration_wam import WAMConfig

logger = logging.getLogger(__name__)


def sampler_config(config: "WAMConfig") -> SamplerConfig:
    """How chunks are sampled."""
    return SamplerConfig(
        config.solver,
        config.num_inference_steps,
        guidance=config.guidance_scale,
        video_final_sigma=config.video_final_sigma,
        computed_steps=config.computed_steps,
        skipped_steps=config.skipped_steps,
    )


def loop_rules(config: "WAMConfig") -> LoopRules:
    """What the loop does where the official one differs."""
    return LoopRules(
        window_full=config.window_full,
        restart_frame=config.restart_frame,
        noise_stream=config.noise_stream,
        padded_actions=config.padded_actions,
        smoothing=config.smoothing,
    )


def dream_settings(config: "WAMConfig") -> dict[str, Any]:
    """What a policy's dreams depend on, besides what it sees: see `Calibration.settings`."""
    own = ("steps_done", "quantization", "restart_frame")
    return {name: getattr(config, name) for name in own} | asdict(sampler_config(config))


def alarm(config: "WAMConfig", spaces: Sequence[ActionSpace]) -> Alarm | None:
    """Return what watches the sessions of a policy; None without a calibration that fits its dreams.

    Args:
        config: The policy's configuration.
        spaces: Its robots, in category order.

    Raises:
        ValueError: The policy shall react to surprise, and cannot.
    """
    settings, calibrations = dream_settings(config), {}
    for category, name in enumerate(config.embodiments):
        if name not in config.surprise:
            continue
        calibration = Calibration(**config.surprise[name])
        if changed := [key for key in settings if calibration.settings.get(key) != settings[key]]:
            logger.warning(f"surprise of {name} is not measured: it was calibrated with another {', '.join(changed)}")
        else:
            calibrations[category] = calibration
    if config.on_surprise != "ignore":
        if not calibrations:
            raise ValueError(
                f"on_surprise={config.on_surprise} needs a calibration of these weights and sampler settings: run "
                "lerobot-wam calibrate --policy.path=... --dataset.root=..."
            )
        logger.warning(f"on_surprise={config.on_surprise}: the robot does not always execute a chunk to its end")
    rests = [np.array([np.nan if d.rest is None else d.rest for d in space.spec.action]) for space in spaces]
    return Alarm(calibrations, config.on_surprise, dict(enumerate(rests))) if calibrations else None
