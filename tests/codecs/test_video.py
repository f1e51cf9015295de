"""The space-time DCT codec: inverse where it keeps everything, faithful and well scaled where it does not."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lerobot_wam.codecs.video import SpaceTimeDCTCodec


def moving_squares(clips: int = 8, frames: int = 9, size: int = 64) -> Tensor:
    """Coloured squares that drift over a shaded ground: [clips, 3, frames, size, size] in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    video = torch.linspace(0.1, 0.5, size)[None, None, None, :, None].repeat(clips, 3, frames, 1, size)
    for clip in video:
        for _ in range(4):
            colour = torch.rand(3, 1, 1, generator=generator) * 2 - 1
            start, end = torch.rand(2, 2, generator=generator) * (size - 16)
            for t in range(frames):
                row, col = (start + (end - start) * t / (2 * frames)).int().tolist()
                clip[:, t, row : row + 10, col : col + 10] = colour
    return video


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * torch.log10(((a - b) / 2).square().mean()).item()


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_keeping_every_coefficient_is_exactly_invertible(frames):
    codec = SpaceTimeDCTCodec(patch=4, channels=12 * 16)
    video = torch.rand(2, 3, frames, 8, 12) * 2 - 1
    latents = codec.encode(video)
    assert latents.shape == (2, *codec.latent_shape(frames, 8, 12))
    torch.testing.assert_close(codec.decode(latents), video, atol=2e-6, rtol=0)


def test_energy_is_preserved_up_to_the_prior_scale():
    codec = SpaceTimeDCTCodec(patch=4, channels=12 * 16)
    video = torch.rand(1, 3, 5, 8, 8) * 2 - 1
    coefficients = codec.encode(video)[:, :, 1:] * codec.channel_std[:, None, None, None]
    torch.testing.assert_close(coefficients.square().sum(), video[:, :, 1:].square().sum())


@pytest.mark.parametrize(("patch", "channels", "floor"), [(16, 96, 23), (16, 256, 27), (8, 32, 22), (8, 128, 28)])
def test_few_channels_keep_the_picture_and_are_well_scaled(patch, channels, floor):
    codec = SpaceTimeDCTCodec(patch, channels)
    video = moving_squares()
    latents = codec.encode(video)
    assert psnr(codec.decode(latents), video) > floor
    assert 0.4 < latents.std() < 1.6


def test_more_channels_never_hurt_and_extend_the_choice():
    video = moving_squares(clips=4)
    codecs = [SpaceTimeDCTCodec(8, k) for k in (32, 64, 128, 768)]
    quality = [psnr(codec.decode(codec.encode(video)), video) for codec in codecs]
    assert quality == sorted(quality)
    for small, large in pairwise(codecs):
        torch.testing.assert_close(large.encode(video)[:, : small.latent_channels], small.encode(video))


def test_the_first_frame_is_a_still_group():
    codec = SpaceTimeDCTCodec(8, 128)
    still = (torch.rand(1, 3, 1, 16, 16) * 2 - 1).repeat(1, 1, 5, 1, 1)
    first, second = codec.encode(still).unbind(2)
    torch.testing.assert_close(first, second)
    assert first[:, codec.temporal_index > 0].abs().max() < 1e-5
    assert codec.temporal_index.max() == 3


def test_latents_are_causal():
    codec = SpaceTimeDCTCodec(8, 64)
    video = moving_squares(clips=1)
    torch.testing.assert_close(codec.encode(video)[:, :, :2], codec.encode(video[:, :, :5]))


def test_loss_weight_follows_the_prior():
    codec = SpaceTimeDCTCodec(16, 96)
    assert codec.channel_weight.shape == (96,)
    assert codec.channel_weight.mean().item() == pytest.approx(1)
    torch.testing.assert_close(codec.channel_weight / codec.channel_weight[0], codec.channel_std / codec.channel_std[0])
    assert (codec.channel_weight.diff() <= 0).all()


def test_nothing_is_saved():
    assert not SpaceTimeDCTCodec(8, 32).state_dict()


@pytest.mark.parametrize(
    ("shape", "message"),
    [((4, 16, 16), "4 frames, expected 1\\+4k"), ((5, 20, 16), "20x16 pixels, expected multiples of .* cell, 8")],
)
def test_unfit_clips_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        SpaceTimeDCTCodec(8, 32).encode(torch.zeros(1, 3, *shape))


def test_unfit_channels_are_refused():
    with pytest.raises(ValueError, match=r"expected 1\.\.192"):
        SpaceTimeDCTCodec(patch=4, channels=193)
    with pytest.raises(ValueError, match="latents have 16 channels"):
        SpaceTimeDCTCodec(8, 32).decode(torch.zeros(1, 16, 1, 2, 2))
