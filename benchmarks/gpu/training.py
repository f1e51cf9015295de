"""Training steps of random models on random data that is as small as cached data: latents, text and image tokens."""

import argparse
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.frame import TINY_TEXT, Report, frame_size, model_config, peak_gb, random_model
from lerobot_wam.diffusion.objective import ObjectiveConfig, TrainingWindow, joint_loss
from lerobot_wam.diffusion.schedule import NoiseConfig
from lerobot_wam.model.config import ModelConfig
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.presets import PRESETS
from lerobot_wam.runtime.stages import synchronize

LORA_TARGETS = r"blocks\.\d+\.((self|cross)_attn\.[qkvo]|ffn\.[02])"
"""What the policy adapts by default, and DreamZero does."""
IMAGE_TOKENS = 257


def random_window(
    preset: str, config: ModelConfig, batch: int, frame: tuple[int, int], args: argparse.Namespace
) -> TrainingWindow:
    """A batch of whole windows."""
    fields, device, chunks = PRESETS[preset], args.device, config.max_chunks
    generator = torch.Generator(device).manual_seed(args.seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator, device=device)

    cells = [size // fields["codec_patch"] for size in frame]
    steps = chunks * config.actions_per_chunk
    length = TINY_TEXT if args.tiny else fields["text_length"]
    summary, channels = config.visual_summary is not None, config.condition_channels
    everything = torch.ones(batch, config.max_frames, dtype=torch.bool, device=device)
    return TrainingWindow(
        latent=noise(config.latent_channels, config.max_frames, *cells),
        frame_mask=everything,
        action=noise(steps, config.action_dim),
        action_mask=torch.ones(batch, steps, config.action_dim, dtype=torch.bool, device=device),
        state=noise(chunks, config.state_dim),
        category=torch.zeros(batch, dtype=torch.int64, device=device),
        text=noise(length, config.text_dim),
        anchor_frame=noise(chunks, 3, *(frame if summary else (1, 1))).clamp(-1, 1),
        image=None if config.image_dim is None else noise(IMAGE_TOKENS, config.image_dim),
        condition=noise(channels, config.max_frames, *cells) if channels else None,
    )


def adapt(model: WorldActionModel, rank: int = 4) -> Any:
    """Freeze the network and put low-rank adapters on its large matrices; the robots' own parts stay trainable."""
    from peft import LoraConfig, inject_adapter_in_model

    own = [
        parameter
        for name in ("state_encoder", "action_encoder", "action_decoder")
        for parameter in getattr(model, name).parameters()
    ]
    adapted = inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=LORA_TARGETS), model)
    for parameter in own:
        parameter.requires_grad_(True)
    return adapted


def train(model: nn.Module, window: TrainingWindow, preset: str, args: argparse.Namespace) -> dict[str, float | None]:
    """Time optimizer steps under bfloat16 autocast; the first two are not counted."""
    fields, device = PRESETS[preset], torch.device(args.device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    objective = ObjectiveConfig(
        NoiseConfig(fields["noise_mode"]), fields["timestep_weighting"], fields["first_frame_loss"]
    )
    generators = [torch.Generator().manual_seed(args.seed + row) for row in range(len(window.latent))]
    model.train()
    peak_gb(args)
    seconds: list[float] = []
    for _ in range(2 + args.repetitions):
        synchronize(device)
        started = time.perf_counter()
        with torch.autocast(args.device, torch.bfloat16):
            loss = joint_loss(model, window, objective, generators).total.mean()  # type: ignore[arg-type]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds[2:])
    return {
        "step_s": median,
        "samples_per_s": len(window.latent) / median,
        "gb_peak": peak_gb(args),
        "trained_m": sum(parameter.numel() for parameter in trained) / 1e6,
        "loss": float(loss.detach()),
    }


def measure_training(
    report: Report,
    preset: str,
    batch: int,
    checkpointing: bool,
    dtype: torch.dtype,
    *,
    lora: bool = False,
    name: str = "",
    **sizes: Any,
) -> None:
    """Train a fresh network for some steps and take note of their time and memory.

    Args:
        report: Takes the numbers.
        preset: Of the network.
        batch: Windows in a step.
        checkpointing: Whether blocks are computed again in the backward pass instead of kept.
        dtype: Of the weights.
        lora: Train adapters and the robots' own parts only.
        name: Of the network in the report.
        sizes: Of the network, where it is not the preset's.
    """
    args = report.args

    def work() -> dict[str, float | None]:
        config = model_config(preset, args.tiny, **sizes)
        model = random_model(config, args, dtype)
        model.gradient_checkpointing = checkpointing
        window = random_window(preset, config, batch, frame_size(preset, args.tiny), args)
        return train(adapt(model) if lora else model, window, preset, args)

    kind = "LoRA" if lora else "everything"
    report.attempt(f"{name or kind}, batch {batch}{', checkpointed' if checkpointing else ''}", work)
