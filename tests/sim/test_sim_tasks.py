"""Language, scenes, strict judgement and the experts that meet it."""

import numpy as np
import pytest

from lerobot_wam.sim.arms import ARMS
from lerobot_wam.sim.experts import PlayExpert, TaskExpert
from lerobot_wam.sim.tabletop import Tabletop
from lerobot_wam.sim.tasks import (
    DIRECTIONS,
    SINGLE_TASKS,
    TWO_STAGE_TASKS,
    VERBS,
    WORK_AREA,
    Judge,
    Task,
    parse_task,
    place_cubes,
    select_tasks,
)

CUBES = np.array([[0.0, -0.12, 0.025], [0.0, 0.0, 0.025], [0.0, 0.12, 0.025]])
TIP = np.array([-0.2, 0.0, 0.15])


def run_expert(arm: str, task: Task, seed: int, fps: int = 10) -> tuple[bool, int]:
    world, rng = Tabletop(arm, fps), np.random.default_rng(seed)
    placement = place_cubes(rng, task)
    world.reset(placement.xy, placement.yaw)
    judge, expert = Judge(task, world.cubes, world.tip), TaskExpert(world)
    steps = 0
    while steps < 5 * fps * len(task.stages) and not (judge.failed or judge.success):
        world.step(expert.action(judge))
        judge.update(world.cubes, world.tip)
        steps += 1
    return judge.success, steps


def test_instructions_read_naturally():
    assert parse_task("left-red").instruction == "push the red cube to the left"
    assert parse_task("right-green").instruction == "push the green cube to the right"
    assert parse_task("away-blue").instruction == "push the blue cube away"
    expected = "push the red cube to the left, then touch the blue cube"
    assert parse_task("left-red+touch-blue").instruction == expected


def test_selections():
    assert len(SINGLE_TASKS) == 12
    assert len(TWO_STAGE_TASKS) == 96
    assert len({task.instruction for task in (*SINGLE_TASKS, *TWO_STAGE_TASKS)}) == 108
    both = select_tasks("all")
    assert all(len(task.stages) == 1 + i % 2 for i, task in enumerate(both))
    assert set(both) == {*SINGLE_TASKS, *TWO_STAGE_TASKS}
    assert [task.name for task in select_tasks("left-red, touch-blue")] == ["left-red", "touch-blue"]


def test_held_out_cells_are_made_of_seen_verbs_and_colours():
    seen, unseen = (select_tasks(group) for group in ("seen", "unseen"))
    assert len(seen) == 9
    assert {task.name for task in unseen} == {"left-red", "right-green", "away-blue"}
    assert set(seen) | set(unseen) == set(SINGLE_TASKS)
    for task in unseen:
        stage = task.stages[0]
        assert any(other.stages[0].verb == stage.verb for other in seen)
        assert any(other.stages[0].colour == stage.colour for other in seen)


def test_two_stages_are_unseen_where_one_of_them_is():
    unseen_cells = {task.name for task in select_tasks("unseen")}
    seen, unseen = (select_tasks(f"two_stage_{group}") for group in ("seen", "unseen"))
    assert set(seen) | set(unseen) == set(TWO_STAGE_TASKS)
    assert not any(stage.name in unseen_cells for task in seen for stage in task.stages)
    assert all(any(stage.name in unseen_cells for stage in task.stages) for task in unseen)


@pytest.mark.parametrize("name", ["lift-red", "left-pink", "left", "left-red+touch-red", "", "a-b+c-d+e-f"])
def test_bad_task_names_are_refused(name: str):
    with pytest.raises(ValueError, match="expected"):
        select_tasks(name)


def test_a_misspelt_group_is_told_the_groups():
    with pytest.raises(ValueError, match=r"'sean' is no group of tasks; expected one of all, single, seen, unseen"):
        select_tasks("left-red, sean")


def test_a_push_succeeds_in_its_direction_only():
    for verb, direction in DIRECTIONS.items():
        judge = Judge(parse_task(f"{verb}-green"), CUBES, TIP)
        moved = CUBES.copy()
        moved[1, :2] += 0.03 * direction
        judge.update(moved, TIP)
        assert not judge.success
        assert 0.5 < judge.progress < 0.7
        moved[1, :2] += 0.025 * direction
        judge.update(moved, TIP)
        assert judge.success
        assert judge.progress == 1

        other = Judge(parse_task(f"{verb}-green"), CUBES, TIP)
        moved = CUBES.copy()
        moved[1, :2] += -0.06 * direction
        other.update(moved, TIP)
        assert not other.success

        astray = Judge(parse_task(f"{verb}-green"), CUBES, TIP)
        moved = CUBES.copy()
        moved[1, :2] += 0.055 * direction + 0.06 * np.array([-direction[1], direction[0]])
        astray.update(moved, TIP)
        assert not astray.success


def test_another_cube_moved_is_failure_for_good():
    judge = Judge(parse_task("left-green"), CUBES, TIP)
    moved = CUBES.copy()
    moved[0, 0] += 0.02
    judge.update(moved, TIP)
    assert judge.failed
    moved = CUBES.copy()
    moved[1, 1] -= 0.06
    judge.update(moved, TIP)
    assert judge.failed
    assert not judge.success
    assert judge.progress == 0


def test_a_touch_must_leave_all_cubes_in_place():
    judge = Judge(parse_task("touch-green"), CUBES, TIP)
    above = np.array([0.0, 0.0, 0.055])
    judge.update(CUBES, above)
    assert judge.success
    judge = Judge(parse_task("touch-green"), CUBES, TIP)
    moved = CUBES.copy()
    moved[1, 0] += 0.02
    judge.update(moved, above)
    assert judge.failed


def test_stages_succeed_in_order_and_free_the_finished_cube():
    judge = Judge(parse_task("left-green+touch-red"), CUBES, TIP)
    on_red = np.array([0.0, -0.12, 0.055])
    judge.update(CUBES, on_red)
    assert judge.progress == 0
    moved = CUBES.copy()
    moved[1, 1] -= 0.055
    judge.update(moved, TIP)
    assert judge.progress == 0.5
    moved[1, 0] += 0.05
    judge.update(moved, on_red)
    assert judge.success
    early = Judge(parse_task("touch-red+left-green"), CUBES, TIP)
    early.update(moved, TIP)
    assert early.failed


def test_placements_are_quick_inside_and_deterministic():
    low, high = np.array(WORK_AREA).T
    for seed in range(100):
        placement = place_cubes(np.random.default_rng(seed), TWO_STAGE_TASKS[seed % 96])
        again = place_cubes(np.random.default_rng(seed), TWO_STAGE_TASKS[seed % 96])
        assert np.array_equal(placement.xy, again.xy)
        assert np.all((placement.xy >= low) & (placement.xy <= high))
        gaps = np.linalg.norm(placement.xy - np.roll(placement.xy, 1, axis=0), axis=1)
        assert gaps.min() > 0.06


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("verb", VERBS)
def test_the_expert_meets_strict_success(arm: str, verb: str):
    for seed, colour in enumerate(("red", "green", "blue", "red")):
        success, steps = run_expert(arm, parse_task(f"{verb}-{colour}"), seed)
        assert success
        assert steps <= 25


@pytest.mark.parametrize("arm", ARMS)
def test_the_expert_succeeds_at_twenty_steps_a_second(arm: str):
    for seed, task in enumerate(SINGLE_TASKS[::4]):
        assert run_expert(arm, task, seed, fps=20)[0]


@pytest.mark.parametrize("arm", ARMS)
def test_the_expert_does_two_stages(arm: str):
    for seed in range(4):
        assert run_expert(arm, TWO_STAGE_TASKS[seed], seed)[0]


def test_play_moves_cubes_and_keeps_them_on_the_table():
    world, rng = Tabletop("viperx"), np.random.default_rng(0)
    placement = place_cubes(rng)
    world.reset(placement.xy, placement.yaw)
    expert, start = PlayExpert(world, rng), world.cubes
    for _ in range(60):
        world.step(expert.action())
    assert np.abs(world.cubes - start).max() > 0.03
    assert np.abs(world.cubes[:, 2] - 0.025).max() < 0.01
