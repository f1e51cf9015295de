"""`lerobot-wam bench`: one command for any preset and checkpoint, a table for people, JSON for machines."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lerobot_wam.bench import random_weights
from lerobot_wam.bench.random_policy import random_config, random_policy
from lerobot_wam.bench.run import Plan, Setting, bench
from lerobot_wam.bench.text import as_text
from lerobot_wam.cli.main import BAD_INPUT, main

TINY = {"dim": 32, "num_heads": 2, "num_layers": 1, "ffn_dim": 32, "freq_dim": 16, "action_hidden": 16}
QUICK = ("--device=cpu", "--chunks=2", "--warmup=2", "--set=" + ",".join(f"{k}={v}" for k, v in TINY.items()))


def test_one_setting_is_a_table_and_a_file(tmp_path: Path, capsys: pytest.CaptureFixture):
    file = tmp_path / "bench.json"
    assert main(["bench", *QUICK, "--robots=2", f"--json={file}"]) == 0
    shown = capsys.readouterr().out
    for words in ("nano, random weights, on cpu, 2 robots", "reaction", "p99", "chunks/s", "of the roofline"):
        assert words in shown
    record = json.loads(file.read_text())
    assert set(record) == {"command", "date", "machine", "versions", "seed", "metrics"}
    assert torch.__version__.startswith(record["versions"]["torch"])
    (one,) = record["metrics"]["measured"]
    assert one["settings"]["num_inference_steps"] == 4
    assert one["settings"]["dim"] == 32
    assert one["approximations"] == ["num_inference_steps=4 solver steps, 16 are exact"]
    assert one["distance_from_eager_float32"] is None  # it is just that
    assert one["stages_ms"]["chunk"]["n"] == 2
    assert 0 < one["stages_ms"]["denoise"]["p50"] < one["stages_ms"]["reaction"]["p50"]
    assert one["stages_ms"]["text"]["p50"] > 0
    assert 0 < one["tflop_per_s"] < one["matmul_tflop_per_s"]
    assert one["roofline_fraction"] > 0


def test_two_settings_are_put_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture):
    file = tmp_path / "bench.json"
    compare = "--compare=dtype=bfloat16,guidance=3,without=remember_context,without=fuse_observation"
    assert main(["bench", *QUICK, "--speed=fast", compare, f"--json={file}"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "B / A" in shown
    assert "without remember_context, without fuse_observation" in shown
    metrics = json.loads(file.read_text())["metrics"]
    first, second = metrics["measured"]
    assert (first["settings"]["guidance_scale"], second["settings"]["guidance_scale"]) == (1.0, 3.0)
    assert second["without"] == ["remember_context", "fuse_observation"]
    assert "observe" not in first["stages_ms"]
    assert "observe" in second["stages_ms"]
    assert set(second["distance_from_eager_float32"]) == {"actions", "video"}
    assert 0 < second["distance_from_eager_float32"]["video"] < 0.1
    ratio = metrics["second_over_first"]["chunk"]
    assert ratio["low_95"] <= ratio["ratio"] <= ratio["high_95"]


def test_a_checkpoint_is_measured_with_its_own_settings(tmp_path: Path, capsys: pytest.CaptureFixture):
    random_policy(random_config("nano", "cpu", **TINY, num_inference_steps=2)).save_pretrained(tmp_path)
    assert main(["bench", f"--policy.path={tmp_path}", *QUICK[:3], "--no-distance", "--compare=speed=flash"]) == 0
    shown = capsys.readouterr().out
    assert "num_inference_steps=2" in shown
    assert "num_inference_steps=1" in shown
    assert "video_final_sigma=0.8" in shown


def test_a_large_preset_is_measured_with_all_its_parts(monkeypatch: pytest.MonkeyPatch):
    """At tiny sizes; the frozen parts are the library's classes, as at full size."""
    words = {"vocab_size": 64, "d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    clip = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    monkeypatch.setattr(random_weights, "UMT5", words)
    monkeypatch.setattr(random_weights, "CLIP", clip | {"image_size": 28, "patch_size": 14})
    monkeypatch.setitem(random_weights.VAE, "wan2.1", {"base_dim": 4, "num_res_blocks": 1})
    fields: dict[str, Any] = {"text_dim": 24, "image_dim": 16, "image_size": (16, 16), "text_length": 8}
    setting = Setting(TINY | fields | {"speed": "fast"})
    result = bench(Plan((setting,), preset="wan2.1-14b", chunks=4, warmup=2))
    (one,) = result["measured"]
    assert one["settings"]["weights_dtype"] == "bfloat16"
    stages = {"vae", "text", "image", "denoise", "decode", "chunk", "reaction"}
    assert set(one["stages_ms"]) == stages
    assert one["actions_per_chunk"] == 24
    assert one["passes_per_chunk"] == 4
    assert 0 < one["distance_from_eager_float32"]["actions"] < 0.1
    assert "image encoder" in as_text(result)


def test_what_this_machine_cannot_do_is_part_of_the_result():
    setting = Setting(TINY | {"attention": "cudnn"})
    (one,) = bench(Plan((setting,), preset="nano", chunks=1, warmup=2, compare_exact=False))["measured"]
    assert any("cudnn" in line and "cpu" in line for line in one["notes"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--without=frames"], "no saving 'frames'"),
        (["--compare=colour=red"], "no field 'colour'"),
        (["--device=cuda"], "use --device=cpu"),
        (["--chunks=0"], "--chunks is 0"),
        (["--preset=large"], "wan2.1-14b"),
        (["--speed=ludicrous"], "exact, official, fast, flash"),
    ],
)
def test_what_cannot_be_measured_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture):
    if words == ["--device=cuda"] and torch.cuda.is_available():
        pytest.skip("there is one")
    assert main(["bench", "--device=cpu", *words]) == BAD_INPUT
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") <= 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_random_weights_are_the_same_in_every_type(dtype: torch.dtype):
    first = random_policy(random_config("nano", "cpu", **TINY)).model
    other = random_policy(random_config("nano", "cpu", **TINY, weights_dtype=str(dtype).removeprefix("torch."))).model
    assert other.dtype == dtype
    for (name, a), b in zip(first.named_parameters(), other.parameters(), strict=True):
        if not name.endswith(("norm_q.weight", "norm_k.weight", "norm3.weight")):
            assert torch.equal(a, b.float()), name
    q, k = first.blocks[0].self_attn.q.weight, first.blocks[0].self_attn.k.weight
    assert not torch.equal(q, k)
