"""The benchmarks run, and every published number says how it was made."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import cache_speed, common, demo_result, long_episode, step_cost

ROOT = Path(__file__).parents[1]
KEYS = {"command", "date", "commit", "machine", "versions", "seed", "metrics"}


@pytest.fixture
def results(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder for results in place of the published ones."""
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    threads = torch.get_num_threads()
    yield tmp_path / "results"
    torch.set_num_threads(threads)


def read(path: Path) -> dict[str, Any]:
    result = json.loads(path.read_text())
    assert set(result) == KEYS
    assert script_of(result["command"]).is_file(), result["command"]
    assert result["commit"]
    assert {"processor", "accelerator"} <= set(result["machine"])
    assert {"python", "torch", "lerobot"} <= set(result["versions"])
    return result


def script_of(command: str) -> Path:
    """The file of this repository that a result's command runs."""
    program, *words = [word for word in shlex.split(command) if "=" not in word or word.startswith("-")]
    if program == "lerobot-wam":
        return ROOT / "src/lerobot_wam/cli" / f"{words[0]}.py"
    module = words[words.index("-m") + 1] if "-m" in words else words[0].removesuffix(".py").replace("/", ".")
    return ROOT / f"{module.replace('.', '/')}.py"


def test_published_results_say_how_to_repeat_them():
    for path in sorted((ROOT / "benchmarks/results").glob("*.json")):
        result = read(path)
        assert str(ROOT) not in path.read_text()
        assert isinstance(result["metrics"], dict)


def test_step_cost_compares_policies_of_one_size(results):
    step_cost.main(["--repetitions=1", "--batch-size=1"])
    metrics = read(results / "step_cost.json")["metrics"]
    assert set(metrics["train"]) == {"wam_nano", "act", "diffusion", "act_resnet18", "diffusion_resnet18"}
    for name in ("act", "diffusion"):
        assert metrics["train"][name]["n_parameters_over_nano"] == pytest.approx(1, abs=0.15)
    for row in metrics["train"].values():
        assert row["train_step_ms_p90"] >= row["train_step_ms_p50"] > 0
        assert row["samples_per_s"] == pytest.approx(1000 / row["train_step_ms_p50"])
    assert {"wam_nano, 4 steps", "wam_nano, 1 step", "act", "diffusion, 10 DDIM steps"} <= set(metrics["act"])
    for row in metrics["act"].values():
        assert row["chunk_latency_p95_ms"] >= row["chunk_latency_p50_ms"] > 0


def test_long_episode_measures_every_chunk_and_its_cache(results):
    long_episode.main(["--repetitions=2", "--chunks=9"])
    metrics = read(results / "long_episode.json")["metrics"]
    window = metrics["window_chunks"]
    assert len(metrics["chunk_ms_median"]) == len(metrics["cache_bytes"]) == 9
    assert len(metrics["window_chunk_ms_mean"]) == 9 // window
    assert len(set(metrics["cache_bytes"])) == 1  # taken at once, and kept from window to window
    ratio = metrics["last_window_chunk_ms_mean"] / metrics["first_window_chunk_ms_mean"]
    assert metrics["last_over_first_window_cost"] == pytest.approx(ratio)


def test_cache_speed_reads_the_windows_that_it_encodes(results, monkeypatch):
    monkeypatch.setattr("sys.argv", ["cache_speed", "--size=32", "--repetitions=1"])
    cache_speed.main()
    metrics = read(results / "cache_speed_32.json")["metrics"]
    assert (metrics["cameras"], metrics["frames_per_window"]) == (2, 33)
    ratio = metrics["without"]["core_seconds_per_sample"] / metrics["with"]["core_seconds_per_sample"]
    assert metrics["core_seconds_ratio"] == pytest.approx(ratio)


def write_demo(folder: Path, quick: bool = False) -> Path:
    folder.mkdir()
    plan = {"folder": str(folder), "arm": "viperx", "episodes": 8, "steps": 5, "seed": 3, "quick": quick}
    results = {"environment": common.environment(), "seed": 3, "metrics": {"success_rate": 0.5, "plan": plan}}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "timings.json").write_text("{}")
    (folder / "report.html").write_text("")
    return folder


def test_a_finished_demo_is_published_without_its_folder(results, tmp_path):
    demo_result.main([f"--demo={write_demo(tmp_path / 'demo')}", "--commit=abc1234"])
    text = (results / "nano_demo_viperx.json").read_text()
    result = read(results / "nano_demo_viperx.json")
    assert result["command"] == "lerobot-wam demo --arm=viperx --episodes=8 --steps=5 --seed=3"
    assert (result["seed"], result["commit"], result["metrics"]["success_rate"]) == (3, "abc1234", 0.5)
    assert str(tmp_path) not in text


def test_a_quick_or_unfinished_demo_is_refused_in_one_line(results, tmp_path):
    unfinished = write_demo(tmp_path / "unfinished")
    (unfinished / "report.html").unlink()
    quick = write_demo(tmp_path / "quick", quick=True)
    for folder, reason in ((unfinished, "has no report.html"), (quick, "quick run"), (tmp_path / "no", "results.json")):
        with pytest.raises(SystemExit, match=reason) as stop:
            demo_result.main([f"--demo={folder}"])
        assert "\n" not in str(stop.value.code)
    assert not results.exists()
