"""What a tiny network needs to bind words to places within minutes; off in the official presets.

A small convolutional tower looks at the newest observed frame of each chunk, is modulated by the text, and its
flattened map becomes, together with the robot's state, one vector that is added to all of the chunk's noisy tokens.
It plays the part that a pretrained image encoder plays in the large models. The behaviour-cloning head gives this
path a direct training signal.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot_wam.model.config import VisualSummaryConfig
from lerobot_wam.model.embodiment import CategoryLinear, CategoryMLP

PIXEL_GAIN = 3.0
POINT_GAIN = 3.0
TEXT_GAIN = 2.0


class VisualSummary(nn.Module):
    """Summarise the frame and the state that a chunk starts from, as seen through the instruction."""

    def __init__(
        self, config: VisualSummaryConfig, num_categories: int, state_dim: int, text_dim: int, dim: int
    ) -> None:
        super().__init__()
        self.image_size = config.image_size
        first, second, third = config.channels
        convs = [
            nn.Conv2d(3, first, 5, stride=2, padding=2),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.Conv2d(second, third, 3, stride=2, padding=1),
        ]
        words = [nn.Linear(text_dim, config.hidden), nn.Linear(config.hidden, dim)]
        # The default initialisation shrinks image and text layer by layer, until what differs between two
        # instructions drowns.
        layers: list[nn.Conv2d | nn.Linear] = [*convs, *words]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.convs = nn.ModuleList(convs)
        self.words = nn.Sequential(words[0], nn.GELU(), words[1])
        self.film_points = nn.Linear(dim, 2 * second)
        self.points = nn.Conv2d(second, config.points, 1)
        self.film = nn.Linear(dim, 2 * third)
        self.squeeze = nn.Conv2d(third, config.squeeze, 1)
        # What to do about a cube depends on where the arm is: the MLP below is the first place where the two meet.
        self.posture = CategoryLinear(num_categories, state_dim, dim)
        nn.init.normal_(self.posture.W, std=state_dim**-0.5)
        height, width = (-(-side // 8) for side in config.image_size)
        self.mlp = nn.Sequential(
            nn.Linear(config.squeeze * height * width + 3 * config.points + dim, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, dim),
        )

    def pool_text(self, text_BTX: Tensor) -> Tensor:
        """Sum the text tokens, each through a small MLP, into [B, D]; padded positions (zeros) add nothing."""
        words_BTD = self.words(text_BTX) - self.words(torch.zeros_like(text_BTX[:1, :1]))
        return TEXT_GAIN * F.rms_norm(words_BTD.sum(dim=1), words_BTD.shape[2:], eps=1e-6)

    def forward(
        self,
        frame_BN3HW: Tensor,
        state_BNS: Tensor,
        category_B: Tensor,
        text_BD: Tensor,
        has_robot_B: Tensor | None = None,
    ) -> Tensor:
        """Return one vector per chunk.

        Args:
            frame_BN3HW: The newest observed frame of each of N chunks, pixels in [-1, 1].
            state_BNS: The normalised state at the same moments.
            category_B: Index of each sample's embodiment.
            text_BD: The instruction, from `pool_text`.
            has_robot_B: Samples that have a state; None for all. The others are summarised without.

        Returns:
            Summaries [B, N, D].
        """
        chunks = frame_BN3HW.shape[1]
        x = frame_BN3HW.flatten(0, 1)
        if x.shape[-2:] != self.image_size:
            # In float: on a CPU, torch resizes no bfloat16 with antialiasing.
            x = F.interpolate(x.float(), self.image_size, mode="bilinear", antialias=True).to(x.dtype)
        # What stands out from the picture's mean colour carries the information, not the bright background.
        x = (x - x.mean(dim=(2, 3), keepdim=True)) * PIXEL_GAIN
        x = F.gelu(self.convs[1](F.gelu(self.convs[0](x))))
        text_ED = text_BD.repeat_interleave(chunks, dim=0)
        points = _soft_argmax(POINT_GAIN * self.points(_modulate(x, self.film_points(text_ED))))
        x = F.gelu(self.squeeze(_modulate(F.gelu(self.convs[2](x)), self.film(text_ED))))
        posture_BND = self.posture(state_BNS, category_B)
        if has_robot_B is not None:
            posture_BND = posture_BND * has_robot_B[:, None, None]
        posture_ED = posture_BND.flatten(0, 1)
        return self.mlp(torch.cat([x.flatten(1), points, posture_ED], dim=1)).unflatten(0, (-1, chunks))


def _modulate(x_ECHW: Tensor, film_E2C: Tensor) -> Tensor:
    """Normalise every pixel's channels, then scale and shift them as the text says."""
    normal = F.rms_norm(x_ECHW.movedim(1, -1), x_ECHW.shape[1:2]).movedim(-1, 1)
    scale, shift = film_E2C[..., None, None].chunk(2, dim=1)
    return normal * (1 + scale) + shift


def _soft_argmax(heat_EKHW: Tensor) -> Tensor:
    """Return, per map, where its softmax is centred (x, y in -1..1) and how concentrated it is, [E, 3 K]."""
    height, width = heat_EKHW.shape[2:]
    share_EKL = heat_EKHW.flatten(2).softmax(dim=2)
    y = torch.linspace(-1, 1, height).repeat_interleave(width).to(share_EKL)
    x = torch.linspace(-1, 1, width).repeat(height).to(share_EKL)
    return torch.cat([share_EKL @ x, share_EKL @ y, share_EKL.amax(dim=2)], dim=1)


class BehaviorCloningHead(nn.Module):
    """Predict a chunk's clean normalised actions from summary, state and text; used by the training loss alone."""

    def __init__(self, num_categories: int, dim: int, hidden: int, steps: int, action_dim: int) -> None:
        super().__init__()
        self.steps = steps
        self.mlp = CategoryMLP(num_categories, 3 * dim, hidden, steps * action_dim)

    def forward(self, summary_BND: Tensor, state_BND: Tensor, text_BD: Tensor, category_B: Tensor) -> Tensor:
        """Return actions [B, N * steps, action_dim]."""
        text_BND = text_BD.unsqueeze(1).expand_as(summary_BND)
        features = torch.cat([summary_BND, state_BND, text_BND], dim=-1)
        return self.mlp(features, category_B).unflatten(-1, (self.steps, -1)).flatten(1, 2)
