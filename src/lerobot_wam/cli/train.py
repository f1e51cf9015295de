"""Train on datasets of several robots, with or without actions.

Takes every flag of lerobot-train. The mixture is a YAML file:

  datasets:
    - {repo_id: me/so101_tasks, weight: 2}
    - {repo_id: me/koch_play, text: "play: {task}", cameras: {observation.images.front: observation.images.webcam}}
    - {repo_id: local/humans, root: outputs/humans, actions: false}

Without --mixture it trains on the one dataset of --dataset.repo_id, through the same loader: windows by time and cached
latents. An interrupted run continues like one of lerobot-train, with --config_path and --resume=true.

example:
  lerobot-wam train --mixture=mix.yaml --policy.type=wam --policy.push_to_hub=false --output_dir=outputs/mix \\
      --steps=2000
"""

import argparse
from pathlib import Path

HELP = "train on datasets of several robots (every flag of lerobot-train)"
PASSES_ON = True
"""Flags that are not ours are lerobot-train's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's own options."""
    parser.add_argument("--mixture", type=Path, metavar="FILE.yaml", help="the datasets, see above")


def run(args: argparse.Namespace) -> int:
    """Train."""
    import lerobot_wam.plugin  # noqa: F401  (LeRobot's own programs register plugins before they parse)
    from lerobot_wam.data.recipe import load_recipe
    from lerobot_wam.training.loop import train

    train(args.passed_on, None if args.mixture is None else load_recipe(args.mixture))
    return 0
