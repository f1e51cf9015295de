"""A tiny policy and a tiny recording to dream of."""

from pathlib import Path

import pytest
from tiny_policies import build_policy, write_dataset

from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.report.clips import Clip, open_episodes, read_clip


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes of 24, 21 and 12 steps; a chunk has 8."""
    return write_dataset(tmp_path_factory.mktemp("data") / "arm", (24, 21, 12))


@pytest.fixture(scope="session")
def policy(recording: Path) -> WAMPolicy:
    """Untrained, with weights that are all awake."""
    return build_policy(recording)


@pytest.fixture(scope="session")
def clip(policy: WAMPolicy, recording: Path) -> Clip:
    """Episode 1 from step 2 on: 18 frames behind the conditioning frame."""
    return read_clip(policy, open_episodes(policy, root=recording, episodes=[1]), 1, 2)
