"""Dreams as files: video with reality beside imagination, filmstrip, action plot, numbers.

Shape legend: T frames, H W pixels; frames are uint8 RGB.
"""

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lerobot_wam.report.charts import Series, chart_grid, line_chart
from lerobot_wam.report.dream import DreamResult
from lerobot_wam.report.page import DreamPanel, Media

MIN_HEIGHT = 256
"""Smaller frames are enlarged by a whole factor, pixels kept square and sharp, to at least this height."""
_GAP = 4
_PAPER, _INK, _ABSENT = (255, 255, 255), (40, 40, 40), 216


@dataclass(frozen=True)
class DreamFiles:
    """Where `save_dream` wrote; None where nothing was asked for."""

    video: Path
    filmstrip: Path
    actions: Path
    metrics: Path
    gif: Path | None = None

    def existing(self) -> list[Path]:
        """All paths written."""
        return [path for path in vars(self).values() if path is not None]


def save_dream(result: DreamResult, folder: str | Path, gif: bool = False) -> DreamFiles:
    """Write dream.mp4, filmstrip.png, actions.svg, metrics.json and, if asked, dream.gif into `folder`.

    The video has one frame more than was imagined: it begins with the conditioning frame.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = DreamFiles(
        video=folder / "dream.mp4",
        filmstrip=folder / "filmstrip.png",
        actions=folder / "actions.svg",
        metrics=folder / "metrics.json",
        gif=folder / "dream.gif" if gif else None,
    )
    frames = side_by_side(result)
    imageio.mimwrite(files.video, list(frames), fps=result.fps, codec="libx264", quality=8, macro_block_size=2)
    if files.gif is not None:
        imageio.mimwrite(files.gif, list(frames), duration=1000 / result.fps, loop=0)
    Image.fromarray(filmstrip(result)).save(files.filmstrip)
    files.actions.write_text(chart_grid(action_charts(result)), encoding="utf-8")
    text = json.dumps(_json_numbers(result.metrics()), indent=1, allow_nan=False)
    files.metrics.write_text(text + "\n", encoding="utf-8")
    return files


def dream_panel(result: DreamResult, title: str | None = None) -> DreamPanel:
    """What the HTML page shows of a dream; the title defaults to the instruction."""
    numbers = {
        words: {
            "PSNR, moving": f"{score['psnr_moving']:.1f} dB",
            "PSNR, all": f"{score['psnr']:.1f} dB",
            "SSIM": f"{score['ssim']:.2f}",
        }
        for words, score in ((name, result.scores[key].summary()) for name, key in score_rows(result).items())
    }
    return DreamPanel(
        title=title or result.task,
        animation=Media("image/webp", animation(result)),
        views=tuple(_views(result)),
        filmstrip=Media("image/png", _encoded(Image.fromarray(filmstrip(result)), "PNG")),
        numbers=numbers,
        charts=action_charts(result),
        note=" ".join((f"{result.source}; {result.chunks} chunks, {result.loop} loop.", *result.notes)),
    )


def score_rows(result: DreamResult) -> dict[str, str]:
    """Readable names of the scores that say something, in order, to their keys in `result.scores`."""
    rows = {"imagined": "imagined", "last frame repeated": "copy", "codec alone": "codec"}
    return {
        name: key
        for name, key in rows.items()
        if key in result.scores and (key != "imagined" or result.mode != "label")
    }


def side_by_side(result: DreamResult) -> np.ndarray:
    """Frames [1 + T, h, w, 3], the conditioning frame first: real on the left, imagined on the right, labelled.

    Without any recording there is only the right half; where the recording has ended the left one is grey.
    """
    views = _views(result)
    scale = _scale(result.start)
    panels = [_titled(np.repeat(np.repeat(frames, scale, 1), scale, 2), title) for title, frames in views.items()]
    gap = np.full((*panels[0].shape[:2], _GAP, 3), 255, np.uint8)
    joined = panels[0] if len(panels) == 1 else np.concatenate([panels[0], gap, panels[1]], axis=2)
    # Video codecs want even sides.
    return np.pad(joined, ((0, 0), (0, joined.shape[1] % 2), (0, joined.shape[2] % 2), (0, 0)), constant_values=255)


def filmstrip(result: DreamResult, every: int = 2) -> np.ndarray:
    """One picture [h, w, 3]: rows real and imagined, columns the conditioning frame and every `every`-th after it."""
    views = _views(result)
    scale = max(1, math.ceil(96 / result.start.shape[0]))
    margin, header = 76, 20
    times = [index / result.fps for index in range(0, 1 + len(result.imagined), every)]
    height, width = (side * scale for side in result.start.shape[:2])
    size = (margin + len(times) * (width + _GAP), header + len(views) * (height + _GAP))
    sheet = Image.new("RGB", size, _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, seconds in enumerate(times):
        text = "start" if column == 0 else f"{seconds:.1f} s"
        pen.text((margin + column * (width + _GAP), 2), text, fill=_INK, font=font)
    for row, (title, frames) in enumerate(views.items()):
        top = header + row * (height + _GAP)
        pen.text((2, top + height // 2 - 8), title, fill=_INK, font=font)
        for column, frame in enumerate(frames[::every]):
            tile = Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (margin + column * (width + _GAP), top))
    return np.asarray(sheet)


def animation(result: DreamResult) -> bytes:
    """An endless animated WebP of real | imagined at the frames' own size, without labels, for a page to enlarge."""
    panels = list(_views(result).values())
    gap = np.full((*panels[0].shape[:2], 2, 3), 255, np.uint8)
    joined = panels[0] if len(panels) == 1 else np.concatenate([panels[0], gap, panels[1]], axis=2)
    first, *rest = (Image.fromarray(frame) for frame in joined)
    durations = [round(1000 / result.fps)] * len(joined)
    durations[-1] += 700  # rest on the last frame before the film starts again
    small = result.start.shape[0] < MIN_HEIGHT // 2
    return _encoded(
        first, "WEBP", save_all=True, append_images=rest, duration=durations, loop=0, lossless=small, quality=85
    )


def action_charts(result: DreamResult) -> list[str]:
    """One SVG a joint: predicted and recorded actions over time, with the borders of the chunks."""
    seconds = np.arange(len(result.actions)) / (result.fps * result.steps_per_frame)
    chunk_seconds = result.frames_per_chunk / result.fps
    borders = [chunk * chunk_seconds for chunk in range(1, result.chunks)]
    verb = "given" if result.mode == "simulate" else "predicted"
    charts = []
    for index, (name, unit) in enumerate(zip(result.action_names, result.action_units, strict=True)):
        series = [Series(verb, seconds.tolist(), result.actions[:, index].tolist())]
        recorded = result.recorded_actions[:, index].tolist()
        if recorded:
            series.insert(0, Series("recorded", seconds[: len(recorded)].tolist(), recorded, muted=True))
        title = f"{name} ({unit})" if unit else name
        charts.append(line_chart(title, series, x_label="s", marks=borders))
    return charts


def _views(result: DreamResult) -> dict[str, np.ndarray]:
    """Title to frames [1 + T, H, W, 3]; grey frames where the recording has ended."""
    start = result.start[None]
    imagined = np.concatenate([start, result.imagined])
    if not len(result.real):
        return {"imagined": imagined}
    ended = np.full_like(result.imagined[len(result.real) :], _ABSENT)
    title = "codec" if result.mode == "label" else "imagined"
    return {"real": np.concatenate([start, result.real, ended]), title: imagined}


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _scale(frame: np.ndarray) -> int:
    return max(1, math.ceil(MIN_HEIGHT / frame.shape[0]))


def _titled(frames: np.ndarray, title: str) -> np.ndarray:
    """Put a strip with a title above the frames."""
    strip = Image.new("RGB", (frames.shape[2], 22), _PAPER)
    ImageDraw.Draw(strip).text((4, 3), title, fill=_INK, font=ImageFont.load_default(14))
    header = np.broadcast_to(np.asarray(strip), (len(frames), 22, frames.shape[2], 3))
    return np.concatenate([header, frames], axis=1)


def _json_numbers(value: Any) -> Any:
    """Replace what JSON cannot say: infinity by "inf" (identical frames), nan by null (nothing to compare)."""
    if isinstance(value, dict):
        return {key: _json_numbers(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_json_numbers(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value
