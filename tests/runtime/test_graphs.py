"""What is recorded, replayed and recorded anew; the capture itself is a stand-in where there is no GPU."""

from collections.abc import Callable

import pytest
import torch
from tiny_loops import make_model, make_runtime, run
from torch import Tensor

from lerobot_wam.runtime import graphs
from lerobot_wam.runtime.acceleration import EAGER, AccelerationSettings, accelerate
from lerobot_wam.runtime.graphs import Graphs


class Recorder:
    """Captures as CUDA does, for all that a caller can tell: results keep their addresses, only a replay moves them."""

    def __init__(self) -> None:
        self.captured = 0

    def __call__(self, function: Callable[[], tuple[Tensor, ...]]) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        """Record by calling."""
        self.captured += 1
        outputs = function()

        def replay() -> None:
            for out, new in zip(outputs, function(), strict=True):
                out.copy_(new)

        return replay, outputs


def add(memory: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """A pass that reads what persists."""
    return lambda x: (x + memory,)


def test_a_pass_is_recorded_once_and_replayed_on_new_inputs():
    recorder, memory = Recorder(), torch.ones(2)
    passes = Graphs(EAGER, recorder)
    for value in (1.0, 2.0):
        (out,) = passes.run(add(memory), (memory,), (torch.full((2,), value),), "pass")
        assert out.tolist() == [value + 1] * 2
    assert recorder.captured == 1


def test_a_replay_reads_what_persistent_tensors_hold_now():
    passes, memory, x = Graphs(EAGER, Recorder()), torch.ones(2), torch.zeros(2)
    passes.run(add(memory), (memory,), (x,), "pass")
    memory.fill_(5)
    assert passes.run(add(memory), (memory,), (x,), "pass")[0].tolist() == [5, 5]


def test_results_survive_the_next_replay():
    passes, memory = Graphs(EAGER, Recorder()), torch.zeros(2)
    (first,) = passes.run(add(memory), (memory,), (torch.ones(2),), "pass")
    passes.run(add(memory), (memory,), (torch.zeros(2),), "pass")
    assert first.tolist() == [1, 1]


def test_inputs_of_the_caller_stay_as_they_are():
    passes, memory, x = Graphs(EAGER, Recorder()), torch.zeros(2), torch.ones(2)
    passes.run(add(memory), (memory,), (x,), "pass")
    passes.run(add(memory), (memory,), (torch.zeros(2),), "pass")
    assert x.tolist() == [1, 1]


@pytest.mark.parametrize("change", ["key", "shape", "dtype", "address", "strides of what persists"])
def test_what_a_recording_depends_on_makes_a_new_one(change: str):
    recorder, memory, x = Recorder(), torch.zeros(2, 2), torch.zeros(2, 2)
    passes = Graphs(EAGER, recorder)
    passes.run(add(memory), (memory,), (x,), "pass")
    other = {"address": torch.zeros(2, 2), "strides of what persists": memory.T}.get(change, memory)
    given = {"shape": torch.zeros(1, 2), "dtype": x.double()}.get(change, x)
    passes.run(add(other), (other,), (given,), "other pass" if change == "key" else "pass")
    assert recorder.captured == 2


def test_the_recording_that_was_not_used_longest_goes_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(graphs, "RECORDINGS", 2)
    recorder, memory, x = Recorder(), torch.zeros(2), torch.zeros(2)
    passes = Graphs(EAGER, recorder)
    for key in ("a", "b", "a", "c", "a"):
        passes.run(add(memory), (memory,), (x,), key)
    assert recorder.captured == 3
    passes.run(add(memory), (memory,), (x,), "b")
    assert recorder.captured == 4


def test_a_failing_capture_ends_recording_with_a_reason(caplog: pytest.LogCaptureFixture):
    def refuse(function: Callable[[], tuple[Tensor, ...]]) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    passes, memory = Graphs(EAGER, refuse), torch.ones(2)
    for value in (1.0, 2.0):
        (out,) = passes.run(add(memory), (memory,), (torch.full((2,), value),), "pass")
        assert out.tolist() == [value + 1] * 2
    assert caplog.text.count("CUDA graphs are off, operation not permitted when stream is capturing:") == 1


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_replayed_loop_acts_as_an_eager_one(guidance: float):
    model, recorder = make_model(), Recorder()
    eager = make_runtime(model, guidance=guidance)
    replayed = make_runtime(model, guidance=guidance)
    replayed.passes = Graphs(EAGER, recorder)
    expected = run(eager, eager.new_session(0), range(64))
    torch.testing.assert_close(run(replayed, replayed.new_session(0), range(64)), expected, rtol=0, atol=1e-5)


def test_the_second_window_records_nothing():
    recorder = Recorder()
    runtime = make_runtime(make_model())
    runtime.passes = Graphs(EAGER, recorder)
    session = runtime.new_session(0)
    run(runtime, session, range(32))
    recorded = recorder.captured
    run(runtime, session, range(32, 64))
    assert recorder.captured == recorded


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_graphs_act_as_eager_passes():
    model = make_model().cuda()
    eager, replayed = make_runtime(model), make_runtime(model)
    replayed.passes, _ = accelerate(model, AccelerationSettings("graphs"), 4)
    expected = run(eager, eager.new_session(0), range(64))
    torch.testing.assert_close(run(replayed, replayed.new_session(0), range(64)), expected, rtol=0, atol=1e-3)
