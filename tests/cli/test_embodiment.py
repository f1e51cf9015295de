"""`lerobot-wam embodiment`: what it lists, drafts and refuses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_policies import ARM_JOINTS, build_policy, write_dataset

from lerobot_wam.cli.main import BAD_INPUT, main
from lerobot_wam.embodiments.spec import CameraView, EmbodimentSpec, builtin_names, load_embodiment

JOINTS = list(load_embodiment("so101").action_names)
CAMERAS = "--robot.cameras={top: {type: opencv, index_or_path: 0, width: 640, height: 480, fps: 30}}"


@pytest.fixture(scope="module")
def so101(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of an SO-101 with a camera and a rate that the built-in embodiment does not know."""
    root = tmp_path_factory.mktemp("data") / "so101"
    return write_dataset(root, (30, 30), robot_type="so101_follower", fps=15, cameras=("top",), joints=JOINTS)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a policy for the simulated ViperX, without weights."""
    folder = tmp_path_factory.mktemp("policy")
    build_policy(write_dataset(folder / "data", (30,))).config.save_pretrained(folder)
    return folder


def embodiment(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code, and all that was printed as one line without double spaces."""
    code = main(["embodiment", *map(str, words)])
    printed = capsys.readouterr()
    return code, " ".join((printed.out + printed.err).split())


def write(spec: EmbodimentSpec, path: Path) -> Path:
    path.write_text(spec.to_yaml())
    return path


def test_the_list_has_every_built_in(capsys: pytest.CaptureFixture[str]):
    main(["embodiment", "list"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == builtin_names()


def test_one_is_shown_with_its_numbers(capsys: pytest.CaptureFixture[str]):
    _, text = embodiment(capsys, "show", "so100_follower")
    assert "30 steps/s; chunks of 48 actions, 1.6 s; a video frame every 6 steps, 5 frames/s" in text
    assert "wrist in row 0, column 1, of a picture of 1 x 2" in text
    assert "shoulder_lift.pos deg -100 100 1 1 relative" in text
    assert "gripper.pos % 0 100 5 5 gripper" in text


def test_one_is_shown_as_a_file(capsys: pytest.CaptureFixture[str]):
    main(["embodiment", "show", "aloha", "--yaml"])
    assert EmbodimentSpec.from_dict(yaml.safe_load(capsys.readouterr().out)) == load_embodiment("aloha")


def test_a_draft_from_a_dataset_has_the_robot_s_body_and_the_dataset_s_eyes_and_rate(
    so101: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "arm.yaml"
    code, text = embodiment(capsys, "new", f"--dataset.root={so101}", f"--out={out}")
    assert code == 0
    assert f"wrote {out}" in text
    known = load_embodiment("so101")
    cameras = (CameraView("observation.images.top"),)
    assert load_embodiment(out) == replace(known, cameras=cameras, fps=15, video_stride=3, chunk_steps=24)
    assert "Drafted from the dataset" in out.read_text()
    assert embodiment(capsys, "check", out, f"--dataset.root={so101}")[0] == 0
    assert build_policy(so101, embodiment=str(out), max_chunks=1).config.embodiment == "so101"


def test_a_draft_from_a_driver_needs_no_hardware(tmp_path: Path, capsys: pytest.CaptureFixture[str], motor_buses: dict):
    out = tmp_path / "arm.yaml"
    words = ("new", "--robot.type=so101_follower", CAMERAS, "--robot.port=/dev/nothing")
    assert embodiment(capsys, *words, "--name=mine", f"--out={out}")[0] == 0
    known = load_embodiment("so101")
    assert load_embodiment(out) == replace(known, name="mine", cameras=(CameraView("observation.images.top"),))
    _, text = embodiment(capsys, *words, "--fps=10")
    assert "fps: 10.0 video_stride: 2 chunk_steps: 16" in text


def test_a_draft_from_a_driver_of_two_arms(capsys: pytest.CaptureFixture[str], motor_buses: dict):
    _, text = embodiment(capsys, "new", "--robot.type=bi_so_follower", CAMERAS)
    assert "name: bi_so_follower" in text
    assert "{name: left_shoulder_pan.pos, relative: true}" in text
    assert "{name: right_gripper.pos, gripper: true}" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "either --dataset.repo_id or --dataset.root, or --robot.type"),
        (("--robot.type=so101_follower", "--dataset.root=x"), "either --dataset.repo_id or --dataset.root, or"),
        (("--dataset.root=x", "--dataset.rot=y"), "unrecognized arguments: --dataset.rot=y (a driver's flags"),
        (("--dataset.root=nowhere",), "no dataset at nowhere: expected a LeRobotDataset folder"),
        (("--robot.type=toaster",), "knows no robot type 'toaster': choose one of"),
        (("--robot.type=so101_follower",), "was given no camera, and the policy needs one: add --robot.cameras=..."),
        (("--robot.type=so101_follower", "--robot.colour=red"), "'so101_follower' cannot be built here:"),
        (("--robot.type=so101_follower", "--policy.dim=3"), "found the argument '--policy.dim=3', expected --robot."),
        (("--robot.type=reachy2",), "'reachy2' cannot be built here: 'reachy2_sdk' is required but not installed"),
    ],
)
def test_a_draft_of_nothing(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture, motor_buses: dict):
    code, text = embodiment(capsys, "new", *words)
    assert code == BAD_INPUT
    assert message in text


def test_a_draft_overwrites_nothing(so101: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = write(load_embodiment("aloha"), tmp_path / "mine.yaml")
    code, text = embodiment(capsys, "new", f"--dataset.root={so101}", f"--out={out}")
    assert (code, load_embodiment(out).name) == (BAD_INPUT, "aloha")
    assert "exists already" in text


def test_a_check_names_every_misfit_of_a_dataset(so101: Path, capsys: pytest.CaptureFixture[str]):
    code, text = embodiment(capsys, "check", "aloha", f"--dataset.root={so101}")
    assert code == 2
    assert "does not fit" in text
    assert "misfit: embodiment 'aloha' needs the camera observation.images.cam_high" in text
    assert "misfit: action of the dataset is 6-dimensional (shoulder_pan.pos" in text
    assert "misfit: observation.state of the dataset is 6-dimensional" in text
    assert "note: its robot type is so101_follower, the embodiment's aloha" in text
    assert text.count("misfit") == 4, "and 15 steps/s are too few for 50"


def test_a_check_reads_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def spoil(frame: dict, episode: int, step: int) -> None:
        if step == 3:
            frame["action"] = np.full(6, np.nan, np.float32)

    root = write_dataset(tmp_path / "spoilt", (12,), change=spoil)
    code, text = embodiment(capsys, "check", "wam_sim_viperx", f"--dataset.root={root}")
    assert code == 2
    assert "misfit: action 'waist.pos' (index 0) is nan at step 3" in text


def test_a_check_of_a_single_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = write_dataset(tmp_path / "still", (1,), cameras=("front",))
    spec = replace(load_embodiment("wam_sim_viperx"), video_stride=2, chunk_steps=16)
    code, text = embodiment(capsys, "check", write(spec, tmp_path / "x.yaml"), f"--dataset.root={root}")
    assert code == 2
    assert "its longest episode lasts 0.1 s, less than two video frames: record longer ones" in text


def test_a_check_against_a_driver(tmp_path: Path, capsys: pytest.CaptureFixture[str], motor_buses: dict):
    code, text = embodiment(capsys, "check", "so101", "--robot.type=so100_follower")
    assert code == 0
    assert "robot so100_follower: fits" in text
    assert "run it with --robot.cameras named front, wrist" in text
    code, text = embodiment(capsys, "check", "koch", "--robot.type=so101_follower", CAMERAS)
    assert code == 2
    assert "needs the camera observation.images.laptop, observation.images.phone; the driver so_follower" in text


def test_a_check_against_a_checkpoint(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    known = load_embodiment("wam_sim_viperx")
    code, text = embodiment(capsys, "check", "wam_sim_viperx", f"--policy.path={policy}")
    assert (code, "fits" in text) == (0, True)
    changed = replace(known, cameras=(CameraView("observation.images.side"), *known.cameras), view_layout="two")
    changed = replace(changed, action=tuple(replace(d, relative=False) for d in known.action))
    code, text = embodiment(capsys, "check", write(changed, tmp_path / "x.yaml"), f"--policy.path={policy}")
    assert code == 2
    assert "misfit: cameras: [('side', (0, 0)), ('front', (1, 0))], the checkpoint was trained with [('front'" in text
    assert f"misfit: relative actions: [], the checkpoint was trained with {ARM_JOINTS}" in text


def test_a_check_of_a_robot_that_a_checkpoint_does_not_know(policy: Path, capsys: pytest.CaptureFixture[str]):
    code, text = embodiment(capsys, "check", "so101", f"--policy.path={policy}")
    assert code == 0
    assert "its chunk of 1.6 s has 8 actions there, one every 0.2 s" in text
    assert "the checkpoint knows wam_sim_viperx; lerobot-wam adapt adds so101" in text
    code, text = embodiment(capsys, "check", "agibot", f"--policy.path={policy}")
    assert code == 2
    assert (
        "action has 22 numbers, the checkpoint room for 16: it takes a policy trained with --policy.action_dim=22"
        in text
    )


def test_a_check_against_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code, text = embodiment(capsys, "check", "so101")
    assert code == BAD_INPUT
    assert "name what to hold it against" in text
