"""Grippers, and the tasks that take one: language, scenes, judgement and the expert that meets it."""

import numpy as np
import pytest

from lerobot_wam.sim.arms import ARMS
from lerobot_wam.sim.env import TabletopEnv
from lerobot_wam.sim.episodes import Recipe, make_episode
from lerobot_wam.sim.experts import TaskExpert
from lerobot_wam.sim.looks import PLAIN, UNSEEN, Look
from lerobot_wam.sim.tabletop import COLOURS, PLATES, Tabletop
from lerobot_wam.sim.tasks import GRASP_TASKS, Judge, Task, parse_task, place_cubes, select_tasks

GRIPPERS = [name for name, arm in ARMS.items() if arm.gripper is not None]
CUBES = np.array([[0.0, -0.12, 0.025], [0.0, 0.0, 0.025], [0.0, 0.12, 0.025]])
PLATE_CENTRES = np.array([[0.1, -0.12, 0.004], [0.1, 0.0, 0.004], [0.1, 0.12, 0.004]])
AWAY, UP = np.array([-0.2, 0.0, 0.15]), np.array([0.0, 0.0, 0.05])


def run_expert(
    world: Tabletop, task: Task, seed: int, noise: float = 0.0, look: Look = PLAIN
) -> tuple[Judge, list[float]]:
    """Let the expert do ``task`` with trembling joints; return the referee and the progress after every step."""
    rng = np.random.default_rng(seed)
    placement = place_cubes(rng, task, look.cube_half)
    world.reset(placement.xy, placement.yaw, look, placement.plates)
    judge, expert = Judge(task, world.cubes, world.tip, look.cube_half, world.plates), TaskExpert(world)
    progress = []
    while len(progress) < task.time_limit * world.pace and not (judge.failed or judge.success):
        action = expert.action(judge)
        world.step(action + rng.normal(0.0, 1.0, len(action)) * noise * world.arm.tremble)
        judge.update(world.cubes, world.tip)
        progress.append(judge.progress)
    return judge, progress


def test_instructions_read_naturally():
    assert parse_task("place-red-yellow").instruction == "put the red cube on the yellow plate"
    assert parse_task("stack-green-blue").instruction == "stack the green cube on the blue cube"
    both = parse_task("stack-green-blue+stack-red-green")
    assert both.instruction == "stack the green cube on the blue cube, then stack the red cube on the green cube"


@pytest.mark.parametrize(("verb", "targets", "count"), [("place", PLATES, 9), ("stack", COLOURS, 6)])
def test_a_third_is_held_out_and_every_colour_is_seen_in_every_role(verb: str, targets: tuple[str, ...], count: int):
    everything, seen, unseen = (select_tasks(group) for group in (verb, f"{verb}_seen", f"{verb}_unseen"))
    assert len(set(everything)) == count
    assert len(unseen) == count // 3
    assert {*seen, *unseen} == {*everything}
    assert not {*seen} & {*unseen}
    assert {task.stages[0].colour for task in seen} == {*COLOURS}
    assert {task.stages[0].target for task in seen} == {*targets}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("place-red", "target None of place-red makes no task; expected yellow, purple, cyan"),
        ("place-red-green", "target 'green' of place-red"),
        ("stack-red-red", "target 'red' of stack-red makes no task; expected green, blue"),
        ("left-red-yellow", "target 'yellow' of left-red makes no task; expected None"),
        ("left-red+place-blue-yellow", "mixes pushing and grasping"),
        ("place-red-yellow+place-blue-yellow", "puts two cubes on one target"),
        ("place-red-yellow+place-red-cyan", "names one cube twice"),
    ],
)
def test_what_makes_no_task_is_refused(name: str, message: str):
    with pytest.raises(ValueError, match=message):
        select_tasks(name)


def test_an_arm_without_a_gripper_is_refused():
    message = (
        "'place-red-yellow' takes a gripper and arm 'ur5e' has none; expected one of viperx_gripper, panda_gripper"
    )
    with pytest.raises(ValueError, match=message):
        TabletopEnv(task="place", arm="ur5e")
    with pytest.raises(ValueError, match=message):
        Recipe("place:2,play:1", "ur5e")


def test_things_lie_apart_and_plates_only_where_a_task_names_one():
    for seed in range(50):
        place = place_cubes(np.random.default_rng(seed), parse_task("place-red-yellow"))
        assert place.plates is not None
        things = np.vstack([place.xy, place.plates])
        gaps = np.linalg.norm(things[:, None] - things[None], axis=-1)
        assert gaps[~np.eye(6, dtype=bool)].min() >= 0.1
        assert place_cubes(np.random.default_rng(seed), parse_task("stack-red-blue")).plates is None
        assert place_cubes(np.random.default_rng(seed)).plates is None


def test_a_cube_is_placed_when_it_rests_on_its_plate_and_is_let_go():
    judge = Judge(parse_task("place-red-purple"), CUBES, AWAY, plates=PLATE_CENTRES)
    stages = [
        (CUBES[0], AWAY, 0.0),
        (CUBES[0], CUBES[0], 0.2),  # reached
        (CUBES[0] + 0.4 * UP, CUBES[0] + 0.4 * UP, 0.4),  # grasped
        (CUBES[0] + UP, CUBES[0] + UP, 0.6),  # lifted
        ([0.1, 0.0, 0.075], [0.1, 0.0, 0.075], 0.8),  # above the plate
        ([0.1, 0.0, 0.029], [0.1, 0.0, 0.029], 0.8),  # on it, held
        ([0.1, 0.01, 0.029], [0.1, 0.0, 0.1], 0.8),  # let go, still sliding
        ([0.1, 0.01, 0.029], [0.1, 0.0, 0.1], 1.0),
    ]
    cubes = CUBES.copy()
    for cube, tip, progress in stages:
        cubes[0] = cube
        judge.update(cubes, np.array(tip))
        assert judge.progress == pytest.approx(progress)
    assert judge.success


def test_a_cube_beside_or_on_another_plate_is_not_placed():
    for where in ([0.1, -0.12, 0.029], [0.06, 0.0, 0.025]):
        judge, cubes = Judge(parse_task("place-red-purple"), CUBES, AWAY, plates=PLATE_CENTRES), CUBES.copy()
        cubes[0] = where
        for _ in range(3):
            judge.update(cubes, AWAY)
        assert not judge.success


def test_a_stack_fails_for_good_when_another_cube_is_moved():
    judge, cubes = Judge(parse_task("stack-red-green"), CUBES, AWAY), CUBES.copy()
    cubes[1, 1] += 0.02  # also the one below
    judge.update(cubes, AWAY)
    cubes[0] = cubes[1] + UP
    for _ in range(2):
        judge.update(cubes, AWAY)
    assert judge.failed
    assert not judge.success


@pytest.mark.parametrize("arm", GRIPPERS)
def test_the_fingers_open_shut_and_hold(arm: str):
    world = Tabletop(arm)
    world.reset(CUBES[:, :2], np.zeros(3))
    assert world.joints[-1] == pytest.approx(0, abs=0.01)
    target = world.joints
    target[-1] = 1.0
    for _ in range(5):
        world.step(target)
    assert world.joints[-1] == pytest.approx(1, abs=0.01)
    assert world.plates[:, 2].max() < -0.5
    judge, progress = run_expert(world, parse_task("stack-red-blue"), 0)
    assert judge.success
    assert world.cubes[0, 2] == pytest.approx(0.075, abs=0.003)
    assert len(progress) < 40


@pytest.mark.parametrize("arm", GRIPPERS)
@pytest.mark.parametrize("verb", ["place", "stack"])
def test_the_expert_succeeds_with_trembling_joints(arm: str, verb: str):
    world, tasks = Tabletop(arm), GRASP_TASKS[verb]
    runs = [run_expert(world, tasks[seed % len(tasks)], seed, noise=0.015) for seed in range(6)]
    assert sum(judge.success for judge, _ in runs) >= 5
    assert all(np.all(np.diff(progress) >= 0) for _, progress in runs)


@pytest.mark.parametrize("look", [UNSEEN[1], UNSEEN[4]], ids=lambda look: f"{look.cube_shape} of {look.cube_half} m")
def test_the_expert_grasps_what_looks_otherwise(look: Look):
    assert run_expert(Tabletop("viperx_gripper"), parse_task("place-blue-cyan"), 3, look=look)[0].success


def test_the_expert_works_at_twenty_steps_a_second_and_in_two_stages():
    assert run_expert(Tabletop("viperx_gripper", 20), parse_task("place-green-cyan"), 1)[0].success
    assert run_expert(Tabletop("viperx_gripper"), select_tasks("tower")[0], 2)[0].success


def test_an_episode_has_the_gripper_as_its_last_number():
    recipe = Recipe("place_seen", "viperx_gripper", image_size=32)
    episode, _ = make_episode(recipe, 0)
    assert episode.text == "put the red cube on the yellow plate"
    assert episode.states.shape == episode.actions.shape == (len(episode.states), 7)
    assert set(np.unique(episode.actions[:-4, -1])) == {0.0, 1.0}
    assert np.all((episode.actions[:, -1] >= 0) & (episode.actions[:, -1] <= 1))
    assert np.array_equal(make_episode(recipe, 0)[0].actions, episode.actions)


def test_a_policy_can_act_on_it_through_lerobot():
    pytest.importorskip("lerobot")
    from lerobot_wam.sim.config_tabletop import WAMTabletopEnv

    config = WAMTabletopEnv(task="place,stack", arm="viperx_gripper", image_size=32)
    vector = config.create_envs(2)["wam_tabletop"][0]
    observation, _ = vector.reset(seed=[0, 9])
    assert observation["agent_pos"].shape == (2, 7)
    assert vector.call("_max_episode_steps") == (100, 100)
    assert vector.call("task_description")[1] == "stack the red cube on the green cube"
    vector.action_space.seed(0)
    returns = np.zeros(2)
    for _ in range(10):
        observation, rewards, *_ = vector.step(vector.action_space.sample())
        returns += rewards
    assert np.all(np.isfinite(observation["agent_pos"]))
    assert np.allclose(returns, vector.call("task_progress"))
    vector.close()


def test_the_wrong_instruction_names_another_task_of_its_kind():
    env = TabletopEnv(task="place-red-yellow", arm="viperx_gripper", instruction="wrong")
    assert env.task_description.startswith("put the")
    assert env.task_description != "put the red cube on the yellow plate"


def test_the_operator_of_a_lerobot_robot_refuses_them():
    pytest.importorskip("lerobot")
    from lerobot_wam.sim.config_expert_teleop import WAMSimExpertConfig
    from lerobot_wam.sim.expert_teleop import WAMSimExpert

    with pytest.raises(ValueError, match="pushes and touches, found 'place-red-yellow'"):
        WAMSimExpert(WAMSimExpertConfig(tasks="place"))
