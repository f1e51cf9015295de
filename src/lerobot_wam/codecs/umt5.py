"""The UMT5 text encoder behind the codec protocol; each text is encoded once and kept (spec §1.6)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import UMT5EncoderModel


class Umt5TextCodec:
    """Tokens of the UMT5 encoder, padded with zeros to a fixed length.

    A text is encoded alone and without padding, which gives what a padded batch under its attention mask gives. Its
    tokens are kept on the CPU, so an encoder that has seen every task can be let go.

    Args:
        encoder: transformers' `UMT5EncoderModel`; frozen here.
        tokenizer: its tokenizer, called as `tokenizer(text, truncation=True, max_length=length)`.
        length: tokens of every text; a longer one is cut.
        device: where texts are encoded; the encoder comes there for the first new one. None leaves it where it is.
    """

    def __init__(
        self,
        encoder: "UMT5EncoderModel",
        tokenizer: Callable[..., Any],
        length: int = 512,
        device: torch.device | str | None = None,
    ) -> None:
        self.encoder: nn.Module | None = encoder.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.dim = encoder.config.d_model
        self.length = length
        self.device = encoder.device if device is None else torch.device(device)
        self._tokens: dict[str, Tensor] = {}

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Tokens [B,length,dim] float32, zero at padded positions, and mask [B,length] bool, both on the CPU.

        Raises:
            RuntimeError: A text that was not encoded before `release`.
        """
        tokens_BLD = torch.zeros(len(texts), self.length, self.dim)
        mask_BL = torch.zeros(len(texts), self.length, dtype=torch.bool)
        for b, text in enumerate(texts):
            tokens_LD = self._encode(" ".join(text.split()))
            tokens_BLD[b, : len(tokens_LD)] = tokens_LD
            mask_BL[b, : len(tokens_LD)] = True
        return tokens_BLD, mask_BL

    def release(self) -> None:
        """Free the encoder. The texts seen so far still have their tokens."""
        self.encoder = None

    @torch.no_grad()
    def _encode(self, text: str) -> Tensor:
        """The text's own tokens [words,dim], in the encoder's precision."""
        if text not in self._tokens:
            if self.encoder is None:
                raise RuntimeError(
                    f"the text encoder was released before it saw {text!r}: encode every text before release()"
                )
            ids = self.tokenizer(text, truncation=True, max_length=self.length)["input_ids"]
            hidden = self.encoder.to(self.device)(torch.tensor([ids], device=self.device)).last_hidden_state
            self._tokens[text] = hidden[0].cpu()
        return self._tokens[text]
