"""Encode the windows of a mixture once, for every training that follows."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from lerobot.configs import parser
from lerobot.configs.train import TrainPipelineConfig
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from lerobot_wam.codecs.video import TEMPORAL_STRIDE, VideoCodec
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.data.batch import ANCHOR, CONDITION, LATENT, WINDOW
from lerobot_wam.data.latents import LatentCache
from lerobot_wam.data.recipe import MixtureRecipe
from lerobot_wam.data.source import Source
from lerobot_wam.data.texts import store_texts
from lerobot_wam.frozen import FrozenCodecs, text_key, video_key
from lerobot_wam.training.loop import command_line, make_mixture, swapped

GB = 1e9


@dataclass(frozen=True)
class CachePlan:
    """The cache of one dataset before it is made.

    Attributes:
        source: The dataset's windows.
        cache: Where their latents go.
        window_bytes: Size of a window on disk.
    """

    source: Source
    cache: LatentCache
    window_bytes: int

    @property
    def gigabytes(self) -> float:
        """Size on disk."""
        return self.cache.windows * self.window_bytes / GB


def plan_caches(
    arguments: Sequence[str], recipe: MixtureRecipe | None, phases: int = 1, crops: int = 1, dtype: str = "float32"
) -> tuple[WAMConfig, list[CachePlan]]:
    """Find out what there is to encode. No codec is loaded and nothing written.

    Args:
        arguments: Flags of the training that is to use the latents.
        recipe: Its mixture; None takes the dataset of the flags.
        phases: Starts of windows in the time of a chunk.
        crops: Windows at each start, where the embodiment has crops or colours to draw.
        dtype: Of the latents on disk.

    Returns:
        The policy's configuration and, per dataset, its plan.
    """
    config = _parsed([*arguments, "--policy.push_to_hub=false"], recipe)
    mixture = make_mixture(config, recipe, cached=False)
    policy = config.policy
    assert isinstance(policy, WAMConfig)
    plans = []
    for source in mixture.sources:
        each = crops if source.augments else 1
        windows = len(source.grid(phases)) * each
        cache = LatentCache(source.latents_folder, phases, each, dtype, windows)
        plans.append(CachePlan(source, cache, _window_bytes(policy, source, dtype)))
    return policy, plans


def fill_caches(config: WAMConfig, plans: Sequence[CachePlan], part: int = 0, parts: int = 1, workers: int = 0) -> None:
    """Encode what is missing.

    Each window is encoded alone, so its latents depend on nothing else, and any division of the work gives the same
    files.

    Args:
        config: The policy's, with its device.
        plans: What `plan_caches` found.
        part: Which of the `parts` this process does: every `parts`-th shard.
        parts: Processes that share the work.
        workers: Processes of the loader that decode and crop.
    """
    key, codecs = video_key(config), FrozenCodecs(config)
    for plan in plans:
        if deleted := plan.cache.begin(plan.source.latents_key(key)):
            print(deleted)
        if part == 0 and config.text_codec == "umt5":
            store_texts(plan.source.texts_folder, text_key(config), _prompts(config, plan.source), lambda: codecs.text)
    for plan in plans:
        cache = plan.cache
        shards = [shard for shard in cache.missing() if shard % parts == part]
        windows = [number for shard in shards for number in cache.windows_of(shard)]
        loader = iter(DataLoader(_Windows(plan, windows), batch_size=None, num_workers=workers))
        with tqdm(total=len(windows), desc=plan.source.entry.name, unit="window") as progress:
            for shard in shards:
                encoded = []
                for _ in cache.windows_of(shard):
                    encoded.append(_encode(codecs.video, next(loader).to(config.device), config, plan.source))
                    progress.update()
                cache.write(shard, {name: torch.stack([each[name] for each in encoded]) for name in encoded[0]})


def _parsed(arguments: Sequence[str], recipe: MixtureRecipe | None) -> TrainPipelineConfig:
    """LeRobot's configuration of a training with these flags."""

    @parser.wrap()
    def parsed(config: TrainPipelineConfig) -> TrainPipelineConfig:
        config.validate()
        return config

    with swapped(sys, argv=command_line(arguments, recipe)):
        return parsed()


class _Windows(Dataset):
    """The pictures [T, 3, H, W] of some windows of a cache, by their numbers."""

    def __init__(self, plan: CachePlan, numbers: Sequence[int]) -> None:
        self.source, self.crops, self.numbers = plan.source, plan.cache.crops, numbers
        self.grid = plan.source.grid(plan.cache.phases)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Tensor:
        number = self.numbers[index]
        # The number seeds the crop: it names the window, whoever encodes it.
        return self.source.window(int(self.grid[number // self.crops]), seed=number)[WINDOW]


@torch.no_grad()
def _encode(codec: VideoCodec, window: Tensor, config: WAMConfig, source: Source) -> dict[str, Tensor]:
    """What training takes in place of a window's picture [T, 3, H, W]."""
    pixels = (window.float() / 255 * 2 - 1)[None]
    frames_per_chunk = source.spec.frames_per_chunk
    encoded = {
        LATENT: codec.encode(pixels.transpose(1, 2))[0],
        ANCHOR: window[: config.max_chunks * frames_per_chunk : frames_per_chunk],
    }
    if config.condition_channels:
        encoded[CONDITION] = codec.condition(pixels[:, 0], encoded[LATENT].shape[1])[0]
    return {name: x.cpu() for name, x in encoded.items()}


def _prompts(config: WAMConfig, source: Source) -> list[str]:
    """The dataset's texts as the policy words them."""
    spec = source.spec
    spec = replace(spec, prompt=config.prompt_templates.get(spec.name, spec.prompt))
    return [spec.render_prompt(task) for task in source.tasks]


def _window_bytes(config: WAMConfig, source: Source, dtype: str) -> int:
    rows, cols = source.spec.grid
    height, width = config.head_resize or (rows * config.image_size[0], cols * config.image_size[1])
    frames = len(source.timing.frame_offsets)
    latents = 1 + (frames - 1) // TEMPORAL_STRIDE
    cells = latents * (height // config.codec_patch) * (width // config.codec_patch)
    numbers = (config.latent_channels + config.condition_channels) * cells
    return numbers * getattr(torch, dtype).itemsize + config.max_chunks * 3 * height * width
