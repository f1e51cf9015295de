"""Tensors that are still on disk: names and shapes at once, numbers one tensor at a time.

A checkpoint is a dict of these from the moment that its files are found until the moment that it is written, so
renaming, merging and converting cost no memory, and what does not fit is known before anything is read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lerobot_wam.checkpoints.source import read_json
from lerobot_wam.weights import open_weights


@dataclass(frozen=True)
class LazyTensor:
    """A tensor's shape and precision, and how to read it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


LazyTensors = dict[str, LazyTensor]
_PRECISIONS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def open_safetensors(folder: Path, stem: str, prefixes: tuple[str, ...] = ("",)) -> LazyTensors:
    """Open `<stem>.safetensors`, or the shards of its index; only headers are read.

    Args:
        folder: Where the files are.
        stem: `model` in transformers' layout, `diffusion_pytorch_model` in diffusers'.
        prefixes: Leave shards alone that hold no tensor whose name starts with one of these.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged or cut short, or holds quantised numbers.
    """
    tensors: LazyTensors = {}
    for name in shard_names(folder, stem, prefixes) or [f"{stem}.safetensors"]:
        file = folder / name
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing: copy or download it again")
        with open_weights(file) as opened:
            for key in opened.keys():  # noqa: SIM118 (not a dict)
                header = opened.get_slice(key)
                if header.get_dtype() not in _PRECISIONS:
                    raise ValueError(
                        f"{file}: {key} is stored as {header.get_dtype()}, expected {', '.join(_PRECISIONS)}: use the "
                        "checkpoint's unquantised release"
                    )
                dtype = _PRECISIONS[header.get_dtype()]
                tensors[key] = LazyTensor(tuple(header.get_shape()), dtype, partial(_read, file, key))
    return tensors


def shard_names(folder: Path, stem: str, prefixes: tuple[str, ...]) -> list[str]:
    """Return the shards that hold tensors under these prefixes; none where the checkpoint has no index."""
    index = read_json(folder / f"{stem}.safetensors.index.json")
    return sorted({file for name, file in index.get("weight_map", {}).items() if name.startswith(prefixes)})


def _read(file: Path, name: str) -> Tensor:
    # Opened anew each time: with the file, what was mapped of it leaves memory.
    with open_weights(file) as opened:
        return opened.get_tensor(name)


def open_pth(file: Path) -> LazyTensors:
    """Open a state dict saved by torch; its numbers stay on disk until they are read."""
    state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    return {name: LazyTensor(tuple(t.shape), t.dtype, partial(_itself, t)) for name, t in state.items()}


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def below(tensors: Mapping[str, LazyTensor], prefix: str) -> LazyTensors:
    """Return the tensors under a prefix, without it."""
    return {name.removeprefix(prefix): lazy for name, lazy in tensors.items() if name.startswith(prefix)}


def convert(tensors: Mapping[str, LazyTensor], rule: Callable[[str, Tensor], list[tuple[str, Tensor]]]) -> LazyTensors:
    """Apply a rule that turns one named tensor into any number of them, without reading any."""
    converted: LazyTensors = {}
    for name, lazy in tensors.items():
        for position, (new, example) in enumerate(rule(name, torch.empty(lazy.shape, dtype=lazy.dtype, device="meta"))):
            read = partial(_converted, rule, name, lazy, position)
            converted[new] = LazyTensor(tuple(example.shape), example.dtype, read)
    return converted


def _converted(
    rule: Callable[[str, Tensor], list[tuple[str, Tensor]]], name: str, lazy: LazyTensor, position: int
) -> Tensor:
    return rule(name, lazy.read())[position][1]
