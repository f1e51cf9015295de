"""A policy of two robots learns a third one's joints: what is trained, what stays, when it stops, and what it says."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from lerobot.policies import make_policy, make_pre_post_processors
from lerobot.scripts import lerobot_train
from safetensors.torch import load_file
from tiny_policies import ARM_JOINTS, MOBILE_JOINTS, observe, tiny_config, wake, write_dataset

from lerobot_wam.data.mixture import Mixture
from lerobot_wam.data.recipe import MixtureEntry, MixtureRecipe
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.training import adapt as adaptation
from lerobot_wam.training.adapt import adapt, load, split_episodes, stored_cotraining
from lerobot_wam.training.adapt_plan import AdaptPlan
from lerobot_wam.training.loop import window_shape
from lerobot_wam.weights import PER_ROBOT

NEW_JOINTS = [*ARM_JOINTS[:3], "gripper.pos"]
FLAGS = ("--num_workers=0", "--log_freq=0", "--policy.noise_seed=1")


@pytest.fixture(scope="module")
def old_data(tmp_path_factory: pytest.TempPathFactory) -> MixtureRecipe:
    folder = tmp_path_factory.mktemp("old")
    write_dataset(folder / "arm", (24, 20))
    write_dataset(folder / "mobile", (24, 24), robot_type="mobile", joints=MOBILE_JOINTS)
    names = ("arm", "mobile")
    return MixtureRecipe(tuple(MixtureEntry(f"local/{name}", root=str(folder / name)) for name in names))


@pytest.fixture(scope="module")
def checkpoint(old_data: MixtureRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of two robots, awake but untrained."""
    config = tiny_config(drop_n_last_frames=2, noise_seed=1)
    policy = make_policy(config, ds_meta=Mixture(old_data, window_shape(config)).meta)
    wake(policy)
    folder = tmp_path_factory.mktemp("base") / "policy"
    policy.save_pretrained(folder)
    for pipeline in make_pre_post_processors(config, dataset_stats={}):
        pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> MixtureEntry:
    """Five episodes of a third robot."""
    root = tmp_path_factory.mktemp("new") / "play"
    write_dataset(root, (24, 20, 24, 20, 24), robot_type="gripper_arm", joints=NEW_JOINTS, tasks=lambda *_: "play")
    return MixtureEntry("local/play", root=str(root))


@pytest.fixture
def run(checkpoint: Path, play: MixtureEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Adapt in a few steps."""
    monkeypatch.setattr(lerobot_train, "init_logging", lambda **kwargs: None)  # it would take pytest's handlers away

    def adapted(**options: Any) -> Any:
        AcceleratorState._reset_state(reset_partial_state=True)
        sizes = {"steps": 4, "batch_size": 4, "eval_every": 2, "windows": 12, "eval_split": 0.3, "flags": FLAGS}
        return adapt(AdaptPlan(checkpoint, play, tmp_path / "out", **(sizes | options)))

    return adapted


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def is_head(name: str) -> bool:
    return any(part in name for part in PER_ROBOT)


def test_a_third_robot_joins_and_the_best_weights_act_as_it(run: Callable, old_data: MixtureRecipe, tmp_path: Path):
    result = run(cotrain=old_data)
    assert (result.embodiment, result.like) == ("gripper_arm", "wam_sim_viperx")  # three joints in common
    assert [evaluation.step for evaluation in result.history] == [0, 2, 4]
    assert result.after.overall == min(evaluation.overall for evaluation in result.history) < result.before.overall
    assert len(result.after.errors) == len(result.hold_still.errors) == len(NEW_JOINTS)
    assert sorted(result.episodes + result.held_out) == [0, 1, 2, 3, 4]
    assert len(result.held_out) == 2
    policy = WAMPolicy.from_pretrained(tmp_path / "out/policy")
    assert policy.config.embodiment == "gripper_arm"
    assert list(policy.config.embodiments) == ["wam_sim_viperx", "mobile", "gripper_arm"]
    assert policy.config.output_features["action"].shape == (len(NEW_JOINTS),)
    assert policy.select_action(observe(policy)).shape == (1, len(NEW_JOINTS))
    assert (tmp_path / "out/policy/policy_preprocessor.json").is_file()
    shares = [entry["weight"] for entry in policy.config.mixture["datasets"]]
    assert shares == [1, 0.5, 0.5]
    for setting in ("trainable", "heads_lr", "warmup_steps", "flat_fraction"):  # of the run, not of the policy
        assert getattr(policy.config, setting) == getattr(tiny_config(), setting)
    stored = json.loads((tmp_path / "out/adaptation.json").read_text())
    assert stored["history"][2]["errors"] == result.history[2].errors
    assert len(list((tmp_path / "out/train/checkpoints").glob("0*"))) == 2


def test_heads_mode_moves_the_new_robots_rows_alone(run: Callable, tmp_path: Path):
    result = run(mode="heads", heads_lr=1e-2)
    assert result.best > 0
    before, after = weights(tmp_path / "out/start"), weights(tmp_path / "out/policy")
    for name, x in before.items():
        untouched = [0, 1, 3] if is_head(name) else slice(None)
        assert torch.equal(after[name][untouched], x[untouched]), name
    moved = [name for name in before if name.startswith("model.") and not torch.equal(after[name], before[name])]
    assert len(moved) > 8


def test_lora_mode_gives_a_whole_policy(run: Callable, tmp_path: Path):
    run(mode="lora", lr=1e-2, lora_rank=2)
    assert (tmp_path / "out/best/adapter_model.safetensors").is_file()
    policy = WAMPolicy.from_pretrained(tmp_path / "out/policy")
    assert not policy.config.use_peft
    before, after = (weights(tmp_path / "out" / name) for name in ("start", "policy"))
    assert not any("lora" in name for name in after)
    query = "model.blocks.0.self_attn.q.weight"
    assert not torch.equal(after[query], before[f"ema_{query}"])
    assert torch.equal(after["model.patch_embedding.weight"], before["ema_model.patch_embedding.weight"])
    adapters = load(tmp_path / "out/best")
    assert torch.equal(adapters.select_action(observe(policy)), policy.select_action(observe(policy)))


def test_training_stops_when_the_error_no_longer_falls(run: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    falling = iter([1.0, 0.8, 0.9, 0.85])
    monkeypatch.setattr(adaptation, "share_of_range", lambda *_: next(falling, 2.0))
    result = run(steps=50, eval_every=1, patience=2)
    assert [evaluation.overall for evaluation in result.history] == [1.0, 0.8, 0.9, 0.85]
    assert result.best == 1
    best = weights(tmp_path / "out/best")
    assert all(torch.equal(x, best[name]) for name, x in weights(tmp_path / "out/policy").items())


def test_without_any_gain_the_checkpoint_is_kept(run: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    rising = iter([1.0, 1.1, 1.2])
    monkeypatch.setattr(adaptation, "share_of_range", lambda *_: next(rising, 2.0))
    assert run(eval_every=1, patience=2).best == 0
    start = weights(tmp_path / "out/start")
    assert all(torch.equal(x, start[name]) for name, x in weights(tmp_path / "out/policy").items())


def test_an_interrupted_adaptation_goes_on_to_the_same_numbers(
    run: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    straight = run(steps=6)
    (tmp_path / "out").rename(tmp_path / "straight")
    add = adaptation._Watch.add

    def killed(watch: Any, evaluation: Any) -> None:
        if evaluation.step == 4:
            raise KeyboardInterrupt
        add(watch, evaluation)

    monkeypatch.setattr(adaptation._Watch, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        run(steps=6)
    monkeypatch.setattr(adaptation._Watch, "add", add)
    torch.manual_seed(99)
    assert run(steps=6) == straight
    old, new = (weights(tmp_path / name / "policy") for name in ("straight", "out"))
    assert [name for name in old if not torch.equal(old[name], new[name])] == []
    assert run(steps=6) == straight  # finished: nothing is trained again


def test_the_split_is_random_by_seed_and_leaves_both_sides_something(play: MixtureEntry, tmp_path: Path):
    plan = AdaptPlan(Path("x"), play, tmp_path, eval_split=0.4)
    train, held_out = split_episodes(plan)
    assert (len(train), len(held_out)) == (3, 2)
    assert split_episodes(plan) == (train, held_out)
    assert len({tuple(split_episodes(replace(plan, seed=seed))[1]) for seed in range(9)}) > 2
    assert [len(side) for side in split_episodes(replace(plan, eval_split=0.01))] == [4, 1]
    assert [len(side) for side in split_episodes(replace(plan, eval_split=0.99))] == [1, 4]
    some = replace(play, episodes="1,3,4")
    train, held_out = split_episodes(replace(plan, data=some))
    assert sorted(train + held_out) == [1, 3, 4]


def test_earlier_data_is_found_or_its_absence_said(old_data: MixtureRecipe, tmp_path: Path):
    def said(mixture: Any) -> tuple[MixtureRecipe | None, str]:
        (tmp_path / "config.json").write_text(json.dumps({"mixture": mixture}))
        return stored_cotraining(tmp_path)

    recipe, line = said(old_data.to_dict())
    assert recipe == old_data
    assert line.startswith("Co-training on arm, mobile")
    gone = replace(old_data.datasets[1], root=str(tmp_path / "gone"))
    recipe, line = said(MixtureRecipe((old_data.datasets[0], gone)).to_dict())
    assert recipe is None
    assert "local/mobile, which the checkpoint was trained on, is not in" in line
    assert "--cotrain=MIXTURE.yaml" in line
    assert said({})[0] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_split": 1.0}, "--eval-split is 1.0, expected a share"),
        ({"patience": 0}, "--patience is 0, expected 1 or more"),
        (
            {"mode": "heads", "cotrain": MixtureRecipe((MixtureEntry("local/old"),))},
            "--cotrain is given, but --mode=heads trains the new robot's weights alone",
        ),
        ({"like": "ur5e"}, "no embodiment 'ur5e' to begin with: the checkpoint knows wam_sim_viperx, mobile"),
        ({"episodes": "2"}, "play has one episode"),
        ({"embodiment": "pusht"}, "play: embodiment 'pusht' needs the camera"),
        ({"embodiment": "wam_sim_viperx"}, "play: action of the dataset is 4-dimensional"),
        ({"root": "nowhere"}, "no dataset 'local/play' in nowhere"),
    ],
)
def test_bad_input_is_said_before_anything_is_written(
    run: Callable, play: MixtureEntry, checkpoint: Path, tmp_path: Path, options: dict, message: str
):
    of_entry = {key: value for key, value in options.items() if key in ("episodes", "embodiment", "root")}
    if of_entry:
        plan = AdaptPlan(checkpoint, replace(play, **of_entry), tmp_path / "out")
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            adapt(plan)
    else:
        with pytest.raises(ValueError, match=message):
            run(**options)
    assert not (tmp_path / "out").exists()


def test_a_robot_that_is_known_is_refused(checkpoint: Path, old_data: MixtureRecipe, tmp_path: Path):
    plan = AdaptPlan(checkpoint, old_data.datasets[1], tmp_path / "out")
    with pytest.raises(ValueError, match="embodiment 'mobile' is in the checkpoint already"):
        adapt(plan)


def test_a_folder_belongs_to_one_adaptation(play: MixtureEntry, tmp_path: Path):
    plan = AdaptPlan(Path("x"), play, tmp_path / "out", lr=1e-3)
    adaptation._claim(plan)
    adaptation._claim(replace(plan, patience=9, device="cuda"))  # going on with these is fine
    with pytest.raises(ValueError, match=r"another lr \(0.001, not 0.1\): delete it, or choose another --out"):
        adaptation._claim(replace(plan, lr=0.1))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").touch()
    with pytest.raises(ValueError, match="other is not empty and holds no adaptation"):
        adaptation._claim(replace(plan, folder=tmp_path / "other"))
