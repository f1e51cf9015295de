"""Text for a terminal: paragraphs and tables."""

import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 110


def wrapped(text: str) -> str:
    """A paragraph in lines of at most `WIDTH` characters, indented after the first."""
    return textwrap.fill(text, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def table(rows: Iterable[Sequence[str]], align: str) -> list[str]:
    """Rows of cells as lines, every column as wide as it must be; `align` has a < or > for each."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(align))]
    return [
        "  " + "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True)).rstrip()
        for row in rows
    ]
