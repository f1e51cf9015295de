"""Look at a checkpoint: everything that its small files and the headers of its weights tell."""

import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import HfApi, ModelCard
from lerobot.configs import PreTrainedConfig

from lerobot_wam.approximations import approximations
from lerobot_wam.checkpoints.output import PARTIAL, sha256
from lerobot_wam.checkpoints.source import Source, read_json
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.doctor.memory import geometry, memory
from lerobot_wam.embodiments.action_space import ActionSpace, ActionStatistics
from lerobot_wam.embodiments.resolve import load_stored_embodiment
from lerobot_wam.embodiments.spec import EmbodimentSpec
from lerobot_wam.frozen import COMPONENTS, find_component, resolve_embedded
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.weights import MANIFEST, PER_ROBOT, match, open_checkpoint

ADAPTER_CONFIG = "adapter_config.json"
PARTS = {
    "image branch": ("img_emb.", "k_img.", "v_img.", "norm_k_img."),
    "transformer blocks": ("blocks.",),
    "robots' encoders and decoders": PER_ROBOT,
    "visual summary": ("visual_summary.",),
    "embeddings and head": ("",),
}
"""Parts of the network, by what a tensor's name contains; the first that fits counts."""
PUBLISHED = {
    # Parameters, and what the repositories state of their licence.
    "wan2.1": (126_892_531, "Apache-2.0"),
    "wan2.2": (704_688_668, "Apache-2.0"),
    "umt5": (5_680_910_336, "Apache-2.0"),
    "clip": (632_076_801, "Apache-2.0, from MIT"),
}
_SMALL_FILES = ["*.json", "*/*.json", "README.md"]
_SHOWN = 5


@dataclass
class Checkup:
    """What was found.

    Attributes:
        source: The folder or repository.
        kind: One line on what it is.
        facts: Everything else that is known, as JSON values.
        problems: What keeps it from working, each with the way out.
        notes: What one should know.
    """

    source: str
    kind: str
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_up(source: str, verify: bool = False) -> tuple[Checkup, WAMConfig | None]:
    """Look at a folder or a repository on the Hub; no weights are loaded, and of a repository none are fetched.

    Args:
        source: Folder, or `REPO[@REVISION]`.
        verify: Read every file that the manifest lists, and compare its sha256.

    Returns:
        The findings; and the policy's configuration, None for what is not a policy of ours.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: What is there is neither ours nor can be imported.
    """
    where = Source.parse(source)
    folder = where.fetch(_SMALL_FILES)
    if read_json(folder / "config.json").get("type") != "wam":
        _, layout = where.describe()
        found = Checkup(
            source, {"dreamzero": "official DreamZero checkpoint"}.get(layout, f"Wan video model ({layout})")
        )
        found.problems.append(f"not a policy yet: lerobot-wam import {source} --out DIR")
        return found, None

    config = PreTrainedConfig.from_pretrained(folder)
    assert isinstance(config, WAMConfig)
    resolve_embedded(config, folder)
    found = Checkup(source, f"policy of lerobot_wam, preset {config.preset}, {config.steps_done} training steps")
    found.facts["settings"] = {"preset": config.preset, "compat": config.compat, "steps_done": config.steps_done}
    _weights(found, config, where, folder)
    _robots(found, config)
    _components(found, config)
    _sizes(found, config)
    _completeness(found, config, folder, verify)
    return found, config


def _weights(found: Checkup, config: WAMConfig, where: Source, folder: Path) -> None:
    """Count parameters by part, and hold the tensors against the configuration's network."""
    with torch.device("meta"):
        network = WorldActionModel(config.model_config)
    expected = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    if config.ema_decay > 0:
        expected |= {f"ema_{name}": tensor for name, tensor in expected.items()}
    parts: Counter[str] = Counter()
    for name, tensor in network.state_dict().items():
        parts[next(part for part, marks in PARTS.items() if any(mark in name for mark in marks))] += tensor.numel()
    found.facts["parameters"] = {part: parts[part] for part in PARTS if parts[part]}
    found.facts["weights_dtype"] = config.weights_dtype

    adapter = read_json(folder / ADAPTER_CONFIG)
    try:
        if adapter:
            found.kind = found.kind.replace("policy", "adapters for a policy", 1)
            base = adapter["base_model_name_or_path"]
            found.facts["adapter"] = {"base": base, "type": adapter["peft_type"], "rank": adapter.get("r")}
            where = Source(base, adapter.get("revision"))
        stored = _stored_shapes(where)
    except (FileNotFoundError, ValueError) as error:
        found.problems.append(str(error))
        return
    found.facts["weight_files"] = {"tensors": len(stored), "dtypes": sorted({dtype for dtype, _ in stored.values()})}
    _, misfits = match({name: shape for name, (_, shape) in stored.items()}, expected)
    if misfits:
        more = f" and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
        found.problems.append(f"{len(misfits)} tensors do not fit config.json: {'; '.join(misfits[:_SHOWN])}{more}")


def _stored_shapes(where: Source) -> dict[str, tuple[str, list[int]]]:
    """Data type and shape of every tensor, from the headers of the weight files."""
    if where.local:
        files = open_checkpoint(Path(where.name), headers_only=True)
        slices = {name: file.get_slice(name) for name, file in files.items()}
        return {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}
    remote = HfApi().get_safetensors_metadata(where.name, revision=where.revision)
    return {
        name: (tensor.dtype, tensor.shape)
        for file in remote.files_metadata.values()
        for name, tensor in file.tensors.items()
    }


def _robots(found: Checkup, config: WAMConfig) -> None:
    """Describe every robot: its cameras, and its dimensions with their ranges."""
    robots = found.facts["robots"] = {}
    for name, stored in config.embodiments.items():
        try:
            spec, statistics = load_stored_embodiment(name, stored, config.prompt_templates.get(name))
            ActionSpace(spec, statistics)
        except ValueError as error:
            found.problems.append(f"robot {name}: {error}")
            continue
        robots[name] = {
            "rate": spec.fps,
            "chunk_steps": spec.chunk_steps,
            "video_stride": spec.video_stride,
            "robot_types": list(spec.robot_types),
            "views": {camera.key: [cell.row, cell.col] for camera, cell in zip(spec.cameras, spec.cells, strict=True)},
            "view_layout": spec.view_layout,
            "prompt": spec.prompt,
            "state": _dimensions(spec, statistics, "state"),
            "action": _dimensions(spec, statistics, "action"),
        }
    if not config.embodiments:
        found.notes.append("it knows no robot yet: a base to train on a dataset (lerobot-train --policy.path=...)")


def _dimensions(spec: EmbodimentSpec, statistics: ActionStatistics, which: str) -> list[dict[str, Any]]:
    low, high = (np.atleast_2d(getattr(statistics, f"{which}_{side}")) for side in ("low", "high"))
    return [
        {"name": d.name, "unit": d.unit, "relative": d.relative, "low": low[:, i].min(), "high": high[:, i].max()}
        for i, d in enumerate(getattr(spec, which))
    ]


def _components(found: Checkup, config: WAMConfig) -> None:
    """Say where the frozen components are, and how big."""
    components = found.facts["components"] = {}
    for name in COMPONENTS:
        codec = getattr(config, name)
        if codec not in PUBLISHED:
            continue
        source, (parameters, licence) = getattr(config, f"{name}_source"), PUBLISHED[codec]
        width = 2 if config.dtype == "bfloat16" else 4
        row = {"codec": codec, "source": source, "bytes": parameters * width, "licence": licence, "found": False}
        try:
            folder = find_component(config, name, download=False)
            row |= {"found": True, "bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors"))}
        except FileNotFoundError as error:
            if re.match(r"[\w.-]+/[\w.-]+(@|#|$)", source or ""):
                size = row["bytes"] / 1e9
                found.notes.append(f"{name} is not on this machine: {size:.1f} GB are downloaded at its first use")
            else:
                found.problems.append(str(error))
        components[name] = row


def _sizes(found: Checkup, config: WAMConfig) -> None:
    """Tokens and memory, for the robot that the policy acts for."""
    robot = config.embodiment if config.embodiment in config.embodiments else next(iter(config.embodiments), None)
    spec = None if robot is None else EmbodimentSpec.from_dict(config.embodiments[robot]["spec"])
    sizes = geometry(config, spec)
    parts = found.facts["parameters"]
    frozen = {name: row["bytes"] for name, row in found.facts["components"].items()}
    found.facts["geometry"] = asdict(sizes)
    robot_parameters = parts["robots' encoders and decoders"]
    on_device = sum(size for name, size in frozen.items() if name != "text_codec")
    found.facts["memory"] = memory(config, sizes, sum(parts.values()), robot_parameters, on_device)
    found.facts["text_encoder_bytes"] = frozen.get("text_codec", 0)


def _completeness(found: Checkup, config: WAMConfig, folder: Path, verify: bool) -> None:
    """Files that should be there, approximations that are on, and licences."""
    if (folder / PARTIAL).is_file():
        found.problems.append(f"an import that was interrupted: run the same lerobot-wam import --out {folder} again")
    if not (folder / "policy_preprocessor.json").is_file():
        found.notes.append("no policy_preprocessor.json: lerobot-eval needs it; lerobot-train writes one")
    manifest = read_json(folder / MANIFEST)
    if manifest:
        found.facts["origin"] = manifest["origin"]["source"]
        for robot in config.embodiments.keys() - config.prompt_templates.keys():
            found.notes.append(f"robot {robot}: no prompt template, so the instructions' wording is our own")
        listed = manifest["files"]
        wrong = [name for name in listed if not (folder / name).is_file()] if Path(found.source).is_dir() else []
        if verify:
            wrong += [name for name, sha in listed.items() if name not in wrong and sha256(folder / name) != sha]
        if wrong:
            found.problems.append(f"missing or changed since the import: {', '.join(wrong[:_SHOWN])}; import again")
    elif verify:
        raise ValueError(
            f"{folder} has no {MANIFEST} to verify: only imported checkpoints have one, leave --verify out"
        )
    found.notes += [f"approximation: {line}" for line in approximations(config)]
    if config.compat == "official":
        found.notes.append("compat=official: acts as the official code does, its defects included")
    card = folder / "README.md"
    stated = ModelCard.load(card, ignore_metadata_errors=True).data.license if card.is_file() else None
    found.facts["licence"] = stated or config.license
    if not found.facts["licence"]:
        origin = found.facts.get("origin") or "what it was trained from"
        found.notes.append(f"no licence is stated for these weights: see that of {origin}")
