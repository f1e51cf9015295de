"""The tokens of a pass, split over several processes (Ulysses sequence parallelism, arXiv:2309.14509).

A process holds its own tokens with all heads, except inside self-attention, where it holds all tokens of its own heads.
Against gathering keys and values: the ranges of keys that a run of queries may read stay as they are, a process caches
1/N of keys and values, and a layer sends 4/N instead of 2 token widths per token.

Shape suffixes: B batch, L all tokens, l own tokens, H all heads, h own heads, K head width, D width.
"""

import torch
import torch.distributed as dist
from torch import Tensor


class TokenExchange:
    """Turns all heads of a process's own tokens into all tokens of its own heads, and back.

    Args:
        group: The processes that the tokens are split over; their number divides that of the heads.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group, self.rank, self.size = group, group.rank(), group.size()
        self.counts: list[int] = []  # tokens of each process in the current pass

    def scatter(self, x_BLD: Tensor, *tokens_L: Tensor) -> list[Tensor]:
        """Return the own tokens of hidden states, and of what else is known of every token; begins a pass."""
        split = [x_BLD.tensor_split(self.size, dim=1), *(x.tensor_split(self.size) for x in tokens_L)]
        self.counts = [part.shape[1] for part in split[0]]
        return [parts[self.rank] for parts in split]

    def to_heads(self, *own_BlHK: Tensor) -> tuple[Tensor, ...]:
        """Give up the other processes' heads of the own tokens [B, l, H, K] for all tokens' own heads [B, L, h, K]."""
        sent = torch.stack(own_BlHK).unflatten(3, (self.size, -1)).permute(3, 2, 0, 1, 4, 5).flatten(0, 1)
        received = self._swap(sent, [self.counts[self.rank]] * self.size, self.counts)
        return received.movedim(0, 2).unbind()

    def to_tokens(self, x_BLhK: Tensor) -> Tensor:
        """Give up all tokens' own heads [B, L, h, K] for all heads of the own tokens [B, l, H, K]."""
        received = self._swap(x_BLhK.transpose(0, 1), self.counts, [self.counts[self.rank]] * self.size)
        return received.unflatten(0, (self.size, -1)).permute(2, 1, 0, 3, 4).flatten(2, 3)

    def gather(self, x_BlD: Tensor) -> Tensor:
        """Return all tokens [B, L, D] of what every process has of its own [B, l, D]."""
        sent = x_BlD.transpose(0, 1).repeat(self.size, 1, 1)
        return self._swap(sent, [self.counts[self.rank]] * self.size, self.counts).transpose(0, 1)

    def _swap(self, sent: Tensor, sent_counts: list[int], received_counts: list[int]) -> Tensor:
        """Send consecutive rows to each process and receive some from each."""
        received = sent.new_empty(sum(received_counts), *sent.shape[1:])
        dist.all_to_all_single(received, sent.contiguous(), received_counts, sent_counts, group=self.group)
        return received
