"""Line charts as SVG text. They take their colours from the page around them (CSS variables), else from defaults."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 320, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 40, 24
_COLOURS = ("var(--series-1,#0a66c2)", "var(--series-2,#d9480f)", "var(--series-3,#2b8a3e)", "var(--series-4,#862e9c)")
_INK, _FAINT, _MUTED = "var(--ink-soft,#555)", "var(--line,#ddd)", "var(--muted,#8a8f98)"
_FONT = "font-family:system-ui,-apple-system,'Segoe UI',sans-serif"


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: Shown in the legend.
        x: Ascending positions.
        y: Values; what is not finite is left out.
        muted: Drawn grey and dashed: the reference that others are compared with.
        faint: Drawn thin and pale, out of the legend: raw values behind a smoothed line of the same colour.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    muted: bool = False
    faint: bool = False


def line_chart(
    title: str, series: Sequence[Series], x_label: str = "", marks: Sequence[float] = (), log: bool = False
) -> str:
    """Draw lines over common axes.

    Args:
        title: Above the chart.
        series: Lines, at most four colours besides muted ones.
        x_label: Unit of x, written behind the last tick.
        marks: Positions of dashed vertical lines.
        log: Logarithmic y axis; values must be positive.

    Returns:
        An `<svg>` element of WIDTH x HEIGHT units for an HTML page, or for `chart_grid`, which makes a file of it.

    Raises:
        ValueError: Nothing to draw, or a logarithmic axis for values that are not positive.
    """
    values = [y for line in series for y in line.y if math.isfinite(y)]
    positions = [x for line in series for x in line.x]
    if not values:
        raise ValueError(f"chart {title!r} has no finite values: give each series at least one")
    if log and min(values) <= 0:
        raise ValueError(f"chart {title!r} has the value {min(values)}: a logarithmic axis needs positive ones")
    y_ticks = _decades(min(values), max(values)) if log else _ticks(min(values), max(values))
    low, high = min(*values, *y_ticks), max(*values, *y_ticks)
    left, right = min(positions), max(positions)

    def column(x: float) -> float:
        return _LEFT + (x - left) / (right - left or 1) * (WIDTH - _LEFT - _RIGHT)

    def row(y: float) -> float:
        share = math.log(y / low) / math.log(high / low) if log else (y - low) / (high - low)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    parts = [_text(4, 14, title, size=12, colour="var(--ink,#222)", weight=600)]
    for tick in y_ticks:
        parts.append(_line(_LEFT, row(tick), WIDTH - _RIGHT, row(tick), _FAINT))
        parts.append(_text(_LEFT - 5, row(tick) + 3.5, _number(tick), anchor="end"))
    x_ticks = [tick for tick in _ticks(left, right) if left <= tick <= right]
    for tick in x_ticks:
        label = f"{_number(tick)} {x_label}" if x_label and tick == x_ticks[-1] else _number(tick)
        anchor = "end" if column(tick) > WIDTH - 30 else "middle"
        parts.append(_text(column(tick), HEIGHT - 8, label, anchor=anchor))
    parts += [_line(column(mark), _TOP, column(mark), HEIGHT - _BOTTOM, _MUTED, dash="2 3") for mark in marks]
    legend, colours = float(_LEFT), iter(_COLOURS * 2)
    for line in series:
        colour = _MUTED if line.muted else next(colours)
        if line.faint:
            colours = iter([colour, *colours])
        points = " ".join(
            f"{column(x):.1f},{row(y):.1f}" for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)
        )
        style = "stroke-dasharray:5 3;" if line.muted else "opacity:.3;stroke-width:1;" if line.faint else ""
        parts.append(
            f'<polyline points="{points}" style="fill:none;stroke:{colour};stroke-width:1.8;'
            f'stroke-linejoin:round;stroke-linecap:round;{style}"/>'
        )
        if not line.faint:
            parts.append(_line(legend, 26, legend + 16, 26, colour, width=2, dash="5 3" if line.muted else ""))
            parts.append(_text(legend + 20, 29.5, line.name))
            legend += 30 + 5.6 * len(line.name)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}" style="{_FONT}">{"".join(parts)}</svg>'
    )


@dataclass(frozen=True)
class Interval:
    """One row of an interval chart.

    Attributes:
        name: In front of it.
        value: Share, 0 to 1.
        low: Lower bound of its interval.
        high: Upper bound.
        strong: Drawn in colour; the others, which it is compared with, in grey.
    """

    name: str
    value: float
    low: float
    high: float
    strong: bool = False


def interval_chart(title: str, rows: Sequence[Interval]) -> str:
    """Draw shares with their intervals, one below the other, on an axis from 0 to 100 %.

    Returns:
        An `<svg>` element for an HTML page, WIDTH wide and as high as its rows need.
    """
    height, left = 46 + 18 * len(rows), 140

    def column(share: float) -> float:
        return left + share * (WIDTH - left - 16)

    parts = [_text(4, 14, title, size=12, colour="var(--ink,#222)", weight=600)]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_line(column(tick), 24, column(tick), height - 20, _FAINT))
        parts.append(_text(column(tick), height - 6, f"{100 * tick:.0f} %", anchor="middle"))
    for index, row in enumerate(rows):
        y, colour = 36 + 18 * index, _COLOURS[0] if row.strong else _MUTED
        parts.append(_text(4, y + 3.5, row.name, weight=600 if row.strong else 400))
        parts.append(_line(column(row.low), y, column(row.high), y, colour, width=2))
        parts.append(f'<circle cx="{column(row.value):.1f}" cy="{y}" r="4" style="fill:{colour}"/>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}" style="{_FONT}">{"".join(parts)}</svg>'
    )


def chart_grid(charts: Sequence[str], columns: int = 3) -> str:
    """Join charts into one SVG file of their own, on a white ground; an empty one without charts."""
    columns = max(1, min(columns, len(charts)))
    width, height = columns * WIDTH, max(1, math.ceil(len(charts) / columns)) * HEIGHT
    placed = (
        chart.replace(
            "<svg ", f'<svg x="{i % columns * WIDTH}" y="{i // columns * HEIGHT}" width="{WIDTH}" height="{HEIGHT}" ', 1
        )
        for i, chart in enumerate(charts)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(placed)}</svg>\n'
    )


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of each value and the `window - 1` before it, fewer at the start."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    return [(sums[i + 1] - sums[max(0, i + 1 - window)]) / min(window, i + 1) for i in range(len(values))]


def _ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that span [low, high]."""
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    raw = (high - low) / about
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Ticks 1, 2 and 5 of every decade that [low, high] touches, from the last one below to the first one above."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    every = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    below = max(tick for tick in every if tick <= low * 1.0001)
    above = min(tick for tick in every if tick >= high * 0.9999 and tick > below)
    ticks = [tick for tick in every if below <= tick <= above]
    return ticks if len(ticks) <= 7 else ticks[:: len(ticks) // 6]


def _number(value: float) -> str:
    if value and abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1, dash: str = "") -> str:
    dashes = f";stroke-dasharray:{dash}" if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'style="stroke:{colour};stroke-width:{width}{dashes}"/>'
    )


def _text(
    x: float, y: float, text: str, size: float = 10, anchor: str = "start", colour: str = _INK, weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" style="fill:{colour};font-size:{size}px;font-weight:{weight};'
        f'text-anchor:{anchor}">{escape(text)}</text>'
    )
