"""Action error of contestants on recordings of seen tasks that nothing learns from: what their rates are tuned by.

Trains a contestant with the flags that are tried, or takes up a training that is done, and lets it predict a chunk
from the first frame of every held-out episode, where only instruction and picture tell what will come, and from its
fourth. The error is the mean distance from the recorded joint targets in rad, beside that of holding still. No
simulator runs: nothing here is chosen by success.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.policies import get_policy_class, make_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_STATE

from benchmarks.claims.contestants import CHUNK, CONTESTANTS, Data, train
from benchmarks.claims.data import demonstrations, held_out
from benchmarks.claims.scales import SCALES
from benchmarks.common import CAMERA
from lerobot_wam.data.memory import InMemoryDataset

FRAMES = (0, 3)
"""Frames of an episode from which chunks are predicted."""


@torch.no_grad()
def action_errors(policy: Path, root: Path, device: str = "cpu") -> dict[str, dict[str, float]]:
    """Return the error of a policy and that of holding still (rad), by the frame that a chunk is predicted from.

    Args:
        policy: Folder of a checkpoint.
        root: Folder of a recording of one arm with our simulator's camera.
        device: Where it acts.
    """
    kind = json.loads((policy / "config.json").read_text())["type"]
    loaded = get_policy_class(kind).from_pretrained(policy).to(device).eval()
    before, after = make_pre_post_processors(
        loaded.config, str(policy), preprocessor_overrides={"device_processor": {"device": device}}
    )
    fps = LeRobotDatasetMetadata(f"local/{root.name}", root=root).fps
    offsets = [step / fps for step in range(CHUNK)]
    dataset = InMemoryDataset(LeRobotDataset(f"local/{root.name}", root=root, delta_timestamps={ACTION: offsets}))
    errors = {}
    for frame in FRAMES:
        starts = (dataset.column("frame_index") == frame).nonzero().flatten().tolist()
        batch = torch.utils.data.default_collate([dataset[start] for start in starts])
        loaded.reset()
        seen = {key: batch[key] for key in (CAMERA, OBS_STATE, "task")}
        # The same observation at every step: what is executed is the chunk from the first.
        predicted = torch.stack([after(loaded.select_action(before(dict(seen)))) for _ in range(CHUNK)], dim=1)
        real_BH = ~batch[f"{ACTION}_is_pad"]
        errors[f"frame_{frame}"] = {
            name: float((guess - batch[ACTION]).abs().mean(-1)[real_BH].mean())
            for name, guess in (("policy", predicted), ("hold_still", batch[OBS_STATE][:, None]))
        }
    return errors


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, required=True, help="whose recordings and batches")
    parser.add_argument("--contestant", choices=CONTESTANTS, required=True)
    parser.add_argument("--prior", type=Path, help="checkpoint to begin as, for those that do")
    parser.add_argument("--labels", type=int, default=20, help="demonstrations of each seen task (default: 20)")
    parser.add_argument("--steps", type=int, required=True, help="optimizer steps")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--folder", type=Path, required=True, help="where the training goes")
    parser.add_argument("flags", nargs="*", help="further flags of lerobot-train, after --")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    scale = SCALES[args.scale]
    policy = train(
        CONTESTANTS[args.contestant],
        Data(*demonstrations(scale, args.labels)),
        steps=args.steps,
        batch_size=scale.batch_size,
        seed=args.seed,
        folder=args.folder,
        device=scale.device,
        prior=args.prior,
        flags=args.flags,
    )
    for frame, found in action_errors(policy, held_out(scale, scale.seen, scale.looks), scale.device).items():
        print(f"{frame}: {found['policy']:.4f} rad, holding still {found['hold_still']:.4f}")


if __name__ == "__main__":
    main()
