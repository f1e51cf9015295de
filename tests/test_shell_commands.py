"""The examples in a real shell, around programs that only note how they were called."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import shell_commands

EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAMS = ("lerobot-record", "lerobot-rollout", "lerobot-train", "lerobot-wam")
STUB = f"""#!{sys.executable} -S
import json, os, sys, time
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
time.sleep(60 if sys.argv[1:2] == ["serve"] else 0)
"""
GIVEN = {"TASK": "put the cube into the bowl", "ROBOT": '--robot.type=any --robot.cameras={"front":{"fps":30}}'}


@pytest.mark.parametrize(
    "script",
    ["record_play_so101", "train_on_your_dataset", "adapt", "deploy_near", "deploy_far", "serve_several_robots"],
)
@pytest.mark.parametrize("given", [{}, GIVEN], ids=["as written", "another robot"])
def test_a_shell_calls_what_the_other_tests_read(script: str, given: dict[str, str], tmp_path: Path):
    for name in (*PROGRAMS, "curl"):
        (tmp_path / name).write_text(STUB)
        (tmp_path / name).chmod(0o755)
    text = (EXAMPLES / f"{script}.sh").read_text(encoding="utf-8")
    calls = {"CALLS": str(tmp_path / "calls"), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", text], env=os.environ | calls | given, cwd=tmp_path, check=True, timeout=60)
    called = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    read = [words for words in shell_commands.commands(text, given) if words[0] in PROGRAMS]
    # A camera's description reaches a program as it was typed: a shell does not unquote what a variable holds.
    unquoted = [[word.replace('"', "") for word in words] for words in called if words[0] in PROGRAMS]
    assert sorted(unquoted) == sorted(read)
    if given and script != "train_on_your_dataset" and script != "adapt":
        assert any('--robot.cameras={"front":{"fps":30}}' in words for words in called)
