"""What the device can do at best: matrix products in bfloat16 and FP8, copies, and the versions of what runs on it.

The other scripts' fractions of the roofline are of these limits, which they measure again for themselves.
"""

import importlib.util
from functools import partial

import torch

from benchmarks.gpu.frame import Report, arguments, script_name
from lerobot_wam.bench.roofline import measure_roofline

LIBRARIES = ("diffusers", "transformers", "torchao", "peft", "lerobot", "triton")


def main(words: list[str] | None = None) -> None:
    args = arguments(__doc__, words)
    device, report = torch.device(args.device), Report(script_name(__file__), args)
    report.add("libraries", {name: importlib.util.find_spec(name) is not None for name in LIBRARIES})
    report.add("cuda", {"version": torch.version.cuda, "cudnn": torch.backends.cudnn.version()})
    if args.device == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found = {"name": properties.name, "gb": properties.total_memory / 1e9}
        report.add("device", found | {"compute_capability": f"{properties.major}.{properties.minor}"})

    def limits(dtype: torch.dtype) -> dict[str, float]:
        roofline = measure_roofline(device, dtype)
        return {"tflop_per_s": roofline.flops / 1e12, "copy_tb_per_s": roofline.bandwidth / 1e12}

    for dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float32):
        report.attempt(str(dtype).removeprefix("torch."), partial(limits, dtype))


if __name__ == "__main__":
    main()
