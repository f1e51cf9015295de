"""Training LoRA on the 14B network's frozen bfloat16 weights, on cached data: no encoder is on the device."""

import torch

from benchmarks.gpu.frame import Report, arguments, script_name
from benchmarks.gpu.training import measure_training

PRESET = "wan2.1-14b"


def main(words: list[str] | None = None) -> None:
    args = arguments(__doc__, words)
    report = Report(script_name(__file__), args)
    for batch, checkpointing in ((1, True), (2, True), (4, True), (1, False)):
        measure_training(report, PRESET, batch, checkpointing, torch.bfloat16, lora=True)


if __name__ == "__main__":
    main()
