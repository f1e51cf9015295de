"""The blocks' matrices in fewer bits, by torchao. Embeddings, heads and the robots' encoders stay as they are."""

from typing import Any

import torch
from torch import nn

from lerobot_wam.model.world_action_model import WorldActionModel

KINDS = ("fp8", "int8", "int4")
_GROUP = 128  # weights that share a scale in int4


def quantize(model: WorldActionModel, kind: str) -> str:
    """Replace the weights of all matrices in the blocks, in place; they can be neither trained nor saved afterwards.

    Args:
        model: On its device. Where q, k and v are fused, their product is quantised and the three are dropped.
        kind: One of `KINDS`. "fp8": weights and activations in float8 with a scale per row; "int8" and "int4": weights
            alone, with a scale per row and per 128 weights.

    Returns:
        A line on what was done, or why nothing could be.

    Raises:
        ModuleNotFoundError: torchao is missing.
    """
    if obstacle := _obstacle(kind, model.patch_embedding.weight.device, model.dtype):
        return f"quantization {kind} needs {obstacle}: weights stay in {str(model.dtype).removeprefix('torch.')}"
    try:
        from torchao.quantization import quantize_
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"quantization {kind} needs torchao: pip install 'lerobot_policy_wam[quant]'"
        ) from error
    config, count = _torchao_config(kind), 0
    for block in model.blocks:
        attention: Any = block.self_attn
        if attention.fused_weight is not None:
            product = nn.Linear(1, 1, device="meta")
            product.weight = nn.Parameter(attention.fused_weight, requires_grad=False)
            quantize_(product, config)
            attention.fused_weight, count = product.weight, count + 1
            del attention.q, attention.k, attention.v
        count += sum(isinstance(module, nn.Linear) for module in block.modules())
        quantize_(block, config)
    return f"quantization {kind}: {count} matrices of the blocks, an approximation"


def is_quantized(module: nn.Module) -> bool:
    """Whether `quantize` has replaced weights of this module."""
    return any(type(weight).__module__.startswith("torchao.") for weight in module.parameters())


def _obstacle(kind: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """What is missing for this kind; int8 runs everywhere."""
    if kind == "int8":
        return None
    if device.type != "cuda":
        return "a CUDA GPU"
    if kind == "fp8" and torch.cuda.get_device_capability(device) < (8, 9):
        return "a GPU of compute capability 8.9 or newer"
    return None if dtype == torch.bfloat16 else "weights_dtype=bfloat16"


def _torchao_config(kind: str) -> Any:
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        Int4WeightOnlyConfig,
        Int8WeightOnlyConfig,
        PerRow,
    )

    # Its recommended compiler settings would be global, and include a lower precision of all float32 products.
    if kind == "fp8":
        return Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), set_inductor_config=False)
    if kind == "int8":
        return Int8WeightOnlyConfig(set_inductor_config=False)
    return Int4WeightOnlyConfig(_GROUP, set_inductor_config=False, int4_packing_format="tile_packed_to_4d")
