"""Embodiment files are read strictly, and survive the trip through a checkpoint's config.json."""

import json
from dataclasses import replace

import pytest
import yaml

from lerobot_wam.embodiments.schema import SchemaError
from lerobot_wam.embodiments.spec import CameraView, Dimension, EmbodimentSpec, builtin_names, load_embodiment

MINIMAL = {
    "name": "arm",
    "cameras": [{"key": "observation.images.front", "row": 0, "col": 0}],
    "state": [{"name": "a.pos", "low": -1, "high": 1.5}, {"name": "gripper.pos", "gripper": True}],
    "action": [{"name": "a.pos", "relative": True}, {"name": "gripper.pos", "gripper": True}],
    "fps": 15,
    "video_stride": 3,
    "chunk_steps": 24,
    "prompt": "The robot shall {task}. It will {task}.",
}


@pytest.mark.parametrize("name", builtin_names())
def test_builtins_load_under_their_own_name_and_round_trip(name):
    spec = load_embodiment(name)
    assert spec.name == name
    assert EmbodimentSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert EmbodimentSpec.from_dict(yaml.safe_load(spec.to_yaml())) == spec


def test_the_simulated_viperx():
    spec = load_embodiment("wam_sim_viperx")
    joints = ["waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate"]
    assert list(spec.action_names) == list(spec.state_names) == [f"{joint}.pos" for joint in joints]
    assert all(dimension.relative for dimension in spec.action)
    assert (spec.fps, spec.frames_per_chunk, spec.grid) == (10, 8, (1, 1))


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "arm.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    spec = load_embodiment(path)
    assert spec.state[0] == Dimension("a.pos", low=-1.0, high=1.5)
    assert spec.cameras == (CameraView("observation.images.front", 0, 0),)
    assert spec.render_prompt("Pick Up") == "The robot shall pick up. It will pick up."
    with pytest.raises(FileNotFoundError, match=r"other\.yaml does not exist"):
        load_embodiment(tmp_path / "other.yaml")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown embodiment 'wam_sim_viper': did you mean 'wam_sim_viperx'.*so101"):
        load_embodiment("wam_sim_viper")


def test_a_built_in_answers_to_its_robot_types():
    assert load_embodiment("droid_franka") == load_embodiment("oxe_droid")


def test_a_built_in_name_stays_with_its_body(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(replace(load_embodiment("wam_sim_viperx"), prompt="with care: {task}").to_yaml())
    assert load_embodiment(path).prompt == "with care: {task}"
    path.write_text(yaml.safe_dump(MINIMAL | {"name": "wam_sim_viperx"}))
    with pytest.raises(
        ValueError, match=r"mine.yaml: the name 'wam_sim_viperx' belongs to a built-in robot with other"
    ):
        load_embodiment(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk_step": 24}, "unknown key 'chunk_step': did you mean 'chunk_steps'"),
        ({"fps": None}, "x.fps is None"),
        ({"video_stride": "3"}, r"x.video_stride is '3' \(str\), expected int"),
        ({"video_stride": True}, r"x.video_stride is True \(bool\), expected int"),
        ({"cameras": {"key": "a"}}, "expected a list"),
        ({"cameras": []}, "needs at least one view"),
        ({"cameras": [{"key": "a"}, {"key": "a", "col": 1}]}, "camera 'a' appears more than once"),
        ({"cameras": [{"key": "a"}, {"key": "b"}]}, r"cell \(row, col\) \(0, 0\) appears more than once"),
        ({"cameras": [{"key": "a", "row": -1}]}, r"x.cameras\[0\]: camera 'a' sits at row -1"),
        ({"state": [{"name": "a.pos"}, {"name": "a.pos"}]}, "state dimension 'a.pos' appears more than once"),
        ({"state": []}, "action 'a.pos' is relative but no state dimension has that name"),
        ({"action": [{"name": "a.pos", "low": 2, "high": 1}]}, "low must be below high"),
        ({"action": ["a.pos"]}, r"x.action\[0\] is 'a.pos', expected a mapping"),
        ({"fps": 0}, "all must be positive"),
        ({"prompt": "do it"}, "no place for the task"),
        ({"normalization": {"mode": "mean"}}, r"mode is 'mean', expected one of \['quantile', 'min_max'\]"),
        ({"normalization": {"min_half_range": -1.0}}, "min_half_range is -1.0, expected 0 or more"),
        ({"normalization": {"clip": 0.5}}, "clip is 0.5, expected 1 or more"),
        ({"view_layout": "four"}, r"view_layout is 'four', expected one of \['grid', 'one', 'two', 'three', 'droid'\]"),
        ({"view_layout": "droid"}, r"'droid' places 3 cameras by their order, found observation.images.front \(row 0"),
        ({"view_layout": "one", "cameras": [{"key": "a", "col": 1}]}, "leave row and col out"),
        ({"video": {"crop": 0}}, "crop is 0.0, expected a share of the view above 0 and at most 1"),
        ({"video": {"color_jitter": [0.3]}}, r"color_jitter is \[0.3\], expected \[brightness, contrast"),
        ({"video": {"color_jitter": [0.3, 0.4, 0.5, -0.1]}}, "each 0 or more, or nothing"),
    ],
)
def test_strict_reading(change, message):
    with pytest.raises(SchemaError, match=message):
        EmbodimentSpec.from_dict(MINIMAL | change, where="x")


def test_missing_keys_are_all_named():
    with pytest.raises(SchemaError, match=r"x lacks fps, video_stride"):
        EmbodimentSpec.from_dict({k: v for k, v in MINIMAL.items() if k not in ("fps", "video_stride")}, where="x")
    with pytest.raises(SchemaError, match="expected a mapping"):
        EmbodimentSpec.from_dict([], where="x")


@pytest.mark.parametrize(
    ("text", "message"), [("name: a\nname: b\n", "key 'name' appears more than once"), ("a: [", "arm.yaml: while")]
)
def test_bad_yaml(tmp_path, text, message):
    (tmp_path / "arm.yaml").write_text(text)
    with pytest.raises(SchemaError, match=message):
        load_embodiment(tmp_path / "arm.yaml")


def test_a_chunk_spans_whole_latents():
    spec = EmbodimentSpec.from_dict(MINIMAL)
    spec.check_chunk()
    with pytest.raises(
        ValueError, match=r"chunk_steps is 24, expected 12 \(4 video frames per chunk x video_stride 3\)"
    ):
        spec.check_chunk(latents_per_chunk=1)
    with pytest.raises(ValueError, match="chunk_steps is 20, expected 24"):
        replace(spec, chunk_steps=20).check_chunk()
