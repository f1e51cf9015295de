"""A trained policy learns another robot from a few minutes of its data.

The checkpoint gets the robot (`growth.py`), trains on the new data and, so that old skills stay, on earlier data in
equal parts, until the open-loop action error on held-out episodes (`open_loop.py`) no longer falls. What acted best is
kept. The folder of an adaptation holds:

    plan.json         what it was asked to do
    start/            the checkpoint with the new robot, before training
    train/            LeRobot's training run, its last two checkpoints
    best/             the weights, or adapters, with the lowest held-out error so far
    history.json      the held-out error at each evaluation
    policy/           the finished policy, acting as the new robot
    adaptation.json   the numbers of `Adaptation`
"""

import dataclasses
import json
import logging
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import snapshot_download
from lerobot.configs import FeatureType, PreTrainedConfig
from lerobot.policies import make_pre_post_processors
from lerobot.utils.constants import HF_LEROBOT_HOME
from lerobot.utils.feature_utils import dataset_to_policy_features
from torch import Tensor

from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.data.latents import write_whole
from lerobot_wam.data.mixture import Mixture
from lerobot_wam.data.recipe import MixtureEntry, MixtureRecipe
from lerobot_wam.data.source import open_metadata
from lerobot_wam.embodiments.action_space import ActionSpace
from lerobot_wam.embodiments.resolve import load_stored_embodiment
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.training.adapt_plan import Adaptation, AdaptPlan, Evaluation
from lerobot_wam.training.growth import check_growth, check_robot, grow_checkpoint, nearest_robot
from lerobot_wam.training.loop import StopTraining, train, window_shape
from lerobot_wam.training.open_loop import (
    HeldOut,
    copy_last_motion,
    hold_still,
    joint_errors,
    predict,
    read_held_out,
    share_of_range,
)

logger = logging.getLogger(__name__)

WARMUP_STEPS = 50
SHARED_RATE = 0.1  # of the checkpoint's learning rate: what all robots share moves less than what the new one learns
FLAT_FRACTION = 0.2  # then the rate falls to the end: what was trained to such an end before needs one again
_OF_THE_RUN = ("trainable", "heads_lr", "optimizer_lr", "matrix_lr", "warmup_steps", "flat_fraction")


def adapt(plan: AdaptPlan) -> Adaptation:
    """Do what the plan says, or continue where an interrupted adaptation in its folder stopped.

    The finished policy is in `plan.folder / "policy"`, with processors, and acts as the new robot.

    Raises:
        ValueError: The robot, the data or the folder does not fit; before anything is trained.
        FileNotFoundError: The checkpoint or a dataset is missing.
    """
    source, start = plan.checkpoint, plan.folder / "start"
    config = PreTrainedConfig.from_pretrained(source)
    check_growth(source, config, plan.like)
    assert isinstance(config, WAMConfig)
    trained_on, held_out_episodes = split_episodes(plan)
    entry = replace(plan.data, episodes=_listed(trained_on))
    # Without its pictures, which training will read: this is for the robot, its statistics and all that can be wrong.
    alone = MixtureRecipe((replace(entry, in_memory=False),))
    found = Mixture(alone, window_shape(config), config.embodiments, plan.seed)
    spec = found.sources[0].spec
    stored = found.meta.embodiments[spec.name]
    check_robot(config, stored, spec.name)
    recipe = _with_earlier(replace(entry, embodiment=spec.name), plan.cotrain)
    held_out = read_held_out(
        replace(plan.data, episodes=_listed(held_out_episodes), embodiment=spec.name, in_memory=False),
        spec,
        window_shape(config),
        plan.windows,
    )
    _claim(plan)
    like = plan.like or nearest_robot(config.embodiments, stored)
    if not (start / "config.json").is_file():
        grow_checkpoint(source, start, stored, spec.name, like)

    space = ActionSpace(*load_stored_embodiment(spec.name, stored))
    scores = _Scores(held_out, stored)
    watch = _Watch(plan, scores)
    if not watch.history:
        watch.add(scores.of(predict(load(start, plan.device), held_out), 0))
    _train(plan, config, recipe, watch)
    result = Adaptation(
        embodiment=spec.name,
        like=like,
        joints=list(spec.action_names),
        units=[dimension.unit for dimension in spec.action],
        history=watch.history,
        best=watch.best.step,
        hold_still=scores.of(hold_still(space, held_out), 0),
        copy_last_motion=scores.of(copy_last_motion(space, held_out), 0),
        windows=len(held_out.task),
        episodes=trained_on,
        held_out=held_out_episodes,
    )
    _finish(plan, config, found.meta.features, result.best > 0)
    (plan.folder / "adaptation.json").write_text(json.dumps(dataclasses.asdict(result), indent=1) + "\n")
    return result


def local_checkpoint(path: str) -> Path:
    """Return the folder of a checkpoint, downloaded if it is an id on the Hub.

    Raises:
        FileNotFoundError: There is none.
    """
    folder = Path(path)
    if not folder.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        return Path(snapshot_download(path))
    if not (folder / "config.json").is_file():
        inside = folder / "checkpoints" / "last" / "pretrained_model"
        hint = f"did you mean {inside}?" if inside.is_dir() else "expected a folder with config.json"
        raise FileNotFoundError(f"no checkpoint at {folder}: {hint}; check --policy.path")
    return folder


def split_episodes(plan: AdaptPlan) -> tuple[list[int], list[int]]:
    """Return the episodes to train on and the held-out ones, drawn at random from the plan's seed.

    Raises:
        ValueError: There are fewer than two.
    """
    chosen = plan.data.chosen_episodes(open_metadata(plan.data).total_episodes)
    if len(chosen) < 2:
        raise ValueError(
            f"{plan.data.name} has one episode: adapting needs one to train on and another to hold out; record more"
        )
    count = min(len(chosen) - 1, max(1, round(plan.eval_split * len(chosen))))
    held_out = np.random.default_rng(plan.seed).choice(chosen, count, replace=False).tolist()
    return [episode for episode in chosen if episode not in held_out], sorted(held_out)


def load(folder: Path, device: str | None = None) -> WAMPolicy:
    """Load a policy of an adaptation; adapters are merged into the weights that they were trained on.

    Args:
        folder: A checkpoint, or adapters with the configuration beside them.
        device: Where to; None takes the checkpoint's.
    """
    config = PreTrainedConfig.from_pretrained(folder)
    config.device = device or config.device
    if not (folder / "adapter_config.json").is_file():
        return WAMPolicy.from_pretrained(folder, config=config)
    from peft import PeftConfig, PeftModel

    config.use_peft = False
    base = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    assert base is not None
    return PeftModel.from_pretrained(WAMPolicy.from_pretrained(base, config=config), str(folder)).merge_and_unload()


def stored_cotraining(checkpoint: Path) -> tuple[MixtureRecipe | None, str]:
    """Return the datasets that a checkpoint was trained on, if all of them are on this disk, and a line about it."""
    stored = json.loads((checkpoint / "config.json").read_text(encoding="utf-8")).get("mixture")
    way_out = "Old skills may fade: name earlier data with --cotrain=MIXTURE.yaml"
    if not stored:
        return None, f"The checkpoint does not say what it was trained on. {way_out}"
    recipe = MixtureRecipe.from_dict(stored)
    for entry in recipe.datasets:
        root = Path(entry.root) if entry.root else HF_LEROBOT_HOME / entry.repo_id
        if not (root / "meta" / "info.json").is_file():
            return None, f"{entry.repo_id}, which the checkpoint was trained on, is not in {root}. {way_out}"
    return recipe, f"Co-training on {', '.join(entry.name for entry in recipe.datasets)}, so that old skills stay"


def _listed(episodes: list[int]) -> str:
    return ",".join(map(str, episodes))


def _with_earlier(new: MixtureEntry, cotrain: MixtureRecipe | None) -> MixtureRecipe:
    """The new data and, with the same weight in all, earlier data. Cached latents would be those of all episodes."""
    new = replace(new, latents="none")
    if cotrain is None:
        return MixtureRecipe((new,))
    total = sum(entry.weight for entry in cotrain.datasets)
    earlier = [replace(entry, weight=new.weight * entry.weight / total, latents="none") for entry in cotrain.datasets]
    if new.name in [entry.name for entry in earlier]:  # two recordings that lie in folders called "play", say
        new = replace(new, name=new.repo_id)
    return MixtureRecipe((new, *earlier))


def _claim(plan: AdaptPlan) -> None:
    """Make the folder this plan's own.

    Raises:
        ValueError: It holds something else.
    """
    free = ("folder", "device", "patience")  # may change when one goes on
    asked = {key: value for key, value in dataclasses.asdict(plan).items() if key not in free}
    asked = json.loads(json.dumps(asked, default=str))
    file = plan.folder / "plan.json"
    if file.is_file():
        before = json.loads(file.read_text())
        if changed := [key for key in asked if before.get(key) != asked[key]]:
            raise ValueError(
                f"{plan.folder} holds an adaptation with another {changed[0]} ({before.get(changed[0])}, not "
                f"{asked[changed[0]]}): delete it, or choose another --out"
            )
    elif plan.folder.is_dir() and any(plan.folder.iterdir()):
        raise ValueError(f"{plan.folder} is not empty and holds no adaptation: choose another --out")
    plan.folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asked, indent=1) + "\n")


def _train(plan: AdaptPlan, old: WAMConfig, recipe: MixtureRecipe, watch: "_Watch") -> None:
    """Train, or go on from the last checkpoint, until the watch says stop."""
    run = plan.folder / "train"
    last = run / "checkpoints" / "last"
    watch.forget_after(int(last.resolve().name) if last.exists() else 0)
    if watch.is_over:
        return
    if last.exists():
        config = last / "pretrained_model" / "train_config.json"
        train([f"--config_path={config}", "--resume=true", f"--steps={plan.steps}"], recipe, watch)
        return
    shutil.rmtree(run, ignore_errors=True)  # what a run leaves that had no checkpoint yet; LeRobot refuses it
    lr = plan.lr or old.optimizer_lr * (SHARED_RATE if plan.mode == "full" else 1)
    flags = {
        "policy.path": plan.folder / "start",
        "policy.push_to_hub": "false",
        "policy.device": plan.device or old.device,
        "policy.optimizer_lr": lr,
        "policy.matrix_lr": old.matrix_lr * lr / old.optimizer_lr,
        "policy.heads_lr": plan.heads_lr or old.optimizer_lr,
        "policy.warmup_steps": WARMUP_STEPS,
        "policy.flat_fraction": FLAT_FRACTION,
        "output_dir": run,
        "steps": plan.steps,
        "batch_size": plan.batch_size,
        "save_freq": plan.eval_every,
        "env_eval_freq": 0,
        "seed": plan.seed,
    }
    if plan.mode == "heads":
        flags["policy.trainable"] = "heads"
    if plan.mode == "lora":
        flags |= {"peft.method_type": "LORA", "peft.r": plan.lora_rank, "peft.lora_alpha": plan.lora_rank}
    train([*(f"--{name}={value}" for name, value in flags.items()), *plan.flags], recipe, watch)


def _finish(plan: AdaptPlan, old: WAMConfig, features: dict[str, Any], trained: bool) -> None:
    """Write the weights that were kept as a policy of their own, with the new robot's inputs and processors."""
    policy = load(plan.folder / ("best" if trained else "start"), plan.device)
    for name in _OF_THE_RUN:
        setattr(policy.config, name, getattr(old, name))
    known = dataset_to_policy_features(features)
    policy.config.output_features = {key: known[key] for key in known if known[key].type is FeatureType.ACTION}
    policy.config.input_features = {key: known[key] for key in known if key not in policy.config.output_features}
    policy.save_pretrained(plan.folder / "policy")
    for pipeline in make_pre_post_processors(policy.config, dataset_stats={}):
        pipeline.save_pretrained(plan.folder / "policy")


@dataclass(frozen=True, eq=False)
class _Scores:
    """Judges chunks of actions on the held-out windows of a robot."""

    held_out: HeldOut
    stored: dict[str, Any]

    def of(self, actions: Tensor, step: int) -> Evaluation:
        errors = joint_errors(actions, self.held_out)
        return Evaluation(step, errors, share_of_range(errors, *load_stored_embodiment("robot", self.stored)))


class _Watch:
    """Evaluates while the policy trains, keeps what is best, and stops training when it no longer gets better."""

    def __init__(self, plan: AdaptPlan, scores: _Scores) -> None:
        self.plan, self.scores = plan, scores
        self._file = plan.folder / "history.json"
        self.history: list[Evaluation] = []
        if self._file.is_file():
            self.history = [Evaluation(**entry) for entry in json.loads(self._file.read_text())]

    @property
    def best(self) -> Evaluation:
        """The evaluation with the lowest error, the first one among equals."""
        return min(self.history, key=lambda evaluation: evaluation.overall)

    @property
    def is_over(self) -> bool:
        """Whether all steps are done, or the last ones brought nothing."""
        since_best = len(self.history) - 1 - self.history.index(self.best)
        return since_best >= self.plan.patience or self.history[-1].step >= self.plan.steps

    def add(self, evaluation: Evaluation) -> None:
        """Note an evaluation."""
        self.history.append(evaluation)
        self._write()
        error = f"{100 * evaluation.overall:.2f} % of the joints' range"
        logger.info("step %d: held-out action error %s, best at step %d", evaluation.step, error, self.best.step)

    def forget_after(self, step: int) -> None:
        """Forget what was evaluated after the step from which training goes on; it comes again."""
        self.history = [evaluation for evaluation in self.history if evaluation.step <= step]
        self._write()

    def __call__(self, policy: WAMPolicy, step: int) -> None:
        """Evaluate after the steps that are due.

        Raises:
            StopTraining: The error did not fall for as many evaluations as the plan has patience.
        """
        if step % self.plan.eval_every and step != self.plan.steps:
            return
        evaluation = self.scores.of(predict(policy, self.scores.held_out), step)
        if evaluation.overall < self.best.overall:  # saved before it is noted: a crash between the two is harmless
            policy.save_pretrained(self.plan.folder / "best")
            if self.plan.mode == "lora":
                policy.config.save_pretrained(self.plan.folder / "best")
        self.add(evaluation)
        checkpoints = self.plan.folder / "train" / "checkpoints"
        for old in checkpoints.glob("[0-9]*"):  # the one before is enough to go on from
            if old != (checkpoints / "last").resolve():
                shutil.rmtree(old)
        if self.is_over and step < self.plan.steps:
            raise StopTraining

    def _write(self) -> None:
        text = json.dumps([dataclasses.asdict(evaluation) for evaluation in self.history], indent=1) + "\n"
        write_whole(self._file, lambda part: part.write_text(text))
