"""Video latents on disk: windows of a dataset that were encoded once, and what they depend on.

A folder holds `manifest.json` and shards in safetensors. A causal codec's latents depend on where the window starts, so
starts lie on a grid; each has `crops` windows, whose crops and colours were drawn when they were encoded.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

SHARD_WINDOWS = 64
_MANIFEST = "manifest.json"
_SHARD = "shard-{:06d}.safetensors"
_WAY_OUT = "run lerobot-wam cache with the flags of the training, or set `latents: none` in the mixture"


@dataclass(frozen=True)
class LatentCache:
    """The encoded windows of one dataset. Window `number` starts at grid point `number // crops`.

    Attributes:
        folder: Where they are.
        phases: Grid points in the time of a chunk.
        crops: Windows at each grid point.
        dtype: Of the latents on disk, "float32" or "bfloat16".
        windows: How many there are.
    """

    folder: Path
    phases: int
    crops: int
    dtype: str
    windows: int

    @classmethod
    def open(cls, folder: Path, key: Callable[[], Mapping[str, Any]]) -> "LatentCache | None":
        """Return the cache in a folder; None where there is none.

        Args:
            folder: Where to look.
            key: Gives what its latents have to be made from; called where there is a cache.

        Raises:
            ValueError: It was made from something else, or is not complete.
        """
        file = folder / _MANIFEST
        if not file.is_file():
            return None
        manifest = json.loads(file.read_text())
        if change := first_change(manifest["key"], key()):
            raise ValueError(f"the latents in {folder} are stale, for {change}: {_WAY_OUT}")
        cache = cls(folder, **manifest["cache"])
        if missing := cache.missing():
            raise ValueError(
                f"{len(missing)} of {cache.shards} shards of the latents in {folder} are missing: finish them, "
                f"{_WAY_OUT}"
            )
        return cache

    def begin(self, key: Mapping[str, Any]) -> str | None:
        """Make the folder ready for shards. Those of a cache that was made otherwise are deleted.

        Returns:
            What was deleted and why, in words; None where nothing was.
        """
        file = self.folder / _MANIFEST
        manifest = {"key": dict(key), "cache": {k: v for k, v in asdict(self).items() if k != "folder"}}
        manifest = json.loads(json.dumps(manifest))
        deleted = None
        if file.is_file() and (before := json.loads(file.read_text())) != manifest:
            change = first_change(before["key"], key) or first_change(before["cache"], manifest["cache"])
            deleted = f"deleted the latents in {self.folder}, for {change}"
            file.unlink()
            for shard in self.folder.glob("shard-*.safetensors"):
                shard.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda part: part.write_text(json.dumps(manifest, indent=1)))
        return deleted

    @property
    def shards(self) -> int:
        """Files, of `SHARD_WINDOWS` windows each."""
        return -(-self.windows // SHARD_WINDOWS)

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not there yet."""
        return [number for number in range(self.shards) if not self._shard(number).is_file()]

    def windows_of(self, shard: int) -> range:
        """Return the numbers of a shard's windows."""
        return range(shard * SHARD_WINDOWS, min((shard + 1) * SHARD_WINDOWS, self.windows))

    def write(self, shard: int, windows: Mapping[str, Tensor]) -> None:
        """Write a shard's windows [n, ...], whole or not at all; floats in the cache's precision."""
        dtype = getattr(torch, self.dtype)
        tensors = {k: (x.to(dtype) if x.is_floating_point() else x).contiguous() for k, x in windows.items()}
        write_whole(self._shard(shard), lambda part: save_file(tensors, part))

    def read(self, number: int) -> dict[str, Tensor]:
        """Return what was written of a window; floats as float32."""
        shard, row = divmod(number, SHARD_WINDOWS)
        with safe_open(self._shard(shard), "pt") as file:
            window = {key: file.get_slice(key)[row] for key in file.keys()}  # noqa: SIM118  (no mapping)
        return {key: x.float() if x.is_floating_point() else x for key, x in window.items()}

    def _shard(self, number: int) -> Path:
        return self.folder / _SHARD.format(number)


def dataset_digest(root: Path) -> str:
    """Return what identifies a dataset's content: the metadata, which has statistics of every episode, and the sizes
    of its data and video files. Copies have the same."""
    digest = hashlib.sha256()
    for file in sorted(path for part in ("meta", "data", "videos") for path in (root / part).rglob("*")):
        if file.is_file():
            content = file.read_bytes() if file.is_relative_to(root / "meta") else str(file.stat().st_size).encode()
            digest.update(f"{file.relative_to(root).as_posix()}:{len(content)}:".encode() + content)
    return digest.hexdigest()


def first_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the first difference between two mappings of JSON values in words; None where there is none."""
    now = json.loads(json.dumps(now))
    for name in {**before, **now}:
        was, found = before.get(name), now.get(name)
        if was != found:
            inner = first_change(was, found) if isinstance(was, dict) and isinstance(found, dict) else None
            return f"{name}: {inner}" if inner else f"{name} was {_short(was)}, now {_short(found)}"
    return None


def write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name and rename it, so that a kill leaves the file before or none."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    write(part)
    os.replace(part, file)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:30]}..."
