"""Encode a training's videos once, instead of at every step.

Takes the flags of lerobot-wam train; the same flags find the latents again. They lie beside each dataset, in
latents/NAME, and are used as soon as all datasets of a mixture have them. Latents that no longer fit the dataset, the
cameras or the codec are refused; this command renews them. An interrupted run continues where it was.

A window's latents depend on where it starts. --phases=1 encodes one window a chunk; more phases shift the start, as
training on every frame would, at that many times the size.

examples:
  lerobot-wam cache --mixture=mix.yaml --policy.type=wam --policy.preset=wan2.2-5b --policy.device=cuda --dtype=bfloat16
  lerobot-wam cache --dataset.repo_id=me/arm --policy.path=outputs/base --phases=4 --dry-run
  lerobot-wam cache --mixture=mix.yaml --policy.type=wam --part=0/2     # and --part=1/2 in another process
"""

import argparse
from pathlib import Path

HELP = "encode a training's videos once, for many epochs (flags of lerobot-wam train)"
PASSES_ON = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's own options."""
    parser.add_argument("--mixture", type=Path, metavar="FILE.yaml", help="the datasets, as in lerobot-wam train")
    parser.add_argument("--phases", type=int, default=1, metavar="P", help="window starts in a chunk's time (1)")
    parser.add_argument(
        "--crops",
        type=int,
        default=1,
        metavar="K",
        help="random crops and colours of each window, where it has any (1)",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the latents on disk (float32)"
    )
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that decode videos (0)")
    parser.add_argument("--part", default="0/1", metavar="I/N", help="do the I-th of N equal parts (0/1: all)")
    parser.add_argument("--dry-run", action="store_true", help="print sizes, encode nothing")


def run(args: argparse.Namespace) -> int:
    """Say how much it will be, then encode.

    Raises:
        ValueError: An option or a dataset that does not fit.
    """
    part, parts = _part(args.part)
    if min(args.phases, args.crops) < 1:
        raise ValueError(f"--phases is {args.phases}, --crops is {args.crops}; expected 1 or more")
    import lerobot_wam.plugin  # noqa: F401
    from lerobot_wam.data.recipe import load_recipe
    from lerobot_wam.training.caching import fill_caches, plan_caches

    recipe = None if args.mixture is None else load_recipe(args.mixture)
    config, plans = plan_caches(args.passed_on, recipe, args.phases, args.crops, args.dtype)
    for plan in plans:
        cache = plan.cache
        print(
            f"{plan.source.entry.name}: {cache.windows} windows, {plan.gigabytes:.3f} GB, {cache.dtype}, {cache.folder}"
        )
    print(f"together {sum(plan.gigabytes for plan in plans):.3f} GB")
    if not args.dry_run:
        fill_caches(config, plans, part, parts, args.workers)
    return 0


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise ValueError(f"--part is {text!r}, expected I/N with I from 0 to N - 1, such as 0/2")
    return int(part), int(parts)
