"""Counterfactuals: chunks from one state, motion measured on images, and what a policy is asked of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_policies import build_policy, write_dataset

pytest.importorskip("mujoco")

from benchmarks.claims import counterfactual
from benchmarks.claims.branches import CHUNKS, HOLD, Start, execute, motion, snapshot
from benchmarks.claims.findings import NOT_YET
from benchmarks.claims.imagination import begin, identified, likeness, measure, validity
from benchmarks.claims.scales import CPU, SMOKE
from lerobot_wam.data.recipe import MixtureEntry
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.sim.tabletop import Tabletop

STARTS = 4


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "arm", (24, 24))


@pytest.fixture(scope="module")
def policy(recording: Path) -> WAMPolicy:
    return build_policy(recording).eval()


@pytest.fixture(scope="module")
def starts(policy: WAMPolicy) -> list[Start]:
    return begin(policy, "viperx", STARTS)


def real_films(starts: list[Start]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    real = np.stack([[start.branches[name].frames for name in CHUNKS] for start in starts])
    travel = np.stack([[start.branches[name].travel for name in CHUNKS] for start in starts])
    return np.stack([start.frame for start in starts]), real, travel


def square(right: int, down: int, colour: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    image = np.full((32, 32, 3), 230, np.uint8)
    image[down : down + 5, right : right + 5] = colour
    return image


def test_a_dark_thing_moves_as_far_as_it_goes_and_a_coloured_one_hardly():
    way, size = motion(square(4, 20), square(14, 8)[None])
    np.testing.assert_allclose(way, (10, -12))
    assert size > motion(square(4, 20), square(10, 20)[None])[1] > 0
    assert motion(square(4, 20), square(4, 20)[None])[1] == 0
    assert motion(square(4, 20, (230, 0, 0)), square(14, 8, (230, 0, 0))[None])[1] == 0


def test_motion_on_images_says_where_the_tool_tip_goes(starts: list[Start]):
    before, real, travel = real_films(starts)
    moves = np.linalg.norm(travel, axis=-1) >= 1.5  # half of 3 pixels, for images half as large
    assert moves.sum() >= 2 * STARTS
    assert validity(before, real, travel, moves)["direction_cosine"] > 0.7
    assert np.abs(travel[:, CHUNKS.index(HOLD)]).max() < 0.2


def test_every_chunk_starts_from_the_same_state(starts: list[Start]):
    world, start = Tabletop("viperx"), starts[0]
    assert len({branch.tip.tobytes() for branch in start.branches.values()}) == len(CHUNKS)
    for branch in start.branches.values():
        again = execute(world, start.state, branch.actions, 1, 32)
        np.testing.assert_array_equal(again.frames, branch.frames)
    assert not np.array_equal(snapshot(world), start.state)


def test_no_chunk_leaves_what_the_policy_can_be_told(policy: WAMPolicy, starts: list[Start]):
    space = policy.action_spaces[policy.category]
    for start in starts:
        anchor = torch.from_numpy(start.joints)[None, None]
        for branch in start.branches.values():
            told = space.decode(space.encode(torch.from_numpy(branch.actions)[None, None], anchor), anchor)
            np.testing.assert_allclose(told[0, 0].numpy(), branch.actions, atol=1e-9)


def test_films_of_ones_own_chunk_are_recognised():
    films = np.stack([square(right, 10)[None] for right in (0, 9, 18, 27)])
    noisy = np.clip(films.astype(int) + np.random.default_rng(0).integers(-40, 40, films.shape), 0, 255)
    assert identified(noisy, films).all()
    assert not identified(noisy[[1, 0, 3, 2]], films).any()


def test_perfect_dreams_follow_the_action_and_dreams_that_ignore_it_do_not(starts: list[Start]):
    before, real, travel = real_films(starts)
    moves = np.linalg.norm(travel, axis=-1) >= 1.5
    perfect = likeness(before, real, before, real, moves)
    assert perfect["identified"]["mean"] == 1
    assert perfect["direction_cosine"]["mean"] == pytest.approx(1)
    assert perfect["size_ratio"] == perfect["spread_ratio"] == pytest.approx(1)
    assert perfect["hold_still_size_ratio"] < 0.1
    deaf = likeness(before, np.repeat(real[:, :1], len(CHUNKS), axis=1), before, real, moves)
    assert deaf["identified"]["mean"] == pytest.approx(deaf["identified_by_chance"])
    assert deaf["spread_ratio"] == 0
    assert deaf["hold_still_size_ratio"] > 0.5


def test_a_cell_trains_what_its_name_says(monkeypatch: pytest.MonkeyPatch):
    told: dict[str, Any] = {}

    def train(contestant: Any, data: Any, **options: Any) -> Path:
        told.update(options)
        return Path("policy")

    monkeypatch.setattr(counterfactual, "recorded", lambda scale, name, episodes, recipe: Path(name))
    monkeypatch.setattr(counterfactual, "train", train)
    assert counterfactual.trained(SMOKE, "coupled", 3) == (Path("policy"), SMOKE.steps)
    assert "--policy.noise_mode=coupled" in told["flags"]
    assert told["seed"] == 3
    assert [video.root for video in told["video"]] == ["counterfactual-seen_2-play_1-varied"]
    assert all(video.actions for video in told["video"])


def test_a_policy_is_asked_everything_that_the_table_shows(policy: WAMPolicy, starts: list[Start], recording: Path):
    found = measure(policy, "viperx", starts, MixtureEntry("local/arm", root=str(recording), in_memory=True))
    metrics = json.loads(json.dumps(found, allow_nan=False))
    assert metrics["label"]["windows"] == 2 * (24 - 16)
    assert metrics["simulate"]["codec_alone"]["identified"]["mean"] > metrics["simulate"]["dream"]["identified"]["mean"]
    one, other = ({"metrics": metrics} for _ in range(2))
    (table,) = counterfactual.report(CPU, {"coupled-seed_0": one, "coupled-seed_1": other}).tables
    assert table.columns == ("coupled",)
    assert set(table.rows) == set(counterfactual.ROWS)


def dreams(identified: float, cosine: float) -> dict[str, Any]:
    def around(value: float) -> dict[str, Any]:
        return {"mean": value, "mean_95": [value - 0.02, value + 0.02]}

    dream = {"identified": around(identified), "direction_cosine": around(cosine)}
    rows: dict[str, Any] = {"simulate": {"dream": dream, "codec_alone": dream}, "label": {}, "act": {}}
    for path in counterfactual.ROWS.values():
        *parents, name = path.split(".")
        inner = rows
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner.setdefault(name, around(0.5) if parents == ["act"] else 0.5)
    rows["label"]["windows"] = 19
    return {"metrics": rows}


def test_dreams_follow_where_both_film_and_motion_say_so_in_every_training():
    good, half, bad = dreams(0.9, 0.8), dreams(0.9, 0.3), dreams(0.17, 0.1)

    def verdicts(**trainings: list[dict[str, Any]]) -> dict[str, str]:
        records = {f"{name}-seed_{seed}": one for name, found in trainings.items() for seed, one in enumerate(found)}
        findings = counterfactual.report(CPU, records).findings
        return dict(zip(counterfactual.TRAININGS, (finding.verdict for finding in findings), strict=True))

    assert verdicts(independent=[good] * 3, coupled=[bad] * 3, given=[half] * 3) == {
        "independent": "holds",
        "coupled": "does not hold",
        "given": "does not hold",
        "given_play": NOT_YET,
    }
    assert set(verdicts(independent=[good] * 2).values()) == {NOT_YET}


def test_the_picture_shows_every_chunk_twice():
    films = {name: np.stack([square(step, 4) for step in range(8)]) for name in ("a", "b", "c")}
    sheet = np.asarray(counterfactual.picture(square(0, 4), films, films))
    assert sheet.shape[0] == 2 * (22 + 2 * (64 + 4))
    shown = sheet[22:86, 66 + 68 : 66 + 68 + 64]
    np.testing.assert_array_equal(shown[::2, ::2], films["a"][1])
    np.testing.assert_array_equal(sheet[22 + 68 : 22 + 68 + 64, 66 + 68 : 66 + 68 + 64], shown)


def test_the_public_probe_of_world_action_models_agrees(starts: list[Start]):
    wamprobe = pytest.importorskip("wamprobe.metrics", reason="the optional package wamprobe is not installed")
    from wamprobe.api.types import Context2D, Trajectory2D, Vec2

    before, real, _ = real_films(starts)
    wrong = real[:, ::-1]
    ways = [motion(before[:, None], films)[0] for films in (wrong, real)]
    moves = [index for index, name in enumerate(CHUNKS) if name != HOLD]
    samples = [
        (
            Context2D(str(number), Vec2(0.0, 0.0), Vec2(0.0, 0.0)),
            *(Trajectory2D(str(number), CHUNKS[chunk], (Vec2(*map(float, way[number, chunk])),)) for way in ways),
        )
        for number in range(len(starts))
        for chunk in moves
    ]
    on = np.zeros((len(starts), len(CHUNKS)), bool)
    on[:, moves] = True
    ours = likeness(before, wrong, before, real, on)["direction_cosine"]["mean"]
    assert wamprobe.counterfactual_direction_accuracy(samples) == pytest.approx(ours, abs=1e-6)
