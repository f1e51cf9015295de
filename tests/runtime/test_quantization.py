"""Blocks in fewer bits: how far from float32, what is left alone, and what is said."""

import sys

import pytest
import torch
from tiny_loops import make_model, make_runtime, see
from torch import Tensor

from lerobot_wam.bench.measure import distance
from lerobot_wam.runtime.acceleration import AccelerationSettings, accelerate
from lerobot_wam.runtime.quantization import is_quantized
from lerobot_wam.runtime.session import Runtime

FRAME_TOKENS = 4


def first_chunk(runtime: Runtime) -> list[tuple[Tensor, Tensor | None]]:
    dream = runtime.plan([runtime.new_session(0)], [see(0)])[0]
    return [(dream.actions, dream.latents)]


@pytest.fixture(scope="module")
def torchao() -> None:
    pytest.importorskip("torchao")


def test_int8_stays_near_float32(torchao: None):
    model = make_model()
    runtime = make_runtime(model)
    exact = first_chunk(runtime)
    _, lines = accelerate(model, AccelerationSettings(quantization="int8"), FRAME_TOKENS)
    found = distance(first_chunk(runtime), exact)
    assert all(0 < error < 0.02 for error in found.values()), found
    # Per block: q, k and v as one, o; q, k, v and o to the text; two of the feed-forward.
    assert lines == [f"quantization int8: {8 * len(model.blocks)} matrices of the blocks, an approximation"]


def test_only_the_blocks_are_quantised(torchao: None):
    model = make_model()
    accelerate(model, AccelerationSettings(quantization="int8"), FRAME_TOKENS)
    assert all(is_quantized(block) for block in model.blocks)
    assert not any(is_quantized(child) for name, child in model.named_children() if name != "blocks")


def test_accelerating_a_quantised_model_again_leaves_it(torchao: None):
    model = make_model()
    settings = AccelerationSettings(quantization="int8")
    accelerate(model, settings, FRAME_TOKENS)
    assert accelerate(model, settings, FRAME_TOKENS)[1] == []


@pytest.mark.parametrize("kind", ["fp8", "int4"])
def test_what_needs_a_gpu_leaves_weights_on_a_cpu(kind: str):
    model = make_model()
    _, lines = accelerate(model, AccelerationSettings(quantization=kind), FRAME_TOKENS)
    assert lines == [f"quantization {kind} needs a CUDA GPU: weights stay in float32"]
    assert not is_quantized(model)


def test_a_missing_torchao_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs torchao: pip install 'lerobot_policy_wam\[quant\]'"):
        accelerate(make_model(), AccelerationSettings(quantization="int8"), FRAME_TOKENS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize(("kind", "bound"), [("fp8", 0.1), ("int4", 0.3)])
def test_on_a_gpu_the_others_stay_near_bfloat16(torchao: None, kind: str, bound: float):
    model = make_model(dim=256, ffn_dim=256).to("cuda", torch.bfloat16)
    runtime = make_runtime(model)
    exact = first_chunk(runtime)
    accelerate(model, AccelerationSettings(quantization=kind), FRAME_TOKENS)
    assert is_quantized(model)
    found = distance(first_chunk(runtime), exact)
    assert all(error < bound for error in found.values()), found
