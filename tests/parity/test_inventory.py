"""Names and shapes of the full-size networks, built without memory, against the official checkpoints'."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel

from lerobot_wam.checkpoints.diffusers_names import official_name
from lerobot_wam.checkpoints.foreign import IMAGE, ROBOT
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.model.world_action_model import WorldActionModel

INVENTORY_OF = {"wan2.1-14b": "dit_14B", "wan2.2-5b": "dit_5B"}
HAS_IMAGE_BRANCH = {"wan2.1-14b": True, "wan2.2-5b": False}  # the video models, not DreamZero's
ROBOT_TENSORS = {
    "state_encoder": ("layer1.W", "layer1.b", "layer2.W", "layer2.b"),
    "action_encoder": ("W1.W", "W1.b", "W2.W", "W2.b", "W3.W", "W3.b"),
    "action_decoder": ("layer1.W", "layer1.b", "layer2.W", "layer2.b"),
}
IMAGE_ATTENTION = ("k_img.weight", "k_img.bias", "v_img.weight", "v_img.bias", "norm_k_img.weight")
Shapes = dict[str, tuple[int, ...]]


def shapes(module: torch.nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def network(preset: str) -> tuple[WAMConfig, Shapes]:
    config = WAMConfig(preset=preset, device="cpu", max_embodiments=1)
    with torch.device("meta"):
        return config, shapes(WorldActionModel(config.model_config))


def official(golden_dir: Path, preset: str) -> Shapes:
    inventory = json.loads((golden_dir / "key_inventory.json").read_text())
    return {name: tuple(shape) for name, shape in inventory[INVENTORY_OF[preset]].items()}


@pytest.mark.parametrize("preset", INVENTORY_OF)
def test_every_name_and_shape_is_the_official_one(golden_dir: Path, preset: str) -> None:
    _, ours = network(preset)
    assert ours == official(golden_dir, preset)


def test_tensors_are_counted_as_in_the_released_checkpoint(golden_dir: Path) -> None:
    inventory = json.loads((golden_dir / "key_inventory.json").read_text())
    counts = {name: len(inventory[name]) for name in inventory["counts"] if name != "model"}
    assert inventory["counts"] == counts | {"model": len(network("wan2.1-14b")[1])}


@pytest.mark.parametrize("preset", INVENTORY_OF)
def test_diffusers_names_map_one_to_one(golden_dir: Path, preset: str) -> None:
    """All but the robot's tensors, and for Wan2.2 the image branch, which it does not have."""
    config, ours = network(preset)
    image = HAS_IMAGE_BRANCH[preset]
    with torch.device("meta"):
        theirs = WanTransformer3DModel(
            num_attention_heads=config.num_heads,
            attention_head_dim=config.dim // config.num_heads,
            in_channels=config.latent_channels + config.condition_channels,
            out_channels=config.latent_channels,
            text_dim=config.text_dim,
            freq_dim=config.freq_dim,
            ffn_dim=config.ffn_dim,
            num_layers=config.num_layers,
            image_dim=config.image_dim if image else None,
            added_kv_proj_dim=config.dim if image else None,
        )
    named = shapes(theirs)
    mapped = {official_name(name): shape for name, shape in named.items()}
    assert len(mapped) == len(named)
    assert mapped.items() <= ours.items()

    expected = {f"{module}.{part}" for module, parts in ROBOT_TENSORS.items() for part in parts}
    if not image:
        expected |= {f"img_emb.proj.{layer}.{kind}" for layer in (0, 1, 3, 4) for kind in ("weight", "bias")}
        for block in range(config.num_layers):
            expected |= {f"blocks.{block}.cross_attn.{tensor}" for tensor in IMAGE_ATTENTION}
    lacking = ours.keys() - mapped.keys()
    assert lacking == expected
    assert all(any(module in name for module in (*ROBOT, *(() if image else IMAGE))) for name in lacking)
    assert Counter(map(math.prod, mapped.values())) == Counter(map(math.prod, named.values()))


def test_values_follow_their_names() -> None:
    """diffusers' own conversion of the original names is undone exactly."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    config = WAMConfig(
        preset="wan2.1-14b", device="cpu", dim=16, num_heads=2, num_layers=2, ffn_dim=24, freq_dim=8, text_dim=12
    )
    state = WorldActionModel(config.model_config).state_dict()
    video = {name: tensor for name, tensor in state.items() if not name.startswith(ROBOT)}
    converted = convert_wan_transformer_to_diffusers(dict(video))
    assert converted.keys() != video.keys()
    assert all(tensor is video[official_name(name)] for name, tensor in converted.items())
