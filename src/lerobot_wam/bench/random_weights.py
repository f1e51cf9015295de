"""Frozen parts of full size with random weights, made on their device: no download, and no memory but their own.

Time does not depend on what weights say. Needs neither LeRobot nor a checkpoint. No tokenizer is at hand offline; one
made-up id per word stands in for it.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from lerobot_wam.codecs.image import ClipImageCodec
from lerobot_wam.codecs.umt5 import Umt5TextCodec
from lerobot_wam.codecs.wan_vae import WanVAECodec

UMT5: dict[str, Any] = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
}
CLIP: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
}
VAE: dict[str, dict[str, Any]] = {
    "wan2.1": {},  # what diffusers' class is by default
    "wan2.2": {
        "base_dim": 160,
        "decoder_base_dim": 256,
        "z_dim": 48,
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_spatial": 16,
        "latents_mean": [0.0] * 48,
        "latents_std": [1.0] * 48,
    },
}
_PART = 2**24 - 3  # numbers that are copied at once; a prime to every row length, so that no two rows are equal
_STEP, _STARTS = 31, 2**14  # each tensor starts elsewhere in the noise, so that no two are equal


@torch.no_grad()
def filled(module: Any, dtype: torch.dtype, device: torch.device, seed: int) -> Any:
    """Give a module on the meta device weights of standard deviation 0.02, and norms gains about 1; returns it."""
    module.to(dtype).to_empty(device=device)
    noise = _noise(device, seed)
    for index, (name, parameter) in enumerate(module.named_parameters()):
        start = _STEP * (index % _STARTS)
        for part in parameter.view(-1).split(_PART):
            part.copy_(noise[start : start + len(part)])
        if name.endswith("gamma") or (parameter.ndim == 1 and name.endswith("weight")):
            parameter.add_(1)
    return module


@lru_cache(maxsize=1)
def _noise(device: torch.device, seed: int) -> Tensor:
    generator, count = torch.Generator().manual_seed(seed), _PART + _STEP * _STARTS
    return (0.02 * torch.randn(count, generator=generator, dtype=torch.bfloat16)).to(device)


def random_video_codec(name: str, device: torch.device, seed: int = 0, **sizes: Any) -> WanVAECodec:
    """Build the autoencoder "wan2.1" or "wan2.2" in float32, as policies load it; `sizes` replace the full ones."""
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        vae = AutoencoderKLWan(**(VAE[name] | sizes))
    return WanVAECodec(filled(vae, torch.float32, device, seed))


def random_image_codec(dtype: torch.dtype, device: torch.device, seed: int = 0, **sizes: Any) -> ClipImageCodec:
    """Build the tower of CLIP ViT-H/14; `sizes` replace the full ones."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    with torch.device("meta"):
        clip = CLIPVisionModel(CLIPVisionConfig(**(CLIP | sizes)))
    tokens = filled(clip, dtype, device, seed).vision_model.embeddings
    # No weight, so the meta device lost it.
    tokens.position_ids = torch.arange(tokens.num_positions, device=device)[None]
    return ClipImageCodec(clip)


@lru_cache
def random_text_codec(length: int, dtype: torch.dtype, device: str, seed: int = 0) -> Umt5TextCodec:
    """Build UMT5 behind the codec protocol, 11 GB in bfloat16; once, and all policies of this process share it."""
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.device("meta"):
        encoder = UMT5EncoderModel(UMT5Config(**UMT5))

    def ids(text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [*range(2, 2 + len(text.split())), 1]}

    return Umt5TextCodec(filled(encoder, dtype, torch.device(device), seed), ids, length)
