"""The memory table: what the documents show, and what was measured."""

import json
from pathlib import Path

import pytest
import torch

from lerobot_wam.cli.main import BAD_INPUT, main
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.doctor import table
from lerobot_wam.doctor.checkup import PUBLISHED
from lerobot_wam.doctor.memory import geometry, memory
from lerobot_wam.embodiments.spec import load_embodiment
from lerobot_wam.model.world_action_model import WorldActionModel

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str], table.Row]:
    return {(row.preset, row.mode): row for row in table.rows()}


def test_the_document_shows_the_table(capsys: pytest.CaptureFixture):
    assert main(["doctor", "--table"]) == 0
    shown = capsys.readouterr().out.strip()
    assert shown in (ROOT / "docs/scaling.md").read_text(encoding="utf-8"), "copy `lerobot-wam doctor --table` into it"


def test_a_checkpoint_or_the_table_is_asked_for():
    for words in (["doctor"], ["doctor", "folder", "--table"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == BAD_INPUT


def test_shards_hold_their_part(rows: dict[tuple[str, str], table.Row]):
    """Twice the GPUs halve what is shared: 16 bytes a trained parameter, of all that is trained whole."""
    for preset in ("wan2.2-5b", "wan2.1-14b"):
        with torch.device("meta"):
            network = WorldActionModel(WAMConfig(preset=preset, device="cpu").model_config)
        parameters = sum(p.numel() for p in network.parameters())
        full = rows[preset, "full"]
        assert full.fsdp[8] - full.fsdp[16] == pytest.approx(16 * parameters / 16, rel=1e-6)
        assert full.ddp - full.single == pytest.approx(4 * parameters, rel=1e-6)
        for first, second in (("full", "lora"), ("lora", "heads")):
            assert rows[preset, first].single > rows[preset, second].single
            assert rows[preset, first].fsdp[8] > rows[preset, second].fsdp[8]


def test_the_rule_meets_the_full_size_policy_that_was_measured():
    """Peak of the process, without what the imports took, within a tenth."""
    measured = json.loads((ROOT / "benchmarks/results/full_size_step.json").read_text())["metrics"]
    config = WAMConfig(preset="wan2.2-5b", device="cpu", weights_dtype="bfloat16")
    frozen = 4 * PUBLISHED["wan2.2"][0] + 2 * PUBLISHED["clip"][0]
    sizes = geometry(config, load_embodiment("oxe_droid"))
    need = memory(config, sizes, measured["parameters"], 0, frozen)["act"]
    assert sum(need.values()) / 1e9 == pytest.approx(measured["gb_peak"] - measured["gb_peak_imports"], rel=0.1)
