"""Turn somebody else's checkpoint into a policy folder for --policy.path.

Reads official DreamZero checkpoints, LoRA fine-tunes of them (merged onto their base), and the video models they start
from: Wan2.1-I2V-14B and Wan2.2-TI2V-5B, in the original or diffusers' layout. Works shard by shard in a few GB of
memory; interrupted, the same command goes on where it stopped. manifest.json then holds the sha256 of every file.

examples:
  lerobot-wam import GEAR-Dreams/DreamZero-DROID --out checkpoints/droid --prompt-template droid_prompt.yaml
  lerobot-wam import my_finetune --base checkpoints/DreamZero-AgiBot --out checkpoints/mine
  lerobot-wam import Wan-AI/Wan2.2-TI2V-5B-Diffusers --out checkpoints/wan5b
"""

import argparse
import logging
from pathlib import Path

HELP = "official DreamZero checkpoints, their LoRA fine-tunes and Wan video models, as policies"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("source", metavar="SOURCE", help="folder, or REPO[@REVISION] on the Hub")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write the policy")
    parser.add_argument("--base", metavar="SOURCE", help="what a LoRA fine-tune was trained on")
    parser.add_argument(
        "--prompt-template",
        type=Path,
        metavar="FILE",
        help="YAML file with the wording that the checkpoint was trained with: `embodiment: text with {task}`",
    )
    parser.add_argument(
        "--embed-components",
        action="store_true",
        help="copy the checkpoint's own VAE, text and image encoder (up to 13 GB) instead of naming published ones",
    )
    parser.add_argument(
        "--tokenizer",
        default="google/umt5-xxl",
        metavar="SOURCE",
        help="with --embed-components: the text encoder's tokenizer, where SOURCE has none (google/umt5-xxl)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="FIELD=VALUE",
        help="a field of the policy's configuration, such as compat=official; may be given several times",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of weights that SOURCE does not have (0)"
    )


def run(args: argparse.Namespace) -> int:
    """Import, and say what can be done with the result."""
    from lerobot_wam.checkpoints.importer import import_checkpoint, parse_settings

    logging.basicConfig(format="%(message)s", force=True)
    logging.getLogger("lerobot_wam.checkpoints").setLevel(logging.INFO)
    config = import_checkpoint(
        args.source,
        args.out,
        base=args.base,
        prompt_template=args.prompt_template,
        settings=parse_settings(args.settings),
        embed_components=args.embed_components,
        tokenizer=args.tokenizer,
        seed=args.seed,
    )
    print(f"wrote {args.out}: preset {config.preset}, {', '.join(config.embodiments) or 'no robot yet'}")
    print(f"next: lerobot-train --policy.path={args.out} --dataset.repo_id=...")
    return 0
