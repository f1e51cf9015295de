"""Measure how fast a policy acts on this machine, stage by stage, and how much of the device it uses.

Robots that see random frames act in closed loop; warm-up is left out. A preset is measured with random weights of full
size, frozen parts included: no download. The share of the roofline compares the network's time with the least one: the
larger of its operations at the rate of a big matrix product and its bytes at that of a big copy, both measured here.

examples:
  lerobot-wam bench
  lerobot-wam bench --preset=wan2.1-14b --device=cuda --speed=flash --passes=graphs --json=bench.json
  lerobot-wam bench --compare=without=remember_context,guidance=5
  lerobot-wam bench --policy.path=outputs/train/checkpoints/last/pretrained_model --speed=fast
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lerobot_wam.bench.run import Setting

HELP = "latency of every stage, rate, memory and share of the device's limits"
ALIASES = {"guidance": "guidance_scale", "dtype": "weights_dtype"}
"""Short names of configuration fields."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--preset", default="nano", metavar="NAME", help="random weights of this size (nano)")
    what.add_argument("--policy.path", dest="path", metavar="DIR", help="or a checkpoint: folder, or id on the Hub")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, mps (an accelerator if there is one)")
    parser.add_argument(
        "--parallel", metavar="MODE", help="cfg, context or cfg+context: behind torchrun, split over its processes"
    )
    setting = parser.add_argument_group("setting; without an option it is the preset's or the checkpoint's")
    setting.add_argument("--dtype", metavar="NAME", help="float32 or bfloat16 weights")
    setting.add_argument("--speed", metavar="NAME", help="exact, official, fast or flash")
    setting.add_argument("--passes", metavar="NAME", help="eager, compile or graphs")
    setting.add_argument("--quantization", metavar="NAME", help="none, fp8, int8 or int4")
    setting.add_argument("--guidance", metavar="X", help="scale of classifier-free guidance; 1 is off")
    setting.add_argument("--without", default="", metavar="SAVING,...", help="compute twice what need not be")
    setting.add_argument("--set", default="", metavar="FIELD=VALUE,...", help="other fields of the configuration")
    setting.add_argument(
        "--compare",
        metavar="NAME=VALUE,...",
        help="measure a second setting in turns with the first, from which it differs in these: names as above, or "
        "without=SAVING",
    )
    amount = parser.add_argument_group("how much")
    amount.add_argument("--chunks", type=int, default=20, metavar="N", help="measured chunks (20)")
    amount.add_argument("--warmup", type=int, metavar="N", help="chunks before them (a window and one)")
    amount.add_argument("--robots", type=int, default=1, metavar="N", help="robots that act in step (1)")
    amount.add_argument("--threads", type=int, metavar="N", help="threads of torch on the CPU (torch's choice)")
    amount.add_argument("--seed", type=int, default=0, metavar="N", help="of weights, noise and frames (0)")
    amount.add_argument(
        "--no-distance", action="store_true", help="do not compute the same chunks in eager float32 for comparison"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it, with device, versions and settings")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write.

    Raises:
        ValueError: Options that do not fit.
        FileNotFoundError: No checkpoint.
    """
    for name in ("chunks", "warmup", "robots", "threads"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ValueError(f"--{name} is {value}, expected 1 or more")
    import torch

    from lerobot_wam.bench.run import Plan, bench
    from lerobot_wam.bench.text import as_text
    from lerobot_wam.runtime.parallel import Parallel

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    words = [f"{n}={v}" for n in ("dtype", "speed", "passes", "quantization", "guidance") if (v := getattr(args, n))]
    words += [f"without={name}" for name in args.without.split(",") if name]
    words += [word for word in args.set.split(",") if word]
    settings = [_setting(words)]
    if args.compare is not None:
        settings.append(_setting([*words, *args.compare.split(",")]))
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    device = args.device or ("cpu" if accelerator is None else accelerator.type)
    parallel = None if args.parallel is None else Parallel.join(args.parallel, torch.device(device))
    result = bench(
        Plan(
            settings=tuple(settings),
            preset=None if args.path else args.preset,
            path=args.path,
            device=device,
            chunks=args.chunks,
            warmup=args.warmup,
            robots=args.robots,
            seed=args.seed,
            compare_exact=not args.no_distance,
            parallel=parallel,
        )
    )
    if parallel is not None and parallel.rank > 0:
        return 0
    print(as_text(result))
    if args.json is not None:
        _write(args.json, result, args.seed)
    return 0


def _setting(words: Sequence[str]) -> "Setting":
    """Read NAME=VALUE words; a later one of a name replaces an earlier one, but savings add up."""
    from lerobot_wam.bench.run import Setting
    from lerobot_wam.checkpoints.importer import parse_settings

    pairs = [(name, value) for name, _, value in (word.partition("=") for word in words)]
    fields = [f"{ALIASES.get(name, name)}={value}" for name, value in pairs if name != "without"]
    return Setting(parse_settings(fields, option=""), tuple(value for name, value in pairs if name == "without"))


def _write(path: Path, result: dict[str, Any], seed: int) -> None:
    from lerobot_wam.report.environment import described, environment

    record = {
        "command": shlex.join(["lerobot-wam", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **described(environment()),
        "seed": seed,
        "metrics": result,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten: {path}")
