"""The benchmark of what is not computed twice: every saving against its absence, and a difference is an error."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from benchmarks import common, fill_results, lossless
from lerobot_wam.runtime.state import Savings

CASE = "image branch, first-frame channels, guidance"
TINY = {"dim": 32, "num_heads": 2, "num_layers": 1, "ffn_dim": 32}


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(lossless, "CASES", {CASE: lossless.CASES[CASE] | TINY})
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    return tmp_path


def test_every_saving_is_timed_and_changes_nothing(results: Path):
    lossless.main(["--repetitions=1"])
    found = json.loads((results / "lossless.json").read_text())["metrics"][CASE]
    assert set(found) == {"all", "none", *(field.name for field in fields(Savings))}
    for one in found.values():
        assert one["max_abs_difference"] <= lossless.TOLERANCE
        assert one["all_over_this"] == pytest.approx(found["all"]["chunk_ms_p50"] / one["chunk_ms_p50"])
    assert f"| chunk with nothing computed twice, {CASE} |" in fill_results.readme_table(results)
    assert "Nothing computed twice" in fill_results.results_page(results)


def test_a_saving_that_changes_something_is_no_result(results: Path, monkeypatch):
    monkeypatch.setattr(lossless, "TOLERANCE", -1.0)
    monkeypatch.setattr(lossless, "SAVINGS", ["preallocate"])
    with pytest.raises(SystemExit, match="results differ by"):
        lossless.main(["--repetitions=1"])
    assert not (results / "lossless.json").exists()
