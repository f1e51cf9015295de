"""Several cameras as one picture: each view in its cell of a grid, black where there is no camera (spec §2.5)."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from lerobot_wam.embodiments.spec import CameraView


def tile_views(frames: Mapping[str, Tensor], cameras: tuple[CameraView, ...], view_size: tuple[int, int]) -> Tensor:
    """Tile the views of one robot into a grid of equal cells.

    Args:
        frames: per camera key, frames [B, T, 3, H, W] in [0, 1]; further keys are ignored.
        cameras: which cameras, and their cells.
        view_size: (h, w) of a cell in pixels; views of another size are resized (bilinear, antialiased).

    Returns:
        [B, T, 3, rows*h, cols*w] in [0, 1], 0 (black) in cells without a camera.

    Raises:
        ValueError: a camera is not among the frames.
    """
    missing = [camera.key for camera in cameras if camera.key not in frames]
    if missing:
        raise ValueError(
            f"camera {', '.join(missing)} is not among the frames ({', '.join(frames) or 'none'}): "
            "rename it, or choose the embodiment that fits this robot"
        )
    h, w = view_size
    rows = 1 + max(camera.row for camera in cameras)
    cols = 1 + max(camera.col for camera in cameras)
    some = frames[cameras[0].key]
    canvas = some.new_zeros(*some.shape[:3], rows * h, cols * w)
    for camera in cameras:
        top, left = camera.row * h, camera.col * w
        canvas[..., top : top + h, left : left + w] = _resize(frames[camera.key], view_size)
    return canvas


def _resize(view: Tensor, size: tuple[int, int]) -> Tensor:
    if view.shape[-2:] == size:
        return view
    flat = functional.interpolate(view.flatten(0, 1), size=size, mode="bilinear", antialias=True)
    return flat.unflatten(0, view.shape[:2])
