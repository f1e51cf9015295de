"""Who competes in the claims, how each is trained on a recording, and how each is tried.

All learn from the same episodes, and what they normalise by comes from these alone. Trainings and trials are LeRobot's
own programs, run in this process; ours goes through our mixture, which they call for their dataset.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from lerobot.configs import FeatureType, PreTrainedConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.compute_stats import get_feature_stats
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.factory import make_dataset
from lerobot.policies import make_pre_post_processors
from lerobot.scripts import lerobot_train
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE
from lerobot.utils.feature_utils import dataset_to_policy_features

import lerobot_wam.plugin  # noqa: F401  (registers the policy and the environment)
from benchmarks.claims.offline import VideoCodec
from benchmarks.claims.text_features import TEXT_FEATURES, WORD_DIM, TextFeatures
from benchmarks.claims.training import last_checkpoint, resumed_or_new
from benchmarks.common import JOINTS, SIZE
from benchmarks.narrow import NARROW
from benchmarks.paired import tried
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.data.memory import InMemoryDataset
from lerobot_wam.data.mixture import Mixture
from lerobot_wam.data.recipe import MixtureEntry, MixtureRecipe
from lerobot_wam.training.growth import grow_checkpoint
from lerobot_wam.training.loop import swapped, window_shape
from lerobot_wam.training.loop import train as train_mixture

CHUNK = 8
"""Actions that every contestant predicts at once, and executes before it looks again."""
BATCH = 48
"""Episodes that are tried side by side, at most."""
TAKE_STATE = ("act", "diffusion")
"""Policies of LeRobot's that take a vector beside the robot's state."""


@dataclass(frozen=True)
class Data:
    """What a policy may learn from.

    Attributes:
        root: Folder of a recording of one arm.
        episodes: Which of them, as `MixtureEntry.episodes`; None takes all.
    """

    root: Path
    episodes: str | None = None

    @property
    def entry(self) -> MixtureEntry:
        """The data as part of a mixture, kept in memory."""
        return MixtureEntry(f"local/{self.root.name}", root=str(self.root), episodes=self.episodes, in_memory=True)


@dataclass(frozen=True)
class Contestant:
    """A policy and its training.

    Attributes:
        name: Unique; results are filed under it.
        label: For people.
        how: What it is, and how it hears the instruction.
        policy: LeRobot's `--policy.type`.
        flags: Of `lerobot-train`: its size and its training, `--policy.` left out.
        starts_from_prior: Whether its weights begin as those of a prior that was trained on video alone.
    """

    name: str
    label: str
    how: str
    policy: str
    flags: tuple[str, ...]
    starts_from_prior: bool = False

    @property
    def network(self) -> str:
        """What a step of its training costs as much as: its name without where it starts from."""
        return self.name.removesuffix("_prior").removesuffix("_scratch")


@dataclass(frozen=True)
class Condition:
    """What a policy is tried on.

    Attributes:
        name: Unique within a claim.
        tasks: As `select_tasks` takes them.
        looks: Of the scenes, see `--env.looks`.
        arm: Whose body it is.
        flags: Further flags of `lerobot-eval`.
    """

    name: str
    tasks: str
    looks: str = "plain"
    arm: str = "viperx"
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trials:
    """Outcomes, one an episode in the order of their scenes.

    Attributes:
        successes: Strict success.
        progress: How much of the task was done, 0 to 1.
    """

    successes: list[bool]
    progress: list[float]


_OURS = ("preset=nano", "max_chunks=1")
_NARROW = (f"vision_backbone={NARROW}", "pretrained_backbone_weights=null")
_IMAGINES = "a nano World Action Model, which hears every word: attention to them, FiLM of its visual summary"
_ACTS = "the same network without noisy video tokens and without their loss, which hears every word likewise"
_HEARS = "the same frozen word features as ours, summed to one vector"
_EXPERT = {
    "hidden_dim": 128,
    "ffn_dim": 512,
    "num_heads": 4,
    "attn_head_dim": 32,
    "num_layers": 4,
    "text_dim": WORD_DIM,
    "freq_dim": 64,
    "eps": 1e-6,
}
_VIDEO_EXPERT = _EXPERT | {
    "patch_size": [1, 1, 1],
    "in_dim": VideoCodec.z_dim,
    "out_dim": VideoCodec.z_dim,
    "seperated_timestep": True,
    "video_attention_mask_mode": "first_frame_causal",
}


def _flow(sizes: Mapping[str, Any]) -> str:
    """A mapping as one flag: LeRobot reads YAML, to which JSON's 1e-06 is a word."""
    return yaml.safe_dump(sizes, default_flow_style=True, width=math.inf).strip()


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant("ours_prior", "ours, from the video prior", f"{_IMAGINES}; begins as the prior", "wam", _OURS, True),
        Contestant("ours_scratch", "ours, from scratch", f"{_IMAGINES}; begins at random", "wam", _OURS),
        Contestant(
            "no_video_prior",
            "ours without video, from the video prior",
            f"{_ACTS}; begins as the prior",
            "wam",
            (*_OURS, "imagines=false"),
            True,
        ),
        Contestant(
            "no_video_scratch",
            "ours without video, from scratch",
            f"{_ACTS}; begins at random",
            "wam",
            (*_OURS, "imagines=false"),
        ),
        Contestant(
            "act",
            "ACT",
            f"LeRobot's ACT at nano's size, from scratch; hears {_HEARS}, a token of its encoder",
            "act",
            (
                *_NARROW,
                f"chunk_size={CHUNK}",
                f"n_action_steps={CHUNK}",
                "dim_model=128",
                "n_heads=4",
                "dim_feedforward=448",
                "optimizer_lr=1e-3",
                "optimizer_lr_backbone=1e-3",
            ),
        ),
        Contestant(
            "diffusion",
            "Diffusion Policy",
            f"LeRobot's Diffusion Policy at nano's size, from scratch, 10 DDIM steps; hears {_HEARS}, among what its "
            "U-Net is conditioned on",
            "diffusion",
            (
                *_NARROW,
                "n_obs_steps=1",  # like the others; with 2, a horizon of 8 would hold 7 actions to execute
                f"horizon={CHUNK}",
                f"n_action_steps={CHUNK}",
                "drop_n_last_frames=0",  # LeRobot's 7 fit its own horizon; here they would hide half of each episode
                "down_dims=[32,64,144]",
                "noise_scheduler_type=DDIM",
                "num_inference_steps=10",
                "optimizer_lr=1e-3",
                "scheduler_warmup_steps=20",
            ),
        ),
        Contestant(
            "multi_task_dit",
            "multi-task DiT",
            "LeRobot's multi-task DiT at nano's size, 10 DDIM steps, all from scratch, even its vision encoder, which "
            f"is made to be pre-trained; hears {_HEARS}, in place of its text encoder's output",
            "multi_task_dit",
            (
                "n_obs_steps=1",
                f"horizon={CHUNK}",
                f"n_action_steps={CHUNK}",
                "hidden_dim=128",
                "num_layers=4",
                "num_heads=4",
                "timestep_embed_dim=64",
                "vision_encoder_lr_multiplier=1.0",
                "noise_scheduler_type=DDIM",
                "num_inference_steps=10",
                "optimizer_lr=1e-3",
                "scheduler_warmup_steps=20",
            ),
        ),
        Contestant(
            "fastwam",
            "FastWAM",
            "LeRobot's FastWAM at nano's size, all from scratch, 10 steps for the actions, none for video; in place of "
            "Wan's frozen encoders it has our video codec and hears our word tokens, by attention",
            "fastwam",
            (
                f"action_dim={JOINTS}",
                f"proprio_dim={JOINTS}",
                f"action_horizon={CHUNK}",
                f"n_action_steps={CHUNK}",
                f"num_video_frames={1 + CHUNK}",
                "action_video_freq_ratio=1",
                f"image_size=[{SIZE},{SIZE}]",
                "prompt_template='{task}'",
                "base_model_id=null",
                "torch_dtype=float32",
                f"video_dit_config={_flow(_VIDEO_EXPERT)}",
                f"action_dit_config={_flow(_EXPERT | {'action_dim': JOINTS})}",
                "optimizer_lr=1e-3",
            ),
        ),
    )
}


def train(
    contestant: Contestant,
    data: Data,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    folder: Path,
    device: str = "cpu",
    prior: Path | None = None,
    video: Sequence[MixtureEntry] = (),
    flags: Sequence[str] = (),
) -> Path:
    """Train a contestant, as far as that is not done; interrupted or not, the weights are the same.

    Args:
        contestant: Who.
        data: What it learns from.
        steps: Optimizer steps.
        batch_size: Windows a step.
        seed: Of weights, order and noise.
        folder: Where its checkpoints go.
        device: Where it learns.
        prior: Folder of the checkpoint that it begins as, if it does.
        video: Further data; only for ours.
        flags: Further flags of `lerobot-train`; later ones win.

    Returns:
        The folder of the last checkpoint's policy; nothing else is ever chosen.

    Raises:
        ValueError: A prior that is not needed, or one that is missing; video for another policy than ours.
    """
    if contestant.starts_from_prior != (prior is not None):
        raise ValueError(f"{contestant.name}: prior is {prior}, expected {'a checkpoint' if prior is None else 'None'}")
    if contestant.policy != "wam" and video:
        raise ValueError(f"{contestant.name} learns from actions alone: video is {[entry.name for entry in video]}")
    begun = folder / "begun"
    which = [f"--policy.type={contestant.policy}"]
    if prior is not None:  # what it says of its own training is not for this one to go on with
        which = [f"--policy.path={begun}", "--policy.steps_done=0", f"--policy.noise_seed={seed}"]
    which += [f"--policy.{flag}" for flag in contestant.flags]
    if contestant.policy != "wam":
        # LeRobot's own do not go on exactly as they would have, so one that was interrupted begins anew.
        which += [*_reading(contestant, data), f"--save_freq={steps}"]
    arguments = resumed_or_new(folder / "training", steps, batch_size, seed, device, [*which, *flags])
    if arguments is not None and contestant.policy == "wam":
        if prior is not None and not (begun / "config.json").is_file():
            _with_robot(prior, data, begun)
        train_mixture(arguments, MixtureRecipe((data.entry, *video)))
    elif arguments is not None:
        with (
            swapped(sys, argv=["lerobot-train", *arguments]),
            swapped(lerobot_train, make_train_eval_datasets=_in_memory, make_pre_post_processors=_hearing),
        ):
            lerobot_train.train()
    return last_checkpoint(folder / "training")


def evaluate(
    policy: Path,
    condition: Condition,
    *,
    episodes: int,
    seed: int,
    folder: Path,
    device: str = "cpu",
    flags: Sequence[str] = (),
) -> Trials:
    """Try a policy with `lerobot-eval`; what a folder holds is not tried again.

    Args:
        policy: Folder of a checkpoint.
        condition: What it is tried on.
        episodes: How many, the i-th in scene `seed` + i.
        seed: The first scene, and what sampling noise is drawn from.
        folder: Where the outcome goes.
        device: Where it acts.
        flags: Further flags of `lerobot-eval`.
    """
    knows_robots = json.loads((policy / "config.json").read_text())["type"] == "wam"
    batches = math.ceil(episodes / BATCH)
    found = tried(
        policy,
        folder,
        [
            *([f"--policy.embodiment=wam_sim_{condition.arm}"] if knows_robots else []),
            f"--policy.device={device}",
            "--env.type=wam_tabletop",
            f"--env.task={condition.tasks}",
            f"--env.looks={condition.looks}",
            f"--env.arm={condition.arm}",
            f"--eval.n_episodes={episodes}",
            f"--eval.batch_size={math.ceil(episodes / batches)}",
            f"--seed={seed}",
            *condition.flags,
            *flags,
        ],
    )
    return Trials([bool(success) for success in found["successes"]], found["sum_rewards"])


def _reading(contestant: Contestant, data: Data) -> list[str]:
    """Flags that give a policy of LeRobot's the chosen episodes, and the instruction beside what it observes."""
    meta = LeRobotDatasetMetadata(data.entry.repo_id, root=data.root)
    flags = [
        f"--dataset.repo_id={meta.repo_id}",
        f"--dataset.root={data.root}",
        f"--dataset.episodes={data.entry.chosen_episodes(meta.total_episodes)}",
    ]
    if contestant.policy in TAKE_STATE:
        features = dataset_to_policy_features(meta.features)
        inputs = {key: (feature.type.name, feature.shape) for key, feature in features.items() if key != ACTION}
        inputs[OBS_ENV_STATE] = FeatureType.ENV.name, (TEXT_FEATURES,)
        declared = {key: {"type": kind, "shape": list(shape)} for key, (kind, shape) in inputs.items()}
        flags.append(f"--policy.input_features={json.dumps(declared)}")
    return flags


def _in_memory(config: TrainPipelineConfig) -> tuple[InMemoryDataset, None]:
    """The chosen episodes, normalised by themselves alone; LeRobot's statistics are those of the whole recording."""
    dataset = InMemoryDataset(make_dataset(config))
    for key in (OBS_STATE, ACTION):
        dataset.meta.stats[key] = get_feature_stats(dataset.column(key).numpy(), axis=0, keepdims=False)
    return dataset, None


def _hearing(policy_cfg: PreTrainedConfig, pretrained_path: str | None = None, **kwargs: Any) -> tuple[Any, Any]:
    """LeRobot's pipelines, with the step that hears; a saved one has it already."""
    before, after = make_pre_post_processors(policy_cfg, pretrained_path, **kwargs)
    if pretrained_path is None and policy_cfg.type in TAKE_STATE:
        before.steps.insert(2, TextFeatures())  # behind the batch's axis, ahead of the device
    return before, after


def _with_robot(prior: Path, data: Data, out: Path) -> None:
    """Give a prior, whose robots have no actions, the data's robot."""
    config = PreTrainedConfig.from_pretrained(prior)
    assert isinstance(config, WAMConfig)
    mixture = Mixture(MixtureRecipe((replace(data.entry, in_memory=False),)), window_shape(config))
    ((name, stored),) = mixture.meta.embodiments.items()
    grow_checkpoint(prior, out, stored, name)
