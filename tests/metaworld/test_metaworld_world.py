"""Meta-World's physics and judgement, untouched; images that are ours."""

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("metaworld")

from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from lerobot_wam.metaworld.tasks import Task
from lerobot_wam.metaworld.world import Expert, World, give_back, take_world
from lerobot_wam.sim.rendering import close_renderers

STILL = np.array([0.0, 0.0, 0.0, -1.0])


@pytest.fixture(scope="module")
def drawer() -> Iterator[World]:
    yield World(Task("drawer-close-v3"))
    close_renderers()


def finish(world: World) -> list[float]:
    """Let the expert work; return the progress after every step."""
    expert, progress = Expert(world), []
    while not world.success and len(progress) < 60:
        world.step(expert.action())
        progress.append(world.progress)
    return progress


def test_thin_meshes_and_small_textures_change_no_physics(drawer: World):
    """The same actions from the same state lead, bit for bit, to what Meta-World's own model leads to."""
    original = ALL_V3_ENVIRONMENTS["drawer-close-v3"]()
    original._set_task_called = True
    drawer.reset([0])
    ours = drawer._environment
    assert ours.model.nmeshface < 0.5 * original.model.nmeshface
    assert ours.model.ntexdata < 0.1 * original.model.ntexdata
    original.model.body_pos[:] = ours.model.body_pos
    original._target_pos, original.obj_init_pos, original.init_tcp = ours._target_pos, ours.obj_init_pos, ours.init_tcp
    for name in ("qpos", "qvel", "mocap_pos", "mocap_quat", "qacc_warmstart", "ctrl"):
        getattr(original.data, name)[:] = getattr(ours.data, name)
    expert = Expert(drawer)
    for _ in range(12):
        action = expert.action()
        drawer.step(action)
        for _ in range(4):
            original.step(action)
        np.testing.assert_array_equal(original.data.qpos, ours.data.qpos)
    assert np.abs(ours.data.qpos - ours.init_qpos).max() > 0.05


def test_a_world_that_was_used_is_like_a_new_one(drawer: World):
    drawer.reset([7])
    finish(drawer)
    before, image = drawer.observation, drawer.image(32)
    drawer.reset([8])
    assert not np.array_equal(drawer.observation, before)
    for world in (drawer, World(drawer.task)):
        world.reset([7])
        finish(world)
        np.testing.assert_array_equal(world.observation, before)
        np.testing.assert_array_equal(world.image(32), image)


def test_progress_grows_to_one_with_success_and_only_then(drawer: World):
    drawer.reset([0])
    assert drawer.progress == 0
    progress = finish(drawer)
    assert drawer.success
    assert progress == sorted(progress)
    assert progress[-1] == 1 > progress[-2] > 0.3


@pytest.mark.parametrize("name", ["door-open-v3", "assembly-v3"])
def test_progress_is_measured_where_meta_world_reports_no_distance(name: str):
    world = take_world(Task(name))
    world.reset([0])
    middle = [value for value in finish(world) if 0.1 < value < 0.9]
    give_back(world)
    assert world.success
    assert middle


def test_nothing_moves_by_itself():
    """Left to itself, Meta-World's box of this task slides to its goal: its reset clears another joint's speed."""
    world = take_world(Task("stick-push-v3"))
    world.reset([1])
    box = world.observation[11:14]
    for _ in range(8):
        world.step(STILL)
    np.testing.assert_allclose(world.observation[11:14], box, atol=0.002)
    give_back(world)


@pytest.mark.parametrize("name", ["coffee-pull-v3", "pick-out-of-hole-v3", "reach-v3"])
def test_the_marker_is_at_the_goal(name: str):
    world = take_world(Task(name))
    world.reset([3])
    environment = world._environment
    site = environment.data.site("mug_goal" if name == "coffee-pull-v3" else "goal")
    np.testing.assert_allclose(site.xpos, environment._target_pos, atol=1e-6)
    assert environment.model.site_rgba[site.id, 3] == 1
    give_back(world)


def test_the_goal_is_marked_where_it_is_and_only_where_nothing_else_shows_it():
    def green(world: World) -> np.ndarray:
        image = world.image(96).astype(int)
        return np.argwhere((image[..., 1] > 150) & (image[..., 0] < 80) & (image[..., 2] < 100))

    reach, faucet = take_world(Task("reach-v3")), take_world(Task("faucet-open-v3"))
    centres = []
    for key in ([0], [1]):
        reach.reset(key)
        shown = green(reach)
        assert len(shown) > 3
        centres.append((shown[:, 1].mean(), reach._environment._target_pos[0]))
        expert = Expert(reach)
        for _ in range(3):
            reach.step(expert.action())
        assert abs(green(reach)[:, 1].mean() - centres[-1][0]) < 2, "it stays while the arm moves"
    assert (centres[0][0] > centres[1][0]) == (centres[0][1] > centres[1][1])
    faucet.reset([0])
    assert len(green(faucet)) == 0
    give_back(reach)
    give_back(faucet)


def test_a_world_given_back_is_taken_again(drawer: World):
    give_back(drawer)
    assert take_world(drawer.task) is drawer
