"""Wan's video autoencoder behind the codec protocol: normalised latents, causal in time (spec §1.7)."""

import logging
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from lerobot_wam.codecs.video import TEMPORAL_STRIDE, VideoCodec, VideoState

logger = logging.getLogger(__name__)


class WanVAECodec(VideoCodec):
    """Latents = (posterior mean - mean) / std with Wan's constants per channel; nothing is sampled.

    What the causal convolutions remember of a clip is the caller's `VideoState`, never the module's: clips and robots
    cannot see each other. The state holds tensors alone, so that the encoder compiles to one graph; the library's own
    loop keeps a list on the module, and for the decoder a string in it.

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
        self._mean = torch.tensor(vae.config.latents_mean, device=vae.device)[:, None, None, None]
        self._std = torch.tensor(vae.config.latents_std, device=vae.device)[:, None, None, None]
        self._patch = vae.config.patch_size or 1
        # Each causal convolution has a slot for its last two inputs; those of one frame's reach leave theirs empty.
        self._slots = sum(isinstance(module, nn.Conv3d) for module in vae.encoder.modules())
        self._pass = self._encoder_pass

    def compile(self, **options: Any) -> None:
        """Compile the encoder as one graph for each of its three shapes: first frame, first group, later groups.

        Where the compiler fails, it says so and the encoder runs as it is.

        Args:
            options: For `torch.compile`.
        """
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

        compiled = torch.compile(self._encoder_pass, fullgraph=True, dynamic=False, **options)

        def run(frames: Tensor, state: VideoState) -> tuple[Tensor, VideoState]:
            try:
                return compiled(frames, state)
            except (TorchDynamoException, FailOnRecompileLimitHit) as error:
                reason = str(error).strip().splitlines()[0]
                logger.warning(f"the video encoder is not compiled, {reason}: it runs as it is")
                self._pass = self._encoder_pass
                return self._pass(frames, state)

        self._pass = run

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Latents [B,C,1+k,h,w] float32 of a clip [B,3,1+4k,H,W] in [-1,1]."""
        self.latent_shape(*video.shape[2:])
        latent, state = self.encode_next(video[:, :, :1])
        latents = [latent]
        for first in range(1, video.shape[2], TEMPORAL_STRIDE):
            latent, state = self.encode_next(video[:, :, first : first + TEMPORAL_STRIDE], state)
            latents.append(latent)
        return torch.cat(latents, dim=2)

    @torch.no_grad()
    def encode_next(self, frames: Tensor, state: VideoState | None = None) -> tuple[Tensor, VideoState]:
        """One latent frame [B,C,1,h,w] float32 of the next one or four frames of a clip in [-1,1]; see `VideoCodec`."""
        self._check_group(frames, state)
        self._move_to(frames.device)
        return self._pass(frames.to(self.vae.dtype), state or ())

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The clip [B,3,1+4k,H,W] float32, clamped to [-1,1], of latents [B,C,1+k,h,w]."""
        self._move_to(latents.device)
        raw = latents.float() * self._std + self._mean
        return self.vae.decode(raw.to(self.vae.dtype)).sample.float()

    def _encoder_pass(self, frames: Tensor, state: VideoState) -> tuple[Tensor, VideoState]:
        pixels = rearrange(frames, "b c t (h y) (w x) -> b (c x y) t h w", x=self._patch, y=self._patch)
        features = [*state, *[None] * (self._slots - len(state))]
        hidden = self.vae.encoder(pixels, feat_cache=features, feat_idx=[0])
        mean = self.vae.quant_conv(hidden)[:, : self.latent_channels].float()
        return (mean - self._mean) / self._std, tuple(feature for feature in features if feature is not None)

    def _move_to(self, device: torch.device) -> None:
        if self._mean.device != device:
            self.vae, self._mean, self._std = self.vae.to(device), self._mean.to(device), self._std.to(device)
