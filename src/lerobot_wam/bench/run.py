"""A measurement of one or two settings of one policy, side by side."""

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig

from lerobot_wam.approximations import approximations
from lerobot_wam.bench.measure import (
    COMPARED,
    FirstChunk,
    Loop,
    allocated,
    distance,
    measure,
    summarise,
    time_ratio,
)
from lerobot_wam.bench.notes import noted
from lerobot_wam.bench.random_policy import random_config, random_policy
from lerobot_wam.bench.roofline import measure_roofline
from lerobot_wam.command_line import SettingError
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.presets import PRESETS
from lerobot_wam.runtime.parallel import Parallel
from lerobot_wam.runtime.state import Savings

_SHOWN = (
    "weights_dtype",
    "solver",
    "num_inference_steps",
    "computed_steps",
    "guidance_scale",
    "action_only",
    "passes",
    "quantization",
    "attention",
)
_WEIGHT_BYTES = {"fp8": 1.0, "int8": 1.0, "int4": 0.5}
_EXACT: dict[str, Any] = {
    "weights_dtype": "float32",
    "dtype": "float32",
    "passes": "eager",
    "quantization": "none",
    "attention": "auto",
}


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        fields: Of the policy's configuration.
        without: Savings that are switched off.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = [saving.name for saving in fields(Savings)]
        for name in self.without:
            if name not in known:
                raise ValueError(f"there is no saving {name!r} to go without; expected {', '.join(known)}")


@dataclass(frozen=True)
class Plan:
    """A measurement.

    Attributes:
        settings: One, or two to compare.
        preset: Size of a policy with random weights.
        path: Or a checkpoint: folder, or id on the Hub.
        device: Where.
        chunks: Measured chunks.
        warmup: Chunks before them; None takes a whole window and the next one's first.
        robots: How many act in step.
        seed: Of weights, noise and what the robots see.
        compare_exact: Measure the distance from the eager float32 network where numbers differ.
        parallel: The processes that share the work of every chunk; each of them measures.
    """

    settings: tuple[Setting, ...]
    preset: str | None = None
    path: str | None = None
    device: str = "cpu"
    chunks: int = 20
    warmup: int | None = None
    robots: int = 1
    seed: int = 0
    compare_exact: bool = True
    parallel: Parallel | None = None


def bench(plan: Plan) -> dict[str, Any]:
    """Measure; returns JSON values.

    Raises:
        ValueError: Settings that do not fit, or a device that torch does not find.
        FileNotFoundError: No checkpoint, or one of its frozen parts.
    """
    device = torch.device(plan.device)
    if device.type not in ("cpu", getattr(torch.accelerator.current_accelerator(check_available=True), "type", "cpu")):
        raise ValueError(f"device is {plan.device!r}, but torch finds none here; use --device=cpu")
    configs = [_configured(plan, setting.fields) for setting in plan.settings]
    references = [_reference(plan, config) for config in configs]
    loops: list[Loop] = []
    notes: list[list[str]] = []
    for config, setting in zip(configs, plan.settings, strict=True):
        before = allocated(device)
        with noted() as lines:
            loop = _loop(plan, config, setting.without)
            for _ in range(config.max_chunks + 1 if plan.warmup is None else plan.warmup):
                loop.chunk()
        loop.kept = allocated(device) - before
        loops.append(loop)
        notes.append(lines)
    measure(loops, plan.chunks)

    measured = []
    for config, setting, loop, said, reference in zip(configs, plan.settings, loops, notes, references, strict=True):
        number = torch.float8_e4m3fn if config.quantization == "fp8" else getattr(torch, config.weights_dtype)
        roofline = measure_roofline(device, number)
        far = reference if reference is None or isinstance(reference, str) else distance(loop.first, reference)
        measured.append(
            {
                "settings": {name: getattr(config, name) for name in (*_SHOWN, *setting.fields)},
                "without": list(setting.without),
                "approximations": approximations(config),
                "notes": [line for line in said if not line.startswith("approximations")],
                **summarise(loop, roofline, _WEIGHT_BYTES.get(config.quantization, number.itemsize)),
                "matmul_tflop_per_s": roofline.flops / 1e12,
                "copy_gb_per_s": roofline.bandwidth / 1e9,
                "distance_from_eager_float32": far,
            }
        )
    result: dict[str, Any] = {
        "policy": plan.path or f"{plan.preset}, random weights",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "robots": plan.robots,
        "parallel": None if plan.parallel is None else plan.parallel.text,
        "threads": torch.get_num_threads(),
        "measured": measured,
    }
    if len(loops) == 2:
        base, other = (loop.seconds for loop in loops)
        alike = [name for name in base if name != "text" and len(base[name]) == len(other.get(name, ()))]
        result["second_over_first"] = {name: time_ratio(base[name], other[name], plan.seed) for name in alike}
    return result


def _configured(plan: Plan, changes: Mapping[str, Any]) -> WAMConfig:
    """The policy's configuration under a setting; the speed dial is turned first, so that other fields may differ."""
    if plan.path is None:
        if plan.preset not in PRESETS:
            raise ValueError(f"preset is {plan.preset!r}; expected {', '.join(PRESETS)}")
        config = random_config(plan.preset, plan.device, plan.seed)
        config.weights_dtype = config.dtype
    else:
        stored = PreTrainedConfig.from_pretrained(plan.path)
        if not isinstance(stored, WAMConfig):
            raise ValueError(f"{plan.path} holds a policy of type {stored.type!r}; only 'wam' policies are measured")
        config = stored
    dial: dict[str, Any] = {"device": plan.device, "speed": changes.get("speed")}
    try:
        return replace(replace(config, **dial), **{**changes, "speed": None})
    except SettingError as error:
        raise ValueError(str(error)) from error


def _loop(plan: Plan, config: WAMConfig, without: tuple[str, ...] = ()) -> Loop:
    if plan.path is None:
        policy = random_policy(config, plan.seed)
    else:
        policy = WAMPolicy.from_pretrained(plan.path, config=config).eval()
    policy.savings = replace(policy.savings, **dict.fromkeys(without, False))
    blank = {camera.key: torch.zeros(1, 3, *config.image_size) for camera in policy.reader.space.spec.cameras}
    height, width = policy.reader.tiled(blank).shape[-2:]
    runtime = policy.runtime
    if plan.parallel is not None:
        plan.parallel.share(runtime)
    return Loop(runtime, (height, width), policy.category, plan.robots, plan.seed)


def _reference(plan: Plan, config: WAMConfig) -> list[FirstChunk] | str | None:
    """The first chunks of the eager float32 network; why there are none; or None where the setting is just that."""
    if not plan.compare_exact or all(getattr(config, name) == value for name, value in _EXACT.items()):
        return None
    try:
        loop = _loop(plan, replace(config, **_EXACT))
        for _ in range(COMPARED):
            loop.chunk()
    except torch.OutOfMemoryError:
        return "the float32 network does not fit on this device"
    finally:
        gc.collect()
        torch.cuda.empty_cache()
    return loop.first
