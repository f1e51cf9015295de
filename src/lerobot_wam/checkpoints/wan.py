"""The video models that DreamZero starts from: Wan2.1-I2V and Wan2.2-TI2V, in the original and diffusers' layout."""

from pathlib import Path
from typing import Any

from lerobot_wam.checkpoints.diffusers_names import official_name
from lerobot_wam.checkpoints.foreign import (
    IMAGE,
    PRESET_OF_TYPE,
    ROBOT,
    ForeignCheckpoint,
    network_settings,
)
from lerobot_wam.checkpoints.lazy import open_pth, open_safetensors
from lerobot_wam.checkpoints.source import Source, read_json

_STEM = "diffusion_pytorch_model"
_VAE = "Wan2.[12]_VAE.pth"
_TEXT = "models_t5_umt5-xxl-enc-bf16.pth"
_IMAGE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
_TOKENIZER = Path("google", "umt5-xxl")
_FOLDERS = {"video_codec": "vae", "text_codec": "text_encoder", "image_codec": "image_encoder"}
_UNUSED = "norm_added_q"  # some conversions carry this norm of image queries, which Wan does not have


def read_original(source: Source, folder: Path, embed: bool = False) -> ForeignCheckpoint:
    """Read a folder of the original release: sharded safetensors beside .pth files of the frozen components.

    Args:
        source: Where it comes from.
        folder: Its folder, so far perhaps with descriptions only.
        embed: Also open the frozen components.
    """
    source.fetch([f"{_STEM}*.safetensors", *([_VAE, _TEXT, _IMAGE, f"{_TOKENIZER}/*"] if embed else [])])
    config, tensors = read_json(folder / "config.json"), open_safetensors(folder, _STEM)
    settings = network_settings(tensors, config["model_type"], config["num_heads"], source.name)
    files = {"video_codec": _VAE, "text_codec": _TEXT, "image_codec": _IMAGE} if embed else {}
    components = {name: open_pth(file) for name, pattern in files.items() for file in folder.glob(pattern)}
    return ForeignCheckpoint(
        "original Wan checkpoint", tensors, settings, {}, _lacks(settings), components, folder / _TOKENIZER
    )


def read_diffusers(source: Source, folder: Path) -> ForeignCheckpoint:
    """Read diffusers' layout, a folder a component; the policy refers to the frozen ones where they are.

    Arguments as for `read_original`.
    """
    source.fetch([f"transformer/{_STEM}*.safetensors"])
    named = open_safetensors(folder / "transformer", _STEM)
    tensors = {official_name(name): lazy for name, lazy in named.items() if _UNUSED not in name}
    config, vae = (read_json(folder / name / "config.json") for name in ("transformer", "vae"))
    conditioned = config["in_channels"] > config["out_channels"]
    model_type = "ti2v" if vae.get("is_residual") else "i2v" if conditioned else "t2v"
    settings = network_settings(tensors, model_type, config["num_attention_heads"], source.name)
    where = str(folder.resolve()) if source.local else f"{source.name}@{source.revision or 'main'}"
    for component, name in _FOLDERS.items():
        if (folder / name / "config.json").is_file():
            settings[f"{component}_source"] = f"{where}#{name}"
    return ForeignCheckpoint("Wan checkpoint in diffusers' layout", tensors, settings, {}, _lacks(settings))


def _lacks(settings: dict[str, Any]) -> tuple[str, ...]:
    return ROBOT if settings["preset"] == PRESET_OF_TYPE["i2v"] else (*ROBOT, *IMAGE)
