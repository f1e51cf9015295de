"""What each difference from the official closed loop does to a policy's actions and imagination.

Takes the policy and the recordings of a finished `lerobot-wam demo`. Each case plans the same chunk of the same
episode, from the same noise, with one thing changed. Three numbers per case: the mean absolute error of the actions
against what the expert did, the distance of the actions from those of the reference, and the distance of the imagined
latents from the reference's in percent of their norm.

- second chunk: one whole block has been observed. The reference is this package's loop.
- sampler: 16 UniPC steps. The reference computes all of them.
- full window: the reference is the window written anew without its oldest chunk. The window of the demonstration holds
  two chunks; the same weights with a window of four show what sliding costs where more than one chunk is kept.

A block that begins with a copy of its own first frame (spec §3.3) is not among the cases: the codec of nano has no
memory from one latent to the next, so there it changes nothing.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.common import command_line, write_result
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.report.clips import Clip, open_episodes, read_clip
from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.state import Dream, LoopRules, Session

POLICY = Path("train", "checkpoints", "last", "pretrained_model")
SKIPPING = ("8", "7", "6", "5", "dynamic")
LONG_WINDOW = 4  # chunks

# Plans the chunk in question for a clip, with the noise of a seed.
Case = Callable[[Clip, int], Dream]


def with_changes(runtime: Runtime, **changes: Any) -> Runtime:
    """The runtime with some of its arguments changed."""
    arguments: dict[str, Any] = {
        "model": runtime.model,
        "video_codec": runtime.video_codec,
        "text_codec": runtime.text_codec,
        "action_spaces": runtime.action_spaces,
        "sampler": runtime.sampler,
        "video_stride": runtime.video_stride,
        "rules": LoopRules(),
    }
    return Runtime(**(arguments | changes))


def rebuilt(model: WorldActionModel, **changes: Any) -> WorldActionModel:
    """The same weights under another configuration."""
    other = WorldActionModel(replace(model.config, **changes)).eval()
    other.load_state_dict(model.state_dict())
    return other


def calls(runtime: Runtime, clips: Sequence[Sequence[int]], clip: Clip, seed: int) -> Dream:
    """The last of several calls, each with these frames of the clip; all draw the chunk's noise afresh."""
    session = runtime.new_session(seed)
    for frames in clips:
        dream = call(runtime, session, frames, clip, seed)
    return dream


def call(runtime: Runtime, session: Session, frames: Sequence[int], clip: Clip, seed: int) -> Dream:
    session.generator.manual_seed(seed)
    newest = max(frames)
    prompt = runtime.action_spaces[0].spec.render_prompt(clip.task)
    return runtime.plan_frames([session], [clip.frames[list(frames)]], [clip.states[newest]], [prompt])[0]


def second_chunk(runtime: Runtime) -> tuple[int, dict[str, Case]]:
    """Cases that differ in what the loop knows at the second chunk; the first is the reference."""
    eight = range(1, runtime.block_frames)
    newest = eight[-1]

    def oldest(clip: Clip, seed: int) -> Dream:
        return calls(runtime, [[1]], replace(clip, states=clip.states[newest].expand_as(clip.states)), seed)

    state = with_changes(runtime, model=rebuilt(runtime.model, state_self_only=False))
    padded = with_changes(runtime, rules=LoopRules(padded_actions="noise"))
    return newest, {
        "this package": partial(calls, runtime, [[0], eight]),
        "the state token reads everything": partial(calls, state, [[0], eight]),
        "every other frame, shown twice": partial(calls, runtime, [[0], eight[1::2]]),
        "dimensions that the robot lacks hold noise": partial(calls, padded, [[0], eight]),
        "window restarted on the newest frame (early replan, RTC)": partial(calls, runtime, [[newest]]),
        "window restarted on the oldest of eight frames": oldest,
    }


def sampler(runtime: Runtime) -> tuple[int, dict[str, Case]]:
    """Cases that differ in the steps that are computed."""
    full = replace(runtime.sampler, solver="unipc", steps=16)
    eight = range(1, runtime.block_frames)
    cases: dict[str, Case] = {}
    for name in ("all", *SKIPPING):
        made = with_changes(runtime, sampler=replace(full, computed_steps=name))
        cases[f"{name} of 16 steps computed" if name != "dynamic" else "steps skipped by similarity"] = partial(
            calls, made, [[0], eight]
        )
    return eight[-1], cases


def full_window(runtime: Runtime) -> tuple[int, dict[str, Case]]:
    """Cases that differ in what is left of a window that was full."""
    chunks, block = runtime.model.config.max_chunks, runtime.block_frames - 1
    blocks = [range(chunk * block + 1, (chunk + 1) * block + 1) for chunk in range(chunks)]
    newest = blocks[-1][-1]
    sliding = with_changes(runtime, rules=LoopRules(window_full="slide"))
    kept = [range(b[0] - 1, b[-1] + 1) for b in blocks[1:]]  # each with the frame that it begins with
    return newest, {
        "written anew without the oldest chunk": partial(calls, runtime, [[0], *kept]),
        "slid": partial(calls, sliding, [[0], *blocks]),
        "restarted on the newest frame": partial(calls, runtime, [[newest]]),
    }


def long_clips(policy: WAMPolicy, root: Path, frames: int, count: int) -> Iterator[Clip]:
    """The first `count` clips of a dataset that have enough frames, actions included."""
    steps = frames * policy.config.video_stride
    dataset = open_episodes(policy, root=root, chunks=math.ceil((steps + 1) / policy.config.chunk_steps) + 1)
    lengths = dataset.meta.episodes["length"]
    for episode in [index for index, length in enumerate(lengths) if length > steps][:count]:
        yield read_clip(policy, dataset, episode)


def compare(policy: WAMPolicy, root: Path, cases: tuple[int, dict[str, Case]], count: int) -> dict[str, Any]:
    """Run every case on `count` clips, each with a noise of its own."""
    newest, named = cases
    errors: dict[str, list[float]] = {name: [] for name in named}
    moved: dict[str, list[float]] = {name: [] for name in named}
    distance: dict[str, list[float]] = {name: [] for name in named}
    clips = list(long_clips(policy, root, newest, count))
    for seed, clip in enumerate(tqdm(clips, desc=next(iter(named)), disable=None)):
        truth = clip.actions[newest * policy.config.video_stride :][: policy.config.chunk_steps]
        made = {name: case(clip, seed) for name, case in named.items()}
        reference = next(iter(made.values()))
        for name, dream in made.items():
            errors[name].append((dream.actions[: len(truth)] - truth).abs().mean().item())
            moved[name].append((dream.actions - reference.actions).abs().mean().item())
            assert dream.latents is not None
            assert reference.latents is not None
            away = (dream.latents - reference.latents).norm() / reference.latents.norm()
            distance[name].append(100 * away.item())
    return {
        "clips": len(clips),
        "cases": {
            name: {
                "action_error_rad": statistics.fmean(errors[name]),
                "action_error_rad_standard_error": statistics.stdev(errors[name]) / math.sqrt(len(errors[name])),
                "action_distance_rad": statistics.fmean(moved[name]),
                "latent_distance_percent": statistics.fmean(distance[name]),
            }
            for name in named
        },
    }


def measure(demo: Path, clips: int, threads: int) -> dict[str, Any]:
    """Everything, on the policy and the recordings in `demo`."""
    torch.set_num_threads(threads)
    policy = WAMPolicy.from_pretrained(demo / POLICY).eval()
    runtime = with_changes(policy.runtime)
    longer = with_changes(runtime, model=rebuilt(runtime.model, max_chunks=LONG_WINDOW))
    held_out, trained_on = demo / "held_out", demo / "dataset"
    return {
        "threads": threads,
        "second_chunk": compare(policy, held_out, second_chunk(runtime), clips),
        "sampler": compare(policy, held_out, sampler(runtime), clips),
        "full_window": compare(policy, trained_on, full_window(runtime), clips),
        "full_window_of_four_chunks": compare(policy, trained_on, full_window(longer), clips),
    }


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("outputs/demo"), help="a finished demonstration's folder")
    parser.add_argument("--clips", type=int, default=24, help="episodes per comparison (default: 24)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on the CPU (default: 1)")
    args = parser.parse_args(arguments)
    if not (args.demo / POLICY).is_dir():
        parser.error(f"{args.demo} holds no trained policy: run lerobot-wam demo --out={args.demo}")
    metrics = measure(**vars(args))
    for group, found in metrics.items():
        if group != "threads":
            print(f"\n{group}, {found['clips']} clips: action error, its standard error, action and latent distance")
            for name, case in found["cases"].items():
                print(f"  {name:60}", *(f"{value:9.4f}" for value in case.values()))
    write_result("official_fixes", metrics, 0, command_line("official_fixes", arguments))


if __name__ == "__main__":
    main()
