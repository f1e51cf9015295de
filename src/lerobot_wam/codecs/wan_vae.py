"""Wan's video autoencoder behind the codec protocol: normalised latents, causal in time (spec §1.7)."""

from typing import Any

import torch
from torch import Tensor

from lerobot_wam.codecs.video import TEMPORAL_STRIDE, VideoCodec


class WanVAECodec(VideoCodec):
    """Latents = (posterior mean - mean) / std with Wan's constants per channel; nothing is sampled.

    Every call starts with an empty causal cache, so clips never see each other.

    Args:
        vae: diffusers' `AutoencoderKLWan`, of Wan2.1 (16 channels, 8 x 8 pixels a cell) or of Wan2.2 (48, 16 x 16);
            frozen here.
    """

    temporal_stride = TEMPORAL_STRIDE

    def __init__(self, vae: Any) -> None:  # diffusers is not typed
        self.vae = vae.eval().requires_grad_(False)
        self.latent_channels = vae.config.z_dim
        self.spatial_stride = vae.config.scale_factor_spatial
        self.channel_weight = torch.ones(self.latent_channels)
        self._mean = torch.tensor(vae.config.latents_mean)[:, None, None, None]
        self._std = torch.tensor(vae.config.latents_std)[:, None, None, None]

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Latents [B,C,1+k,h,w] float32 of a clip [B,3,1+4k,H,W] in [-1,1]."""
        self.latent_shape(*video.shape[2:])
        vae = self.vae.to(video.device)
        mode = vae.encode(video.to(vae.dtype)).latent_dist.mode().float()
        return (mode - self._mean.to(mode.device)) / self._std.to(mode.device)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The clip [B,3,1+4k,H,W] float32, clamped to [-1,1], of latents [B,C,1+k,h,w]."""
        vae = self.vae.to(latents.device)
        raw = latents.float() * self._std.to(latents.device) + self._mean.to(latents.device)
        return vae.decode(raw.to(vae.dtype)).sample.float()
