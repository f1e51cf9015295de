"""The video prior: our network, trained on video alone, from which the policies "from the prior" start.

It sees all four arms do the seen tasks, alone and two in a row, in varied scenes: never a held-out task, never an
action, never a scene of another recording. Measured on recordings that it did not learn from: the loss of its video,
and its dreams beside the last frame repeated and beside the codec, the best that any dream could be.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from lerobot.configs.train import TrainPipelineConfig
from torch.utils.data import default_collate

from benchmarks.claims.cells import Cell
from benchmarks.claims.data import ARM, OTHER_ARMS, PRIOR, held_out, minutes, recorded, video
from benchmarks.claims.findings import Finding, Report, decided
from benchmarks.claims.scales import Scale
from benchmarks.claims.training import last_checkpoint, resumed_or_new
from benchmarks.result_rows import words
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.data.mixture import Mixture
from lerobot_wam.data.recipe import MixtureEntry, MixtureRecipe
from lerobot_wam.data.source import open_metadata
from lerobot_wam.model_card import data_row, generate_card, robot_rows, training_rows
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.report.clips import open_episodes, read_clip
from lerobot_wam.report.dream import DreamResult, dream
from lerobot_wam.report.metrics import pool
from lerobot_wam.report.page import NumberTable
from lerobot_wam.sim.episodes import Recipe
from lerobot_wam.training.loop import train, window_shape

TITLE = "The video prior"
_WINDOWS = 64


def cells(scale: Scale) -> list[Cell]:
    """One prior of each size that claim A needs."""
    return [Cell("prior", size, 0, partial(measured, scale, size)) for size in scale.sizes_in_claim_a]


def videos(scale: Scale) -> list[MixtureEntry]:
    """What the prior learns from: all arms, in equal parts."""
    recipes = {arm: Recipe(scale.prior_tasks, arm, seed=PRIOR, looks="varied") for arm in (ARM, *OTHER_ARMS)}
    return [video(recorded(scale, f"prior-{arm}", scale.prior_episodes, recipe)) for arm, recipe in recipes.items()]


def prior_folder(scale: Scale, size: str) -> Path:
    """Where the training of a prior lies."""
    return scale.outputs / "prior" / f"{size}-{scale.prior_steps}_steps"


def trained_prior(scale: Scale, size: str) -> Path:
    """Return the prior's last checkpoint, trained as far as it is not."""
    recipe = MixtureRecipe(tuple(videos(scale)))
    return train_mixture(scale, recipe, size, scale.prior_steps, 0, prior_folder(scale, size))


def train_mixture(scale: Scale, recipe: MixtureRecipe, size: str, steps: int, seed: int, folder: Path) -> Path:
    """Train ours from scratch on a mixture, or go on where it was interrupted; gives the last checkpoint."""
    flags = ("--policy.type=wam", "--policy.preset=nano", "--policy.max_chunks=1", *scale.flags, *scale.sizes[size])
    arguments = resumed_or_new(folder, steps, scale.batch_size, seed, scale.device, flags)
    if arguments is not None:
        train(arguments, recipe)
    return last_checkpoint(folder)


def measured(scale: Scale, size: str) -> dict[str, Any]:
    """Train a prior and measure it; what its cell's file holds."""
    checkpoint = trained_prior(scale, size)
    policy = WAMPolicy.from_pretrained(checkpoint).to(scale.device)
    torch.manual_seed(0)
    untrained = WAMPolicy(policy.config).to(scale.device)
    learned = videos(scale)
    kept_back = {arm: held_out(scale, scale.prior_tasks, "varied", arm) for arm in (ARM, *OTHER_ARMS)}
    unseen = held_out(scale, scale.seen, "unseen")
    entries = [video(root) for root in kept_back.values()]
    metrics = {
        "size": size,
        "n_parameters": sum(parameter.numel() for parameter in policy.model.parameters()),
        "steps": scale.prior_steps,
        "batch_size": scale.batch_size,
        "tasks": scale.prior_tasks,
        "episodes": {found.name: scale.prior_episodes for found in learned},
        "minutes_of_video": sum(minutes(Path(str(found.root))) for found in learned),
        "held_out_video_loss": {
            "trained": video_loss(policy, entries),
            "untrained": video_loss(untrained, entries),
        },
        "dreams": {
            "varied_scenes": scores(dreams(policy, kept_back[ARM], scale.held_out)),
            "unseen_scenes": scores(dreams(policy, unseen, scale.held_out)),
        },
    }
    card(checkpoint, learned, metrics).save(checkpoint / "README.md")
    return metrics


def card(checkpoint: Path, learned: Sequence[MixtureEntry], metrics: Mapping[str, Any]) -> ModelCard:
    """The model card that is published with a prior."""
    config = TrainPipelineConfig.from_pretrained(checkpoint)
    assert isinstance(config.policy, WAMConfig)
    loss = metrics["held_out_video_loss"]
    return generate_card(
        f"<user>/wam-{metrics['size']}-prior",
        summary=f"Trained on {metrics['minutes_of_video']:.0f} minutes of video alone: four simulated arms in varied "
        "scenes, no action. A start for policies of these arms, to which `lerobot-wam adapt` gives a robot.",
        embodiments=robot_rows(config.policy.embodiments),
        data=[data_row(open_metadata(video)) for video in learned],
        training=training_rows(config),
        results=[
            {
                "Held-out recordings of the ViperX": scenes.replace("_", " "),
                **{
                    f"PSNR, moving: {who.replace('_', ' ')}": f"{row['psnr_moving']:.2f} dB"
                    for who, row in rows.items()
                },
                "Video loss, untrained → trained": f"{loss['untrained']:.3f} → {loss['trained']:.3f}",
            }
            for scenes, rows in metrics["dreams"].items()
        ],
        env_type="wam_tabletop",
    )


@torch.no_grad()
def video_loss(policy: WAMPolicy, entries: Sequence[MixtureEntry]) -> float:
    """Mean video loss of a policy on fixed windows and noise of recordings."""
    shape, config = window_shape(policy.config), policy.config
    windows = Mixture(MixtureRecipe(tuple(entries)), shape, config.embodiments, seed=0)
    batch = default_collate([windows[index] for index in range(_WINDOWS)])
    batch |= {key: batch[key] / 255 for key in windows.meta.camera_keys if key in batch}
    on_device = {key: value.to(config.device) for key, value in batch.items() if isinstance(value, torch.Tensor)}
    return policy.eval()(batch | on_device)[1]["video_loss"]


def dreams(policy: WAMPolicy, root: Path, count: int) -> list[DreamResult]:
    """Closed-loop dreams of a recording's first episodes, one chunk after the other to the end."""
    dataset = open_episodes(policy, root=root)
    return [dream(policy, read_clip(policy, dataset, episode), seed=episode) for episode in range(count)]


def scores(found: Sequence[DreamResult]) -> dict[str, dict[str, float]]:
    """PSNR and SSIM over all clips: of what was imagined, of the last frame repeated, of the codec alone."""
    return {
        name: pool([result.scores[key] for result in found]).summary()
        for name, key in {"imagined": "imagined", "last_frame_repeated": "copy", "codec_alone": "codec"}.items()
    }


def report(scale: Scale, records: Mapping[str, Mapping[str, Any]]) -> Report:
    """Whether dreams are closer to what happened than the last frame is, where something moves and elsewhere."""
    findings, rows = [], {}
    for size, record in records.items():
        m = record["metrics"]
        for scenes, score in m["dreams"].items():
            for who, row in score.items():
                rows[f"{size}, {words(scenes)}: {words(who)}"] = [
                    f"{row['psnr_moving']:.2f} dB",
                    f"{row['psnr']:.2f} dB",
                    f"{row['ssim']:.2f}",
                ]
        gains = {
            (scenes, key): _gain(m["dreams"][scenes], key) for scenes in m["dreams"] for key in ("psnr_moving", "psnr")
        }
        judged = gains["varied_scenes", "psnr_moving"]
        findings.append(
            Finding(
                f"The prior ({size}) imagines what moves better than the last frame repeated.",
                "Holds where the moving pixels of held-out clips in varied scenes are closer to what happened.",
                decided((judged, judged), 0),
                f"{judged:+.1f} dB",
                f"moving pixels, {scale.held_out} held-out clips; all pixels {gains['varied_scenes', 'psnr']:+.1f} dB; "
                f"in unseen scenes {gains['unseen_scenes', 'psnr_moving']:+.1f} and "
                f"{gains['unseen_scenes', 'psnr']:+.1f} dB; {m['minutes_of_video']:.0f} min of video, held-out video "
                f"loss {m['held_out_video_loss']['untrained']:.2f} → {m['held_out_video_loss']['trained']:.2f}",
            )
        )
    table = NumberTable(
        "Dreams of the prior",
        "On recordings that it did not learn from. The codec alone is the best that any dream could be.",
        ("PSNR of moving pixels", "PSNR", "SSIM"),
        rows,
    )
    return Report(findings, [table] if rows else [], {size: record["metrics"] for size, record in records.items()})


def _gain(found: Mapping[str, Mapping[str, float]], key: str) -> float:
    """By how much imagination is better than the last frame."""
    return found["imagined"][key] - found["last_frame_repeated"][key]
