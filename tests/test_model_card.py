"""The model card: metadata the Hub indexes, and text that a reader can act on."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from lerobot_wam.model_card import generate_card

ROBOT = {"Robot": "wam_sim_viperx", "Cameras": "front", "Actions": "6 joints, rad", "Rate": "10 Hz"}


def test_metadata_is_what_the_hub_indexes(tmp_path: Path):
    card = generate_card("user/arm", datasets=["user/play"], base_model="user/base", tags=["sim"])
    card.save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.license) == ("lerobot", "robotics", "apache-2.0")
    assert data.tags == ["lerobot", "robotics", "sim", "wam"]
    assert (data.datasets, data.base_model) == (["user/play"], "user/base")


def test_body_says_what_to_install_and_how_to_run():
    text = generate_card(
        "user/arm",
        embodiments=[ROBOT],
        data=[{"Dataset": "user/play", "Episodes": 3}],
        training={"Steps": 10, "Seed": 0},
        results=[{"Task": "push | pull", "Success": "1/2"}],
        datasets=["user/play"],
        robot_type="wam_sim",
    ).text
    assert "pip install lerobot-policy-wam" in text
    assert "--policy.path=user/arm" in text
    assert "--robot.type=wam_sim" in text
    assert "--dataset.repo_id=user/play" in text
    assert "arXiv:2602.15922" in text
    lines = text.splitlines()
    assert "| Robot | Cameras | Actions | Rate |" in lines
    assert lines[lines.index("| Robot | Cameras | Actions | Rate |") + 1] == "| --- | --- | --- | --- |"
    assert "| Steps | 10 |" in lines
    assert r"| push \| pull | 1/2 |" in lines


def test_nothing_known_is_said_so_not_invented():
    text = generate_card("user/arm").text
    assert "No evaluation has been recorded" in text
    assert text.count("Not recorded.") == 2
    assert "<environment>" in text
    assert "see docs" in generate_card("user/arm", results_note="see docs").text


def test_ragged_table_is_refused():
    with pytest.raises(ValueError, match="'results' has a row with columns"):
        generate_card("user/arm", results=[{"a": 1}, {"b": 1}])


def test_a_model_of_video_alone_is_not_said_to_drive_a_robot():
    text = generate_card("user/prior", embodiments=[ROBOT | {"Actions": "none"}]).text
    assert "a robot has to be added and learned" in text
    assert "lerobot-wam dream --policy.path=user/prior" in text
    assert "lerobot-wam adapt --policy.path=user/prior" in text
    for command in ("lerobot-rollout", "lerobot-eval", "lerobot-train"):
        assert command not in text
        assert command in generate_card("user/arm", embodiments=[ROBOT]).text
