"""The loss curve of two processes beside that of one with the same global batch, through LeRobot's own training loop.

torchrun starts both, on the CPU, as accelerate's DDP. They train the nano preset on a mixture: recorded episodes of the
simulated arm, and the same videos without their actions. Two processes see the samples of one, half each, and draw the
same noise for every sample, so only the order of floating-point sums differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, command_line, options, write_result

EPISODES = 4


def losses_of(processes: int, folder: Path, args: argparse.Namespace) -> list[float]:
    """Train in processes of their own; returns the loss of each step, averaged over the processes."""
    settings = [f"--folder={folder}", f"--steps={args.steps}", f"--seed={args.seed}", f"--threads={args.threads}"]
    launch = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    work = ["-m", "benchmarks.two_processes", f"--batch-size={args.batch_size // processes}", *settings]
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    subprocess.run([sys.executable, "-m", *launch, *work], cwd=ROOT, env=environment, check=True)
    return json.loads((folder / f"losses_{processes}.json").read_text())


def train_here(args: argparse.Namespace) -> None:
    """Train as one of the processes, and write what the losses were."""
    import torch
    from lerobot.scripts import lerobot_train

    import lerobot_wam.plugin  # noqa: F401
    from lerobot_wam.data.recipe import load_recipe
    from lerobot_wam.training.loop import swapped, train

    torch.set_num_threads(args.threads)
    losses: list[float] = []
    update = lerobot_train.update_policy

    def noted(tracker: Any, *rest: Any, accelerator: Any, **named: Any) -> Any:
        result = update(tracker, *rest, accelerator=accelerator, **named)
        loss = torch.tensor(result[0].loss.val)
        losses.append(accelerator.reduce(loss, reduction="mean").item())
        return result

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    flags = ["--policy.type=wam", "--policy.device=cpu", "--policy.push_to_hub=false", f"--seed={args.seed}"]
    flags += [f"--policy.noise_seed={args.seed}", f"--steps={args.steps}", f"--batch_size={args.batch_size}"]
    flags += ["--num_workers=0", "--save_checkpoint=false", "--env_eval_freq=0", "--log_freq=1"]
    flags += [f"--output_dir={args.folder / f'run_{processes}'}"]
    with swapped(lerobot_train, update_policy=noted):
        train(flags, load_recipe(args.folder / "mix.yaml"))
    if os.environ.get("RANK", "0") == "0":
        (args.folder / f"losses_{processes}.json").write_text(json.dumps(losses))


def main(argv: Sequence[str] | None = None) -> None:
    parser = options(__doc__, repetitions=1)
    parser.add_argument("--steps", type=int, default=20, help="default: 20")
    parser.add_argument("--batch-size", type=int, default=8, help="of all processes together (default: 8)")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # given to the processes that are measured
    arguments = sys.argv[1:] if argv is None else list(argv)
    args = parser.parse_args(arguments)
    if args.folder is not None:
        train_here(args)
        return
    from lerobot_wam.sim.episodes import Recipe
    from lerobot_wam.sim.record import record

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record(folder / "arm", EPISODES, Recipe(seed=args.seed))
        entries = [f"{{repo_id: local/arm, root: {folder / 'arm'}, name: {kind}}}" for kind in ("arm", "video")]
        entries[1] = entries[1].replace("}", ", actions: false}")
        (folder / "mix.yaml").write_text("datasets:\n" + "".join(f"  - {entry}\n" for entry in entries))
        one, two = (losses_of(processes, folder, args) for processes in (1, 2))
    differences = [abs(a - b) / a for a, b in zip(one, two, strict=True)]
    metrics = {
        "steps": args.steps,
        "global_batch_size": args.batch_size,
        "threads": args.threads,
        "loss_one_process": one,
        "loss_two_processes": two,
        "relative_difference_first_step": differences[0],
        "relative_difference_max": max(differences),
    }
    print(f"largest relative difference of the losses: {max(differences):.2e} in {args.steps} steps")
    write_result("two_processes", metrics, args.seed, command_line("two_processes", arguments))


if __name__ == "__main__":
    main()
