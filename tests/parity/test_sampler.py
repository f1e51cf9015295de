"""Seven closed-loop calls against the official implementation's, for each of its samplers: numbers and model calls."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import official
import pytest
import torch
from golden import build, read, under
from torch import Tensor

from lerobot_wam.diffusion.sampler import SamplerConfig
from lerobot_wam.embodiments.action_space import ActionSpace, ActionStatistics
from lerobot_wam.embodiments.spec import CameraView, Dimension, EmbodimentSpec, Normalization
from lerobot_wam.model.inputs import NoisyWindow
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.runtime.session import ALL_SAVINGS, Runtime
from lerobot_wam.runtime.state import LoopRules, Savings

BFLOAT16_RTOL = 1e-2
ATOL = 2e-5  # sixteen steps with guidance 5 amplify rounding
CASES = ["mask8", "full16", "dynamic", "decoupled_final0.8", "5B_mask8"]
OFFICIAL = LoopRules(restart_frame="official", noise_stream="fixed", padded_actions="noise")


def raw_space(action_dim: int, state_dim: int, steps: int) -> ActionSpace:
    """The recorded states are normalised already, and so are the actions: both pass unchanged."""
    spec = EmbodimentSpec(
        name="official",
        cameras=(CameraView("observation.images.front"),),
        state=tuple(Dimension(f"state_{i}") for i in range(state_dim)),
        action=tuple(Dimension(f"action_{i}") for i in range(action_dim)),
        fps=15,
        video_stride=1,
        chunk_steps=steps,
        normalization=Normalization(min_half_range=0.0),
    )
    ones, zeros = np.ones(action_dim), np.zeros(state_dim)
    return ActionSpace(spec, ActionStatistics(-ones[None], ones[None], zeros, zeros))


def official_runtime(path: Path, savings: Savings = ALL_SAVINGS) -> tuple[Runtime, dict[str, Tensor], dict[str, Any]]:
    """The loop that a sampler file was recorded with, and its recordings."""
    tensors, meta = read(path)
    weights = path.with_name(f"{meta['weights']}.safetensors")
    video_codec = official.video_codec(weights)
    first = official.pixels(tensors["call0.in.images"], tensors["call0.mid.ys"], video_codec.spatial_stride)[:, :, 0]
    model_weights = official.official_tensors(weights, "w.model.")
    conditioned = model_weights["patch_embedding.weight"].shape[1] > video_codec.latent_channels
    _, dit = read(path.with_name(f"a_dit_train_{'i2v' if conditioned else 'ti2v'}.safetensors"))
    model = build(model_weights, json.loads(dit["config"]), state_self_only=False)
    sizes, steps, environment = model.config, meta["num_inference_steps"], meta["env"]
    if environment.get("DYNAMIC_CACHE_SCHEDULE") == "true":
        computed = "dynamic"
    else:
        computed = environment["NUM_DIT_STEPS"] if int(environment["NUM_DIT_STEPS"]) < steps else "all"
    sampler = SamplerConfig(
        solver="unipc",
        steps=steps,
        shift=meta["sigma_shift"],
        guidance=meta["cfg_scale"],
        video_final_sigma=float(path.stem.partition("final")[2] or 0),
        computed_steps=computed,
    )
    length = tensors["in.text_negative"].shape[1]
    runtime = Runtime(
        model,
        video_codec,
        official.text_codec(weights, lambda text: [int(number) for number in text.split()], length),
        [raw_space(sizes.action_dim, sizes.state_dim, sizes.actions_per_chunk)],
        sampler,
        video_stride=1,
        negative_prompt=words(tensors["in.text_negative"], tensors["in.text_attention_mask_negative"]),
        image_codec=official.image_codec(weights, first, tensors["call0.mid.clip"]),
        rules=OFFICIAL,
        savings=savings,
    )
    return runtime, tensors, meta


def words(ids: Tensor, mask: Tensor) -> str:
    """Token ids as a text that the test's tokenizer turns back into them."""
    return " ".join(str(n) for n in ids[0][mask[0].bool()].tolist())


def logged(model: WorldActionModel, monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """What the network is called with from now on, both guidance branches: the entries of the recorded log."""
    log: list[list[Any]] = []
    observe, denoise = model.observe, model.denoise

    def observing(latent: Tensor, context: Any, cache: Any, condition: Tensor | None) -> Any:
        log.append([cache.frames, True, 0, None, latent.shape[2]])
        return observe(latent, context, cache, condition)

    def denoising(window: NoisyWindow, context: Any, cache: Any, *nothing_observed: None) -> Any:
        times = [int(t[0, 0]) for t in (window.video_timestep, window.action_timestep)]
        log.append([cache.frames, False, *times, window.video.shape[2]])
        return denoise(window, context, cache)

    monkeypatch.setattr(model, "observe", observing)
    monkeypatch.setattr(model, "denoise", denoising)
    return log


@pytest.mark.parametrize("saving", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_seven_calls(golden_dir: Path, case: str, saving: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call in its two guidance branches, as recorded, or with all that can be saved: the same numbers."""
    savings = Savings(*[saving] * len(fields(Savings)))
    runtime, tensors, meta = official_runtime(golden_dir / f"d_sampler_{case}.safetensors", savings)
    log = [] if saving else logged(runtime.model, monkeypatch)
    session = runtime.new_session(meta["seed"])
    for recorded in json.loads(meta["log"]):
        name = recorded["call"]
        inputs, outputs, mids = (under(tensors, f"{name}.{part}.") for part in ("in", "out", "mid"))
        grid = outputs["video_pred"]
        clip = official.pixels(inputs["images"], grid, runtime.video_codec.spatial_stride)[0].transpose(0, 1)
        text = words(inputs["text"], tensors["in.text_attention_mask"])
        log.clear()
        dream = runtime.plan_frames([session], [clip], [inputs["state"][0, 0]], [text])[0]

        latents = dream.latents[None]
        torch.testing.assert_close(latents, grid[:, :, -latents.shape[2] :], rtol=0, atol=ATOL)
        assert dream.starts_window == (grid.shape[2] > latents.shape[2])  # the conditioning latent is put in front
        if dream.starts_window:
            first = runtime.video_codec.encode(dream.anchor_frame[None, :, None])
            torch.testing.assert_close(first, grid[:, :, :1], rtol=0, atol=ATOL)
        if "ys" in mids and session.condition is not None:
            condition = torch.cat(session.condition.latents, dim=2)
            torch.testing.assert_close(condition, mids["ys"][:, :, : condition.shape[2]], rtol=0, atol=ATOL)
        torch.testing.assert_close(dream.actions[None], outputs["action_pred"], rtol=0, atol=ATOL)

        assert saving or log[::2] == log[1::2] == recorded["model_calls"]
        assert session.branch is not None
        cache = session.branch.cache
        assert len(cache.layout) == recorded["cache_tokens"]
        assert cache.frames + runtime.model.config.frames_per_chunk == recorded["current_start_frame_after"]


@pytest.mark.parametrize("case", CASES)
def test_a_call_in_bfloat16(golden_dir: Path, case: str) -> None:
    """Sixteen steps with guidance, weights and cache in bfloat16: within 1 % of the recorded fp32 numbers."""
    runtime, tensors, meta = official_runtime(golden_dir / f"d_sampler_{case}.safetensors")
    runtime.model.to(torch.bfloat16).eval()
    name = json.loads(meta["log"])[0]["call"]
    inputs, outputs = (under(tensors, f"{name}.{part}.") for part in ("in", "out"))
    cell = runtime.video_codec.spatial_stride
    clip = official.pixels(inputs["images"], outputs["video_pred"], cell)[0].transpose(0, 1)
    text = words(inputs["text"], tensors["in.text_attention_mask"])
    dream = runtime.plan_frames([runtime.new_session(meta["seed"])], [clip], [inputs["state"][0, 0]], [text])[0]
    expected = outputs["video_pred"][:, :, -dream.latents.shape[1] :]
    for ours, golden in ((dream.latents[None], expected), (dream.actions[None], outputs["action_pred"])):
        assert (ours - golden).norm() <= BFLOAT16_RTOL * golden.norm()


@pytest.mark.parametrize("case", CASES)
def test_the_fixed_stream_is_the_official_noise(golden_dir: Path, case: str) -> None:
    """Video and actions of every chunk start from generators of the same seed, drawn on the CPU."""
    tensors, meta = read(golden_dir / f"d_sampler_{case}.safetensors")
    recorded = [tensors[name] for name in tensors if name.startswith("noise.")]
    assert len(recorded) == 2
    for noise in recorded:
        ours = torch.randn(noise.shape[1:], generator=torch.Generator().manual_seed(meta["seed"]))
        torch.testing.assert_close(ours, noise[0], rtol=0, atol=1e-6)
