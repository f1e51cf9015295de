"""The findings as aligned text for a terminal."""

from collections.abc import Sequence
from typing import Any

from lerobot_wam.doctor.checkup import Checkup
from lerobot_wam.terminal import table, wrapped

_MODES = {
    "act": "act",
    "full": "train everything, in float32",
    "lora": "train adapters (LoRA)",
    "heads": "train robots' parts only",
}


def as_text(found: Checkup) -> str:
    """Render every fact that there is, then problems and notes."""
    facts = found.facts
    lines = [found.source, f"  {found.kind}"]
    if "adapter" in facts:
        adapter = facts["adapter"]
        lines.append(f"  {adapter['type']} of rank {adapter['rank']} on {adapter['base']}")
    if "parameters" in facts:
        lines += ["", *_parameters(facts)]
    for name, robot in facts.get("robots", {}).items():
        lines += ["", *_robot(name, robot)]
    if "geometry" in facts:
        lines += ["", *_geometry(facts["geometry"]), "", *_memory(facts)]
    if facts.get("components"):
        lines += ["", "frozen components"]
        rows = [
            (row["codec"], _gigabytes(row["bytes"]), row["licence"], row["source"], "" if row["found"] else "not here")
            for row in facts["components"].values()
        ]
        lines += table(rows, "<><<<")
    for mark, words in (("problem", found.problems), ("note", found.notes)):
        lines += [""] * bool(words) + [wrapped(f"{mark}: {text}") for text in words]
    if not found.problems:
        lines += ["", "all fits"]
    return "\n".join(lines)


def _parameters(facts: dict[str, Any]) -> list[str]:
    parts = facts["parameters"]
    rows = [(part, f"{count:,}") for part, count in parts.items()]
    total = [("all", f"{sum(parts.values()):,}")]
    licence = facts.get("licence") or "not stated"
    return [f"parameters ({facts['weights_dtype']}; licence: {licence})", *table(rows + total, "<>")]


def _robot(name: str, robot: dict[str, Any]) -> list[str]:
    views = ", ".join(f"{key.rpartition('.')[2]} at {tuple(cell)}" for key, cell in robot["views"].items())
    lines = [
        f"robot {name}",
        f"  {robot['rate']:g} steps/s, chunks of {robot['chunk_steps']} actions, video stride {robot['video_stride']}",
        f"  views ({robot['view_layout']}): {views}",
        wrapped(f"  prompt: {robot['prompt']}"),
    ]
    for which in ("state", "action"):
        if robot[which]:
            rows = [
                (d["name"], f"{d['low']:.4g}", "to", f"{d['high']:.4g}", d["unit"], "relative" if d["relative"] else "")
                for d in robot[which]
            ]
            lines += [f"  {which}, trained range", *("  " + line for line in table(rows, "<><><<"))]
    return lines


def _geometry(sizes: dict[str, Any]) -> list[str]:
    size = {key: f"{value[0]} x {value[1]}" for key, value in sizes.items() if isinstance(value, tuple)}
    seen = "" if size["network_picture"] == size["picture"] else f", resized to {size['network_picture']}"
    rows = [
        ("picture", f"views of {size['view']}, together {size['picture']}{seen} pixels"),
        ("latents", f"{size['latent']}, {sizes['frame_tokens']} tokens a latent frame"),
        ("window", f"{sizes['window_frames']} latent frames, {sizes['pixel_frames']} video frames"),
        ("training", f"{sizes['training_tokens']:,} tokens a window"),
        ("acting", f"{sizes['chunk_tokens']:,} tokens a step, up to {sizes['cached_tokens']:,} cached"),
    ]
    return ["sequence", *table(rows, "<<")]


def _memory(facts: dict[str, Any]) -> list[str]:
    needs = facts["memory"]
    other_way = "with" if needs["full"]["other_activations"] < needs["full"]["activations"] else "without"
    head = ("", "weights", "states", "activations", "frozen", "all", "without frozen", f"{other_way} checkpointing")
    rows: list[Sequence[str]] = [head]
    for mode, name in _MODES.items():
        need = needs[mode]
        other = need.get("other_activations")
        parts = [need[key] for key in ("weights", "states", "activations", "frozen")]
        rest = ("", "")
        if other is not None:
            rest = (_gigabytes(sum(parts) - need["frozen"]), _gigabytes(sum(parts) - need["activations"] + other))
        rows.append((name, *map(_gigabytes, parts), _gigabytes(sum(parts)), *rest))
    text = facts["text_encoder_bytes"]
    lines = ["memory on the device, one window at a time (estimate)", *table(rows, "<" + ">" * 7)]
    return lines + ([f"  and {_gigabytes(text)} for the text encoder, by default on the CPU"] if text else [])


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
