"""Tokens of a policy's sequences, and the memory that they and its weights need.

The rule, in bytes, with P parameters in the network, T of them trained, w bytes for one stored weight and a bytes for
one activation (2 under bfloat16, else 4):

- weights: P w; a weight average that is kept: P w again
- training: 3 T w for the gradient and AdamW's two moments; with autocast, 2 T for the cast copies. Adapters are float32
  whatever the network is, and a network that is trained whole is taken to be
- activations per window: of each block, L tokens x (18 D + 2 F) for what the backward pass reads: inputs and outputs of
  two norms, three modulations, q, k, v, attention and projection twice, and the feed-forward layer's two. With gradient
  checkpointing, only the L x D input of each block, and all of that for one block
- attention mask: L x S x (1 + a), as booleans and as what is added
- acting: keys and values of the window's frames, of the text and of the picture that starts the window, 2 x blocks x
  tokens x D x a, twice with guidance
- frozen components: their files' sizes; the text encoder is counted apart, as it lives on the CPU

It leaves out the CUDA context (about 0.5 GB), the allocator's slack, and the codecs' own activations.
"""

import math
from dataclasses import dataclass

from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.embodiments.spec import EmbodimentSpec

LORA_RANK = 16
"""LeRobot's default of `--peft.r`."""
CLIP_TOKENS = 257
"""Of a picture in CLIP's ViT-H/14: 16 x 16 patches and the class."""


@dataclass(frozen=True)
class Geometry:
    """Sizes of what one robot's pictures become.

    Attributes:
        view: Height and width of one camera's cell, in pixels.
        picture: Of all cells together.
        network_picture: What the video codec reads.
        latent: Height and width of a latent frame.
        frame_tokens: Tokens of a latent frame.
        window_frames: Latent frames in a full window, the conditioning one included.
        pixel_frames: Video frames in it.
        training_tokens: Sequence of a training window: clean past, noisy video, actions, states (spec §1.4).
        chunk_tokens: Sequence of one denoising step when acting.
        cached_tokens: The observed frames that it looks back at, at most.
    """

    view: tuple[int, int]
    picture: tuple[int, int]
    network_picture: tuple[int, int]
    latent: tuple[int, int]
    frame_tokens: int
    window_frames: int
    pixel_frames: int
    training_tokens: int
    chunk_tokens: int
    cached_tokens: int


def geometry(config: WAMConfig, spec: EmbodimentSpec | None) -> Geometry:
    """Return the sizes for one robot; without one, for a single camera."""
    rows, columns = (1, 1) if spec is None else spec.grid
    height, width = config.image_size
    picture = (rows * height, columns * width)
    latent = config.latent_size((rows, columns))
    tokens = math.prod(latent) // config.patch_size**2
    model = config.model_config
    frames, chunks, per_chunk = model.max_frames, config.max_chunks, model.frames_per_chunk
    steps = config.chunk_steps + model.states_per_chunk
    noisy = frames if config.first_frame_loss else frames - 1
    return Geometry(
        view=(height, width),
        picture=picture,
        network_picture=config.head_resize or picture,
        latent=latent,
        frame_tokens=tokens,
        window_frames=frames,
        pixel_frames=len(config.observation_delta_indices),
        training_tokens=(frames - per_chunk + noisy) * tokens + chunks * steps,
        chunk_tokens=per_chunk * tokens + steps,
        cached_tokens=(frames - per_chunk) * tokens,
    )


def adapter_parameters(config: WAMConfig, rank: int = LORA_RANK) -> int:
    """Parameters of LoRA where a policy has it by default: q, k, v, o of both attentions and the feed-forward pair."""
    return rank * config.num_layers * (8 * 2 * config.dim + 2 * (config.dim + config.ffn_dim))


def memory(
    config: WAMConfig, sizes: Geometry, parameters: int, robot_parameters: int, frozen: int
) -> dict[str, dict[str, int]]:
    """Return the bytes that acting and each way of training need on the device, by what needs them.

    Args:
        config: The policy's.
        sizes: Of its robot's sequences.
        parameters: Of the network, without a weight average.
        robot_parameters: Those of the robots' encoders and decoders.
        frozen: Bytes of the video and image codec.
    """
    weight = 2 if config.weights_dtype == "bfloat16" else 4
    number = 2 if "bfloat16" in (config.dtype, config.weights_dtype) else 4
    length, dim, blocks = sizes.training_tokens, config.dim, config.num_layers
    block = length * (18 * dim + 2 * config.ffn_dim) * number
    mask = length * length * (1 + number)
    kept = {"checkpointed": blocks * length * dim * number + block + mask, "plain": blocks * block + mask}
    branches = 1 if config.guidance_scale == 1 else 2
    context = config.text_length + (CLIP_TOKENS if config.image_codec == "clip" else 0)
    remembered = sizes.cached_tokens + sizes.chunk_tokens + context
    cache = 2 * blocks * remembered * dim * number * branches
    chunk = sizes.chunk_tokens * (18 * dim + 2 * config.ffn_dim) * number
    adapters = adapter_parameters(config) + robot_parameters
    modes = {"full": parameters, "lora": adapters, "heads": robot_parameters}

    needs = {"act": {"weights": parameters * weight, "states": cache, "activations": chunk, "frozen": frozen}}
    for mode, trained in modes.items():
        base, width = 4 if mode == "full" else weight, weight if mode == "heads" else 4
        # Adapters come on top of a network that keeps no average.
        average = parameters * base if mode == "full" and config.ema_decay > 0 else 0
        extra = adapter_parameters(config) * width if mode == "lora" else 0
        copies = 2 * trained if width > number else 0
        checkpointed = config.gradient_checkpointing
        needs[mode] = {
            "weights": parameters * base + average + extra,
            "states": 3 * trained * width + copies,
            "activations": kept["checkpointed" if checkpointed else "plain"],
            "other_activations": kept["plain" if checkpointed else "checkpointed"],
            "frozen": frozen,
        }
    return needs
