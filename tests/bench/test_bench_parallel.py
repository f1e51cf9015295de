"""`lerobot-wam bench` behind torchrun: every process measures, the first one tells."""

import json
from pathlib import Path

import torch.distributed as dist
from processes import FORKS, in_processes

import lerobot_wam.bench.run  # noqa: F401 - once, before the processes part
from lerobot_wam.cli.main import main

TINY = "dim=32,num_heads=2,num_layers=1,ffn_dim=32,freq_dim=16,action_hidden=16"


def measure(folder: Path) -> None:
    words = ["--device=cpu", "--chunks=1", "--warmup=1", "--no-distance", f"--set={TINY}", "--parallel=context"]
    assert main(["bench", *words, f"--json={folder / f'{dist.get_rank()}.json'}"]) == 0


@FORKS
def test_two_processes_measure_one_policy(tmp_path: Path):
    in_processes(2, measure, tmp_path, tmp_path)
    (written,) = tmp_path.glob("*.json")
    assert written.stem == "0"
    assert json.loads(written.read_text())["metrics"]["parallel"] == "context over 2 processes"
