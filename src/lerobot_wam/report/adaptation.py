"""The page of an adaptation: what another robot's joints are predicted with, before and after, and what it dreams."""

from collections.abc import Mapping, Sequence
from typing import Any

from lerobot_wam.report.charts import Series, line_chart
from lerobot_wam.report.dream import DreamResult
from lerobot_wam.report.environment import environment
from lerobot_wam.report.metrics import pool
from lerobot_wam.report.page import Command, Headline, NumberTable, ReportData, Timing
from lerobot_wam.report.pictures import dream_panel

SHOWN_DREAMS = 3


def video_scores(before: Sequence[DreamResult], after: Sequence[DreamResult]) -> dict[str, dict[str, float]]:
    """Pool the scores of all clips: the codec alone, the last frame repeated, and dreams before and after.

    Args:
        before: Dreams of the checkpoint that was adapted.
        after: Dreams of the same clips by the adapted policy.
    """
    kinds = {
        "codec alone": (after, "codec"),
        "last frame repeated": (after, "copy"),
        "imagined, before": (before, "imagined"),
        "imagined, after": (after, "imagined"),
    }
    return {name: pool([dream.scores[key] for dream in dreams]).summary() for name, (dreams, key) in kinds.items()}


def adaptation_page(
    result: Mapping[str, Any],
    before: Sequence[DreamResult],
    after: Sequence[DreamResult],
    seconds: Mapping[str, float],
    command: str,
    seed: int,
) -> ReportData:
    """Gather what the page shows.

    Args:
        result: What `adaptation.json` holds.
        before: Dreams of held-out clips before training.
        after: Dreams of the same clips by the weights that were kept.
        seconds: Wall time of each stage.
        command: What repeats the run.
        seed: Of the split and of training.
    """
    history = result["history"]
    first, best = history[0], next(entry for entry in history if entry["step"] == result["best"])
    still, copied = result["hold_still"], result["copy_last_motion"]
    yardstick = min(still["overall"], copied["overall"])
    video = video_scores(before, after)
    gain = video["imagined, after"]["psnr_moving"] - video["imagined, before"]["psnr_moving"]
    return ReportData(
        title=f"{result['embodiment']} joins a trained policy",
        lead=f"A world action model that had never seen this robot learned it from {len(result['episodes'])} recorded "
        f"episodes, beginning with the weights of {result['like']}. All numbers are of {len(result['held_out'])} "
        "episodes that it was not trained on.",
        headlines=[
            Headline(_percent(best["overall"] / yardstick - 1), "action error", "against the better yardstick"),
            Headline(_percent(best["overall"] / first["overall"] - 1), "action error", "against before training"),
            Headline(f"{gain:+.1f} dB", "imagined video", "moving pixels, against before"),
            Headline(str(result["best"]), "training steps", f"{history[-1]['step']} were tried"),
        ],
        tables=[_action_table(result, first, best), _video_table(video, len(after))],
        dreams=[dream_panel(dream) for dream in after[:SHOWN_DREAMS]],
        timings=[Timing(stage, wall) for stage, wall in seconds.items()],
        environment=environment(),
        seed=seed,
        commands=[Command("Adapt", command)],
        links={"adaptation.json": "adaptation.json", "video.json": "video.json"},
        notes=[
            "Open loop: each prediction starts from a recorded picture and state. How often the robot succeeds when it "
            "acts on its own predictions is another number.",
            "Training was stopped, and the weights chosen, by the error on these same held-out episodes, which makes "
            "it look a little better than it would on new ones.",
        ],
    )


def _action_table(result: Mapping[str, Any], first: Mapping[str, Any], best: Mapping[str, Any]) -> NumberTable:
    columns = {
        "before": first,
        "after": best,
        "hold still": result["hold_still"],
        "copy last motion": result["copy_last_motion"],
    }
    names = [
        f"{joint} ({unit})" if unit else joint for joint, unit in zip(result["joints"], result["units"], strict=True)
    ]
    rows = {name: [f"{kind['errors'][i]:.4f}" for kind in columns.values()] for i, name in enumerate(names)}
    together = "all joints, share of their range"
    rows[together] = [f"{100 * kind['overall']:.1f} %" for kind in columns.values()]
    steps = [entry["step"] for entry in result["history"]]
    lines = [Series("policy", steps, [100 * entry["overall"] for entry in result["history"]])]
    lines += [
        Series(name, [0, max(steps[-1], 1)], [100 * columns[name]["overall"]] * 2)
        for name in ("hold still", "copy last motion")
    ]
    return NumberTable(
        "Action error on held-out episodes",
        "Mean absolute difference between predicted and recorded actions over a chunk, for each joint. Two yardsticks "
        "need no policy: holding still (every target is the current position, a gripper keeps its last command), and "
        "copying the last motion (the chunk just done, again from where the robot is now).",
        list(columns),
        rows,
        [line_chart("error, % of the joints' range", lines, x_label="steps")],
        f"{result['windows']} windows. A joint's range is what it moves within a chunk of the training data.",
        strong=together,
    )


def _video_table(video: Mapping[str, Mapping[str, float]], clips: int) -> NumberTable:
    rows = {
        name: [f"{score['psnr_moving']:.1f} dB", f"{score['psnr']:.1f} dB", f"{score['ssim']:.2f}"]
        for name, score in video.items()
    }
    return NumberTable(
        "Dream quality on held-out episodes",
        "How close imagined frames are to recorded ones; more is closer, and the pixels that move are what counts. "
        "Repeating the last frame seen is the yardstick, the codec alone is the best that any imagination could reach.",
        ["PSNR, moving", "PSNR, all", "SSIM"],
        rows,
        note=f"{clips} clips, closed loop.",
    )


def _percent(share: float) -> str:
    return f"{100 * share:+.0f} %".replace("-", "−")
