"""A checkpoint's own frozen components, turned into the layout that their libraries load."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lerobot_wam.checkpoints.lazy import LazyTensors, convert
from lerobot_wam.codecs.official_names import (
    clip_config,
    clip_from_official,
    umt5_config,
    umt5_from_official,
    vae_config,
    vae_from_official,
)

TOKENIZER_FILES = ["tokenizer*", "spiece.model", "special_tokens_map.json"]
_TIED = "encoder.embed_tokens.weight"  # UMT5's second name for its embedding, which is stored once


@dataclass(frozen=True)
class ConvertedComponent:
    """A component under its library's names.

    Attributes:
        tensors: Its weights.
        stem: The library's name of the weight file, without its ending.
        module: The library's module, without memory.
    """

    tensors: LazyTensors
    stem: str
    module: Any

    def write_description(self, folder: Path, tokenizer: Path | None) -> None:
        """Write config.json, and for a text encoder copy the tokenizer."""
        if self.stem == "model":
            self.module.config.save_pretrained(folder)
        else:
            self.module.save_config(folder)
        if tokenizer is not None:
            for file in (file for pattern in TOKENIZER_FILES for file in tokenizer.glob(pattern)):
                shutil.copyfile(file, folder / file.name)


def convert_component(name: str, official: LazyTensors) -> ConvertedComponent:
    """Convert one of `frozen.COMPONENTS` from its official names.

    Raises:
        ValueError: The tensors are not those that the library expects.
    """
    from diffusers import AutoencoderKLWan
    from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    shapes = {key: lazy.shape for key, lazy in official.items()}
    module: Any
    with torch.device("meta"):
        if name == "video_codec":
            rule, stem, module = vae_from_official, "diffusion_pytorch_model", AutoencoderKLWan(**vae_config(shapes))
        elif name == "text_codec":
            rule, stem, module = umt5_from_official, "model", UMT5EncoderModel(UMT5Config(**umt5_config(shapes)))
        else:
            rule, stem, module = clip_from_official, "model", CLIPVisionModel(CLIPVisionConfig(**clip_config(shapes)))
    tensors = convert(official, rule)
    found = {key: lazy.shape for key, lazy in tensors.items()}
    expected = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items() if key != _TIED}
    if wrong := sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)):
        raise ValueError(
            f"the checkpoint's {name} has {len(wrong)} missing, unexpected or misshapen tensors "
            f"({', '.join(wrong[:3])} ...): leave --embed-components out to refer to the published one"
        )
    return ConvertedComponent(tensors, stem, module)
