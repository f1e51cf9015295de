"""A measurement as a table for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from lerobot_wam.terminal import table, wrapped

STAGES = {
    "reaction": "reaction: last frame to first action",
    "chunk": "chunk: all that its steps compute",
    "vae": "  video encoder",
    "text": "  text encoder, once a task",
    "image": "  image encoder, once a window",
    "observe": "  observation pass",
    "denoise": "  denoising passes and solver",
    "decode": "imagined video to pixels",
}


def as_text(result: Mapping[str, Any]) -> str:
    """Render what `bench` returned."""
    measured = result["measured"]
    robots = f"{result['robots']} robot{'s' * (result['robots'] != 1)} in step"
    shared = f" ({result['parallel']})" if result["parallel"] else ""
    lines = [f"{result['policy']}, on {result['device']}{shared}, {robots}"]
    names = ["A", "B"][: len(measured)]
    for name, one in zip(names, measured, strict=True):
        mark = f"{name}: " if len(measured) > 1 else ""
        lines += [wrapped(f"  {mark}{_settings(one)}")]
        lines += [wrapped(f"  approximation: {line}") for line in one["approximations"]]
        lines += [wrapped(f"  note: {line}") for line in one["notes"]]
    lines += ["", *(_alone(measured[0]) if len(measured) == 1 else _compared(measured, result["second_over_first"]))]
    for name, one in zip(names, measured, strict=True):
        lines += ["", *([name] if len(measured) > 1 else []), *_facts(one)]
    return "\n".join(lines)


def _settings(one: Mapping[str, Any]) -> str:
    words = [f"{name}={value}" for name, value in one["settings"].items()]
    return ", ".join([*words, *(f"without {saving}" for saving in one["without"])])


def _alone(one: Mapping[str, Any]) -> list[str]:
    rows: list[Sequence[str]] = [("milliseconds", "p50", "p95", "p99", "chunks")]
    for stage, label in STAGES.items():
        if (found := one["stages_ms"].get(stage)) is not None:
            rows.append((label, *(_number(found[key]) for key in ("p50", "p95", "p99")), str(found["n"])))
    return table(rows, "<>>>>")


def _compared(measured: Sequence[Mapping[str, Any]], ratios: Mapping[str, Mapping[str, float]]) -> list[str]:
    rows: list[Sequence[str]] = [("milliseconds", "A p50", "p95", "B p50", "p95", "B / A", "95 % interval")]
    for stage, label in STAGES.items():
        found = [one["stages_ms"].get(stage) for one in measured]
        if any(found):
            cells = [_number(one[key]) if one else "-" for one in found for key in ("p50", "p95")]
            ratio = ratios.get(stage)
            last = (f"{ratio['ratio']:.2f}", f"{ratio['low_95']:.2f} to {ratio['high_95']:.2f}") if ratio else ("", "")
            rows.append((label, *cells, *last))
    return table(rows, "<>>>>>>")


def _facts(one: Mapping[str, Any]) -> list[str]:
    lines = [
        f"  {one['chunks_per_s']:.3g} chunks/s = {one['actions_per_s']:.3g} actions/s of each robot "
        f"({one['actions_per_chunk']} actions a chunk); {one['gb_peak']:.3g} GB of memory at the peak",
        f"  network: {one['passes_per_chunk']:.3g} passes and {one['tflop_per_chunk']:.3g} TFLOP a chunk, "
        f"{one['tflop_per_s']:.3g} TFLOP/s, {one['roofline_fraction']:.0%} of the roofline "
        f"(measured here: {one['matmul_tflop_per_s']:.3g} TFLOP/s, {one['copy_gb_per_s']:.3g} GB/s)",
    ]
    far = one["distance_from_eager_float32"]
    if isinstance(far, str):
        lines.append(f"  distance from eager float32: not measured, {far}")
    elif far is not None:
        parts = ", ".join(f"{name} {value:.2g}" for name, value in far.items())
        lines.append(f"  distance from eager float32 with the same noise, relative L2: {parts}")
    return [wrapped(line) for line in lines]


def _number(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"
