"""Frozen components copied into a policy folder, in the layout that their libraries load."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lerobot_wam.checkpoints.foreign import Component
from lerobot_wam.checkpoints.lazy import LazyTensors, convert, open_safetensors
from lerobot_wam.codecs.official_names import (
    clip_config,
    clip_from_official,
    umt5_config,
    umt5_from_official,
    vae_config,
    vae_from_official,
)

STEMS = {"video_codec": "diffusion_pytorch_model", "text_codec": "model", "image_codec": "model"}
_RULES = {"video_codec": vae_from_official, "text_codec": umt5_from_official, "image_codec": clip_from_official}
_TIED = "encoder.embed_tokens.weight"  # UMT5's second name for its embedding, which is saved once
TOKENIZER_FILES = ["tokenizer*", "spiece.model", "special_tokens_map.json"]


@dataclass(frozen=True)
class EmbeddedComponent:
    """A component as it will be written.

    Attributes:
        name: Its subfolder.
        tensors: Weights by the library's names.
        config: The library's configuration object; None where the files below describe it.
        files: What else is copied.
    """

    name: str
    tensors: LazyTensors
    config: Any
    files: list[Path]

    def write_descriptions(self, out: Path) -> list[Path]:
        """Write everything but the weights and return the files."""
        folder = out / self.name
        if self.config is not None:
            self.config.save_pretrained(folder)
        for file in self.files:
            shutil.copyfile(file, folder / file.name)
        return [folder / name for name in {"config.json", *(file.name for file in self.files)}]


def embedded_components(components: Mapping[str, Component]) -> list[EmbeddedComponent]:
    """Convert the components that a checkpoint brings along.

    Raises:
        ValueError: A component's tensors are not those that its library expects.
    """
    embedded = []
    for name, component in components.items():
        if component.tensors:
            module, config = _library_module(name, component.tensors)
            tensors = convert(component.tensors, _RULES[name])
            _check(name, {key: t.shape for key, t in tensors.items()}, module)
        else:
            config, tensors = None, open_safetensors(component.folders[0], STEMS[name])
        files = [] if config is not None else [component.folders[0] / "config.json"]
        if name == "text_codec":
            files += [file for pattern in TOKENIZER_FILES for file in sorted(component.folders[-1].glob(pattern))]
        embedded.append(EmbeddedComponent(name, tensors, config, files))
    return embedded


def _library_module(name: str, tensors: LazyTensors) -> tuple[torch.nn.Module, Any]:
    """Build the library's module without memory, of the sizes that the tensors have."""
    from diffusers import AutoencoderKLWan
    from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    shapes = {key: lazy.shape for key, lazy in tensors.items()}
    with torch.device("meta"):
        if name == "video_codec":
            module: Any = AutoencoderKLWan(**vae_config(shapes))
            return module, _DiffusersConfig(module)
        if name == "text_codec":
            module = UMT5EncoderModel(UMT5Config(**umt5_config(shapes)))
        else:
            module = CLIPVisionModel(CLIPVisionConfig(**clip_config(shapes)))
    return module, module.config


@dataclass(frozen=True)
class _DiffusersConfig:
    """diffusers' way of saving a configuration, under transformers' name for it."""

    module: Any

    def save_pretrained(self, folder: Path) -> None:
        self.module.save_config(folder)


def _check(name: str, found: Mapping[str, tuple[int, ...]], module: torch.nn.Module) -> None:
    expected = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items() if key != _TIED}
    wrong = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    if wrong:
        raise ValueError(
            f"the checkpoint's {name} has {len(wrong)} missing, unexpected or misshapen tensors "
            f"({', '.join(wrong[:3])} ...): leave --embed-components out to refer to the published one"
        )
