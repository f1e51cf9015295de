"""A checkpoint with one more robot: it begins with the weights of the robot nearest to it; all others stay."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import SAFETENSORS_INDEX_FILE as INDEX
from lerobot.configs import PreTrainedConfig
from safetensors.torch import save_file

from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.embodiments.resolve import load_stored_embodiment
from lerobot_wam.weights import CONFIG, MANIFEST, is_per_robot, open_weights, replaced, weight_files

_OF_THE_OLD_WEIGHTS = ("model*.safetensors*", CONFIG, MANIFEST, "train_config.json", "README.md")


def grow_checkpoint(source: Path, out: Path, stored: dict[str, Any], name: str, like: str | None = None) -> str:
    """Write a checkpoint that knows one more robot, and acts as that one.

    Weight file by weight file, so that no more than one is in memory. `max_embodiments` rises where it is used up.
    With the robots that were known before, the network computes the same numbers, to the last bit. Where an average of
    the weights acts, training goes on from it too: from the newest weights, the average would slowly turn into them,
    and what it did better would be lost even where nothing is trained.

    Args:
        source: Folder of a checkpoint.
        out: Folder of the new one; a checkpoint in it is replaced.
        stored: Spec and statistics of the new robot, see `embodiments.resolve.stored_embodiment`.
        name: The new robot's name.
        like: Known robot whose state and action weights are copied; None takes the nearest, see `nearest_robot`.

    Returns:
        The name of the robot whose weights were copied.

    Raises:
        FileNotFoundError: The source holds no weights.
        ValueError: It does not fit, see `check_growth` and `check_robot`.
    """
    config = PreTrainedConfig.from_pretrained(source)
    check_growth(source, config, like)
    assert isinstance(config, WAMConfig)
    check_robot(config, stored, name)
    like = like or nearest_robot(config.embodiments, stored)
    new, row = len(config.embodiments), list(config.embodiments).index(like)
    config.embodiments = {**config.embodiments, name: stored}
    config.embodiment = name
    config.max_embodiments = max(config.max_embodiments, len(config.embodiments))
    rows = torch.arange(config.max_embodiments)
    rows[new] = row
    out.mkdir(parents=True, exist_ok=True)
    with replaced(out) as folder:
        size = 0
        files = [(path, file, sorted(file.keys())) for path in weight_files(source) for file in [open_weights(path)]]
        holds = {key: file for _, file, keys in files for key in keys}
        for path, _, keys in files:
            acting = {key: f"ema_{key}" if f"ema_{key}" in holds else key for key in keys}
            tensors = {key: holds[name].get_tensor(name).clone() for key, name in acting.items()}  # no two share memory
            for key, tensor in tensors.items():
                if is_per_robot(key):
                    # A single row, as in official checkpoints, serves every robot.
                    tensors[key] = tensor[rows if len(tensor) > 1 else torch.zeros_like(rows)]
            save_file(tensors, folder / path.name, metadata={"format": "pt"})
            size += sum(tensor.nbytes for tensor in tensors.values())
        if (source / INDEX).is_file():
            index = json.loads((source / INDEX).read_text(encoding="utf-8"))
            index["metadata"] = {"total_size": size}
            (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
        config._save_pretrained(folder)
    others = shutil.ignore_patterns(*_OF_THE_OLD_WEIGHTS)
    shutil.copytree(source, out, ignore=others, dirs_exist_ok=True)
    return like


def check_growth(source: Path, config: PreTrainedConfig, like: str | None = None) -> None:
    """Refuse a checkpoint that cannot take another robot.

    Raises:
        ValueError: It is no whole policy of ours, or the robot to begin with is unknown.
    """
    if not isinstance(config, WAMConfig):
        raise ValueError(f"{source} holds a policy of type {config.type!r}: only 'wam' policies take another robot")
    if (source / "adapter_config.json").is_file():
        raise ValueError(f"{source} holds adapters without their base: merge them, or give the policy folder of adapt")
    if like is not None and like not in config.embodiments:
        raise ValueError(f"no embodiment {like!r} to begin with: the checkpoint knows {', '.join(config.embodiments)}")


def check_robot(config: WAMConfig, stored: dict[str, Any], name: str) -> None:
    """Refuse a robot that a checkpoint has already, or that its network is too narrow for.

    Raises:
        ValueError: With the way out.
    """
    if name in config.embodiments:
        raise ValueError(
            f"embodiment {name!r} is in the checkpoint already: train it further with lerobot-wam train --policy.path, "
            "or give the new robot a YAML file with another name (--embodiment=FILE.yaml)"
        )
    spec, _ = load_stored_embodiment(name, stored)
    for kind, found, width in (
        ("action", len(spec.action), config.action_dim),
        ("state", len(spec.state), config.state_dim),
    ):
        if found > width:
            raise ValueError(
                f"{name!r} has {found} {kind} dimensions, the checkpoint's network {width}: pre-train one with "
                f"--policy.{kind}_dim={found} or more"
            )


def nearest_robot(known: Mapping[str, Any], stored: dict[str, Any]) -> str:
    """Return the known robot that a new one should begin with.

    It has the most action dimensions of the same name; among equals, the nearest number of them; then the most
    cameras of the same name; then the first.

    Args:
        known: Name to spec and statistics.
        stored: The same of the new robot.
    """
    new, _ = load_stored_embodiment("the new one", stored)

    def distance(name: str) -> tuple[int, int, int]:
        spec, _ = load_stored_embodiment(name, known[name])
        shared = set(spec.action_names) & set(new.action_names)
        cameras = {camera.key for camera in spec.cameras} & {camera.key for camera in new.cameras}
        return -len(shared), abs(len(spec.action) - len(new.action)), -len(cameras)

    return min(known, key=distance)
