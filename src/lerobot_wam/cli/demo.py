"""Record, train, evaluate and report on the simulated tabletop, on a laptop CPU.

Writes OUT/report.html and OUT/results.json. Every step runs LeRobot's own commands in this process; an interrupted run
continues where it stopped.
"""

import argparse
import os
from pathlib import Path

from lerobot_wam.demo.plan import DemoPlan
from lerobot_wam.sim.arms import ARMS

HELP = "the whole loop in one command: record, train, dream, act, report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"), help="folder (default: outputs/demo)")
    parser.add_argument("--arm", default="viperx", help=f"{', '.join(ARMS)} (default: viperx)")
    parser.add_argument("--episodes", type=int, help=f"episodes to record (default: {DemoPlan.episodes})")
    parser.add_argument("--steps", type=int, help=f"training steps (default: {DemoPlan.steps})")
    parser.add_argument("--seed", type=int, default=0, help="seed of recording and training (default: 0)")
    parser.add_argument("--quick", action="store_true", help="3 minutes, to see every step work; claims no success")


def run(args: argparse.Namespace) -> int:
    """Run the demonstration."""
    plan = DemoPlan(args.out, args.arm, seed=args.seed, workers=os.cpu_count() or 1)
    plan = plan.shortened() if args.quick else plan
    plan = plan.resized(args.episodes, args.steps)
    print(
        f"{plan.arm}: record {plan.episodes} episodes, train {plan.steps} steps, evaluate, dream; in {plan.folder}\n"
        "loading LeRobot ...",
        flush=True,
    )
    from lerobot_wam.demo.run import run_demo

    report = run_demo(plan)
    print(f"\nreport: {report}")
    return 0
