"""The diffusion transformer's layers, with the tensor names of the original Wan release (spec §1.2, §1.3).

Shape suffixes: B batch, L tokens, S cached tokens, D width, H heads, K head width, G time slots, P rotary pairs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot_wam.model.rope import rotate


class RMSNorm(nn.Module):
    """Root-mean-square norm over the full width, before the split into heads; computed in fp32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as a plain norm."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        return F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).to(x.dtype) * self.weight


class SelfAttention(nn.Module):
    """Attention over clean video, noisy video, actions and states, with rotary positions and an optional past."""

    def __init__(self, dim: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)

    def forward(
        self, x_BLD: Tensor, rotation_LP: Tensor, mask_LS: Tensor | None, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend to the past followed by the new tokens.

        Returns:
            The output [B, L, D] and the new tokens' keys and values [B, L, H, K], keys normalised and rotated.
        """
        q_BLHK = rotate(self.norm_q(self.q(x_BLD)).unflatten(-1, (self.num_heads, -1)), rotation_LP)
        k_BLHK = rotate(self.norm_k(self.k(x_BLD)).unflatten(-1, (self.num_heads, -1)), rotation_LP)
        v_BLHK = self.v(x_BLD).unflatten(-1, (self.num_heads, -1))
        keys, values = k_BLHK, v_BLHK
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=1), torch.cat([past[1], values], dim=1)
        out_BHLK = F.scaled_dot_product_attention(
            q_BLHK.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask_LS
        )
        return self.o(out_BHLK.transpose(1, 2).flatten(2)), k_BLHK, v_BLHK


class CrossAttention(nn.Module):
    """Attention to text and, where the model has an image branch, to image tokens; the two outputs are added."""

    def __init__(self, dim: int, num_heads: int, eps: float, image_branch: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)
        if image_branch:
            self.k_img = nn.Linear(dim, dim)
            self.v_img = nn.Linear(dim, dim)
            self.norm_k_img = RMSNorm(dim, eps)

    def forward(self, x_BLD: Tensor, text_BTD: Tensor, image_BID: Tensor | None) -> Tensor:
        """Read the context; padded text positions are read too, as in the official model (spec §1.6)."""
        q = self.norm_q(self.q(x_BLD))
        out = self._attend(q, self.norm_k(self.k(text_BTD)), self.v(text_BTD))
        if image_BID is not None:
            out = out + self._attend(q, self.norm_k_img(self.k_img(image_BID)), self.v_img(image_BID))
        return self.o(out)

    def _attend(self, q_BLD: Tensor, k_BTD: Tensor, v_BTD: Tensor) -> Tensor:
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q_BLD, k_BTD, v_BTD))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward; the first and last modulated by each token's noise level."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int, eps: float, image_branch: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.self_attn = SelfAttention(dim, num_heads, eps)
        self.norm3 = nn.LayerNorm(dim, eps)
        self.cross_attn = CrossAttention(dim, num_heads, eps, image_branch)
        self.norm2 = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(ffn_dim, dim))
        # Order: shift, scale, gate of self-attention, then of the feed-forward. Gates start open.
        self.modulation = nn.Parameter(torch.tensor([0.0, 0, 1, 0, 0, 1])[None, :, None].repeat(1, 1, dim))

    def forward(
        self,
        x_BLD: Tensor,
        time_BG6D: Tensor,
        slot_L: Tensor,
        rotation_LP: Tensor,
        mask_LS: Tensor | None,
        text_BTD: Tensor,
        image_BID: Tensor | None,
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the new hidden states and this layer's keys and values of the L tokens."""
        modulation_BG6D = self.modulation.unsqueeze(0).to(x_BLD.dtype) + time_BG6D
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation_BG6D[:, slot_L].unbind(2)
        dtype = self.norm3.weight.dtype  # of the weights; x may be kept in float32
        modulated_BLD = (self.norm1(x_BLD) * (1 + scale1) + shift1).to(dtype)
        attended, key, value = self.self_attn(modulated_BLD, rotation_LP, mask_LS, past)
        x_BLD = x_BLD + gate1 * attended
        x_BLD = x_BLD + self.cross_attn(self.norm3(x_BLD.to(dtype)), text_BTD, image_BID)
        x_BLD = x_BLD + gate2 * self.ffn((self.norm2(x_BLD) * (1 + scale2) + shift2).to(dtype))
        return x_BLD, key, value


class Head(nn.Module):
    """Modulated linear read-out of the video tokens."""

    def __init__(self, dim: int, out_dim: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.head = nn.Linear(dim, out_dim)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.modulation = nn.Parameter(torch.zeros(1, 2, dim))

    def forward(self, x_BLD: Tensor, time_BLD: Tensor) -> Tensor:
        """Map tokens [B, L, D] to patches [B, L, out]; `time_BLD` is the un-projected time embedding."""
        shift, scale = (self.modulation.unsqueeze(1).to(x_BLD.dtype) + time_BLD.unsqueeze(2)).unbind(2)
        return self.head((self.norm(x_BLD) * (1 + scale) + shift).to(self.head.weight.dtype))


class ImageEmbedding(nn.Module):
    """Project image tokens to the model's width; its two LayerNorms use eps 1e-5, unlike the rest (spec §1.2)."""

    def __init__(self, image_dim: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.LayerNorm(image_dim),
            nn.Linear(image_dim, image_dim),
            nn.GELU(),
            nn.Linear(image_dim, dim),
            nn.LayerNorm(dim),
        )

    def forward(self, image_BIC: Tensor) -> Tensor:
        """Map [B, I, image_dim] to [B, I, D]."""
        return self.proj(image_BIC)


def time_sinusoid(timestep: Tensor, dim: int) -> Tensor:
    """Embed raw timesteps (0..1000) as [..., dim] in float64, the cosine half first (spec §1.2)."""
    half = dim // 2
    frequency = torch.arange(half, dtype=torch.float64, device=timestep.device).div(-half)
    angle = timestep.to(torch.float64).unsqueeze(-1) * torch.pow(10000.0, frequency)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)
