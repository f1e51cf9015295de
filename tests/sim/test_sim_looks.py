"""How the table looks: which looks there are, that worlds wear them, and that the plain one stays what it was."""

from itertools import product

import numpy as np
import pytest

from lerobot_wam.sim import rendering
from lerobot_wam.sim.arms import ARMS
from lerobot_wam.sim.env import TabletopEnv
from lerobot_wam.sim.episodes import Recipe, make_episode
from lerobot_wam.sim.experts import TaskExpert
from lerobot_wam.sim.looks import LOOKS, PLAIN, UNSEEN, VARIED, Look
from lerobot_wam.sim.tabletop import CUBE_RGBA, Tabletop
from lerobot_wam.sim.tasks import place_cubes

KNOWN = (PLAIN, *VARIED)


def outside(value: float, known: list[float]) -> bool:
    return not min(known) <= value <= max(known)


@pytest.mark.parametrize("look", UNSEEN, ids=lambda look: look.name)
def test_an_unseen_look_lies_outside_the_others_in_everything(look: Look):
    assert min(np.linalg.norm(np.subtract(look.table, known.table)) for known in KNOWN) > 0.2
    assert outside(look.light.position[0], [known.light.position[0] for known in KNOWN])
    assert outside(sum(look.light.strength), [sum(known.light.strength) for known in KNOWN])
    assert outside(look.light.ambient, [known.light.ambient for known in KNOWN])
    for place in range(len(look.camera)):
        assert outside(look.camera[place], [known.camera[place] for known in KNOWN])
    assert outside(look.cube_half, [known.cube_half for known in KNOWN])
    things = {(thing.shape, thing.rgb) for thing in look.distractors}
    familiar = {thing for known in KNOWN for thing in known.distractors}
    assert things
    assert not {shape for shape, _ in things} & {thing.shape for thing in familiar}
    assert not {rgb for _, rgb in things} & {thing.rgb for thing in familiar}
    assert {known.cube_shape for known in KNOWN} == {"box"}


def test_there_are_as_many_looks_as_promised():
    assert len(VARIED) >= 16
    assert [look.cube_shape for look in UNSEEN].count("cylinder") == len(UNSEEN) / 2 == 4
    assert len(LOOKS) == 3 + len(VARIED) + len(UNSEEN)


@pytest.mark.parametrize("look", [*KNOWN, *UNSEEN], ids=lambda look: look.name)
def test_colours_keep_their_names_in_every_look(look: Look):
    world = Tabletop()
    placement = place_cubes(np.random.default_rng(3), None, look.cube_half)
    world.reset(placement.xy, placement.yaw, look)
    assert np.allclose(world.cubes[:, 2], look.cube_half, atol=0.002)
    image = world.image(64).reshape(-1, 3).astype(float)
    for channel, colour in enumerate(CUBE_RGBA):
        # The channel of a cube's colour exceeds both others there as nowhere on table, floor and distractors.
        others = np.delete(image, channel, axis=1).max(axis=1)
        assert np.sum(image[:, channel] > 1.8 * others) >= 4, colour


def test_left_and_right_are_true_to_the_image_in_every_look():
    for look in (*KNOWN, *UNSEEN):
        world = Tabletop()
        world.reset(np.array([[0.0, -0.12], [0.3, 0.7], [0.0, 0.12]]), np.zeros(3), look)
        image = world.image(64).astype(float)
        columns = {c: np.argmax((image[..., c] - np.delete(image, c, axis=2).max(axis=2)).max(axis=0)) for c in (0, 2)}
        assert columns[0] < 28
        assert columns[2] > 36


def test_all_looks_of_an_arm_share_one_gl_context():
    rendering.close_renderers()
    world = Tabletop()
    for look in (PLAIN, *UNSEEN[:3]):
        world.reset(np.array([[0.0, -0.1], [0.0, 0.0], [0.0, 0.1]]), np.zeros(3), look)
        world.image(32)
    assert len(rendering._screens) == 1


def test_an_episode_draws_its_look_from_its_seed():
    env, twin = (TabletopEnv(looks="varied", image_size=16) for _ in range(2))
    drawn = []
    for seed in range(12):
        env.reset(seed=seed)
        drawn.append(env.world.scene.look)
    assert len(set(drawn)) > 5
    assert set(drawn) <= set(VARIED)
    first, second = (e.reset(seed=3)[0]["pixels"]["front"] for e in (env, twin))
    assert twin.world.scene.look == drawn[3]
    assert np.array_equal(first, second)


@pytest.mark.parametrize(("arm", "look"), [*product(ARMS, ("mustard", "plum"))])
def test_the_expert_handles_small_and_round_cubes(arm: str, look: str):
    env = TabletopEnv("left-red,touch-blue", arm, image_size=16, looks=look)
    for seed in range(2):
        env.reset(seed=seed)
        expert, over, total = TaskExpert(env.world), False, 0.0
        while not over:
            _, reward, terminated, truncated, _ = env.step(expert.action(env.judge))
            total, over = total + reward, terminated or truncated
        assert total == pytest.approx(1.0)


def test_a_recording_draws_looks_and_stays_in_its_own():
    varied = [make_episode(Recipe("touch-red", image_size=16, looks="varied"), index)[0] for index in range(2)]
    again = make_episode(Recipe("touch-red", image_size=16, looks="varied"), 1)[0]
    assert np.array_equal(varied[1].images["front"], again.images["front"])
    corners = [episode.images["front"][0, -1, 0] for episode in varied]
    assert not np.array_equal(*corners)
    assert varied[0].text == "touch the red cube"


def test_the_plain_look_is_what_it_was_before_there_were_others():
    episode, _ = make_episode(Recipe("left-red", scattered_starts=0.0, clumsy_starts=0.0), 0)
    frames = episode.images["front"]
    assert len(frames) == 16
    last = [-0.30680, 0.45079, -0.00999, -0.01911, 0.86471, -0.01321]
    assert episode.states[-1] == pytest.approx(last, abs=1e-4)
    assert frames[0].mean(axis=(0, 1)) == pytest.approx([203.117, 195.974, 186.022], abs=0.05)
    assert frames[-1].mean(axis=(0, 1)) == pytest.approx([187.719, 181.409, 173.064], abs=0.05)


def test_unknown_looks_are_refused():
    with pytest.raises(ValueError, match="looks is 'dark'; expected plain, varied, unseen or the name of one look"):
        Recipe(looks="dark")
    with pytest.raises(ValueError, match="looks is 'dark'"):
        TabletopEnv(looks="dark")
