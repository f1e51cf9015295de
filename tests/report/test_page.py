"""The page asks the network nothing and shows every number it was given."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lerobot_wam.report.charts import Series, chart_grid, line_chart, smoothed
from lerobot_wam.report.environment import environment
from lerobot_wam.report.page import (
    Cell,
    Command,
    DreamPanel,
    Headline,
    LossCurve,
    Media,
    NumberTable,
    ReportData,
    SuccessTable,
    Timing,
    render_page,
    write_page,
)

VOID = {"meta", "link", "img", "input", "br"}


def full_report() -> ReportData:
    chart = line_chart("waist.pos (rad)", [Series("predicted", [0, 1, 2], [0.1, 0.5, -0.2])], marks=[1])
    return ReportData(
        title="A title & more",
        lead="The lead.",
        notice="Quick run.",
        headlines=[Headline("94.5 %", "success", "90-97")],
        success=[
            SuccessTable(
                "Single stage",
                {"policy": "as trained", "hold still": "does nothing"},
                {"touch <red>": [Cell(17, 18), Cell(0, 18)], "push blue": [Cell(16, 18), None]},
                "A note on seeds.",
            )
        ],
        dreams=[
            DreamPanel(
                "touch red",
                Media("image/webp", b"film"),
                filmstrip=Media("image/png", b"strip"),
                numbers={"imagined": {"PSNR": "21.37 dB"}},
                charts=[chart],
                note="episode 3",
            ),
            DreamPanel("touch blue", Media("video/mp4", b"film"), views=("imagined",)),
        ],
        tables=[
            NumberTable(
                "Action error",
                "By joint.",
                ["before", "after"],
                {"elbow": ["0.31", "0.12"], "all": ["0.30", "0.11"]},
                [chart],
                "Few.",
                strong="all",
            )
        ],
        losses=[LossCurve("video_loss", list(range(100)), [1 / (1 + i) for i in range(100)])],
        timings=[Timing("train", 754.0, "1500 steps"), Timing("step", 0.0421), Timing("evaluate", 33.3)],
        environment={"Processor": "An example processor"},
        seed=1234,
        commands=[Command("Train", "lerobot-train --policy.type=wam\n  --steps=10")],
        links={"metrics.json": "metrics.json"},
        notes=["One seed only."],
    )


class Balanced(HTMLParser):
    """Collects what the page refers to, and checks that elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.targets: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.targets += [value for name, value in attrs if name in ("src", "href", "srcset", "poster", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_self_contained_and_well_formed():
    page = render_page(full_report())
    reader = Balanced()
    reader.feed(page)
    assert reader.open == []
    assert sorted({target.partition(":")[0] for target in reader.targets}) == ["data", "metrics.json"]
    assert not re.search(r"https?:|@import|url\(|<script", page)


def test_page_shows_everything_given():
    page = render_page(full_report())
    shown = (
        "A title &amp; more", "The lead.", "Quick run.", "94.5 %", "Single stage", "touch &lt;red&gt;", "17/18",
        "74–99 %", "0/18", "16/18", "not run", "33/36", "does nothing", "A note on seeds.", "21.37 dB",
        "waist.pos (rad)", "episode 3", "video_loss", "12 min 34 s", "42 ms", "33.3 s", "1500 steps", "1234",
        "An example processor", "Action error", "By joint.", "elbow", "0.31", "Few.",
        '<tr class="strong"><th scope="row">all<',
        "lerobot-train --policy.type=wam\n  --steps=10", "metrics.json", "One seed only.", "ZmlsbQ==", "c3RyaXA=",
    )  # fmt: skip
    assert [text for text in shown if text not in page] == []


def test_empty_parts_leave_no_trace():
    page = render_page(ReportData(title="Bare"))
    assert page.count("<h2>") == 1
    assert "<table" not in page


def test_page_and_media_files(tmp_path: Path):
    (tmp_path / "film.gif").write_bytes(b"GIF89a")
    assert Media.read(tmp_path / "film.gif").uri == "data:image/gif;base64,R0lGODlh"
    with pytest.raises(ValueError, match=r"film\.exe cannot be embedded"):
        Media.read(tmp_path / "film.exe")
    path = write_page(ReportData(title="Größe"), tmp_path / "deep" / "report.html")
    assert "Größe" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("target", ["https://example.com/x.json", "/tmp/x.json", "../x.json"])
def test_links_stay_beside_the_page(target):
    with pytest.raises(ValueError, match="expected a relative path beside the page"):
        render_page(ReportData(title="x", links={"x": target}))


def test_a_row_needs_a_cell_per_condition():
    with pytest.raises(ValueError, match="row 'touch' has 1 cells"):
        SuccessTable("t", {"policy": "", "random": ""}, {"touch": [Cell(1, 2)]})


def test_chart_scales_and_refuses():
    text = line_chart("loss", [Series("raw", [0, 10], [1.0, 0.01], faint=True)], log=True)
    (points,) = re.findall(r'points="([^"]+)"', text)
    (_, top), (_, bottom) = (tuple(map(float, point.split(","))) for point in points.split())
    assert top == pytest.approx(40)
    assert bottom == pytest.approx(190 - 24)
    gap = line_chart("g", [Series("a", [0, 1, 2], [1.0, float("nan"), 2.0])])
    assert len(re.findall(r'points="([^"]+)"', gap)[0].split()) == 2
    assert "nan" not in line_chart("constant", [Series("a", [3], [0.0])])
    with pytest.raises(ValueError, match="no finite values"):
        line_chart("empty", [Series("a", [], [])])
    with pytest.raises(ValueError, match="needs positive"):
        line_chart("l", [Series("a", [0, 1], [1.0, -1.0])], log=True)
    assert chart_grid([text, gap]).count("<svg") == 3


def test_smoothing():
    assert smoothed([1, 2, 3, 5], 2) == [1, 1.5, 2.5, 4]


def test_environment_names_versions_and_no_host():
    import platform

    found = environment()
    assert found["torch"].startswith("2.")
    assert platform.node() not in " ".join(found.values())
