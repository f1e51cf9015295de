"""The text encoder's codec: each text alone gives what a padded batch under its mask gives, and is encoded once."""

from pathlib import Path

import pytest
import torch
from foreign_checkpoints import write_text_encoder
from transformers import AutoTokenizer, UMT5EncoderModel

from lerobot_wam.codecs.umt5 import Umt5TextCodec

LENGTH = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("umt5")
    write_text_encoder(folder / "encoder", folder / "tokenizer")
    return folder


@pytest.fixture
def codec(folder: Path) -> Umt5TextCodec:
    encoder = UMT5EncoderModel.from_pretrained(folder / "encoder")
    return Umt5TextCodec(encoder, AutoTokenizer.from_pretrained(folder / "tokenizer"), LENGTH)


def test_each_text_is_as_in_a_masked_batch(codec: Umt5TextCodec):
    texts = ["push the red cube", "push", ""]
    tokens, mask = codec.encode(texts)
    batch = codec.tokenizer(texts, padding="max_length", max_length=LENGTH, return_tensors="pt")
    assert codec.encoder is not None
    with torch.no_grad():
        hidden = codec.encoder(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    assert torch.equal(mask, batch["attention_mask"].bool())
    torch.testing.assert_close(tokens, hidden * mask[:, :, None], atol=1e-6, rtol=1e-6)


def test_long_texts_are_cut_and_spaces_do_not_matter(codec: Umt5TextCodec):
    tokens, mask = codec.encode(["push the red cube left " * 3, "push  the\n red cube ", "push the red cube"])
    assert mask.sum(1).tolist() == [LENGTH, 5, 5]
    assert torch.equal(tokens[1], tokens[2])


def test_a_released_encoder_still_has_the_texts_it_saw(codec: Umt5TextCodec):
    before, _ = codec.encode(["push the red cube"])
    codec.release()
    after, _ = codec.encode(["push the red cube"])
    assert torch.equal(before, after)
    with pytest.raises(RuntimeError, match="before it saw 'left'"):
        codec.encode(["left"])
