"""One computed denoising step of a closed-loop chunk by the whole wan2.2-5b policy, on the CPU: time and peak memory.

Every part has its full size and random bfloat16 weights, the video autoencoder float32 as policies load it. They are
made in place: a part needs no memory but its own. The order is that of a machine with little memory: the text encoder
is built, encodes the task and the negative prompt and is freed; only then come the network, the video autoencoder and
the image encoder. The robot then acts through one chunk and replans: the second chunk is computed from the cached
window, after what was observed is encoded and written. Each chunk takes one solver step, with guidance, so the network
runs once for the task and once for the negative prompt.

No tokenizer is at hand offline; one made-up id per word stands in for it.
"""

import gc
import sys
import time
from typing import Any

import torch
from lerobot.utils.constants import OBS_STATE

from benchmarks.common import command_line, milliseconds, options, write_result
from lerobot_wam.bench.measure import process_peak
from lerobot_wam.bench.random_policy import random_config, random_policy, random_text_codec
from lerobot_wam.embodiments.spec import load_embodiment

TASK = "put the red cube into the bowl"


def peak_gb() -> float:
    """The most memory that this process has held so far."""
    return process_peak() / 1e9


def main() -> None:
    parser = options(__doc__, repetitions=1)
    args = parser.parse_args()
    if args.device != "cpu":
        parser.error("this measures the CPU")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    metrics: dict[str, Any] = {"gb_peak_imports": peak_gb(), "threads": args.threads}

    config = random_config("wan2.2-5b", "cpu", args.seed, weights_dtype="bfloat16", num_inference_steps=1)
    robot = load_embodiment(config.embodiment)
    started = time.perf_counter()
    codec = random_text_codec(config.text_length, torch.bfloat16, "cpu", args.seed)
    metrics["text_build_s"] = time.perf_counter() - started
    texts = [robot.render_prompt(TASK), config.negative_prompt]
    metrics["text_encode_s"] = milliseconds("cpu", lambda: codec.encode(texts)) / 1000
    codec.release()
    gc.collect()
    metrics["gb_peak_text"] = peak_gb()

    started = time.perf_counter()
    policy = random_policy(config, args.seed)
    metrics["policy_build_s"] = time.perf_counter() - started
    metrics["parameters"] = sum(p.numel() for p in policy.model.parameters())
    seen: dict[str, Any] = {camera.key: torch.rand(1, 3, 180, 320) for camera in robot.cameras}
    seen |= {OBS_STATE: torch.rand(1, len(robot.state)), "task": [TASK]}
    chunk_s = []
    for tick in range(config.chunk_steps + 1):
        took = milliseconds("cpu", lambda: policy.select_action(seen)) / 1000
        if tick % config.chunk_steps == 0:
            chunk_s.append(took)
            print(f"chunk {len(chunk_s)}: {took:.1f} s, peak {peak_gb():.1f} GB", flush=True)
    metrics |= {"first_chunk_s": chunk_s[0], "next_chunk_s": chunk_s[1], "gb_peak": peak_gb()}
    write_result("full_size_step", metrics, args.seed, command_line("full_size_step", sys.argv[1:]))


if __name__ == "__main__":
    main()
