"""The K/V cache of observed video: a value object. Appending returns a new cache, so sessions never share state."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lerobot_wam.model.config import ModelConfig
from lerobot_wam.model.layout import SequenceLayout
from lerobot_wam.model.rope import rotate, rotations


@dataclass(frozen=True)
class KVCache:
    """Keys (normalised and rotated) and values of the clean tokens written so far.

    Attributes:
        keys: Per layer, [B, S, heads, head_dim].
        values: Per layer, [B, S, heads, head_dim].
        layout: Layout of the S cached tokens.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    layout: SequenceLayout

    @property
    def frames(self) -> int:
        """Latent frames in the cache."""
        return int(self.layout.position[-1]) + 1

    @property
    def bytes(self) -> int:
        """Memory held by keys and values, in bytes."""
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

    def append(self, keys: tuple[Tensor, ...], values: tuple[Tensor, ...], layout: SequenceLayout) -> "KVCache":
        """Return a cache with the new tokens behind the old ones."""
        return KVCache(
            tuple(torch.cat(pair, dim=1) for pair in zip(self.keys, keys, strict=True)),
            tuple(torch.cat(pair, dim=1) for pair in zip(self.values, values, strict=True)),
            self.layout + layout,
        )

    def slide(self, config: ModelConfig) -> "KVCache":
        """Return the cache without its oldest chunk: frame 0 stays, what follows moves one chunk towards it.

        Keys are turned back by a chunk's angle, so that positions are exactly those of a window that was written
        without the dropped chunk. Values, and keys before their rotation, are not: they were computed while the
        dropped chunk could still be read. How far that is from recomputation is in `benchmarks/official_fixes.py`.
        """
        chunk, position = config.frames_per_chunk, self.layout.position
        keep = (position == 0) | (position > chunk)
        kept = self.layout[keep]
        moved = (kept.position > 0).to(torch.int64)
        still = torch.zeros_like(moved)
        turn = rotations(replace(kept, position=-chunk * moved, row=still, column=still), config.head_dim)
        return KVCache(
            tuple(rotate(k[:, keep], turn) for k in self.keys),
            tuple(v[:, keep] for v in self.values),
            replace(kept, position=kept.position - chunk * moved, block=kept.block - moved),
        )

    @staticmethod
    def stack(caches: "list[KVCache]") -> "KVCache":
        """Join caches of equal layout along the batch; one robot's cache is returned as it is."""
        if len(caches) == 1:
            return caches[0]
        layers = range(len(caches[0].keys))
        return KVCache(
            tuple(torch.cat([c.keys[i] for c in caches]) for i in layers),
            tuple(torch.cat([c.values[i] for c in caches]) for i in layers),
            caches[0].layout,
        )

    def pick(self, row: int) -> "KVCache":
        """Return the cache of one batch element, with storage of its own."""
        return KVCache(
            tuple(k[row : row + 1].clone() for k in self.keys),
            tuple(v[row : row + 1].clone() for v in self.values),
            self.layout,
        )
