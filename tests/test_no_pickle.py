"""Nothing of this repository unpickles, or runs text as code: neither by what it says nor while it serves."""

import _pickle
import ast
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_policies import served, untrained_policy
from websockets.sync.client import connect

from lerobot_wam.embodiments.spec import load_embodiment
from lerobot_wam.serving import openpi
from lerobot_wam.serving.client import WAMClient

ROOT = Path(__file__).parents[1]
UNPICKLING = {"pickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}


def breaches(source: str) -> Iterator[str]:
    """What `source` says that unpickles or could: imports, names to be imported, and calls."""
    nodes = list(ast.walk(ast.parse(source)))
    safe = {"yaml.SafeLoader"}  # and what this file derives from it
    safe |= {n.name for n in nodes if isinstance(n, ast.ClassDef) and {ast.unparse(base) for base in n.bases} & safe}
    for node in nodes:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]  # import_module("pickle")
        if found := {part for name in names for part in name.split(".")} & UNPICKLING:
            yield f"line {node.lineno}: {', '.join(found)}"
        if isinstance(node, ast.Call):
            called, options = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            arguments = {ast.unparse(argument) for argument in node.args} | set(options.values())
            name = called.rpartition(".")[2]
            wrong = (
                called in ("eval", "exec", "__import__")
                or (called == "torch.load" and options.get("weights_only") != "True")
                or options.get("allow_pickle", "False") != "False"
                or (called == "yaml.load" and not arguments & safe)
                or name in ("unsafe_load", "full_load", "read_pickle")
                # torch.distributed sends objects pickled
                or (called.startswith(("dist.", "torch.distributed.")) and name.endswith(("_object", "_object_list")))
            )
            if wrong:
                yield f"line {node.lineno}: {called}"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, joblib",
        "from pickle import loads",
        "from multiprocessing.reduction import pickle",
        "import torch.utils.serialization.pickle",
        "importlib.import_module('dill')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=flag)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "pandas.read_pickle(path)",
        "eval(text)",
        "exec(text)",
        "__import__(name)",
        "dist.all_gather_object(found, mine)",
        "dist.broadcast_object_list(found)",
    ],
)
def test_the_check_finds(source):
    assert list(breaches(source))


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "np.load(path)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "class Strict(yaml.SafeLoader): ...\nyaml.load(text, Strict)",
        "yaml.safe_load(text)",
        "model.eval()",
        "print('a pickle')",
    ],
)
def test_the_check_lets_pass(source):
    assert not list(breaches(source))


@pytest.mark.parametrize("folder", ["src", "benchmarks", "examples", "tests"])
def test_nothing_unpickles(folder):
    files = {*(ROOT / folder).rglob("*.py")} - {Path(__file__)}
    assert files
    assert {str(f.relative_to(ROOT)): found for f in sorted(files) if (found := list(breaches(f.read_text())))} == {}


def test_nothing_is_unpickled_while_robots_are_served(monkeypatch):
    arm, picture = load_embodiment("wam_sim_viperx"), np.zeros((32, 32, 3), np.uint8)
    policy, state, unpickled = untrained_policy(arm, (32, 32)), np.zeros(len(arm.state), np.float32), []

    def refuse(*args: Any, **kwargs: Any) -> None:
        unpickled.append(args)
        raise AssertionError("unpickled")

    for module in (pickle, _pickle):
        for name in ("load", "loads", "Unpickler"):
            monkeypatch.setattr(module, name, refuse)
    with pytest.raises(AssertionError, match="unpickled"):
        pickle.loads(b"")  # the trap works
    unpickled.clear()
    with served(policy) as server, WAMClient(server.url, jpeg=90, timeout_s=60) as client:
        for _ in range(2 * arm.chunk_steps + 1):
            client.act({camera.key: picture for camera in arm.cameras}, state, "push red")
        assert client.held == 0
        with connect(server.url) as foreign:
            foreign.recv()
            views = dict.fromkeys(openpi.camera_names(arm).values(), picture)
            foreign.send(openpi.pack(views | {openpi.STATE: state, "prompt": "push red"}))
            assert isinstance(foreign.recv(), bytes)
    assert unpickled == []
