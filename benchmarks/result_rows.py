"""What the documents say of a result file: rows for summaries, tables for docs/results.md, words and numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lerobot_wam.report.charts import Interval
from lerobot_wam.report.statistics import wilson_interval

type Record = Mapping[str, Any]
type Row = tuple[str, str, str]  # what was measured, the result, and how many with which interval


# Rows of the summary, of which README.md shows some


def demo_rows(robot: str, record: Record) -> list[Row]:
    """The demonstration: success, its controls, imagination, time."""
    m, outcomes = record["metrics"], record["metrics"]["success_by_condition"]
    policy = {"successes": round(m["success_rate"] * m["n_episodes"]), "n_episodes": m["n_episodes"]}
    controls = {name: o for name, o in outcomes.items() if name not in ("policy", "two-stage")}
    counts = sorted({o["n_episodes"] for o in controls.values()})
    imagined, copied = (m["video_scores"][name]["psnr_moving"] for name in ("imagined", "copy"))
    return [
        (f"success on 12 tasks, new placements ({robot})", rate(policy), interval(policy)),
        (
            f"the same under controls ({robot})",
            ", ".join(f"{name} {rate(o)}" for name, o in controls.items()),
            f"{', '.join(map(str, counts))} each",
        ),
        (f"success on two-stage tasks ({robot})", rate(outcomes["two-stage"]), interval(outcomes["two-stage"])),
        (
            f"imagined video against repeating the last frame ({robot})",
            f"{imagined - copied:+.1f} dB PSNR of moving pixels ({imagined:.1f}, {copied:.1f})",
            f"{m['plan']['dreams']} held-out clips" if "plan" in m else "",
        ),
        (f"one chunk imagined and decoded ({robot})", f"{number(m['chunk_latency_p50_ms'])} ms", "median"),
        (f"the whole demonstration ({robot})", f"{sum(m['seconds'].values()) / 60:.0f} min", "one run"),
    ]


def cost_rows(where: str, record: Record) -> list[Row]:
    """Time of a training step and of a chunk, beside policies of the same size."""
    m = record["metrics"]
    steps = [
        f"{name} {number(row['train_step_ms_p50'])} ms ({row['frames_per_sample']} frames a sample)"
        for name, row in m["train"].items()
        if "resnet18" not in name
    ]
    chunks = [
        f"{name} {number(row['chunk_latency_p50_ms'])} ms" for name, row in m["act"].items() if "resnet18" not in name
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
            f"{m['last_over_first_window_cost']:.2f} times the cost ({number(first)}, {number(last)} ms a chunk)",
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
                f"{number(every['chunk_ms_p50'])} ms, {none['all_over_this']:.2f} times that of computing everything; "
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
        result = f"success {rate(row)}; actions {away:.2g} % of the joints' range from `exact`"
        rows.append((f"`--policy.speed={name}`, nano{where}", result, f"{interval(row)}; {change(row, 'success_')}"))
    return rows


def flash_rows(where: str, record: Record) -> list[Row]:
    """Flash in one step beside its coupled twin in eight."""
    m = record["metrics"]
    success = m["success"]
    result = f"success {rate(success['flash_1_step'])}, twin {rate(success['twin_8_steps'])}"
    against = m["flash_against_twin_8_steps"]
    seeds = f"{len(record['seed'])} training seeds, {against['scenes']} scenes"
    return [(f"Flash in 1 step, its coupled twin in 8{where}", result, f"{seeds}; {change(against)}")]


def latency_rows(where: str, record: Record) -> list[Row]:
    """Chunks that come late: standing still meanwhile, or going on."""
    ways = record["metrics"]["by_way_and_latency_ms"]
    rows = []
    for latency in next(iter(ways.values())):
        cells = {way: found[latency] for way, found in ways.items()}
        each = (f"{way} {rate(cell)} ({number(cell['jerk_rad_per_s3'])} rad/s³)" for way, cell in cells.items())
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
            f"{rate(success['adapted'])}; heads from scratch on the same play {rate(success['heads_from_scratch'])}",
            f"{interval(success['adapted'])}; {change(gain)}; {len(seeds)} seeds",
        ),
        (
            f"its action error on held-out play{arm}",
            f"{errors} % below the better of holding still and copying the last motion",
            f"{len(seeds)} seeds",
        ),
        (
            f"success on the arms known before, afterwards{arm}",
            f"{100 * kept['before']:.0f} % before, {100 * kept['after']:.0f} % after",
            f"{change(kept)}; {len(seeds)} seeds",
        ),
    ]


def serving_rows(where: str, record: Record) -> list[Row]:
    """Robots at one server, and beside the model."""
    m = record["metrics"]
    near, paced, full = m["near"], m["far_at_control_rate"], m["far_at_full_speed"]

    def each(rows: Mapping[str, Any], name: str) -> str:
        return ", ".join(number(row[name]) for row in rows.values())

    robots = f"{', '.join(near)} robots"
    load = f"{m['chunks_per_robot']} chunks a robot; load {m['load_average']:.1f}"
    latency = f"median {each(paced, 'chunk_latency_p50_ms')} ms; p99 {each(paced, 'chunk_latency_p99_ms')} ms"
    rates = f"{each(full, 'chunks_per_s')}; near {each(near, 'chunks_per_s')}"
    return [
        (f"wait for a chunk of one server, {robots} at {number(m['control_rate_hz'])} Hz{where}", latency, load),
        (f"its chunks a second, {robots} at full speed{where}", rates, load),
    ]


def soak_rows(where: str, record: Record) -> list[Row]:
    """A server under damaged messages, and for hours."""
    attacked, driven = record["metrics"]["under_attack"], record["metrics"]["drive"]
    return [
        (
            f"{number(attacked['messages'])} damaged messages to a server while it serves a good robot{where}",
            f"{attacked['good_robot_differences']} of its actions differ from those near by",
            f"{number(attacked['good_robot_steps'])} control steps",
        ),
        (
            f"memory of a server over {driven['simulated_hours']:.2g} h of control{where}",
            f"{driven['rss_mb_after_warm_up']:.0f} MB after the warm-up, {driven['rss_mb_last']:.0f} MB at the end",
            f"{number(driven['control_steps'])} steps, {driven['times_real_time']:.1f} times real time",
        ),
    ]


def surprise_rows(where: str, record: Record) -> list[Row]:
    """Reality against imagination, as a detector of what goes wrong."""
    m = record["metrics"]
    kinds, calm = m["disturbed"], m["undisturbed"]
    each = ", ".join(f"{kind} {found['auroc']:.2f}" for kind, found in kinds.items())
    noticed = ", ".join(f"{kind} {100 * found['detected']:.0f} %" for kind, found in kinds.items())
    alarms = f"{100 * calm['episodes_with_an_alarm']:.0f} % of undisturbed episodes have an alarm"
    steps = (kinds["all"][f"steps_{name}_median"] for name in ("to_alarm", "from_alarm_to_failure"))
    later = ", ".join(map(number, steps))
    reactions = m["success_by_reaction"]
    success = ", ".join(f"{reaction} {rate(found['all'])}" for reaction, found in reactions.items())
    count = f"{kinds['all']['n_episodes']} disturbed episodes, {calm['n_episodes']} undisturbed"
    return [
        (f"surprise tells disturbed from undisturbed episodes, area under ROC{where}", each, count),
        (f"disturbances noticed{where}", f"{noticed}; {alarms}", count),
        (f"control steps from disturbance to alarm, from alarm to failure{where}", later, "medians"),
        (f"success under disturbance, by `--policy.on_surprise`{where}", success, f"{count.partition(',')[0]} each"),
    ]


# Tables of docs/results.md; each takes what it shows out of the metrics


def demo_tables(metrics: dict[str, Any]) -> list[str]:
    """Success tables with their intervals; takes what it shows out of `metrics`."""
    for shown in ("success_rate", "n_episodes", "success_wilson_95"):
        metrics.pop(shown)
    header = ("Condition", "Success", "n, 95 % interval")
    conditions = metrics.pop("success_by_condition")
    parts = [table(header, [(name, rate(o), interval(o)) for name, o in conditions.items()])]
    tasks = metrics.pop("success_by_task", {})
    if tasks:
        cells = {name: {"successes": t["successes"], "n_episodes": t["episodes"]} for name, t in tasks.items()}
        parts.append(table(("Task", *header[1:]), [(name, rate(o), interval(o)) for name, o in cells.items()]))
    return parts


def latency_tables(metrics: dict[str, Any]) -> list[str]:
    """One row per latency and way; takes what it shows out of `metrics`."""
    ways, rows = metrics.pop("by_way_and_latency_ms"), []
    for latency in next(iter(ways.values())):
        for way, found in ways.items():
            cell = found[latency]
            moved = change(cell["against_synchronous"]) if "against_synchronous" in cell else ""
            waited = f"{100 * cell['waited_share']:.0f} %"
            rows.append((f"{latency} ms", way, interval(cell), moved, number(cell["jerk_rad_per_s3"]), waited))
    header = ("Latency", "Way", "Success", "Against synchronous, paired", "Jerk, rad/s³", "Steps without an action")
    return [table(header, rows)]


def surprise_tables(metrics: dict[str, Any]) -> list[str]:
    """One row per reaction and kind of disturbance."""
    rows = []
    for reaction, kinds in metrics.pop("success_by_reaction").items():
        for kind, found in kinds.items():
            moved = change(found["against_ignore"]) if "against_ignore" in found else ""
            rows.append((reaction, kind, rate(found), interval(found), moved))
    return [table(("Reaction", "Disturbance", "Success", "n, 95 % interval", "Against ignore, paired"), rows)]


def adaptation_tables(metrics: dict[str, Any]) -> list[str]:
    """One row per seed and way of adapting; takes what it shows out of `metrics`."""
    arm, rows = metrics["arm"], []
    for seed, ways in metrics.pop("by_seed").items():
        for way in ("adapted", "heads_from_scratch"):
            found = ways[way]
            error, still = (found["action_error_share_of_range"][case] for case in ("after", "hold_still"))
            rows.append((seed, words(way), f"{100 * error:.1f} %", f"{100 * still:.1f} %", interval(found)))
    return [table(("Seed", "Way", "Action error, of the range", "Holding still", f"Instructed success, {arm}"), rows)]


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


def seeds(record: Record) -> str:
    """One seed or several, without a thousands separator."""
    seed = record["seed"]
    return ", ".join(map(str, seed if isinstance(seed, list) else [seed]))


def days(record: Record) -> str:
    """The day it was measured, or the first and the last."""
    return " to ".join(str(date)[:10] for date in str(record["date"]).split("/"))


def commits(record: Record) -> str:
    """The commit that was measured; of several the newest, and how many others there are."""
    others = len(record["metrics"].get("cells_by_commit", ())) - 1
    return f"`{record['commit']}`{f' and {others} before' if others > 0 else ''}"


def rate(outcome: Mapping[str, int]) -> str:
    return f"{100 * outcome['successes'] / outcome['n_episodes']:.0f} %"


def success_interval(name: str, found: Mapping[str, Any], *, strong: bool) -> Interval:
    """One row of a chart, of what `paired.rate` says."""
    low, high = found["success_wilson_95"]
    return Interval(name, found["success_rate"], low, high, strong=strong)


def interval(outcome: Mapping[str, int]) -> str:
    low, high = wilson_interval(outcome["successes"], outcome["n_episodes"])
    return f"{outcome['successes']} of {outcome['n_episodes']}, {100 * low:.0f}–{100 * high:.0f} %"


def change(found: Mapping[str, Any], prefix: str = "") -> str:
    low, high = found[f"{prefix}change_95"]
    return f"{100 * found[f'{prefix}change']:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f}"


def leaves(found: Mapping[str, Any], *place: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Where in nested mappings each value stands, and the value."""
    for name, inner in found.items():
        if isinstance(inner, Mapping):
            yield from leaves(inner, *place, name)
        else:
            yield (*place, name), inner


def words(name: str) -> str:
    return name.replace("_", " ")


def number(value: float) -> str:
    """Three significant digits, whole numbers in full."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def shown(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) if len(value) <= 8 else f"{len(value)} values, see the file"
    return str(value)
