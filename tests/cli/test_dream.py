"""The command line: quick help, one-line errors, and a dream from start to files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lerobot_wam.cli import dream as dream_verb
from lerobot_wam.cli.main import main, verbs


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and a `checkpoint` of a tiny policy."""
    from tiny_policies import build_policy, write_dataset

    folder = tmp_path_factory.mktemp("run")
    build_policy(write_dataset(folder / "data", (20, 20))).save_pretrained(folder / "checkpoint")
    return folder


def test_help_is_quick_and_imports_nothing_heavy():
    program = (
        "import sys, time; start = time.process_time()\n"
        "from lerobot_wam.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(time.process_time() - start, {'torch', 'lerobot', 'numpy', 'msgpack', 'websockets'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds, loaded = result.stdout.splitlines()[-1].split(maxsplit=1)
    assert float(seconds) < 1
    assert loaded == "set()"
    assert all(f"    {verb}" in result.stdout for verb in verbs())
    assert "dream" in verbs()


def test_only_the_verb_asked_for_is_imported():
    program = (
        "import sys\nfrom lerobot_wam.cli.main import main\n"
        "try: main(['dream', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if m.startswith('lerobot_wam.')))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "['lerobot_wam.cli', 'lerobot_wam.cli.dream', 'lerobot_wam.cli.main']"


def test_a_dream_from_start_to_files(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    options = [f"--policy.path={run_folder / 'checkpoint'}", f"--dataset.root={run_folder / 'data'}"]
    assert main(["dream", *options, "--episode=1", "--chunks=2", f"--out={tmp_path}", "--gif"]) == 0
    shown = capsys.readouterr().out
    assert "'push blue'" in shown
    assert "last frame repeated" in shown
    assert "waist.pos" in shown
    written = {"dream.mp4", "dream.gif", "filmstrip.png", "actions.svg", "metrics.json"}
    assert {path.name for path in tmp_path.iterdir()} == written
    np.save(tmp_path / "hold.npy", np.zeros((24, 6)))
    simulate = ["--mode=simulate", "--loop=open", f"--actions={tmp_path / 'hold.npy'}", "--task=stay"]
    assert main(["dream", *options, *simulate, f"--out={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "3 chunks" in shown
    assert "note: The checkpoint was trained with noise_mode=coupled" in shown


def test_bad_input_is_one_line_before_anything_slow(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dream_verb, "_clip", lambda *_: pytest.fail("went past the checks"))
    good = f"--policy.path={run_folder / 'checkpoint'}"
    other = tmp_path / "act"
    other.mkdir()
    (other / "config.json").write_text('{"type": "act"}')
    (other / "model.safetensors").touch()
    (tmp_path / "run" / "checkpoints" / "last" / "pretrained_model").mkdir(parents=True)
    cases = {
        ("--policy.path=absent", "--dataset.root=x"): "no checkpoint at absent: expected a folder with config.json",
        (f"--policy.path={tmp_path / 'run'}", "--dataset.root=x"): "did you mean",
        (f"--policy.path={other}", "--dataset.root=x"): "a policy of type 'act'",
        (good,): "nothing to start from",
        (good, "--dataset.root=absent"): "no dataset at absent",
        (good, "--image=x.png", "--dataset.root=y"): "both given",
        (good, "--image=x.png"): "--task",
        (good, "--image=x.png", "--task=t"): "no file x.png: check --image",
        (good, "--image=x.png", "--task=t", "--mode=label"): "--mode=label needs a video",
        (good, f"--dataset.root={run_folder / 'data'}", "--chunks=0"): "--chunks is 0",
        (good, f"--dataset.root={run_folder / 'data'}", "--actions=a.npy"): "no file a.npy: check --actions",
    }
    for options, message in cases.items():
        assert main(["dream", *options]) == 2
        shown = capsys.readouterr().err
        assert shown.startswith("error: ")
        assert message in shown
        assert len(shown.splitlines()) <= 2
    assert not Path("absent").exists()
    with pytest.raises(FileNotFoundError):
        main(["dream", "--policy.path=absent", "--dataset.root=x", "--debug"])


def test_other_bad_input(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    options = [f"--policy.path={run_folder / 'checkpoint'}", f"--dataset.root={run_folder / 'data'}"]
    (tmp_path / "a.npy").write_text("no array")
    for extra, message in {
        "--episode=9": "episode 9 does not exist: the dataset has 2, choose 0 to 1",
        "--frame=20": "frame 20 does not exist: episode 0 has 20",
        f"--actions={tmp_path / 'a.npy'}": "is not a plain .npy array",
    }.items():
        assert main(["dream", *options, extra]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["dream", *options, "--mode=sleep"])


def test_ctrl_c(run_folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(dream_verb, "run", interrupted)
    assert main(["dream", "--policy.path=x"]) == 130
    assert capsys.readouterr().err.strip() == "interrupted"
