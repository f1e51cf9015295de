"""What the benchmarks share: options, the policy they measure, a stopwatch, and the file that a result goes to.

It imports without LeRobot: the scripts in `gpu/` run where that is not installed.
"""

import argparse
import json
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lerobot_wam.embodiments.spec import load_embodiment
from lerobot_wam.report.environment import described, environment

if TYPE_CHECKING:
    from lerobot_wam.modeling_wam import WAMPolicy

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"

ARM = load_embodiment("wam_sim_viperx")
JOINTS, SIZE, CAMERA, TASK = len(ARM.action), 64, "observation.images.front", "push the red cube left"


def features() -> dict[str, Any]:
    """Fields of a LeRobot policy's configuration: the arm's joints and one camera."""
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.utils.constants import ACTION, OBS_STATE

    joints = (JOINTS,)
    return {
        "input_features": {
            CAMERA: PolicyFeature(FeatureType.VISUAL, (3, SIZE, SIZE)),
            OBS_STATE: PolicyFeature(FeatureType.STATE, joints),
        },
        "output_features": {ACTION: PolicyFeature(FeatureType.ACTION, joints)},
    }


def options(description: str | None, repetitions: int) -> argparse.ArgumentParser:
    """The options that every measurement has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    parser.add_argument("--device", default="cpu", choices=devices, help="default: cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on the CPU (default: 1)")
    parser.add_argument("--repetitions", type=int, default=repetitions, help=f"default: {repetitions}")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and random inputs (default: 0)")
    return parser


def nano_policy(device: str, seed: int, **overrides: Any) -> "WAMPolicy":
    """The nano preset for the simulated ViperX with one 64x64 camera, as it is at the start of training.

    Weights, and the recording that the action ranges come from, are random: no dataset is read.
    """
    from lerobot_wam.bench.random_policy import random_config
    from lerobot_wam.modeling_wam import WAMPolicy

    torch.manual_seed(seed)
    return WAMPolicy(random_config("nano", device, seed, **({"ema_decay": None} | features() | overrides))).to(device)


def milliseconds(device: str, work: Callable[[], object]) -> float:
    """Wall time of `work`, whatever it queued on the device included."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - started)


def result_name(name: str, device: str) -> str:
    """Name of a result: that of the script, and of the device where it is not the CPU."""
    return name if device == "cpu" else f"{name}_{device}"


def command_line(script: str, arguments: Sequence[str]) -> str:
    """The command that repeats a run, typed at the root of the repository."""
    return shlex.join(["python", "-m", f"benchmarks.{script}", *arguments])


def current_commit() -> str:
    """Short hash of the checkout, with -dirty where it has changes other than results."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changes = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if changes else "")
    except (OSError, subprocess.CalledProcessError):  # a copy without its history
        return "unknown"


def write_result(
    name: str,
    metrics: Mapping[str, Any],
    seed: int | Sequence[int],
    command: str,
    *,
    measured_on: Mapping[str, str] | None = None,
    date: datetime | None = None,
    commit: str | None = None,
) -> Path:
    """Write benchmarks/results/<name>.json and return its path.

    Args:
        name: File name without its ending; slashes make folders.
        metrics: Names with units to JSON values.
        seed: Seed of the run, or seeds.
        command: What repeats it.
        measured_on: What `environment()` said where it was measured; None for here.
        date: When it was measured; None for now.
        commit: Of the code that was measured; None for the checkout's.
    """
    result = {
        "command": command,
        "date": (date or datetime.now(UTC)).isoformat(timespec="seconds"),
        "commit": commit or current_commit(),
        **described(environment() if measured_on is None else measured_on),
        "seed": seed,
        "metrics": metrics,
    }
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwritten: {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")
    return path
