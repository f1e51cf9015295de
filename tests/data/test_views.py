"""Views are cropped, resized and coloured alike, and put into the cells of a grid; black where there is no camera."""

from dataclasses import replace

import pytest
import torch

from lerobot_wam.data.views import Augmentation, draw_augmentations, tile_views, transform_view
from lerobot_wam.embodiments.spec import CameraView, EmbodimentSpec, VideoTransform

DREAMZERO = VideoTransform(crop=0.95, color_jitter=(0.3, 0.4, 0.5, 0.08), uint8=True)


def robot(*cameras: CameraView, **fields: object) -> EmbodimentSpec:
    spec = EmbodimentSpec("robot", cameras, state=(), action=(), fps=15, video_stride=3, chunk_steps=24)
    return replace(spec, **fields)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_views_land_in_their_cells():
    frames = {name: torch.rand(2, 3, 3, 4, 6) for name in ("top", "left", "right", "unused")}
    cameras = (CameraView("top", 0, 0), CameraView("left", 1, 0), CameraView("right", 0, 1))
    tiled = tile_views(frames, robot(*cameras), (4, 6))
    assert tiled.shape == (2, 3, 3, 8, 12)
    assert torch.equal(tiled[..., :4, :6], frames["top"])
    assert torch.equal(tiled[..., 4:, :6], frames["left"])
    assert torch.equal(tiled[..., :4, 6:], frames["right"])
    assert not tiled[..., 4:, 6:].any()


def test_other_sizes_are_resized_with_antialias():
    checkers = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    frames = {"front": checkers.float().expand(1, 2, 3, 32, 32)}
    tiled = tile_views(frames, robot(CameraView("front")), (8, 8))
    assert tiled.shape == (1, 2, 3, 8, 8)
    # Without antialias the fine checkers would alias; with it they average to grey.
    torch.testing.assert_close(tiled, torch.full_like(tiled, 0.5), atol=0.05, rtol=0)


def test_the_head_resize_is_not_antialiased():
    stripes = (torch.arange(16) % 4 == 1).float().expand(1, 1, 3, 16, 16)
    tiled = tile_views({"front": stripes}, robot(CameraView("front")), (16, 16), head_size=(16, 4))
    # Each output column averages the middle two of four columns; antialiasing would reach the outer ones.
    assert torch.equal(tiled, torch.full((1, 1, 3, 16, 4), 0.5))


def test_a_missing_camera_is_named():
    cameras = (CameraView("front"), CameraView("wrist", 0, 1))
    with pytest.raises(ValueError, match=r"camera wrist is not among the frames \(front\)"):
        tile_views({"front": torch.zeros(1, 1, 3, 4, 4)}, robot(*cameras), (4, 4))


def test_a_single_view_may_stay_alone():
    frames = {"front": torch.rand(1, 2, 3, 4, 6)}
    assert torch.equal(tile_views(frames, robot(CameraView("front"), view_layout="one"), (4, 6)), frames["front"])


def test_a_crop_is_placed_within_the_picture():
    view = torch.arange(100.0).reshape(1, 1, 1, 10, 10).expand(1, 1, 3, 10, 10) / 255
    cropped = {
        place: transform_view(view, VideoTransform(crop=0.8), (8, 8), [Augmentation(place)])[0, 0, 0] * 255
        for place in ((0.0, 0.0), (0.999, 0.999))
    }
    torch.testing.assert_close(cropped[0.0, 0.0], view[0, 0, 0, :8, :8] * 255)
    torch.testing.assert_close(cropped[0.999, 0.999], view[0, 0, 0, 2:, 2:] * 255)
    centre = transform_view(view, VideoTransform(crop=0.8), (8, 8))
    assert torch.equal(centre, view[..., 1:9, 1:9])


def test_one_draw_serves_all_views_and_frames_of_a_sample_and_no_other():
    scene = torch.rand(1, 1, 3, 20, 32, generator=generator()).expand(2, 3, -1, -1, -1)
    frames = {"a": scene, "b": scene}
    spec = robot(CameraView("a"), CameraView("b", 0, 1), video=DREAMZERO)
    tiled = tile_views(frames, spec, (20, 32), augmentations=draw_augmentations(DREAMZERO, 2, generator()))
    first, second = tiled
    assert torch.equal(first[:, :, :, :32], first[:, :, :, 32:])
    assert torch.equal(first[0], first[2])
    assert not torch.allclose(first[0], second[0], atol=0.02)
    assert torch.equal((tiled * 255).round() / 255, tiled)  # whole levels


def test_draws_follow_the_generator_and_stay_in_their_ranges():
    draws = draw_augmentations(DREAMZERO, 200, generator(3))
    assert draws == draw_augmentations(DREAMZERO, 200, generator(3)) != draw_augmentations(DREAMZERO, 200, generator(4))
    bounds = {"brightness": (0.7, 1.3), "contrast": (0.6, 1.4), "saturation": (0.5, 1.5), "hue": (-0.08, 0.08)}
    for name, (low, high) in bounds.items():
        factors = [dict(draw.jitter)[f"adjust_{name}"] for draw in draws]
        assert low <= min(factors) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(factors) <= high
    assert len({draw.jitter[0][0] for draw in draws}) == 4  # the order is drawn too
    assert draw_augmentations(VideoTransform(crop=0.9), 1, generator())[0].jitter == ()
