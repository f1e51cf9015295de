"""What an interruption costs an import, what is fetched from the Hub, and the command line."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_checkpoints import actions, checksums, network, write_dreamzero
from hub_endpoint import Hub
from huggingface_hub import HfApi
from safetensors.torch import save_file

from lerobot_wam.checkpoints import output
from lerobot_wam.checkpoints.importer import import_checkpoint, parse_settings
from lerobot_wam.cli.main import main
from lerobot_wam.modeling_wam import WAMPolicy

# Interruption


@pytest.fixture
def interrupted(tmp_path: Path, clip: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """An import that stopped while it wrote its third shard; call it to run it again."""
    source = str(write_dreamzero(tmp_path / "droid", network()))

    def run(out: str = "policy", **settings: Any) -> Any:
        return import_checkpoint(source, tmp_path / out, settings=clip | settings)

    def stop(state: dict[str, torch.Tensor], path: Path, **kwargs: Any) -> None:
        if "00003" in path.name:
            path.write_bytes(b"half a shard")
            raise KeyboardInterrupt
        save_file(state, path, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(output, "save_file", stop)
        with pytest.raises(KeyboardInterrupt):
            run()
    return run


def test_an_interrupted_import_goes_on(interrupted: Callable[..., Any], tmp_path: Path) -> None:
    finished = sorted((tmp_path / "policy").glob("*.safetensors"))
    assert len(finished) == 2
    assert not (tmp_path / "policy" / "config.json").exists()  # nobody takes it for a policy
    times = [file.stat().st_mtime_ns for file in finished]
    interrupted()
    assert [file.stat().st_mtime_ns for file in finished] == times
    interrupted("uninterrupted")
    assert checksums(tmp_path / "policy") == checksums(tmp_path / "uninterrupted")
    manifest = json.loads((tmp_path / "policy" / "manifest.json").read_text())
    assert manifest["files"] == checksums(tmp_path / "policy")


def test_a_finished_shard_that_changed_is_written_again(interrupted: Callable[..., Any], tmp_path: Path) -> None:
    first = min((tmp_path / "policy").glob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    interrupted()
    interrupted("uninterrupted")
    assert checksums(tmp_path / "policy") == checksums(tmp_path / "uninterrupted")


def test_other_settings_do_not_continue_it(interrupted: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds an import of .* with other settings or files"):
        interrupted(weights_dtype="bfloat16")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(ValueError, match="not empty and no import of ours"):
        interrupted("mine")


# The Hub and the command line


def test_only_the_needed_files_are_fetched(hub: Hub, tmp_path: Path, clip: dict[str, Any]) -> None:
    vae = {f"action_head.vae.model.{i}": torch.zeros(20_000) for i in range(3)}
    folder = write_dreamzero(tmp_path / "droid", network(), components=vae)
    (folder / "tensorrt").mkdir()
    (folder / "tensorrt" / "engine.bin").write_bytes(b"0" * 1000)
    HfApi().create_repo("user/droid")
    HfApi().upload_folder(repo_id="user/droid", folder_path=folder)
    hub.requests.clear()
    import_checkpoint("user/droid@main", tmp_path / "policy", settings=clip)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    needed = {file for name, file in index.items() if name.startswith("action_head.model.")}
    fetched = {request.rpartition("/")[2] for request in hub.requests if request.startswith("GET /user/droid/resolve/")}
    assert needed < set(index.values())
    assert fetched == {"config.json", "conf.yaml", "metadata.json", "model.safetensors.index.json", *needed}
    assert actions(WAMPolicy.from_pretrained(tmp_path / "policy")).isfinite().all()


def test_the_verb(tmp_path: Path, clip: dict[str, Any], capsys: pytest.CaptureFixture, monkeypatch: Any) -> None:
    source = write_dreamzero(tmp_path / "droid", network())
    words = [f"--set={name}={value}" for name, value in clip.items() if name != "image_size"]
    assert main(["import", str(source), f"--out={tmp_path / 'policy'}", *words, "--set=image_size=[16, 32]"]) == 0
    assert "preset wan2.1-14b, oxe_droid" in capsys.readouterr().out
    logging.getLogger("lerobot_wam.checkpoints").setLevel(logging.NOTSET)
    assert actions(WAMPolicy.from_pretrained(tmp_path / "policy")).isfinite().all()
    assert main(["import", str(tmp_path / "nowhere"), f"--out={tmp_path / 'other'}"]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_settings_are_typed_and_known() -> None:
    words = ["compat=official", "guidance_scale=1", "image_size=[16, 32]", "computed_steps=8", "n_action_steps=null"]
    assert parse_settings(words) == {
        "compat": "official",
        "guidance_scale": 1.0,
        "image_size": (16, 32),
        "computed_steps": "8",
        "n_action_steps": None,
    }
    with pytest.raises(ValueError, match="no field 'gidance_scale'"):
        parse_settings(["gidance_scale=1"])
    with pytest.raises(ValueError, match="--set dim=wide"):
        parse_settings(["dim=wide"])
