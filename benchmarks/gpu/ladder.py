"""A ladder in one run: each rung adds one item to the one before, each speed is measured on every rung.

A robot with DROID's views sees random frames and acts chunk after chunk through windows of four; a chunk holds all of
its parts but text, which is encoded once a task: video autoencoder, image encoder at a window's start, observation and
denoising. Distances are of the first two chunks' actions from the same network in eager float32.
"""

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.frame import TINY_IMAGE, TINY_TEXT, Report, arguments, frame_size, model_config, random_model
from lerobot_wam.bench.measure import COMPARED, FirstChunk, Loop, allocated, distance, summarise
from lerobot_wam.bench.random_weights import random_image_codec, random_video_codec
from lerobot_wam.bench.roofline import Roofline, measure_roofline
from lerobot_wam.codecs.image import ImageCodec
from lerobot_wam.codecs.video import TEMPORAL_STRIDE, VideoCodec, VideoState
from lerobot_wam.codecs.wan_vae import WanVAECodec
from lerobot_wam.diffusion.sampler import SamplerConfig
from lerobot_wam.embodiments.action_space import ActionSpace, ActionStatistics
from lerobot_wam.embodiments.spec import CameraView, Dimension, EmbodimentSpec
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.presets import PRESETS, SPEEDS
from lerobot_wam.runtime.acceleration import EAGER, AccelerationSettings, accelerate
from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.state import Savings

MEASURED = ("flash", "fast", "official")
JOINTS, FPS, VIDEO_STRIDE = 8, 15.0, 3


@dataclass(frozen=True)
class Rung:
    """One set of items.

    Attributes:
        name: The item that it adds.
        savings: What is not computed twice.
        acceleration: How passes are run; None as they are.
    """

    name: str
    savings: Savings
    acceleration: AccelerationSettings | None = None


LADDER = (
    Rung("plain eager", Savings.none()),
    Rung("nothing twice", Savings()),
    Rung("attention backend", Savings(), AccelerationSettings()),
    Rung("compiled", Savings(), AccelerationSettings("compile")),
    Rung("CUDA graphs", Savings(), AccelerationSettings("graphs")),
    Rung("FP8", Savings(), AccelerationSettings("graphs", "fp8")),
)


class RandomText:
    """Random tokens in a text encoder's place, which is no part of a chunk."""

    def __init__(self, dim: int, length: int) -> None:
        self.dim, self.length = dim, length

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Tokens [B, length, dim] and a mask that is True everywhere."""
        tokens = torch.randn(1, self.length, self.dim, generator=torch.Generator().manual_seed(len(texts[0])))
        return tokens.expand(len(texts), -1, -1), torch.ones(len(texts), self.length, dtype=torch.bool)


class RandomLatents(VideoCodec):
    """Random latents in the video autoencoder's place, where diffusers is not installed."""

    temporal_stride = TEMPORAL_STRIDE

    def __init__(self, channels: int, cell: int) -> None:
        self.latent_channels, self.spatial_stride = channels, cell
        self.channel_weight = torch.ones(channels)

    def encode(self, video: Tensor) -> Tensor:
        """Latents [B, C, F, h, w]."""
        shape = (len(video), *self.latent_shape(*video.shape[2:]))
        return torch.randn(shape, generator=torch.Generator(video.device).manual_seed(0), device=video.device)

    def encode_next(self, frames: Tensor, state: VideoState | None = None) -> tuple[Tensor, VideoState]:
        """One latent frame, and nothing to remember."""
        return self.encode(frames[:, :, :1]), ()

    def decode(self, latents: Tensor) -> Tensor:
        """Refuse: dreams are not looked at here."""
        raise NotImplementedError("no video autoencoder here: install diffusers")


class RandomImage:
    """Random tokens in the image encoder's place, where transformers is not installed."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def encode(self, frame: Tensor) -> Tensor:
        """Tokens [B, 257, dim]."""
        generator = torch.Generator(frame.device).manual_seed(0)
        return torch.randn(len(frame), 257, self.dim, generator=generator, device=frame.device)


def video_codec(preset: str, args: argparse.Namespace) -> VideoCodec:
    fields = PRESETS[preset]
    if importlib.util.find_spec("diffusers") is None:
        return RandomLatents(fields["latent_channels"], fields["codec_patch"])
    sizes = {"base_dim": 4, "num_res_blocks": 1} if args.tiny else {}
    if args.tiny and preset == "wan2.2-5b":
        sizes["decoder_base_dim"] = 4
    return random_video_codec(fields["video_codec"], torch.device(args.device), args.seed, **sizes)


def image_codec(preset: str, args: argparse.Namespace) -> ImageCodec:
    if importlib.util.find_spec("transformers") is None:
        return RandomImage(TINY_IMAGE if args.tiny else PRESETS[preset]["image_dim"])
    sizes: dict[str, Any] = {}
    if args.tiny:
        sizes = {"hidden_size": TINY_IMAGE, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        sizes |= {"image_size": 28}
    return random_image_codec(torch.bfloat16, torch.device(args.device), args.seed, **sizes)


def left_out() -> dict[str, str]:
    """What is not part of the chunks, and why."""
    parts = {"video autoencoder": "diffusers", "image encoder": "transformers"}
    missing = {part: name for part, name in parts.items() if importlib.util.find_spec(name) is None}
    return {part: f"{name} is not installed" for part, name in missing.items()}


def robot() -> ActionSpace:
    joints = tuple(Dimension(f"joint_{index}", relative=True) for index in range(JOINTS))
    spec = EmbodimentSpec(
        "eight_joints",
        (CameraView("observation.images.tiled"),),
        tuple(Dimension(f"joint_{index}") for index in range(JOINTS)),
        joints,
        FPS,
        VIDEO_STRIDE,
        chunk_steps=PRESETS["wan2.2-5b"]["chunk_steps"],
    )
    one = np.ones(JOINTS)
    return ActionSpace(spec, ActionStatistics(-one[None], one[None], state_low=-one, state_high=one))


def sampler(preset: str, speed: str) -> SamplerConfig:
    """What the preset's policy samples with at this speed; Euler where diffusers, which has UniPC, is missing."""
    fields = PRESETS[preset] | SPEEDS[speed]
    return SamplerConfig(
        fields["solver"] if importlib.util.find_spec("diffusers") else "euler",
        fields["num_inference_steps"],
        guidance=fields["guidance_scale"],
        video_final_sigma=fields["video_final_sigma"],
        computed_steps=fields["computed_steps"],
    )


@dataclass
class Bench:
    """What all rungs of a ladder share.

    Attributes:
        preset: Name of the network's preset.
        args: Of the script.
        video: Video codec.
        image: Image codec.
        compiled_video: The same, compiled where there is anything to compile.
        reference: Per speed, the first chunks of the network in float32.
    """

    preset: str
    args: argparse.Namespace
    video: VideoCodec
    image: ImageCodec
    compiled_video: VideoCodec
    reference: dict[str, list[FirstChunk]]

    @property
    def device(self) -> torch.device:
        """Where all of it is."""
        return torch.device(self.args.device)

    def model(self, dtype: torch.dtype) -> WorldActionModel:
        """The network, the same but for its numbers' type."""
        return random_model(model_config(self.preset, self.args.tiny), self.args, dtype).eval().requires_grad_(False)

    def loop(self, model: WorldActionModel, rung: Rung, speed: str, **more: Any) -> Loop:
        """A robot that acts by this network."""
        fields = PRESETS[self.preset]
        runtime = Runtime(
            model,
            self.video,
            RandomText(model.config.text_dim, TINY_TEXT if self.args.tiny else fields["text_length"]),
            [robot()],
            sampler(self.preset, speed),
            VIDEO_STRIDE,
            negative_prompt=fields["negative_prompt"],
            image_codec=self.image,
            savings=rung.savings,
            action_only=True,
            **more,
        )
        return Loop(runtime, frame_size(self.preset, self.args.tiny), 0, 1, self.args.seed)

    def refer(self, speed: str) -> dict[str, Any]:
        """Let the float32 network make the first two chunks."""
        loop = self.loop(self.model(torch.float32), LADDER[1], speed)
        for _ in range(COMPARED):
            loop.chunk()
        self.reference[speed] = loop.first
        return {"actions_l2": float(sum(actions.norm() for actions, _ in loop.first))}

    def climb(self, rung: Rung, speed: str, roofline: Callable[[], Roofline]) -> dict[str, Any]:
        """Measure one speed on one rung."""
        before = allocated(self.device)
        model, lines = self.model(torch.bfloat16), list[str]()
        more: dict[str, Any] = {"passes": EAGER}
        compiled = rung.acceleration is not None and rung.acceleration.passes != "eager"
        if rung.acceleration is not None:
            tokens = (
                size // PRESETS[self.preset]["codec_patch"] // 2 for size in frame_size(self.preset, self.args.tiny)
            )
            height, width = tokens
            more["passes"], lines = accelerate(model, rung.acceleration, height * width)
        loop = self.loop(model, rung, speed, **more)
        if compiled:
            loop.runtime.video_codec = self.compiled_video
        # Every place of a window is compiled, and captured, by the first chunk there.
        for _ in range(model.config.max_chunks if compiled else 1):
            loop.chunk()
        loop.kept = allocated(self.device) - before
        for _ in range(self.args.repetitions):
            loop.measure()
        eight_bits = rung.acceleration is not None and rung.acceleration.quantization == "fp8"
        found = summarise(loop, roofline(), weight_bytes=1 if eight_bits else 2)
        for line in lines:
            print(f"  {line}", flush=True)
        found |= {"lines": lines}
        if speed in self.reference:
            found["distance_from_float32"] = distance(loop.first, self.reference[speed])
        stages = found["stages_ms"]
        return {"chunk_ms": stages["chunk"]["p50"], "reaction_ms": stages["reaction"]["p50"]} | found


def run(name: str, preset: str, description: str | None, words: list[str] | None) -> None:
    """Climb the ladder with one preset.

    Args:
        name: The script's.
        preset: Of the network and its frozen parts.
        description: For `--help`.
        words: Of the command line.
    """
    args = arguments(description, words, speeds=MEASURED)
    report = Report(name, args)
    compiled_video = video_codec(preset, args)
    if isinstance(compiled_video, WanVAECodec):
        compiled_video.compile()
    bench = Bench(preset, args, video_codec(preset, args), image_codec(preset, args), compiled_video, {})
    report.add("left_out", left_out())
    report.add("solver", sampler(preset, "official").solver)
    limits: dict[torch.dtype, Roofline] = {}

    def roofline(dtype: torch.dtype) -> Roofline:
        return limits.setdefault(dtype, measure_roofline(bench.device, dtype))

    # Sizes of a dry run are compiled by nobody: it would take longer than the run.
    with torch.compiler.set_stance("force_eager" if args.tiny else "default"):
        for speed in args.speeds:
            report.attempt(f"float32, {speed}", partial(bench.refer, speed))
        for rung in LADDER:
            eight_bits = rung.acceleration is not None and rung.acceleration.quantization == "fp8"
            dtype = torch.float8_e4m3fn if eight_bits else torch.bfloat16
            for speed in args.speeds:
                report.attempt(
                    f"{rung.name}, {speed}",
                    partial(bench.climb, rung, speed, partial(roofline, dtype)),
                )
