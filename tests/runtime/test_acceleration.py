"""Accelerated passes compute what eager ones do, and say what they cannot."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from tiny_loops import make_model, make_runtime, run
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.runtime import acceleration
from lerobot_wam.runtime.acceleration import AccelerationSettings, accelerate, fuse_projections
from lerobot_wam.runtime.attention import fastest_attention

FRAME_TOKENS = 4


def actions(model: WorldActionModel, **settings: str) -> Tensor:
    """What one robot does under these settings, in two chunks."""
    runtime = make_runtime(model)
    runtime.passes, _ = accelerate(model, AccelerationSettings(**settings), FRAME_TOKENS)
    return run(runtime, runtime.new_session(0), range(9))


@dataclass
class CompiledRun:
    """Two chunks of two layers, each chunk a window of its own, and the blocks that were compiled for them."""

    model: WorldActionModel
    actions: Tensor
    compiled: int


@pytest.fixture(scope="module")
def compiled_run() -> Iterator[CompiledRun]:
    """Graphs are captured as always, but run without generating code, which would take minutes."""
    counter, model = CompileCounterWithBackend("aot_eager"), make_model(max_chunks=1)
    torch._dynamo.reset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acceleration, "BACKEND", counter)
        yield CompiledRun(model, actions(model, passes="compile"), counter.frame_count)
    torch._dynamo.reset()


def test_compiled_passes_act_as_eager_ones(compiled_run: CompiledRun):
    eager = actions(make_model(max_chunks=1))
    torch.testing.assert_close(compiled_run.actions, eager, rtol=0, atol=1e-5)


def test_layers_and_windows_share_compiled_blocks(compiled_run: CompiledRun):
    assert compiled_run.compiled == 2  # a step that writes the observation, and one that does not


def test_blocks_are_plain_outside_a_pass(compiled_run: CompiledRun):
    assert all("forward" not in vars(block) for block in compiled_run.model.blocks)


def test_a_failing_compiler_leaves_plain_blocks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def broken(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> None:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(acceleration, "BACKEND", broken)
    torch._dynamo.reset()
    model = make_model()
    torch.testing.assert_close(actions(model, passes="compile"), actions(model), rtol=0, atol=1e-5)
    assert caplog.text.count("torch.compile is off") == 1
    assert "no compiler here" in caplog.text


def test_graphs_without_a_gpu_are_compiled_only():
    _, lines = accelerate(make_model(), AccelerationSettings("graphs"), FRAME_TOKENS)
    assert "graphs: needs a CUDA GPU, the model is on cpu" in lines[-1]


def test_default_settings_change_nothing():
    model = make_model()
    passes, lines = accelerate(model, AccelerationSettings(), FRAME_TOKENS)
    assert passes is acceleration.EAGER
    assert lines == []
    assert model.blocks[0].self_attn.fused_weight is None


@pytest.mark.parametrize("field", ["passes", "quantization", "attention"])
def test_unknown_settings_are_refused(field: str):
    with pytest.raises(ValueError, match=f"{field} is 'fastest'; choose one of"):
        AccelerationSettings(**{field: "fastest"})


def test_fused_projections_act_as_three():
    model = make_model()
    three = actions(model)
    fuse_projections(model)
    assert model.blocks[0].self_attn.fused_weight is not None
    torch.testing.assert_close(actions(model), three, rtol=0, atol=1e-5)


def test_fused_projections_keep_names_and_values():
    model = make_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    fuse_projections(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_fused_projections_follow_training():
    model = make_model()
    fuse_projections(model)
    attention = model.blocks[0].self_attn
    x = torch.randn(1, 3, model.config.dim)
    attention.q.requires_grad_(True)
    attention.train().project(x)[0].sum().backward()
    torch.optim.SGD([attention.q.weight], lr=0.1).step()
    torch.testing.assert_close(attention.eval().project(x)[0], attention.q(x))
    assert attention.q.weight.grad is not None


def test_projections_with_adapters_stay_three():
    model = make_model()
    model.blocks[0].self_attn.q = torch.nn.Sequential(model.blocks[0].self_attn.q)
    fuse_projections(model)
    assert [block.self_attn.fused_weight is None for block in model.blocks] == [True, False]


def test_a_named_attention_kernel_is_used():
    model = make_model()
    runtime = make_runtime(model)
    runtime.passes, lines = accelerate(model, AccelerationSettings(attention="math"), FRAME_TOKENS)
    assert lines[0].startswith("attention math: measured math ")
    with torch.profiler.profile() as profile:
        run(runtime, runtime.new_session(0), [0])
    kernels = {event.key for event in profile.key_averages() if "scaled_dot_product" in event.key}
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" not in kernels
    assert "aten::_scaled_dot_product_attention_math" in kernels


def test_an_attention_kernel_that_does_not_run_here_is_left_out():
    passes, lines = accelerate(make_model(), AccelerationSettings(attention="cudnn"), FRAME_TOKENS)
    assert passes is acceleration.EAGER
    assert lines == ["attention cudnn: does not run on cpu at head width 16; torch chooses"]


def test_the_fastest_attention_kernel_leads_its_table():
    fastest, table = fastest_attention(torch.device("cpu"), torch.float32, [(1, 2, 16, 32, 16)])
    assert set(table) == {"flash", "math"}  # what a CPU has
    assert table[str(fastest)] == min(table.values())
