"""Let a trained policy dream, and see it beside what really happened.

From a frame of a dataset (or a picture) and an instruction the policy imagines the next chunks of video together with
the actions that make them happen. Writes dream.mp4, filmstrip.png, actions.svg and metrics.json.

examples:
  lerobot-wam dream --policy.path=outputs/demo/train/checkpoints/last/pretrained_model \\
      --dataset.root=outputs/demo/held_out --episode=3
  lerobot-wam dream --policy.path=... --dataset.root=... --loop=open --chunks=4 --task="touch the blue cube" --gif
  lerobot-wam dream --policy.path=... --image=desk.png --task="push the red cube away"
"""

import argparse
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from lerobot_wam.modeling_wam import WAMPolicy
    from lerobot_wam.report.clips import Clip
    from lerobot_wam.report.dream import DreamResult

HELP = "imagined video and actions from a dataset frame or a picture, beside the real ones"
MAX_DEFAULT_CHUNKS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument(
        "--policy.path",
        dest="policy_path",
        type=Path,
        required=True,
        metavar="DIR",
        help="checkpoint folder, or its id on the Hub",
    )
    start = parser.add_argument_group("where to start")
    start.add_argument("--dataset.root", dest="root", type=Path, metavar="DIR", help="folder of a LeRobotDataset")
    start.add_argument("--dataset.repo_id", dest="repo_id", metavar="ID", help="or its id on the Hub")
    start.add_argument("--episode", type=int, default=0, metavar="N", help="episode of the dataset (0)")
    start.add_argument("--frame", type=int, default=0, metavar="N", help="control step inside the episode (0)")
    start.add_argument("--image", type=Path, metavar="FILE", help="a picture instead of a dataset; needs --task")
    start.add_argument(
        "--state",
        metavar="X,Y,...",
        help="with --image: the robot's state in physical units (the middle of the training data)",
    )
    start.add_argument("--task", metavar="TEXT", help="instruction (the recorded one)")
    what = parser.add_argument_group("what to dream")
    what.add_argument(
        "--mode",
        choices=("act", "simulate", "label"),
        default="act",
        help="act: video and actions (default); simulate: video of given actions; label: actions of the recorded video",
    )
    what.add_argument(
        "--loop",
        choices=("closed", "open"),
        default="closed",
        help="closed: every chunk starts from recorded frames (default); open: from the frames imagined before it",
    )
    what.add_argument(
        "--chunks", type=int, metavar="N", help=f"chunks to dream (as many as recorded, at most {MAX_DEFAULT_CHUNKS})"
    )
    what.add_argument(
        "--actions",
        type=Path,
        metavar="FILE.npy",
        help="with --mode=simulate: array [chunks x steps, dims] of physical actions (the recorded ones)",
    )
    what.add_argument("--seed", type=int, metavar="N", help="seed of the noise (the policy's)")
    parser.add_argument("--out", type=Path, default=Path("outputs/dream"), metavar="DIR", help="where to write")
    parser.add_argument("--gif", action="store_true", help="write dream.gif too")


def run(args: argparse.Namespace) -> int:
    """Dream, save, and print what came out.

    Raises:
        FileNotFoundError: The checkpoint, dataset or another file is missing.
        ValueError: The options contradict each other or do not fit the data.
    """
    _check(args)  # before the imports, which take seconds
    from lerobot_wam.modeling_wam import WAMPolicy
    from lerobot_wam.report.dream import dream
    from lerobot_wam.report.pictures import save_dream

    policy = WAMPolicy.from_pretrained(args.policy_path)
    clip = _clip(policy, args)
    actions = None if args.actions is None else _load_actions(args.actions)
    result = dream(policy, clip, args.mode, args.loop, args.chunks, actions, args.seed, progress=True)
    files = save_dream(result, args.out, gif=args.gif)
    print(_summary(result))
    print("wrote", *(f"  {path}" for path in files.existing()), sep="\n")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Find what is missing or contradictory before anything slow, or the Hub, is touched."""
    folder, config = args.policy_path, args.policy_path / "config.json"
    on_hub = not folder.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(folder)) is not None
    if not on_hub and not (config.is_file() and any(folder.glob("model*.safetensors"))):
        inside = folder / "checkpoints" / "last" / "pretrained_model"
        hint = "expected a folder with config.json and model.safetensors; check --policy.path"
        hint = f"did you mean {inside}?" if inside.is_dir() else hint
        raise FileNotFoundError(f"no checkpoint at {folder}: {hint}")
    if on_hub:  # its errors are short, those of the loading further below are not
        from huggingface_hub import hf_hub_download

        config = Path(hf_hub_download(str(folder), "config.json"))
    kind = json.loads(config.read_text(encoding="utf-8")).get("type")
    if kind != "wam":
        raise ValueError(f"{folder} holds a policy of type {kind!r}: only 'wam' policies dream")
    if args.image is not None:
        if args.root is not None or args.repo_id is not None:
            raise ValueError("--image and --dataset.* are both given: start from one of them")
        if args.task is None:
            raise ValueError("--image comes without an instruction: say what to do with --task")
        if args.mode == "label":
            raise ValueError("--mode=label needs a video: start from a dataset instead of --image")
        args.loop = "open"  # nothing recorded follows a picture
    elif args.root is None and args.repo_id is None:
        raise ValueError("nothing to start from: give --dataset.root=DIR, --dataset.repo_id=ID or --image=FILE")
    elif args.root is not None and not (args.root / "meta" / "info.json").is_file():
        raise FileNotFoundError(
            f"no dataset at {args.root}: expected a LeRobotDataset folder with meta/info.json; check --dataset.root"
        )
    if args.chunks is not None and args.chunks < 1:
        raise ValueError(f"--chunks is {args.chunks}, expected 1 or more")
    for option, path in (("--image", args.image), ("--actions", args.actions)):
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"no file {path}: check {option}")


def _clip(policy: "WAMPolicy", args: argparse.Namespace) -> "Clip":
    from lerobot_wam.report.clips import open_episodes, picture_clip, read_clip

    if args.image is not None:
        return picture_clip(policy, args.image, args.task, _numbers(args.state))
    chunks = args.chunks or MAX_DEFAULT_CHUNKS
    dataset = open_episodes(policy, args.repo_id, args.root, chunks, episodes=[args.episode])
    return read_clip(policy, dataset, args.episode, args.frame, args.task)


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"--state is {text!r}, expected numbers with commas between them: 0.1,-0.5,0") from None


def _load_actions(path: Path) -> "np.ndarray":
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except ValueError:
        raise ValueError(f"{path} is not a plain .npy array: write it with numpy.save") from None


def _summary(result: "DreamResult") -> str:
    """What came out, as a short table."""
    from lerobot_wam.report.pictures import score_rows

    seconds = sum(result.seconds) / result.chunks
    lines = [
        f"\n{result.source}: {result.task!r}",
        f"{result.mode}, {result.loop} loop: {result.chunks} chunks of {result.frames_per_chunk} frames, "
        f"{len(result.real)} compared with the recording, {seconds:.2f} s a chunk",
    ]
    if result.scores:
        lines.append(f"\n{'':22}{'PSNR moving':>12}{'PSNR':>9}{'SSIM':>7}")
    for name, key in score_rows(result).items():
        score = result.scores[key].summary()
        lines.append(f"{name:22}{_decibels(score['psnr_moving']):>12}{_decibels(score['psnr']):>9}{score['ssim']:7.2f}")
    if result.action_rmse and result.mode != "simulate":
        lines.append("\naction error (RMS)")
        units = dict(zip(result.action_names, result.action_units, strict=True))
        lines += [f"  {name:20}{error:>12.4f} {units[name]}" for name, error in result.action_rmse.items()]
    lines += [f"\nnote: {note}" for note in result.notes]
    return "\n".join(lines) + "\n"


def _decibels(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f} dB"
