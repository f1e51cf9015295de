"""Surprise as a failure detector: does a policy notice that what happens is not what it dreamed, and does that help?

A trained policy drives the simulated arm. It is calibrated on its own successes in other, undisturbed scenes (which is
what `lerobot-wam calibrate` does with a recording of them). Then, in equal numbers of episodes, something happens at a
random step of the first chunks that the policy cannot foresee:

- object: the named cube is put 6 to 10 cm elsewhere, and success is judged from there;
- camera: the camera is pushed 3 to 6 cm aside, and stays there;
- lag: from then on every action reaches the arm 3 to 5 control steps late.

The same scenes are run undisturbed. Measured: how well the greatest surprise tells disturbed from undisturbed episodes,
and failures from successes (area under the ROC curve); how many disturbances are noticed at the calibrated threshold,
after how many steps, and how many steps before the episode's end; false alarms on undisturbed episodes; and success
with each reaction to surprise on the same scenes. Episodes are kept in --folder, what is there is not done again.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from scipy.stats import rankdata
from tqdm import tqdm

import lerobot_wam.plugin  # noqa: F401  (registers the policy)
from benchmarks.common import command_line, write_result
from benchmarks.injected_latency import observe
from benchmarks.paired import compared, rate
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.report.charts import Series, chart_grid, line_chart
from lerobot_wam.runtime.configured import dream_settings
from lerobot_wam.runtime.surprise import Alarm, Calibration, Reaction, Recorder, Watch
from lerobot_wam.sim.disturbances import FIRST, LAST, DisturbanceKind
from lerobot_wam.sim.env import TabletopEnv

NONE: DisturbanceKind = "none"
KINDS: dict[str, DisturbanceKind] = {"object": "push", "camera": "camera", "lag": "lag"}
REACTIONS = ("ignore", "replan", "shorten")
PUSHES = ",".join(f"{verb}-{cube}" for verb in ("left", "right", "away") for cube in ("red", "green", "blue"))
SPAN = 16
"""Control steps after a disturbance in which a scene is compared with itself undisturbed."""


class Episode(NamedTuple):
    """One episode: at which step something happened (or would have), and [step, surprise] of each compared latent."""

    seed: int
    at: int
    steps: int
    success: bool
    surprises: list[list[float]]

    def greatest(self, after: float = -math.inf, until: float = math.inf) -> float:
        """The greatest surprise of a span of steps; nan where nothing was compared."""
        return max((value for step, value in self.surprises if after < step <= until), default=math.nan)

    def first_alarm(self) -> float | None:
        """The first step after the disturbance at which surprise exceeds the threshold."""
        return next((step for step, value in self.surprises if step > self.at and value > 1), None)


def drive(policy: WAMPolicy, env: TabletopEnv, watching: Watch, kind: str, seed: int) -> Episode:
    """Run episode `seed` to its end; the same seed is disturbed at the same step whatever happens there."""
    runtime = policy.runtime
    runtime.watching = watching
    session = runtime.new_session(seed, policy.category)
    env.disturbance = KINDS.get(kind, NONE)
    seen, info = env.reset(seed=seed)
    surprises: list[list[float]] = []
    step, over = 0, False
    while not over:
        session.surprise = None
        (action,) = runtime.act([session], [observe(policy, env, seen)])
        if session.surprise is not None:
            surprises.append([step, session.surprise])
        seen, _, terminated, truncated, info = env.step(action.numpy())
        over, step = terminated or truncated, step + 1
    return Episode(seed, env.upset.step, step, bool(info["is_success"]), surprises)


def kept(file: Path) -> list[Episode]:
    """The episodes that a file holds, in order; a line that was cut off is none."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return [Episode(**json.loads(line)) for line in lines if line.endswith("}")]


def calibrate(policy: WAMPolicy, env: TabletopEnv, seeds: range, quantile: float, file: Path) -> Calibration:
    """Calibrate on undisturbed scenes in which the policy succeeds; what `file` holds is taken from there."""
    if not file.is_file():
        usual: tuple[list[torch.Tensor], ...] = ([], [])
        for seed in tqdm(seeds, desc="calibration"):
            recorder = Recorder(([], []))
            if drive(policy, env, recorder, NONE, seed).success:
                for found, new in zip(usual, recorder.errors, strict=True):
                    found += new
        source = f"the policy's successes in {len(seeds)} undisturbed scenes from {seeds.start}"
        made = Calibration.fit(usual, quantile, source, dream_settings(policy.config))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(vars(made)))
    return Calibration(**json.loads(file.read_text()))


def episodes(
    policy: WAMPolicy, env: TabletopEnv, alarm: Alarm, kind: str, seeds: Sequence[int], file: Path
) -> list[Episode]:
    """The episode of every seed; those that `file` lacks are run and added to it."""
    done = kept(file)[: len(seeds)]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as out:
        for row in range(len(seeds)):
            if row == len(done):
                done.append(drive(policy, env, alarm, kind, seeds[row]))
            out.write(json.dumps(done[row]._asdict()) + "\n")
            out.flush()
    return done


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Area under the ROC curve: the chance that a positive exceeds a negative, ties counting half; nan is left out."""
    positive, negative = ([x for x in values if math.isfinite(x)] for values in (positive, negative))
    if not positive or not negative:
        return None
    ranks = rankdata([*positive, *negative])[: len(positive)]
    return float((ranks.sum() - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))


def detection(disturbed: Sequence[Episode], undisturbed: Sequence[Episode], chunk: int) -> dict[str, Any]:
    """How well surprise finds the disturbances of some episodes; steps are control steps."""
    alone = {episode.seed: episode for episode in undisturbed}
    pairs = [(episode, alone[episode.seed]) for episode in disturbed if episode.seed in alone]
    spans = [[e.greatest(e.at, e.at + SPAN) for e in pair] for pair in pairs]
    spans = [pair for pair in spans if all(map(math.isfinite, pair))]
    alarms = [(episode, alarm) for episode in disturbed if (alarm := episode.first_alarm()) is not None]
    delays = [alarm - episode.at for episode, alarm in alarms]
    before_end = [episode.steps - alarm for episode, alarm in alarms if not episode.success]
    failed, succeeded = ([e.greatest() for e in disturbed if e.success == success] for success in (False, True))
    return rate([episode.success for episode in disturbed]) | {
        "auroc": auroc([e.greatest() for e in disturbed], [e.greatest() for e in undisturbed]),
        "auroc_same_scene_same_steps": auroc([pair[0] for pair in spans], [pair[1] for pair in spans]),
        "same_scenes": len(spans),
        "auroc_failure_among_disturbed": auroc(failed, succeeded),
        "detected": len(alarms) / len(disturbed),
        "detected_within_a_chunk": sum(delay <= chunk for delay in delays) / len(disturbed),
        "steps_to_alarm_median": statistics.median(delays) if delays else None,
        "steps_from_alarm_to_failure_median": statistics.median(before_end) if before_end else None,
    }


def false_alarms(undisturbed: Sequence[Episode], fps: float) -> dict[str, Any]:
    """What happens at the threshold where nothing does."""
    above = sum(value > 1 for episode in undisturbed for _, value in episode.surprises)
    compared_latents = sum(len(episode.surprises) for episode in undisturbed)
    failed, succeeded = ([e for e in undisturbed if e.success == success] for success in (False, True))
    return rate([episode.success for episode in undisturbed]) | {
        "episodes_with_an_alarm": sum(e.greatest() > 1 for e in undisturbed) / len(undisturbed),
        "successful_episodes_with_an_alarm": sum(e.greatest() > 1 for e in succeeded) / max(1, len(succeeded)),
        "alarms_per_minute": above / (sum(e.steps for e in undisturbed) / fps / 60),
        "latents_above_threshold": above / max(1, compared_latents),
        "auroc_failure": auroc([e.greatest() for e in failed], [e.greatest() for e in succeeded]),
    }


def measure(
    policy: WAMPolicy,
    env: TabletopEnv,
    calibration: Calibration,
    reactions: Sequence[Reaction],
    scenes: range,
    undisturbed: range,
    folder: Path,
) -> dict[str, dict[str, list[Episode]]]:
    """The episodes of every reaction and kind; a disturbance that an episode did not live to see is left out.

    Until its first alarm an episode is the same whatever the reaction, so one without any is not run again.
    """
    found: dict[str, dict[str, list[Episode]]] = {reaction: {} for reaction in reactions}
    base, still = found[reactions[0]], np.full(env.arm.dof, np.nan)
    for reaction, kind in tqdm([(r, k) for r in reactions for k in (*KINDS, NONE)], desc="kinds"):
        alarm = Alarm({policy.category: calibration}, reaction, {policy.category: still})
        file = folder / f"{reaction}_{kind}.jsonl"
        if kind not in base:
            done = episodes(policy, env, alarm, kind, undisturbed if kind == NONE else scenes, file)
            base[kind] = [episode for episode in done if kind == NONE or episode.steps > episode.at]
        else:
            surprised = [episode.seed for episode in base[kind] if episode.greatest() > 1]
            again = {episode.seed: episode for episode in episodes(policy, env, alarm, kind, surprised, file)}
            found[reaction][kind] = [again.get(episode.seed, episode) for episode in base[kind]]
    return found


def summary(found: Mapping[str, Mapping[str, list[Episode]]], chunk: int, fps: float) -> dict[str, Any]:
    """Everything that is published."""
    first = next(iter(found))
    plain = found[first]
    everything = [episode for kind in KINDS for episode in plain[kind]]
    detected = {kind: detection(plain[kind], plain[NONE], chunk) for kind in KINDS}
    detected["all"] = detection(everything, plain[NONE], chunk)
    success: dict[str, dict[str, Any]] = {reaction: {} for reaction in found}
    for reaction, by_kind in found.items():
        joined = {**by_kind, "all": [episode for kind in KINDS for episode in by_kind[kind]]}
        for kind, before in {**plain, "all": everything}.items():
            after = joined[kind]
            success[reaction][kind] = rate([e.success for e in after])
            if reaction != first:
                changes = compared([e.success for e in before], [e.success for e in after])
                success[reaction][kind][f"against_{first}"] = changes
    return {"undisturbed": false_alarms(plain[NONE], fps), "disturbed": detected, "success_by_reaction": success}


def roc(disturbed: Sequence[Episode], undisturbed: Sequence[Episode]) -> tuple[list[float], list[float]]:
    """Shares of undisturbed and of disturbed episodes with an alarm, over all thresholds."""
    levels = sorted({e.greatest() for e in (*disturbed, *undisturbed) if math.isfinite(e.greatest())}, reverse=True)

    def shares(of: Sequence[Episode]) -> list[float]:
        return [0.0, *(100 * sum(e.greatest() >= level for e in of) / len(of) for level in levels)]

    return shares(undisturbed), shares(disturbed)


def charts(found: Mapping[str, list[Episode]], shown: str = "object") -> str:
    """The ROC curves, and the surprise of one scene with and without a disturbance, as one SVG file."""
    curves = [Series(kind, *roc(found[kind], found[NONE])) for kind in KINDS]
    alone = {episode.seed: episode for episode in found[NONE]}
    candidates = [e for e in found[shown] if e.first_alarm() and e.seed in alone and alone[e.seed].greatest() <= 1]
    drawn = [line_chart("Disturbed episodes with an alarm (%)", curves, x_label="% of undisturbed")]
    if candidates:
        episode = min(candidates, key=lambda e: abs(e.steps - statistics.median(c.steps for c in candidates)))
        lines = [
            Series(name, [step for step, _ in seen], [surprise for _, surprise in seen])
            for name, seen in (("cube moved", episode.surprises), ("undisturbed", alone[episode.seed].surprises))
        ]
        lines.append(Series("threshold", [0, episode.steps], [1, 1], muted=True))
        drawn.append(line_chart("Surprise of one episode", lines, x_label="steps", marks=[episode.at]))
    return chart_grid(drawn, columns=2)


def show(metrics: Mapping[str, Any]) -> None:
    """Print what was found."""
    calm = metrics["undisturbed"]
    print(f"undisturbed: {calm['successes']}/{calm['n_episodes']}, with an alarm {calm['episodes_with_an_alarm']:.0%}")
    for kind, row in metrics["disturbed"].items():
        print(
            f"{kind:8} {row['successes']:>3}/{row['n_episodes']:<3} AUROC {row['auroc']} "
            f"(same steps {row['auroc_same_scene_same_steps']}), noticed {row['detected']:.0%}, "
            f"within a chunk {row['detected_within_a_chunk']:.0%}, after {row['steps_to_alarm_median']} steps"
        )
    for reaction, by_kind in metrics["success_by_reaction"].items():
        print(f"{reaction:8}", *(f"{kind} {row['successes']}/{row['n_episodes']}" for kind, row in by_kind.items()))


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="trained policy of the simulated arm")
    parser.add_argument("--arm", default="viperx", help="default: viperx")
    parser.add_argument("--tasks", default=PUSHES, help="default: the nine pushes")
    parser.add_argument("--scenes", type=int, default=70, help="of each kind of disturbance (default: 70)")
    parser.add_argument("--undisturbed", type=int, default=100, help="undisturbed scenes (default: 100)")
    parser.add_argument("--calibration", type=int, default=100, help="scenes to calibrate on (default: 100)")
    parser.add_argument("--quantile", type=float, default=0.98, help="of their latent frames (default: 0.98)")
    parser.add_argument("--reactions", default=",".join(REACTIONS), help=f"default: {','.join(REACTIONS)}")
    parser.add_argument("--episode-length", type=int, help="time limit in control steps (default: the task's)")
    parser.add_argument("--seed", type=int, default=400_000, help="first scene (default: 400000)")
    parser.add_argument("--folder", type=Path, default=Path("outputs/surprise"), help="default: %(default)s")
    args = parser.parse_args(arguments)
    reactions: list[Any] = args.reactions.split(",")
    if wrong := set(reactions) - set(get_args(Reaction)):
        parser.error(f"--reactions holds {', '.join(wrong)}; choose among {', '.join(get_args(Reaction))}")
    torch.set_num_threads(1)
    policy = WAMPolicy.from_pretrained(args.checkpoint).eval()
    env = TabletopEnv(args.tasks, args.arm, policy.config.image_size[0], episode_length=args.episode_length)
    scenes = range(args.seed, args.seed + args.scenes)
    undisturbed = range(args.seed, args.seed + args.undisturbed)
    quiet = range(args.seed - args.calibration, args.seed)
    calibration = calibrate(policy, env, quiet, args.quantile, args.folder / "calibration.json")
    found = measure(policy, env, calibration, reactions, scenes, undisturbed, args.folder)
    metrics = {
        "control_hz": env.metadata["render_fps"],
        "chunk_steps": policy.config.chunk_steps,
        "time_limit_steps": env._max_episode_steps,
        "calibrated_on": calibration.source,
        "quantile": calibration.quantile,
        "calibration_latents": calibration.latents,
        "threshold": calibration.threshold,
        "disturbed_at_step": [FIRST, LAST],
        **summary(found, policy.config.chunk_steps, env.metadata["render_fps"]),
    }
    show(metrics)
    (args.folder / "surprise.svg").write_text(charts(found[reactions[0]]))
    write_result("surprise", metrics, args.seed, command_line("surprise", arguments))


if __name__ == "__main__":
    main()
