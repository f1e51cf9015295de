"""Training the 5B network on cached data: all of its float32 weights, and LoRA on frozen bfloat16 weights."""

import torch

from benchmarks.gpu.frame import Report, arguments, script_name
from benchmarks.gpu.training import measure_training

PRESET = "wan2.2-5b"


def main(words: list[str] | None = None) -> None:
    args = arguments(__doc__, words)
    report = Report(script_name(__file__), args)
    for batch, checkpointing in ((1, True), (8, True), (32, True), (1, False), (8, False)):
        for lora, dtype in ((False, torch.float32), (True, torch.bfloat16)):
            measure_training(report, PRESET, batch, checkpointing, dtype, lora=lora)


if __name__ == "__main__":
    main()
