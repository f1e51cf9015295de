"""DreamZero's metadata becomes embodiments: the checkpoint's numbers, in the order that the model uses them."""

from typing import Any

import numpy as np
import pytest
import torch

from lerobot_wam.embodiments.action_space import ActionSpace
from lerobot_wam.embodiments.gear import RELEASED, Keys, embodiment_from_gear, embodiment_from_modality, keys_of_dataset
from lerobot_wam.embodiments.spec import builtin_names, load_embodiment


def ranges(width: int, start: float) -> dict[str, list[float]]:
    low = start + np.arange(width) / 10
    return {"q01": low.tolist(), "q99": (low + 2).tolist(), "mean": [0.0] * width}


def metadata(tag: str, state: dict[str, int], action: dict[str, int], video: tuple[str, ...], fps: float) -> dict:
    """metadata.json as GEAR writes it: every key by alphabet, also those that no model uses."""
    groups = {"state": state | {"cartesian_position": 6}, "action": action | {"cartesian_position": 6}}
    groups = {group: dict(sorted(keys.items())) for group, keys in groups.items()}
    statistics = {
        group: {key: ranges(width, start + len(group)) for start, (key, width) in enumerate(keys.items())}
        for group, keys in groups.items()
    }
    modalities: dict[str, Any] = {
        group: {key: {"shape": [width], "absolute": True} for key, width in keys.items()}
        for group, keys in groups.items()
    }
    modalities["video"] = {key: {"resolution": [320, 180], "channels": 3, "fps": fps} for key in sorted(video)}
    return {tag: {"statistics": statistics, "modalities": modalities, "embodiment_tag": tag}}


DROID = metadata(
    "oxe_droid",
    {"joint_position": 7, "gripper_position": 1},
    {"joint_position": 7, "gripper_position": 1},
    RELEASED["oxe_droid"].video,
    15.0,
)


def run_settings(tag: str, keys: Keys, **more: Any) -> dict[str, Any]:
    concat = {"_target_": "groot.vla.data.transform.ConcatTransform"}
    concat |= {f"{g}_concat_order": [f"{g}.{key}" for key in getattr(keys, g)] for g in ("video", "state", "action")}
    return {"train_dataset": {"all_transforms": {tag: {"transforms": [{"_target_": "x.VideoCrop"}, concat]}}}} | more


@pytest.mark.parametrize("tag", RELEASED)
def test_the_released_robots_are_built_in(tag):
    assert tag in builtin_names()
    keys, spec = RELEASED[tag], load_embodiment(tag)
    assert len(spec.cameras) == len(keys.video)
    widths = {"oxe_droid": (8, 8), "agibot": (20, 22), "yam": (14, 14)}  # spec §2.4
    assert (len(spec.state), len(spec.action)) == widths[tag]
    assert (spec.chunk_steps, spec.video_stride) == (24, 3)


def test_droid_takes_the_models_keys_in_the_models_order():
    spec, statistics = embodiment_from_gear(DROID, "oxe_droid")
    assert spec == load_embodiment("oxe_droid")
    for group, found in (("state", statistics.state_low), ("action", statistics.action_low[0])):
        blocks = DROID["oxe_droid"]["statistics"][group]
        assert found.tolist() == blocks["joint_position"]["q01"] + blocks["gripper_position"]["q01"]
    np.testing.assert_allclose(statistics.action_high - statistics.action_low, 2)
    space = ActionSpace(spec, statistics)
    anchor = torch.full((1, 1, 8), 0.5, dtype=torch.float64)
    physical = space.decode(torch.zeros(1, 1, 24, 8, dtype=torch.float64), anchor)[0, 0, 0]
    middle = torch.from_numpy(statistics.action_low[0]) + 1
    torch.testing.assert_close(physical, middle + torch.tensor([0.5] * 7 + [0.0]))  # joints relative, gripper not


def test_other_widths_than_ours_are_named_by_key():
    keys = RELEASED["agibot"]
    widths = dict.fromkeys(keys.action, 1) | {"left_arm_joint_position": 3}
    state = {key: widths[key] for key in keys.state}
    spec, statistics = embodiment_from_gear(metadata("agibot", state, widths, keys.video, 30.0), "agibot")
    assert spec.action_names[:4] == (
        *(f"left_arm_joint_position_{i}" for i in range(3)),
        "right_arm_joint_position",
    )
    assert statistics.action_low.shape == (1, 9)
    assert [d.name for d in spec.action if not d.relative] == ["robot_velocity"]
    assert {d.name for d in spec.action if d.gripper} == {"left_effector_position", "right_effector_position"}


def test_the_runs_settings_win():
    keys = Keys(RELEASED["oxe_droid"].video, ("gripper_position",), ("gripper_position", "joint_position"), ())
    conf = run_settings("oxe_droid", keys, relative_action_keys=[], action_horizon=48)
    spec, _ = embodiment_from_gear(DROID, "oxe_droid", conf)
    assert (spec.state_names, len(spec.action)) == (("gripper_position",), 8)
    assert not any(d.relative for d in spec.action)
    assert (spec.chunk_steps, spec.video_stride) == (48, 6)


def test_a_new_robot_needs_the_runs_settings():
    keys = Keys(("front", "wrist"), ("arm", "hand"), ("arm", "hand"), ("arm",))
    widths = {"arm": 6, "hand": 1}
    data = metadata("my_arm", widths, widths, keys.video, 20.0)
    with pytest.raises(ValueError, match=r"'my_arm' is not one of the released robots .*: pass the checkpoint's conf"):
        embodiment_from_gear(data, "my_arm")
    with pytest.raises(ValueError, match="names no relative_action_keys for 'my_arm'"):
        embodiment_from_gear(data, "my_arm", run_settings("my_arm", keys))
    spec, statistics = embodiment_from_gear(
        data, "my_arm", run_settings("my_arm", keys, relative_action_keys=["arm"], action_horizon=24)
    )
    assert [c.key for c in spec.cameras] == ["observation.images.front", "observation.images.wrist"]
    assert (spec.view_layout, spec.fps, spec.video.crop) == ("two", 20.0, 0.95)
    assert [d.relative for d in spec.action] == [True] * 6 + [False]
    ActionSpace(spec, statistics)


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match=r"metadata\.json knows oxe_droid, not 'yam'"):
        embodiment_from_gear(DROID, "yam")
    broken = {"oxe_droid": DROID["oxe_droid"] | {"statistics": {"state": {}, "action": {}}}}
    with pytest.raises(ValueError, match="no q01 and q99 for the state joint_position, gripper_position"):
        embodiment_from_gear(broken, "oxe_droid")


MODALITY = {
    "state": {"joint_position": {"start": 1, "end": 8}, "gripper_position": {"start": 0, "end": 1}},
    "action": {
        "joint_velocity": {"start": 8, "end": 15},
        "joint_position": {"start": 1, "end": 8},
        "gripper_position": {"start": 0, "end": 1},
    },
    "video": {
        "exterior_image_1_left": {"original_key": "observation.images.left"},
        "exterior_image_2_left": {},
        "wrist_image_left": {},
    },
}


def test_a_datasets_columns_are_put_in_order():
    spec, columns = embodiment_from_modality(MODALITY, 15, "oxe_droid", keys_of_dataset(MODALITY, "oxe_droid"))
    assert columns == {"observation.state": [*range(1, 8), 0], "action": [*range(1, 8), 0]}
    assert spec.action == load_embodiment("oxe_droid").action
    assert spec.cameras[0].key == "observation.images.left"
    assert spec.cameras[2].key == "observation.images.wrist_image_left"


def test_an_unknown_tag_uses_everything():
    keys = keys_of_dataset(MODALITY, "my_arm")
    assert keys.action == ("gripper_position", "joint_position", "joint_velocity")
    assert keys.relative == ("joint_position",)
    spec, columns = embodiment_from_modality(MODALITY, 15, "my_arm", keys)
    assert columns["action"] == list(range(15))
    assert (spec.name, spec.view_layout) == ("my_arm", "three")
    with pytest.raises(ValueError, match=r"modality\.json has no state 'torso', it has joint_position"):
        embodiment_from_modality(MODALITY, 15, "my_arm", Keys(keys.video, ("torso",), (), ()))
    elsewhere = MODALITY | {"state": {"pose": {"start": 0, "end": 6, "original_key": "observation.pose"}}}
    with pytest.raises(ValueError, match=r"state keys pose are stored in observation\.pose, expected all in"):
        embodiment_from_modality(elsewhere, 15, "my_arm", Keys(keys.video, ("pose",), (), ()))
    with pytest.raises(ValueError, match="0 cameras with 15 frames/s, expected 1 to 3"):
        embodiment_from_modality(MODALITY, 15, "my_arm", Keys((), keys.state, keys.action, ()))
