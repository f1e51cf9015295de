"""Thinner meshes for fast drawing, kept in the user's cache under names that depend only on their content."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

_STL_FACE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_VERSION = b"vertex-clustering-1"


def cache_directory() -> Path:
    """Return the folder of thinned meshes: `$LEROBOT_WAM_CACHE` or the user's cache folder."""
    base = os.environ.get("LEROBOT_WAM_CACHE")
    if base:
        return Path(base) / "meshes"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lerobot_wam" / "meshes"


def cluster_vertices(corners: np.ndarray, cell: float) -> np.ndarray:
    """Merge the vertices that share a cell of a cubic grid and drop the triangles that collapse.

    Args:
        corners: triangles, (F, 3, 3) float, in any unit of length.
        cell: edge of the grid's cells in the same unit.

    Returns:
        The remaining triangles, (G, 3, 3) float32, each merged vertex at the mean of its cell.
    """
    points = corners.reshape(-1, 3).astype(np.float64)
    unique_points, point_of = np.unique(points, axis=0, return_inverse=True)
    _, cell_of = np.unique(np.floor(unique_points / cell).astype(np.int64), axis=0, return_inverse=True)
    cell_of = cell_of.reshape(-1)
    sums = np.zeros((cell_of.max() + 1, 3))
    np.add.at(sums, cell_of, unique_points)
    centres = sums / np.bincount(cell_of)[:, None]
    faces = cell_of[point_of.reshape(-1)].reshape(-1, 3)
    alive = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces = faces[alive]
    _, first = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    return centres[faces[np.sort(first)]].astype(np.float32)


def read_stl(data: bytes) -> np.ndarray:
    """Return the triangles of a binary STL, (F, 3, 3) float32."""
    count = int(np.frombuffer(data, "<u4", 1, 80)[0])
    return np.frombuffer(data, _STL_FACE, count, 84)["corners"]


def read_obj(data: bytes) -> np.ndarray:
    """Return the triangles of a Wavefront OBJ without polygons of four corners or more, (F, 3, 3) float32."""
    lines = [line.split() for line in data.decode().splitlines()]
    vertices = np.array([line[1:4] for line in lines if line[:1] == ["v"]], np.float32)
    faces = np.array([[corner.split("/")[0] for corner in line[1:]] for line in lines if line[:1] == ["f"]], int)
    return vertices[faces - 1]


def write_stl(corners: np.ndarray) -> bytes:
    """Return a binary STL with the triangles `corners`, (F, 3, 3) float32."""
    faces = np.zeros(len(corners), _STL_FACE)
    faces["corners"] = corners
    return bytes(80) + np.uint32(len(corners)).tobytes() + faces.tobytes()


def thinned_mesh(source: Path, cell: float) -> Path:
    """Return a thinned copy of `source`, made on first use.

    The name is a hash of the mesh and of `cell`; a finished file appears by an atomic rename, so processes may
    race for it.

    Args:
        source: a binary STL or an OBJ file.
        cell: vertex-clustering cell in the file's own unit of length.
    """
    data = source.read_bytes()
    digest = hashlib.sha256(_VERSION + repr(cell).encode() + data).hexdigest()[:16]
    path = cache_directory() / f"{source.stem}-{digest}.stl"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
            corners = read_obj(data) if source.suffix == ".obj" else read_stl(data)
            part.write(write_stl(cluster_vertices(corners, cell)))
        os.replace(part.name, path)
    return path
