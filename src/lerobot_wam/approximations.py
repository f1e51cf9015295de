"""What a configuration does that is not exact, in words: printed when a policy is made, stored with every result.

The reference is `--policy.speed=exact` without quantisation: every one of 16 solver steps, the preset's guidance, video
and actions denoised fully, and a window that restarts.
"""

from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.presets import PRESETS, SPEEDS

_EXACT_STEPS = SPEEDS["exact"]["num_inference_steps"]
_LINES = {"repeat": "repeats the last velocity", "extrapolate": "continues the line through the last two velocities"}


def approximations(config: WAMConfig) -> list[str]:
    """Return a line for each, led by the field that sets it; nothing for an exact configuration."""
    found = []
    if config.num_inference_steps < _EXACT_STEPS:
        found.append(f"num_inference_steps={config.num_inference_steps} solver steps, {_EXACT_STEPS} are exact")
    if config.computed_steps != "all":
        rule = _LINES[config.skipped_steps]
        found.append(f"computed_steps={config.computed_steps} {rule} in some of {config.num_inference_steps} steps")
    guidance = PRESETS[config.preset]["guidance_scale"]
    if config.guidance_scale != guidance:
        found.append(f"guidance_scale={config.guidance_scale:g}, the preset's is {guidance:g}")
    if config.video_final_sigma > 0:
        found.append(f"video_final_sigma={config.video_final_sigma:g} leaves noise in the imagined video")
        if config.noise_mode in ("coupled", "high_noise"):
            found.append(
                f"noise_mode={config.noise_mode} never showed these weights a noisy video beside clean actions: for "
                "this setting, train with --policy.noise_mode=decoupled"
            )
    if config.window_full == "slide":
        found.append("window_full=slide keeps what dropped frames left in the others' keys")
    if config.smoothing:
        found.append("smoothing=true filters each chunk's actions")
    if config.quantization != "none":
        found.append(f"quantization={config.quantization} rounds the weights of the blocks")
    return found
