"""The documented way of a GEAR dataset to this policy: LeRobot's converter, then ours (docs/migration.md)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from lerobot.scripts.convert_dataset_v21_to_v30 import convert_dataset
from tiny_policies import build_policy, make_batch, write_dataset

from lerobot_wam.cli.main import BAD_INPUT, main
from lerobot_wam.embodiments.spec import load_embodiment

RECORDED = ["gripper", "joint_a", "joint_b", "velocity_a", "velocity_b"]
PARTS = {"gripper_position": {"start": 0, "end": 1}, "joint_position": {"start": 1, "end": 3}}
MODALITY = {
    "state": PARTS | {"velocity": {"start": 3, "end": 5}},
    "action": PARTS | {"velocity": {"start": 3, "end": 5}},
    "video": {"front": {"original_key": "observation.images.front"}},
    "annotation": {"task": {"original_key": "task_index"}},
}
USED = [1, 2, 0]  # joints, gripper


def write_gear(root: Path, source: Path) -> None:
    """A v3 dataset as v2.1 with GEAR's modality.json: one parquet an episode, metadata in lines of JSON."""
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    frames = pq.read_table(next(source.glob("data/**/*.parquet"))).to_pandas()
    info = json.loads((source / "meta/info.json").read_text())
    tasks = pd.read_parquet(source / "meta/tasks.parquet")
    lines: dict[str, list[Any]] = {"episodes": [], "episodes_stats": []}
    for episode, part in frames.groupby("episode_index"):
        part.to_parquet(root / f"data/chunk-000/episode_{episode:06d}.parquet", index=False)
        lines["episodes"].append({"episode_index": episode, "tasks": list(tasks.index[:1]), "length": len(part)})
        statistics = {}
        for key in ("observation.state", "action"):
            values = np.stack(part[key].tolist())
            numbers = {name: getattr(values, name)(axis=0).tolist() for name in ("min", "max", "mean", "std")}
            statistics[key] = numbers | {"count": [len(part)]}
        flat = [[[0.5]]] * 3
        statistics["observation.images.front"] = {"min": flat, "max": flat, "mean": flat, "std": flat, "count": [9]}
        lines["episodes_stats"].append({"episode_index": episode, "stats": statistics})
    lines["tasks"] = [{"task_index": int(row["task_index"]), "task": task} for task, row in tasks.iterrows()]
    for name, content in lines.items():
        (root / f"meta/{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in content))
    info |= {"codebase_version": "v2.1", "total_chunks": 1, "total_videos": 0, "video_path": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/modality.json").write_text(json.dumps(MODALITY))


def test_a_gear_dataset_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    recorded = write_dataset(tmp_path / "recorded", (60, 56), robot_type="my_arm", fps=15, joints=RECORDED)
    gear = tmp_path / "gear"
    write_gear(gear, recorded)
    convert_dataset("local/gear", root=gear, push_to_hub=False)
    modality = tmp_path / "gear_old/meta/modality.json"  # LeRobot's converter keeps the original beside its own
    command = ["embodiment", "from-gear", f"--dataset.root={gear}", f"--modality={modality}", "--tag=my_arm"]
    command += [f"--{group}=joint_position,gripper_position" for group in ("state", "action")]
    command += ["--relative=joint_position", f"--out={tmp_path / 'my_arm.yaml'}"]

    assert main(command) == BAD_INPUT
    uses = "my_arm uses 3 of the 5 numbers of observation.state, 3 of the 5 numbers of action: name a folder"
    assert uses in capsys.readouterr().err
    converted = {file: file.read_bytes() for file in gear.rglob("*.*")}
    assert main([*command, f"--dataset.out={tmp_path / 'cut'}"]) == 0
    spec = load_embodiment(tmp_path / "my_arm.yaml")
    assert spec.action_names == ("joint_position_0", "joint_position_1", "gripper_position")
    assert [d.relative for d in spec.action] == [True, True, False]
    assert (spec.fps, spec.video_stride, spec.chunk_steps, spec.video.crop) == (15, 3, 24, 0.95)

    policy = build_policy(tmp_path / "cut", embodiment=str(tmp_path / "my_arm.yaml"), max_chunks=1)
    batch = make_batch(tmp_path / "cut", policy.config)
    original = make_batch(gear, policy.config)
    for key in ("observation.state", "action"):
        assert torch.equal(batch[key], original[key][..., USED])
    assert torch.equal(batch["observation.images.front"], original["observation.images.front"])
    loss, _ = policy.forward(batch)
    assert torch.isfinite(loss)

    assert {file: file.read_bytes() for file in gear.rglob("*.*")} == converted
    before, after = (json.loads((root / "meta/stats.json").read_text()) for root in (gear, tmp_path / "cut"))
    assert after["action"]["mean"] == [before["action"]["mean"][i] for i in USED]
    assert after["action"]["count"] == before["action"]["count"]
    episodes = [next(root.glob("meta/episodes/**/*.parquet")) for root in (gear, tmp_path / "cut")]
    before, after = (pq.read_table(file)["stats/action/max"].to_pylist() for file in episodes)
    assert after == [[row[i] for i in USED] for row in before]
    assert main([*command, f"--dataset.out={tmp_path / 'cut'}"]) == BAD_INPUT  # it exists
