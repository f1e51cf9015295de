"""Noise tables and UniPC steps against the official implementation: exact, up to fp32 rounding of exp and sums."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lerobot_wam.diffusion.sampler import SamplerConfig, UniPCSolver, make_solver
from lerobot_wam.diffusion.schedule import UNIPC_START, sampling_sigmas, training_table


def test_training_table(golden_dir: Path) -> None:
    expected = load_file(golden_dir / "schedulers.safetensors")
    table = training_table()
    assert torch.equal(table.sigma, expected["train.sigmas"])
    assert torch.equal(table.timestep, expected["train.timesteps"])
    # The fp32 exp of different processors differs in the last place, and so do the weights (of size 1).
    torch.testing.assert_close(table.weight, expected["train.weights"], rtol=0, atol=5e-7)


def test_unipc_tables_and_steps(golden_dir: Path) -> None:
    expected = load_file(golden_dir / "schedulers.safetensors")
    counts = sorted({int(m[1]) for name in expected if (m := re.match(r"unipc(\d+)\.", name))})
    assert counts
    for count in counts:
        config = SamplerConfig(solver="unipc", steps=count)
        assert torch.equal(sampling_sigmas(count, start=UNIPC_START), expected[f"unipc{count}.sigmas"])
        solver = make_solver(config)
        assert solver.timesteps == expected[f"unipc{count}.timesteps"].tolist()
        sample = expected[f"unipc{count}.x0"]
        for index, velocity in enumerate(expected[f"unipc{count}.model_outputs"]):
            sample = solver.step(index, velocity, sample)
            torch.testing.assert_close(sample, expected[f"unipc{count}.samples"][index], rtol=0, atol=1e-6)


def test_decoupled_tables(golden_dir: Path) -> None:
    expected = load_file(golden_dir / "schedulers.safetensors")
    finals = sorted({float(m[1]) for name in expected if (m := re.match(r"decoupled([\d.]+)\.sigmas", name))})
    assert finals
    for final in finals:
        sigmas = expected[f"decoupled{final}.sigmas"]
        ours = sampling_sigmas(len(sigmas) - 1, start=UNIPC_START, final=final)
        assert torch.equal(ours, sigmas)
        solver = UniPCSolver(SamplerConfig(solver="unipc", steps=len(sigmas) - 1), final)
        assert solver.timesteps == pytest.approx(expected[f"decoupled{final}.timesteps"].tolist())
