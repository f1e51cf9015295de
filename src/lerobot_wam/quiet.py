"""Silence around LeRobot's writing of datasets: video encoders and the datasets library report on every episode."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_writing() -> Iterator[None]:
    """Silence the video encoders and the datasets library's per-episode progress bars."""
    import av
    import datasets

    os.environ.setdefault("SVT_LOG", "1")
    shown = datasets.utils.logging.is_progress_bar_enabled()
    # FFmpeg's own level: LeRobot puts FFmpeg's own printing back after each video.
    av.logging.set_libav_level(av.logging.ERROR)
    datasets.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        av.logging.set_libav_level(av.logging.INFO)  # FFmpeg's default
        if shown:
            datasets.utils.logging.enable_progress_bar()
