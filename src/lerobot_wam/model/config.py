"""Sizes of the joint video-action diffusion transformer (spec §1.1)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class VisualSummaryConfig:
    """Sizes of the optional visual summary, a convolutional stand-in for a pretrained image encoder.

    Attributes:
        image_size: Height and width that frames are resized to, in pixels.
        channels: Widths of the three stride-2 convolutions.
        points: Places in the picture that the text can point to (soft-argmax maps).
        squeeze: Channels left before the map is flattened.
        hidden: Width of the MLP that reads the flattened map.
    """

    image_size: tuple[int, int] = (64, 64)
    channels: tuple[int, int, int] = (24, 48, 96)
    points: int = 16
    squeeze: int = 24
    hidden: int = 256


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of `WorldActionModel`.

    Attributes:
        dim: Model width D.
        num_heads: Attention heads; `dim / num_heads` must be even.
        num_layers: Transformer blocks.
        ffn_dim: Hidden width of the feed-forward layers.
        freq_dim: Width of the sinusoid that the time embedding reads.
        text_dim: Width of the text codec's tokens.
        latent_channels: Channels of the video latents, before any conditioning channels.
        patch: Latent frames, rows and columns that make one token.
        image_dim: Width of image tokens for cross-attention, or None for no image branch.
        condition_channels: Extra input channels that carry the first frame (mask and latents), 0 for none.
        action_dim: Width of the (padded) action vector.
        state_dim: Width of the (padded) proprioceptive state vector.
        action_hidden: Hidden width of the state encoder and the action decoder.
        num_categories: Embodiments with their own state/action weights.
        frames_per_chunk: Latent frames in one chunk.
        actions_per_chunk: Action steps in one chunk.
        states_per_chunk: Proprioceptive states in one chunk.
        max_chunks: Chunks in one window.
        eps: Epsilon of the transformer's norms.
        state_self_only: The state token attends to itself alone with the cache, as it always does in training.
            False reproduces the official inference, in which it attends to everything (spec §3.3).
        absolute_positions: Add learned absolute positions to every token (nano).
        visual_summary: Sizes of the visual summary, or None for no summary.
        auxiliary_bc: Add the behaviour-cloning head that is used in training only (needs `visual_summary`).
        imagines: Denoise video beside the actions. False leaves the noisy video out of every sequence.
    """

    dim: int
    num_heads: int
    num_layers: int
    ffn_dim: int
    text_dim: int
    latent_channels: int
    action_dim: int
    state_dim: int
    freq_dim: int = 256
    patch: tuple[int, int, int] = (1, 2, 2)
    image_dim: int | None = None
    condition_channels: int = 0
    action_hidden: int = 1024
    num_categories: int = 1
    frames_per_chunk: int = 2
    actions_per_chunk: int = 24
    states_per_chunk: int = 1
    max_chunks: int = 4
    eps: float = 1e-6
    state_self_only: bool = True
    absolute_positions: bool = False
    visual_summary: VisualSummaryConfig | None = None
    auxiliary_bc: bool = False
    imagines: bool = True

    def __post_init__(self) -> None:
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ValueError(
                f"dim {self.dim} must be an even multiple of num_heads {self.num_heads}: "
                "rotary embeddings turn pairs inside a head."
            )
        if self.patch[0] != 1:
            raise ValueError(f"patch[0] is {self.patch[0]}; a token must not span latent frames, use 1.")
        if self.auxiliary_bc and self.visual_summary is None:
            raise ValueError("auxiliary_bc reads the visual summary; set visual_summary or turn it off.")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.num_heads

    @property
    def max_frames(self) -> int:
        """Latent frames in a full window, the conditioning frame included."""
        return 1 + self.frames_per_chunk * self.max_chunks
