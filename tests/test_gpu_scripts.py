"""The scripts for a GPU run from end to end in tiny sizes on the CPU, without LeRobot, and say what is not measured."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import common

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks/gpu"
SCRIPTS = sorted(file.stem for file in FOLDER.glob("[0-9]*.py"))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for results in place of the published ones."""
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    return tmp_path


def dry_run(script: str, results: Path, *more: str) -> dict[str, Any]:
    words = ["--tiny", "--device=cpu", "--repetitions=1", "--seconds=100000", *more]
    importlib.import_module(f"benchmarks.gpu.{script}").main(words)
    result = json.loads((results / f"gpu_{script}.json").read_text())
    assert result["command"].startswith(f"PYTHONPATH=src python -m benchmarks.gpu.{script} --tiny")
    assert result["metrics"]["tiny"] is True
    return result["metrics"]


def test_the_device_script_measures_the_limits(results: Path):
    metrics = dry_run("01_device", results)
    assert metrics["bfloat16"]["tflop_per_s"] > 0
    assert metrics["float32"]["copy_tb_per_s"] > 0


@pytest.mark.parametrize(
    ("script", "speeds"), [("02_14b_ladder", ["official"]), ("03_5b_ladder", ["official", "fast", "flash"])]
)
def test_a_ladder_measures_every_speed_on_every_rung(script: str, speeds: list[str], results: Path):
    metrics = dry_run(script, results, "--speeds", *speeds)
    rungs = ("plain eager", "nothing twice", "attention backend", "compiled", "CUDA graphs", "FP8")
    parts = {f"{rung}, {speed}" for rung in rungs for speed in speeds}
    assert parts <= set(metrics)
    for part in parts:
        if part.startswith("FP8") and "failed" in metrics[part]:  # this CPU has no such product
            continue
        found = metrics[part]
        assert found["stages_ms"]["vae"]["p50"] > 0
        assert 0 < found["reaction_ms"] <= found["chunk_ms"]
        assert found["roofline_fraction"] > 0
        assert 0 < found["distance_from_float32"]["actions"] < 0.2
    plain, saved = (metrics[f"{rung}, official"]["passes_per_chunk"] for rung in ("plain eager", "nothing twice"))
    assert plain > 2 * saved  # both branches, and the observation, had passes of their own


@pytest.mark.parametrize("script", ["04_5b_training", "05_14b_lora_training", "06_nano_training"])
def test_a_training_script_measures_every_way(script: str, results: Path):
    metrics = {part: found for part, found in dry_run(script, results).items() if part != "tiny"}
    assert metrics
    for found in metrics.values():
        assert found["step_s"] > 0
        assert found["loss"] > 0
    trained = {part.partition(",")[0]: found["trained_m"] for part, found in metrics.items()}
    if script == "04_5b_training":
        assert trained["LoRA"] < trained["everything"]


def test_a_part_that_fails_is_recorded_and_the_next_one_runs(results: Path):
    frame = importlib.import_module("benchmarks.gpu.frame")
    report = frame.Report("some", frame.arguments("", ["--tiny", "--device=cpu"]))

    def fail() -> dict[str, Any]:
        raise RuntimeError("out of memory\nand a long story")

    report.attempt("first", fail)
    report.attempt("second", lambda: {"step_s": 1.0})
    report.args.seconds = 0
    report.attempt("third", fail)
    metrics = json.loads((results / "gpu_some.json").read_text())["metrics"]
    assert metrics["first"] == {"failed": "RuntimeError: out of memory"}
    assert metrics["second"] == {"step_s": 1.0}
    assert "not_reached" in metrics["third"]


def test_nothing_of_lerobot_is_needed():
    program = f"""
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lerobot", "diffusers"):
            raise ImportError(f"{{name}} is imported where it may be absent")
sys.meta_path.insert(0, Refuse())
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "src")!r}]
for name in {SCRIPTS}:
    importlib.import_module("benchmarks.gpu." + name)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_readme_says_what_is_not_measured():
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", (FOLDER / "README.md").read_text(), flags=re.MULTILINE)
    assert [name for name, _ in rows] == SCRIPTS
    for name, status in rows:
        measured = (ROOT / f"benchmarks/results/gpu_{name}.json").is_file()
        assert (status != "not yet measured") == measured, f"{name}: {status}"
