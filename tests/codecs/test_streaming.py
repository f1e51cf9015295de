"""A clip encoded as its frames arrive: what the whole clip gives, for every codec, alone or beside other clips."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lerobot_wam.codecs.video import SpaceTimeDCTCodec, VideoCodec, VideoState
from lerobot_wam.codecs.wan_vae import WanVAECodec

KINDS = ["dct", "wan2.1", "wan2.2"]
WAN22: dict[str, Any] = {
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "z_dim": 48,
    "latents_mean": [0.1] * 48,
    "latents_std": [2.0] * 48,
    "scale_factor_spatial": 16,
    "decoder_base_dim": 4,
}


@pytest.fixture(scope="module", params=KINDS)
def codec(request: pytest.FixtureRequest) -> VideoCodec:
    """A codec with few channels, of random weights where it has any."""
    if request.param == "dct":
        return SpaceTimeDCTCodec(patch=16, channels=24)
    return wan(request.param)


def wan(kind: str) -> WanVAECodec:
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    return WanVAECodec(AutoencoderKLWan(base_dim=4, num_res_blocks=1, **(WAN22 if kind == "wan2.2" else {})))


def clips(count: int, frames: int = 9, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, frames, 32, 32, generator=generator) * 2 - 1


def groups(video: Tensor) -> list[Tensor]:
    """The first frame and the groups of four after it."""
    return [video[:, :, :1], *video[:, :, 1:].split(4, dim=2)]


def test_a_clip_that_arrives_group_by_group_gives_the_latents_of_the_whole(codec: VideoCodec):
    video = clips(2, frames=13)
    state: VideoState | None = None
    latents = []
    for group in groups(video):
        latent, state = codec.encode_next(group, state)
        latents.append(latent)
    torch.testing.assert_close(torch.cat(latents, dim=2), codec.encode(video), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["wan2.1", "wan2.2"])
def test_the_whole_clip_is_what_the_library_encodes(kind: str):
    codec, video = wan(kind), clips(2, frames=13)
    with torch.no_grad():
        mean = codec.vae.encode(video).latent_dist.mode()
    shift, scale = (torch.tensor(codec.vae.config[key])[:, None, None, None] for key in ("latents_mean", "latents_std"))
    torch.testing.assert_close(codec.encode(video), (mean - shift) / scale, rtol=0, atol=1e-6)


def test_clips_in_turns_do_not_see_each_other(codec: VideoCodec):
    first, second = groups(clips(1, seed=1)), groups(clips(1, seed=2))
    alone = codec.encode(torch.cat(first, dim=2))
    state: VideoState | None = None
    other: VideoState | None = None
    latents = []
    for mine, theirs in zip(first, second, strict=True):
        latent, state = codec.encode_next(mine, state)
        latents.append(latent)
        _, other = codec.encode_next(theirs, other)
    torch.testing.assert_close(torch.cat(latents, dim=2), alone, rtol=0, atol=1e-6)


def test_clips_at_the_same_place_join_along_the_batch(codec: VideoCodec):
    videos = [clips(1, seed=1), clips(1, seed=2)]
    states = []
    for video in videos:
        _, state = codec.encode_next(groups(video)[0])
        states.append(codec.encode_next(groups(video)[1], state)[1])
    joined = tuple(torch.cat(tensors) for tensors in zip(*states, strict=True))
    latent, _ = codec.encode_next(torch.cat([groups(video)[2] for video in videos]), joined)
    alone = torch.cat([codec.encode(video)[:, :, 2:] for video in videos])
    torch.testing.assert_close(latent, alone, rtol=0, atol=1e-5)


def test_groups_of_another_size_are_refused(codec: VideoCodec):
    with pytest.raises(ValueError, match="5 frames begin a clip, expected 1"):
        codec.encode_next(clips(1, frames=5))
    _, state = codec.encode_next(clips(1, frames=1))
    with pytest.raises(ValueError, match="3 frames go on with a clip, expected 4"):
        codec.encode_next(clips(1, frames=3), state)


@pytest.mark.parametrize("kind", ["wan2.1", "wan2.2"])
def test_the_encoder_is_one_graph(kind: str):
    """`fullgraph` raises at anything that is not a tensor program, such as a string among the features."""
    codec, video = wan(kind), clips(1)
    plain = codec.encode(video)
    codec.compile(backend="eager")
    torch.testing.assert_close(codec.encode(video), plain, rtol=0, atol=1e-5)


def test_an_encoder_that_does_not_compile_runs_as_it_is(caplog: pytest.LogCaptureFixture):
    def refuse(*_: Any) -> Any:
        raise RuntimeError("no compiler here")

    codec, video = wan("wan2.1"), clips(1)
    plain = codec.encode(video)
    codec.compile(backend=refuse)
    assert torch.equal(codec.encode(video), plain)
    (message,) = [record.message for record in caplog.records if record.name == "lerobot_wam.codecs.wan_vae"]
    assert "the video encoder is not compiled" in message
    assert message.endswith("it runs as it is")
