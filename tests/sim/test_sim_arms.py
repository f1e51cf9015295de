"""Arms are data: found without importing their packages, and missing ones say what to install."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lerobot_wam.embodiments.spec import load_embodiment
from lerobot_wam.sim.arms import ARMS, VIPERX, ArmSpec, get_arm
from lerobot_wam.sim.meshes import cluster_vertices, read_obj, read_stl, thinned_mesh, write_stl
from lerobot_wam.sim.tabletop import load_scene


def test_every_arm_lists_as_many_joints_as_names_gains_and_home_positions():
    for arm in ARMS.values():
        assert arm.dof == len(arm.joint_names) == len(arm.home)
        assert len(arm.joints) == len(arm.stiffness) == arm.dof - (arm.gripper is not None)


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS)
def test_the_built_in_embodiment_is_the_simulated_arm(arm: ArmSpec):
    spec, scene = load_embodiment(arm.robot_type), load_scene(arm.name)
    assert spec.robot_types == (arm.robot_type,)
    for dimensions in (spec.state, spec.action):
        assert [dimension.name for dimension in dimensions] == [f"{name}.pos" for name in arm.joint_names]
        assert np.allclose([dimension.low for dimension in dimensions], scene.joint_low, atol=1e-4)
        assert np.allclose([dimension.high for dimension in dimensions], scene.joint_high, atol=1e-4)


def test_a_missing_package_names_itself_and_the_fix():
    arm = dataclasses.replace(VIPERX, package="no_such_package_here", distribution="no-such-package")
    with pytest.raises(ModuleNotFoundError, match=r"'viperx'.*'no-such-package'.*lerobot_policy_wam\[sim\]"):
        arm.locate_model()


def test_a_package_without_the_model_names_the_file():
    arm = dataclasses.replace(VIPERX, model_path="assets/gone.xml")
    with pytest.raises(ModuleNotFoundError, match=r"gone\.xml.*gym-aloha.*\[sim\]"):
        arm.locate_model()


def test_an_unknown_arm_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'kuka' is unknown; expected one of viperx, so101, panda, ur5e"):
        get_arm("kuka")


def test_the_arms_are_read_without_a_simulator():
    code = (
        "import sys; from lerobot_wam.sim.arms import ARMS; [a.locate_model() for a in ARMS.values()];"
        "heavy = {'mujoco', 'torch', *(a.package for a in ARMS.values())} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_clustering_keeps_the_shape_and_thins_it():
    steps = np.linspace(0, 1, 21)
    corners = [[[x, y, 0], [x + 0.05, y, 0], [x, y + 0.05, 0]] for x in steps[:-1] for y in steps[:-1]]
    thin = cluster_vertices(np.array(corners), 0.25)
    assert 0 < len(thin) < len(corners) / 4
    assert thin.reshape(-1, 3).min() >= 0
    assert thin.reshape(-1, 3).max() <= 1.05


def test_obj_files_give_their_triangles():
    text = b"# square\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvn 0 0 1\nf 1/1/1 2/2/1 3/3/1\nf 1//1 3//1 4//1\n"
    assert np.array_equal(read_obj(text)[:, :, :2], [[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]])


def test_the_mesh_cache_has_stable_names_and_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = tmp_path / "part.stl"
    source.write_bytes(write_stl(np.random.default_rng(0).random((50, 3, 3)).astype(np.float32)))
    monkeypatch.setenv("LEROBOT_WAM_CACHE", str(tmp_path / "a"))
    first = thinned_mesh(source, 0.1)
    monkeypatch.setenv("LEROBOT_WAM_CACHE", str(tmp_path / "b"))
    second = thinned_mesh(source, 0.1)
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()
    assert len(read_stl(first.read_bytes())) <= 50
    assert thinned_mesh(source, 0.2).name != first.name
    assert not list(first.parent.glob("*.part"))
