"""Shared fixtures. Torch runs on one thread: two OpenMP pools on two cores are ten times slower than one."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MUJOCO_GL", "egl")

import pytest
import torch

torch.set_num_threads(1)
pytest_plugins = ["hub_endpoint"]


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder with the official implementation's recorded numbers."""
    directory = Path(os.environ.get("WAM_GOLDEN_DIR", Path(__file__).parents[1] / "../shared/golden"))
    if not (directory / "schedulers.safetensors").is_file():
        refuse = pytest.fail if os.environ.get("WAM_REQUIRE_GOLDEN") == "1" else pytest.skip
        refuse(f"golden data not found in {directory}; set WAM_GOLDEN_DIR to the folder that holds it")
    return directory
