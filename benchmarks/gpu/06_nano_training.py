"""Training throughput of nano, and of a network of its kind with some twenty times its weights, by batch size."""

from typing import Any

import torch

from benchmarks.gpu.frame import Report, arguments, script_name
from benchmarks.gpu.training import measure_training

SMALL = {"dim": 384, "num_heads": 6, "num_layers": 12, "ffn_dim": 1536}


def main(words: list[str] | None = None) -> None:
    args = arguments(__doc__, words)
    report = Report(script_name(__file__), args)
    networks: dict[str, dict[str, Any]] = {"nano": {}, "small": {} if args.tiny else SMALL}
    for name, sizes in networks.items():
        for batch in (4,) if args.tiny else (32, 128, 512, 2048):
            measure_training(report, "nano", batch, False, torch.float32, name=name, **sizes)


if __name__ == "__main__":
    main()
