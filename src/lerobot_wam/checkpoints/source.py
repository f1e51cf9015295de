"""Where a checkpoint comes from: a folder, or a repository on the Hub of which only the needed files are fetched."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

Layout = Literal["dreamzero", "wan", "diffusers"]
_DESCRIPTIONS = ["config.json", "*.safetensors.index.json", "*/config.json", "experiment_cfg/*.json", "*/conf.yaml"]
"""Small files that tell what a repository holds."""


@dataclass(frozen=True)
class Source:
    """A folder or a repository.

    Attributes:
        name: Path or id, as it was given.
        revision: Branch, tag or commit on the Hub; None for the default branch.
    """

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Source":
        """Read `FOLDER` or `REPO[@REVISION]`."""
        if Path(text).is_dir():
            return cls(text)
        name, _, revision = text.partition("@")
        return cls(name, revision or None)

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return Path(self.name).is_dir()

    @property
    def basename(self) -> str:
        """Last part of the path or id, by which people tell checkpoints apart."""
        return Path(self.name).resolve().name if self.local else self.name.rpartition("/")[2]

    def fetch(self, patterns: list[str]) -> Path:
        """Return the folder, after downloading the files that match where it is a repository.

        Raises:
            FileNotFoundError: No such folder or repository, or the Hub cannot be reached.
        """
        if self.local:
            return Path(self.name)
        try:
            return Path(snapshot_download(self.name, revision=self.revision, allow_patterns=patterns))
        except (OSError, httpx.HTTPError, HFValidationError) as error:
            raise FileNotFoundError(
                f"{self.name} is no folder, and cannot be fetched from the Hub ({str(error).partition('\n')[0]})\n"
                "give the path of a downloaded checkpoint, or REPO[@REVISION]"
            ) from error

    def identity(self) -> str | dict[str, list[int]]:
        """Return what changes when the weights do: the commit on the Hub, size and time of a folder's files."""
        folder = self.fetch(_DESCRIPTIONS)
        if not self.local:
            return folder.name
        files = [file for ending in ("safetensors", "pth") for file in sorted(folder.rglob(f"*.{ending}"))]
        stats = {file.relative_to(folder).as_posix(): file.stat() for file in files}
        return {name: [stat.st_size, int(stat.st_mtime)] for name, stat in stats.items()}

    def describe(self) -> tuple[Path, Layout]:
        """Fetch the small files and tell the layout from them.

        Raises:
            FileNotFoundError: Nothing there.
            ValueError: Something there, but no layout that can be imported.
        """
        folder = self.fetch(_DESCRIPTIONS)
        config = read_json(folder / "config.json")
        if "VLA" in config.get("architectures", ()):
            return folder, "dreamzero"
        if config.get("_class_name") == "WanModel":
            return folder, "wan"
        if read_json(folder / "transformer" / "config.json").get("_class_name") == "WanTransformer3DModel":
            return folder, "diffusers"
        if config.get("type") == "wam":
            raise ValueError(f"{self.name} is a checkpoint of lerobot_wam already: use it with --policy.path")
        found = config.get("architectures") or config.get("_class_name") or config.get("type") or "no config.json"
        raise ValueError(
            f"{self.name} is no checkpoint that can be imported (found: {found}): expected official DreamZero "
            "(architectures VLA), an original Wan folder (WanModel), or its diffusers layout (transformer/)"
        )


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object, empty where there is no such file.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is damaged ({error}): copy or download it again") from error
