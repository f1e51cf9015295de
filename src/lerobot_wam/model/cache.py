"""The K/V cache of observed video: a value on preallocated storage. Sessions never share state."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lerobot_wam.model.config import ModelConfig
from lerobot_wam.model.layout import NO_TOKENS, SequenceLayout, VideoGrid
from lerobot_wam.model.rope import rotate, rotations


class _Storage:
    """Room for keys and values [layers, 2, B, capacity, H, K], and how many of its tokens somebody still needs."""

    def __init__(self, kv: Tensor) -> None:
        self.kv, self.used = kv, 0


@dataclass(frozen=True, eq=False)
class KVCache:
    """Keys (normalised and rotated) and values of the clean tokens written so far.

    A value: what a cache holds never changes. Longer caches continue in the same storage, behind the last token, as
    slices of a growing list do; where another cache has already continued there, they move to storage of their own. So
    nothing is copied while one robot observes, and a denoising pass keeps its chunk in the free room for as long as it
    runs.

    Attributes:
        storage: Where the tokens are, and the room behind them.
        layout: Layout of the S cached tokens, on the CPU.
    """

    storage: _Storage
    layout: SequenceLayout = NO_TOKENS

    @staticmethod
    def empty(
        config: ModelConfig,
        grid: VideoGrid,
        batch: int,
        dtype: torch.dtype,
        device: torch.device | str,
        preallocate: bool = True,
        shares: int = 1,
    ) -> "KVCache":
        """Return a cache without tokens.

        Args:
            config: Sizes of the model.
            grid: Tokens of a latent frame.
            batch: Rows B.
            dtype: Of keys and values.
            device: Where they live.
            preallocate: Take the room for a whole window and a chunk's noisy tokens at once; otherwise each pass takes
                what it needs.
            shares: Processes that the heads are split over; the cache holds one's share.
        """
        steps = config.actions_per_chunk + config.states_per_chunk
        tokens = config.max_frames * grid.tokens + steps if preallocate else 0
        heads = (config.num_heads // shares, config.head_dim)
        return KVCache(_Storage(torch.empty(config.num_layers, 2, batch, tokens, *heads, dtype=dtype, device=device)))

    @property
    def keys(self) -> tuple[Tensor, ...]:
        """Per layer, [B, S, H, K]."""
        return self._held(0)

    @property
    def values(self) -> tuple[Tensor, ...]:
        """Per layer, [B, S, H, K]."""
        return self._held(1)

    @property
    def frames(self) -> int:
        """Latent frames in the cache."""
        return int(self.layout.position[-1]) + 1 if len(self.layout) else 0

    @property
    def bytes(self) -> int:
        """Memory of the storage, in bytes."""
        return self.storage.kv.nbytes

    def with_room(self, tokens: int) -> "KVCache":
        """Return the cache with free room for so many tokens behind its last one; moved where there is none."""
        storage, length = self.storage, len(self.layout)
        kv = storage.kv
        if storage.used == length and length + tokens <= kv.shape[3]:
            return self
        roomy = kv.new_empty(*kv.shape[:3], max(length + tokens, kv.shape[3]), *kv.shape[4:])
        roomy[:, :, :, :length] = kv[:, :, :, :length]
        return KVCache(_Storage(roomy), self.layout).keep()

    def extended(self, layout: SequenceLayout) -> "KVCache":
        """Return a cache with these tokens too, whose keys and values a pass is about to write.

        Whoever keeps it calls `keep`; a denoising pass does not, and its tokens are overwritten by the next pass.
        """
        return KVCache(self.with_room(len(layout)).storage, self.layout + layout)

    def keep(self) -> "KVCache":
        """Claim the tokens of `extended`: from now on they stay."""
        self.storage.used = len(self.layout)
        return self

    def emptied(self) -> "KVCache":
        """Return a cache without tokens in this one's storage; this one, and what it continues, are given up."""
        self.storage.used = 0
        return KVCache(self.storage)

    def memory(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return keys and values [B, S, H, K] of one layer, to be read and written."""
        keys, values = self.storage.kv[layer, :, :, : len(self.layout)].unbind(0)
        return keys, values

    def slide(self, config: ModelConfig) -> "KVCache":
        """Return the cache without its oldest chunk: frame 0 stays, what follows moves one chunk towards it.

        Keys are turned back by a chunk's angle, so that positions are exactly those of a window that was written
        without the dropped chunk. Values, and keys before their rotation, are not: they were computed while the
        dropped chunk could still be read. How far that is from recomputation is in `benchmarks/official_fixes.py`.
        The result takes this cache's storage: this one is given up.
        """
        chunk, position = config.frames_per_chunk, self.layout.position
        keep = (position == 0) | (position > chunk)
        kept = self.layout[keep]
        moved = (kept.position > 0).to(torch.int64)
        still = torch.zeros_like(moved)
        kv = self.storage.kv
        turn = rotations(replace(kept, position=-chunk * moved, row=still, column=still), config.head_dim).to(kv.device)
        for layer in kv:  # one at a time: the copies that this takes stay small
            keys, values = (part[:, : len(keep)][:, keep.to(kv.device)] for part in layer)
            layer[0, :, : len(kept)], layer[1, :, : len(kept)] = rotate(keys, turn), values
        moved_layout = replace(kept, position=kept.position - chunk * moved, block=kept.block - moved)
        return KVCache(self.storage, moved_layout).keep()

    def rows(self, which: slice) -> "KVCache":
        """Return some of the batch's rows in the same storage, for passes that only read what is cached."""
        storage = _Storage(self.storage.kv[:, :, which])
        storage.used = self.storage.used
        return KVCache(storage, self.layout)

    @staticmethod
    def stack(caches: "list[KVCache]") -> "KVCache":
        """Join caches of equal layout along the batch; one robot's cache is returned as it is."""
        if len(caches) == 1:
            return caches[0]
        parts, length = [cache.storage.kv for cache in caches], len(caches[0].layout)
        sizes = list(parts[0].shape)
        sizes[2], sizes[3] = sum(kv.shape[2] for kv in parts), max(kv.shape[3] for kv in parts)
        joined = parts[0].new_empty(sizes)
        torch.cat([kv[:, :, :, :length] for kv in parts], dim=2, out=joined[:, :, :, :length])
        return KVCache(_Storage(joined), caches[0].layout).keep()

    def pick(self, rows: slice) -> "KVCache":
        """Return the cache of some of the batch's rows, with storage of its own."""
        return KVCache(_Storage(self.storage.kv[:, :, rows].clone()), self.layout).keep()

    def _held(self, which: int) -> tuple[Tensor, ...]:
        return tuple(self.storage.kv[:, which, :, : len(self.layout)].unbind(0))
