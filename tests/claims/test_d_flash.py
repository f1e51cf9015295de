"""Claim D: few steps against many, decoupled against coupled training."""

import json
from pathlib import Path
from typing import Any

import pytest
from lerobot_commands import in_process

pytest.importorskip("mujoco")

from benchmarks import common
from benchmarks.claims import d_flash, scales
from benchmarks.claims.cells import result_file, run
from benchmarks.claims.data import entry
from benchmarks.claims.findings import NOT_YET
from benchmarks.claims.prior import video_loss
from benchmarks.claims.scales import CPU, SMOKE
from lerobot_wam.modeling_wam import WAMPolicy


def record(outcomes: str) -> dict[str, Any]:
    return {"metrics": {"outcomes": outcomes}}


def every(coupled_1: str, coupled_8: str, decoupled_1: str) -> dict[str, Any]:
    found = {("coupled", 1): coupled_1, ("coupled", 8): coupled_8, ("decoupled", 1): decoupled_1}
    return {
        d_flash.cell_name(mode, steps, seed): record(outcomes)
        for (mode, steps), outcomes in found.items()
        for seed in CPU.seeds
    }


def test_a_cell_for_each_training_and_number_of_steps_and_one_for_time():
    names = [cell.name for cell in d_flash.cells(CPU)]
    assert len(set(names)) == len(names) == 2 * 4 * 3 + 1
    assert set(names[:4]) == {f"{mode}-{steps}_steps-seed_0" for mode in ("coupled", "decoupled") for steps in (1, 8)}
    assert names[-1] == "chunk_latency"


def test_only_the_decoupled_policy_leaves_noise_in_its_video():
    assert d_flash.acting("decoupled", 2)["video_final_sigma"] == 0.8
    assert d_flash.acting("coupled", 2)["video_final_sigma"] == 0


def test_one_step_is_nearly_as_good_where_it_loses_less_than_the_margin():
    good, better = d_flash.report(CPU, every("0011" * 25, "1111" * 25, "1111" * 25)).findings
    assert (good.verdict, better.verdict) == ("holds", "holds")
    good, better = d_flash.report(CPU, every("1111" * 25, "1111" * 25, "0111" * 25)).findings
    assert (good.verdict, better.verdict) == ("does not hold", "does not hold")
    assert good.value == "-25 points"


def test_nothing_is_decided_while_a_training_is_missing():
    records = every("0011" * 25, "1111" * 25, "1111" * 25)
    del records[d_flash.cell_name("decoupled", 1, 2)]
    found = d_flash.report(CPU, records)
    assert [finding.verdict for finding in found.findings] == [NOT_YET, NOT_YET]
    assert found.metrics["changes"]["nearly_as_good"]["seeds"] == 2
    assert [finding.verdict for finding in d_flash.report(CPU, {}).findings] == [NOT_YET, NOT_YET]


def test_time_stands_beside_success():
    latency = {"metrics": {"chunk_latency_p50_ms_by_steps": {"1": 7.0, "2": 13.0, "4": 25.0, "8": 49.0}}}
    (table,) = d_flash.report(CPU, every("01", "11", "11") | {d_flash.LATENCY: latency}).tables
    assert table.rows["decoupled, 1 step"] == ["100 % (61–100)", "7 ms"]
    assert table.rows["coupled, 8 steps"][1] == "49 ms"


def test_a_small_run_learns_and_a_second_one_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(scales, "OUTPUTS", tmp_path / "outputs")
    wanted = d_flash.cells(SMOKE)[:1]
    with in_process("lerobot-train"), in_process("lerobot-eval"):
        (file,) = run(SMOKE, wanted)
        metrics = json.loads(file.read_text())["metrics"]
        assert file == result_file(SMOKE, wanted[0])
        assert metrics["successes"] == metrics["outcomes"].count("1")
        checkpoint = d_flash.policy(SMOKE, "coupled", 0)
    learned, recording = WAMPolicy.from_pretrained(checkpoint), [entry(tmp_path / "outputs/smoke/demo/dataset")]
    assert video_loss(learned, recording) < 0.9 * video_loss(WAMPolicy(learned.config), recording)
    monkeypatch.setattr(d_flash, "trained", lambda *_: checkpoint)
    assert run(SMOKE, wanted) == []
    monkeypatch.setattr(d_flash, "_TURNS", 1)
    assert set(d_flash.chunk_latency(SMOKE)["chunk_latency_p50_ms_by_steps"]) == {"1", "2", "4", "8"}
