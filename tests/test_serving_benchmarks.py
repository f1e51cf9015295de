"""The soak and the throughput measurement run, and say what they found."""

import json
from pathlib import Path
from typing import Any

import pytest
import served_policies  # noqa: F401 (finds benchmarks/)

from benchmarks import common, serving, soak


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    return tmp_path


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())["metrics"]


def test_a_soak_counts_what_it_did_and_what_it_cost(results):
    soak.main(["--messages=60", "--steps=400"])
    metrics = read(results / "soak.json")
    attacked, driven = metrics["under_attack"], metrics["drive"]
    assert attacked["messages"] == 60
    assert attacked["answers"]["bad_message"] > 0
    assert attacked["good_robot_steps"] > 0
    assert (driven["control_steps"], driven["episodes"], driven["connections"]) == (400, 2, 1)
    assert 0 < driven["rss_mb_after_warm_up"] <= driven["rss_mb_largest"]


def test_a_soak_fails_where_memory_grows(monkeypatch):
    sizes = iter(range(1000))
    monkeypatch.setattr(soak, "resident_mb", lambda: next(sizes))
    with pytest.raises(RuntimeError, match=r"memory grew by .* MB in 100 steps"):
        soak.drive(100, seed=0)


def test_throughput_is_measured_near_and_far_for_every_number_of_robots(results, monkeypatch):
    monkeypatch.setattr(serving, "ROBOTS", (1, 2))
    serving.main(["--repetitions=1"])
    metrics = read(results / "serving.json")
    for kind in ("near", "far_at_control_rate", "far_at_full_speed"):
        assert set(metrics[kind]) == {"1", "2"}
        for row in metrics[kind].values():
            assert row["chunk_latency_p99_ms"] >= row["chunk_latency_p50_ms"] > 0
            assert row["chunks_per_s"] > 0
    assert [metrics["far_at_full_speed"][robots]["n_chunks"] for robots in ("1", "2")] == [1, 2]
