"""Does the dream follow the action?

A policy is asked three things. Four trainings are cells with each seed: with coupled noise; with independent noise;
with this and one modality given clean in most chunks; and the same on play alone, in which no instruction foretells
the action:

- simulate: from one state it is given different chunks of actions and dreams the video of each; the simulator shows
  what each leads to. Is the dreamed motion of the right direction and size, is each dream closest to the film of its
  own chunk, and does nothing move where the arm holds still? The instruction is the same for all chunks of a state.
- label: it is given the recorded video of a chunk and finds the actions, beside acting without that video, holding
  still and repeating the last motion.
- act: it is told of each cube in turn, in one state and from the same noise. Does the arm go where it was told, does
  the dream show that cube's film, and do the dream and the arm agree?

Motion is measured on images alone (`branches.motion`); how well that method does is measured too, on the simulator's
own images and on those after the codec, which is the best that any dream can be. Recordings are of plain and of varied
scenes.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from functools import partial, reduce
from itertools import product
from operator import getitem
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from benchmarks.claims.branches import CHUNKS, HOLD, REVERSED
from benchmarks.claims.cells import Cell
from benchmarks.claims.contestants import CONTESTANTS, Data, train
from benchmarks.claims.data import ARM, entry, held_out, recorded
from benchmarks.claims.findings import Finding, Report, all_of, decided, not_yet
from benchmarks.claims.imagination import begin, measure, simulated
from benchmarks.claims.runs import steps
from benchmarks.claims.scales import NANO, Scale
from benchmarks.result_rows import words
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.report.page import NumberTable
from lerobot_wam.sim.episodes import Recipe

TITLE = "Does the dream follow the action?"
_INDEPENDENT = "--policy.noise_mode=independent"
_GIVEN = (_INDEPENDENT, "--policy.given_probability=0.7")
TRAININGS = {
    "given": ("seen:2,play:1", _GIVEN),
    "given_play": ("play", _GIVEN),
    "independent": ("seen:2,play:1", (_INDEPENDENT,)),
    "coupled": ("seen:2,play:1", ("--policy.noise_mode=coupled",)),
}
"""Name -> what is recorded, as `Recipe.tasks`, and flags of training."""
STARTS = {"smoke": 4, "cpu": 100, "gpu": 200}
"""States that chunks start from, by scale."""
FOLLOWS = 0.5
"""Share of dreams closest to the film of their own chunk, and cosine of motion, from which dreams follow the action."""
ROWS = {
    "method: cosine of motion measured on the simulator's images and the tool tip's": (
        "method.on_the_simulators_images.direction_cosine"
    ),
    "method: the same on images after the codec": "method.after_the_codec.direction_cosine",
    "simulate: dreams closest to the film of their own chunk": "simulate.dream.identified",
    "simulate: the same of films after the codec alone": "simulate.codec_alone.identified",
    "simulate: cosine of dreamed and real motion": "simulate.dream.direction_cosine",
    "simulate: the same after the codec alone": "simulate.codec_alone.direction_cosine",
    "simulate: size of dreamed motion, of the real one": "simulate.dream.size_ratio",
    "simulate: correlation of these sizes": "simulate.dream.size_correlation",
    "simulate: size of what moves while the arm holds still": "simulate.dream.hold_still_size_ratio",
    "simulate: distance of the dreams of one state, of the films'": "simulate.dream.spread_ratio",
    "label: action error, share of the range": "label.action_error_share_of_range.label",
    "the same of acting without the video": "label.action_error_share_of_range.act",
    "the same of holding still": "label.action_error_share_of_range.hold_still",
    "the same of repeating the last motion": "label.action_error_share_of_range.copy_last_motion",
    "act: the arm goes the asked way, of three": "act.arm_goes_the_asked_way",
    "act: the dream shows the asked way, of three": "act.dream_shows_the_asked_way",
    "act: cosine of dreamed motion and what the arm does": "act.dream_cosine_to_what_the_arm_does",
}
"""What the table says -> where it stands in a cell's metrics."""
_RECORDING = 13
_EPISODES = {"smoke": 8, "cpu": 450, "gpu": 1800}  # in plain scenes, and as many in varied ones
_TIMES_BUDGET = 2  # of the training time of the other claims: two modalities learn to explain one another


def cells(scale: Scale) -> list[Cell]:
    """All trainings with every seed."""
    return [
        Cell("counterfactual", f"{name}-seed_{seed}", seed, partial(measured, scale, name, seed))
        for seed, name in product(scale.seeds, TRAININGS)
    ]


def trained(scale: Scale, name: str, seed: int) -> tuple[Path, int]:
    """Return the last checkpoint of a training, done as far as it is not, and its optimizer steps."""
    (tasks, flags), episodes = TRAININGS[name], _EPISODES[scale.name]
    plain, varied = (
        recorded(
            scale,
            f"counterfactual-{tasks.replace(':', '_').replace(',', '-')}-{looks}",
            episodes,
            Recipe(tasks, ARM, seed=_RECORDING, looks=looks),
        )
        for looks in ("plain", "varied")
    )
    count = scale.steps or _TIMES_BUDGET * steps(scale, "clock", "ours_scratch")
    policy = train(
        CONTESTANTS["ours_scratch"],
        Data(plain, f"0:{episodes}"),
        steps=count,
        batch_size=scale.batch_size,
        seed=seed,
        folder=scale.outputs / "policies" / f"counterfactual_{name}-{count}_steps" / f"seed_{seed}",
        device=scale.device,
        video=[entry(varied, f"0:{episodes}")],
        flags=(*flags, *scale.flags, *scale.sizes[NANO]),
    )
    return policy, count


def measured(scale: Scale, name: str, seed: int) -> dict[str, Any]:
    """Train a policy and ask it everything; what a cell's file holds."""
    checkpoint, count = trained(scale, name, seed)
    policy = WAMPolicy.from_pretrained(checkpoint).to(scale.device).eval()
    recording = entry(held_out(scale, scale.seen, "plain"))
    tasks, flags = TRAININGS[name]
    about = {"flags": flags, "training_steps": count, "batch_size": scale.batch_size, "tasks": tasks}
    return about | measure(policy, ARM, begin(policy, ARM, STARTS[scale.name]), recording)


def report(scale: Scale, records: Mapping[str, Mapping[str, Any]]) -> Report:
    """Whether each training's dreams follow the action, and the numbers of both over the seeds that are there."""
    groups = {
        name: [r["metrics"] for seed in scale.seeds if (r := records.get(f"{name}-seed_{seed}"))] for name in TRAININGS
    }
    findings = [_finding(name, group if len(group) == len(scale.seeds) else None) for name, group in groups.items()]
    there = {words(name): group for name, group in groups.items() if group}
    rows = {row: {name: _text(mean(group, path)) for name, group in there.items()} for row, path in ROWS.items()}
    if not there:
        return Report(findings)
    windows = next(iter(there.values()))[0]["label"]["windows"]  # of the same held-out episodes for all
    about = (
        f"Means over {STARTS[scale.name]} states and all seeds, with 95 % intervals (normal) over the states alone; "
        f"labels over {windows} chunks of held-out episodes in every training."
    )
    lines = {row: list(texts.values()) for row, texts in rows.items()}
    table = NumberTable("What was asked", about, tuple(there), lines)
    return Report(findings, [table], {"by_training": rows})


def _finding(name: str, group: Sequence[Mapping[str, Any]] | None) -> Finding:
    claim = f"Given actions, a policy dreams what they lead to (training: {words(name)})."
    rule = (
        f"Holds where the 95 % intervals say that at least {100 * FOLLOWS:.0f} % of its dreams are closest to the "
        f"film of their own chunk, of {len(CHUNKS)}, and that the dreamed motion has a cosine of {FOLLOWS:g} or "
        "more with the simulator's; does not where one says less."
    )
    if not group:
        return not_yet(claim, rule)
    identified, cosine = (mean(group, f"simulate.dream.{what}") for what in ("identified", "direction_cosine"))
    return Finding(
        claim,
        rule,
        all_of(decided(bounds, FOLLOWS) for _, *bounds in (identified, cosine)),
        _text(identified),
        f"by chance {1 / len(CHUNKS):.2f}; cosine {_text(cosine)}",
    )


def mean(group: Sequence[Mapping[str, Any]], path: str) -> list[float]:
    """The mean over trainings of what stands at a path; with its bounds where it has any, which no training narrows."""
    found = [reduce(getitem, path.split("."), metrics) for metrics in group]
    values = [[one] if isinstance(one, float) else [one["mean"], *one["mean_95"]] for one in found]
    return [fmean(column) for column in zip(*values, strict=True)]


def _text(values: Sequence[float]) -> str:
    value, *bounds = (f"{value:.2f}" for value in values)
    return f"{value} ({' to '.join(bounds)})" if bounds else value


def picture(before: np.ndarray, real: Mapping[str, np.ndarray], dreamt: Mapping[str, np.ndarray]) -> Image.Image:
    """One state, several chunks: what the simulator shows of each above what a policy dreams.

    Args:
        before: The state's image, [S, S, 3] uint8.
        real: Chunk -> its film [K, S, S, 3] uint8, of which every other frame is shown.
        dreamt: Likewise.
    """
    edge, gap, margin, title = 2 * before.shape[0], 4, 66, 22
    columns = 1 + len(next(iter(real.values()))) // 2
    width, height = margin + columns * (edge + gap) + 2 * gap, title + 2 * (edge + gap)
    sheet = Image.new("RGB", (2 * width, math.ceil(len(real) / 2) * height), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, name in enumerate(real):
        left, top = number % 2 * width, number // 2 * height
        pen.text((left + margin, top + 3), name, fill=(40, 40, 40), font=font)
        for row, (who, film) in enumerate((("simulator", real[name]), ("dream", dreamt[name]))):
            y = top + title + row * (edge + gap)
            pen.text((left + 2, y + edge // 2 - 8), who, fill=(40, 40, 40), font=font)
            for column, frame in enumerate((before, *film[1::2])):
                tile = Image.fromarray(frame).resize((edge, edge), Image.Resampling.NEAREST)
                sheet.paste(tile, (left + margin + column * (edge + gap), y))
    return sheet


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw what a policy dreams of several chunks from one state.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="trained policy of the simulated ViperX")
    parser.add_argument("--state", type=int, default=0, help="which state (default: 0)")
    parser.add_argument("--out", type=Path, required=True, help="picture file, such as docs/counterfactual.webp")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    policy = WAMPolicy.from_pretrained(args.checkpoint).eval()
    state = begin(policy, ARM, args.state + 1)[-1]
    dreamt = dict(zip(CHUNKS, simulated(policy, [state])[0], strict=True))
    names = {"red": "toward the red cube", "blue": "toward the blue cube", HOLD: HOLD, REVERSED: REVERSED}
    real = {words: state.branches[name].frames for name, words in names.items()}
    picture(state.frame, real, {words: dreamt[name] for name, words in names.items()}).save(args.out, lossless=True)


if __name__ == "__main__":
    main()
