"""A dream in closed loop is what the robot would do; in open loop it lives off itself."""

import json
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_policies import build_policy, write_dataset

from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.report.clips import Clip, open_episodes, picture_clip, read_clip
from lerobot_wam.report.dream import dream
from lerobot_wam.report.pictures import dream_panel, save_dream, side_by_side
from lerobot_wam.runtime.session import Runtime


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list:
    """The observation of every chunk that is planned."""
    observations, plan = [], Runtime.plan

    def spy(self, sessions, found, **kwargs):
        observations.append((found[0], sessions[0].chunks and len(sessions[0].frames)))
        return plan(self, sessions, found, **kwargs)

    monkeypatch.setattr(Runtime, "plan", spy)
    return observations


def test_closed_loop_is_what_the_policy_does_on_the_recorded_frames(policy: WAMPolicy, clip: Clip):
    result = dream(policy, clip)
    policy.reset()
    acted = []
    for frame, state in zip(clip.frames, clip.states, strict=True):
        image = (frame[None] + 1) / 2
        batch = {"observation.images.front": image, "observation.state": state[None], "task": clip.task}
        acted.append(policy.select_action(batch)[0])
    assert result.chunks == 3
    np.testing.assert_allclose(result.actions[: len(acted)], torch.stack(acted).numpy(), atol=1e-5)


def test_shapes_and_the_end_of_the_recording(policy: WAMPolicy, clip: Clip):
    result = dream(policy, clip)
    assert result.imagined.shape == (24, 32, 32, 3)
    assert result.real.shape == (18, 32, 32, 3)
    assert result.actions.shape == (24, 6)
    assert result.recorded_actions.shape == (19, 6)
    assert len(result.scores["imagined"].error) == 18
    assert list(result.action_rmse) == list(result.action_names)
    np.testing.assert_allclose(
        result.action_rmse["waist.pos"], np.sqrt(((result.actions[:19, 0] - result.recorded_actions[:, 0]) ** 2).mean())
    )


def test_copy_and_codec_yardsticks(policy: WAMPolicy, clip: Clip):
    still = Clip(torch.zeros_like(clip.frames), clip.states, clip.actions, clip.task, clip.source)
    scores = dream(policy, still).scores
    assert scores["copy"].summary()["psnr"] == np.inf
    assert scores["codec"].summary()["psnr"] > 40
    closed, opened = (dream(policy, clip, loop=loop).scores["copy"].error for loop in ("closed", "open"))
    np.testing.assert_allclose(closed[:8], opened[:8])  # the last frame observed: of each chunk, or of the clip
    assert not np.allclose(closed[8:], opened[8:])


def test_open_loop_feeds_its_own_frames_and_targets_back(policy: WAMPolicy, clip: Clip, seen: list):
    result = dream(policy, clip, loop="open", chunks=2)
    (first, _), (second, observed) = seen
    assert torch.equal(first.frame, clip.frames[0])
    assert observed == 9  # a whole block: history stays in the cache
    pictured = ((second.frame + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(pictured, result.imagined[7])
    np.testing.assert_allclose(second.state.numpy(), result.actions[7])
    closed = dream(policy, clip, chunks=2)
    np.testing.assert_array_equal(closed.actions[:8], result.actions[:8])
    assert not np.allclose(closed.actions[8:], result.actions[8:])
    assert torch.equal(seen[3][0].frame, clip.frames[8])
    assert torch.equal(seen[3][0].state, clip.states[8])
    assert any("last joint target" in note for note in result.notes)


def test_simulating_takes_the_recorded_actions_or_given_ones(policy: WAMPolicy, clip: Clip):
    recorded = dream(policy, clip, "simulate")
    assert recorded.chunks == 2
    np.testing.assert_allclose(recorded.actions, clip.actions[:16].numpy(), atol=1e-5)
    given = np.tile(clip.actions[:1].numpy(), (32, 1))
    held = dream(policy, clip, "simulate", "open", actions=given)
    assert held.chunks == 4
    assert not np.array_equal(held.imagined[:8], recorded.imagined[:8])
    assert any("noise_mode=coupled" in note for note in held.notes)
    wild = dream(policy, clip, "simulate", "open", actions=given + 100)
    assert any("clipped" in note for note in wild.notes)


def test_labelling_keeps_the_video_and_finds_actions(policy: WAMPolicy, clip: Clip):
    result = dream(policy, clip, "label")
    assert result.chunks == 2
    np.testing.assert_array_equal(result.imagined, dream(policy, clip, "label", seed=5).imagined)
    assert result.scores["imagined"].summary() == result.scores["codec"].summary()
    assert result.action_rmse


def test_same_seed_same_dream(policy: WAMPolicy, clip: Clip):
    one, same, other = (dream(policy, clip, seed=seed, chunks=1).imagined for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "sleep"}, "mode is 'sleep', expected one of act, simulate, label"),
        ({"loop": "ajar"}, "loop is 'ajar'"),
        ({"chunks": 4}, "recorded frames to start from for 3.*--loop=open"),
        ({"chunks": 0}, "chunks is 0"),
        ({"mode": "label", "chunks": 3}, "whole chunks of recorded video for 2"),
        ({"mode": "label", "loop": "open"}, "use loop 'closed'"),
        ({"mode": "simulate", "chunks": 3}, "whole chunks of actions for 2"),
        ({"mode": "simulate", "actions": np.zeros((9, 6))}, r"shape \(9, 6\), expected \(n\*8, 6\)"),
        ({"mode": "act", "actions": np.zeros((8, 6))}, "only 'simulate' takes them"),
    ],
)
def test_what_does_not_fit_is_refused(policy: WAMPolicy, clip: Clip, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        dream(policy, clip, **options)


def test_clips_are_read_from_the_whole_and_from_the_filtered_dataset(policy: WAMPolicy, recording: Path, clip: Clip):
    whole = read_clip(policy, open_episodes(policy, root=recording), 1, 2)
    assert torch.equal(whole.frames, clip.frames)
    assert torch.equal(whole.actions, clip.actions)
    assert clip.task == "push blue"
    assert len(read_clip(policy, open_episodes(policy, root=recording, chunks=1), 1).frames) == 9


def test_a_policy_of_video_alone_dreams_of_a_robots_recording(recording: Path, tmp_path: Path):
    watching = build_policy(write_dataset(tmp_path / "video", (24,), state=False, action=False))
    clip = read_clip(watching, open_episodes(watching, root=recording), 1, 2)
    assert clip.states.shape == (19, 0)
    assert clip.actions.shape == (0, 0)
    result = dream(watching, clip)
    assert result.imagined.shape == (24, 32, 32, 3)
    assert result.actions.shape == (24, 0)


def test_missing_data_is_named(policy: WAMPolicy, recording: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no dataset at .*absent"):
        open_episodes(policy, root=tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    with pytest.raises(ValueError, match="episode 3 does not exist: the dataset has 3, choose 0 to 2"):
        open_episodes(policy, root=recording, episodes=[3])
    with pytest.raises(ValueError, match="frame 21 does not exist: episode 1 has 21"):
        read_clip(policy, open_episodes(policy, root=recording), 1, 21)


def test_a_picture_starts_a_dream(policy: WAMPolicy, tmp_path: Path):
    Image.new("RGB", (100, 50), (255, 0, 0)).save(tmp_path / "red.png")
    clip = picture_clip(policy, tmp_path / "red.png", "push red")
    assert clip.frames.shape == (1, 3, 32, 32)
    assert clip.frames[0, :, 0, 0].tolist() == [1, -1, -1]
    result = dream(policy, clip, loop="open", chunks=2)
    assert len(result.real) == 0
    assert result.scores == {}
    files = save_dream(result, tmp_path / "out")
    assert imageio.mimread(files.video)[0].shape == (278, 256, 3)  # no real half
    with pytest.raises(ValueError, match="the state has 2 numbers, expected 6"):
        picture_clip(policy, tmp_path / "red.png", "push red", [0.0, 1.0])
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.png is not a picture"):
        picture_clip(policy, tmp_path / "text.png", "push red")


def test_files(policy: WAMPolicy, clip: Clip, tmp_path: Path):
    result = dream(policy, clip)
    files = save_dream(result, tmp_path, gif=True)
    assert all(path.stat().st_size for path in files.existing())
    assert len(files.existing()) == 5
    for film in (files.video, files.gif):
        frames = imageio.mimread(film)
        assert len(frames) == 25
        assert frames[0].shape == (278, 516, 3)
    shown = side_by_side(result)
    np.testing.assert_array_equal(shown[3, 22::8, :256:8], result.real[2])
    np.testing.assert_array_equal(shown[3, 22::8, 260::8], result.imagined[2])
    assert (shown[24, 22:, :256] == 216).all()  # the recording has ended
    numbers = json.loads(files.metrics.read_text())
    assert numbers["video"]["imagined"]["psnr"] == pytest.approx(result.scores["imagined"].summary()["psnr"])
    assert len(numbers["video_per_frame"]["codec"]["ssim"]) == 18
    drawing = files.actions.read_text()
    assert drawing.count("<polyline") == 12
    assert all(f"{name} (rad)" in drawing for name in result.action_names)


def test_infinite_and_missing_numbers_stay_valid_json(policy: WAMPolicy, clip: Clip, tmp_path: Path):
    still = Clip(torch.zeros_like(clip.frames), clip.states, clip.actions, clip.task, clip.source)
    text = save_dream(dream(policy, still), tmp_path).metrics.read_text()
    copied = json.loads(text, parse_constant=pytest.fail)["video"]["copy"]
    assert copied["psnr"] == "inf"
    assert copied["psnr_moving"] is None


def test_a_panel_shows_the_numbers(policy: WAMPolicy, clip: Clip):
    result = dream(policy, clip)
    panel = dream_panel(result)
    assert panel.title == clip.task
    assert panel.views == ("real", "imagined")
    assert len(panel.charts) == 6
    assert panel.numbers["imagined"]["SSIM"] == f"{result.scores['imagined'].summary()['ssim']:.2f}"
    assert list(dream_panel(dream(policy, clip, "label")).numbers) == ["last frame repeated", "codec alone"]
