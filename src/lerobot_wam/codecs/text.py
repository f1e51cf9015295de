"""Text codecs: task strings to a fixed number of tokens, zero at padded positions as in DreamZero (spec §1.6)."""

import math
import re
import warnings
from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

_WORD = re.compile(r"\w+|[^\w\s]")
_POSITION_SCALE = 0.3  # root mean square of the position code; a word vector has 1


class TextCodec(Protocol):
    """What the model needs from a text encoder."""

    dim: int
    length: int

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Tokens [B,length,dim] float32, zero at padded positions, and mask [B,length] bool, True at words."""
        ...


class WordHashTextCodec:
    """One fixed random vector per word plus a small sinusoidal code of its place: no vocabulary, no download.

    The vector of a word is seeded by its crc32 and has root mean square 1, so two words are nearly
    orthogonal for any dim of a few dozen. The position code has root mean square 0.3: which word dominates,
    its order stays readable.

    Args:
        dim: width of a token, even.
        length: words kept; a longer text is cut and the first such text is announced by a warning.
    """

    def __init__(self, dim: int = 64, length: int = 24) -> None:
        if dim < 2 or dim % 2 or length < 1:
            raise ValueError(
                f"dim={dim}, length={length}: expected an even dim of at least 2 and a length of at least 1"
            )
        self.dim = dim
        self.length = length
        self._positions = _sinusoid(length, dim)
        self._cut_announced = False

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Tokens [B,length,dim] float32 and mask [B,length] bool on the CPU; empty text: all zero, mask all False."""
        tokens_BLD = torch.zeros(len(texts), self.length, self.dim)
        mask_BL = torch.zeros(len(texts), self.length, dtype=torch.bool)
        for b, text in enumerate(texts):
            words = split_words(text)
            if len(words) > self.length and not self._cut_announced:
                self._cut_announced = True
                warnings.warn(
                    f"task text has {len(words)} words, the text codec keeps {self.length}: the rest is cut. "
                    f"Raise its length or shorten the task. Text: {text!r}",
                    stacklevel=2,
                )
            words = words[: self.length]
            for position, word in enumerate(words):
                tokens_BLD[b, position] = _word_vector(word, self.dim) + self._positions[position]
            mask_BL[b, : len(words)] = True
        return tokens_BLD, mask_BL


def split_words(text: str) -> list[str]:
    """Lower-case words and single punctuation marks, in order: "Touch red, then blue" -> touch red , then blue."""
    return _WORD.findall(text.lower())


def colliding_words(texts: Iterable[str]) -> list[set[str]]:
    """Groups of different words in ``texts`` that share a crc32 and hence a vector; empty is good."""
    by_hash: dict[int, set[str]] = {}
    for text in texts:
        for word in split_words(text):
            by_hash.setdefault(crc32(word.encode()), set()).add(word)
    return [words for words in by_hash.values() if len(words) > 1]


@lru_cache(maxsize=4096)
def _word_vector(word: str, dim: int) -> Tensor:
    """The word's vector [dim], root mean square 1. numpy has frozen RandomState's stream: checkpoints stay valid."""
    vector = np.random.RandomState(crc32(word.encode())).standard_normal(dim)
    return torch.from_numpy(vector / np.sqrt(np.mean(vector**2))).float()


def _sinusoid(length: int, dim: int) -> Tensor:
    """Position codes [length, dim], cos half then sin half, periods from 2 pi to about 600 words."""
    frequency = 100.0 ** (-torch.arange(dim // 2) / (dim // 2))
    angle = torch.arange(length)[:, None] * frequency
    return _POSITION_SCALE * math.sqrt(2) * torch.cat([angle.cos(), angle.sin()], dim=1)
