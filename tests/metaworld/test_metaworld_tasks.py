"""The table of Meta-World's tasks and its split."""

import re
from collections import Counter

import pytest

pytest.importorskip("lerobot")

from lerobot_wam.metaworld.tasks import CONTRASTS, GROUPS, select_tasks


def words(group: str) -> set[str]:
    return {word for task in GROUPS[group] for word in re.findall(r"[a-z-]+", task.instruction.lower())}


def test_every_task_has_words_of_its_own():
    counts = Counter(task.instruction for task in GROUPS["all"])
    assert len(GROUPS["all"]) == 36
    assert counts.total() == len(counts)


@pytest.mark.parametrize("mirror", ["", "mirror_"])
def test_more_than_a_quarter_is_held_out_and_nothing_is_on_both_sides(mirror: str):
    seen, unseen = set(GROUPS[f"{mirror}seen"]), set(GROUPS[f"{mirror}unseen"])
    assert seen | unseen == set(GROUPS["all"])
    assert not seen & unseen
    assert len(unseen) >= len(GROUPS["all"]) / 4


def test_mirrors_hold_out_each_others_partners():
    assert {(seen.name, unseen.name) for seen in GROUPS["seen"] for unseen in GROUPS["unseen"]} >= set(CONTRASTS)
    assert {task.name for task in GROUPS["mirror_unseen"]} == {seen for seen, _ in CONTRASTS}


def test_a_held_out_instruction_says_nothing_new():
    assert words("unseen") <= words("seen")
    assert words("mirror_unseen") - words("mirror_seen") == {"unlock"}


def test_tasks_are_chosen_by_group_and_by_name():
    assert [task.name for task in select_tasks("push-v3, drawer-open-v3")] == ["push-v3", "drawer-open-v3"]
    assert select_tasks("seen,unseen") == GROUPS["seen"] + GROUPS["unseen"]
    with pytest.raises(ValueError, match="'push' is unknown; expected all, seen, unseen"):
        select_tasks("push")
