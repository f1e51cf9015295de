"""Per-embodiment encoders and decoders of states and actions (spec §1.2, "category-specific linear")."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoid(timestep: Tensor, dim: int) -> Tensor:
    """Embed raw timesteps (0..1000) as [..., dim], the sine half first; exponent -i * ln(10000) / (dim / 2)."""
    half = dim // 2
    exponent = -torch.arange(half, dtype=torch.float32, device=timestep.device) * (math.log(10000.0) / half)
    angle = timestep.float().unsqueeze(-1) * exponent.exp()
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class CategoryLinear(nn.Module):
    """A linear layer with one weight and bias per category, stored [category, in, out]."""

    def __init__(self, num_categories: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(num_categories, in_dim, out_dim))
        self.b = nn.Parameter(torch.empty(num_categories, out_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as the official code does."""
        nn.init.normal_(self.W, std=0.02)
        nn.init.zeros_(self.b)

    def forward(self, x_BTI: Tensor, category_B: Tensor) -> Tensor:
        """Apply each sample's own weights."""
        return torch.baddbmm(self.b[category_B].unsqueeze(1), x_BTI, self.W[category_B])


class CategoryMLP(nn.Module):
    """Two category-specific layers with a ReLU between: the state encoder and the action decoder."""

    def __init__(self, num_categories: int, in_dim: int, hidden: int, out_dim: int) -> None:
        super().__init__()
        self.layer1 = CategoryLinear(num_categories, in_dim, hidden)
        self.layer2 = CategoryLinear(num_categories, hidden, out_dim)

    def forward(self, x_BTI: Tensor, category_B: Tensor) -> Tensor:
        """Map [B, T, in] to [B, T, out]."""
        return self.layer2(F.relu(self.layer1(x_BTI, category_B)), category_B)


class ActionEncoder(nn.Module):
    """Encode noisy actions together with their own timestep."""

    def __init__(self, num_categories: int, action_dim: int, dim: int) -> None:
        super().__init__()
        self.W1 = CategoryLinear(num_categories, action_dim, dim)
        self.W2 = CategoryLinear(num_categories, 2 * dim, dim)
        self.W3 = CategoryLinear(num_categories, dim, dim)

    def forward(self, action_BTA: Tensor, timestep_BT: Tensor, category_B: Tensor) -> Tensor:
        """Map actions [B, T, A] and timesteps [B, T] in 0..1000 to tokens [B, T, D]."""
        action_BTD = self.W1(action_BTA, category_B)
        time_BTD = sinusoid(timestep_BT, action_BTD.shape[-1]).to(action_BTD.dtype)
        return self.W3(F.silu(self.W2(torch.cat([action_BTD, time_BTD], dim=-1), category_B)), category_B)
