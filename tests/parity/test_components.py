"""The frozen components against the official numbers: what goes into the network in training and at each reset.

Tolerance: fp32 sums of a few hundred terms in another order than the official code's, times three or four layers.
"""

import json
from pathlib import Path
from typing import Any

import official
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from lerobot_wam.codecs import official_names

ATOL = 1e-5
LOSSES = ["standard", "5B_standard"]
SAMPLERS = ["full16", "5B_mask8"]


def read(path: Path) -> tuple[dict[str, Tensor], Path]:
    """A golden file's tensors and the file with its weights."""
    with safe_open(path, "pt") as file:
        meta = json.loads(file.metadata()["meta"])
        return {k: file.get_tensor(k) for k in file.keys()}, path.with_name(f"{meta['weights']}.safetensors")  # noqa: SIM118


def close(ours: Tensor, golden: Tensor) -> None:
    torch.testing.assert_close(ours, golden, atol=ATOL, rtol=0)


@pytest.mark.parametrize("case", LOSSES)
def test_latents_and_first_frame_conditioning(golden_dir: Path, case: str):
    tensors, weights = read(golden_dir / f"c_train_loss_{case}.safetensors")
    codec, clean = official.video_codec(weights), tensors["mid.clean_x"]
    video = official.pixels(tensors["in.images"], clean, codec.spatial_stride)
    assert codec.latent_shape(*video.shape[2:]) == tuple(clean.shape[1:])
    close(codec.encode(video), clean)
    close(codec.condition(video[:, :, 0], clean.shape[2]), tensors["mid.y"])


@pytest.mark.parametrize("case", LOSSES)
def test_text_tokens(golden_dir: Path, case: str):
    tensors, weights = read(golden_dir / f"c_train_loss_{case}.safetensors")
    ids, real = tensors["in.text"][0], tensors["in.text_attention_mask"][0].bool()
    codec = official.text_codec(weights, lambda _: ids[real].tolist(), len(ids))
    tokens, mask = codec.encode(["any"])
    assert torch.equal(mask[0], real)
    close(tokens, tensors["mid.context"])


@pytest.mark.parametrize("case", LOSSES)
def test_image_tokens(golden_dir: Path, case: str):
    tensors, weights = read(golden_dir / f"c_train_loss_{case}.safetensors")
    stride = official.video_codec(weights).spatial_stride
    frame = official.pixels(tensors["in.images"], tensors["mid.clean_x"], stride)[:, :, 0]
    codec = official.image_codec(weights, frame, tensors["mid.clip_feature"])
    close(codec.encode(frame), tensors["mid.clip_feature"])


@pytest.mark.parametrize("case", SAMPLERS)
def test_what_a_reset_is_conditioned_on(golden_dir: Path, case: str):
    tensors, weights = read(golden_dir / f"d_sampler_{case}.safetensors")
    video_codec = official.video_codec(weights)
    ys, tokens = tensors["call0.mid.ys"], tensors["call0.mid.clip"]
    frame = official.pixels(tensors["call0.in.images"][None, 0], ys, video_codec.spatial_stride)[:, :, 0]
    close(video_codec.condition(frame, ys.shape[2]), ys)
    close(official.image_codec(weights, frame, tokens).encode(frame), tokens)


@pytest.mark.parametrize("case", LOSSES)
def test_decoding_undoes_the_normalisation(golden_dir: Path, case: str):
    tensors, weights = read(golden_dir / f"c_train_loss_{case}.safetensors")
    codec, clean = official.video_codec(weights), tensors["mid.clean_x"][:, :, :2]
    std, mean = (torch.tensor(codec.vae.config[key])[:, None, None, None] for key in ("latents_std", "latents_mean"))
    decoded = codec.decode(clean)
    assert codec.latent_shape(*decoded.shape[2:]) == tuple(clean.shape[1:])
    with torch.no_grad():
        close(decoded, codec.vae.decode(clean * std + mean).sample)


def full_size_on_meta(kind: str, shapes: dict[str, list[int]]) -> Any:
    """The library's module in the full size that the inventory's shapes tell, without memory."""
    from diffusers import AutoencoderKLWan
    from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    with torch.device("meta"):
        if kind == "vae.model":
            return AutoencoderKLWan(**official_names.vae_config(shapes))
        if kind == "text_encoder":
            return UMT5EncoderModel(UMT5Config(**official_names.umt5_config(shapes)))
        return CLIPVisionModel(CLIPVisionConfig(**official_names.clip_config(shapes)))


@pytest.mark.parametrize(
    ("kind", "convert"),
    [
        ("vae.model", official_names.vae_from_official),
        ("text_encoder", official_names.umt5_from_official),
        ("image_encoder.model", official_names.clip_from_official),
    ],
)
def test_full_size_names_and_shapes(golden_dir: Path, kind: str, convert: official.Convert):
    shapes = json.loads((golden_dir / "key_inventory.json").read_text())[kind]
    pairs = [p for name, shape in shapes.items() for p in convert(name, torch.empty(shape, device="meta"))]
    converted = {name: list(tensor.shape) for name, tensor in pairs}
    expected = {name: list(tensor.shape) for name, tensor in full_size_on_meta(kind, shapes).state_dict().items()}
    expected.pop("encoder.embed_tokens.weight", None)  # tied to shared.weight
    assert converted == expected
