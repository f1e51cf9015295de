"""The folder that an import writes: shard by shard, each complete or absent, so that an interrupted one continues.

`manifest.json` names the origin and the sha256 of every file. Until the import is finished it is called
`manifest.partial.json`.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from tqdm import tqdm

from lerobot_wam.checkpoints.lazy import LazyTensors
from lerobot_wam.checkpoints.source import read_json
from lerobot_wam.weights import MANIFEST

PARTIAL = "manifest.partial.json"
SHARD_BYTES = 10**9
"""Largest weight file: what an import holds in memory, and what an interruption costs. One tensor may exceed it."""


@dataclass
class ImportFolder:
    """An import's output.

    Attributes:
        folder: Where it goes.
        origin: Everything that decides its content, as JSON values; an import continues only one of the same origin.
        files: sha256 of each finished file, by path inside the folder.
    """

    folder: Path
    origin: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, origin: dict[str, Any]) -> "ImportFolder":
        """Start a new folder, or continue one: its files that still have the recorded sha256 are kept.

        Raises:
            ValueError: The folder holds something else.
        """
        stored = read_json(folder / PARTIAL) or read_json(folder / MANIFEST)
        if stored and stored["origin"] != origin:
            raise ValueError(
                f"{folder} holds an import of {stored['origin']['source']} with other settings or files: delete it, or "
                "choose another --out"
            )
        if not stored and folder.is_dir() and any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty and no import of ours: choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        recorded = stored.get("files", {})
        output = cls(folder, origin, {name: sha for name, sha in recorded.items() if _intact(folder / name, sha)})
        output._write_manifest(PARTIAL)
        return output

    def write_weights(self, tensors: LazyTensors, stem: Path, dtype: torch.dtype | None, progress: "tqdm[Any]") -> None:
        """Write tensors as `<stem>.safetensors`, or as shards with an index.

        Args:
            tensors: By their names in the file.
            stem: File without its ending; its folder is made.
            dtype: What the tensors become; None keeps each as it is.
            progress: Counts tensors.
        """
        planned = {name: torch.empty(t.shape, dtype=dtype or t.dtype, device="meta") for name, t in tensors.items()}
        plan = split_torch_state_dict_into_shards(
            planned, filename_pattern=f"{stem.name}{{suffix}}.safetensors", max_shard_size=SHARD_BYTES
        )
        stem.parent.mkdir(exist_ok=True)
        for file, names in plan.filename_to_tensors.items():
            path = stem.with_name(file)
            if self._key(path) in self.files:
                progress.update(len(names))
                continue
            state = {}
            for name in names:
                state[name] = tensors[name].read().to(planned[name].dtype).contiguous()
                progress.update()
            temporary = path.with_suffix(".tmp")
            save_file(state, temporary, metadata={"format": "pt"})
            del state
            self.files[self._key(path)] = sha256(temporary)
            temporary.replace(path)
            self._write_manifest(PARTIAL)
        if plan.is_sharded:
            index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
            stem.with_name(f"{stem.name}.safetensors.index.json").write_text(json.dumps(index, indent=1))

    def finish(self) -> None:
        """Check what was written against its sha256 once more, add the rest, and declare the import complete.

        Raises:
            OSError: A file is not what was written.
        """
        files = {self._key(path): sha256(path) for path in sorted(self.folder.rglob("*")) if path.is_file()}
        if damaged := [name for name, sha in self.files.items() if files.get(name) != sha]:
            raise OSError(f"{self.folder}: {', '.join(damaged)} changed after it was written; run the import again")
        self.files = {name: sha for name, sha in files.items() if name not in (MANIFEST, PARTIAL)}
        self._write_manifest(MANIFEST)
        (self.folder / PARTIAL).unlink(missing_ok=True)

    def _write_manifest(self, name: str) -> None:
        text = json.dumps({"origin": self.origin, "files": self.files}, indent=1) + "\n"
        temporary = self.folder / f"{name}.tmp"
        temporary.write_text(text)
        temporary.replace(self.folder / name)

    def _key(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def sha256(file: Path) -> str:
    """Return a file's checksum."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _intact(file: Path, sha: str) -> bool:
    return file.is_file() and sha256(file) == sha
