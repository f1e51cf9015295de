"""A folder of video clips and what is said about them; a clip's pictures at an even rate and of one size."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
CAPTION_FILES = ("captions.csv", "captions.jsonl", "metadata.csv", "metadata.jsonl")
"""Looked for in a folder; the last two are the names in Hugging Face's video folders."""
FILE_COLUMNS, TEXT_COLUMNS = ("file", "file_name"), ("caption", "text", "task")


@dataclass(frozen=True)
class Clip:
    """One video file.

    Attributes:
        name: Path within the folder.
        path: The file.
        caption: What happens in it; where nobody says, its file name.
        captioned: Whether somebody says.
    """

    name: str
    path: Path
    caption: str
    captioned: bool


def find_clips(folder: Path, captions: Path | None = None) -> tuple[list[Clip], list[str]]:
    """Find the videos of a folder and of the folders within it, in the order of their names.

    Args:
        folder: Where to look.
        captions: CSV or JSON-lines file with a column `file` (or `file_name`) and one of `caption`, `text`, `task`;
            None takes one of `CAPTION_FILES` in the folder, else a `.txt` file beside each clip.

    Returns:
        The clips; and one line for each caption without a video.

    Raises:
        FileNotFoundError: There is no folder, no video in it, or no such file of captions.
        ValueError: The file of captions has other columns.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES}
    if not files:
        raise FileNotFoundError(f"no video in {folder}: expected files that end in {', '.join(VIDEO_SUFFIXES)}")
    table = captions or next((folder / name for name in CAPTION_FILES if (folder / name).is_file()), None)
    if table is None:
        stems = {str(Path(name).with_suffix(".txt")): name for name in files}
        notes = {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in folder.rglob("*.txt")}
        texts = {stems.get(note, note): text for note, text in notes.items()}
    else:
        texts = _read_table(table)
    lost = [f"{name}: a caption, but no such video" for name in sorted(texts.keys() - files.keys())]
    clips = []
    for name in sorted(files):
        caption = " ".join(texts.get(name, "").split())
        called = files[name].stem.replace("_", " ").replace("-", " ")
        clips.append(Clip(name, files[name], caption or called, bool(caption)))
    return clips, lost


def _read_table(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise FileNotFoundError(f"no file of captions {path}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, filter(str.strip, file)))
    keys = list(rows[0]) if rows else []
    found = [next((key for key in keys if key in wanted), None) for wanted in (FILE_COLUMNS, TEXT_COLUMNS)]
    if None in found:
        raise ValueError(
            f"{path} has the columns {', '.join(keys) or 'of an empty file'}; expected {' or '.join(FILE_COLUMNS)}, "
            f"and {' or '.join(TEXT_COLUMNS)}"
        )
    return {row[found[0]]: row[found[1]] or "" for row in rows}


@dataclass(frozen=True)
class Shape:
    """A clip's height and width in pixels as it is meant to be seen, and its average frames per second."""

    height: int
    width: int
    fps: float


@contextmanager
def _frames(clip: Clip) -> Iterator[tuple[av.VideoStream, Iterator[VideoFrame]]]:
    """The clip's video stream and its decoded frames.

    Raises:
        ValueError: It holds no video, or cannot be decoded.
    """
    try:
        with av.open(str(clip.path)) as container:
            if not container.streams.video:
                raise ValueError(f"{clip.name}: no video in it, only sound")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield stream, container.decode(stream)
    except av.FFmpegError as error:
        raise ValueError(f"{clip.name}: cannot be read ({error.strerror})") from error


def probe(clip: Clip) -> Shape:
    """Open a clip and decode its beginning.

    Raises:
        ValueError: It holds no video, a single frame, or cannot be decoded.
    """
    with _frames(clip) as (stream, frames):
        first = next(frames, None)
        if first is None or next(frames, None) is None:
            raise ValueError(f"{clip.name}: {'no frame' if first is None else 'a single frame'}, expected 2 or more")
        height, width = (first.height, first.width) if first.rotation % 180 == 0 else (first.width, first.height)
        return Shape(height, width, float(stream.average_rate or 0))


def pictures(clip: Clip, fps: int, size: tuple[int, int], letterbox: bool) -> Iterator[np.ndarray]:
    """Give a clip's pictures, uint8 [height, width, 3], at an even rate: each the frame nearest in time.

    Args:
        clip: The clip.
        fps: Pictures per second.
        size: Their height and width in pixels.
        letterbox: Fit the whole frame in with black bars, else fill the size and cut the overhang off evenly.

    Raises:
        ValueError: The clip cannot be decoded.
    """
    with _frames(clip) as (_, frames):
        picture, begin, before, count = None, 0.0, 0.0, 0
        for frame in frames:
            if picture is None:
                begin = frame.time
            now = frame.time - begin
            while picture is not None and count / fps < (before + now) / 2:
                yield picture
                count += 1
            picture, before = _fitted(frame, size, letterbox), now
        while picture is not None and count / fps <= before:
            yield picture
            count += 1


def _fitted(frame: VideoFrame, size: tuple[int, int], letterbox: bool) -> np.ndarray:
    """Scale a frame with its proportions, turn it as its file says, and cut it or frame it in black."""
    turned = frame.rotation % 180 != 0
    height, width = (frame.width, frame.height) if turned else (frame.height, frame.width)
    scale = (min if letterbox else max)(size[0] / height, size[1] / width)
    height, width = round(height * scale), round(width * scale)
    across = (height, width) if turned else (width, height)
    stored = frame.reformat(*across, format="rgb24", interpolation="BICUBIC").to_ndarray()
    image = np.rot90(stored, frame.rotation // 90)
    top, left = (abs(size[0] - height) // 2, abs(size[1] - width) // 2)
    if not letterbox:
        return np.ascontiguousarray(image[top : top + size[0], left : left + size[1]])
    framed = np.zeros((*size, 3), np.uint8)
    framed[top : top + height, left : left + width] = image
    return framed
