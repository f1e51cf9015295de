"""Latents on disk."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lerobot_wam.data.latents import SHARD_WINDOWS, LatentCache, dataset_digest

KEY: dict[str, Any] = {"codec": {"name": "dct", "patch": 16}, "frames": (0, 1, 2), "dataset": "a" * 64}


def filled(folder: Path, windows: int = SHARD_WINDOWS + 3, dtype: str = "float32") -> LatentCache:
    cache = LatentCache(folder, phases=2, crops=1, dtype=dtype, windows=windows)
    cache.begin(KEY)
    for shard in cache.missing():
        numbers = torch.tensor(cache.windows_of(shard))
        cache.write(shard, {"latent": numbers[:, None] + torch.full((1, 2), 0.1), "picture": numbers.to(torch.uint8)})
    return cache


def test_a_window_is_read_as_it_was_written(tmp_path: Path):
    filled(tmp_path / "cache")
    cache = LatentCache.open(tmp_path / "cache", lambda: KEY)
    assert cache is not None
    assert (cache.phases, cache.crops, cache.windows, cache.shards) == (2, 1, SHARD_WINDOWS + 3, 2)
    for number in (0, SHARD_WINDOWS - 1, SHARD_WINDOWS, SHARD_WINDOWS + 2):
        window = cache.read(number)
        assert torch.equal(window["latent"], number + torch.full((2,), 0.1))
        assert window["picture"] == number


def test_half_precision_is_read_as_float32(tmp_path: Path):
    cache = filled(tmp_path / "cache", dtype="bfloat16")
    latent = cache.read(1)["latent"]
    assert latent.dtype == torch.float32
    assert torch.equal(latent, torch.full((2,), 1.1).bfloat16().float())


def test_no_manifest_is_no_cache(tmp_path: Path):
    assert LatentCache.open(tmp_path, lambda: pytest.fail("nothing to compare with")) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"codec": {"name": "dct", "patch": 8}}, "codec: patch was 16, now 8"),
        ({"codec": {"name": "wan", "patch": 16}}, 'codec: name was "dct", now "wan"'),
        ({"frames": (0, 2, 4)}, r"frames was \[0, 1, 2\], now \[0, 2, 4\]"),
        ({"dataset": "b" * 64}, r'dataset was "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\.\.\., now "bb'),
    ],
)
def test_a_stale_cache_is_refused_with_what_changed(tmp_path: Path, changed: dict[str, Any], message: str):
    filled(tmp_path / "cache")
    with pytest.raises(ValueError, match=rf"cache are stale, for {message}.*run lerobot-wam cache"):
        LatentCache.open(tmp_path / "cache", lambda: KEY | changed)


def test_an_unfinished_cache_is_refused(tmp_path: Path):
    cache = filled(tmp_path / "cache")
    cache._shard(1).unlink()
    (tmp_path / "cache" / "shard-000001.safetensors.7.part").write_bytes(b"half of it")  # what a kill leaves
    with pytest.raises(ValueError, match=r"1 of 2 shards of the latents in .* are missing"):
        LatentCache.open(tmp_path / "cache", lambda: KEY)


def test_beginning_again_keeps_the_shards(tmp_path: Path):
    cache = filled(tmp_path / "cache")
    assert cache.begin(KEY) is None
    assert cache.missing() == []


def test_beginning_something_else_deletes_them_and_says_why(tmp_path: Path):
    cache = filled(tmp_path / "cache")
    assert cache.begin(KEY | {"frames": (0, 2, 4)}) == (
        f"deleted the latents in {tmp_path / 'cache'}, for frames was [0, 1, 2], now [0, 2, 4]"
    )
    assert cache.missing() == [0, 1]
    finer = LatentCache(tmp_path / "cache", phases=4, crops=1, dtype="float32", windows=5)
    assert "phases was 2, now 4" in str(finer.begin(KEY | {"frames": (0, 2, 4)}))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for name, content in {"meta/info.json": "{}", "data/chunk/file.parquet": "abc", "videos/front.mp4": "xyz"}.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_text(content)
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("name", "content"), [("meta/info.json", "[]"), ("data/chunk/file.parquet", "abcd"), ("videos/side.mp4", "")]
)
def test_a_dataset_that_changed_has_another_digest(dataset: Path, name: str, content: str):
    before = dataset_digest(dataset)
    (dataset / name).write_text(content)
    assert dataset_digest(dataset) != before


def test_latents_beside_a_dataset_do_not_change_its_digest(dataset: Path):
    before = dataset_digest(dataset)
    (dataset / "latents").mkdir()
    (dataset / "latents" / "manifest.json").write_text(json.dumps(KEY))
    assert dataset_digest(dataset) == before
