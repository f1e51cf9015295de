"""Tiny checkpoints in every layout that can be imported, with random weights that are all awake."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import save_torch_state_dict
from torch import Tensor

from lerobot_wam.model.config import ModelConfig
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.modeling_wam import WAMPolicy

WIDTH, HEADS, LAYERS, IMAGE_WIDTH = 32, 2, 2, 32
STEPS, CHUNKS = 24, 2
VIEW = (16, 32)  # pixels; a tile of two by two views has 4 x 8 latent cells
ROBOT = ("state_encoder", "action_encoder", "action_decoder")
SHARD = "40KB"
QUICK = {"num_inference_steps": 2, "text_length": 8, "max_chunks": CHUNKS, "image_size": VIEW}
SIMPLE = QUICK | {"video_codec": "dct", "text_codec": "word_hash", "weights_dtype": "float32"}
"""Codecs that need no weights, in front of the real network."""
Weights = dict[str, Tensor]


def network(*, kind: str = "i2v", robot: bool = True, image: bool = True, seed: int = 0) -> Weights:
    """A network's tensors by their official names."""
    config = ModelConfig(
        dim=WIDTH,
        num_heads=HEADS,
        num_layers=LAYERS,
        ffn_dim=48,
        freq_dim=16,
        text_dim=24,
        latent_channels=16,
        condition_channels=20 if kind == "i2v" else 0,
        image_dim=IMAGE_WIDTH if image else None,
        action_dim=12,
        state_dim=14,
        action_hidden=20,
        actions_per_chunk=STEPS,
        max_chunks=CHUNKS,
    )
    generator = torch.Generator().manual_seed(seed)
    state = WorldActionModel(config).state_dict()
    awake = {name: 0.1 * torch.randn(t.shape, generator=generator) for name, t in state.items()}
    return {name: tensor for name, tensor in awake.items() if robot or not name.startswith(ROBOT)}


def metadata() -> dict[str, Any]:
    """metadata.json of a DROID checkpoint: keys by alphabet, each with its quantiles."""

    def ranges(width: int, scale: float) -> dict[str, list[float]]:
        return {"q01": [-scale - i / 10 for i in range(width)], "q99": [scale + i / 10 for i in range(width)]}

    vectors = {
        group: {"gripper_position": {"q01": [0.0], "q99": [1.0]}, "joint_position": ranges(7, scale)}
        for group, scale in (("state", 2.0), ("action", 0.5))
    }
    cameras = ("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left")
    video = {name: {"resolution": [320, 180], "channels": 3, "fps": 15.0} for name in cameras}
    return {"oxe_droid": {"statistics": vectors, "modalities": {"video": video}, "embodiment_tag": "oxe_droid"}}


def head_config(kind: str = "i2v", **changes: Any) -> dict[str, Any]:
    """The part of an official configuration that describes the policy's head."""
    sizes = {"dim": WIDTH, "num_heads": HEADS, "num_layers": LAYERS, "max_chunk_size": CHUNKS, "model_type": kind}
    counts = {"num_frame_per_block": 2, "num_action_per_block": STEPS, "num_state_per_block": 1}
    wan = {"diffusion_model_pretrained_path": "/somewhere/Wan2.1-I2V-14B-480P"}
    return {"config": {"lora_rank": 4, "lora_alpha": 4, "diffusion_model_cfg": sizes | counts | wan} | changes}


def write_dreamzero(
    folder: Path,
    weights: Weights,
    *,
    components: Weights | None = None,
    head: dict[str, Any] | None = None,
    conf: dict[str, Any] | None = None,
) -> Path:
    """An official checkpoint: shards with an index, config.json and experiment_cfg/."""
    folder.mkdir(parents=True)
    named = {f"action_head.model.{name}": tensor for name, tensor in weights.items()}
    save_torch_state_dict(named | (components or {}), folder, max_shard_size=SHARD)
    head = head or head_config()
    write_json(folder / "config.json", {"architectures": ["VLA"], "action_head_cfg": head})
    (folder / "experiment_cfg").mkdir()
    run = {"action_horizon": STEPS, "image_resolution_height": VIEW[0], "image_resolution_width": VIEW[1]}
    text = yaml.safe_dump(run | {"pretrained_model_path": None, "action_head_cfg": head} | (conf or {}))
    (folder / "experiment_cfg" / "conf.yaml").write_text(text)
    write_json(folder / "experiment_cfg" / "metadata.json", metadata())
    return folder


def adapters(weights: Weights, rank: int = 4, seed: int = 1) -> Weights:
    """LoRA factors and retrained robot tensors, as a fine-tune stores them below the head's prefix."""
    generator = torch.Generator().manual_seed(seed)
    stored = {}
    for name, tensor in weights.items():
        parts = name.split(".")
        if name.startswith(ROBOT):
            stored[f"base_model.model.{name}"] = 0.1 * torch.randn(tensor.shape, generator=generator)
        elif parts[-1] == "weight" and (parts[-2] in ("q", "k", "v", "o") or ".ffn." in name):
            path = f"base_model.model.{name.removesuffix('.weight')}"
            for side, shape in (("A", (rank, tensor.shape[1])), ("B", (tensor.shape[0], rank))):
                stored[f"{path}.lora_{side}.default.weight"] = 0.1 * torch.randn(shape, generator=generator)
    return stored


def write_wan(folder: Path, weights: Weights, kind: str, files: dict[str, Weights] | None = None) -> Path:
    """An original Wan folder; `files` are its .pth files."""
    folder.mkdir(parents=True)
    pattern = "diffusion_pytorch_model{suffix}.safetensors"
    save_torch_state_dict(dict(weights), folder, filename_pattern=pattern, max_shard_size=SHARD)
    write_json(folder / "config.json", {"_class_name": "WanModel", "model_type": kind, "num_heads": HEADS})
    for name, state in (files or {}).items():
        torch.save(state, folder / name)
    return folder


def write_diffusers(folder: Path, kind: str) -> Path:
    """A Wan checkpoint as diffusers saves it, frozen components included."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    i2v = kind == "i2v"
    channels = 16 if i2v else 48
    transformer = WanTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS,
        in_channels=channels + 20 * i2v,
        out_channels=channels,
        text_dim=24,
        freq_dim=16,
        ffn_dim=48,
        num_layers=LAYERS,
        image_dim=IMAGE_WIDTH if i2v else None,
        added_kv_proj_dim=WIDTH if i2v else None,
    )
    transformer.save_pretrained(folder / "transformer", max_shard_size=SHARD)
    write_frozen(folder, kind)
    return folder


def write_frozen(folder: Path, kind: str) -> None:
    """Frozen components in their libraries' layouts."""
    from diffusers import AutoencoderKLWan

    residual = {"is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2}
    latents = {"z_dim": 48, "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48}
    wan22 = residual | latents | {"scale_factor_spatial": 16, "decoder_base_dim": 4}
    AutoencoderKLWan(base_dim=4, **({} if kind == "i2v" else wan22)).save_pretrained(folder / "vae")
    write_text_encoder(folder / "text_encoder", folder / "tokenizer")
    if kind == "i2v":
        write_image_encoder(folder / "image_encoder")


def write_image_encoder(folder: Path) -> Path:
    """A tiny CLIP vision tower."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes = {"hidden_size": IMAGE_WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    CLIPVisionModel(CLIPVisionConfig(image_size=28, patch_size=14, **sizes)).save_pretrained(folder)
    return folder


def write_text_encoder(encoder: Path, tokenizer: Path) -> None:
    """A tiny UMT5 and a tokenizer that knows a few words."""
    from transformers import UMT5Config, UMT5EncoderModel

    sizes = {"vocab_size": 64, "d_model": 24, "d_kv": 6, "d_ff": 32, "num_layers": 2, "num_heads": 4}
    UMT5EncoderModel(UMT5Config(**sizes)).save_pretrained(encoder)
    write_tokenizer(tokenizer)


def write_tokenizer(folder: Path, words: Iterable[str] = ("push", "the", "red", "cube", "left")) -> Path:
    """A word-level tokenizer in transformers' layout."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(("<pad>", "</s>", "<unk>", *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


def write_json(file: Path, content: Any) -> None:
    """One JSON file."""
    file.write_text(json.dumps(content))


def observe(policy: WAMPolicy, seed: int) -> dict[str, Any]:
    """What a robot shows, random but for its form."""
    generator = torch.Generator().manual_seed(seed)
    spec = policy.action_spaces[policy.category].spec
    frames = {camera.key: torch.rand(1, 3, *VIEW, generator=generator) for camera in spec.cameras}
    return frames | {
        "observation.state": torch.rand(1, len(spec.state), generator=generator),
        "task": ["push the red cube"],
    }


def actions(policy: WAMPolicy) -> torch.Tensor:
    """A chunk and a step, in closed loop."""
    policy.eval()
    return torch.stack([policy.select_action(observe(policy, step)) for step in range(STEPS + 1)])


def checksums(folder: Path) -> dict[str, str]:
    """sha256 of every file but the manifest."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "manifest.json"]
    return {f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
