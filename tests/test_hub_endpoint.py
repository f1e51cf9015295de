"""The in-process Hub: what the real client pushes there comes back byte for byte."""

from pathlib import Path

import httpx
import pytest
from hub_endpoint import LFS_FROM_BYTES, Hub
from huggingface_hub import HfApi, get_session, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

REPO = "user/tiny"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small text file, a nested one, a large binary and one that the upload filters out."""
    source = tmp_path / "source"
    (source / "nested").mkdir(parents=True)
    (source / "config.json").write_text('{"a": 1}\n')
    (source / "nested/notes.md").write_text("# ünïcode\n")
    (source / "model.safetensors").write_bytes(bytes(range(256)) * (LFS_FROM_BYTES // 128))
    (source / "skip.log").write_text("no")
    return source


def test_folder_round_trip(hub: Hub, folder: Path):
    api = HfApi()
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    api.create_repo(REPO, exist_ok=True)
    commit = api.upload_folder(repo_id=REPO, folder_path=folder, ignore_patterns=["*.log"], commit_message="first")

    sent = {p: (folder / p).read_bytes() for p in ("config.json", "nested/notes.md", "model.safetensors")}
    assert hub.files(REPO) == sent
    assert hub.messages(REPO) == ["initial commit", "first"]
    assert [r for r in hub.requests if r.startswith("PUT /lfs/")], "no large file upload"

    assert sorted(api.list_repo_files(REPO)) == sorted(sent)
    assert api.model_info(REPO).sha == commit.oid
    for name, data in sent.items():
        assert Path(hf_hub_download(REPO, name)).read_bytes() == data
    fetched = Path(snapshot_download(REPO, revision=commit.oid, allow_patterns=["*.json", "*.safetensors"]))
    assert (fetched / "model.safetensors").read_bytes() == sent["model.safetensors"]


def test_later_commits_keep_and_replace_files(hub: Hub, folder: Path):
    api = HfApi()
    api.create_repo(REPO)
    first = api.upload_folder(repo_id=REPO, folder_path=folder)
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=REPO)
    api.delete_file("skip.log", repo_id=REPO)
    assert Path(hf_hub_download(REPO, "config.json")).read_bytes() == b"{}"
    assert Path(hf_hub_download(REPO, "config.json", revision=first.oid)).read_text() == '{"a": 1}\n'
    assert set(hub.files(REPO)) == {"config.json", "nested/notes.md", "model.safetensors"}


def test_absent_things_raise_the_clients_own_errors(hub: Hub):
    api = HfApi()
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("user/absent")
    api.create_repo(REPO)
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(REPO, "absent.json")


def test_no_request_leaves_this_process(hub: Hub):
    with pytest.raises(httpx.ConnectError, match="may only talk to"):
        get_session().get("https://example.org/")


def test_endpoint_variable_reaches_the_hub_too(hub: Hub):
    api = HfApi(endpoint=hub.env["HF_ENDPOINT"])
    assert api.create_repo(REPO).endpoint == hub.url
    api.upload_file(path_or_fileobj=b"x" * LFS_FROM_BYTES, path_in_repo="big.bin", repo_id=REPO)
    path = hf_hub_download(REPO, "big.bin", endpoint=hub.url)
    assert Path(path).read_bytes() == hub.files(REPO)["big.bin"]
