"""What a dream starts from and is compared with: a recorded stretch of an episode, or a single picture."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lerobot.datasets import LeRobotDataset, LeRobotDatasetMetadata
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lerobot_wam.data.batch import ACTION, ACTION_IS_PAD, STATE, WINDOW, WINDOW_IS_PAD
from lerobot_wam.data.recipe import MixtureEntry
from lerobot_wam.data.source import Source, WindowShape
from lerobot_wam.data.views import tile_views
from lerobot_wam.embodiments.datasets import check_dataset
from lerobot_wam.embodiments.resolve import load_stored_embodiment
from lerobot_wam.embodiments.spec import EmbodimentSpec
from lerobot_wam.modeling_wam import WAMPolicy


@dataclass(frozen=True, eq=False)
class Clip:
    """A stretch of one episode as the policy sees it.

    Attributes:
        frames: Tiled view at the policy's video stride, the conditioning frame first, pixels in [-1, 1],
            [1 + T, 3, H, W]; T = 0 for a single picture.
        states: Physical state at each of these frames, [1 + T, S].
        actions: Recorded actions from the first frame on, one per control step, [R, A]; R = 0 without a recording.
        task: Instruction.
        source: Where it comes from, for people.
    """

    frames: Tensor
    states: Tensor
    actions: Tensor
    task: str
    source: str


def open_episodes(
    policy: WAMPolicy,
    repo_id: str | None = None,
    root: str | Path | None = None,
    chunks: int = 4,
    episodes: Sequence[int] | None = None,
) -> LeRobotDataset:
    """Open a dataset for `read_clip`: its items hold whole clips.

    Args:
        policy: Decides cameras, frame spacing and chunk length.
        repo_id: Hub id; with a root, only a name.
        root: Folder of a local dataset.
        chunks: Longest clip, in chunks.
        episodes: Episodes to load; None loads all.

    Raises:
        FileNotFoundError: The root holds no dataset (found before the Hub is asked).
        ValueError: Neither repo_id nor root, the dataset does not fit the policy's embodiment, or an episode does
            not exist.
    """
    if root is not None and not (Path(root) / "meta" / "info.json").is_file():
        raise FileNotFoundError(
            f"no dataset at {root}: expected a LeRobotDataset folder with meta/info.json; check --dataset.root"
        )
    if repo_id is None:
        if root is None:
            raise ValueError("no dataset given: name a folder with --dataset.root or a Hub id with --dataset.repo_id")
        repo_id = f"local/{Path(root).resolve().name}"
    meta = LeRobotDatasetMetadata(repo_id, root=root)
    spec, config = policy.action_spaces[policy.category].spec, policy.config
    unread = {key for key, dimensions in ((STATE, spec.state), (ACTION, spec.action)) if not dimensions}
    features = meta.features.keys() - unread  # a policy of video alone looks at recordings of robots too
    check_dataset(spec, {key: meta.features[key] for key in features}, meta.fps)
    for episode in episodes or ():
        _check_index("episode", episode, meta.total_episodes, "the dataset")
    steps = chunks * config.chunk_steps
    frames = [step / meta.fps for step in range(0, steps + 1, config.video_stride)]
    deltas = {key: frames for key in (*(c.key for c in spec.cameras), STATE) if key in features}
    if ACTION in features:
        deltas[ACTION] = [step / meta.fps for step in range(steps)]
    return LeRobotDataset(
        repo_id,
        root=root,
        episodes=None if episodes is None else list(episodes),
        delta_timestamps=deltas,
        video_backend="pyav",  # always there; the default may first explain at length that it is not
    )


def read_clip(
    policy: WAMPolicy, dataset: LeRobotDataset, episode: int, frame: int = 0, task: str | None = None
) -> Clip:
    """Read the stretch of an episode that starts at `frame` and ends with the episode or the dataset's clip length.

    Args:
        policy: As for `open_episodes`.
        dataset: What `open_episodes` returned.
        episode: Index of the episode in the whole dataset.
        frame: Control step inside the episode.
        task: Instruction; None takes the recorded one at `frame`.

    Raises:
        ValueError: No such episode, frame or instruction.
    """
    _check_index("episode", episode, dataset.meta.total_episodes, "the dataset")
    record = dataset.meta.episodes[episode]
    start, end = int(record["dataset_from_index"]), int(record["dataset_to_index"])
    _check_index("frame", frame, end - start, f"episode {episode}")
    position = dataset.absolute_to_relative_idx
    item = dataset[start + frame if position is None else position[start + frame]]
    spec = policy.action_spaces[policy.category].spec
    task = item["task"] if task is None else task
    if not task:
        raise ValueError(f"episode {episode} was recorded without an instruction: give one with --task")
    real = ~item[f"{spec.cameras[0].key}_is_pad"]
    views = {camera.key: item[camera.key][None] for camera in spec.cameras}
    pixels = tile_views(views, spec, policy.config.image_size, policy.config.head_resize)[0]
    states = item[STATE].float() if f"{STATE}_is_pad" in item else torch.zeros(len(real), 0)
    action_real = ~item[f"{ACTION}_is_pad"] if f"{ACTION}_is_pad" in item else None
    actions = torch.zeros(0, len(spec.action)) if action_real is None else item[ACTION][action_real].float()
    source = f"{dataset.repo_id}, episode {episode}, frame {frame}"
    return Clip(pixels[real] * 2 - 1, states[real], actions, task, source)


def picture_clip(policy: WAMPolicy, image: str | Path, task: str, state: Sequence[float] | None = None) -> Clip:
    """Make a clip of a single picture, resized to the policy's whole tiled view.

    Args:
        policy: Decides size and state.
        image: Picture file.
        task: Instruction.
        state: Physical state [S]; None takes the middle of the training data's range.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no picture, or the state has the wrong length.
    """
    if not Path(image).is_file():
        raise FileNotFoundError(f"no picture at {image}: check --image")
    spec = policy.action_spaces[policy.category].spec
    (height, width), (rows, cols) = policy.config.image_size, spec.grid
    height, width = policy.config.head_resize or (rows * height, cols * width)
    try:
        with Image.open(image) as file:
            picture = file.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    except UnidentifiedImageError:
        raise ValueError(f"{image} is not a picture that Pillow can read: give a PNG or JPEG with --image") from None
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1
    names = spec.state_names
    values = _middle_state(policy) if state is None else torch.tensor(state, dtype=torch.float32)
    if len(values) != len(names):
        raise ValueError(
            f"the state has {len(values)} numbers, expected {len(names)} ({', '.join(names)}): fix --state"
        )
    return Clip(pixels[None], values[None], torch.zeros(0, len(spec.action)), task, Path(image).name)


def window_clips(entry: MixtureEntry, spec: EmbodimentSpec, shape: WindowShape, count: int) -> list[Clip]:
    """Read stretches spread evenly over a recording, at the policy's rates whatever the recording's are.

    Args:
        entry: The recording and its episodes.
        spec: The robot, at the rate that it has in the policy.
        shape: The policy's windows; `max_chunks` is the length of a clip.
        count: How many clips; fewer where the recording has fewer steps.
    """
    source = Source(entry, 0, spec, 0, replace(shape, drop_n_last_frames=shape.chunk_steps))
    clips = []
    for number in np.linspace(0, source.starts - 1, min(count, source.starts)).round().astype(int).tolist():
        item = source.window(source.start(number))
        frames = item[WINDOW][~item[WINDOW_IS_PAD]] / 127.5 - 1
        states = item[STATE][:, : len(spec.state)].repeat_interleave(spec.frames_per_chunk, dim=0)
        actions = item[ACTION][~item[ACTION_IS_PAD]][:, : len(spec.action)]
        # A state is known for each chunk's start, and that is where one is read.
        states = torch.cat([states, states[-1:]])[: len(frames)]
        clips.append(Clip(frames, states, actions, item["task"], f"{entry.repo_id}, frame {int(item['index'])}"))
    return clips


def _middle_state(policy: WAMPolicy) -> Tensor:
    name = list(policy.config.embodiments)[policy.category]
    _, statistics = load_stored_embodiment(name, policy.config.embodiments[name])
    return torch.from_numpy((statistics.state_low + statistics.state_high) / 2).float()


def _check_index(what: str, index: int, count: int, where: str) -> None:
    if not 0 <= index < count:
        raise ValueError(f"{what} {index} does not exist: {where} has {count}, choose 0 to {count - 1}")
