"""The joint video-action denoiser: one transformer, trained with teacher forcing, run with a K/V cache.

Shape suffixes: B batch, C channels, F latent frames, h/w latent height and width, N chunks, T action steps, A action
width, L tokens, D model width, G time slots.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lerobot_wam.model.cache import KVCache
from lerobot_wam.model.config import ModelConfig
from lerobot_wam.model.embodiment import ActionEncoder, CategoryMLP
from lerobot_wam.model.exchange import TokenExchange
from lerobot_wam.model.inputs import Context, NoisyWindow
from lerobot_wam.model.layout import (
    Kind,
    SequenceLayout,
    VideoGrid,
    hide_robots,
    may_attend,
    segments,
    step_layout,
    video_layout,
)
from lerobot_wam.model.positions import AbsolutePositions
from lerobot_wam.model.rope import rotations
from lerobot_wam.model.transformer import Block, Head, ImageEmbedding, Readable, time_sinusoid
from lerobot_wam.model.visual_summary import BehaviorCloningHead, VisualSummary


@dataclass(frozen=True)
class _Sequence:
    """A sequence that is fixed by its counts.

    Attributes:
        layout: Its L tokens, on the CPU.
        placed: The same on the model's device.
        rotation: [L, P].
        mask: What they may read of the past and of themselves, [L, past + L].
        readable: The same without a mask where it is made of ranges.
        slot: Time slot of each token: 0 is timestep 0, then the noisy latent frames, then the action steps.
    """

    layout: SequenceLayout
    placed: SequenceLayout
    rotation: Tensor
    mask: Tensor
    readable: Readable
    slot: Tensor


@cache  # without a limit: recorded CUDA graphs go on reading these tensors
def _sequence(
    config: ModelConfig,
    grid: VideoGrid,
    past: int,
    clean: int,
    first_noisy: int,
    noisy: int,
    training: bool,
    device: torch.device,
) -> _Sequence:
    """Lay out `[clean video | noisy video | actions | states]` behind what is cached.

    Args:
        config: Sizes of the model.
        grid: Tokens of a latent frame.
        past: Latent frames in the cache.
        clean: Clean latent frames, from frame `past` on.
        first_noisy: Index of the first noisy latent frame.
        noisy: Number of them; 0 for an observation alone.
        training: Whether this is teacher forcing, where a state never reads anything but itself (spec §3.3).
        device: Where the tensors live.
    """
    per_chunk, per_action, per_state = config.frames_per_chunk, config.actions_per_chunk, config.states_per_chunk
    layout = video_layout(Kind.CLEAN_VIDEO, past, clean, grid, per_chunk)
    slots = [torch.zeros(len(layout), dtype=torch.int64)]
    if noisy:
        block, blocks = max(first_noisy - 1, 0) // per_chunk, noisy // per_chunk
        seen = noisy if config.imagines else 0
        layout += video_layout(Kind.NOISY_VIDEO, first_noisy, seen, grid, per_chunk)
        layout += step_layout(Kind.ACTION, block, blocks, per_action)
        layout += step_layout(Kind.STATE, block, blocks, per_state)
        first, last = 1 + noisy, 1 + noisy + blocks * per_action
        slots += [torch.arange(1, 1 + seen).repeat_interleave(grid.tokens), torch.arange(first, last)]
        # A state is modulated like the first action of its chunk (spec §1.6).
        slots.append(torch.arange(first, last, per_action // per_state))
    keys = video_layout(Kind.CLEAN_VIDEO, 0, past, grid, per_chunk) + layout
    mask = may_attend(layout, keys, config.state_self_only or training)
    placed, ranges = layout.to(device), segments(mask)
    mask = mask.to(device)
    return _Sequence(
        layout,
        placed,
        rotations(placed, config.head_dim),
        mask,
        mask if ranges is None else ranges,
        torch.cat(slots).to(device),
    )


class WorldActionModel(nn.Module):
    """Velocity of video latents and actions, given the observed past, text, state and embodiment."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.exchange: TokenExchange | None = None
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

    def split_tokens(self, exchange: TokenExchange) -> None:
        """Compute a share of every pass's tokens from now on, and keep a share of the heads' keys and values."""
        layers: list[Any] = [block.self_attn for block in self.blocks]
        for module in (self, *layers):
            module.exchange = exchange

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
        context = self.embed_text(text_BTX)
        return context if image_BIC is None else self.with_image(context, image_BIC)

    def embed_text(self, text_BTX: Tensor) -> Context:
        """Embed what stays fixed over a task: the tokens of the text codec [B, T, text_dim], zero at padding."""
        text_BTX = text_BTX.to(self.dtype)
        has_summary = self.config.visual_summary is not None
        pooled = self.visual_summary.pool_text(text_BTX) if has_summary else None
        return Context(self.text_embedding(text_BTX), pooled)

    def with_image(self, context: Context, image_BIC: Tensor) -> Context:
        """Return the context with the tokens of a window's first frame, [B, I, image_dim]."""
        return replace(context, image=self.img_emb(image_BIC.to(self.dtype)), image_kv=None)

    def remember(self, context: Context) -> Context:
        """Return the context with every layer's keys and values of it, so that no pass makes them again."""
        layers: list[Any] = [block.cross_attn for block in self.blocks]
        text_kv, image_kv = context.text_kv, context.image_kv
        if text_kv is None:
            text_kv = torch.stack([layer.read_text(context.text) for layer in layers])
        if context.image is not None and image_kv is None:
            image_kv = torch.stack([layer.read_image(context.image) for layer in layers])
        return replace(context, text_kv=text_kv, image_kv=image_kv)

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
            Velocities of `window.video` [B, C, F, h, w], zero where the network imagines none, and of `window.action`
            [B, T, A].
        """
        first_noisy = 1 - window.video.shape[2] % self.config.frames_per_chunk
        return self._denoise(window, context, None, clean_BCFhw, clean_condition, first_noisy)

    def denoise(
        self,
        window: NoisyWindow,
        context: Context,
        cache: KVCache,
        observed_BCFhw: Tensor | None = None,
        observed_condition: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Denoise the chunk that follows the cached frames, and those observed since, which one launch can write too.

        Args:
            window: The noisy chunk.
            context: Text and image tokens.
            cache: What was observed before; it keeps its value.
            observed_BCFhw: Latents observed since. Their keys and values are written behind the cached ones, where the
                cache must have room (`with_room`); `observed` then returns the cache with them.
            observed_condition: First-frame conditioning channels of these.

        Returns:
            Velocities of `window.video` [B, C, F, h, w] and of `window.action` [B, T, A].
        """
        seen = 0 if observed_BCFhw is None else observed_BCFhw.shape[2]
        return self._denoise(window, context, cache, observed_BCFhw, observed_condition, cache.frames + seen)

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
        cache = self.new_cache(latent_BCFhw) if cache is None else self.with_room(cache, latent_BCFhw)
        self.observe(latent_BCFhw, context, cache, condition)
        return self.observed(cache, latent_BCFhw)

    def new_cache(self, latent_BCFhw: Tensor, preallocate: bool = True) -> KVCache:
        """Return an empty cache for latents like these, see `KVCache.empty`."""
        grid, device = self._grid(latent_BCFhw), latent_BCFhw.device
        shares = 1 if self.exchange is None else self.exchange.size
        return KVCache.empty(self.config, grid, len(latent_BCFhw), self.dtype, device, preallocate, shares)

    def with_room(self, cache: KVCache, latent_BCFhw: Tensor) -> KVCache:
        """Return the cache with free room for observed latents and the noisy tokens of the chunk behind them."""
        config = self.config
        frames = latent_BCFhw.shape[2] + config.frames_per_chunk
        steps = config.actions_per_chunk + config.states_per_chunk
        return cache.with_room(frames * self._grid(latent_BCFhw).tokens + steps)

    def observe(
        self, latent_BCFhw: Tensor, context: Context, cache: KVCache, condition: Tensor | None = None
    ) -> Tensor:
        """Write keys and values of observed latents behind the cached ones; return the last hidden states [B, L, D]."""
        grid, seen = self._grid(latent_BCFhw), self._sequence(cache, latent_BCFhw)
        x_BLD = self._add_positions(self._embed_video(latent_BCFhw, condition), seen.placed, grid)
        time_BG = torch.zeros(x_BLD.shape[0], 1, device=x_BLD.device)
        return self._transform(x_BLD, time_BG, seen, seen.readable, context, cache.extended(seen.layout))[0]

    def observed(self, cache: KVCache, latent_BCFhw: Tensor) -> KVCache:
        """Return the cache that a pass leaves which wrote these latents. Nothing is computed."""
        return cache.extended(self._sequence(cache, latent_BCFhw).layout).keep()

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

    def _sequence(self, cache: KVCache, latent_BCFhw: Tensor) -> _Sequence:
        """Lay out an observation behind what is cached."""
        past, frames = cache.frames, latent_BCFhw.shape[2]
        expected = self.config.frames_per_chunk if past else 1
        if frames % expected or frames == 0 or (not past and frames != 1):
            raise ValueError(
                f"{frames} latent frames cannot enter a cache of {past}: expected "
                f"{f'a multiple of {expected}' if past else 'frame 0 alone'}."
            )
        grid = self._grid(latent_BCFhw)
        return _sequence(self.config, grid, past, frames, past + frames, 0, False, latent_BCFhw.device)

    def _denoise(
        self,
        window: NoisyWindow,
        context: Context,
        cache: KVCache | None,
        clean_BCFhw: Tensor | None,
        clean_condition: Tensor | None,
        first_noisy: int,
    ) -> tuple[Tensor, Tensor]:
        """Run `[clean | noisy video | actions | states]`; `first_noisy` is the index of the first noisy frame."""
        config, grid = self.config, self._grid(window.video)
        clean_frames, noisy_frames = 0 if clean_BCFhw is None else clean_BCFhw.shape[2], window.video.shape[2]
        past, device = 0 if cache is None else cache.frames, window.video.device
        sequence = _sequence(config, grid, past, clean_frames, first_noisy, noisy_frames, cache is None, device)
        readable = sequence.readable
        if window.has_robot is not None:
            readable = hide_robots(sequence.mask, sequence.placed, window.has_robot)
        imagined_frames = noisy_frames if config.imagines else 0
        action_BTD = self.action_encoder(window.action.to(self.dtype), window.action_timestep, window.category)
        state_BND = self.state_encoder(window.state.to(self.dtype), window.category)
        parts = [action_BTD, state_BND]
        if window.summary is not None:
            parts[0] = action_BTD + window.summary.repeat_interleave(config.actions_per_chunk, dim=1)
        if config.imagines:
            video_BLD = self._embed_video(window.video, window.condition)
            if window.summary is not None:
                chunk_frames = config.frames_per_chunk * window.summary.shape[1]
                extra = noisy_frames - chunk_frames  # frame 0, which belongs to no chunk
                summary = window.summary.repeat_interleave(config.frames_per_chunk * grid.tokens, dim=1)
                video_BLD = video_BLD + nn.functional.pad(summary, (0, 0, extra * grid.tokens, 0))
            parts.insert(0, video_BLD)
        if clean_BCFhw is not None:
            parts.insert(0, self._embed_video(clean_BCFhw, clean_condition))
        x_BLD = self._add_positions(torch.cat(parts, dim=1), sequence.placed, grid)
        time_BG = torch.cat(
            [torch.zeros_like(window.video_timestep[:, :1]), window.video_timestep, window.action_timestep],
            dim=1,
        )
        memory = None if cache is None else cache.extended(sequence.layout)
        x_BLD, time_BGD = self._transform(x_BLD, time_BG, sequence, readable, context, memory)
        first = clean_frames * grid.tokens
        noisy = slice(first, first + imagined_frames * grid.tokens)
        if config.imagines:
            video = self.read_video(x_BLD[:, noisy], time_BGD[:, sequence.slot[noisy]], grid)
        else:
            video = torch.zeros_like(window.video)
        actions = slice(noisy.stop, noisy.stop + window.action.shape[1])
        return video, self.action_decoder(x_BLD[:, actions].to(self.dtype), window.category)

    def _transform(
        self,
        x_BLD: Tensor,
        time_BG: Tensor,
        sequence: _Sequence,
        readable: Readable,
        context: Context,
        memory: KVCache | None,
    ) -> tuple[Tensor, Tensor]:
        """Run all blocks; return hidden states and time embeddings [B, G, D]."""
        time_BGD = self.time_embedding(time_sinusoid(time_BG, self.config.freq_dim).to(self.dtype))
        time_BG6D = self.time_projection(time_BGD).unflatten(2, (6, -1))
        if not self.training:
            # Guidance multiplies rounding: with bfloat16 weights, sums over the blocks are kept in float32. Training
            # would pay for that with twice the stored activations.
            x_BLD = x_BLD.float()
        text = context.text if context.text_kv is None else context.text_kv
        image = context.image if context.image_kv is None else context.image_kv
        slot_L, rotation_LP = sequence.slot, sequence.rotation
        if self.exchange is not None:
            x_BLD, slot_L, rotation_LP = self.exchange.scatter(x_BLD, slot_L, rotation_LP)
        for index, block in enumerate(self.blocks):
            args = (
                x_BLD,
                time_BG6D,
                slot_L,
                rotation_LP,
                readable,
                text if text.ndim == 3 else text[index],
                image if image is None or image.ndim == 3 else image[index],
                None if memory is None else memory.memory(index),
            )
            x_BLD = (
                checkpoint(block, *args, use_reentrant=False)
                if self.gradient_checkpointing and self.training
                else block(*args)
            )
        return x_BLD if self.exchange is None else self.exchange.gather(x_BLD), time_BGD
