"""Draw who may attend to whom, from the one definition that training and inference use, into docs/attention.svg.

python docs/attention.py
"""

from itertools import accumulate
from pathlib import Path

import torch

from lerobot_wam.model.layout import Kind, SequenceLayout, VideoGrid, may_attend, step_layout, video_layout

CHUNKS, FRAMES_PER_CHUNK, ACTIONS_PER_CHUNK = 3, 2, 4
CELL, LEFT, TOP, NOTE = 26, 140, 118, 74
OFFICIAL_INFERENCE_ONLY = "#f2b880"
ALLOWED = "#3f6ea8"
REFUSED = "#f1f1ee"


def groups() -> dict[str, SequenceLayout]:
    """The tokens of a training window, by name, in the order of the sequence; the last clean chunk has no reader."""
    grid = VideoGrid(1, 1)

    def video(kind: Kind, first: int, count: int) -> SequenceLayout:
        return video_layout(kind, first, count, grid, FRAMES_PER_CHUNK)

    found = {}
    for kind, word, chunks in ((Kind.CLEAN_VIDEO, "clean", CHUNKS - 1), (Kind.NOISY_VIDEO, "noisy", CHUNKS)):
        found[f"{word} frame 0"] = video(kind, 0, 1)
        for chunk in range(chunks):
            found[f"{word} video {chunk + 1}"] = video(kind, 1 + chunk * FRAMES_PER_CHUNK, FRAMES_PER_CHUNK)
    for kind, word, count in ((Kind.ACTION, "actions", ACTIONS_PER_CHUNK), (Kind.STATE, "state", 1)):
        found |= {f"{word} {chunk + 1}": step_layout(kind, chunk, 1, count) for chunk in range(CHUNKS)}
    return found


def group_mask(state_self_only: bool) -> torch.Tensor:
    """May group q (row) attend to group k (column)? Every token of a group has the same answer."""
    layouts = list(groups().values())
    mask = [[may_attend(query, key, state_self_only) for key in layouts] for query in layouts]
    assert all(bool(cell.all()) == bool(cell.any()) for row in mask for cell in row)
    return torch.tensor([[bool(cell.all()) for cell in row] for row in mask])


def svg() -> str:
    """Draw the table: queries downwards, keys to the right."""
    names = list(groups())
    always, official = group_mask(state_self_only=True), group_mask(state_self_only=False)
    kinds = [name.split()[0] for name in names]
    gaps = list(accumulate(0 if i == 0 or kinds[i] == kinds[i - 1] else 6 for i in range(len(names))))
    place = [i * CELL + gap for i, gap in enumerate(gaps)]
    width, height = LEFT + place[-1] + CELL + 20, TOP + place[-1] + CELL + NOTE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12" fill="#222" role="img" '
        'aria-label="Which tokens may attend to which, for a window of three chunks">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for name, offset in zip(names, place, strict=True):
        x, y = LEFT + offset + CELL / 2 + 4, TOP + offset + CELL / 2 + 4
        parts.append(f'<text x="{LEFT - 8}" y="{y:g}" text-anchor="end">{name}</text>')
        parts.append(f'<text transform="translate({x:g} {TOP - 8}) rotate(-60)">{name}</text>')
    for row, y in enumerate(place):
        for column, x in enumerate(place):
            colour = REFUSED
            if official[row, column]:
                colour = OFFICIAL_INFERENCE_ONLY
            if always[row, column]:
                colour = ALLOWED
            size = CELL - 2
            parts.append(f'<rect x="{LEFT + x}" y="{TOP + y}" width="{size}" height="{size}" fill="{colour}"/>')
    notes = ((ALLOWED, "may attend"), (OFFICIAL_INFERENCE_ONLY, "only with state_self_only=false"), (REFUSED, "never"))
    x = 20
    for colour, text in notes:
        parts.append(f'<rect x="{x}" y="{height - 54}" width="14" height="14" fill="{colour}" stroke="#bbb"/>')
        parts.append(f'<text x="{x + 20}" y="{height - 42}">{text}</text>')
        x += 40 + 7 * len(text)
    parts.append(f'<text x="20" y="{height - 18}">rows: who looks; columns: what is looked at</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    Path(__file__).with_name("attention.svg").write_text(svg(), encoding="utf-8")
