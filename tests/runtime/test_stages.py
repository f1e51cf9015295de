"""Clocks of the stages: what they measure, and that they stay out of the way."""

import time

import pytest
import torch

from lerobot_wam.runtime.stages import NO_STAGES, Timer

CPU = torch.device("cpu")


def test_a_timer_adds_up_the_visits_of_a_stage():
    timer = Timer(CPU)
    started = time.perf_counter()
    for name, seconds in (("vae", 0.002), ("denoise", 0.004), ("vae", 0.003)):
        with timer(name):
            time.sleep(seconds)
    whole, read = time.perf_counter() - started, timer.read()
    assert set(read) == {"vae", "denoise"}
    assert read["vae"] >= 0.005
    assert read["denoise"] >= 0.004
    assert sum(read.values()) <= whole


def test_reading_a_timer_starts_it_anew():
    timer = Timer(CPU)
    with timer("text"):
        pass
    assert set(timer.read()) == {"text"}
    assert timer.read() == {}


def test_a_stage_that_fails_is_not_counted():
    timer = Timer(CPU)
    with pytest.raises(ValueError, match="no such frame"), timer("vae"):
        raise ValueError("no such frame")
    assert timer.read() == {}


def test_without_a_clock_stages_may_be_entered_again_and_inside_each_other():
    with NO_STAGES("denoise"), NO_STAGES("denoise"), NO_STAGES("vae"):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_stages_hold_their_own_work_and_no_more_than_the_whole():
    device = torch.device("cuda")
    big = torch.randn(4096, 4096, device=device)
    timer = Timer(device)
    big @ big
    torch.cuda.synchronize()
    started = time.perf_counter()
    with timer("observe"):
        for _ in range(10):
            big @ big
    with timer("denoise"):
        big @ big
    read = timer.read()
    assert sum(read.values()) <= time.perf_counter() - started
    assert read["observe"] > 3 * read["denoise"]
