"""The claims at smoke scale: the pipeline learns, goes on where it was stopped, and repeats itself."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from lerobot_commands import in_process

from benchmarks import common
from benchmarks.claims import (
    a_generalisation,
    b_video,
    c_new_robot,
    harder,
    mechanism,
    page,
    prior,
    repeat,
    scales,
    scaling,
    video_weight,
)
from benchmarks.claims.cells import chosen, result_file, run
from benchmarks.claims.findings import NOT_YET
from benchmarks.claims.runs import FIRST_SCENE
from benchmarks.claims.scales import SMOKE
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.sim.env import TabletopEnv

OURS, ACT = (f"{who}-40_labels-samples-seed_0" for who in ("ours_prior", "act"))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for outputs and results that the tests of this module share, as claims do."""
    folder = tmp_path_factory.mktemp("claims")
    with pytest.MonkeyPatch.context() as patch, in_process("lerobot-train"), in_process("lerobot-eval"):
        patch.setattr(common, "RESULTS", folder / "results")
        patch.setattr(scales, "OUTPUTS", folder / "outputs")
        yield folder


def measured(module: Any, name: str) -> dict[str, Any]:
    """Metrics of one cell, measured where it is not."""
    (cell,) = chosen(module.cells(SMOKE), name)
    run(SMOKE, [cell])
    return json.loads(result_file(SMOKE, cell).read_text())["metrics"]


def still() -> float:
    """Mean progress of an arm that keeps its place, in the scenes of the seen tasks."""
    env, found = TabletopEnv(SMOKE.seen), []
    for scene in range(FIRST_SCENE, FIRST_SCENE + SMOKE.episodes):
        observation, _ = env.reset(seed=scene)
        ended = False
        while not ended:
            observation, _, done, out_of_time, info = env.step(observation["agent_pos"])
            ended = done or out_of_time
        found.append(info["task_progress"])
    env.close()
    return fmean(found)


def test_the_prior_learns_to_imagine_recordings_that_it_did_not_see(smoke: Path):
    metrics = measured(prior, "nano")
    loss = metrics["held_out_video_loss"]
    assert loss["trained"] < 0.95 * loss["untrained"]
    dreams = metrics["dreams"]["varied_scenes"]
    assert dreams["imagined"]["psnr"] < dreams["codec_alone"]["psnr"]
    card = (smoke / "outputs/smoke/prior/nano-20_steps/checkpoints/last/pretrained_model/README.md").read_text()
    assert "tabletop_video" in card
    assert "prior-ur5e" in card


def test_claim_a_learns_from_demonstrations(smoke: Path):
    stood = still()
    for name in (OURS, ACT):
        found = measured(a_generalisation, name)["conditions"]
        assert set(found) == set(a_generalisation.CONDITIONS)
        assert found["seen"]["n_episodes"] == len(found["seen"]["outcomes"]) == SMOKE.episodes
        assert 0 <= found["unseen_scenes"]["progress"] <= 1
        # Forty steps are too few for whole successes, but not for going where the cube is.
        assert found["seen"]["progress"] > stood + 0.2, name
    assert len(measured(a_generalisation, OURS)["prior_sha256"]) == 12
    assert "prior_sha256" not in measured(a_generalisation, ACT)


def test_a_cell_measured_again_and_interrupted_gives_the_same_numbers(smoke: Path, monkeypatch: pytest.MonkeyPatch):
    before = measured(a_generalisation, OURS)
    for kind in ("policies", "trials"):
        shutil.rmtree(smoke / f"outputs/smoke/{kind}/ours_prior_nano-40_labels-40_steps-no_video-nano-20_steps")
    (smoke / f"results/claims/smoke/a/{OURS}.json").unlink()
    update, done = WAMPolicy.update, []

    def until_thirty(policy: WAMPolicy) -> None:
        if policy.config.steps_done == 30:
            raise KeyboardInterrupt
        done.append(policy.config.steps_done)
        update(policy)

    monkeypatch.setattr(WAMPolicy, "update", until_thirty)
    with pytest.raises(KeyboardInterrupt):
        measured(a_generalisation, OURS)
    monkeypatch.setattr(WAMPolicy, "update", lambda policy: done.append(policy.config.steps_done) or update(policy))
    assert measured(a_generalisation, OURS) == before
    assert done == [*range(30), *range(20, 40)]  # a checkpoint is saved in the middle


def test_a_cell_is_repeated_from_nothing(smoke: Path):
    metrics = measured(repeat, ACT)
    assert metrics["different"] == {}
    first = json.loads((smoke / f"results/claims/smoke/a/{ACT}.json").read_text())["metrics"]
    assert metrics["values"] == len(first) - 1 + sum(len(found) for found in first["conditions"].values())
    (finding,) = repeat.report(SMOKE, {ACT: {"metrics": metrics}}).findings
    assert finding.verdict == "holds"
    changed = {"metrics": metrics | {"different": {"steps": [1, 2]}}}
    (finding,) = repeat.report(SMOKE, {ACT: changed}).findings
    assert finding.verdict == "does not hold"


def test_claim_b_learns_from_video_of_other_arms(smoke: Path):
    metrics = measured(b_video, "video_of_unseen_tasks-seed_0")
    assert metrics["minutes_of_video"] >= SMOKE.video_minutes
    assert set(metrics["conditions"]) == {"seen", "unseen_tasks"}
    run = "ours_prior_nano-40_labels-40_steps-video_of_unseen_tasks-nano-20_steps"
    trained = smoke / "outputs/smoke/policies" / run / "seed_0"
    config = json.loads((trained / "training/checkpoints/last/pretrained_model/config.json").read_text())
    assert list(config["embodiments"]) == ["tabletop_video", "wam_sim_viperx"]
    shares = [(entry["weight"], entry["actions"]) for entry in config["mixture"]["datasets"]]
    assert shares == [(1, True), *[(pytest.approx(1 / 3), False)] * 3]


def test_claim_c_adapts_to_a_fourth_arm_and_looks_at_the_others(smoke: Path):
    metrics = measured(c_new_robot, "0.5_minutes-seed_0")
    assert metrics["arm"] == "ur5e"
    assert metrics["minutes_of_play"] >= 0.5
    assert metrics["success"]["adapted"]["n_episodes"] == SMOKE.episodes
    assert set(metrics["by_seed"]["0"]) >= {"viperx", "so101", "panda"}
    errors = metrics["by_seed"]["0"]["adapted"]["action_error_share_of_range"]
    assert errors["after"] <= errors["before"]


def test_scaling_trains_a_smaller_network(smoke: Path):
    metrics = measured(scaling, "size-32x1-seed_0")
    assert metrics["size"] == "32x1"
    config = next(
        (smoke / "outputs/smoke/policies").glob("ours_scratch_32x1-*/seed_0/training/checkpoints/last/*/config.json")
    )
    assert json.loads(config.read_text())["dim"] == 32


def test_harder_tasks_take_a_longer_window_or_a_gripper(smoke: Path):
    reached = {"two_stages-no_video_scratch": 0.1, "grasp_and_place-ours_prior": 0.05}
    for name, progress in reached.items():
        assert measured(harder, f"{name}-seed_0")["conditions"]["seen"]["progress"] > progress, name
    trained = {
        folder.parents[3].name: json.loads((folder / "pretrained_model/config.json").read_text())
        for folder in (smoke / "outputs/smoke/policies").glob("*/seed_0/training/checkpoints/last")
        if "place" in str(folder) or "remembers" in str(folder)
    }
    (stages,) = (config for name, config in trained.items() if "remembers" in name)
    (place,) = (config for name, config in trained.items() if "viperx_gripper" in name)
    assert stages["max_chunks"] == 4
    assert list(place["embodiments"]) == ["tabletop_video", "wam_sim_viperx_gripper"]


def test_the_mechanism_names_what_goes_wrong_in_unseen_tasks(smoke: Path):
    metrics = measured(mechanism, "no_cloning-seed_0")
    ends, unseen = metrics["endings_of_unseen_tasks"], metrics["conditions"]["unseen_tasks"]
    assert sum(ends.values()) == SMOKE.episodes
    assert ends["success"] == unseen["successes"]
    run = "ours_prior_nano-40_labels-40_steps-no_cloning-no_video-nano-20_steps"
    trained = smoke / f"outputs/smoke/policies/{run}/seed_0/training/checkpoints/last/pretrained_model"
    assert json.loads((trained / "config.json").read_text())["auxiliary_bc_weight"] == 1e-9


def test_the_video_may_count_less(smoke: Path):
    name = "tenth_of_the_weight-40_labels-seed_0"
    found = {name: {"metrics": measured(video_weight, name)} for name in (name, name.replace("tenth_of_the", "whole"))}
    report = video_weight.report(SMOKE, found)
    assert [finding.verdict == NOT_YET for finding in report.findings] == [False, False, True]
    assert set(report.metrics["40_labels"]["tenth_against"]) == {"whole_weight"}
    run = "ours_prior_nano-40_labels-40_steps-light_video-no_video-nano-20_steps"
    trained = smoke / f"outputs/smoke/policies/{run}/seed_0/training/checkpoints/last/pretrained_model"
    assert json.loads((trained / "config.json").read_text())["video_loss_weight"] == 0.1


def test_the_page_shows_dreams_of_the_prior_and_of_a_policy(smoke: Path):
    measured(a_generalisation, OURS)
    measured(prior, "nano")
    html = page.write(SMOKE, {"prior": "prior", "a": "a_generalisation"}).read_text()
    assert html.count("<article>") == 2
    assert "The prior: touch the red cube" in html
    assert "Ours, from the prior: touch the red cube" in html
    assert "The video prior: 1 of 1 cells measured" in html
