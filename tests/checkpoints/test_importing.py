"""Foreign checkpoints become policies: what is computed, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign_checkpoints as foreign
import pytest
import torch
from foreign_checkpoints import (
    QUICK,
    STEPS,
    VIEW,
    actions,
    adapters,
    checksums,
    head_config,
    network,
    write_dreamzero,
    write_wan,
)
from lerobot.configs import PreTrainedConfig
from lerobot.policies import make_pre_post_processors
from safetensors.torch import load_file
from tiny_policies import build_policy, write_dataset

from lerobot_wam.checkpoints.importer import import_checkpoint
from lerobot_wam.modeling_wam import WAMPolicy


def same_after_saving(policy: WAMPolicy, folder: Path) -> bool:
    before = actions(policy)
    policy.save_pretrained(folder)
    again = WAMPolicy.from_pretrained(folder)
    return before.isfinite().all() and before.std(0).min() > 0 and torch.equal(before, actions(again))


def weights_of(policy: WAMPolicy) -> dict[str, torch.Tensor]:
    return policy.model.state_dict()


# What comes out


def test_an_official_checkpoint_acts_and_survives_saving(tmp_path: Path, clip: dict[str, Any]) -> None:
    weights = network()
    source = write_dreamzero(tmp_path / "DreamZero-DROID", weights)
    assert len(list(source.glob("*.safetensors"))) > 2
    import_checkpoint(str(source), tmp_path / "policy", settings=clip)
    assert len(list((tmp_path / "policy").glob("*.safetensors"))) > 2

    policy = WAMPolicy.from_pretrained(tmp_path / "policy")
    config = policy.config
    assert (config.preset, config.dim, config.num_layers, config.num_heads) == ("wan2.1-14b", 32, 2, 2)
    assert (config.chunk_steps, config.video_stride, config.max_chunks) == (STEPS, 3, foreign.CHUNKS)
    assert (config.action_dim, config.state_dim, config.action_hidden) == (12, 14, 20)
    for name, tensor in weights_of(policy).items():
        assert torch.equal(tensor, weights[name].expand_as(tensor)), name
    spec = policy.action_spaces[0].spec
    assert (spec.name, spec.fps, len(spec.action), len(spec.state)) == ("oxe_droid", 15, 8, 8)
    assert [dimension.relative for dimension in spec.action] == [True] * 7 + [False]
    assert config.input_features["observation.state"].shape == (8,)
    assert same_after_saving(policy, tmp_path / "saved")
    make_pre_post_processors(config, pretrained_path=str(tmp_path / "policy"))


def test_a_fine_tune_is_merged_onto_its_base(tmp_path: Path, clip: dict[str, Any]) -> None:
    weights = network()
    tuned = adapters(weights)
    write_dreamzero(tmp_path / "DreamZero-AgiBot", weights)
    head, run = head_config(), {"pretrained_model_path": "./checkpoints/DreamZero-AgiBot"}
    head["config"] |= {"lora_alpha": 8}
    source = write_dreamzero(tmp_path / "tuned", tuned, head=head, conf=run)
    base = str(tmp_path / "DreamZero-AgiBot")
    import_checkpoint(str(source), tmp_path / "policy", base=base, settings=clip)

    policy = WAMPolicy.from_pretrained(tmp_path / "policy")
    merged = 0
    for name, tensor in weights_of(policy).items():
        path = f"base_model.model.{name.removesuffix('.weight')}"
        expected = tuned.get(f"base_model.model.{name}", weights[name])
        if f"{path}.lora_A.default.weight" in tuned:
            merged += 1
            down, up = (tuned[f"{path}.lora_{side}.default.weight"] for side in "AB")
            expected = weights[name] + 2 * up @ down
        torch.testing.assert_close(tensor, expected.expand_as(tensor), rtol=0, atol=1e-6)
    assert merged == foreign.LAYERS * 10  # q, k, v, o of both attentions and the feed-forward's two
    assert same_after_saving(policy, tmp_path / "saved")


def test_a_fine_tune_that_holds_its_base_needs_no_other(tmp_path: Path, clip: dict[str, Any]) -> None:
    weights = network()
    tuned = adapters(weights)
    run = {"pretrained_model_path": "/x/DreamZero-AgiBot"}
    write_dreamzero(tmp_path / "DreamZero-AgiBot", weights)
    write_dreamzero(tmp_path / "light", tuned, conf=run)
    import_checkpoint(
        str(tmp_path / "light"), tmp_path / "first", base=str(tmp_path / "DreamZero-AgiBot"), settings=clip
    )

    whole = dict(tuned)
    for name, tensor in weights.items():
        path, _, kind = f"base_model.model.{name}".rpartition(".")
        adapted = f"{path}.lora_A.default.weight" in tuned
        whole.setdefault(f"{path}.base_layer.{kind}" if adapted else f"{path}.{kind}", tensor)
    write_dreamzero(tmp_path / "heavy", whole, conf=run)
    import_checkpoint(str(tmp_path / "heavy"), tmp_path / "second", settings=clip)
    first, second = (weights_of(WAMPolicy.from_pretrained(tmp_path / name)) for name in ("first", "second"))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    with pytest.raises(ValueError, match="holds its own base"):
        import_checkpoint(str(tmp_path / "heavy"), tmp_path / "third", base=str(tmp_path / "light"))


@pytest.mark.parametrize("kind", ["i2v", "ti2v"])
def test_an_original_wan_base_trains_and_acts(
    tmp_path: Path, clip: dict[str, Any], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    weights = network(kind=kind, robot=False, image=kind == "i2v")
    source = write_wan(tmp_path / "Wan", weights, kind)
    settings = clip | {"image_dim": foreign.IMAGE_WIDTH, "head_resize": (32, 64), "codec_patch": 8}
    import_checkpoint(str(source), tmp_path / "policy", settings=settings)
    fresh = {"state_encoder", "action_encoder", "action_decoder"}
    fresh |= set() if kind == "i2v" else {"img_emb", "cross_attn.k_img", "cross_attn.v_img", "cross_attn.norm_k_img"}
    said = [record.message for record in caplog.records if "freshly initialised" in record.message]
    assert {message.rpartition(" ")[2] for message in said} == fresh

    policy = on_data(tmp_path / "policy", tmp_path / "data")
    for name, tensor in weights.items():
        assert torch.equal(weights_of(policy)[name], tensor), name
    assert same_after_saving(policy, tmp_path / "saved")


@pytest.mark.parametrize("kind", ["i2v", "ti2v"])
@pytest.mark.parametrize("embed", [False, True])
def test_diffusers_layout_brings_its_frozen_components(tmp_path: Path, kind: str, embed: bool) -> None:
    source = foreign.write_diffusers(tmp_path / "Wan-Diffusers", kind)
    settings = QUICK | {"image_size": (32, 64), "head_resize": (32, 64), "weights_dtype": "float32", "dtype": "float32"}
    if kind == "ti2v":
        settings |= {"image_codec": "none", "image_dim": 0}
    config = import_checkpoint(str(source), tmp_path / "policy", settings=settings, embed_components=embed)
    expected = "#video_codec" if embed else f"{source}#vae"
    assert config.video_codec_source == expected
    if embed:
        source.rename(tmp_path / "gone")
    policy = on_data(tmp_path / "policy", tmp_path / "data")
    assert same_after_saving(policy, tmp_path / "saved")
    if kind == "i2v":
        assert policy.codecs.image is not None


def on_data(folder: Path, data: Path) -> WAMPolicy:
    """A base as `lerobot-train --policy.path` builds it."""
    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = folder
    return build_policy(write_dataset(data, (60, 60), size=32), config)


def test_missing_weights_are_the_seed_s(tmp_path: Path, clip: dict[str, Any]) -> None:
    source = write_wan(tmp_path / "Wan", network(robot=False), "i2v")
    files = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        import_checkpoint(str(source), tmp_path / name, settings=clip, seed=seed)
        files[name] = {file: sha for file, sha in checksums(tmp_path / name).items() if file.startswith("model")}
    assert files["a"] == files["b"] != files["c"]


def test_the_5b_settings_come_from_the_run(tmp_path: Path, clip: dict[str, Any]) -> None:
    head = head_config("ti2v")
    head["config"] |= {"target_video_height": 16, "target_video_width": 32}
    head["config"] |= {"decouple_video_action_noise": True, "video_noise_beta_alpha": 3.0}
    source = write_dreamzero(tmp_path / "5b", network(kind="ti2v"), head=head)
    settings = {k: v for k, v in clip.items() if k != "image_size"} | {"codec_patch": 8}
    config = import_checkpoint(str(source), tmp_path / "policy", settings=settings)
    assert (config.preset, config.image_size, config.head_resize) == ("wan2.2-5b", VIEW, (16, 32))
    assert (config.noise_mode, config.noise_beta_alpha) == ("decoupled", 3.0)
    assert actions(WAMPolicy.from_pretrained(tmp_path / "policy")).isfinite().all()


def test_bfloat16_is_what_an_import_stores(tmp_path: Path) -> None:
    source = write_dreamzero(tmp_path / "droid", network())
    config = import_checkpoint(str(source), tmp_path / "policy", settings={"compat": "official"})
    stored = [tensor for file in (tmp_path / "policy").glob("*.safetensors") for tensor in load_file(file).values()]
    assert {tensor.dtype for tensor in stored} == {torch.bfloat16}
    assert (config.weights_dtype, config.computed_steps, config.noise_stream) == ("bfloat16", "8", "fixed")


# The wording


def test_the_trained_wording_is_stored_or_its_absence_said(
    tmp_path: Path, clip: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    source = str(write_dreamzero(tmp_path / "droid", network()))
    import_checkpoint(source, tmp_path / "without", settings=clip)
    assert "NO PROMPT TEMPLATE" in caplog.text
    caplog.clear()
    file = tmp_path / "wording.yaml"
    file.write_text('oxe_droid: "Two views. Do {task} now: {task}"\nnegative_prompt: shaky\n')
    config = import_checkpoint(source, tmp_path / "with", settings=clip, prompt_template=file)
    assert "NO PROMPT TEMPLATE" not in caplog.text
    assert config.prompt_templates == {"oxe_droid": "Two views. Do {task} now: {task}"}
    assert WAMPolicy.from_pretrained(tmp_path / "with").config.negative_prompt == "shaky"
    file.write_text("agibot: do {task}\n")
    with pytest.raises(ValueError, match="no prompt for the embodiment 'oxe_droid'"):
        import_checkpoint(source, tmp_path / "other", settings=clip, prompt_template=file)


# What is refused


def drop(weights: dict[str, torch.Tensor]) -> None:
    del weights["blocks.1.ffn.0.bias"]


def add(weights: dict[str, torch.Tensor]) -> None:
    weights["blocks.1.ffn.9.bias"] = torch.zeros(3)


def reshape(weights: dict[str, torch.Tensor]) -> None:
    weights["blocks.1.ffn.0.bias"] = torch.zeros(7)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (drop, "missing blocks.1.ffn.0.bias [48]"),
        (add, "unexpected blocks.1.ffn.9.bias"),
        (reshape, "mismatched blocks.1.ffn.0.bias: [7], expected [48]"),
    ],
)
def test_every_tensor_must_fit(
    tmp_path: Path, change: Callable[..., None], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    weights = network()
    change(weights)
    source = write_dreamzero(tmp_path / "droid", weights)
    with pytest.raises(ValueError, match="1 tensors are missing, unexpected or mismatched"):
        import_checkpoint(str(source), tmp_path / "policy")
    assert problem in caplog.text
    assert not (tmp_path / "policy").exists()


def test_robot_tensors_may_lack_only_in_a_video_model(tmp_path: Path) -> None:
    source = write_dreamzero(tmp_path / "droid", network(robot=False))
    with pytest.raises(ValueError, match="14 tensors are missing"):
        import_checkpoint(str(source), tmp_path / "policy")


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (None, "without its base: give --base=FOLDER_OR_REPO of DreamZero-AgiBot"),
        ("Wan2.1-I2V-14B-480P", "trained on DreamZero-AgiBot .* --base is Wan2.1-I2V-14B-480P"),
        ("other/DreamZero-AgiBot", "does not fit its base: adapter of blocks.0"),
    ],
)
def test_another_base_is_refused(tmp_path: Path, base: str | None, message: str) -> None:
    tuned = adapters(network())
    source = write_dreamzero(tmp_path / "tuned", tuned, conf={"pretrained_model_path": "./DreamZero-AgiBot"})
    write_wan(tmp_path / "Wan2.1-I2V-14B-480P", network(robot=False), "i2v")
    smaller = {n: t[: len(t) // 2].clone() if n.endswith("self_attn.q.weight") else t for n, t in network().items()}
    write_dreamzero(tmp_path / "other" / "DreamZero-AgiBot", smaller)
    with pytest.raises(ValueError, match=message):
        import_checkpoint(str(source), tmp_path / "policy", base=base and str(tmp_path / base))


def test_adapters_trained_on_wan_merge_onto_wan(tmp_path: Path, clip: dict[str, Any]) -> None:
    weights = network()
    source = write_dreamzero(tmp_path / "tuned", adapters(weights))
    base = write_wan(tmp_path / "Wan2.1-I2V-14B-480P", network(robot=False), "i2v")
    import_checkpoint(str(source), tmp_path / "policy", base=str(base), settings=clip)
    assert actions(WAMPolicy.from_pretrained(tmp_path / "policy")).isfinite().all()


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no checkpoint that can be imported"):
        import_checkpoint(str(tmp_path / "empty"), tmp_path / "policy")
    with pytest.raises(FileNotFoundError, match="no folder, and cannot be fetched"):
        import_checkpoint("some/where", tmp_path / "policy")
    text_to_video = network(kind="ti2v", robot=False, image=False)
    with pytest.raises(ValueError, match="is a t2v model: expected image-to-video"):
        import_checkpoint(str(write_wan(tmp_path / "t2v", text_to_video, "t2v")), tmp_path / "policy")
    with pytest.raises(ValueError, match="no LoRA fine-tune: leave --base out"):
        import_checkpoint(str(tmp_path / "t2v"), tmp_path / "policy", base="x/y")


def test_damaged_and_missing_shards_are_named(tmp_path: Path) -> None:
    source = write_dreamzero(tmp_path / "droid", network())
    shard = sorted(source.glob("*.safetensors"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{shard.name} is damaged"):
        import_checkpoint(str(source), tmp_path / "policy")
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"{shard.name} is missing"):
        import_checkpoint(str(source), tmp_path / "policy")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", "config.json is damaged"),
        ("model.safetensors.index.json", "{", "index.json is damaged"),
        ("experiment_cfg/conf.yaml", "a: [", "conf.yaml"),
        ("config.json", '{"architectures": ["VLA"], "action_head_cfg": {"config": {}}}', "does not say 'diffusion_mod"),
    ],
)
def test_damaged_descriptions_are_named(tmp_path: Path, file: str, content: str, message: str) -> None:
    source = write_dreamzero(tmp_path / "droid", network())
    (source / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        import_checkpoint(str(source), tmp_path / "policy")


def test_settings_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    source = write_dreamzero(tmp_path / "droid", network())
    with pytest.raises(ValueError, match="cannot become a policy with these settings: image_size"):
        import_checkpoint(str(source), tmp_path / "policy", settings={"image_size": (17, 32)})
