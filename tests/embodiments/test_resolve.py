"""Which embodiment a dataset gets, and what a checkpoint keeps of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lerobot_wam.embodiments.datasets import EmbodimentMismatchError
from lerobot_wam.embodiments.resolve import (
    check_numbers,
    find_embodiment,
    load_stored_embodiment,
    resolve_embodiment,
    stored_embodiment,
)
from lerobot_wam.embodiments.spec import EmbodimentSpec, load_embodiment
from lerobot_wam.embodiments.statistics import Columns

ARM = load_embodiment("wam_sim_viperx")


def features(
    cameras: tuple[str, ...] = ("front",), names: Any = ARM.state_names, size: int = 6, action: bool = True
) -> dict[str, dict[str, Any]]:
    vector = {"dtype": "float32", "shape": (size,), "names": names}
    found = {f"observation.images.{camera}": {"dtype": "image", "shape": (8, 8, 3)} for camera in cameras}
    return found | {"observation.state": vector} | ({"action": vector} if action else {})


def resolve(
    name: str = "auto", fps: float = 10, robot: str | None = "wam_sim_viperx", stride: int = 1, **kind: Any
) -> EmbodimentSpec:
    return resolve_embodiment(name, features(**kind), fps, robot, stride, 8 * stride)


def columns(steps: int = 20, **values: np.ndarray | None) -> Columns:
    index = np.arange(steps)
    joints = np.sin(index[:, None] + np.arange(6))
    return Columns(index * 0, index, index * 0, **({"action": joints, "state": joints} | values))


def test_auto_takes_the_built_in_robot():
    assert resolve() == ARM


@pytest.mark.parametrize(
    ("cameras", "grid"), [(("top",), (1, 1)), (("front", "wrist"), (1, 2)), (("a", "b", "c", "d", "e"), (2, 3))]
)
def test_auto_takes_the_body_from_the_built_in_and_the_eyes_from_the_dataset(
    cameras: tuple[str, ...], grid: tuple[int, int]
):
    spec = resolve(cameras=cameras)
    assert [camera.key for camera in spec.cameras] == [f"observation.images.{camera}" for camera in cameras]
    assert spec.grid == grid
    assert replace(spec, cameras=ARM.cameras) == ARM


def test_auto_takes_the_rate_from_the_dataset():
    assert resolve(fps=30) == replace(ARM, fps=30)
    assert find_embodiment("auto", features(), 30, "wam_sim_viperx") == ARM, "its own timing, where windows go by time"


def test_auto_takes_unnamed_numbers_for_the_robot_s():
    assert resolve(names=["state"]) == ARM


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"robot": "unheard_of"}, "unheard_of"),
        ({"robot": None}, "derived"),
        ({"names": list("abcdef")}, "wam_sim_viperx_derived"),
        ({"names": None, "size": 7}, "wam_sim_viperx_derived"),
    ],
)
def test_auto_derives_what_no_built_in_fits(change: dict[str, Any], name: str):
    spec = resolve(**change)
    assert spec.normalization != ARM.normalization
    assert spec.name == name
    assert (spec.fps, spec.video_stride, spec.chunk_steps) == (10, 1, 8)


def test_auto_sees_that_there_are_no_actions():
    """The built-in robot's action statistics cannot be measured on video alone."""
    spec = resolve(action=False)
    assert (spec.action, len(spec.state)) == ((), 6)
    stored_embodiment(spec, columns(action=None))


def test_a_named_robot_must_fit():
    with pytest.raises(EmbodimentMismatchError, match=r"needs the camera observation.images.front; .*--rename_map"):
        resolve("wam_sim_viperx", cameras=("top",))
    with pytest.raises(EmbodimentMismatchError, match="runs at 30 steps/s"):
        resolve("wam_sim_viperx", fps=30)
    with pytest.raises(ValueError, match="unknown embodiment 'nobody'"):
        resolve("nobody")


def test_timing_that_was_set_on_purpose_wins():
    spec = resolve("wam_sim_viperx", fps=30, stride=3)
    assert spec == replace(ARM, fps=30, video_stride=3, chunk_steps=24)


def test_what_a_checkpoint_keeps_comes_back_equal():
    stored = stored_embodiment(ARM, columns())
    spec, statistics = load_stored_embodiment("arm", stored)
    assert spec == ARM
    assert statistics.to_dict() == stored["statistics"]
    stored["spec"]["colour"] = "red"
    with pytest.raises(ValueError, match="stored embodiment arm has the unknown key 'colour'"):
        load_stored_embodiment("arm", stored)


def test_numbers_of_new_data_are_checked():
    check_numbers(ARM, columns())
    check_numbers(ARM, columns(action=None))
    check_numbers(ARM, columns(action=None, state=None))
    spoiled = np.zeros((20, 6))
    spoiled[7, 2] = np.inf
    with pytest.raises(ValueError, match=r"observation.state 'elbow.pos' \(index 2\) is inf at step 7"):
        check_numbers(ARM, columns(action=None, state=spoiled))
    with pytest.raises(ValueError, match=r"action is of shape \(20, 5\), expected \(20, 6\)"):
        check_numbers(ARM, columns(action=np.zeros((20, 5))))
