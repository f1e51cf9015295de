"""Official DreamZero checkpoints and their LoRA fine-tunes (spec §1.3, §2.2)."""

import re
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lerobot_wam.checkpoints.components import TOKENIZER_FILES
from lerobot_wam.checkpoints.foreign import ForeignCheckpoint, network_settings
from lerobot_wam.checkpoints.lazy import LazyTensor, LazyTensors, below, open_safetensors, shard_names
from lerobot_wam.checkpoints.source import Source, read_json
from lerobot_wam.checkpoints.wan import read_diffusers, read_original
from lerobot_wam.embodiments.gear import embodiment_from_gear
from lerobot_wam.embodiments.schema import load_yaml
from lerobot_wam.embodiments.spec import FRAMES_PER_LATENT, LATENTS_PER_CHUNK

UMT5_TOKENIZER = Source("google/umt5-xxl")
_STEM = "model"
_NETWORK = "action_head.model."
_ADAPTED = "base_model.model."  # PEFT wraps the network in two modules of its own
_COMPONENTS = {
    "video_codec": "action_head.vae.model.",
    "text_codec": "action_head.text_encoder.",
    "image_codec": "action_head.image_encoder.model.",
}
_ADAPTER = re.compile(r"(?P<matrix>.+)\.lora_(?P<side>[AB])\.default\.weight")


def read_dreamzero(
    source: Source,
    folder: Path,
    *,
    embed: bool = False,
    base: Source | None = None,
    tokenizer: Source = UMT5_TOKENIZER,
) -> ForeignCheckpoint:
    """Read an official checkpoint, or merge a LoRA fine-tune onto its base.

    Args:
        source: Where it comes from.
        folder: Its folder, so far perhaps with descriptions only.
        embed: Also open the frozen components.
        base: What a LoRA fine-tune was trained on, where it does not hold that itself.
        tokenizer: Where the text encoder's tokenizer is, which the checkpoint does not hold.

    Raises:
        ValueError: A base is missing or superfluous, or is not the one that the fine-tune was trained on.
    """
    prefixes = (_NETWORK, *_COMPONENTS.values()) if embed else (_NETWORK,)
    source.fetch(shard_names(folder, _STEM, prefixes) or [f"{_STEM}.safetensors"])
    stored = open_safetensors(folder, _STEM, prefixes)
    experiment = folder / "experiment_cfg"
    conf_file = experiment / "conf.yaml"
    conf = load_yaml(conf_file.read_text(encoding="utf-8"), str(conf_file)) if conf_file.is_file() else {}
    head = (read_json(folder / "config.json").get("action_head_cfg") or conf["action_head_cfg"])["config"]

    plain: LazyTensors = {}
    adapters: dict[str, LazyTensors] = defaultdict(dict)
    for name, lazy in below(stored, _NETWORK).items():
        path = name.removeprefix(_ADAPTED)
        if adapter := _ADAPTER.fullmatch(path):
            adapters[adapter["matrix"]][adapter["side"]] = lazy
        else:
            plain[path.replace(".base_layer.", ".")] = lazy
    if adapters:
        if not all(f"{matrix}.weight" in plain for matrix in adapters):
            plain = _read_base(base, conf, head, source) | plain
        elif base is not None:
            raise ValueError(f"{source.name} holds its own base: leave --base out")
        plain |= _merge(adapters, plain, head, source)
    elif base is not None:
        raise ValueError(f"{source.name} is a whole checkpoint, no LoRA fine-tune: leave --base out")

    metadata = read_json(experiment / "metadata.json")
    embodiments = {}
    for tag in metadata:
        spec, statistics = embodiment_from_gear(metadata, tag, conf or None)
        embodiments[spec.name] = {"spec": spec.to_dict(), "statistics": statistics.to_dict()}
    components = {name: below(stored, prefix) for name, prefix in _COMPONENTS.items() if embed}
    if absent := [name for name, tensors in components.items() if not tensors]:
        raise ValueError(f"{source.name} does not hold its {', '.join(absent)}: leave --embed-components out")
    return ForeignCheckpoint(
        "LoRA fine-tune of DreamZero" if adapters else "official DreamZero checkpoint",
        plain,
        _settings(plain, head, conf, source),
        embodiments,
        (),
        components,
        tokenizer.fetch(TOKENIZER_FILES) if embed else None,
    )


def _settings(tensors: LazyTensors, head: dict[str, Any], conf: dict[str, Any], source: Source) -> dict[str, Any]:
    """Read the fields of `WAMConfig` that the training configuration states; what it leaves out is the preset's."""
    network = head["diffusion_model_cfg"]
    if network["num_frame_per_block"] != LATENTS_PER_CHUNK or network["num_state_per_block"] != 1:
        raise ValueError(
            f"{source.name} has {network['num_frame_per_block']} latent frames and {network['num_state_per_block']} "
            f"states a chunk; expected {LATENTS_PER_CHUNK} and 1: this layout is not supported"
        )
    settings = network_settings(tensors, network["model_type"], network["num_heads"], source.name)
    chunk_steps = network["num_action_per_block"]
    settings |= {
        "chunk_steps": chunk_steps,
        "video_stride": chunk_steps // (LATENTS_PER_CHUNK * FRAMES_PER_LATENT),
        "max_chunks": network["max_chunk_size"],
    }
    sizes = {
        "image_size": (conf.get("image_resolution_height"), conf.get("image_resolution_width")),
        "head_resize": (head.get("target_video_height"), head.get("target_video_width")),
    }
    settings |= {name: size for name, size in sizes.items() if None not in size}
    if head.get("decouple_video_action_noise"):
        settings |= {"noise_mode": "decoupled", "noise_beta_alpha": head["video_noise_beta_alpha"]}
    return settings


def _read_base(base: Source | None, conf: dict[str, Any], head: dict[str, Any], source: Source) -> LazyTensors:
    """Return the tensors that a fine-tune's adapters were trained on top of, and refuse any other.

    That is the checkpoint that training started from. The raw Wan weights, which the configuration names too, are the
    base only where there was none (spec §2.8, point 4).
    """
    recorded = conf.get("pretrained_model_path") or head["diffusion_model_cfg"].get("diffusion_model_pretrained_path")
    trained_on = Path(recorded).name if recorded else "the checkpoint that it was trained on (not recorded)"
    if base is None:
        raise ValueError(
            f"{source.name} is a LoRA fine-tune without its base: give --base=FOLDER_OR_REPO of {trained_on}"
        )
    if recorded and base.basename != trained_on:
        raise ValueError(
            f"{source.name} was trained on {trained_on} ({recorded}), --base is {base.basename}: merged onto another "
            f"base it computes nonsense; give {trained_on}, as a folder or repository of that name"
        )
    folder, layout = base.describe()
    if layout == "dreamzero":
        return read_dreamzero(base, folder).tensors
    return (read_original(base, folder) if layout == "wan" else read_diffusers(base, folder)).tensors


def _merge(
    adapters: Mapping[str, LazyTensors], plain: LazyTensors, head: dict[str, Any], source: Source
) -> LazyTensors:
    """Return W + alpha / r * B A for every adapted matrix, computed in float32 when it is read."""
    merged: LazyTensors = {}
    rank, alpha = head["lora_rank"], head["lora_alpha"]
    for matrix, sides in adapters.items():
        name = f"{matrix}.weight"
        shapes = {side: sides[side].shape for side in sides}
        fitting = {"A": (rank, plain[name].shape[1]), "B": (plain[name].shape[0], rank)} if name in plain else {}
        if shapes != fitting:
            raise ValueError(
                f"{source.name} does not fit its base: adapter of {name} is {shapes}, expected "
                f"{fitting or 'none (the base has no such matrix)'}: give the base that it was trained on"
            )
        read = partial(_merged, plain[name], sides["A"], sides["B"], alpha / rank)
        merged[name] = LazyTensor(plain[name].shape, torch.float32, read)
    return merged


def _merged(matrix: LazyTensor, down: LazyTensor, up: LazyTensor, scale: float) -> Tensor:
    return matrix.read().float() + scale * (up.read().float() @ down.read().float())
