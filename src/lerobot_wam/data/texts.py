"""Text tokens on disk, so that a training never loads its text encoder: one file a text, named by the text's sha256."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from lerobot_wam.codecs.text import TextCodec
from lerobot_wam.data.latents import first_change, write_whole

_MANIFEST = "manifest.json"


class StoredTextCodec:
    """A text codec whose tokens were computed before; the encoder is made for the first text that is not there.

    Args:
        folders: Of `store_texts`.
        key: What their tokens have to be made with.
        dim: Width of a token.
        length: Tokens of every text.
        encoder: Makes the codec itself.

    Raises:
        ValueError: Tokens that were made with something else.
    """

    def __init__(
        self, folders: Sequence[Path], key: Mapping[str, Any], dim: int, length: int, encoder: Callable[[], TextCodec]
    ) -> None:
        for folder in folders:
            if change := first_change(json.loads((folder / _MANIFEST).read_text()), key):
                raise ValueError(
                    f"the text tokens in {folder} are stale, for {change}: run lerobot-wam cache with the flags of the "
                    "training, or delete that folder"
                )
        self.folders, self.dim, self.length = folders, dim, length
        self._make_encoder = encoder
        self._encoder: TextCodec | None = None
        self._tokens: dict[str, Tensor] = {}

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Tokens [B,length,dim] float32, zero at padded positions, and mask [B,length] bool, both on the CPU."""
        tokens_BLD = torch.zeros(len(texts), self.length, self.dim)
        mask_BL = torch.zeros(len(texts), self.length, dtype=torch.bool)
        for b, text in enumerate(texts):
            tokens_LD = self._of(text)
            tokens_BLD[b, : len(tokens_LD)] = tokens_LD
            mask_BL[b, : len(tokens_LD)] = True
        return tokens_BLD, mask_BL

    @staticmethod
    def are_in(folder: Path) -> bool:
        """Whether `store_texts` has written there."""
        return (folder / _MANIFEST).is_file()

    def _of(self, text: str) -> Tensor:
        """The text's own tokens [words,dim]."""
        if text not in self._tokens:
            file = next((file for folder in self.folders if (file := _file(folder, text)).is_file()), None)
            if file is None and self._encoder is None:
                self._encoder = self._make_encoder()
            self._tokens[text] = load_file(file)["tokens"] if file is not None else _tokens(self._encoder, text)
        return self._tokens[text]


def store_texts(folder: Path, key: Mapping[str, Any], texts: Iterable[str], encoder: Callable[[], TextCodec]) -> None:
    """Write the tokens of the texts that a folder lacks; those of another key are deleted.

    Args:
        folder: Where to write.
        key: What the tokens depend on besides the text, as JSON values.
        texts: As the policy words them.
        encoder: Makes the codec; called where a text is missing.
    """
    manifest = folder / _MANIFEST
    if manifest.is_file() and first_change(json.loads(manifest.read_text()), key):
        for file in folder.glob("*.safetensors"):
            file.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(manifest, lambda part: part.write_text(json.dumps(key)))
    missing = [text for text in texts if not _file(folder, text).is_file()]
    codec = encoder() if missing else None
    for text in tqdm(missing, desc=f"texts of {folder.parent.name}", unit="text"):
        write_whole(_file(folder, text), partial(save_file, {"tokens": _tokens(codec, text)}))


def _tokens(codec: TextCodec | None, text: str) -> Tensor:
    assert codec is not None
    tokens_BLD, mask_BL = codec.encode([text])
    return tokens_BLD[mask_BL].contiguous()


def _file(folder: Path, text: str) -> Path:
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()}.safetensors"
