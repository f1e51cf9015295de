"""What a policy that is built for training has to agree on with what launched it: accelerate, and LeRobot's loop."""

import logging

from lerobot.configs import parser

from lerobot_wam.command_line import SettingError
from lerobot_wam.configuration_wam import WAMConfig

logger = logging.getLogger(__name__)


def settle_average(config: WAMConfig) -> None:
    """Keep no weight average of our own where LeRobot keeps one (`--ema.enable`, after 0.6.1)."""
    if config.ema_decay > 0 and (parser.parse_arg("ema.enable") or "").lower() == "true":
        logger.warning(f"LeRobot averages the weights (--ema.enable): policy.ema_decay={config.ema_decay} steps aside")
        config.ema_decay = 0.0


def refuse_quantization(config: WAMConfig) -> None:
    """Refuse to train or save weights that are quantised for acting.

    Raises:
        SettingError: The configuration quantises.
    """
    if config.quantization != "none":
        raise SettingError(
            f"quantization is {config.quantization}: quantised weights only act, they are neither trained nor saved: "
            "--policy.quantization=none"
        )


def settle_sharding(config: WAMConfig) -> None:
    """Prepare accelerate's sharding (FSDP), where it is on, for a policy that it has yet to wrap.

    Raises:
        SettingError: The weights are averaged or orthogonalised, which needs whole matrices.
    """
    from accelerate.state import AcceleratorState, is_initialized
    from accelerate.utils import DistributedType

    if not is_initialized() or AcceleratorState().distributed_type != DistributedType.FSDP:
        return
    if config.ema_decay > 0:
        raise SettingError(
            f"ema_decay is {config.ema_decay}, but sharded weights are not averaged: --policy.ema_decay=0"
        )
    if config.optimizer != "adamw":
        raise SettingError(f"optimizer is {config.optimizer}, but Muon needs whole matrices: --policy.optimizer=adamw")
    precision = AcceleratorState().fsdp_plugin.mixed_precision_policy
    if precision is not None:
        import torch

        # Else the batch would be rounded to bfloat16 on its way in, joint angles to three digits, and so would the
        # sums of the gradients.
        precision.cast_root_forward_inputs = False
        precision.reduce_dtype = torch.float32
