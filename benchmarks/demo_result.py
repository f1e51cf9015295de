"""Publish a finished demonstration: its results.json becomes benchmarks/results/nano_demo_<arm>.json."""

import argparse
import json
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.common import current_commit, write_result

WRITTEN_BY_THE_DEMO = ("results.json", "timings.json", "report.html")


def read_demo(folder: Path) -> dict[str, Any]:
    """Read what the demonstration in `folder` found.

    Raises:
        ValueError: It is not finished, or it was a quick run.
    """
    missing = [name for name in WRITTEN_BY_THE_DEMO if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder} has no {', '.join(missing)}: finish it with lerobot-wam demo --out={folder}")
    results = json.loads((folder / "results.json").read_text())
    if results["metrics"]["plan"]["quick"]:
        raise ValueError(f"{folder} is a quick run, which claims nothing: run lerobot-wam demo without --quick")
    return results


def publish(folder: Path, commit: str) -> Path:
    """Write the result of the demonstration in `folder`, made by the code of `commit`."""
    results = read_demo(folder)
    plan = results["metrics"]["plan"]
    command = ["lerobot-wam", "demo", *(f"--{key}={plan[key]}" for key in ("arm", "episodes", "steps", "seed"))]
    # Where it lay is nobody's business; all else of the plan is part of the result.
    metrics = results["metrics"] | {"plan": {key: value for key, value in plan.items() if key != "folder"}}
    return write_result(
        f"nano_demo_{plan['arm']}",
        metrics,
        results["seed"],
        shlex.join(command),
        measured_on=results["environment"],
        date=datetime.fromtimestamp((folder / "results.json").stat().st_mtime, UTC),
        commit=commit,
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("outputs/demo"), help="its folder (default: outputs/demo)")
    parser.add_argument("--commit", help="of the code that ran it (default: the checkout's)")
    args = parser.parse_args(argv)
    try:
        publish(args.demo, args.commit or current_commit())
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
