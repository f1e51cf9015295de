"""What cached latents save: the loader's samples with and without them, in one process on one thread.

Records a dataset with two cameras as LeRobot does (video files), encodes its windows with `lerobot-wam cache`'s code,
and draws samples from the same mixture both ways. A sample counts from nothing to clean latents: reading, decoding,
tiling and the video codec, which is the training-free one of nano; Wan's would make the difference larger. Core-seconds
are the process's, all threads included.

example:
  python -m benchmarks.cache_speed --size=256
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.video_utils import get_safe_default_video_backend
from tqdm import tqdm

from benchmarks.common import command_line, options, result_name, write_result
from lerobot_wam.data.batch import LATENT, WINDOW
from lerobot_wam.data.mixture import Mixture
from lerobot_wam.data.recipe import MixtureEntry, MixtureRecipe
from lerobot_wam.embodiments.datasets import derive_embodiment
from lerobot_wam.frozen import FrozenCodecs, video_key
from lerobot_wam.training.caching import fill_caches, plan_caches
from lerobot_wam.training.loop import window_shape

FPS, EPISODES, FRAMES, JOINTS = 30, 2, 90, 6
CAMERAS = ("observation.images.left", "observation.images.right")


def record(root: Path, height: int, width: int) -> LeRobotDataset:
    """A square that moves over a smooth background, seen twice."""
    vector = {"dtype": "float32", "shape": (JOINTS,), "names": [f"joint_{i}" for i in range(JOINTS)]}
    video = {"dtype": "video", "shape": (height, width, 3), "names": ["height", "width", "channels"]}
    features = dict.fromkeys(CAMERAS, video) | {"observation.state": vector, "action": dict(vector)}
    dataset = LeRobotDataset.create("local/two_cameras", fps=FPS, features=features, root=root, use_videos=True)
    rows, cols = np.mgrid[:height, :width]
    ground = np.stack([rows % 256, cols % 256, (rows + cols) // 2 % 256], axis=2).astype(np.uint8)
    side = height // 8
    for episode in tqdm(range(EPISODES), desc="recording", unit="episode"):
        for step in range(FRAMES):
            place = np.sin(episode + 0.05 * step)
            picture = ground.copy()
            top, left = int((height - side) * (1 + place) / 2), int((width - side) * step / FRAMES)
            picture[top : top + side, left : left + side] = (200, 40, 40)
            joints = np.full(JOINTS, place, dtype=np.float32)
            frame = {"observation.state": joints, "action": joints, "task": "follow the square"}
            dataset.add_frame(frame | dict.fromkeys(CAMERAS, picture))
        dataset.save_episode()
    dataset.finalize()
    return dataset


def rates(sample: Callable[[int], object], count: int) -> dict[str, float]:
    """Samples per second and core-seconds per sample, after one that warms up."""
    sample(count)
    wall, cores = time.perf_counter(), time.process_time()
    for index in tqdm(range(count), unit="sample"):
        sample(index)
    wall, cores = time.perf_counter() - wall, time.process_time() - cores
    return {"samples_per_s": count / wall, "core_seconds_per_sample": cores / count}


def main() -> None:
    """Measure and write the result."""
    parser = options(__doc__, repetitions=40)
    parser.add_argument("--size", default="256", help="of the pictures: a number, or HEIGHTxWIDTH (256)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    height, width = (int(side) for side in (args.size.split("x") * 2)[:2])
    flags = [
        "--policy.type=wam",
        f"--policy.device={args.device}",
        f"--policy.image_size=[{height},{width}]",
        "--policy.max_chunks=4",
    ]
    with tempfile.TemporaryDirectory() as folder:
        dataset = record(Path(folder) / "recording", height, width)
        spec = derive_embodiment(dataset.features, FPS, "two_cameras", video_stride=1)
        (Path(folder) / "robot.yaml").write_text(spec.to_yaml())
        entry = MixtureEntry(
            "local/two_cameras", root=str(dataset.root), embodiment=str(Path(folder) / "robot.yaml"), name="recording"
        )
        recipe = MixtureRecipe((entry,))
        config, plans = plan_caches(flags, recipe)
        encoding = time.process_time()
        fill_caches(config, plans)
        encoding = time.process_time() - encoding
        shape, codec = window_shape(config), FrozenCodecs(config).video

        def pictures(index: int) -> torch.Tensor:
            pixels = (plain[index][WINDOW].float() / 255 * 2 - 1).to(args.device)
            return codec.encode(pixels[None].transpose(1, 2))

        plain = Mixture(recipe, shape, seed=args.seed)
        cached = Mixture(recipe, shape, seed=args.seed, codec=lambda: video_key(config))
        frames = plain[0][WINDOW].shape[0]
        without = rates(pictures, args.repetitions)
        with_cache = rates(lambda index: cached[index][LATENT].to(args.device), 10 * args.repetitions)
        metrics = {
            "cameras": len(CAMERAS),
            "height": height,
            "width": width,
            "frames_per_window": frames,
            "video_backend": get_safe_default_video_backend(),
            "without": without,
            "with": with_cache,
            "core_seconds_ratio": without["core_seconds_per_sample"] / with_cache["core_seconds_per_sample"],
            "samples_per_s_ratio": with_cache["samples_per_s"] / without["samples_per_s"],
            "windows_encoded": plans[0].cache.windows,
            "core_seconds_to_encode_each": encoding / plans[0].cache.windows,
            "megabytes_each": plans[0].window_bytes / 1e6,
        }
    for name, value in metrics.items():
        print(f"{name:28} {value}")
    write_result(
        result_name(f"cache_speed_{args.size}", args.device),
        metrics,
        args.seed,
        command_line("cache_speed", sys.argv[1:]),
    )


if __name__ == "__main__":
    main()
