"""Policies on Wan's components in their real layouts: loaded at first use, announced, strict, never in the weights."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_checkpoints import IMAGE_WIDTH, write_frozen, write_image_encoder
from hub_endpoint import Hub
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from tiny_policies import TINY, build_policy, make_batch, observe

from lerobot_wam.codecs.image import ClipImageCodec
from lerobot_wam.codecs.umt5 import Umt5TextCodec
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.modeling_wam import WAMPolicy

SHARED: dict[str, Any] = {
    **TINY,
    "chunk_steps": 8,
    "video_stride": 1,
    "text_dim": 24,
    "image_dim": IMAGE_WIDTH,
    "action_dim": 16,
    "state_dim": 16,
    "drop_n_last_frames": 11,
    "dtype": "float32",
}
LIKE: dict[str, dict[str, Any]] = {
    "wan2.1-14b": {"codec_patch": 8, "latent_channels": 16, "condition_channels": 20},
    # Views of 64 x 128 pixels that the head halves.
    "wan2.2-5b": {"codec_patch": 16, "latent_channels": 48, "image_size": (64, 128), "head_resize": (32, 64)},
}


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random components of both families, as diffusers and transformers save them."""
    folders = {}
    for preset, kind in (("wan2.1-14b", "i2v"), ("wan2.2-5b", "ti2v")):
        torch.manual_seed(0)
        folders[preset] = tmp_path_factory.mktemp(preset)
        write_frozen(folders[preset], kind)
        write_image_encoder(folders[preset] / "image_encoder")
    return folders


def tiny_wan(preset: str, folder: Path | str, **overrides: Any) -> WAMConfig:
    subfolders = {"video_codec": "vae", "text_codec": "text_encoder", "image_codec": "image_encoder"}
    sources = {f"{name}_source": f"{folder}#{subfolder}" for name, subfolder in subfolders.items()}
    return WAMConfig(preset=preset, **(SHARED | LIKE[preset] | sources | overrides))


@pytest.mark.parametrize("preset", LIKE)
def test_a_policy_trains_and_acts(preset: str, components: dict[str, Path], arm_data: Path):
    config = tiny_wan(preset, components[preset])
    policy = build_policy(arm_data, config)
    batch = make_batch(arm_data, config)
    loss, _ = policy(batch)
    loss.backward()
    for part in (policy.model.patch_embedding, policy.model.img_emb.proj[1], policy.model.text_embedding[0]):
        assert part.weight.grad.abs().sum() > 0
    policy.eval()
    actions = [policy.select_action(observe(policy, robots=2, seed=step)) for step in range(config.chunk_steps + 1)]
    assert all(action.isfinite().all() and action.shape == (2, 6) for action in actions)
    assert all(name.startswith("model.") for name in policy.state_dict())


@pytest.mark.parametrize("preset", LIKE)
def test_what_the_network_is_shown(preset: str, components: dict[str, Path], arm_data: Path):
    config = tiny_wan(preset, components[preset])
    policy = build_policy(arm_data, config)
    window = policy.reader.window(make_batch(arm_data, config))
    height, width = config.head_resize or config.image_size
    assert window.latent.shape[-2:] == (height // config.codec_patch, width // config.codec_patch)
    assert window.image is not None
    assert window.image.shape == (2, 5, config.image_dim)  # one class token and 2 x 2 patches
    if config.condition_channels:
        assert window.condition is not None
        mask, given = window.condition[:, :4], window.condition[:, 4:]
        assert (mask[:, :, 0] == 1).all()
        assert (mask[:, :, 1:] == 0).all()
        torch.testing.assert_close(given[:, :, 0], window.latent[:, :, 0])
    else:
        assert window.condition is None


def test_a_policy_is_built_without_its_components(arm_data: Path):
    policy = build_policy(arm_data, tiny_wan("wan2.1-14b", "nobody/nothing@v1"))
    for name, flag in (("video", "video_codec_source"), ("text", "text_codec_source"), ("image", "image_codec_source")):
        with pytest.raises(FileNotFoundError, match=rf"nobody/nothing@v1#\w+: .* --policy.{flag}=FOLDER") as error:
            getattr(policy.codecs, name)
        assert "\n" not in str(error.value)


def test_components_come_from_the_hub_once(
    hub: Hub, components: dict[str, Path], arm_data: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
):
    HfApi().create_repo("someone/wan")
    HfApi().upload_folder(repo_id="someone/wan", folder_path=components["wan2.1-14b"])
    config = tiny_wan("wan2.1-14b", "someone/wan@main")
    with caplog.at_level(logging.INFO, "lerobot_wam.frozen"):
        first, _ = build_policy(arm_data, config).text_codec.encode(["push the red cube"])
    assert [record.message.split(" GB ")[0] for record in caplog.records if record.name == "lerobot_wam.frozen"] == [
        "downloading text_codec: 0.0",
        "loading text_codec umt5: 0.0",
    ]
    requests = len(hub.requests)
    again, _ = build_policy(arm_data, config).text_codec.encode(["push the red cube"])
    assert torch.equal(first, again)
    assert len(hub.requests) == requests
    assert not any("/vae/" in request for request in hub.requests if "resolve" in request)


def test_components_that_do_not_fit_are_refused(components: dict[str, Path], arm_data: Path, tmp_path: Path):
    source = f"{components['wan2.2-5b']}#vae"
    other = build_policy(arm_data, tiny_wan("wan2.1-14b", components["wan2.1-14b"], video_codec_source=source))
    with pytest.raises(ValueError, match=r"latent_channels 48, the policy 16: pass --policy\.video_codec_source"):
        _ = other.video_codec
    shutil.copytree(components["wan2.1-14b"], tmp_path / "wan")
    file = tmp_path / "wan/image_encoder/model.safetensors"
    tensors = load_file(file)
    del tensors["vision_model.pre_layrnorm.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    lacking = build_policy(arm_data, tiny_wan("wan2.1-14b", tmp_path / "wan"))
    with pytest.raises(ValueError, match=r"lacks 1 tensors .*\(vision_model.pre_layrnorm.weight\)"):
        _ = lacking.codecs.image
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"image_codec in .* is damaged"):
        _ = lacking.codecs.image


def test_embedded_components_travel_with_the_checkpoint(components: dict[str, Path], arm_data: Path, tmp_path: Path):
    folder = tmp_path / "wan"
    shutil.copytree(components["wan2.1-14b"], folder)
    policy = build_policy(arm_data, tiny_wan("wan2.1-14b", folder, embed_components=True)).eval()
    seen = observe(policy)
    actions = policy.select_action(seen)
    policy.save_pretrained(tmp_path / "saved")
    shutil.rmtree(folder)
    shutil.move(tmp_path / "saved", tmp_path / "moved")
    loaded = WAMPolicy.from_pretrained(tmp_path / "moved").eval()
    assert torch.equal(loaded.select_action(seen), actions)
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/text_codec/tokenizer.json").is_file()


def test_encoders_rest_on_the_cpu_until_they_are_needed(components: dict[str, Path], arm_data: Path, caplog: Any):
    codecs = build_policy(arm_data, tiny_wan("wan2.1-14b", components["wan2.1-14b"])).codecs
    assert isinstance(codecs.text, Umt5TextCodec)
    assert isinstance(codecs.image, ClipImageCodec)
    frame = torch.rand(1, 3, 32, 32)
    before = codecs.text.encode(["push the red cube"])[0], codecs.image.encode(frame)
    assert codecs.text.encoder is not None
    for encoder in (codecs.text.encoder, codecs.image.vision_model):
        for module in encoder.modules():  # a device without memory stands for a GPU
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, torch.nn.Parameter(weight.to("meta"), requires_grad=False))
    with caplog.at_level(logging.INFO, "lerobot_wam.frozen"):
        codecs.rest()
        codecs.rest()
    assert [message.split(" is on ")[0] for message in caplog.messages if " is on meta " in message] == [
        "the encoder of text_codec",
        "the encoder of image_codec",
    ]
    codecs.text._tokens.clear()
    after = codecs.text.encode(["push the red cube"])[0], codecs.image.encode(frame)
    torch.testing.assert_close(after, before)
