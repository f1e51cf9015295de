"""The official weights, laid out as the released checkpoints, through the importer: the same numbers come out.

The lengths of a window are the released ones, since no weight depends on them; every other size is the file's.
"""

import json
from pathlib import Path
from typing import Any

import official
import pytest
import torch
from foreign_checkpoints import head_config, write_dreamzero, write_tokenizer, write_wan
from golden import read, under
from safetensors.torch import load_file
from test_components import ATOL
from torch import Tensor

from lerobot_wam.checkpoints.importer import import_checkpoint
from lerobot_wam.frozen import FrozenCodecs, resolve_embedded
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.weights import weight_files

EXACT = {"weights_dtype": "float32", "dtype": "float32"}
CASES = {"standard": "i2v", "5B_standard": "ti2v"}
PTH = {
    "vae.model.": "Wan2.1_VAE.pth",
    "text_encoder.": "models_t5_umt5-xxl-enc-bf16.pth",
    "image_encoder.model.": "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
}


def sizes_of(golden_dir: Path, kind: str) -> dict[str, Any]:
    return json.loads(read(golden_dir / f"a_dit_train_{kind}.safetensors")[1]["config"])


def check_components(codecs: FrozenCodecs, weights: Path, sample: dict[str, Tensor]) -> None:
    clean = sample["mid.clean_x"]
    video = official.pixels(sample["in.images"], clean, codecs.video.spatial_stride)
    torch.testing.assert_close(codecs.video.encode(video), clean, rtol=0, atol=ATOL)

    ids, real = sample["in.text"][:1], sample["in.text_attention_mask"][0].bool()
    with torch.no_grad():
        tokens = codecs.text.encoder(ids[:, real]).last_hidden_state
    torch.testing.assert_close(tokens, sample["mid.context"][:, real], rtol=0, atol=ATOL)

    # How many heads the tiny image encoder has is in no tensor, so only its weights can be compared.
    frame = video[:, :, 0]
    expected = official.image_codec(weights, frame, sample["mid.clip_feature"]).vision_model.state_dict()
    found = codecs.image.vision_model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.mark.parametrize("case", CASES)
def test_a_released_checkpoint(golden_dir: Path, tmp_path: Path, case: str) -> None:
    sample, meta = read(golden_dir / f"c_train_loss_{case}.safetensors")
    file = golden_dir / f"{meta['weights']}.safetensors"
    weights, kind = under(read(file)[0], "w."), CASES[case]
    height, width = sample["in.images"].shape[2:4]
    resized = [side * official.video_codec(file).spatial_stride for side in sample["mid.clean_x"].shape[-2:]]
    head = head_config(kind)
    head["config"] |= {"target_video_height": resized[0], "target_video_width": resized[1]}
    head["config"]["diffusion_model_cfg"] |= {"num_heads": sizes_of(golden_dir, kind)["num_heads"]}
    network = under(weights, "model.")
    source = write_dreamzero(
        tmp_path / "DreamZero",
        network,
        components={f"action_head.{n}": tensor for n, tensor in weights.items() if not n.startswith("model.")},
        head=head,
        conf={"image_resolution_height": height // 2, "image_resolution_width": width // 2},
    )
    tokenizer = write_tokenizer(tmp_path / "umt5-xxl")
    import_checkpoint(str(source), tmp_path / "policy", settings=EXACT, embed_components=True, tokenizer=str(tokenizer))
    policy = WAMPolicy.from_pretrained(tmp_path / "policy")
    for name, tensor in policy.model.state_dict().items():
        assert torch.equal(tensor, network[name].expand_as(tensor)), name
    check_components(policy.codecs, file, sample)


def test_an_original_wan_folder(golden_dir: Path, tmp_path: Path) -> None:
    """The same frozen components from .pth files; the video model's tensors are those of the released name."""
    sample, meta = read(golden_dir / "c_train_loss_standard.safetensors")
    file = golden_dir / f"{meta['weights']}.safetensors"
    weights = under(read(file)[0], "w.")
    robot = ("state_encoder", "action_encoder", "action_decoder")
    network = {n: t for n, t in under(weights, "model.").items() if not n.startswith(robot)}
    source = write_wan(tmp_path / "Wan", network, "i2v", {pth: under(weights, part) for part, pth in PTH.items()})
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"num_heads": sizes_of(golden_dir, "i2v")["num_heads"]}))
    write_tokenizer(source / "google" / "umt5-xxl")
    config = import_checkpoint(str(source), tmp_path / "policy", settings=EXACT, embed_components=True)
    stored = {n: t for shard in weight_files(tmp_path / "policy") for n, t in load_file(shard).items()}
    assert all(torch.equal(tensor, stored[f"model.{name}"]) for name, tensor in network.items())
    resolve_embedded(config, tmp_path / "policy")
    check_components(FrozenCodecs(config), file, sample)
