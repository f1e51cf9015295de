"""The diffusion transformer's layers, with the tensor names of the original Wan release (spec §1.2, §1.3).

Shape suffixes: B batch, L tokens, S cached tokens, D width, H heads, K head width, G time slots, P rotary pairs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot_wam.model.exchange import TokenExchange
from lerobot_wam.model.layout import Segment
from lerobot_wam.model.rope import rotate

Readable = Tensor | tuple[Segment, ...]
"""Which keys the new tokens may read: a mask [L, S] or [B, 1, L, S], or one range of keys for each run of queries."""


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

    fused_weight: Tensor | None
    fused_bias: Tensor | None

    def __init__(self, dim: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.exchange: TokenExchange | None = None  # with processes that hold other tokens
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)
        # Of q, k and v as one product, see `fuse`; neither trained nor saved.
        self.register_buffer("fused_weight", None, persistent=False)
        self.register_buffer("fused_bias", None, persistent=False)

    def fuse(self) -> None:
        """Compute q, k and v as one product outside training.

        Their parameters become views of the product's, so what training or loading changes holds for both.
        """
        parts = (self.q, self.k, self.v)
        self.fused_weight = torch.cat([part.weight.detach() for part in parts])
        self.fused_bias = torch.cat([part.bias.detach() for part in parts])
        views = zip(parts, self.fused_weight.chunk(3), self.fused_bias.chunk(3), strict=True)
        for part, weight, bias in views:
            part.weight.data, part.bias.data = weight, bias

    def project(self, x_BLD: Tensor) -> tuple[Tensor, ...]:
        """Return queries, keys and values, [B, L, D] each."""
        if self.fused_weight is None or self.training:
            return self.q(x_BLD), self.k(x_BLD), self.v(x_BLD)
        return F.linear(x_BLD, self.fused_weight, self.fused_bias).chunk(3, dim=-1)

    def forward(
        self, x_BLD: Tensor, rotation_LP: Tensor, readable: Readable, memory: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Attend to the past followed by the new tokens.

        Args:
            x_BLD: The new tokens.
            rotation_LP: Their rotary positions.
            readable: Which keys they may read.
            memory: Keys and values [B, S, H, K] of the past, then room for the L new tokens', which are written here:
                keys normalised and rotated.
        """
        q_BLD, k_BLD, v_BLD = self.project(x_BLD)
        q_BLHK = rotate(self.norm_q(q_BLD).unflatten(-1, (self.num_heads, -1)), rotation_LP)
        k_BSHK = rotate(self.norm_k(k_BLD).unflatten(-1, (self.num_heads, -1)), rotation_LP)
        v_BSHK = v_BLD.unflatten(-1, (self.num_heads, -1))
        if self.exchange is not None:
            q_BLHK, k_BSHK, v_BSHK = self.exchange.to_heads(q_BLHK, k_BSHK, v_BSHK)
        if memory is not None:
            past = memory[0].shape[1] - k_BSHK.shape[1]
            if k_BSHK.requires_grad:  # what is differentiated must not be overwritten by the next pass
                k_BSHK, v_BSHK = (
                    torch.cat([m[:, :past], new], 1) for m, new in zip(memory, (k_BSHK, v_BSHK), strict=True)
                )
            else:
                memory[0][:, past:], memory[1][:, past:] = k_BSHK, v_BSHK
                k_BSHK, v_BSHK = memory
        q_BHLK, k_BHSK, v_BHSK = (x.transpose(1, 2) for x in (q_BLHK, k_BSHK, v_BSHK))
        if isinstance(readable, Tensor):
            out_BHLK = F.scaled_dot_product_attention(q_BHLK, k_BHSK, v_BHSK, attn_mask=readable)
        else:
            parts = [
                F.scaled_dot_product_attention(q_BHLK[:, :, new], k_BHSK[:, :, read], v_BHSK[:, :, read])
                for new, read in readable
            ]
            out_BHLK = torch.cat(parts, dim=2)
        out_BLHK = out_BHLK.transpose(1, 2)
        if self.exchange is not None:
            out_BLHK = self.exchange.to_tokens(out_BLHK)
        return self.o(out_BLHK.flatten(2))


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

    def read_text(self, text_BTD: Tensor) -> Tensor:
        """Return keys and values of the text, [2, B, T, D]; padding is read too, as officially (spec §1.6)."""
        return torch.stack([self.norm_k(self.k(text_BTD)), self.v(text_BTD)])

    def read_image(self, image_BID: Tensor) -> Tensor:
        """Return keys and values of the image tokens, [2, B, I, D]."""
        return torch.stack([self.norm_k_img(self.k_img(image_BID)), self.v_img(image_BID)])

    def forward(self, x_BLD: Tensor, text_2BTD: Tensor, image_2BID: Tensor | None) -> Tensor:
        """Attend to keys and values of the context."""
        q = self.norm_q(self.q(x_BLD))
        out = self._attend(q, *text_2BTD.unbind())
        if image_2BID is not None:
            out = out + self._attend(q, *image_2BID.unbind())
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
        readable: Readable,
        text: Tensor,
        image: Tensor | None,
        memory: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Return the new hidden states of the L tokens.

        Args:
            x_BLD: The tokens' hidden states.
            time_BG6D: Modulation by noise level, per time slot.
            slot_L: Each token's time slot.
            rotation_LP: Rotary positions.
            readable: Which of the past and new tokens each may read.
            text: Text tokens [B, T, D], or their keys and values [2, B, T, D] where they are kept.
            image: Image tokens [B, I, D], or their keys and values, or None.
            memory: Keys and values of the past with room for the new tokens', see `SelfAttention`.
        """
        modulation_BG6D = self.modulation.unsqueeze(0).to(x_BLD.dtype) + time_BG6D
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation_BG6D[:, slot_L].unbind(2)
        dtype = self.norm3.weight.dtype  # of the weights; x may be kept in float32
        modulated_BLD = (self.norm1(x_BLD) * (1 + scale1) + shift1).to(dtype)
        x_BLD = x_BLD + gate1 * self.self_attn(modulated_BLD, rotation_LP, readable, memory)
        if text.ndim == 3:
            text = self.cross_attn.read_text(text)
        if image is not None and image.ndim == 3:
            image = self.cross_attn.read_image(image)
        x_BLD = x_BLD + self.cross_attn(self.norm3(x_BLD.to(dtype)), text, image)
        return x_BLD + gate2 * self.ffn((self.norm2(x_BLD) * (1 + scale2) + shift2).to(dtype))


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
