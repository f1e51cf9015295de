"""The benchmark of injected latency: what it holds back, measures and keeps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco")

from tiny_loops import make_model, make_runtime, run, see

from benchmarks import common, injected_latency


def test_a_synchronous_chunk_comes_late_and_whole():
    runtime = make_runtime(make_model())
    loop = injected_latency.SynchronousLoop(runtime, seed=0, delay=3, category=0)
    late = [loop.act(see(step)) for step in range(14)]
    assert [action is None for action in late] == [True] * 3 + [False] * 8 + [True] * 3
    first = runtime.plan([runtime.new_session(0)], [see(0)])[0].actions
    assert torch.equal(torch.stack(late[3:11]), first)
    prompt = injected_latency.SynchronousLoop(runtime, seed=0, delay=0, category=0)
    assert torch.equal(
        torch.stack([prompt.act(see(step)) for step in range(12)]), run(runtime, runtime.new_session(0), range(12))
    )


def test_jerk_is_the_third_difference_over_time_cubed():
    time = np.arange(6) / 10
    assert injected_latency.jerk(np.stack([time**3, 0 * time], axis=1), fps=10) == pytest.approx(3.0)


def test_a_run_writes_every_cell_and_a_second_one_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    policy = common.nano_policy("cpu", 0, num_inference_steps=1, num_layers=1, ema_decay=0.0)
    policy.save_pretrained(tmp_path / "policy")
    words = [f"--checkpoint={tmp_path / 'policy'}", f"--folder={tmp_path / 'runs'}", "--latencies=0,300"]
    words += ["--episodes=2", "--episode-length=9", "--ways=synchronous,guide"]

    def metrics() -> dict[str, Any]:
        injected_latency.main(words)
        return json.loads((tmp_path / "results/injected_latency.json").read_text())["metrics"]

    found = metrics()
    cells = found["by_way_and_latency_ms"]
    assert {way: list(row) for way, row in cells.items()} == {way: ["0", "300"] for way in ("synchronous", "guide")}
    assert cells["guide"]["300"]["against_synchronous"]["scenes"] == 2
    assert cells["synchronous"]["0"]["waited_share"] == 0
    assert cells["synchronous"]["300"]["waited_share"] >= 3 / 9
    assert (tmp_path / "runs/injected_latency.svg").read_text().startswith("<svg")
    monkeypatch.setattr(injected_latency, "drive", None)
    assert metrics() == found
