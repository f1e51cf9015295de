"""`lerobot-wam serve` in this process: it serves a checkpoint until a signal ends it, and says what is wrong."""

import os
import signal
import socket
import threading
from pathlib import Path

import pytest
from tiny_policies import build_policy, write_dataset
from websockets.sync.client import connect

from lerobot_wam.cli.main import BAD_INPUT, main
from lerobot_wam.serving.protocol import PATH, VERSION, pack, unpack


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    build_policy(write_dataset(folder / "arm", (24, 24))).save_pretrained(folder / "saved")
    return folder / "saved"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_checkpoint_is_served_until_a_signal_ends_it(checkpoint: Path, capsys: pytest.CaptureFixture[str]):
    port, heard, tried = free_port(), list[dict[str, object]](), threading.Event()

    def visit() -> None:
        while not tried.wait(0.05):
            try:
                with connect(f"ws://127.0.0.1:{port}{PATH}", compression=None) as connection:
                    connection.send(pack({"type": "hello", "protocol": VERSION}))
                    heard.append(unpack(connection.recv()))
                    os.kill(os.getpid(), signal.SIGTERM)
                    heard.append(unpack(connection.recv()))
                return
            except ConnectionRefusedError:
                continue  # not yet there

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        words = [f"--policy.path={checkpoint}", f"--port={port}", "--policy.num_inference_steps=1", "--dashboard"]
        assert main(["serve", *words]) == 0
    finally:
        tried.set()
        visitor.join()
    welcome, goodbye = heard
    assert "num_inference_steps=1 solver steps, 16 are exact" in welcome["approximations"]
    assert goodbye["code"] == "shutting_down"
    said = capsys.readouterr().out
    assert f"lerobot-wam drive --server=ws://127.0.0.1:{port}" in said
    assert said.endswith("shutting down: the chunk in hand is finished\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host=0.0.0.0"], "no token is set"),
        (["--port=1", "--frobnicate=2"], "unrecognized arguments: --frobnicate=2"),
        (["--rate-limit=0"], "rate_limit is 0.0, expected more than 0"),
        (["--token-file=nowhere"], "nowhere"),
    ],
)
def test_unsafe_and_unknown_settings_are_refused_at_once(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["serve", "--policy.path=nowhere", *words]) == BAD_INPUT
    assert message in capsys.readouterr().err


def test_a_taken_port_is_one_line(checkpoint: Path, capsys: pytest.CaptureFixture[str]):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", f"--policy.path={checkpoint}", f"--port={port}"]) == BAD_INPUT
    assert f"('127.0.0.1', {port})" in capsys.readouterr().err


def test_no_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["serve", f"--policy.path={tmp_path / 'none'}"]) == BAD_INPUT
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_what_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def run(args: object) -> int:
        raise ModuleNotFoundError("No module named 'msgpack'", name="msgpack")

    monkeypatch.setattr("lerobot_wam.cli.drive.run", run)
    assert main(["drive", "--server=ws://nowhere"]) == BAD_INPUT
    assert "No module named 'msgpack': pip install 'lerobot_policy_wam[serve]'" in capsys.readouterr().err
