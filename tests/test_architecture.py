"""The house rules that a reader cannot check by eye: which room imports which, and what never gets in."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/lerobot_wam"

# A room is a folder or a file of the package. It may import its own files and rooms on lower floors.
FLOORS = {
    "quiet": 0,
    "terminal": 0,
    "model": 1,
    "codecs": 1,
    "embodiments": 1,
    "sim": 1,
    "metaworld": 2,  # records with the same recorder, draws with the same renderer
    "optimizer": 1,  # imports nothing of ours: the config's optimizer preset returns it
    "model_card": 1,  # likewise: the policy's push writes it
    "command_line": 1,
    "commitment": 1,
    "approximations": 3,
    "presets": 1,
    "weights": 1,
    "serving.limits": 0,
    "serving.protocol": 1,  # numpy and msgpack only: robots without a model speak it
    "serving.link": 2,
    "serving.client": 3,
    "guard.settings": 1,  # the configuration has them
    "configuration_wam": 2,
    "guard": 2,
    "data": 2,
    "drivers": 2,  # may import LeRobot, unlike embodiments
    "adoption": 3,
    "diffusion": 3,
    "frozen": 3,
    "launching": 3,
    "batches": 4,
    "processor_wam": 4,
    "runtime": 4,
    "modeling_wam": 5,
    "remote": 5,  # a policy without a model: neither runtime nor modeling_wam
    "checkpoints": 6,
    "training": 6,
    "report": 6,
    "serving": 6,
    "bench": 7,
    "demo": 7,
    "doctor": 7,  # looks at what checkpoints/ can import
    "plugin": 7,
    "cli": 8,
}
PURE_TORCH = {"model", "diffusion", "codecs", "embodiments", "guard"}  # and runtime.session
HEAVY = {"diffusers", "transformers", "mujoco", "peft", "imageio", "torchvision"}
MAX_LINES = 450


def own_name(file: Path) -> str:
    """``src/lerobot_wam/model/rope.py`` as ``model.rope``; a package's ``__init__`` as the package."""
    return ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str | None:
    """The longest room name that ``module`` (without the package's name) belongs to."""
    parts = module.split(".")
    return next((r for n in range(len(parts), 0, -1) if (r := ".".join(parts[:n])) in FLOORS), None)


def imports(file: Path) -> Iterator[str]:
    """Full names of everything a file imports anywhere, with relative imports resolved."""
    package = ("lerobot_wam", *file.relative_to(SOURCE).parts[:-1])
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, node.module) if node.module else base)
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def source_files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def python_files() -> list[Path]:
    folders = ("src", "tests", "examples", "benchmarks")
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def test_every_file_has_a_floor():
    names = [own_name(file) for file in source_files() if file != SOURCE / "__init__.py"]
    assert [name for name in names if room_of(name) is None] == []


def test_imports_point_down():
    wrong = []
    for file in source_files():
        room = room_of(own_name(file))
        for target in imports(file):
            below = room_of(target.removeprefix("lerobot_wam.")) if target.startswith("lerobot_wam.") else None
            if room and below and below != room and FLOORS[below] >= FLOORS[room]:
                wrong.append(f"{own_name(file)} (floor {FLOORS[room]}) -> {target} (floor {FLOORS[below]})")
    assert wrong == []


def test_the_package_itself_imports_nothing():
    assert list(imports(SOURCE / "__init__.py")) == []


def test_the_pure_torch_rooms_import_without_lerobot():
    names = [own_name(file) for file in source_files()]
    modules = [n for n in names if n == "runtime.session" or room_of(n) in PURE_TORCH]
    program = f"""
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "lerobot":
            raise ImportError(f"{{name}} is imported where LeRobot may be absent")
sys.meta_path.insert(0, Refuse())
for name in {modules}:
    importlib.import_module("lerobot_wam." + name)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_lerobot_command_starts_without_our_weight():
    if not (SOURCE / "plugin.py").is_file():
        pytest.skip("plugin.py is not written yet")
    program = """
import sys, time
import lerobot.configs, lerobot.envs.configs, lerobot.robots.config, lerobot.teleoperators.config
before, start = set(sys.modules), time.process_time()
import lerobot_wam.plugin
print(time.process_time() - start, *sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    seconds, *packages = result.stdout.split()
    assert HEAVY & set(packages) == set()
    assert float(seconds) < 0.5


def test_files_stay_short():
    lengths = {str(f.relative_to(ROOT)): len(f.read_text().splitlines()) for f in python_files()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_lock_files():
    assert [p.name for p in ROOT.iterdir() if p.suffix == ".lock" or p.name == "package-lock.json"] == []
