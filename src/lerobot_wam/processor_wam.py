"""LeRobot's pre- and post-processing pipelines for `WAMPolicy`.

Actions stay physical on both sides: the policy normalises them, relative to each chunk's anchor state, with its
embodiment's own statistics. LeRobot's normaliser is kept, as identity, because its tools look for it by name.
"""

from typing import Any

import torch
from lerobot.processor import (
    PolicyProcessorPipeline,
    make_default_policy_processor_steps,
    make_policy_processor_pipelines,
)

from lerobot_wam.configuration_wam import WAMConfig


def make_wam_pre_post_processors(
    config: WAMConfig, dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None
) -> tuple[PolicyProcessorPipeline[Any, Any], PolicyProcessorPipeline[Any, Any]]:
    """Build the pipelines: rename, batch, move, (identity) normalise; and back to the CPU.

    Args:
        config: The policy's configuration.
        dataset_stats: LeRobot's dataset statistics; stored, not used.

    Returns:
        Preprocessor and postprocessor.
    """
    steps = make_default_policy_processor_steps(config, dataset_stats, normalizer_device=config.device)
    return make_policy_processor_pipelines(
        input_steps=[steps.rename_observations, steps.add_batch_dim, steps.to_device, steps.normalize],
        output_steps=[steps.unnormalize, steps.to_cpu],
    )
