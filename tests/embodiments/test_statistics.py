"""Ranges from parquet columns: windows stay inside an episode, grippers keep their extremes, pooled or per step."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lerobot_wam.embodiments.action_space import ActionSpace
from lerobot_wam.embodiments.spec import CameraView, Dimension, EmbodimentSpec, Normalization
from lerobot_wam.embodiments.statistics import Columns, compute_statistics, read_columns

SPEC = EmbodimentSpec(
    name="arm",
    cameras=(CameraView("observation.images.front"),),
    state=(Dimension("a"), Dimension("gripper", gripper=True)),
    action=(Dimension("a", relative=True), Dimension("gripper", gripper=True)),
    fps=10,
    video_stride=1,
    chunk_steps=8,
    normalization=Normalization(gripper_mode="min_max", per_step=True),
)
LENGTHS = (30, 5, 21)


def make_columns(lengths=LENGTHS, seed: int = 0) -> Columns:
    rng = np.random.default_rng(seed)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    frame = np.concatenate([np.arange(length) for length in lengths])
    state = rng.normal(size=(len(episode), 2)) + 100 * episode[:, None]
    action = state + rng.normal(size=state.shape)
    return Columns(episode, frame, np.zeros_like(episode), action, state)


def brute_force(columns: Columns, h: int) -> np.ndarray:
    """Relative values of dimension 0, horizon step h, anchor by anchor."""
    return np.array(
        [
            columns.action[t + h, 0] - columns.state[t, 0]
            for t in range(len(columns.action) - h)
            if columns.episode_index[t + h] == columns.episode_index[t]
        ]
    )


def test_per_step_ranges_equal_a_plain_loop():
    columns = make_columns()
    statistics = compute_statistics(columns, SPEC)
    assert statistics.action_low.shape == (8, 2)
    assert (statistics.steps, statistics.windows) == (56, 56)
    for h in range(8):
        low, high = np.quantile(brute_force(columns, h), (0.01, 0.99))
        assert (statistics.action_low[h, 0], statistics.action_high[h, 0]) == (low, high)
    assert statistics.action_low[:, 0].min() > -50  # windows that crossed an episode would see jumps of 100
    assert statistics.action_low[0, 1] == columns.action[:, 1].min()
    assert statistics.state_high[1] == columns.state[:, 1].max()
    assert statistics.state_high[0] == np.quantile(columns.state[:, 0], 0.99)


def test_pooled_ranges():
    columns = make_columns()
    spec = replace(SPEC, normalization=Normalization())
    statistics = compute_statistics(columns, spec)
    pool = np.concatenate([brute_force(columns, h) for h in range(8)])
    assert statistics.action_low.shape == (1, 2)
    assert statistics.action_low[0, 0] == np.quantile(pool, 0.01)
    assert statistics.action_high[0, 1] == np.quantile(columns.action[:, 1], 0.99)


def test_a_horizon_longer_than_every_episode():
    statistics = compute_statistics(make_columns(lengths=(3, 4)), SPEC)
    assert (statistics.action_low[4:] == statistics.action_low[3]).all()


def test_fewer_windows_give_nearly_the_same_ranges():
    columns = make_columns(lengths=(4000,))
    spec = replace(SPEC, normalization=Normalization())
    some, all_ = (compute_statistics(columns, spec, max_windows=n) for n in (1000, 10**6))
    assert (some.windows, all_.windows) == (1000, 4000)
    assert np.abs(some.action_high - all_.action_high).max() < 0.2


def test_ranges_feed_the_action_space():
    columns = make_columns(lengths=(200,))
    space = ActionSpace(SPEC, compute_statistics(columns, SPEC))
    actions = torch.from_numpy(columns.action[:8].copy())[None, None]
    anchor = torch.from_numpy(columns.state[:1].copy())[None]
    assert space.encode(actions, anchor).abs().max() <= 1


def test_video_without_a_robot():
    columns = replace(make_columns(), action=None, state=None)
    statistics = compute_statistics(columns, replace(SPEC, state=(), action=()))
    assert statistics.action_low.shape == (8, 0)
    assert (statistics.steps, statistics.windows) == (56, 0)


def test_unfit_columns():
    columns = make_columns()
    with pytest.raises(ValueError, match="action is missing"):
        compute_statistics(replace(columns, action=None), SPEC)
    with pytest.raises(ValueError, match=r"observation.state is of shape \(56, 1\), expected \(56, 2\)"):
        compute_statistics(replace(columns, state=columns.state[:, :1]), SPEC)
    columns.action[7, 1] = np.nan
    with pytest.raises(ValueError, match=r"action 'gripper' \(index 1\) is nan at step 7"):
        compute_statistics(columns, SPEC)
    with pytest.raises(ValueError, match="no control steps"):
        compute_statistics(Columns(*[np.zeros(0, dtype=np.int64)] * 3), SPEC)


def write_parquet(path: Path, columns: Columns, order: np.ndarray, drop=(), scalar_action: bool = False) -> None:
    action = columns.action[order, 0] if scalar_action else [row.tolist() for row in columns.action[order]]
    table = {
        "action": pa.array(action, None if scalar_action else pa.list_(pa.float32())),
        "observation.state": pa.array(list(columns.state[order]), pa.list_(pa.float32(), 2)),
        "episode_index": columns.episode_index[order],
        "frame_index": columns.frame_index[order],
        "task_index": columns.task_index[order],
        "timestamp": columns.frame_index[order] / 10,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({key: value for key, value in table.items() if key not in drop}), path)


def test_columns_are_read_in_order_from_all_files(tmp_path):
    columns = make_columns()
    shuffled = np.random.default_rng(0).permutation(56)
    write_parquet(tmp_path / "data/chunk-000/file-000.parquet", columns, shuffled[:20])
    write_parquet(tmp_path / "data/chunk-001/file-000.parquet", columns, shuffled[20:])
    read = read_columns(tmp_path)
    assert np.array_equal(read.frame_index, columns.frame_index)
    assert np.array_equal(read.episode_index, columns.episode_index)
    assert np.array_equal(read.action, columns.action.astype(np.float32))
    assert np.array_equal(read.state, columns.state.astype(np.float32))


def test_scalar_and_absent_columns(tmp_path):
    columns = make_columns()
    write_parquet(
        tmp_path / "data/chunk-000/file-000.parquet",
        columns,
        np.arange(56),
        drop=["observation.state"],
        scalar_action=True,
    )
    read = read_columns(tmp_path)
    assert read.action.shape == (56, 1)
    assert read.state is None


def test_unreadable_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist: give the root"):
        read_columns(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no data/\*\*/\*.parquet"):
        read_columns(tmp_path)
    write_parquet(tmp_path / "data/file.parquet", make_columns(), np.arange(56), drop=["episode_index"])
    with pytest.raises(ValueError, match=r"file.parquet lacks the column episode_index"):
        read_columns(tmp_path)
