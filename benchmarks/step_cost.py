"""Cost of a training step and of a chunk of actions: our nano preset beside LeRobot's ACT and Diffusion Policy.

All policies see one 64x64 camera and six joints, and predict chunks of 8 actions. Batches are random, so nothing is
decoded or loaded. A training step is forward, backward, clipping, the policy's own optimizer and, for ours, the
weight average. The latency of a chunk is that of the `select_action` call that computes it, for one robot; ours runs
in closed loop, so it also encodes what was observed since the last chunk and carries its history. Repetitions are
interleaved (A B C A B C ...), so that noise on the machine hits all alike.

The smallest backbone that ACT and Diffusion Policy offer, ResNet-18, has 11 M parameters, four times those of all of
nano. So they are measured twice: with a ResNet-18 of a quarter of its width and the rest sized until the whole has
nano's parameter count, and, as `*_resnet18`, with the backbone that they offer and the rest unchanged.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import nn
from tqdm import tqdm

from benchmarks.common import (
    CAMERA,
    JOINTS,
    SIZE,
    TASK,
    command_line,
    features,
    milliseconds,
    nano_policy,
    options,
    result_name,
    write_result,
)
from benchmarks.narrow import NARROW

CHUNK = 8
STOCK = "resnet18"
TOLERANCE = 0.15
"""How far the matched policies' parameter counts may be from nano's."""


def act_policy(device: str, backbone: str, dim_feedforward: int) -> ACTPolicy:
    config = ACTConfig(
        device=device,
        chunk_size=CHUNK,
        n_action_steps=CHUNK,
        vision_backbone=backbone,
        pretrained_backbone_weights=None,
        dim_model=128,
        n_heads=4,
        dim_feedforward=dim_feedforward,
        **features(),
    )
    return ACTPolicy(config).to(device)


def diffusion_policy(device: str, backbone: str, width: int, **sampling: Any) -> DiffusionPolicy:
    config = DiffusionConfig(
        device=device,
        n_obs_steps=1,  # like the others; with its default of 2 a horizon of 8 would hold 7 actions to execute
        horizon=CHUNK,
        n_action_steps=CHUNK,
        vision_backbone=backbone,
        pretrained_backbone_weights=None,
        down_dims=(32, 64, width),
        **features(),
        **sampling,
    )
    return DiffusionPolicy(config).to(device)


def n_parameters(policy: PreTrainedPolicy) -> int:
    return sum(p.numel() for p in policy.parameters() if p.requires_grad)


def matched(make: Callable[[int], PreTrainedPolicy], sizes: Iterable[int], target: int) -> int:
    """The size whose policy comes nearest to `target` parameters.

    Raises:
        ValueError: None is near enough.
    """
    misses = {size: abs(n_parameters(make(size)) / target - 1) for size in sizes}
    best = min(misses, key=misses.__getitem__)
    if misses[best] > TOLERANCE:
        raise ValueError(
            f"no size within {TOLERANCE:.0%} of {target} parameters: widen the sizes tried, {list(misses)}"
        )
    return best


def random_batch(policy: PreTrainedPolicy, size: int, device: str, rng: torch.Generator) -> dict[str, Any]:
    """A training batch of the form that the policy's configuration asks LeRobot's loader for."""
    config = policy.config
    frames = () if config.observation_delta_indices is None else (len(config.observation_delta_indices),)
    actions = len(config.action_delta_indices)
    return {
        CAMERA: torch.rand(size, *frames, 3, SIZE, SIZE, generator=rng).to(device),
        OBS_STATE: torch.randn(size, *frames, JOINTS, generator=rng).to(device),
        ACTION: torch.randn(size, actions, JOINTS, generator=rng).to(device),
        "action_is_pad": torch.zeros(size, actions, dtype=torch.bool, device=device),
        "task": [TASK] * size,
    }


def train_step(policy: PreTrainedPolicy, optimizer: torch.optim.Optimizer, batch: dict[str, Any]) -> None:
    """What LeRobot's training loop does with a batch."""
    loss, _ = policy.forward(batch)
    loss.backward()
    nn.utils.clip_grad_norm_(policy.parameters(), policy.config.get_optimizer_preset().grad_clip_norm)
    optimizer.step()
    optimizer.zero_grad()
    if hasattr(policy, "update"):
        policy.update()


def measure_training(
    policies: dict[str, PreTrainedPolicy], batch_size: int, repetitions: int, device: str, rng: torch.Generator
) -> dict[str, Any]:
    """Time training steps of every policy in turn; the first round only warms up."""
    batches = {name: random_batch(policy, batch_size, device, rng) for name, policy in policies.items()}
    optimizers = {
        name: policy.config.get_optimizer_preset().build(policy.train().get_optim_params())
        for name, policy in policies.items()
    }
    times: dict[str, list[float]] = {name: [] for name in policies}
    for _ in tqdm(range(1 + repetitions), desc="training steps", disable=None):
        for name, policy in policies.items():
            step = partial(train_step, policy, optimizers[name], batches[name])
            times[name].append(milliseconds(device, step))
    nano = n_parameters(policies["wam_nano"])
    return {
        name: {
            "n_parameters": n_parameters(policy),
            "n_parameters_over_nano": n_parameters(policy) / nano,
            "frames_per_sample": len(policy.config.observation_delta_indices or [0]),
            "actions_per_sample": len(policy.config.action_delta_indices),
            "train_step_ms_p50": float(np.median(times[name][1:])),
            "train_step_ms_p90": float(np.quantile(times[name][1:], 0.9)),
            "samples_per_s": float(1000 * batch_size / np.median(times[name][1:])),
        }
        for name, policy in policies.items()
    }


def measure_acting(
    policies: dict[str, PreTrainedPolicy], repetitions: int, device: str, rng: torch.Generator
) -> dict[str, Any]:
    """Time chunks of every policy in turn, one robot each."""
    for policy in policies.values():
        policy.eval()
        policy.reset()
    actors = {name: policy.select_action for name, policy in policies.items()}
    times = chunk_latencies(actors, repetitions, device, rng)
    return {
        name: {
            "n_parameters": n_parameters(policy),
            "chunk_latency_p50_ms": float(np.median(times[name])),
            "chunk_latency_p95_ms": float(np.quantile(times[name], 0.95)),
        }
        for name, policy in policies.items()
    }


def chunk_latencies(
    actors: Mapping[str, Callable[[dict[str, Any]], object]], repetitions: int, device: str, rng: torch.Generator
) -> dict[str, list[float]]:
    """Time the calls that compute a chunk (ms), of every actor in turn; a first round only warms up.

    Args:
        actors: Each takes an observation and returns an action.
        repetitions: Chunks of each.
        device: Where observations are, and what is waited for.
        rng: Random observations are drawn from it.
    """
    frames, states = torch.rand(CHUNK, 1, 3, SIZE, SIZE, generator=rng), torch.randn(CHUNK, 1, JOINTS, generator=rng)
    observations = [
        {CAMERA: frame.to(device), OBS_STATE: state.to(device), "task": [TASK]}
        for frame, state in zip(frames, states, strict=True)
    ]
    times: dict[str, list[float]] = {name: [] for name in actors}
    for _ in tqdm(range(1 + repetitions), desc="chunks", disable=None):
        for name, act in actors.items():
            # The chunk is computed at the first step; the others take their action from it.
            steps = [milliseconds(device, partial(act, observation)) for observation in observations]
            times[name].append(steps[0])
    return {name: found[1:] for name, found in times.items()}


def measure(device: str, threads: int, repetitions: int, seed: int, batch_size: int) -> dict[str, Any]:
    """Build the policies, match their sizes, and measure them side by side."""
    torch.set_num_threads(threads)
    rng = torch.Generator().manual_seed(seed)
    nano = nano_policy(device, seed)
    target = n_parameters(nano)
    dim_feedforward = matched(lambda size: act_policy("cpu", NARROW, size), range(192, 1024, 128), target)
    width = matched(lambda size: diffusion_policy("cpu", NARROW, size), range(80, 240, 32), target)
    training: dict[str, PreTrainedPolicy] = {
        "wam_nano": nano,
        "act": act_policy(device, NARROW, dim_feedforward),
        "diffusion": diffusion_policy(device, NARROW, width),
        "act_resnet18": act_policy(device, STOCK, dim_feedforward),
        "diffusion_resnet18": diffusion_policy(device, STOCK, width),
    }
    few = {"noise_scheduler_type": "DDIM", "num_inference_steps": 10}
    acting: dict[str, PreTrainedPolicy] = {
        f"wam_nano, {nano.config.num_inference_steps} steps": nano,
        "wam_nano, 1 step": nano_policy(device, seed, num_inference_steps=1),
        "act": training["act"],
        "diffusion, 100 DDPM steps": training["diffusion"],
        "diffusion, 10 DDIM steps": diffusion_policy(device, NARROW, width, **few),
        "act_resnet18": training["act_resnet18"],
        "diffusion_resnet18, 100 DDPM steps": training["diffusion_resnet18"],
        "diffusion_resnet18, 10 DDIM steps": diffusion_policy(device, STOCK, width, **few),
    }
    return {
        "device": device,
        "threads": threads,
        "repetitions": repetitions,
        "batch_size": batch_size,
        "image_size": SIZE,
        "actions_per_chunk": CHUNK,
        "matched_by": f"act: narrow ResNet-18, dim_model=128, dim_feedforward={dim_feedforward}; "
        f"diffusion: narrow ResNet-18, down_dims=(32, 64, {width}); *_resnet18: the same with the stock ResNet-18",
        "train": measure_training(training, batch_size, repetitions, device, rng),
        "act": measure_acting(acting, repetitions, device, rng),
    }


def print_tables(metrics: dict[str, Any]) -> None:
    print(
        f"\n{'training step':36}{'parameters':>12}{'p50 ms':>10}{'p90 ms':>10}{'samples/s':>11}{'actions/sample':>16}"
    )
    for name, row in metrics["train"].items():
        print(
            f"{name:36}{row['n_parameters']:12,}{row['train_step_ms_p50']:10.1f}{row['train_step_ms_p90']:10.1f}"
            f"{row['samples_per_s']:11.1f}{row['actions_per_sample']:16}"
        )
    print(f"\n{'chunk of 8 actions, one robot':36}{'parameters':>12}{'p50 ms':>10}{'p95 ms':>10}")
    for name, row in metrics["act"].items():
        p50, p95 = row["chunk_latency_p50_ms"], row["chunk_latency_p95_ms"]
        print(f"{name:36}{row['n_parameters']:12,}{p50:10.1f}{p95:10.1f}")


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = options(__doc__, repetitions=30)
    parser.add_argument("--batch-size", type=int, default=32, help="samples per training step (default: 32)")
    args = parser.parse_args(arguments)
    metrics = measure(**vars(args))
    print_tables(metrics)
    write_result(result_name("step_cost", args.device), metrics, args.seed, command_line("step_cost", arguments))


if __name__ == "__main__":
    main()
