"""Specs derived from a dataset's features, and datasets checked against a spec."""

import json

import pytest

from lerobot_wam.embodiments.datasets import EmbodimentMismatchError, check_dataset, derive_embodiment, misfits
from lerobot_wam.embodiments.spec import EmbodimentSpec, load_embodiment

JOINTS = ["pan.pos", "lift.pos", "gripper.pos"]


def camera(name: str) -> dict:
    return {f"observation.images.{name}": {"dtype": "video", "shape": [480, 640, 3], "names": ["h", "w", "c"]}}


def vector(key: str, names, size: int | None = None) -> dict:
    return {key: {"dtype": "float32", "shape": (size or len(names),), "names": names}}


def arm_features(names=JOINTS) -> dict:
    extra = {"timestamp": {"dtype": "float32", "shape": (1,), "names": None}}
    return vector("action", names) | vector("observation.state", names) | camera("front") | camera("wrist") | extra


def test_a_derived_arm():
    spec = derive_embodiment(arm_features(), fps=30, robot_type="so100_follower")
    assert spec.name == "so100_follower"
    assert spec.robot_types == ("so100_follower",)
    assert [(d.name, d.relative, d.gripper) for d in spec.action] == [
        ("pan.pos", True, False),
        ("lift.pos", True, False),
        ("gripper.pos", False, True),
    ]
    assert (spec.video_stride, spec.chunk_steps) == (6, 48)
    spec.check_chunk()
    check_dataset(spec, arm_features(), 30)
    assert EmbodimentSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_timing_can_be_chosen():
    spec = derive_embodiment(arm_features(), fps=30, video_stride=3, latents_per_chunk=4)
    assert (spec.name, spec.video_stride, spec.chunk_steps) == ("derived", 3, 48)
    assert derive_embodiment(arm_features(), fps=3).video_stride == 1


@pytest.mark.parametrize(("count", "grid"), [(1, (1, 1)), (2, (1, 2)), (3, (2, 2)), (5, (2, 3))])
def test_cameras_fill_a_near_square_grid(count, grid):
    features = {}
    for i in range(count):
        features |= camera(f"c{i}")
    spec = derive_embodiment(features, fps=10)
    assert spec.grid == grid
    assert len(spec.cameras) == count


def test_a_depth_map_is_no_camera():
    depth = {"dtype": "video", "shape": [480, 640, 1], "names": ["h", "w", "c"]}
    flags = ({"info": {"is_depth_map": True}}, {"video_info": {"video.is_depth_map": True}})
    features = camera("front") | {f"observation.images.depth_{i}": depth | flag for i, flag in enumerate(flags)}
    assert [c.key for c in derive_embodiment(features, fps=10).cameras] == ["observation.images.front"]


def test_video_without_a_robot():
    spec = derive_embodiment(camera("ego"), fps=10)
    assert spec.action == spec.state == ()
    check_dataset(spec, camera("ego"), 10)


@pytest.mark.parametrize("names", [[JOINTS], {"motors": JOINTS}, {"pan.pos": 0, "gripper.pos": 2, "lift.pos": 1}])
def test_names_come_in_several_forms(names):
    features = camera("front") | vector("action", names, 3) | vector("observation.state", names, 3)
    spec = derive_embodiment(features, fps=10)
    assert list(spec.action_names) == JOINTS
    check_dataset(spec, features, 10)


@pytest.mark.parametrize("names", [None, [], {"axes": None}])
def test_unnamed_dimensions_are_numbered_and_absolute(names):
    features = camera("front") | vector("action", names, 2) | vector("observation.state", names, 2)
    spec = derive_embodiment(features, fps=10)
    assert spec.action_names == ("action_0", "action_1")
    assert not any(d.relative for d in spec.action)
    check_dataset(spec, features, 10)


def test_wrong_names_are_announced(caplog):
    spec = derive_embodiment(camera("front") | vector("action", ["x"], 2), fps=10)
    assert spec.action_names == ("action_0", "action_1")
    assert "action has 2 dimensions but the names ['x']" in caplog.text


def test_one_number_and_a_fast_camera():
    features = vector("action", ["grip"]) | vector("observation.state", ["grip"]) | camera("front")
    spec = derive_embodiment(features, fps=50)
    assert (spec.action_names, spec.video_stride, spec.chunk_steps) == (("grip",), 10, 80)
    check_dataset(spec, features, 50)


def test_every_misfit_is_named():
    features = vector("action", JOINTS[:2]) | camera("top")
    found = list(misfits(derive_embodiment(arm_features(), fps=10), features, 20))
    assert [text.split(" ")[0] for text in found] == ["embodiment", "action", "observation.state", "the"]


def test_underivable_datasets():
    with pytest.raises(ValueError, match="no camera among the dataset's features"):
        derive_embodiment(vector("action", JOINTS), fps=10)
    with pytest.raises(ValueError, match=r"action has shape \(2, 3\), expected a vector"):
        derive_embodiment(camera("front") | {"action": {"dtype": "float32", "shape": (2, 3)}}, fps=10)


def test_missing_camera_lists_what_there_is():
    with pytest.raises(
        EmbodimentMismatchError, match=r"needs the camera observation.images.wrist; the dataset has .*front:"
    ):
        check_dataset(derive_embodiment(arm_features(), fps=10), camera("front"), 10)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (vector("action", JOINTS[:2]), "action of the dataset is 2-dimensional"),
        (vector("action", ["lift.pos", "pan.pos", "gripper.pos"]), "embodiment 'derived' expects 3"),
        (vector("action", None, 4), "4-dimensional \\(unnamed\\)"),
        (vector("action", JOINTS), "observation.state of the dataset is missing, embodiment 'derived' expects 3"),
    ],
)
def test_wrong_dimensions(features, message):
    spec = derive_embodiment(arm_features(), fps=10)
    with pytest.raises(EmbodimentMismatchError, match=message):
        check_dataset(spec, camera("front") | camera("wrist") | features, 10)


def test_video_only_data_fits_an_arm():
    check_dataset(load_embodiment("wam_sim_viperx"), camera("front"), 10)


def test_another_rate_names_the_flags():
    spec = load_embodiment("wam_sim_viperx")
    with pytest.raises(
        EmbodimentMismatchError,
        match=r"runs at 30 steps/s, .* expects 10: .*--policy.video_stride=3 --policy.chunk_steps=24.*embodiment=auto",
    ):
        check_dataset(spec, camera("front"), 30)
    with pytest.raises(EmbodimentMismatchError, match=r"no whole stride keeps its seconds \(1.50 would\)"):
        check_dataset(spec, camera("front"), 15)


@pytest.mark.parametrize("features", [camera("front") | vector("action", JOINTS), camera("wrist"), camera("front")])
def test_a_robot_that_is_settled_has_another_way_out(features):
    """A checkpoint keeps its robots, so no flag of training can choose another one."""
    with pytest.raises(EmbodimentMismatchError, match=r"(or|:) adapt$") as error:
        check_dataset(load_embodiment("wam_sim_viperx"), features, 30, "adapt")
    assert "auto" not in str(error.value)
    assert "video_stride" not in str(error.value)
