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

from lerobot_wam.report.statistics import wilson_interval

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- results -->", "<!-- /results -->"
COLUMNS = ("What", "Result", "n, 95 % interval", "Machine", "Date", "Commit", "Command")
PROVENANCE = ("command", "date", "commit", "machine", "metrics")
NOT_YET = "not yet measured"

type Record = Mapping[str, Any]
type Row = tuple[str, str, str]  # what was measured, the result, and how many with which interval


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


# Rows of README.md


def demo_rows(robot: str, record: Record) -> list[Row]:
    """The demonstration: success, its controls, imagination, time."""
    m, outcomes = record["metrics"], record["metrics"]["success_by_condition"]
    policy = {"successes": round(m["success_rate"] * m["n_episodes"]), "n_episodes": m["n_episodes"]}
    controls = {name: o for name, o in outcomes.items() if name not in ("policy", "two-stage")}
    counts = sorted({o["n_episodes"] for o in controls.values()})
    imagined, copied = (m["video_scores"][name]["psnr_moving"] for name in ("imagined", "copy"))
    return [
        (f"success on 12 tasks, unseen scenes ({robot})", _rate(policy), _interval(policy)),
        (
            f"the same under controls ({robot})",
            ", ".join(f"{name} {_rate(o)}" for name, o in controls.items()),
            f"{', '.join(map(str, counts))} each",
        ),
        (f"success on two-stage tasks ({robot})", _rate(outcomes["two-stage"]), _interval(outcomes["two-stage"])),
        (
            f"imagined video against repeating the last frame ({robot})",
            f"{imagined - copied:+.1f} dB PSNR of moving pixels ({imagined:.1f}, {copied:.1f})",
            f"{m['plan']['dreams']} held-out clips" if "plan" in m else "",
        ),
        (f"one chunk imagined and decoded ({robot})", f"{_number(m['chunk_latency_p50_ms'])} ms", "median"),
        (f"the whole demonstration ({robot})", f"{sum(m['seconds'].values()) / 60:.0f} min", "one run"),
    ]


def cost_rows(where: str, record: Record) -> list[Row]:
    """Time of a training step and of a chunk, beside policies of the same size."""
    m = record["metrics"]
    steps = [
        f"{name} {_number(row['train_step_ms_p50'])} ms ({row['frames_per_sample']} frames a sample)"
        for name, row in m["train"].items()
        if "resnet18" not in name
    ]
    chunks = [
        f"{name} {_number(row['chunk_latency_p50_ms'])} ms" for name, row in m["act"].items() if "resnet18" not in name
    ]
    repeated = f"median of {m['repetitions']}, threads: {m['threads']}"
    return [
        (f"training step, batch of {m['batch_size']}{where}", "; ".join(steps), repeated),
        (f"chunk of {m['actions_per_chunk']} actions{where}", "; ".join(chunks), repeated),
    ]


def episode_rows(where: str, record: Record) -> list[Row]:
    """Does a chunk cost at the end of a long episode what it cost at its start?"""
    m = record["metrics"]
    first, last = m["first_window_chunk_ms_mean"], m["last_window_chunk_ms_mean"]
    return [
        (
            f"episode of {m['chunks']} chunks: the last full window against the first{where}",
            f"{m['last_over_first_window_cost']:.2f} times the cost ({_number(first)}, {_number(last)} ms a chunk)",
            f"median of {m['repetitions']} episodes",
        )
    ]


def cache_rows(where: str, record: Record) -> list[Row]:
    """Loading with and without cached latents."""
    m = record["metrics"]
    without, cached = m["without"], m["with"]
    return [
        (
            f"Loading {m['frames_per_window']} frames of {m['cameras']} cameras of {m['height']} x {m['width']}{where}",
            f"{without['samples_per_s']:.3g} samples/s; from `lerobot-wam cache` {cached['samples_per_s']:.3g}; "
            f"{m['core_seconds_ratio']:.0f} times fewer core-seconds a sample",
            "",
        )
    ]


def lossless_rows(where: str, record: Record) -> list[Row]:
    """What the closed loop does not compute twice."""
    m = record["metrics"]
    rows = []
    for case, found in m.items():
        if isinstance(found, Mapping):
            every, none = found["all"], found["none"]
            result = (
                f"{_number(every['chunk_ms_p50'])} ms, {none['all_over_this']:.2f} times that of computing everything; "
                f"results differ by {every['max_abs_difference']:.0e}"
            )
            turns = f"{m['repetitions']} turns, {none['low_95']:.2f}–{none['high_95']:.2f}; threads: {m['threads']}"
            rows.append((f"chunk with nothing computed twice, {case}{where}", result, turns))
    return rows


def process_rows(where: str, record: Record) -> list[Row]:
    """Two processes beside one."""
    m = record["metrics"]
    what = f"Loss curve of two processes beside one, {m['steps']} steps{where}"
    return [(what, f"largest relative difference {m['relative_difference_max']:.1e}", "")]


def speed_rows(where: str, record: Record) -> list[Row]:
    """The settings of the speed dial."""
    found = record["metrics"]["settings"]
    rows = []
    for name in [name for name in ("exact", "official", "fast", "flash") if name in found]:
        row = found[name]
        away = 100 * row["action_distance_share_of_range"]
        result = f"success {_rate(row)}; actions {away:.2g} % of the joints' range from `exact`"
        rows.append((f"`--policy.speed={name}`, nano{where}", result, f"{_interval(row)}; {_change(row, 'success_')}"))
    return rows


def flash_rows(where: str, record: Record) -> list[Row]:
    """Flash in one step beside its coupled twin in eight."""
    m = record["metrics"]
    success = m["success"]
    result = f"success {_rate(success['flash_1_step'])}, twin {_rate(success['twin_8_steps'])}"
    against = m["flash_against_twin_8_steps"]
    seeds = f"{len(record['seed'])} training seeds, {against['scenes']} scenes"
    return [(f"Flash in 1 step, its coupled twin in 8{where}", result, f"{seeds}; {_change(against)}")]


def latency_rows(where: str, record: Record) -> list[Row]:
    """Chunks that come late: standing still meanwhile, or going on."""
    ways = record["metrics"]["by_way_and_latency_ms"]
    rows = []
    for latency in next(iter(ways.values())):
        cells = {way: found[latency] for way, found in ways.items()}
        each = (f"{way} {_rate(cell)} ({_number(cell['jerk_rad_per_s3'])} rad/s³)" for way, cell in cells.items())
        count = next(iter(cells.values()))["n_episodes"]
        rows.append((f"success (and jerk) with chunks {latency} ms late{where}", ", ".join(each), f"{count} each"))
    return rows


def adaptation_rows(arm: str, record: Record) -> list[Row]:
    """A new arm from minutes of play."""
    m = record["metrics"]
    success, seeds = m["success"], m["by_seed"].values()
    errors = ", ".join(f"{100 * seed['adapted']['below_better_yardstick']:.0f}" for seed in seeds)
    gain, kept = m["adapted_against_heads_from_scratch"], m["seen_arms"]
    return [
        (
            f"instructed success on a new arm, adapted with 5 minutes of play{arm}",
            f"{_rate(success['adapted'])}; heads from scratch on the same play {_rate(success['heads_from_scratch'])}",
            f"{_interval(success['adapted'])}; {_change(gain)}; {len(seeds)} seeds",
        ),
        (
            f"its action error on held-out play{arm}",
            f"{errors} % below the better of holding still and copying the last motion",
            f"{len(seeds)} seeds",
        ),
        (
            f"success on the arms known before, afterwards{arm}",
            f"{100 * kept['before']:.0f} % before, {100 * kept['after']:.0f} % after",
            f"{_change(kept)}; {len(seeds)} seeds",
        ),
    ]


def serving_rows(where: str, record: Record) -> list[Row]:
    """Robots at one server, and beside the model."""
    m = record["metrics"]
    near, paced, full = m["near"], m["far_at_control_rate"], m["far_at_full_speed"]

    def each(rows: Mapping[str, Any], name: str) -> str:
        return ", ".join(_number(row[name]) for row in rows.values())

    robots = f"{', '.join(near)} robots"
    load = f"{m['chunks_per_robot']} chunks a robot; load {m['load_average']:.1f}"
    latency = f"median {each(paced, 'chunk_latency_p50_ms')} ms; p99 {each(paced, 'chunk_latency_p99_ms')} ms"
    rates = f"{each(full, 'chunks_per_s')}; near {each(near, 'chunks_per_s')}"
    return [
        (f"wait for a chunk of one server, {robots} at {_number(m['control_rate_hz'])} Hz{where}", latency, load),
        (f"its chunks a second, {robots} at full speed{where}", rates, load),
    ]


def soak_rows(where: str, record: Record) -> list[Row]:
    """A server under damaged messages, and for hours."""
    attacked, driven = record["metrics"]["under_attack"], record["metrics"]["drive"]
    return [
        (
            f"{_number(attacked['messages'])} damaged messages to a server while it serves a good robot{where}",
            f"{attacked['good_robot_differences']} of its actions differ from those near by",
            f"{_number(attacked['good_robot_steps'])} control steps",
        ),
        (
            f"memory of a server over {driven['simulated_hours']:.2g} h of control{where}",
            f"{driven['rss_mb_after_warm_up']:.0f} MB after the warm-up, {driven['rss_mb_last']:.0f} MB at the end",
            f"{_number(driven['control_steps'])} steps, {driven['times_real_time']:.1f} times real time",
        ),
    ]


@dataclass(frozen=True)
class Result:
    """A result file.

    Attributes:
        title: Heading, and what the README's row says while there is no file.
        rows: Makes the README's rows, from `place` and the record.
        place: Robot or device, for the rows.
        expected: Whether its absence is worth a row.
    """

    title: str
    rows: Callable[[str, Record], list[Row]]
    place: str = ""
    expected: bool = True


FILES = {
    "nano_demo_viperx": Result("Demonstration, ViperX", demo_rows, "ViperX"),
    "nano_demo_so101": Result("Demonstration, SO-101", demo_rows, "SO-101"),
    "step_cost": Result("Cost beside ACT and Diffusion Policy", cost_rows),
    "long_episode": Result("Cost over a long episode", episode_rows),
    "cache_speed_256": Result("Loading with and without cached latents", cache_rows),
    "lossless": Result("Nothing computed twice", lossless_rows, expected=False),
    "lossless_cuda": Result("Nothing computed twice, GPU", lossless_rows, " (GPU)", expected=False),
    "lossy_settings": Result("Fewer passes through the network", speed_rows),
    "flash": Result("Flash in one step", flash_rows),
    "injected_latency": Result("Chunks that come late", latency_rows),
    "adaptation": Result("A new arm from five minutes of play", adaptation_rows, " (UR5e)"),
    "serving": Result("One server, several robots", serving_rows),
    "soak": Result("A server for hours, and under damaged messages", soak_rows),
    "two_processes": Result("Two processes beside one", process_rows, expected=False),
    "step_cost_cuda": Result("Cost beside ACT and Diffusion Policy, GPU", cost_rows, " (GPU)", expected=False),
    "long_episode_cuda": Result("Cost over a long episode, GPU", episode_rows, " (GPU)", expected=False),
}


def readme_table(folder: Path) -> str:
    """The table of README.md."""
    rows: list[tuple[str, ...]] = []
    for name, result in FILES.items():
        record = load(folder / f"{name}.json")
        if record is not None:
            source = (machine(record), str(record["date"])[:10], f"`{record['commit']}`", f"`{record['command']}`")
            rows += [(*row, *source) for row in result.rows(result.place, record)]
        elif result.expected:
            rows.append((result.title, NOT_YET, *[""] * 5))
    return table(COLUMNS, rows)


# Sections of docs/results.md


def results_page(folder: Path) -> str:
    """Every number of every file."""
    parts = []
    for name, result in FILES.items():
        record = load(folder / f"{name}.json")
        if record is None:
            missing = f"## {result.title}\n\nNot yet measured: `benchmarks/results/{name}.json` does not exist."
            parts += [missing] if result.expected else []
            continue
        seed = record.get("seed")
        parts.append(
            f"## {result.title}\n\n`benchmarks/results/{name}.json`: {str(record['date'])[:10]}, commit "
            f"`{record['commit']}`, {machine(record)}{'' if seed is None else f', seed {seed}'}.\n\n"
            f"```bash\n{record['command']}\n```"
        )
        metrics = dict(record["metrics"])
        if result.rows is demo_rows:
            parts += _demo_sections(metrics)
        if result.rows is adaptation_rows:
            parts += _adaptation_sections(metrics)
        if result.rows is latency_rows:
            parts += _latency_sections(metrics)
        parts += _sections(metrics)
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


def _demo_sections(metrics: dict[str, Any]) -> list[str]:
    """Success tables with their intervals; takes what it shows out of `metrics`."""
    for shown in ("success_rate", "n_episodes", "success_wilson_95"):
        metrics.pop(shown)
    header = ("Condition", "Success", "n, 95 % interval")
    conditions = metrics.pop("success_by_condition")
    parts = [table(header, [(name, _rate(o), _interval(o)) for name, o in conditions.items()])]
    tasks = metrics.pop("success_by_task", {})
    if tasks:
        cells = {name: {"successes": t["successes"], "n_episodes": t["episodes"]} for name, t in tasks.items()}
        parts.append(table(("Task", *header[1:]), [(name, _rate(o), _interval(o)) for name, o in cells.items()]))
    return parts


def _latency_sections(metrics: dict[str, Any]) -> list[str]:
    """One row per latency and way; takes what it shows out of `metrics`."""
    ways, rows = metrics.pop("by_way_and_latency_ms"), []
    for latency in next(iter(ways.values())):
        for way, found in ways.items():
            cell = found[latency]
            moved = _change(cell["against_synchronous"]) if "against_synchronous" in cell else ""
            waited = f"{100 * cell['waited_share']:.0f} %"
            rows.append((f"{latency} ms", way, _interval(cell), moved, _number(cell["jerk_rad_per_s3"]), waited))
    header = ("Latency", "Way", "Success", "Against synchronous, paired", "Jerk, rad/s³", "Steps without an action")
    return [table(header, rows)]


def _adaptation_sections(metrics: dict[str, Any]) -> list[str]:
    """One row per seed and way of adapting; takes what it shows out of `metrics`."""
    arm, rows = metrics["arm"], []
    for seed, ways in metrics.pop("by_seed").items():
        for way in ("adapted", "heads_from_scratch"):
            found = ways[way]
            error, still = (found["action_error_share_of_range"][case] for case in ("after", "hold_still"))
            rows.append((seed, _words(way), f"{100 * error:.1f} %", f"{100 * still:.1f} %", _interval(found)))
    return [table(("Seed", "Way", "Action error, of the range", "Holding still", f"Instructed success, {arm}"), rows)]


def _sections(metrics: Mapping[str, Any]) -> list[str]:
    """Tables of numbers: dicts of dicts as one table, dicts as a list, single numbers together."""
    single = {name: value for name, value in metrics.items() if not isinstance(value, Mapping)}
    parts = [_two_columns(single)] if single else []
    for name, value in metrics.items():
        if not isinstance(value, Mapping) or not value:
            continue
        parts.append(f"**{_words(name).capitalize()}**")
        if all(isinstance(inner, Mapping) for inner in value.values()):
            keys = list(dict.fromkeys(key for inner in value.values() for key in inner))
            rows = [(_words(n), *(_value(inner.get(key, "")) for key in keys)) for n, inner in value.items()]
            parts.append(table(("", *map(_words, keys)), rows))
        else:
            parts.append(_two_columns(value))
    return parts


def _two_columns(values: Mapping[str, Any]) -> str:
    return table(("Quantity", "Value"), [(_words(name), _value(value)) for name, value in values.items()])


# Words and numbers


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(record: Record) -> str:
    """The machine in a few words, from text or from what the benchmarks write."""
    found = record["machine"]
    if isinstance(found, str):
        return found
    accelerator = found["accelerator"]
    return f"{found['processor']}, cores: {found['cores']}{'' if accelerator == 'none' else f', {accelerator}'}"


def _rate(outcome: Mapping[str, int]) -> str:
    return f"{100 * outcome['successes'] / outcome['n_episodes']:.0f} %"


def _interval(outcome: Mapping[str, int]) -> str:
    low, high = wilson_interval(outcome["successes"], outcome["n_episodes"])
    return f"{outcome['successes']} of {outcome['n_episodes']}, {100 * low:.0f}–{100 * high:.0f} %"


def _change(found: Mapping[str, Any], prefix: str = "") -> str:
    low, high = found[f"{prefix}change_95"]
    return f"{100 * found[f'{prefix}change']:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float) -> str:
    """Three significant digits, whole numbers in full."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _value(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) if len(value) <= 8 else f"{len(value)} values, see the file"
    return str(value)


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
    return {path: filled(path.read_text(encoding="utf-8"), text, path.name) for path, text in contents.items()}


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
