"""What the closed loop does not compute twice: time of every such saving, and that it changes nothing.

The nano preset at the start of training, its weights moved so that every path carries something, acts in closed loop:
without guidance, with it, and with it for actions alone. Then with the parts that only large models have, an image
branch and first-frame channels. In each case one loop has all savings, one each lacks a single one, and one has none;
they take turns. Ratios are the time of a chunk with all savings over that without the one (or any), with the 95 %
bootstrap interval over turns; below 1 the saving pays. Differences are the largest of any action (in physical units)
or latent from the loop without savings, over a whole window and the next one's first chunk.
"""

import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from benchmarks.common import SIZE, command_line, nano_policy, options, result_name, write_result
from lerobot_wam.bench.measure import Loop, measure, percentiles, time_ratio
from lerobot_wam.codecs.image import ClipImageCodec
from lerobot_wam.runtime.state import Savings
from lerobot_wam.terminal import table

SAVINGS = [field.name for field in fields(Savings)]
GUIDED = {"guidance_scale": 5.0, "negative_prompt": "blurry"}
CASES: dict[str, dict[str, Any]] = {
    "nano": {},
    "guidance": GUIDED,
    "guidance, actions alone": GUIDED | {"action_only": True},
    "image branch, first-frame channels, guidance": GUIDED
    | {"image_codec": "clip", "image_dim": 32, "condition_channels": 100},
}
CLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TOLERANCE = 1e-5


def make_loop(device: str, seed: int, savings: Savings, case: str) -> Loop:
    """A warmed-up loop that has seen a whole window and the next one's first chunk."""
    policy = nano_policy(device, seed, ema_decay=0.0, **CASES[case]).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # a fresh model's last layers are near zero, which hides what happens before them
        for parameter in policy.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator).to(device)
    if policy.config.image_codec == "clip":
        torch.manual_seed(seed)
        vision = CLIPVisionConfig.from_dict(CLIP | {"image_size": 32, "patch_size": 8})
        policy.codecs.image = ClipImageCodec(CLIPVisionModel(vision))
    policy.savings = savings
    chunks = policy.config.max_chunks + 1
    loop = Loop(policy.runtime, (SIZE, SIZE), policy.category, 1, seed, compared=chunks)
    for _ in range(chunks):
        loop.chunk()
    return loop


def largest_difference(loop: Loop, plain: Loop) -> float:
    pairs = [
        (ours, theirs)
        for chunk, other in zip(loop.first, plain.first, strict=True)
        for ours, theirs in zip(chunk, other, strict=True)
        if ours is not None and theirs is not None
    ]
    return max(float((ours - theirs).abs().max()) for ours, theirs in pairs)


def measure_case(device: str, seed: int, repetitions: int, case: str) -> dict[str, dict[str, float]]:
    variants = {"all": Savings(), "none": Savings.none()}
    variants |= {name: replace(Savings(), **{name: False}) for name in SAVINGS}
    loops = {name: make_loop(device, seed, savings, case) for name, savings in variants.items()}
    measure(list(loops.values()), repetitions)
    return {name: compared(loop, loops["all"], loops["none"], seed) for name, loop in loops.items()}


def compared(loop: Loop, every: Loop, plain: Loop, seed: int) -> dict[str, float]:
    """A loop's times beside those with all savings, and how far its results are from those without any."""
    chunk, reaction = (percentiles(loop.seconds[stage]) for stage in ("chunk", "reaction"))
    ratio, reaction_ratio = (
        time_ratio(loop.seconds[stage], every.seconds[stage], seed) for stage in ("chunk", "reaction")
    )
    return {
        "chunk_ms_p50": chunk["p50"],
        "chunk_ms_p95": chunk["p95"],
        "reaction_ms_p50": reaction["p50"],
        "all_over_this": ratio["ratio"],
        "low_95": ratio["low_95"],
        "high_95": ratio["high_95"],
        "reaction_all_over_this": reaction_ratio["ratio"],
        "max_abs_difference": largest_difference(loop, plain),
    }


def print_case(case: str, found: dict[str, dict[str, float]]) -> None:
    rows: list[tuple[str, ...]] = [(case, "ms a chunk", "p95", "all / this", "95 % interval", "reaction", "difference")]
    for name, one in found.items():
        cells = [f"{one['chunk_ms_p50']:.3g}", f"{one['chunk_ms_p95']:.3g}", f"{one['all_over_this']:.2f}"]
        cells += [f"{one['low_95']:.2f} to {one['high_95']:.2f}", f"{one['reaction_all_over_this']:.2f}"]
        label = {"all": "all savings", "none": "none"}.get(name, f"without {name}")
        rows.append((label, *cells, f"{one['max_abs_difference']:.0e}"))
    print("\n" + "\n".join(table(rows, "<>>>>>>")), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = options(__doc__, repetitions=40).parse_args(arguments)
    torch.set_num_threads(args.threads)
    metrics: dict[str, Any] = {"device": args.device, "threads": args.threads, "repetitions": args.repetitions}
    for case in CASES:
        found = metrics[case] = measure_case(args.device, args.seed, args.repetitions, case)
        print_case(case, found)
        difference = max(one["max_abs_difference"] for one in found.values())
        if difference > TOLERANCE:
            raise SystemExit(f"{case}: results differ by {difference:.1e}, more than {TOLERANCE:.0e}")
    write_result(result_name("lossless", args.device), metrics, args.seed, command_line("lossless", arguments))


if __name__ == "__main__":
    main()
