"""Word-hash text tokens: same word, same vector; order is readable; nothing is lost in silence."""

import warnings

import pytest
import torch

from lerobot_wam.codecs.text import WordHashTextCodec, colliding_words, split_words

SENTENCES = [
    f"{sentence}, then {other}"
    for colour in ("red", "green", "blue")
    for sentence in (f"push the {colour} cube to the left", f"push the {colour} cube away", f"touch the {colour} cube")
    for other in ("push the green cube to the right",)
]


def test_shapes_padding_and_mask():
    tokens, mask = WordHashTextCodec(dim=32, length=6).encode(["Touch the RED cube", ""])
    assert tokens.shape == (2, 6, 32)
    assert tokens.dtype == torch.float32
    assert mask.tolist() == [[True] * 4 + [False] * 2, [False] * 6]
    assert not tokens[~mask].any()


def test_words_are_split_and_lowered():
    assert split_words("Touch the red, then PUSH blue!") == ["touch", "the", "red", ",", "then", "push", "blue", "!"]


def test_vectors_are_the_same_in_every_process_and_have_unit_variance():
    tokens, _ = WordHashTextCodec(dim=64, length=2).encode(["red"])
    again, _ = WordHashTextCodec(dim=64, length=2).encode(["RED"])
    assert torch.equal(tokens, again)
    position = torch.cat([torch.ones(32), torch.zeros(32)]) * 0.3 * 2**0.5
    word = tokens[0, 0] - position
    assert word.square().mean().item() == pytest.approx(1, abs=1e-5)
    # RandomState(crc32(b"red")), first draws over their root mean square: a change here breaks stored checkpoints.
    torch.testing.assert_close(word[:3], torch.tensor([-0.550271, -0.496296, 0.122899]), atol=1e-5, rtol=0)


def test_word_identity_dominates_but_order_shows():
    codec = WordHashTextCodec()
    tokens, _ = codec.encode(["red red", "blue red"])
    same_word = torch.dist(tokens[0, 0], tokens[0, 1])
    other_word = torch.dist(tokens[0, 0], tokens[1, 0])
    assert 0 < same_word < 0.5 * other_word
    a, b = codec.encode(["push red left then touch blue", "touch red then push blue left"])[0]
    assert not torch.allclose(a, b)
    assert not torch.equal(*codec.encode(["touch red then blue", "touch blue then red"])[0])


def test_the_simulators_words_do_not_collide():
    assert colliding_words(SENTENCES) == []


def test_a_collision_is_found():
    # "plumless" and "buckeroo" are the textbook pair of equal crc32.
    assert colliding_words(["plumless buckeroo", "other"]) == [{"plumless", "buckeroo"}]


def test_cut_text_is_announced_once():
    codec = WordHashTextCodec(dim=8, length=3)
    with pytest.warns(UserWarning, match="has 4 words, the text codec keeps 3"):
        _, mask = codec.encode(["touch the red cube"])
    assert mask.all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codec.encode(["touch the red cube"])


@pytest.mark.parametrize(("dim", "length"), [(7, 4), (8, 0)])
def test_unfit_sizes_are_refused(dim, length):
    with pytest.raises(ValueError, match=f"dim={dim}, length={length}"):
        WordHashTextCodec(dim, length)
