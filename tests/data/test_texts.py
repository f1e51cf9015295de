"""Text tokens on disk."""

from pathlib import Path

import pytest
import torch

from lerobot_wam.codecs.text import TextCodec, WordHashTextCodec
from lerobot_wam.data.texts import StoredTextCodec, store_texts

KEY = {"text_codec": "umt5", "text_codec_source": "somewhere", "text_length": 6}
CODEC = WordHashTextCodec(dim=8, length=6)


def no_encoder() -> TextCodec:
    pytest.fail("the encoder is loaded, though every text is there")


def test_stored_texts_are_what_the_encoder_says_without_it(tmp_path: Path):
    store_texts(tmp_path / "a", KEY, ["push red", ""], lambda: CODEC)
    store_texts(tmp_path / "b", KEY, ["lift the blue cube"], lambda: CODEC)
    stored = StoredTextCodec([tmp_path / "a", tmp_path / "b"], KEY, 8, 6, no_encoder)
    texts = ["lift the blue cube", "push red", ""]
    for found, expected in zip(stored.encode(texts), CODEC.encode(texts), strict=True):
        assert torch.equal(found, expected)


def test_other_texts_are_encoded(tmp_path: Path):
    store_texts(tmp_path / "a", KEY, ["push red"], lambda: CODEC)
    stored = StoredTextCodec([tmp_path / "a"], KEY, 8, 6, lambda: CODEC)
    assert torch.equal(stored.encode(["push blue"])[0], CODEC.encode(["push blue"])[0])


def test_a_second_run_encodes_only_what_is_new(tmp_path: Path):
    store_texts(tmp_path / "a", KEY, ["push red"], lambda: CODEC)
    store_texts(tmp_path / "a", KEY, ["push red"], no_encoder)
    store_texts(tmp_path / "a", KEY, ["push red", "push blue"], lambda: CODEC)
    assert len(list((tmp_path / "a").glob("*.safetensors"))) == 2


def test_tokens_of_another_encoder_are_refused_and_renewed(tmp_path: Path):
    store_texts(tmp_path / "a", KEY, ["push red"], lambda: CODEC)
    other = KEY | {"text_codec_source": "elsewhere"}
    with pytest.raises(ValueError, match='stale, for text_codec_source was "somewhere", now "elsewhere"'):
        StoredTextCodec([tmp_path / "a"], other, 8, 6, no_encoder)
    store_texts(tmp_path / "a", other, ["push blue"], lambda: CODEC)
    assert len(list((tmp_path / "a").glob("*.safetensors"))) == 1
