"""The official frozen components of a golden file, as the libraries' modules behind our codecs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from lerobot_wam.codecs import official_names
from lerobot_wam.codecs.image import ClipImageCodec
from lerobot_wam.codecs.umt5 import Umt5TextCodec
from lerobot_wam.codecs.wan_vae import WanVAECodec

Convert = Callable[[str, Tensor], list[tuple[str, Tensor]]]


def pixels(images: Tensor, latent: Tensor, cell: int) -> Tensor:
    """uint8 [B,T,H,W,3] to [-1,1] [B,3,T,H,W], resized as the 5B head does to the size that the latent grid tells."""
    video = images.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    size = [side * cell for side in latent.shape[-2:]]
    if list(video.shape[-2:]) != size:
        video = functional.interpolate(video.flatten(0, 1), size=size, mode="bilinear").unflatten(0, video.shape[:2])
    return video.transpose(1, 2)


def official_tensors(file: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors below `prefix`, official names."""
    with safe_open(file, "pt") as stored:
        return {k.removeprefix(prefix): stored.get_tensor(k) for k in stored.keys() if k.startswith(prefix)}  # noqa: SIM118


def shapes(tensors: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def load(module: nn.Module, tensors: dict[str, Tensor], convert: Convert) -> None:
    """Load official tensors, strictly: nothing missing but what the library ties, nothing left over."""
    converted = dict(pair for name, tensor in tensors.items() for pair in convert(name, tensor))
    missing, unexpected = module.load_state_dict(converted, strict=False)
    assert (set(missing) - set(getattr(module, "_tied_weights_keys", None) or ()), unexpected) == (set(), [])


def video_codec(weights: Path) -> WanVAECodec:
    from diffusers import AutoencoderKLWan

    tensors = official_tensors(weights, "w.vae.model.")
    vae: Any = AutoencoderKLWan(**official_names.vae_config(shapes(tensors)))
    load(vae, tensors, official_names.vae_from_official)
    return WanVAECodec(vae)


def text_codec(weights: Path, ids_of: Callable[[str], list[int]], length: int) -> Umt5TextCodec:
    """The text codec with a tokenizer that looks ids up: golden files hold token ids, not texts."""
    from transformers import UMT5Config, UMT5EncoderModel

    tensors = official_tensors(weights, "w.text_encoder.")
    encoder = UMT5EncoderModel(UMT5Config(**official_names.umt5_config(shapes(tensors))))
    load(encoder, tensors, official_names.umt5_from_official)
    return Umt5TextCodec(encoder, lambda text, **_: {"input_ids": ids_of(text)}, length)


def image_codec(weights: Path, frame: Tensor, expected: Tensor) -> ClipImageCodec:
    """The image codec. Its number of heads is in no shape and no metadata: the one that fits an example is it."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    tensors = official_tensors(weights, "w.image_encoder.model.")
    width = tensors["visual.pre_norm.weight"].numel()
    codecs = []
    for heads in [n for n in range(1, width) if width % n == 0]:
        model = CLIPVisionModel(CLIPVisionConfig(**official_names.clip_config(shapes(tensors), heads)))
        load(model, tensors, official_names.clip_from_official)
        codecs.append(ClipImageCodec(model))
    return min(codecs, key=lambda codec: float((codec.encode(frame) - expected).abs().max()))
