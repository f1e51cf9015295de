"""One self-contained HTML page: everything a reader needs to believe, or to repeat, a run. Asks the network nothing."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from lerobot_wam.report.charts import Series, line_chart, smoothed
from lerobot_wam.report.statistics import wilson_interval

_MIME = {".mp4": "video/mp4", ".gif": "image/gif", ".webp": "image/webp", ".png": "image/png", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Media:
    """A picture or film that travels inside the page.

    Attributes:
        mime: "video/mp4" or an image type.
        data: The file's bytes.
    """

    mime: str
    data: bytes

    @classmethod
    def read(cls, path: str | Path) -> "Media":
        """Read a .mp4, .gif, .webp, .png or .svg file.

        Raises:
            ValueError: Another suffix.
        """
        path = Path(path)
        if path.suffix not in _MIME:
            raise ValueError(f"{path.name} cannot be embedded: expected one of {', '.join(_MIME)}")
        return cls(_MIME[path.suffix], path.read_bytes())

    @property
    def uri(self) -> str:
        """The bytes as a data: URI."""
        return f"data:{self.mime};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Headline:
    """One big number. `note` is small print, such as an interval."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """One sentence that was tested.

    Attributes:
        claim: The sentence.
        rule: When it holds and when not, fixed before anything was measured.
        verdict: By that rule.
        value: The number that matters, for people.
        note: Its interval and what it is of.
    """

    claim: str
    rule: str
    verdict: Literal["holds", "does not hold", "undecided", "not yet measured"]
    value: str
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """Successes of a number of episodes."""

    successes: int
    episodes: int

    @property
    def rate(self) -> float:
        """Share of successes; 0 without episodes."""
        return self.successes / self.episodes if self.episodes else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson 95 % interval of the rate."""
        return wilson_interval(self.successes, self.episodes)

    @property
    def interval_text(self) -> str:
        """The interval as "80-99 %"."""
        low, high = self.interval
        return f"{100 * low:.0f}–{100 * high:.0f} %"

    def __add__(self, other: "Cell") -> "Cell":
        return Cell(self.successes + other.successes, self.episodes + other.episodes)


@dataclass(frozen=True)
class SuccessTable:
    """Success per task under several conditions.

    Attributes:
        title: Heading.
        conditions: Column names with a few words on each, in order; the first is the policy, the others controls.
        rows: Task to one cell a condition; None where it was not measured.
        note: Said below the table.
    """

    title: str
    conditions: Mapping[str, str]
    rows: Mapping[str, Sequence[Cell | None]]
    note: str = ""

    def __post_init__(self) -> None:
        for task, cells in self.rows.items():
            if len(cells) != len(self.conditions):
                raise ValueError(
                    f"success table {self.title!r}: row {task!r} has {len(cells)} cells, expected one for each of "
                    f"{', '.join(self.conditions)}"
                )

    @cached_property
    def total(self) -> list[Cell | None]:
        """Column sums; None for a column without any cell."""
        columns = ([cell for cell in column if cell] for column in zip(*self.rows.values(), strict=True))
        return [sum(cells, Cell(0, 0)) if cells else None for cells in columns]


@dataclass(frozen=True)
class NumberTable:
    """Numbers compared, and charts of them.

    Attributes:
        title: Heading.
        text: What the numbers are.
        columns: Column names.
        rows: Row name to one text a column.
        charts: SVG charts, above the table.
        note: Said below the table.
        strong: Name of the row that matters, if one does.
    """

    title: str
    text: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[str]]
    charts: Sequence[str] = ()
    note: str = ""
    strong: str | None = None


@dataclass(frozen=True)
class DreamPanel:
    """An imagined film beside the real one.

    Attributes:
        title: The instruction, say.
        animation: Film; left half real, right half imagined.
        views: Labels of its parts from left to right.
        filmstrip: The same frames side by side.
        numbers: Rows of a table of texts: row to column to value. The first row is the one that matters.
        charts: SVG charts of its actions.
        note: Small print.
    """

    title: str
    animation: Media
    views: tuple[str, ...] = ("real", "imagined")
    filmstrip: Media | None = None
    numbers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    charts: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class LossCurve:
    """A quantity that was logged while training."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]

    @property
    def chart(self) -> str:
        """SVG: the raw values faint, their running mean strong; logarithmic where all values are positive."""
        window = max(1, len(self.values) // 25)
        lines = [Series("", self.steps, self.values, faint=True)] if window > 1 else []
        lines.append(Series(f"mean of {window}" if window > 1 else "loss", self.steps, smoothed(self.values, window)))
        return line_chart(self.name, lines, x_label="steps", log=min(self.values) > 0)


@dataclass(frozen=True)
class Timing:
    """Wall time of one stage; `detail` says how much work that was."""

    stage: str
    seconds: float
    detail: str = ""

    @property
    def text(self) -> str:
        """The duration for people."""
        if self.seconds < 1:
            return f"{1000 * self.seconds:.0f} ms"
        if self.seconds < 120:
            return f"{self.seconds:.1f} s"
        return f"{int(self.seconds // 60)} min {int(self.seconds % 60):02d} s"


@dataclass(frozen=True)
class Command:
    """A step and the exact command that repeats it."""

    title: str
    command: str


@dataclass(frozen=True)
class ReportData:
    """All that the page shows. Empty parts are left out.

    Attributes:
        title: Heading.
        lead: One or two sentences below it.
        notice: Framed remark at the top, such as "quick run, no claim of success".
        headlines: The numbers to remember.
        findings: Sentences that were tested.
        success: Tables of success rates.
        tables: Other numbers.
        dreams: Imagined beside real.
        losses: Training curves.
        timings: Stages; the bars compare them, so put only stages of one run here.
        environment: Machine and versions.
        seed: Seed of everything random.
        commands: How to repeat each step.
        links: Name to relative path of files beside the page.
        notes: What limits the numbers.
    """

    title: str
    lead: str = ""
    notice: str = ""
    headlines: Sequence[Headline] = ()
    findings: Sequence[Finding] = ()
    success: Sequence[SuccessTable] = ()
    tables: Sequence[NumberTable] = ()
    dreams: Sequence[DreamPanel] = ()
    losses: Sequence[LossCurve] = ()
    timings: Sequence[Timing] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    commands: Sequence[Command] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def render_page(data: ReportData) -> str:
    """Return the page as HTML text.

    Raises:
        ValueError: A link that leaves the page's folder: it would break when the page is passed on.
    """
    for name, target in data.links.items():
        if "://" in target or target.startswith(("/", "..")):
            raise ValueError(f"link {name!r} goes to {target!r}: expected a relative path beside the page")
    here = files("lerobot_wam.report")
    engine = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    engine.filters["svg"] = Markup  # our own charts are the only markup that comes as a value
    template = engine.from_string((here / "page.html.j2").read_text(encoding="utf-8"))
    style: Any = Markup((here / "page.css").read_text(encoding="utf-8"))
    return template.render(data=data, style=style)


def write_page(data: ReportData, path: str | Path) -> Path:
    """Write the page and return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_page(data), encoding="utf-8")
    return path
