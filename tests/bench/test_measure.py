"""A closed loop under a clock: what is timed, what is counted, and how two settings are compared."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_loops import CHUNKS, SIZE, STEPS, make_model, make_runtime

from lerobot_wam.bench.cost import PassShape
from lerobot_wam.bench.measure import COMPARED, Loop, distance, measure, percentiles, summarise, time_ratio
from lerobot_wam.bench.roofline import Roofline
from lerobot_wam.runtime.state import Savings

CONDITIONED = {"image_dim": 3, "condition_channels": 28}
CELLS, CONTEXT = 4, 6 + 4


def make_loop(savings: Savings | None = None, robots: int = 1, action_only: bool = False, **sampler: object) -> Loop:
    runtime = make_runtime(make_model(**CONDITIONED), savings=savings, action_only=action_only, **sampler)
    return Loop(runtime, (SIZE, SIZE), category=0, robots=robots, seed=0)


def test_every_stage_of_every_chunk_is_measured():
    loop = make_loop(Savings(fuse_observation=False))
    for _ in range(CHUNKS):
        loop.chunk()
    measure([loop], CHUNKS)  # a whole window
    counts = {name: len(values) for name, values in loop.seconds.items()}
    assert counts == {
        "vae": CHUNKS,
        "image": 1,
        "text": 3,
        "observe": CHUNKS,
        "denoise": CHUNKS,
        "decode": CHUNKS,
        "chunk": CHUNKS,
        "reaction": CHUNKS,
    }
    for vae, observe, denoise, chunk, reaction in zip(
        *(loop.seconds[name] for name in ("vae", "observe", "denoise", "chunk", "reaction")), strict=True
    ):
        assert vae + observe + denoise <= chunk
        assert observe + denoise <= reaction <= chunk


def test_the_fused_observation_pass_is_part_of_denoising_and_actions_alone_are_not_decoded():
    loop = make_loop(action_only=True)
    loop.measure()
    assert {"observe", "decode"} & set(loop.seconds) == set()
    assert loop.first[0][1] is None


def test_passes_are_counted_with_their_shapes():
    loop = make_loop(guidance=2.0)
    fused, plain = (PassShape(CELLS, p, o, True, CONTEXT, True, 2) for p, o in ((0, 1), (1, 0)))
    loop.measure()
    loop.measure()
    assert loop.passes[0] == [fused, plain]
    assert loop.passes[1] == [replace(fused, past=1, observed=2), replace(plain, past=3)]
    apart = make_loop(Savings(False, False, False), robots=3, guidance=2.0)
    apart.measure()
    observed, noisy = (PassShape(CELLS, p, o, p > 0, CONTEXT, False, 3) for p, o in ((0, 1), (1, 0)))
    assert apart.passes[0] == [observed] * 2 + [noisy] * 4


def test_a_summary_relates_the_networks_time_to_its_work():
    loop = make_loop(guidance=2.0)
    loop.chunk()
    measure([loop], 4)
    found = summarise(loop, Roofline(flops=1e12, bandwidth=1e15), weight_bytes=4)
    network = sum(loop.seconds["denoise"])
    assert found["passes_per_chunk"] == 2
    assert found["tflop_per_s"] == pytest.approx(4 * found["tflop_per_chunk"] / network)
    assert found["roofline_fraction"] == pytest.approx(found["tflop_per_s"])  # of 1 TFLOP/s
    assert found["actions_per_s"] == pytest.approx(STEPS * found["chunks_per_s"])
    assert found["stages_ms"]["chunk"]["p50"] == pytest.approx(1000 / found["chunks_per_s"])
    assert found["gb_peak"] > 0.01


def test_percentiles_are_in_milliseconds():
    found = percentiles([0.001 * n for n in range(1, 102)])
    assert found == pytest.approx({"p50": 51, "p95": 96, "p99": 100, "n": 101})


def test_a_ratio_of_times_comes_with_an_interval_that_holds_it():
    rng = np.random.default_rng(0)
    busy = rng.uniform(1, 2, 200)  # the machine's, which hits both
    ratio = time_ratio(busy.tolist(), (0.5 * busy * rng.uniform(0.9, 1.1, 200)).tolist())
    assert ratio["low_95"] < 0.5 < ratio["high_95"]
    assert ratio["low_95"] <= ratio["ratio"] <= ratio["high_95"]
    assert ratio["high_95"] - ratio["low_95"] < 0.1


def test_loops_of_one_seed_are_compared_chunk_by_chunk():
    one, other, rounded = make_loop(), make_loop(), make_loop()
    rounded.runtime.model = rounded.runtime.model.to(torch.bfloat16)
    for loop in (one, other, rounded):
        for _ in range(COMPARED):
            loop.chunk()
    assert distance(other.first, one.first) == {"actions": 0.0, "video": 0.0}
    far = distance(rounded.first, one.first)
    assert set(far) == {"actions", "video"}
    assert all(1e-4 < value < 0.3 for value in far.values())
