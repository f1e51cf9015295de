"""Learn how far reality usually is from what a policy dreams, so that it can tell when it is surprised.

Replays successful episodes that it was not trained on through its closed loop, and writes the threshold into the
checkpoint's config.json. A calibrated policy says how surprised it is (1 is the threshold), and --policy.on_surprise
says what follows.

examples:
  lerobot-wam calibrate --policy.path=outputs/demo/train/checkpoints/last/pretrained_model \\
      --dataset.root=outputs/runs
  lerobot-wam calibrate --policy.path=... --dataset.repo_id=me/runs --episodes=90:120 --quantile=0.99
"""

import argparse
from pathlib import Path

HELP = "what a policy's dreams usually miss by, from held-out episodes: the threshold of surprise"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument(
        "--policy.path", dest="policy_path", type=Path, required=True, metavar="DIR", help="checkpoint folder"
    )
    parser.add_argument(
        "--policy.embodiment", dest="embodiment", metavar="NAME", help="robot, of a checkpoint with several"
    )
    parser.add_argument("--dataset.root", dest="root", type=Path, metavar="DIR", help="folder of a LeRobotDataset")
    parser.add_argument("--dataset.repo_id", dest="repo_id", metavar="ID", help="or its id on the Hub")
    parser.add_argument(
        "--episodes", type=_span, metavar="A:B", help="episodes A to B - 1 (all); none that the policy was trained on"
    )
    parser.add_argument(
        "--quantile", type=float, default=0.98, metavar="Q", help="share of usual latent frames below it (0.98)"
    )


def run(args: argparse.Namespace) -> int:
    """Calibrate, store and say what was found.

    Raises:
        FileNotFoundError: There is no checkpoint or dataset.
        ValueError: The dataset does not fit or is too small, or an option is out of range.
    """
    if not (args.policy_path / "config.json").is_file():
        raise FileNotFoundError(f"no checkpoint at {args.policy_path}: expected a folder with config.json")
    if not 0 < args.quantile < 1:
        raise ValueError(f"--quantile is {args.quantile}, expected a share between 0 and 1")
    from lerobot_wam.modeling_wam import WAMPolicy
    from lerobot_wam.report.surprise import calibrate, store

    policy = WAMPolicy.from_pretrained(args.policy_path)
    names = list(policy.config.embodiments)
    if args.embodiment is not None:
        if args.embodiment not in names:
            raise ValueError(f"--policy.embodiment is {args.embodiment!r}; this checkpoint knows {', '.join(names)}")
        policy.reader.category = names.index(args.embodiment)
    calibration = calibrate(policy, args.quantile, args.repo_id, args.root, args.episodes)
    store(calibration, args.policy_path, names[policy.category])
    compared = ", ".join(map(str, calibration.latents))
    print(
        f"\n{calibration.source}: {compared} latent frames compared, by their place in the chunk\n"
        f"threshold at the {args.quantile:g} quantile: {', '.join(f'{value:.3g}' for value in calibration.threshold)}\n"
        f"wrote {args.policy_path / 'config.json'}"
    )
    return 0


def _span(text: str) -> range:
    first, _, last = text.partition(":")
    return range(int(first), int(last))
