"""How far recorded reality is from a policy's dreams of it: what surprise is calibrated on."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lerobot_wam.embodiments.spec import LATENTS_PER_CHUNK
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.report.clips import open_episodes, read_clip
from lerobot_wam.runtime.configured import dream_settings
from lerobot_wam.runtime.state import Observation
from lerobot_wam.runtime.surprise import Calibration, Recorder

_WINDOWS = 4
"""A long episode is replayed in stretches of this many windows, so that few of its frames are held at once."""


@torch.no_grad()
def calibrate(
    policy: WAMPolicy,
    quantile: float,
    repo_id: str | None = None,
    root: Path | None = None,
    episodes: Sequence[int] | None = None,
) -> Calibration:
    """Replay recorded episodes through a policy's closed loop and learn what its dreams usually miss by.

    The policy sees the recorded frames and states and dreams as it would on the robot; the recorded actions happen.

    Args:
        policy: Its acting embodiment is calibrated.
        quantile: Share of latent frames that are to lie within the threshold, between 0 and 1.
        repo_id: Hub id of a LeRobotDataset that the policy was not trained on; with a root, only a name.
        root: Folder of a local one.
        episodes: Which episodes; None takes all.

    Raises:
        ValueError: The dataset does not fit, or is too small for the quantile; or the policy's windows start on
            another frame than the newest.
    """
    config = policy.config
    if config.restart_frame != "newest":
        raise ValueError(
            f"restart_frame is {config.restart_frame}: its dreams do not begin at the newest frame, so nothing "
            "that is seen can be compared with them; take a policy with restart_frame=newest"
        )
    policy.eval()
    runtime, spec = policy.runtime, policy.action_spaces[policy.category].spec
    runtime.watching = recorder = Recorder(tuple[list[Tensor], ...]([] for _ in range(LATENTS_PER_CHUNK)))
    chunks = _WINDOWS * config.max_chunks
    dataset = open_episodes(policy, repo_id, root, chunks, episodes)
    chosen = range(dataset.meta.total_episodes) if episodes is None else episodes
    for episode in tqdm(chosen, desc="held-out episodes", unit="episode"):
        record = dataset.meta.episodes[episode]
        length = int(record["dataset_to_index"]) - int(record["dataset_from_index"])
        for start in range(0, length, chunks * config.chunk_steps):
            clip = read_clip(policy, dataset, episode, start)
            session, prompt = runtime.new_session(config.seed, policy.category), spec.render_prompt(clip.task)
            for frame, state in zip(clip.frames, clip.states, strict=True):
                for _ in range(config.video_stride):  # between two frames that it sees, the loop only counts
                    runtime.act([session], [Observation(frame, state, prompt)])
    policy.codecs.rest()
    source = f"{dataset.repo_id}, {len(chosen)} episodes, {spec.name}"
    return Calibration.fit(recorder.errors, quantile, source, dream_settings(config))


def store(calibration: Calibration, checkpoint: Path, embodiment: str) -> None:
    """Write a calibration into a checkpoint's config.json; the rest of it stays as it is."""
    file = checkpoint / "config.json"
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    config["surprise"] = {**config.get("surprise", {}), embodiment: vars(calibration)}
    written = file.with_suffix(".json.part")
    written.write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")
    os.replace(written, file)
