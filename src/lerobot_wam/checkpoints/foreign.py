"""What every importable checkpoint boils down to: the network's tensors, and what the source says about itself."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot_wam.checkpoints.lazy import LazyTensors

ROBOT = ("state_encoder", "action_encoder", "action_decoder")
"""Modules that a video model cannot have."""
IMAGE = ("img_emb", "cross_attn.k_img", "cross_attn.v_img", "cross_attn.norm_k_img")
"""Modules of the image branch, which Wan2.2 has not."""
PRESET_OF_TYPE = {"i2v": "wan2.1-14b", "ti2v": "wan2.2-5b"}


@dataclass(frozen=True)
class ForeignCheckpoint:
    """A checkpoint of somebody else's, still on disk.

    Attributes:
        kind: What it is, for people.
        tensors: The network's, by the official names.
        settings: Values of `WAMConfig` fields that the checkpoint states; its preset among them.
        embodiments: As `WAMConfig.embodiments`; empty where no robot's statistics are known.
        may_lack: Modules that are freshly initialised where the checkpoint lacks them.
        components: Tensors of the frozen components that were asked for, by `frozen.COMPONENTS`, under their official
            names.
        tokenizer: The text encoder's tokenizer, where that is among them.
    """

    kind: str
    tensors: LazyTensors
    settings: dict[str, Any]
    embodiments: dict[str, Any]
    may_lack: tuple[str, ...]
    components: dict[str, LazyTensors] = field(default_factory=dict)
    tokenizer: Path | None = None


def network_settings(tensors: LazyTensors, model_type: str, num_heads: int, where: str) -> dict[str, Any]:
    """Return the `WAMConfig` fields that follow from the network: its preset from the type, its sizes from shapes.

    Args:
        tensors: The network's, by the official names.
        model_type: `i2v` (Wan2.1) or `ti2v` (Wan2.2-5B).
        num_heads: Attention heads, which no shape tells.
        where: The checkpoint's name, for errors.

    Raises:
        ValueError: Another type of model, or tensors that every size follows from are missing.
    """
    if model_type not in PRESET_OF_TYPE:
        raise ValueError(f"{where} is a {model_type} model: expected image-to-video ({', '.join(PRESET_OF_TYPE)})")
    try:
        dim, inputs, _, _, patch = tensors["patch_embedding.weight"].shape
        latent_channels = tensors["head.head.weight"].shape[0] // patch**2
        settings: dict[str, Any] = {
            "preset": PRESET_OF_TYPE[model_type],
            "dim": dim,
            "num_heads": num_heads,
            "num_layers": 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")),
            "ffn_dim": tensors["blocks.0.ffn.0.weight"].shape[0],
            "freq_dim": tensors["time_embedding.0.weight"].shape[1],
            "text_dim": tensors["text_embedding.0.weight"].shape[1],
            "patch_size": patch,
            "latent_channels": latent_channels,
            "condition_channels": inputs - latent_channels,
        }
        if "img_emb.proj.0.weight" in tensors:
            settings["image_dim"] = tensors["img_emb.proj.0.weight"].shape[0]
        if "state_encoder.layer1.W" in tensors:
            _, settings["state_dim"], settings["action_hidden"] = tensors["state_encoder.layer1.W"].shape
            settings["action_dim"] = tensors["action_encoder.W1.W"].shape[1]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{where} holds no whole video model ({error}): expected a Wan or DreamZero network"
        ) from error
    return settings
