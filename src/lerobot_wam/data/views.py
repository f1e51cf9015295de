"""Several cameras as one picture: every view cropped, resized and coloured alike, and put into its cell (spec §2.5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lerobot_wam.embodiments.spec import EmbodimentSpec, VideoTransform

_COLOURS = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")


@dataclass(frozen=True)
class Augmentation:
    """What chance decided for one sample; all its views and frames share it.

    Attributes:
        place: the crop's place between top left (0, 0) and bottom right (1, 1), excluded.
        jitter: functions of ``torchvision.transforms.v2.functional`` with their factors, in the order of use.
    """

    place: tuple[float, float]
    jitter: tuple[tuple[str, float], ...] = ()


def draw_augmentations(video: VideoTransform, count: int, generator: torch.Generator) -> list[Augmentation]:
    """Draw for `count` samples: a uniform place, and uniform colour factors in a random order."""
    ranges = [(max(1 - reach, 0.0), 1 + reach) for reach in video.color_jitter[:3]]
    ranges += [(-reach, reach) for reach in video.color_jitter[3:]]
    draws = []
    for _ in range(count):
        row, col, *shares = torch.rand(2 + len(ranges), generator=generator).tolist()
        factors = [low + share * (high - low) for (low, high), share in zip(ranges, shares, strict=True)]
        order = torch.randperm(len(ranges), generator=generator).tolist()
        draws.append(Augmentation((row, col), tuple((_COLOURS[i], factors[i]) for i in order)))
    return draws


def tile_views(
    frames: Mapping[str, Tensor],
    spec: EmbodimentSpec,
    view_size: tuple[int, int],
    head_size: tuple[int, int] | None = None,
    augmentations: Sequence[Augmentation] | None = None,
) -> Tensor:
    """Make one picture of the views of one robot.

    Args:
        frames: per camera key, frames [B, T, 3, H, W] in [0, 1]; further keys are ignored.
        spec: which cameras, their cells, and the video transform.
        view_size: (h, w) of a cell in pixels; views of another size are resized (bilinear, antialiased).
        head_size: size that the whole picture is resized to at last (bilinear, not antialiased: DreamZero's 5B
            model); None leaves it.
        augmentations: one per sample for training; None crops the centre and leaves the colours.

    Returns:
        [B, T, 3, rows*h, cols*w] (or head_size) in [0, 1], 0 (black) in cells without a camera.

    Raises:
        ValueError: a camera is not among the frames.
    """
    missing = [camera.key for camera in spec.cameras if camera.key not in frames]
    if missing:
        raise ValueError(
            f"camera {', '.join(missing)} is not among the frames ({', '.join(frames) or 'none'}): "
            "rename it, or choose the embodiment that fits this robot"
        )
    h, w = view_size
    rows, cols = spec.grid
    some = frames[spec.cameras[0].key]
    canvas = some.new_zeros(*some.shape[:3], rows * h, cols * w)
    for camera, cell in zip(spec.cameras, spec.cells, strict=True):
        view = transform_view(frames[camera.key], spec.video, view_size, augmentations)
        top, left = cell.row * h, cell.col * w
        place = canvas[..., top : top + h, left : left + cell.width * w]
        place.unflatten(-1, (w, cell.width))[:] = view[..., None]
    return canvas if head_size is None else resize(canvas, head_size, antialias=False)


def transform_view(
    view: Tensor,
    video: VideoTransform,
    size: tuple[int, int],
    augmentations: Sequence[Augmentation] | None = None,
) -> Tensor:
    """Crop, resize, colour and round one camera's frames [B, T, 3, H, W] in [0, 1]; returns [B, T, 3, h, w]."""
    if augmentations is None:
        view = resize(_crop(view, video.crop, None), size)
    else:
        samples = zip(view, augmentations, strict=True)
        view = torch.stack([_jitter(resize(_crop(x, video.crop, a.place), size), a) for x, a in samples])
    return (view * 255).floor() / 255 if video.uint8 else view


def resize(view: Tensor, size: tuple[int, int], antialias: bool = True) -> Tensor:
    """Resize pictures [..., 3, H, W] to [..., 3, h, w], bilinear."""
    if view.shape[-2:] == tuple(size):
        return view
    flat = functional.interpolate(view.flatten(0, -4), size=size, mode="bilinear", antialias=antialias)
    return flat.unflatten(0, view.shape[:-3])


def _crop(view: Tensor, share: float, place: tuple[float, float] | None) -> Tensor:
    height, width = view.shape[-2:]
    h, w = int(height * share), int(width * share)
    if place is None:
        top, left = round((height - h) / 2), round((width - w) / 2)
    else:
        top, left = int(place[0] * (height - h + 1)), int(place[1] * (width - w + 1))
    return view[..., top : top + h, left : left + w]


def _jitter(view: Tensor, augmentation: Augmentation) -> Tensor:
    if not augmentation.jitter:
        return view
    from torchvision.transforms.v2 import functional as colours  # seconds to import, and for training only

    for name, factor in augmentation.jitter:
        view = getattr(colours, name)(view, factor)
    return view
