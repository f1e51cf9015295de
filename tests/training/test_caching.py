"""`lerobot-wam cache`: what it writes is what training would have encoded."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_policies import MOBILE_JOINTS, SIZE, TINY, tiny_config, write_dataset

from lerobot_wam.cli.main import main
from lerobot_wam.data.batch import ANCHOR, CONDITION, LATENT, WINDOW
from lerobot_wam.data.mixture import Mixture
from lerobot_wam.data.recipe import load_recipe
from lerobot_wam.data.source import Source
from lerobot_wam.embodiments.spec import load_embodiment
from lerobot_wam.frozen import FrozenCodecs, video_key
from lerobot_wam.training.loop import window_shape

OPTIONS = TINY | {"head_resize": (SIZE, SIZE), "drop_n_last_frames": 2}
FLAGS = [
    "--policy.type=wam",
    *(f"--policy.{name}={list(value) if isinstance(value, tuple) else value}" for name, value in OPTIONS.items()),
]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A robot that crops, and one with two cameras and another rate."""
    spec = load_embodiment("wam_sim_viperx")
    video = replace(spec.video, crop=0.8, color_jitter=(0.2, 0.2, 0.2, 0.05))
    (tmp_path / "cropped.yaml").write_text(replace(spec, name="cropped", video=video).to_yaml())
    write_dataset(tmp_path / "arm", (24, 20))
    write_dataset(tmp_path / "fast", (60,), robot_type=None, fps=30, cameras=("l", "r"), joints=MOBILE_JOINTS)
    datasets: list[dict[str, Any]] = [
        {"repo_id": "local/arm", "root": str(tmp_path / "arm"), "embodiment": "cropped.yaml"},
        {"repo_id": "local/fast", "root": str(tmp_path / "fast")},
    ]
    file = tmp_path / "mix.yaml"
    file.write_text(yaml.safe_dump({"datasets": datasets}))
    return file


def cache(recipe: Path, *flags: str) -> int:
    return main(["cache", f"--mixture={recipe}", *FLAGS, f"--output_dir={recipe.parent / 'run'}", *flags])


def mixture(recipe: Path, cached: bool = True, **options: Any) -> Mixture:
    config = tiny_config(**(OPTIONS | options))
    codec = partial(video_key, config) if cached else None
    return Mixture(load_recipe(recipe), window_shape(config), codec=codec)


def files(recipe: Path) -> dict[str, bytes]:
    return {str(file.relative_to(recipe.parent)): file.read_bytes() for file in recipe.parent.rglob("latents/*/*")}


def expected(source: Source, start: int, seed: int) -> dict[str, torch.Tensor]:
    """What training makes of the window where nothing is cached."""
    window = source.window(start, seed)
    pixels = (window[WINDOW].float() / 255 * 2 - 1)[None]
    latent = FrozenCodecs(tiny_config()).video.encode(pixels.transpose(1, 2))[0]
    return {name: value for name, value in window.items() if name != WINDOW} | {
        LATENT: latent,
        ANCHOR: window[WINDOW][:16:8],
    }


def test_a_cached_sample_is_what_training_would_have_encoded(recipe: Path):
    assert cache(recipe, "--phases=2", "--crops=2") == 0
    cached, plain = mixture(recipe), mixture(recipe, cached=False)
    for source, fresh, spacing, crops in zip(cached.sources, plain.sources, (4, 24), (2, 1), strict=True):
        assert source.latents is not None
        grid = fresh.grid(2)
        assert set(grid[:2]) == {0, spacing}
        seen = set()
        for number in range(source.latents.windows):
            window = expected(fresh, int(grid[number // crops]), seed=number)
            stored = source.latents.read(number)
            assert torch.equal(stored[LATENT], window[LATENT])
            assert torch.equal(stored[ANCHOR], window[ANCHOR])
            seen.add(stored[LATENT].sum().item())
        assert len(seen) == source.latents.windows == crops * len(grid)
        for seed in range(3):
            sample = source.sample(np.random.default_rng(seed))
            assert sample["index"] in grid
            window = expected(fresh, int(sample["index"]), 0)
            assert sample.keys() == window.keys()
            for key in window.keys() - {LATENT, ANCHOR, "task"}:
                assert torch.equal(sample[key], window[key]), key
            assert sample["task"] == window["task"]
    batch = next(iter(torch.utils.data.DataLoader(cached, batch_size=8)))
    assert batch[LATENT].shape == (8, 24, 5, 2, 2)
    assert batch[ANCHOR].shape == (8, 2, 3, SIZE, SIZE)


def test_two_processes_write_the_files_of_one(recipe: Path):
    assert cache(recipe, "--phases=8", "--crops=3") == 0
    alone = files(recipe)
    assert len([name for name in alone if "arm" in name]) == 3  # the manifest and two shards
    for name in ("arm", "fast"):
        shutil.rmtree(recipe.parent / name / "latents")
    assert cache(recipe, "--phases=8", "--crops=3", "--part=1/2") == 0
    assert len(files(recipe)) == 3
    assert cache(recipe, "--phases=8", "--crops=3", "--part=0/2") == 0
    assert files(recipe) == alone


def test_an_interrupted_run_goes_on_where_it_was(recipe: Path):
    assert cache(recipe, "--phases=8", "--crops=3") == 0
    whole = files(recipe)
    kept, lost = (recipe.parent / "arm" / "latents" / "arm" / f"shard-00000{n}.safetensors" for n in (0, 1))
    written = kept.stat().st_mtime_ns
    lost.unlink()
    assert cache(recipe, "--phases=8", "--crops=3") == 0
    assert files(recipe) == whole
    assert kept.stat().st_mtime_ns == written


def test_the_size_is_said_first_and_is_right(recipe: Path, capsys: pytest.CaptureFixture[str]):
    assert cache(recipe, "--dtype=bfloat16", "--dry-run") == 0
    said = capsys.readouterr().out
    assert files(recipe) == {}
    assert "arm: 6 windows, 0.000 GB, bfloat16" in said
    assert cache(recipe, "--dtype=bfloat16") == 0
    file = next((recipe.parent / "arm").rglob("shard*"))
    tensors = load_file(file)
    assert tensors[LATENT].dtype == torch.bfloat16
    each = 2 * 24 * 5 * 2 * 2 + 2 * 3 * SIZE * SIZE
    assert sum(tensor.nbytes for tensor in tensors.values()) == 6 * each


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codec_patch": 8, "latent_channels": 24}, "video codec: codec_patch was 16, now 8"),
        ({"image_size": (48, 48)}, r"geometry: image_size was \[32, 32\], now \[48, 48\]"),
        ({"max_chunks": 1}, "frames was"),
        ({"drop_n_last_frames": 4}, "drop_n_last_frames was 2, now 4"),
    ],
)
def test_latents_of_another_policy_are_refused(recipe: Path, options: dict[str, Any], message: str):
    assert cache(recipe) == 0
    with pytest.raises(ValueError, match=f"stale, for {message}.*run lerobot-wam cache"):
        mixture(recipe, **options)


def test_latents_of_another_recording_are_refused_and_renewed(recipe: Path, capsys: pytest.CaptureFixture[str]):
    assert cache(recipe) == 0
    shutil.move(recipe.parent / "arm" / "latents", recipe.parent / "kept")
    shutil.rmtree(recipe.parent / "arm")
    write_dataset(recipe.parent / "arm", (24, 20, 20))
    shutil.move(recipe.parent / "kept", recipe.parent / "arm" / "latents")
    with pytest.raises(ValueError, match="stale, for dataset was"):
        mixture(recipe)
    assert cache(recipe) == 0
    assert "deleted the latents" in capsys.readouterr().out
    assert mixture(recipe).sources[0].latents is not None


def test_latents_of_some_datasets_only_are_refused(recipe: Path):
    assert cache(recipe) == 0
    shutil.rmtree(recipe.parent / "fast" / "latents")
    with pytest.raises(ValueError, match="arm have cached latents, fast none: run lerobot-wam cache for all"):
        mixture(recipe)
    datasets = yaml.safe_load(recipe.read_text())["datasets"]
    datasets[0]["latents"] = "none"
    recipe.write_text(yaml.safe_dump({"datasets": datasets}))
    assert WINDOW in mixture(recipe)[0]
    datasets[0]["latents"] = str(recipe.parent / "elsewhere")
    recipe.write_text(yaml.safe_dump({"datasets": datasets}))
    with pytest.raises(FileNotFoundError, match=r"arm: no latents in .*elsewhere"):
        mixture(recipe)


def test_first_frame_conditioning_is_cached_with_the_latents(recipe: Path):
    assert cache(recipe, "--policy.condition_channels=28") == 0
    config = tiny_config(**(OPTIONS | {"condition_channels": 28}))
    cached, plain = (mixture(recipe, cached, condition_channels=28).sources[1] for cached in (True, False))
    sample = cached.sample(np.random.default_rng(0))
    first = plain.window(int(sample["index"]))[WINDOW][:1].float() / 255 * 2 - 1
    assert torch.equal(sample[CONDITION], FrozenCodecs(config).video.condition(first, 5)[0])


def test_a_policy_trains_on_cached_latents(recipe: Path, tmp_path: Path):
    assert cache(recipe) == 0
    flags = [*FLAGS, "--policy.push_to_hub=false", "--steps=2", "--batch_size=4", "--num_workers=0"]
    assert main(["train", f"--mixture={recipe}", *flags, f"--output_dir={tmp_path / 'run'}"]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--part=2/2"], "--part is '2/2', expected I/N"),
        (["--phases=0"], "--phases is 0"),
        (["--dataset.streaming=true"], "--dataset.streaming is True"),
    ],
)
def test_bad_options_are_one_line(recipe: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str):
    assert cache(recipe, *flags) == 2
    assert message in capsys.readouterr().err
