"""A copy of a LeRobotDataset whose vectors keep only the numbers that an embodiment uses, in its order."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def keep_columns(root: Path, out: Path, columns: Mapping[str, list[int]], names: Mapping[str, list[str]]) -> None:
    """Copy a dataset and cut its vectors, with their statistics. Files that stay as they are, videos above all, are
    hard links to the originals where the file system has them.

    Args:
        root: Folder of a LeRobotDataset v3; it is not changed.
        out: The copy's folder; must not exist.
        columns: Per vector feature, the indices to keep.
        names: Per vector feature, the dimensions' names in the copy.

    Raises:
        FileExistsError: `out` exists.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists: give a new folder for the copy of the dataset")
    shutil.copytree(root, out, copy_function=_link)
    for file in (*out.glob("data/**/*.parquet"), *out.glob("meta/episodes/**/*.parquet")):
        table = pq.read_table(file).replace_schema_metadata(None)  # it would describe the old widths
        for i, column in enumerate(table.column_names):
            # In meta/episodes the statistics of "action" are "stats/action/q01" and so on.
            feature = column.removeprefix("stats/").rpartition("/")[0] or column
            if feature in columns and not column.endswith("/count"):
                table = table.set_column(i, column, _cut(table[column], columns[feature]))
        file.unlink()
        pq.write_table(table, file)
    info = json.loads((out / "meta/info.json").read_text())
    for feature, kept in columns.items():
        info["features"][feature] |= {"shape": [len(kept)], "names": names[feature]}
    _write_json(out / "meta/info.json", info)
    statistics = json.loads((out / "meta/stats.json").read_text())
    for feature, kept in columns.items():
        for name, values in statistics[feature].items():
            statistics[feature][name] = values if name == "count" else [values[i] for i in kept]
    _write_json(out / "meta/stats.json", statistics)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)


def _cut(column: pa.ChunkedArray, kept: list[int]) -> pa.Array:
    rows = column.combine_chunks()
    values = pc.list_flatten(rows).to_numpy(zero_copy_only=False).reshape(len(rows), -1)[:, kept]
    return pa.ListArray.from_arrays(np.arange(len(rows) + 1, dtype=np.int32) * len(kept), values.ravel())


def _write_json(file: Path, content: Any) -> None:
    file.unlink()  # the original is another name of the same file
    file.write_text(json.dumps(content, indent=4))
