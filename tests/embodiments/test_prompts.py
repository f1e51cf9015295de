"""Wordings around a task: read strictly from a file, filled in by DreamZero's rules."""

import pytest

from lerobot_wam.embodiments.prompts import load_prompts, render_prompt
from lerobot_wam.embodiments.schema import SchemaError


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("Pick Up", "do pick up! pick up."),
        ("['First', 'Second']", "do first! first."),
        ("[red] block", "do [red] block! [red] block."),  # no Python list
        ("3", "do 3! 3."),
        ("[]", "do []! []."),
        ("", "do ! ."),
    ],
)
def test_tasks_are_lowered_and_a_list_stands_for_its_first_element(task, text):
    assert render_prompt("do {task}! {task}.", task) == text


def test_a_file(tmp_path):
    file = tmp_path / "prompts.yaml"
    file.write_text("my_arm: 'an arm: {task}'\nnegative_prompt: blurry\n")
    prompts = load_prompts(file)
    assert (prompts.template("my_arm"), prompts.negative_prompt) == ("an arm: {task}", "blurry")
    with pytest.raises(ValueError, match=r"no prompt for the embodiment 'other', found my_arm: add a line 'other: "):
        prompts.template("other")
    file.write_text("my_arm: 'an arm: {task}'\n")
    assert load_prompts(file).negative_prompt is None
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml does not exist"):
        load_prompts(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "expected lines 'embodiment: text with {task}'"),
        ("my_arm: go", "my_arm is 'go', expected a text with {task} in it"),
        ("my_arm: {task: 1}", "expected a text with {task}"),
        ("a: '{task}'\na: '{task}'", "key 'a' appears more than once"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, text, message):
    file = tmp_path / "prompts.yaml"
    file.write_text(text)
    with pytest.raises(SchemaError, match=message):
        load_prompts(file)
