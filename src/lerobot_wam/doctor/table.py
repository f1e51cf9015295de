"""Memory of one GPU for every preset, way of training and way of spreading it over GPUs.

On one GPU the rule is that of `memory`. With P parameters, T of them trained, on N GPUs:

- DDP: every GPU holds all of it, and 4 T more, the buckets in which gradients are averaged
- FSDP: 4 P / N for the weights, 8 T / N for AdamW's moments, and 4 G / N for gradients. G counts every block that has a
  trained parameter, as a block's gradient is stored whole: P for adapters too. On top, what is gathered for a while:
  two blocks, all that is outside the blocks, and the gradient of one block, in the type of the computation
- activations and frozen components: on every GPU, as on one

An average of the weights is counted where the preset keeps one, but not under FSDP, which refuses it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import dedent

import torch

from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.doctor.checkup import PUBLISHED
from lerobot_wam.doctor.memory import adapter_parameters, geometry, memory
from lerobot_wam.embodiments.spec import load_embodiment
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.presets import PRESETS
from lerobot_wam.terminal import table
from lerobot_wam.weights import is_per_robot

MODES = {"full": "everything", "lora": "LoRA, rank 16", "heads": "robots' parts"}
SHARDS = (8, 16)
ROBOTS = {"nano": "wam_sim_viperx"}
"""Whose pictures are counted; of the others, DROID's three cameras."""


@dataclass(frozen=True)
class Row:
    """Bytes of one GPU.

    Attributes:
        preset: Name of the preset.
        mode: "full", "lora" or "heads".
        single: Alone.
        ddp: As one of several copies.
        fsdp: By the number of GPUs that share the weights.
    """

    preset: str
    mode: str
    single: int
    ddp: int
    fsdp: dict[int, int]


def rows() -> Iterator[Row]:
    """Compute the table: one window a GPU, gradient checkpointing as in the preset, text encoder on the CPU."""
    for preset in PRESETS:
        config = WAMConfig(preset=preset, device="cpu")
        if config.dtype == "bfloat16":
            config.weights_dtype = "bfloat16"  # of a network that is not trained whole
        with torch.device("meta"):
            network = WorldActionModel(config.model_config)
        total = sum(p.numel() for p in network.parameters())
        in_blocks = sum(p.numel() for p in network.blocks.parameters())
        robots = sum(p.numel() for name, p in network.named_parameters() if is_per_robot(name))
        # The video autoencoder keeps float32.
        frozen = 4 * PUBLISHED.get(config.video_codec, (0,))[0] + 2 * PUBLISHED.get(config.image_codec, (0,))[0]
        sizes = geometry(config, load_embodiment(ROBOTS.get(preset, "oxe_droid")))
        needs = memory(config, sizes, total, robots, frozen)
        number = 2 if config.dtype == "bfloat16" else 4
        block, outside = in_blocks // config.num_layers, total - in_blocks
        for mode in MODES:
            parts = {key: value for key, value in needs[mode].items() if key != "other_activations"}
            trained = {"full": total, "lora": adapter_parameters(config) + robots, "heads": robots}[mode]
            adapters = adapter_parameters(config) if mode == "lora" else 0
            graded = outside if mode == "heads" else total + adapters
            gathered = number * (outside + (2 if mode == "heads" else 3) * block)
            shared = 4 * (total + adapters + graded) + 8 * trained
            fixed = gathered + parts["activations"] + parts["frozen"]
            alone = sum(parts.values())
            yield Row(preset, mode, alone, alone + 4 * trained, {n: shared // n + fixed for n in SHARDS})


def as_text() -> str:
    """The table with a line on what it assumes."""
    head = ("preset", "trained", "1 GPU", "DDP", *(f"FSDP over {n}" for n in SHARDS))
    lines = [head]
    for row in rows():
        sizes = (row.single, row.ddp, *row.fsdp.values())
        lines.append((row.preset, MODES[row.mode], *(f"{size / 1e9:.3g} GB" for size in sizes)))
    text = dedent("\n".join(table(lines, "<<>>" + ">" * len(SHARDS))))
    return "\n".join([text, "", "estimate for one window a GPU; without the CUDA context and the codecs' activations"])
