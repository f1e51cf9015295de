"""The joint video-action denoiser: one transformer, trained with teacher forcing, run with a K/V cache.

Shape suffixes: B batch, C channels, F latent frames, h/w latent height and width, N chunks, T action steps, A action
width, L tokens, D model width, G time slots.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lerobot_wam.model.cache import KVCache
from lerobot_wam.model.config import ModelConfig
from lerobot_wam.model.embodiment import ActionEncoder, CategoryMLP
from lerobot_wam.model.layout import Kind, SequenceLayout, VideoGrid, hide_robots, may_attend, step_layout, video_layout
from lerobot_wam.model.positions import AbsolutePositions
from lerobot_wam.model.rope import rotations
from lerobot_wam.model.transformer import Block, Head, ImageEmbedding, time_sinusoid
from lerobot_wam.model.visual_summary import BehaviorCloningHead, VisualSummary


@dataclass(frozen=True)
class Context:
    """What the whole window is conditioned on, embedded to the model's width.

    Attributes:
        text: Text tokens [B, T, D], padding included.
        pooled_text: What the visual summary reads of the text [B, D], or None without one.
        image: First-frame image tokens [B, I, D], or None without an image branch.
    """

    text: Tensor
    pooled_text: Tensor | None
    image: Tensor | None

    @staticmethod
    def stack(contexts: "list[Context]") -> "Context":
        """Join contexts of one model along the batch; a single one is returned as it is."""
        if len(contexts) == 1:
            return contexts[0]
        pooled = [c.pooled_text for c in contexts if c.pooled_text is not None]
        images = [c.image for c in contexts if c.image is not None]
        return Context(
            text=torch.cat([c.text for c in contexts]),
            pooled_text=torch.cat(pooled) if pooled else None,
            image=torch.cat(images) if images else None,
        )

    def pick(self, row: int) -> "Context":
        """Return the context of one batch element, with storage of its own."""
        one = slice(row, row + 1)
        return Context(
            text=self.text[one].clone(),
            pooled_text=None if self.pooled_text is None else self.pooled_text[one].clone(),
            image=None if self.image is None else self.image[one].clone(),
        )


@dataclass(frozen=True)
class NoisyWindow:
    """A window of noisy video and actions with everything that the denoiser reads besides the context.

    Attributes:
        video: Noisy latents [B, C, F, h, w]. In training the window's frames (frame 0 first where it is denoised
            too); at inference the frames of one chunk.
        video_timestep: Noise level per latent frame, [B, F], in 0..1000.
        action: Noisy normalised actions [B, T, A].
        action_timestep: Noise level per action step, [B, T], in 0..1000.
        state: Normalised states [B, N, S].
        category: Index of each sample's embodiment, [B].
        condition: First-frame conditioning channels for the same frames, [B, Cc, F, h, w], or None.
        summary: Visual summary of each chunk [B, N, D], or None.
        has_robot: Samples with a robot's states and actions [B], None for all. Without them, no video token reads
            what `state` and `action` hold.
    """

    video: Tensor
    video_timestep: Tensor
    action: Tensor
    action_timestep: Tensor
    state: Tensor
    category: Tensor
    condition: Tensor | None = None
    summary: Tensor | None = None
    has_robot: Tensor | None = None


@lru_cache(maxsize=64)
def _geometry(
    config: ModelConfig, grid: VideoGrid, past: int, clean: int, noisy: tuple[int, int], device: torch.device
) -> tuple[SequenceLayout, Tensor, Tensor]:
    """Return layout, rotations [L, P] and mask [L, past + L] of a sequence that is fixed by its counts.

    Args:
        config: Sizes of the model.
        grid: Tokens of a latent frame.
        past: Latent frames in the cache.
        clean: Clean latent frames in the sequence, from frame `past` on.
        noisy: First noisy latent frame and number of noisy latent frames; the second is 0 for an observation.
        device: Where the tensors live.
    """
    per_chunk = config.frames_per_chunk
    layout = video_layout(Kind.CLEAN_VIDEO, past, clean, grid, per_chunk)
    first, count = noisy
    if count:
        block, blocks = max(first - 1, 0) // per_chunk, count // per_chunk
        layout += video_layout(Kind.NOISY_VIDEO, first, count, grid, per_chunk)
        layout += step_layout(Kind.ACTION, block, blocks, config.actions_per_chunk)
        layout += step_layout(Kind.STATE, block, blocks, config.states_per_chunk)
    keys = video_layout(Kind.CLEAN_VIDEO, 0, past, grid, per_chunk) + layout
    # Training always masks the state to itself; only the official inference lets it read everything (spec §3.3).
    mask = may_attend(layout, keys, config.state_self_only or clean > 0)
    layout = layout.to(device)
    return layout, rotations(layout, config.head_dim), mask.to(device)


class WorldActionModel(nn.Module):
    """Velocity of video latents and actions, given the observed past, text, state and embodiment."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        dim, eps = config.dim, config.eps
        patch_in = config.latent_channels + config.condition_channels
        self.patch_embedding = nn.Conv3d(patch_in, dim, config.patch, stride=config.patch)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        time_projection = nn.Linear(dim, 6 * dim)
        # It starts small, so that every block starts from its own modulation (gates open).
        nn.init.normal_(time_projection.weight, std=0.02)
        self.time_projection = nn.Sequential(nn.SiLU(), time_projection)
        image_branch = config.image_dim is not None
        if config.image_dim is not None:
            self.img_emb = ImageEmbedding(config.image_dim, dim)
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads, config.ffn_dim, eps, image_branch) for _ in range(config.num_layers)
        )
        patch_out = config.latent_channels * config.patch[1] * config.patch[2]
        self.head = Head(dim, patch_out, eps)
        categories, hidden = config.num_categories, config.action_hidden
        self.state_encoder = CategoryMLP(categories, config.state_dim, hidden, dim)
        self.action_encoder = ActionEncoder(categories, config.action_dim, dim)
        self.action_decoder = CategoryMLP(categories, dim, hidden, config.action_dim)
        if config.absolute_positions:
            self.absolute_positions = AbsolutePositions(config)
        if config.visual_summary is not None:
            self.visual_summary = VisualSummary(
                config.visual_summary, categories, config.state_dim, config.text_dim, dim
            )
        if config.auxiliary_bc:
            self.bc_head = BehaviorCloningHead(categories, dim, hidden, config.actions_per_chunk, config.action_dim)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights. Inputs are cast to it; timesteps are not, as bfloat16 would round them."""
        return self.patch_embedding.weight.dtype

    def embed_context(self, text_BTX: Tensor, image_BIC: Tensor | None = None) -> Context:
        """Embed what stays fixed over a window.

        Args:
            text_BTX: Tokens of the text codec [B, T, text_dim], zero at padded positions.
            image_BIC: Tokens of the first frame [B, I, image_dim]; required exactly when the model has an image
                branch.

        Raises:
            ValueError: If image tokens are missing or superfluous.
        """
        if (image_BIC is None) != (self.config.image_dim is None):
            raise ValueError(
                f"image tokens {'missing' if image_BIC is None else 'given'}, but the model's image_dim is "
                f"{self.config.image_dim}: pass them exactly when image_dim is set."
            )
        has_summary = self.config.visual_summary is not None
        text_BTX = text_BTX.to(self.dtype)
        return Context(
            text=self.text_embedding(text_BTX),
            pooled_text=self.visual_summary.pool_text(text_BTX) if has_summary else None,
            image=None if image_BIC is None else self.img_emb(image_BIC.to(self.dtype)),
        )

    def summarise(
        self,
        frame_BN3HW: Tensor,
        state_BNS: Tensor,
        category_B: Tensor,
        context: Context,
        has_robot_B: Tensor | None = None,
    ) -> Tensor | None:
        """Return the visual summary [B, N, D] of each chunk's first frame and state, None where it is off."""
        if context.pooled_text is None:
            return None
        return self.visual_summary(
            frame_BN3HW.to(self.dtype), state_BNS.to(self.dtype), category_B, context.pooled_text, has_robot_B
        )

    def clone_behavior(self, window: NoisyWindow, context: Context) -> Tensor:
        """Return the auxiliary head's clean actions [B, T, A] for a window with summaries."""
        assert window.summary is not None
        assert context.pooled_text is not None
        state_BND = self.state_encoder(window.state.to(self.dtype), window.category)
        return self.bc_head(window.summary, state_BND, context.pooled_text, window.category)

    def forward(
        self,
        window: NoisyWindow,
        clean_BCFhw: Tensor,
        context: Context,
        clean_condition: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Denoise every chunk of a window at once, each seeing the clean past and itself (teacher forcing).

        Args:
            window: The noisy window of F frames; its last frame is the window's last.
            clean_BCFhw: Clean latents from frame 0 on. The last chunk's clean frames are read by nobody and may
                be left out.
            context: Text and image tokens.
            clean_condition: First-frame conditioning channels of the clean frames.

        Returns:
            Velocities of `window.video` [B, C, F, h, w] and of `window.action` [B, T, A].
        """
        first_noisy = 1 - window.video.shape[2] % self.config.frames_per_chunk
        clean_BLD = self._embed_video(clean_BCFhw, clean_condition)
        return self._denoise(window, context, None, clean_BLD, (clean_BCFhw.shape[2], first_noisy))

    def denoise(self, window: NoisyWindow, context: Context, cache: KVCache) -> tuple[Tensor, Tensor]:
        """Denoise the chunk that follows the cached frames; the cache is only read.

        Returns:
            Velocities of `window.video` [B, C, F, h, w] and of `window.action` [B, T, A].
        """
        return self._denoise(window, context, cache, None, (0, cache.frames))

    def write_observation(
        self,
        latent_BCFhw: Tensor,
        context: Context,
        cache: KVCache | None = None,
        condition: Tensor | None = None,
    ) -> KVCache:
        """Return the cache with observed latents appended, written at timestep 0.

        Args:
            latent_BCFhw: Frame 0 alone for an empty cache, whole chunks afterwards.
            context: Text and image tokens.
            cache: What has been observed in this window so far.
            condition: First-frame conditioning channels of these frames.

        Raises:
            ValueError: If the frames are not a whole observed block (design: only those enter the cache).
        """
        _, new_cache = self.encode_observation(latent_BCFhw, context, cache, condition)
        return new_cache

    def encode_observation(
        self, latent_BCFhw: Tensor, context: Context, cache: KVCache | None, condition: Tensor | None
    ) -> tuple[Tensor, KVCache]:
        """Like `write_observation`, returning the last hidden states [B, L, D] as well."""
        frames, past = latent_BCFhw.shape[2], 0 if cache is None else cache.frames
        expected = 1 if cache is None else self.config.frames_per_chunk
        if frames % expected or frames == 0 or (cache is None and frames != 1):
            raise ValueError(
                f"{frames} latent frames cannot enter a cache of {past}: expected "
                f"{'frame 0 alone' if cache is None else f'a multiple of {expected}'}."
            )
        grid = self._grid(latent_BCFhw)
        layout, rotation, mask = _geometry(self.config, grid, past, frames, (0, 0), latent_BCFhw.device)
        x_BLD = self._add_positions(self._embed_video(latent_BCFhw, condition), layout, grid)
        time_BG = torch.zeros(x_BLD.shape[0], 1, device=x_BLD.device)
        slot_L = torch.zeros(len(layout), dtype=torch.int64, device=x_BLD.device)
        x_BLD, _, keys, values = self._transform(x_BLD, time_BG, slot_L, rotation, mask, context, cache)
        if cache is None:
            return x_BLD, KVCache(keys, values, layout)
        return x_BLD, cache.append(keys, values, layout)

    def read_video(self, x_BLD: Tensor, time_BLD: Tensor, grid: VideoGrid) -> Tensor:
        """Turn video tokens into latents-shaped output [B, C, F, h, w]; patch order is (rows, columns, C)."""
        _, rows, columns = self.config.patch
        out = self.head(x_BLD, time_BLD)
        out = out.unflatten(2, (rows, columns, -1)).unflatten(1, (-1, grid.height, grid.width))
        return out.permute(0, 6, 1, 2, 4, 3, 5).flatten(5).flatten(3, 4)

    def _grid(self, latent_BCFhw: Tensor) -> VideoGrid:
        _, rows, columns = self.config.patch
        return VideoGrid(latent_BCFhw.shape[3] // rows, latent_BCFhw.shape[4] // columns)

    def _embed_video(self, latent_BCFhw: Tensor, condition_BCFhw: Tensor | None) -> Tensor:
        if condition_BCFhw is not None:
            latent_BCFhw = torch.cat([latent_BCFhw, condition_BCFhw], dim=1)
        return self.patch_embedding(latent_BCFhw.to(self.dtype)).flatten(2).transpose(1, 2)

    def _add_positions(self, x_BLD: Tensor, layout: SequenceLayout, grid: VideoGrid) -> Tensor:
        return x_BLD + self.absolute_positions(layout, grid) if self.config.absolute_positions else x_BLD

    def _denoise(
        self,
        window: NoisyWindow,
        context: Context,
        cache: KVCache | None,
        clean_BLD: Tensor | None,
        frames: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """Run `[clean | noisy video | actions | states]`; `frames` = clean frames, index of the first noisy one."""
        config, grid = self.config, self._grid(window.video)
        (clean_frames, first_noisy), noisy_frames = frames, window.video.shape[2]
        past = 0 if cache is None else cache.frames
        device = window.video.device
        layout, rotation, mask = _geometry(config, grid, past, clean_frames, (first_noisy, noisy_frames), device)
        if window.has_robot is not None:
            mask = hide_robots(mask, layout, window.has_robot)
        video_BLD = self._embed_video(window.video, window.condition)
        action_BTD = self.action_encoder(window.action.to(self.dtype), window.action_timestep, window.category)
        state_BND = self.state_encoder(window.state.to(self.dtype), window.category)
        if window.summary is not None:
            chunk_frames = config.frames_per_chunk * window.summary.shape[1]
            extra = noisy_frames - chunk_frames  # frame 0, which belongs to no chunk
            summary = window.summary.repeat_interleave(config.frames_per_chunk * grid.tokens, dim=1)
            video_BLD = video_BLD + nn.functional.pad(summary, (0, 0, extra * grid.tokens, 0))
            action_BTD = action_BTD + window.summary.repeat_interleave(config.actions_per_chunk, dim=1)
        parts = [video_BLD, action_BTD, state_BND]
        x_BLD = torch.cat(parts if clean_BLD is None else [clean_BLD, *parts], dim=1)

        x_BLD = self._add_positions(x_BLD, layout, grid)

        # Slot 0 is timestep 0 (clean video); a state is modulated like the first action of its chunk (spec §1.6).
        time_BG = torch.cat(
            [torch.zeros_like(window.video_timestep[:, :1]), window.video_timestep, window.action_timestep],
            dim=1,
        )
        clean_tokens, steps = clean_frames * grid.tokens, window.action.shape[1]
        first_action = 1 + noisy_frames
        per_state = config.actions_per_chunk // config.states_per_chunk
        slot_L = torch.cat(
            [
                torch.zeros(clean_tokens, dtype=torch.int64, device=device),
                torch.arange(1, first_action, device=device).repeat_interleave(grid.tokens),
                torch.arange(first_action, first_action + steps, device=device),
                torch.arange(first_action, first_action + steps, per_state, device=device),
            ]
        )
        x_BLD, time_BGD, _, _ = self._transform(x_BLD, time_BG, slot_L, rotation, mask, context, cache)
        noisy = slice(clean_tokens, clean_tokens + noisy_frames * grid.tokens)
        video = self.read_video(x_BLD[:, noisy], time_BGD[:, slot_L[noisy]], grid)
        action = self.action_decoder(x_BLD[:, noisy.stop : noisy.stop + steps].to(self.dtype), window.category)
        return video, action

    def _transform(
        self,
        x_BLD: Tensor,
        time_BG: Tensor,
        slot_L: Tensor,
        rotation_LP: Tensor,
        mask: Tensor,
        context: Context,
        cache: KVCache | None,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Run all blocks; return hidden states, time embeddings [B, G, D], and the new tokens' keys and values."""
        time_BGD = self.time_embedding(time_sinusoid(time_BG, self.config.freq_dim).to(self.dtype))
        time_BG6D = self.time_projection(time_BGD).unflatten(2, (6, -1))
        if not self.training:
            # Guidance multiplies rounding: with bfloat16 weights, sums over the blocks are kept in float32. Training
            # would pay for that with twice the stored activations.
            x_BLD = x_BLD.float()
        keys, values = [], []
        for index, block in enumerate(self.blocks):
            past = None if cache is None else (cache.keys[index], cache.values[index])
            args = (x_BLD, time_BG6D, slot_L, rotation_LP, mask, context.text, context.image, past)
            if self.gradient_checkpointing and self.training:
                x_BLD, key, value = checkpoint(block, *args, use_reentrant=False)
            else:
                x_BLD, key, value = block(*args)
            keys.append(key)
            values.append(value)
        return x_BLD, time_BGD, tuple(keys), tuple(values)
