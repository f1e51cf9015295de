"""What a pass of the network computes and reads, from its shapes alone.

A linear layer of m tokens from k to n numbers costs 2 m k n FLOP, attention of L queries to S keys 4 L S D. Norms,
activations, modulation and rotations are left out: they are what a fused kernel hides. Bytes are those that a pass
cannot avoid reading: every weight it uses once, and the cached keys and values of every row.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lerobot_wam.model.config import ModelConfig


@dataclass(frozen=True)
class Cost:
    """Work of one pass or of several.

    Attributes:
        flops: Floating-point operations; a multiplication and an addition are two.
        bytes: Read from memory.
    """

    flops: float
    bytes: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class PassShape:
    """The sequence of one pass.

    Attributes:
        frame_tokens: Tokens of a latent frame.
        past: Latent frames in the cache.
        observed: Latent frames that the pass writes into it; with `noisy`, the fused pass.
        noisy: Whether it denoises a chunk.
        context: Text and image tokens.
        remembered: Whether their keys and values are kept from an earlier pass.
        rows: Batch: robots, twice with guidance.
    """

    frame_tokens: int
    past: int
    observed: int
    noisy: bool
    context: int
    remembered: bool = True
    rows: int = 1


def pass_cost(config: ModelConfig, shape: PassShape, weight_bytes: float = 2, number_bytes: float = 2) -> Cost:
    """Cost of one pass.

    Args:
        config: Sizes of the network.
        shape: The pass.
        weight_bytes: Of one weight of the blocks; 1 for FP8 and int8, 0.5 for int4.
        number_bytes: Of every other number.
    """
    dim, layers = config.dim, config.num_layers
    clean, video, steps, states = _tokens(config, shape)
    past, noisy = shape.past * shape.frame_tokens, video + steps + states
    alone = states if config.state_self_only else 0  # these queries read one key each
    pairs = clean * (past + clean) + (noisy - alone) * (past + clean + noisy) + alone
    attention = 4 * dim * layers * (pairs + (clean + noisy) * shape.context)
    linear = sum(2 * tokens * size * repeats for tokens, size, repeats in _linears(config, shape))
    read = sum(
        size * repeats * (weight_bytes if repeats > 1 else number_bytes)
        for tokens, size, repeats in _linears(config, shape)
        if tokens
    )
    cached = 2 * layers * dim * (past + shape.context * shape.remembered) * number_bytes
    return Cost(shape.rows * (linear + attention), read + shape.rows * cached)


def _tokens(config: ModelConfig, shape: PassShape) -> tuple[int, int, int, int]:
    """Clean video, noisy video, action and state tokens."""
    clean, noisy = shape.observed * shape.frame_tokens, int(shape.noisy)
    video = config.frames_per_chunk * shape.frame_tokens
    return clean, noisy * video * config.imagines, noisy * config.actions_per_chunk, noisy * config.states_per_chunk


def _linears(config: ModelConfig, shape: PassShape) -> Iterator[tuple[int, int, int]]:
    """Tokens, weights, and layers of every linear map, in the order of the forward pass."""
    dim, layers, hidden = config.dim, config.num_layers, config.action_hidden
    clean, video, steps, states = _tokens(config, shape)
    pixels, tokens = config.patch[1] * config.patch[2], clean + video + steps + states
    slots = 1 + (config.frames_per_chunk + steps if shape.noisy else 0)  # noise levels; one is that of clean tokens
    yield clean + video, (config.latent_channels + config.condition_channels) * pixels * dim, 1
    yield slots, (config.freq_dim + dim + 6 * dim) * dim, 1
    yield steps, (config.action_dim + 2 * dim + dim) * dim, 1
    yield states, (config.state_dim + dim) * hidden, 1
    yield tokens, 4 * dim * dim + 2 * dim * dim + 2 * dim * config.ffn_dim, layers  # self, cross, feed-forward
    if not shape.remembered:
        yield shape.context, 2 * dim * dim, layers
    yield video, dim * config.latent_channels * pixels, 1
    yield steps, (dim + config.action_dim) * hidden, 1
