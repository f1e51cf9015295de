"""Shards small enough that tiny checkpoints have several, and an image encoder to refer to."""

from typing import Any

import pytest
from foreign_checkpoints import SIMPLE, write_image_encoder

from lerobot_wam.checkpoints import output


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings with a tiny image encoder in a folder of its own."""
    folder = write_image_encoder(tmp_path_factory.mktemp("clip") / "image_encoder")
    return SIMPLE | {"image_codec_source": str(folder)}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "SHARD_BYTES", 60_000)
