"""A tiny policy of one arm, for servers."""

from pathlib import Path

import pytest
from tiny_policies import build_policy, write_dataset

from lerobot_wam.modeling_wam import WAMPolicy


@pytest.fixture(scope="session")
def arm_recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of a built-in arm with one camera, at 10 fps."""
    return write_dataset(tmp_path_factory.mktemp("serving") / "arm")


@pytest.fixture(scope="session")
def policy(arm_recordings: Path) -> WAMPolicy:
    """A policy that nobody changes."""
    return build_policy(arm_recordings).eval()
