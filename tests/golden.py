"""Readers of the official implementation's recorded numbers; every size comes from the files."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from lerobot_wam.model.config import ModelConfig
from lerobot_wam.model.world_action_model import WorldActionModel


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of one file."""
    with safe_open(path, "pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}, json.loads(file.metadata().get("meta", "{}"))  # noqa: SIM118


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def build(weights: dict[str, Tensor], sizes: dict[str, Any], state_self_only: bool) -> WorldActionModel:
    """The network of these weights; `sizes` tells what their shapes do not: heads and the lengths of a window."""
    out_dim, dim = weights["head.head.weight"].shape
    patch = tuple(weights["patch_embedding.weight"].shape[2:])
    latent_channels = out_dim // (patch[0] * patch[1] * patch[2])
    categories, state_dim, hidden = weights["state_encoder.layer1.W"].shape
    config = ModelConfig(
        dim=dim,
        num_heads=sizes["num_heads"],
        num_layers=len({name.split(".")[1] for name in weights if name.startswith("blocks.")}),
        ffn_dim=weights["blocks.0.ffn.0.weight"].shape[0],
        freq_dim=weights["time_embedding.0.weight"].shape[1],
        text_dim=weights["text_embedding.0.weight"].shape[1],
        latent_channels=latent_channels,
        condition_channels=weights["patch_embedding.weight"].shape[1] - latent_channels,
        image_dim=weights["img_emb.proj.0.weight"].shape[0],
        patch=patch,  # type: ignore[arg-type]
        action_dim=weights["action_encoder.W1.W"].shape[1],
        state_dim=state_dim,
        action_hidden=hidden,
        num_categories=categories,
        frames_per_chunk=sizes["num_frame_per_block"],
        actions_per_chunk=sizes["num_action_per_block"],
        states_per_chunk=sizes["num_state_per_block"],
        max_chunks=sizes["max_chunk_size"],
        state_self_only=state_self_only,
    )
    model = WorldActionModel(config)
    model.load_state_dict(weights, strict=True)
    return model
