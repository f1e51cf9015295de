"""Peak memory of training steps beside what `lerobot-wam doctor` computes, on the CPU.

The network has nano's parts at a width at which its weights outweigh what Python holds, and one window of 64x64 pixels.
Everything, LoRA and the robots' parts are trained by AdamW in float32, each in a process of its own; its memory counts
from before the policy is built to the end of the second step.
"""

import multiprocessing
import resource
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
from lerobot.configs.default import PeftConfig

from benchmarks.common import ARM, command_line, nano_policy, options, write_result
from benchmarks.step_cost import random_batch, train_step
from lerobot_wam.doctor.memory import LORA_RANK, geometry, memory

SIZES: dict[str, Any] = {"dim": 768, "num_heads": 12, "num_layers": 8, "ffn_dim": 3072}
PLAIN: dict[str, Any] = {"ema_decay": 0.0, "optimizer": "adamw"}
MODES = ("full", "lora", "heads")


def held() -> int:
    """The most bytes that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(mode: str, seed: int, answer: Connection) -> None:
    """Train two steps; send the bytes that it took and the bytes that are computed."""
    before = held()
    policy: Any = nano_policy("cpu", seed, trainable="heads" if mode == "heads" else "all", **SIZES, **PLAIN)
    config, total = policy.config, sum(p.numel() for p in policy.parameters())
    robots = sum(p.numel() for name, p in policy.named_parameters() if "coder." in name or "posture" in name)
    robots += sum(p.numel() for name, p in policy.named_parameters() if "bc_head." in name)
    need = memory(config, geometry(config, ARM), total, robots, frozen=0)[mode]
    batch = random_batch(policy, 1, "cpu", torch.Generator().manual_seed(seed))
    if mode == "lora":
        config.pretrained_path = "nano"
        policy = policy.wrap_with_peft(peft_cli_overrides=vars(PeftConfig(r=LORA_RANK)))
    optimizer = config.get_optimizer_preset().build([p for p in policy.parameters() if p.requires_grad])
    for _ in range(2):
        train_step(policy, optimizer, batch)
    answer.send((held() - before, sum(need[part] for part in ("weights", "states", "activations"))))


def main(argv: Sequence[str] | None = None) -> None:
    parser = options(__doc__, repetitions=1)
    arguments = sys.argv[1:] if argv is None else list(argv)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    metrics: dict[str, Any] = {"sizes": SIZES}
    for mode in MODES:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=measure, args=(mode, args.seed, sender))
        process.start()
        sender.close()
        measured, computed = receiver.recv()
        process.join()
        metrics[mode] = {
            "gb_measured": measured / 1e9,
            "gb_computed": computed / 1e9,
            "measured_over_computed": measured / computed,
        }
        print(mode, metrics[mode], flush=True)
    write_result("training_memory", metrics, args.seed, command_line("training_memory", arguments))


if __name__ == "__main__":
    main()
