"""Views are put into the cells of a grid, resized where needed, black where there is no camera."""

import pytest
import torch

from lerobot_wam.data.views import tile_views
from lerobot_wam.embodiments.spec import CameraView


def test_views_land_in_their_cells():
    frames = {name: torch.rand(2, 3, 3, 4, 6) for name in ("top", "left", "right", "unused")}
    cameras = (CameraView("top", 0, 0), CameraView("left", 1, 0), CameraView("right", 0, 1))
    tiled = tile_views(frames, cameras, (4, 6))
    assert tiled.shape == (2, 3, 3, 8, 12)
    assert torch.equal(tiled[..., :4, :6], frames["top"])
    assert torch.equal(tiled[..., 4:, :6], frames["left"])
    assert torch.equal(tiled[..., :4, 6:], frames["right"])
    assert not tiled[..., 4:, 6:].any()


def test_other_sizes_are_resized_with_antialias():
    checkers = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    frames = {"front": checkers.float().expand(1, 2, 3, 32, 32)}
    tiled = tile_views(frames, (CameraView("front"),), (8, 8))
    assert tiled.shape == (1, 2, 3, 8, 8)
    # Without antialias the fine checkers would alias; with it they average to grey.
    torch.testing.assert_close(tiled, torch.full_like(tiled, 0.5), atol=0.05, rtol=0)


def test_a_missing_camera_is_named():
    with pytest.raises(ValueError, match=r"camera wrist is not among the frames \(front\)"):
        tile_views({"front": torch.zeros(1, 1, 3, 4, 4)}, (CameraView("front"), CameraView("wrist", 0, 1)), (4, 4))
