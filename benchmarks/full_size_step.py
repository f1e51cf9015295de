"""One computed denoising step of a closed-loop chunk by the whole wan2.2-5b policy, on the CPU: time and peak memory.

Every part has its full size and random bfloat16 weights, the video autoencoder float32 as policies load it. They are
made in place: a part needs no memory but its own. The order is that of a machine with little memory: the text encoder
is built, encodes the task and the negative prompt and is freed; only then come the network, the video autoencoder and
the image encoder. The robot then acts through one chunk and replans: the second chunk is computed from the cached
window, after what was observed is encoded and written. Each chunk takes one solver step, with guidance, so the network
runs once for the task and once for the negative prompt.

No tokenizer is at hand offline; one made-up id per word stands in for it.
"""

import gc
import resource
import sys
import time
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from lerobot.utils.constants import OBS_STATE
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from benchmarks.common import command_line, milliseconds, options, write_result
from lerobot_wam.codecs.image import ClipImageCodec
from lerobot_wam.codecs.umt5 import Umt5TextCodec
from lerobot_wam.codecs.wan_vae import WanVAECodec
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.embodiments.resolve import stored_embodiment
from lerobot_wam.embodiments.spec import load_embodiment
from lerobot_wam.embodiments.statistics import Columns
from lerobot_wam.modeling_wam import WAMPolicy

ROBOT = "oxe_droid"
TASK = "put the red cube into the bowl"
UMT5_XXL = {"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
VIT_H = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
}
WAN22_VAE: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
NOISE = 2**24 - 3  # numbers that are drawn; a prime to every row length, so that no two rows are equal


def filled(module: nn.Module, seed: int) -> Any:
    """Give a module on the meta device random bfloat16 weights of standard deviation 0.02."""
    module.to(torch.bfloat16).to_empty(device="cpu")
    noise = 0.02 * torch.randn(NOISE, generator=torch.Generator().manual_seed(seed), dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in module.parameters():
            for part in parameter.view(-1).split(NOISE):
                part.copy_(noise[: len(part)])
    return module.eval()


def peak_gb() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def text_codec(length: int, seed: int) -> Umt5TextCodec:
    with torch.device("meta"):
        encoder = UMT5EncoderModel(UMT5Config(**UMT5_XXL))

    def ids(text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [*range(2, 2 + len(text.split())), 1]}

    return Umt5TextCodec(filled(encoder, seed), ids, length)


def build_policy(codec: Umt5TextCodec, seed: int) -> WAMPolicy:
    robot, rng, steps = load_embodiment(ROBOT), np.random.default_rng(seed), 100
    zeros = np.zeros(steps, dtype=np.int64)
    action, state = (rng.normal(size=(steps, len(dims))) for dims in (robot.action, robot.state))
    config = WAMConfig(
        preset="wan2.2-5b",
        device="cpu",
        weights_dtype="bfloat16",
        num_inference_steps=1,
        embodiment=ROBOT,
        embodiments={ROBOT: stored_embodiment(robot, Columns(zeros, np.arange(steps), zeros, action, state))},
    )
    policy = WAMPolicy(config, weights_follow=True)
    filled(policy.model, seed)
    with torch.device("meta"):
        vae, clip = AutoencoderKLWan(**WAN22_VAE), CLIPVisionModel(CLIPVisionConfig(**VIT_H))
    policy.codecs.text = codec
    policy.codecs.video = WanVAECodec(filled(vae, seed).float())
    tokens = clip.vision_model.embeddings
    policy.codecs.image = ClipImageCodec(filled(clip, seed))
    tokens.position_ids = torch.arange(tokens.num_positions)[None]  # no weight, so the meta device lost it
    return policy.eval()


def main() -> None:
    parser = options(__doc__, repetitions=1)
    args = parser.parse_args()
    if args.device != "cpu":
        parser.error("this measures the CPU")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    metrics: dict[str, Any] = {"gb_peak_imports": peak_gb(), "threads": args.threads}

    config = WAMConfig(preset="wan2.2-5b", device="cpu")
    robot = load_embodiment(ROBOT)
    started = time.perf_counter()
    codec = text_codec(config.text_length, args.seed)
    metrics["text_build_s"] = time.perf_counter() - started
    texts = [robot.render_prompt(TASK), config.negative_prompt]
    metrics["text_encode_s"] = milliseconds("cpu", lambda: codec.encode(texts)) / 1000
    codec.release()
    gc.collect()
    metrics["gb_peak_text"] = peak_gb()

    started = time.perf_counter()
    policy = build_policy(codec, args.seed)
    metrics["policy_build_s"] = time.perf_counter() - started
    metrics["parameters"] = sum(p.numel() for p in policy.model.parameters())
    seen: dict[str, Any] = {camera.key: torch.rand(1, 3, 180, 320) for camera in robot.cameras}
    seen |= {OBS_STATE: torch.rand(1, len(robot.state)), "task": [TASK]}
    chunk_s = []
    for tick in range(config.chunk_steps + 1):
        took = milliseconds("cpu", lambda: policy.select_action(seen)) / 1000
        if tick % config.chunk_steps == 0:
            chunk_s.append(took)
            print(f"chunk {len(chunk_s)}: {took:.1f} s, peak {peak_gb():.1f} GB", flush=True)
    metrics |= {"first_chunk_s": chunk_s[0], "next_chunk_s": chunk_s[1], "gb_peak": peak_gb()}
    write_result("full_size_step", metrics, args.seed, command_line("full_size_step", sys.argv[1:]))


if __name__ == "__main__":
    main()
