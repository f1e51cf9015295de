"""Official tensor names of the frozen components to their libraries' names and sizes (spec §7).

The same names, below their prefixes (spec §1.3), are in DreamZero's checkpoints and in the original Wan folders. Each
function takes one tensor and returns what becomes of it, so a checkpoint can be converted while it is read: nothing
for tensors that no feature depends on. What is missing or left over shows when the library loads the result strictly.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

Shapes = Mapping[str, Sequence[int]]

# Applied in this order. Wan2.2 nests the stages that Wan2.1 counts through, so the names tell which it is.
_VAE_RULES = (
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"coder\.conv1\.", "coder.conv_in."),
    (r"head\.0\.", "norm_out."),
    (r"head\.2\.", "conv_out."),
    (r"middle\.0\.", "mid_block.resnets.0."),
    (r"middle\.1\.", "mid_block.attentions.0."),
    (r"middle\.2\.", "mid_block.resnets.1."),
    (r"(down|up)samples\.(\d+)\.\1samples\.\d+\.(resample|time_conv)\.", r"\1_blocks.\2.\1sampler.\3."),
    (r"(down|up)samples\.(\d+)\.\1samples\.(\d+)\.", r"\1_blocks.\2.resnets.\3."),
    (r"downsamples\.", "down_blocks."),
    (r"residual\.0\.", "norm1."),
    (r"residual\.2\.", "conv1."),
    (r"residual\.3\.", "norm2."),
    (r"residual\.6\.", "conv2."),
    (r"shortcut\.", "conv_shortcut."),
)
_STAGE = 4  # a stage of Wan2.1's decoder: three residual blocks and an upsampler

_UMT5_RULES = (
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
    (r"^blocks\.(\d+)\.attn\.", r"encoder.block.\1.layer.0.SelfAttention."),
    (r"^blocks\.(\d+)\.pos_embedding\.embedding\.", r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias."),
    (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
    (r"^blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
    (r"^blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
)

_CLIP_UNUSED = re.compile(r"log_scale$|visual\.head$|textual\.")
_CLIP_RULES = (
    (r"^visual\.", "vision_model."),
    (r"\.cls_embedding$", ".embeddings.class_embedding"),
    (r"\.pos_embedding$", ".embeddings.position_embedding.weight"),
    (r"\.patch_embedding\.", ".embeddings.patch_embedding."),
    (r"\.pre_norm\.", ".pre_layrnorm."),
    (r"\.post_norm\.", ".post_layernorm."),
    (r"\.transformer\.", ".encoder.layers."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.attn\.proj\.", ".self_attn.out_proj."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.2\.", ".mlp.fc2."),
)

# Wan2.2's latent statistics, which its weight file does not hold; diffusers' defaults are Wan2.1's.
_WAN22_MEAN = (
    *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891),
    *(0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
    *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723),
    *(-0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
)
_WAN22_STD = (
    *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901),
    *(0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
    *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944),
    *(0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
)


def vae_from_official(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """Rename a tensor of either Wan VAE for diffusers' `AutoencoderKLWan`."""
    return [(_flat_stage(_rename(name, _VAE_RULES)), tensor)]


def umt5_from_official(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """Rename a tensor of the text encoder for transformers' `UMT5EncoderModel`, whose `embed_tokens` is tied."""
    return [(_rename(name, _UMT5_RULES), tensor)]


def clip_from_official(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """Rename a tensor of the image encoder for transformers' `CLIPVisionModel`; text tower and projections go."""
    if _CLIP_UNUSED.match(name):
        return []
    name = _rename(name, _CLIP_RULES)
    if ".attn.to_qkv." in name:
        return [
            (name.replace("attn.to_qkv", f"self_attn.{part}_proj"), weight.clone())
            for part, weight in zip("qkv", tensor.chunk(3), strict=True)
        ]
    if name.endswith("class_embedding"):
        return [(name, tensor.flatten())]
    if name.endswith("position_embedding.weight"):
        return [(name, tensor.squeeze(0))]
    return [(name, tensor)]


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """Arguments of `AutoencoderKLWan` for the VAE whose official tensors have these shapes."""
    config: dict[str, Any] = {
        "base_dim": shapes["encoder.conv1.weight"][0],
        "decoder_base_dim": shapes["decoder.head.0.gamma"][0],
        "z_dim": shapes["conv2.weight"][0],
    }
    if not any("downsamples.0.downsamples" in name for name in shapes):
        return config
    return config | {
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_spatial": 16,
        "latents_mean": list(_WAN22_MEAN),
        "latents_std": list(_WAN22_STD),
    }


def umt5_config(shapes: Shapes) -> dict[str, Any]:
    """Arguments of `UMT5Config` for the text encoder whose official tensors have these shapes."""
    vocabulary, dim = shapes["token_embedding.weight"]
    buckets, heads = shapes["blocks.0.pos_embedding.embedding.weight"]
    return {
        "vocab_size": vocabulary,
        "d_model": dim,
        "d_kv": shapes["blocks.0.attn.q.weight"][0] // heads,
        "d_ff": shapes["blocks.0.ffn.fc1.weight"][0],
        "num_layers": sum(name.endswith(".norm1.weight") for name in shapes),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
    }


def clip_config(shapes: Shapes, heads: int = 16) -> dict[str, Any]:
    """Arguments of `CLIPVisionConfig` for the image encoder whose official tensors have these shapes.

    The number of attention heads does not show in any shape; a ViT-H has 16.
    """
    dim, _, patch, _ = shapes["visual.patch_embedding.weight"]
    tokens = shapes["visual.pos_embedding"][1]
    return {
        "hidden_size": dim,
        "intermediate_size": shapes["visual.transformer.0.mlp.0.weight"][0],
        "num_hidden_layers": sum(bool(re.match(r"visual\..*\.norm1\.weight", name)) for name in shapes),
        "num_attention_heads": heads,
        "patch_size": patch,
        "image_size": patch * round((tokens - 1) ** 0.5),
        "hidden_act": "gelu",
    }


def _rename(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _flat_stage(name: str) -> str:
    """Turn the running number of Wan2.1's decoder blocks into stage and place."""
    if (match := re.match(r"decoder\.upsamples\.(\d+)\.", name)) is None:
        return name
    stage, place = divmod(int(match[1]), _STAGE)
    part = "upsamplers.0" if place == _STAGE - 1 else f"resnets.{place}"
    return f"decoder.up_blocks.{stage}.{part}.{name[match.end() :]}"
