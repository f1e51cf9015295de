"""Write the results tables of README.md, docs/results.md and docs/dreamzero.md from benchmarks/results/*.json.

    python -m benchmarks.fill_results            # write them
    python -m benchmarks.fill_results --check    # exit with 1 where they are out of date

A result that has no file yet is a row that says so; no number is ever typed by hand.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.claim_rows import claim_a_chart, claim_rows, claim_tables
from benchmarks.claims.findings import NOT_YET
from benchmarks.result_rows import (
    Record,
    Row,
    adaptation_rows,
    adaptation_tables,
    cache_rows,
    commits,
    cost_rows,
    days,
    demo_rows,
    demo_tables,
    episode_rows,
    flash_rows,
    latency_rows,
    latency_tables,
    lossless_rows,
    machine,
    process_rows,
    seeds,
    serving_rows,
    shown,
    soak_rows,
    speed_rows,
    surprise_rows,
    surprise_tables,
    table,
    words,
)

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- results -->", "<!-- /results -->"
COLUMNS = ("What", "Result", "n, 95 % interval", "Seed", "Machine", "Date", "Commit", "Command")
PROVENANCE = ("command", "date", "commit", "machine", "versions", "seed", "metrics")


def load(path: Path) -> Record | None:
    """Read a result file; None where it does not exist.

    Raises:
        ValueError: A key is missing, or the numbers are of a quick run.
    """
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    missing = [key for key in PROVENANCE if key not in record]
    if missing:
        raise ValueError(f"{path.name} lacks {', '.join(missing)}: see 'Numbers' in CONTRIBUTING.md")
    if record["metrics"].get("plan", {}).get("quick"):
        raise ValueError(f"{path.name} comes from a --quick run, which claims nothing: measure a full one")
    return record


@dataclass(frozen=True)
class Result:
    """A result file.

    Attributes:
        title: Heading, and what the summary's row says while there is no file.
        rows: Makes the summary's rows, from `place` and the record.
        place: Robot or device, for the rows.
        headlines: How many of the rows, from the first on, README.md shows too.
        expected: Whether its absence is worth a row.
        tables: Makes the tables of docs/results.md that the rule for all others does not; takes what it shows out of
            the metrics.
    """

    title: str
    rows: Callable[[str, Record], list[Row]]
    place: str = ""
    headlines: int = 0
    expected: bool = True
    tables: Callable[[dict[str, Any]], list[str]] = lambda metrics: []


FILES = {
    **{
        f"claims/{scale}/{claim}": Result(title, claim_rows, where, count, not where, claim_tables)
        for scale, where in (("cpu", ""), ("gpu", " (GPU)"))
        for claim, title, count in (
            ("prior", "The video prior", 1),
            ("a", "Claim A: unseen tasks and unseen scenes", 6),
            ("b", "Claim B: video of other robots", 1),
            ("c", "Claim C: a new robot from play", 1),
            ("d", "Claim D: one denoising step in place of many", 2),
            ("scaling", "Scaling: size and diversity", 3),
            ("counterfactual", "Does the dream follow the action?", 2),
            ("mechanism", "Mechanism: what the parts are worth", 2),
            ("video_weight", "How much imagining should count, from the prior", 3),
            ("harder", "Longer and contact-rich tasks", 2),
            ("repeat", "Repeats: cells measured twice", 1),
        )
    },
    "nano_demo_viperx": Result("Demonstration, ViperX", demo_rows, "ViperX", 4, tables=demo_tables),
    "nano_demo_so101": Result("Demonstration, SO-101", demo_rows, "SO-101", tables=demo_tables),
    "step_cost": Result("Cost beside ACT and Diffusion Policy", cost_rows, headlines=2),
    "long_episode": Result("Cost over a long episode", episode_rows),
    "cache_speed_256": Result("Loading with and without cached latents", cache_rows, headlines=1),
    "lossless": Result("Nothing computed twice", lossless_rows, headlines=1, expected=False),
    "lossless_cuda": Result("Nothing computed twice, GPU", lossless_rows, " (GPU)", expected=False),
    "lossy_settings": Result("Fewer passes through the network", speed_rows),
    "flash": Result("Flash in one step", flash_rows),  # claim D tries the same trainings anew
    "injected_latency": Result("Chunks that come late", latency_rows, tables=latency_tables),
    "adaptation": Result(
        "A new arm from five minutes of play", adaptation_rows, " (UR5e)", 3, tables=adaptation_tables
    ),
    "surprise": Result("Surprise as a failure detector", surprise_rows, headlines=1, tables=surprise_tables),
    "serving": Result("One server, several robots", serving_rows, headlines=1),
    "soak": Result("A server for hours, and under damaged messages", soak_rows, headlines=2),
    "two_processes": Result("Two processes beside one", process_rows, expected=False),
    "step_cost_cuda": Result("Cost beside ACT and Diffusion Policy, GPU", cost_rows, " (GPU)", expected=False),
    "long_episode_cuda": Result("Cost over a long episode, GPU", episode_rows, " (GPU)", expected=False),
}


def readme_table(folder: Path) -> str:
    """The table of README.md: the headlines."""
    return summary(folder, lambda result: result.headlines)


def summary(folder: Path, count: Callable[[Result], int | None] = lambda result: None) -> str:
    """A table of the first `count` rows of every result; of all rows where that is None."""
    rows: list[tuple[str, ...]] = []
    for name, result in FILES.items():
        record = load(folder / f"{name}.json")
        if record is not None:
            source = (seeds(record), machine(record), days(record), commits(record))
            command = f"`{record['command']}`"
            rows += [
                (*row, *(source if row[1] != NOT_YET else ("",) * len(source)), command)
                for row in result.rows(result.place, record)[: count(result)]
            ]
        elif result.expected and count(result) != 0:
            rows.append((result.title, NOT_YET, *[""] * (len(COLUMNS) - 2)))
    return table(COLUMNS, rows)


# Sections of docs/results.md


def results_page(folder: Path) -> str:
    """A summary, then every number of every file."""
    parts = ["## Summary", summary(folder)]
    for name, result in FILES.items():
        record = load(folder / f"{name}.json")
        if record is None:
            missing = f"## {result.title}\n\nNot yet measured: `benchmarks/results/{name}.json` does not exist."
            parts += [missing] if result.expected else []
            continue
        parts.append(
            f"## {result.title}\n\n`benchmarks/results/{name}.json`: {days(record)}, commit "
            f"{commits(record)}, {machine(record)}, seed {seeds(record)}.\n\n"
            f"```bash\n{record['command']}\n```"
        )
        metrics = dict(record["metrics"])
        parts += [*result.tables(metrics), *_sections(metrics)]
    return "\n\n".join(parts)


FIXES = {
    "second_chunk": "Second chunk, one observed block in the cache",
    "sampler": "Second chunk, 16 UniPC steps",
    "full_window": "After a full window of two chunks",
    "full_window_of_four_chunks": "The same weights with a window of four",
}


def fixes_table(folder: Path) -> str:
    """The differences from the official loop, case by case; the first of each group is its reference."""
    record = load(folder / "official_fixes.json")
    if record is None:
        return NOT_YET
    rows = []
    for group, title in FIXES.items():
        found = record["metrics"][group]
        for name, case in found["cases"].items():
            error = f"{case['action_error_rad']:.4f} ± {case['action_error_rad_standard_error']:.4f}"
            away = f"{case['action_distance_rad']:.4f}", f"{case['latent_distance_percent']:.1f} %"
            rows.append((title, name, error, *away, str(found["clips"])))
            title = ""
    header = ("", "Case", "Action error, rad ± s.e.", "Actions moved, rad", "Imagined latents moved", "Episodes")
    about = f"`{record['command']}`, {record['date'][:10]}, commit {record['commit']}, {machine(record)}."
    lines = [table(header, rows), about]
    if (sliding := load(folder / "long_episode_sliding.json")) is not None:
        m = sliding["metrics"]
        lines.append(
            f"Sliding, the last chunks of an episode of {m['chunks']} cost {m['last_over_first_window_cost']:.3f} "
            f"times the first (`{sliding['command']}`)."
        )
    return "\n\n".join(lines)


def _sections(metrics: Mapping[str, Any]) -> list[str]:
    """Tables of numbers: dicts of dicts as one table, dicts as a list, single numbers together."""
    single = {name: value for name, value in metrics.items() if not isinstance(value, Mapping)}
    parts = [_two_columns(single)] if single else []
    for name, value in metrics.items():
        if not isinstance(value, Mapping) or not value:
            continue
        parts.append(f"**{words(name).capitalize()}**")
        if all(isinstance(inner, Mapping) for inner in value.values()):
            keys = list(dict.fromkeys(key for inner in value.values() for key in inner))
            rows = [(words(n), *(shown(inner.get(key, "")) for key in keys)) for n, inner in value.items()]
            parts.append(table(("", *map(words, keys)), rows))
        else:
            parts.append(_two_columns(value))
    return parts


def _two_columns(values: Mapping[str, Any]) -> str:
    return table(("Quantity", "Value"), [(words(name), shown(value)) for name, value in values.items()])


def filled(text: str, content: str, where: str) -> str:
    """Put `content` between the two markers of a document.

    Raises:
        ValueError: The markers are not there once each.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{where} must hold {BEGIN} and {END} once each")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{rest.partition(END)[2]}"


def documents(root: Path, results: Path) -> dict[Path, str]:
    """What each document should say."""
    contents = {
        root / "README.md": readme_table(results),
        root / "docs" / "results.md": results_page(results),
        root / "docs" / "dreamzero.md": fixes_table(results),
    }
    found = {path: filled(path.read_text(encoding="utf-8"), text, path.name) for path, text in contents.items()}
    if (record := load(results / "claims/cpu/a.json")) is not None:
        found[root / "docs" / "claim_a.svg"] = claim_a_chart(record)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Fill the documents, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 where a document is out of date"
    )
    args = parser.parse_args(argv)
    stale = [path for path, text in documents(ROOT, RESULTS).items() if path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'out of date' if args.check else 'written'}")
    if args.check:
        return 1 if stale else 0
    for path, text in documents(ROOT, RESULTS).items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
