"""Ranges of states and of (relative) actions, from the numeric columns of a dataset. No video is decoded."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lerobot_wam.embodiments.action_space import ActionStatistics
from lerobot_wam.embodiments.spec import Dimension, EmbodimentSpec

_LOW_QUANTILE, _HIGH_QUANTILE = 0.01, 0.99  # q99 of DreamZero (spec §2.4)


@dataclass(frozen=True, eq=False)
class Columns:
    """The numeric columns of a dataset, sorted by episode and frame, N control steps.

    Attributes:
        episode_index: [N].
        frame_index: [N], within the episode.
        task_index: [N].
        action: [N, A] physical units, None in a dataset without actions.
        state: [N, S] physical units, None in a dataset without states.
    """

    episode_index: np.ndarray
    frame_index: np.ndarray
    task_index: np.ndarray
    action: np.ndarray | None = None
    state: np.ndarray | None = None


def read_columns(dataset_root: Path) -> Columns:
    """Read ``data/**/*.parquet`` of a LeRobotDataset v3 folder, numeric columns only.

    Raises:
        FileNotFoundError: no such folder, or no parquet file in it.
        ValueError: a file lacks an index column, or a vector column's rows differ in length.
    """
    root = Path(dataset_root)
    files = sorted((root / "data").glob("**/*.parquet"))
    if not files:
        state = "has no data/**/*.parquet" if root.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"dataset folder {root} {state}: give the root of a LeRobotDataset v3 (it holds data/, meta/ and videos/)"
        )
    wanted = ["episode_index", "frame_index", "task_index", "action", "observation.state"]
    tables = []
    for file in files:
        names = pq.read_schema(file).names
        missing = [name for name in wanted[:3] if name not in names]
        if missing:
            raise ValueError(
                f"{file} lacks the column {', '.join(missing)}: expected a LeRobotDataset v3 file; convert or re-record"
            )
        tables.append(pq.read_table(file, columns=[name for name in wanted if name in names]))
    table = pa.concat_tables(tables)
    table = table.sort_by([("episode_index", "ascending"), ("frame_index", "ascending")])
    return Columns(
        episode_index=table["episode_index"].to_numpy(),
        frame_index=table["frame_index"].to_numpy(),
        task_index=table["task_index"].to_numpy(),
        action=_vectors(table, "action"),
        state=_vectors(table, "observation.state"),
    )


def compute_statistics(columns: Columns, spec: EmbodimentSpec, max_windows: int = 100_000) -> ActionStatistics:
    """Ranges of a dataset for ``spec``, by its normalisation modes and action horizon.

    Every control step is the anchor of a window; actions beyond the episode's end are left out. Pooled
    ranges (``per_step=False``) of absolute dimensions are those of the column itself, as in DreamZero.

    Args:
        columns: the data; may hold several episodes.
        spec: dimensions, ``chunk_steps`` and ``normalization``.
        max_windows: anchors used at most, evenly spread; bounds time and memory on large datasets.

    Raises:
        ValueError: no step at all, or a column that is missing, has another width, or holds NaN or
        infinity.
    """
    N = len(columns.episode_index)
    if N == 0:
        raise ValueError("the dataset has no control steps: record or select at least one episode")
    state_NS = _checked(columns.state, spec.state, N, "observation.state")
    action_NA = _checked(columns.action, spec.action, N, "action")
    anchors = np.unique(np.linspace(0, N - 1, min(N, max_windows)).round().astype(np.int64))
    normalization = spec.normalization
    A = len(spec.action)
    rows = spec.chunk_steps if normalization.per_step else 1
    action_low, action_high = np.zeros((rows, A)), np.zeros((rows, A))
    for a, dimension in enumerate(spec.action):
        anchor_N = state_NS[:, spec.state_names.index(dimension.name)] if dimension.relative else np.zeros(N)
        if normalization.per_step or dimension.relative:
            steps = _window_values(action_NA[:, a], anchor_N, columns.episode_index, anchors, spec.chunk_steps)
        else:
            steps = [action_NA[:, a]]
        if not normalization.per_step:
            steps = [np.concatenate(steps)]
        for h, values in enumerate(steps):
            # A horizon longer than every episode: repeat the last step that has data.
            action_low[h, a], action_high[h, a] = (
                _range(values, dimension, spec) if len(values) else (action_low[h - 1, a], action_high[h - 1, a])
            )
    state_ranges = [_range(state_NS[:, s], dimension, spec) for s, dimension in enumerate(spec.state)]
    state_low_high = np.array(state_ranges, dtype=np.float64).reshape(-1, 2)
    return ActionStatistics(
        action_low=action_low,
        action_high=action_high,
        state_low=state_low_high[:, 0],
        state_high=state_low_high[:, 1],
        steps=N,
        windows=len(anchors) if A else 0,
    )


def _window_values(
    action_N: np.ndarray, anchor_N: np.ndarray, episode_N: np.ndarray, anchors: np.ndarray, horizon: int
) -> list[np.ndarray]:
    """For each horizon step, action minus anchor over all anchors whose episode reaches that far."""
    values = []
    for h in range(horizon):
        start = anchors[anchors + h < len(action_N)]
        start = start[episode_N[start] == episode_N[start + h]]
        values.append(action_N[start + h] - anchor_N[start])
    return values


def _range(values: np.ndarray, dimension: Dimension, spec: EmbodimentSpec) -> tuple[float, float]:
    normalization = spec.normalization
    mode = normalization.gripper_mode if dimension.gripper else normalization.mode
    if mode == "min_max":
        return float(values.min()), float(values.max())
    low, high = np.quantile(values, (_LOW_QUANTILE, _HIGH_QUANTILE))
    return float(low), float(high)


def _checked(values: np.ndarray | None, dimensions: tuple[Dimension, ...], N: int, key: str) -> np.ndarray:
    """The column as float64 [N, D], checked against the spec; an empty one where the spec has no dimension."""
    if not dimensions:
        return np.zeros((N, 0))
    width = len(dimensions)
    if values is None or values.shape != (N, width):
        found = "missing" if values is None else f"of shape {values.shape}"
        raise ValueError(
            f"{key} is {found}, expected {(N, width)}: choose the embodiment that fits the dataset, "
            "or derive one with --policy.embodiment=auto"
        )
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        n, d = bad[0]
        raise ValueError(
            f"{key} {dimensions[d].name!r} (index {d}) is {values[n, d]} at step {n}, expected a finite number: "
            "repair or drop that episode"
        )
    return values.astype(np.float64)


def _vectors(table: pa.Table, name: str) -> np.ndarray | None:
    """A list column as [N, D]; a plain numeric column (LeRobot's form of shape (1,)) as [N, 1]; absent: None."""
    if name not in table.column_names:
        return None
    column = table[name].combine_chunks()
    if not pa.types.is_nested(column.type):
        return column.to_numpy(zero_copy_only=False)[:, None]
    lengths = pc.unique(pc.list_value_length(column))
    if len(lengths) != 1:
        raise ValueError(
            f"rows of {name} have lengths {lengths.to_pylist()}, expected one length: re-record or convert"
        )
    return pc.list_flatten(column).to_numpy(zero_copy_only=False).reshape(len(column), -1)
