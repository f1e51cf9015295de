"""A folder of videos becomes a dataset: rates, sizes, captions, bad clips, interruptions, and training on it."""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from tiny_policies import build_policy, make_batch

from lerobot_wam.cli.main import BAD_INPUT, main
from lerobot_wam.training import ingest as module
from lerobot_wam.training.clips import Clip, find_clips, pictures
from lerobot_wam.training.ingest import IngestSettings, ingest

CAMERA = "observation.images.video"
SMALL = IngestSettings(size=(32, 32))


def write_clip(path: Path, frames: int = 30, rate: int = 30, size: tuple[int, int] = (48, 64)) -> Path:
    """Lossless grey frames that get brighter by 4 a frame; the leftmost eighth is white, the uppermost eighth black."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=rate, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = *size, "rgb24"
        for index in range(frames):
            image = np.full((*size, 3), 40 + 4 * index, np.uint8)
            image[:, : size[1] // 8] = 255
            image[: size[0] // 8] = 0
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return path


def shown(images: Sequence[np.ndarray]) -> list[int]:
    """Which of `write_clip`'s frames these are."""
    return [round((float(image[len(image) // 2 :, -len(image[0]) // 4 :].mean()) - 40) / 4) for image in images]


def as_clip(path: Path) -> Clip:
    return Clip(path.name, path, "", False)


def load(root: Path) -> LeRobotDataset:
    return LeRobotDataset(f"local/{root.name}", root=root, video_backend="pyav")


@pytest.mark.parametrize(("frames", "rate", "fps", "count"), [(30, 30, 10, 10), (30, 30, 8, 8), (6, 5, 10, 11)])
def test_every_rate_is_brought_to_one_by_the_frame_nearest_in_time(tmp_path, frames, rate, fps, count):
    clip = as_clip(write_clip(tmp_path / "clip.mp4", frames, rate))
    found = shown(list(pictures(clip, fps, (48, 64), letterbox=False)))
    assert len(found) == count
    assert np.abs(np.array(found) - np.arange(count) * rate / fps).max() <= 0.5


def test_proportions_are_kept_and_the_overhang_is_cut_evenly(tmp_path):
    clip = as_clip(write_clip(tmp_path / "clip.mp4", size=(64, 128)))
    image = next(pictures(clip, 10, (32, 32), letterbox=False))
    assert image.shape == (32, 32, 3)
    assert image[:3].max() < 20  # the black eighth is still an eighth
    assert image[8:, :4].max() < 80  # the white one lay in what was cut off


def test_letterboxed_pictures_are_whole(tmp_path):
    clip = as_clip(write_clip(tmp_path / "clip.mp4", size=(64, 128)))
    image = next(pictures(clip, 10, (32, 32), letterbox=True))
    assert image[:8].max() == image[24:].max() == 0
    assert image[12:24, :3].min() > 200


def test_phone_videos_stand_upright(tmp_path):
    """Phones store pictures as the sensor lies, and write beside them how to turn them."""
    lying = write_clip(tmp_path / "lying.mp4", size=(48, 64))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-display_rotation", "90", "-i", lying, "-c", "copy", "turned.mp4"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    image = next(pictures(as_clip(tmp_path / "turned.mp4"), 10, (64, 48), letterbox=False))
    assert image[10:54, :5].max() < 20  # black was on top, a quarter turn to the left of which is the left
    assert image[-6:, 8:].min() > 200  # white was left, which becomes the bottom


@pytest.mark.parametrize("kind", ["csv", "jsonl", "txt"])
def test_captions_become_tasks_and_file_names_stand_in(tmp_path, kind):
    for name in ("a/pour_it.mp4", "wipe-table.mov"):
        write_clip(tmp_path / name, frames=2)
    if kind == "csv":
        (tmp_path / "captions.csv").write_text('file,caption\na/pour_it.mp4,"pour, then\n stop"\n')
    elif kind == "jsonl":
        row = {"file_name": "a/pour_it.mp4", "text": "pour, then stop"}
        (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + "\n\n")
    else:
        (tmp_path / "a/pour_it.txt").write_text("pour, then\n stop\n")
    clips, lost = find_clips(tmp_path)
    assert [(clip.name, clip.caption, clip.captioned) for clip in clips] == [
        ("a/pour_it.mp4", "pour, then stop", True),
        ("wipe-table.mov", "wipe table", False),
    ]
    assert lost == []


BAD: dict[str, Callable[[Path], object]] = {
    "single.mp4: a single frame": lambda folder: write_clip(folder / "single.mp4", frames=1),
    "sound.mp4: no video in it": lambda folder: write_sound(folder / "sound.mp4"),
    "torn.mp4: cannot be read": lambda folder: (folder / "torn.mp4").write_bytes(b"\0" * 999),
    "gone.txt: a caption, but no such video": lambda folder: (folder / "gone.txt").write_text("x"),
}


def test_bad_clips_are_named_before_anything_is_written(tmp_path, capsys):
    folder = tmp_path / "clips"
    write_clip(folder / "good.mp4")
    for spoil in BAD.values():
        spoil(folder)
    words = ["ingest", str(folder), "--out", str(tmp_path / "out"), "--size=32x32"]
    assert main(words) == BAD_INPUT
    said = capsys.readouterr().err
    assert "4 bad" in said
    assert [text for text in BAD if text not in said] == []
    assert not list(tmp_path.glob("out*"))
    assert main([*words, "--skip-bad"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: 1 episodes, 10 frames; 4 left out\n"


def test_a_folder_without_a_video_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"no video in .*: expected files that end in .avi"):
        ingest(tmp_path, tmp_path / "out", SMALL)
    write_clip(tmp_path / "a.mp4")
    (tmp_path / "captions.csv").write_text("clip;label\n")
    with pytest.raises(ValueError, match="expected file or file_name, and caption or text or task"):
        ingest(tmp_path, tmp_path / "out", SMALL)


@pytest.mark.parametrize(
    ("wrong", "said"), [({"fps": 0}, "fps is 0"), ({"size": (31, 32)}, "31x32"), ({"max_seconds": 0.1}, "0.2 s")]
)
def test_settings_that_make_no_episode_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        IngestSettings(**wrong)


def test_long_clips_become_several_episodes(tmp_path):
    write_clip(tmp_path / "clips/long.mp4", frames=50, rate=10)
    write_clip(tmp_path / "clips/short.mp4", frames=6, rate=10)
    report = ingest(tmp_path / "clips", tmp_path / "out", IngestSettings(size=(32, 32), max_seconds=2.0))
    assert (report.episodes, report.frames) == (4, 56)
    dataset = load(tmp_path / "out")
    assert [episode["length"] for episode in dataset.meta.episodes] == [20, 20, 10, 6]
    assert dataset.meta.robot_type == "video"
    assert set(dataset.features) == {CAMERA, "timestamp", "frame_index", "episode_index", "index", "task_index"}
    assert dataset[49]["task"] == "long"
    images = [(dataset[i][CAMERA].permute(1, 2, 0) * 255).numpy() for i in (0, 19, 20, 45, 50, 55)]
    assert np.allclose(shown(images), [0, 19, 20, 45, 0, 5], atol=1)


def test_an_interrupted_ingest_goes_on_where_it_stopped(tmp_path, monkeypatch):
    for name in "abc":
        write_clip(tmp_path / f"clips/{name}.mp4", frames=6, rate=10)
    written: list[str] = []
    original = module._write_clip

    def counting(clip: Clip, *rest) -> None:
        written.append(clip.name)
        original(clip, *rest)

    def stopping(clip: Clip, *rest) -> None:
        if clip.name == "b.mp4":
            raise KeyboardInterrupt
        original(clip, *rest)

    monkeypatch.setattr(module, "_write_clip", stopping)
    with pytest.raises(KeyboardInterrupt):
        ingest(tmp_path / "clips", tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(module, "_write_clip", counting)
    assert ingest(tmp_path / "clips", tmp_path / "out", SMALL).episodes == 3
    assert written == ["b.mp4", "c.mp4"]
    assert not (tmp_path / "out.partial").exists()
    written.clear()
    assert ingest(tmp_path / "clips", tmp_path / "out", SMALL).episodes == 3
    assert written == []
    with pytest.raises(ValueError, match="give a new folder"):
        ingest(tmp_path / "clips", tmp_path / "out", IngestSettings(size=(48, 48)))


def test_a_clip_that_turns_out_bad_on_the_way_is_named_and_can_be_skipped(tmp_path, monkeypatch):
    for name in ("good", "torn"):
        write_clip(tmp_path / f"clips/{name}.mp4", frames=6, rate=10)

    def tearing(clip: Clip, *rest) -> Iterator[np.ndarray]:
        for index, picture in enumerate(pictures(clip, *rest)):
            if clip.name == "torn.mp4" and index == 3:
                raise ValueError("torn.mp4: cannot be read")
            yield picture

    monkeypatch.setattr(module, "pictures", tearing)
    with pytest.raises(ValueError, match=r"1 bad: torn.mp4: cannot be read\nmend or remove"):
        ingest(tmp_path / "clips", tmp_path / "out", SMALL)
    report = ingest(tmp_path / "clips", tmp_path / "out", SMALL, skip_bad=True)
    assert (report.episodes, report.frames, report.skipped) == (1, 6, ["torn.mp4: cannot be read"])


def test_a_policy_trains_on_it(tmp_path):
    """Through LeRobot's stock path: an embodiment of video alone is derived, and no action is learnt."""
    write_clip(tmp_path / "clips/wave.mp4", frames=24, rate=10)
    ingest(tmp_path / "clips", tmp_path / "humans", SMALL)
    policy = build_policy(tmp_path / "humans").train()
    loss, log = policy.forward(make_batch(tmp_path / "humans", policy.config, [0, 3]))
    loss.backward()
    assert log["video_loss"] > 0 == log["action_loss"]
    assert list(policy.config.embodiments) == ["video"]
    assert policy.model.patch_embedding.weight.grad.abs().sum() > 0
