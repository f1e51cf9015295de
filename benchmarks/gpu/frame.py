"""What the numbered scripts share: options, sizes of full and of tiny models, and a result that is written as it grows.

Needs torch and this repository's `src` on the path. LeRobot is not needed, nor is the network; without diffusers or
transformers the part that needs them is left out, and the result says so.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import common
from lerobot_wam.bench.random_weights import filled
from lerobot_wam.model.config import ModelConfig, VisualSummaryConfig
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.presets import PRESETS

FRAME_SIZES = {"wan2.1-14b": (352, 640), "wan2.2-5b": (160, 320), "nano": (64, 64)}
"""Height and width of the tiled views of DROID's three cameras, and of nano's one camera."""
TINY = {"dim": 32, "num_heads": 2, "num_layers": 2, "ffn_dim": 32, "freq_dim": 16, "action_hidden": 16}
TINY_SIZE, TINY_TEXT, TINY_IMAGE = (32, 64), 16, 24
# What torch, its compiler and the optional libraries raise where a device or a version cannot do something.
FAILURES = (RuntimeError, ImportError, ValueError, TypeError, AttributeError, AssertionError, KeyError)


@dataclass
class Report:
    """A result that grows while the script runs: each part is printed and written as soon as it is known.

    Attributes:
        name: The script's.
        args: What `arguments` gave.
        metrics: Names with units to JSON values.
    """

    name: str
    args: argparse.Namespace
    metrics: dict[str, Any] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)
    _commit: str = field(default_factory=common.current_commit)

    def __post_init__(self) -> None:
        last = common.RESULTS / f"gpu_{self.name}.json"
        if self.args.add and last.is_file():
            self.metrics = json.loads(last.read_text())["metrics"]

    def attempt(self, part: str, work: Callable[[], dict[str, Any]]) -> None:
        """Measure a part; where it fails, or the time is up, the result says so and the script goes on."""
        spent = time.monotonic() - self._started
        if spent > self.args.seconds:
            found = {"not_reached": f"the script's {self.args.seconds:.0f} s were up"}
        else:
            try:
                found = work()
            except FAILURES as error:
                found = {"failed": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"}
        gc.collect()  # what a failed part held is freed once its exception is gone
        if self.args.device == "cuda":
            torch.cuda.empty_cache()
        self.add(part, found)

    def add(self, part: str, found: Any) -> None:
        """Take a part's numbers."""
        self.metrics[part] = found
        print(f"[{time.monotonic() - self._started:6.1f} s] {part}: {_short(found)}", flush=True)
        command = "PYTHONPATH=src " + common.command_line(f"gpu.{self.name}", self.args.words)
        metrics = self.metrics | {"tiny": self.args.tiny}
        common.write_result(f"gpu_{self.name}", metrics, self.args.seed, command, commit=self._commit)


def arguments(description: str | None, words: list[str] | None, speeds: Sequence[str] = ()) -> argparse.Namespace:
    """Parse the options that every script has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="default: cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes for a dry run of seconds; its numbers mean nothing")
    parser.add_argument("--seconds", type=float, default=480, help="begin nothing after these (default: 480)")
    parser.add_argument("--repetitions", type=int, default=8, help="measured chunks or steps (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and inputs (default: 0)")
    parser.add_argument("--add", action="store_true", help="keep what the last run measured and this one does not")
    if speeds:
        parser.add_argument("--speeds", nargs="+", choices=speeds, default=speeds, help="default: all")
    args = parser.parse_args(words)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here; a dry run is --device=cpu --tiny")
    args.words = sys.argv[1:] if words is None else words
    torch.manual_seed(args.seed)
    return args


def script_name(file: str) -> str:
    """Name of a numbered script's result."""
    return Path(file).stem


def model_config(preset: str, tiny: bool, **changes: Any) -> ModelConfig:
    """Sizes of a preset's network, as its policy has them."""
    found = PRESETS[preset]
    sizes = {name: found[name] for name in TINY} | {name: found[name] for name in _TAKEN}
    if tiny:
        sizes |= TINY | {"text_dim": TINY_TEXT}
    image = TINY_IMAGE if tiny else found["image_dim"]
    return ModelConfig(
        **(
            sizes
            | {
                "patch": (1, found["patch_size"], found["patch_size"]),
                "image_dim": image if found["image_dim"] else None,
                "actions_per_chunk": found["chunk_steps"],
                "visual_summary": VisualSummaryConfig() if found["visual_summary"] else None,
                "auxiliary_bc": found["auxiliary_bc_weight"] > 0,
            }
            | changes
        )
    )


def frame_size(preset: str, tiny: bool) -> tuple[int, int]:
    """Height and width of what the video codec reads."""
    return TINY_SIZE if tiny and preset != "nano" else FRAME_SIZES[preset]


def random_model(config: ModelConfig, args: argparse.Namespace, dtype: torch.dtype) -> WorldActionModel:
    """A network with random weights, made on the device."""
    with torch.device("meta"):
        model = WorldActionModel(config)
    made: WorldActionModel = filled(model, dtype, torch.device(args.device), args.seed)
    return made


def peak_gb(args: argparse.Namespace) -> float | None:
    """Most memory that torch held on the device since this was last asked; None on the CPU."""
    if args.device == "cpu":
        return None
    peak = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return peak


def _short(found: Any) -> str:
    if isinstance(found, dict):
        return ", ".join(f"{key} {_short(value)}" for key, value in found.items() if not isinstance(value, dict | list))
    return f"{found:.4g}" if isinstance(found, float) else str(found)


_TAKEN = (
    *("text_dim", "latent_channels", "condition_channels", "action_dim", "state_dim", "max_chunks"),
    *("state_self_only", "absolute_positions"),
)
