"""What the documents say is true: their commands parse, their links lead somewhere, their numbers are the measured."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import draccus
import pytest
import shell_commands
from lerobot.configs import parser
from lerobot.configs.eval import EvalPipelineConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.robots.so_follower import SO101FollowerConfig
from lerobot.rollout import RolloutConfig
from lerobot.rollout.inference import RTCInferenceConfig
from lerobot.scripts.lerobot_record import RecordConfig
from lerobot.scripts.lerobot_replay import ReplayConfig
from lerobot.scripts.lerobot_teleoperate import TeleoperateConfig

import lerobot_wam.plugin  # noqa: F401
from benchmarks import fill_results
from lerobot_wam.cli import main as command_line
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.data.recipe import load_recipe
from lerobot_wam.embodiments.prompts import load_prompts
from lerobot_wam.embodiments.schema import load_yaml
from lerobot_wam.embodiments.spec import EmbodimentSpec, load_embodiment
from lerobot_wam.metaworld.config_metaworld import WAMMetaWorldEnv
from lerobot_wam.sim.config_arm_robot import WAMSimArmConfig
from lerobot_wam.sim.config_expert_teleop import WAMSimExpertConfig
from lerobot_wam.sim.config_tabletop import WAMTabletopEnv

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    {
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "model_cards").glob("*.md"),
        *(ROOT / "benchmarks").glob("*.md"),
    }
)
SCRIPTS = sorted(ROOT.glob("examples/*.sh"))
PIPELINES = {
    "lerobot-train": TrainPipelineConfig,
    "lerobot-eval": EvalPipelineConfig,
    "lerobot-record": RecordConfig,
    "lerobot-replay": ReplayConfig,
    "lerobot-rollout": RolloutConfig,
    "lerobot-teleoperate": TeleoperateConfig,
}
CHOSEN: dict[str, tuple[type, ...]] = {
    "policy": (WAMConfig,),
    "env": (WAMTabletopEnv, WAMMetaWorldEnv),
    "robot": (WAMSimArmConfig, SO101FollowerConfig),
    "teleop": (WAMSimExpertConfig,),
    "inference": (RTCInferenceConfig,),
}
TAKEN_BY = {"robot": RecordConfig, "teleop": RecordConfig, "inference": RolloutConfig}


def load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shell_texts() -> Iterator[tuple[str, str]]:
    """Where and what of everything that a reader may type."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for number, block in enumerate(re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)):
            yield f"{path.relative_to(ROOT)}:{number}", block
        for number, code in enumerate(re.findall(r"`(lerobot-[^`]+ --[^`]+|make [^`]+)`", text)):
            yield f"{path.relative_to(ROOT)}:inline{number}", code.replace("\n", " ")
    for path in SCRIPTS:
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        comments = re.findall(r"^#   (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        yield f"{path.relative_to(ROOT)}:comments", "\n".join(comments)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command in them."""
    for where, text in shell_texts():
        for words in shell_commands.commands(text):
            yield where, words[words.index("--no-python") + 1 :] if words[0] == "torchrun" else words


def commands_of(program: str) -> list[Any]:
    found = [(where, words[1:]) for where, words in commands() if words[0] == program]
    return [pytest.param(words, id=f"{where} {' '.join(words)[:60]}") for where, words in found]


def flag(word: str) -> tuple[str, str]:
    assert re.fullmatch(r"--[\w.]+=.+", word), f"{word!r} is not of the form --name=value"
    name, _, value = word.removeprefix("--").partition("=")
    return name, value


def names(config: type) -> set[str]:
    return {field.name for field in dataclasses.fields(config) if field.init}


def check_name(config: type, name: str) -> None:
    """Follow a dotted flag through the configuration's fields."""
    first, _, rest = name.partition(".")
    assert first in names(config), f"{config.__name__} has no {first!r}"
    declared: Any = typing.get_type_hints(config)[first]
    kinds = CHOSEN.get(first) or [next((k for k in typing.get_args(declared) if dataclasses.is_dataclass(k)), declared)]
    if rest and rest not in ("type", "path"):
        assert all(dataclasses.is_dataclass(kind) for kind in kinds), f"{name}: {first} has no parts"
        check_name(next((kind for kind in kinds if rest.partition(".")[0] in names(kind)), kinds[0]), rest)


# Commands


@pytest.mark.parametrize("words", commands_of("lerobot-wam"))
def test_lerobot_wam_parses(words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    modules = {verb: importlib.import_module(module) for verb, module in command_line.verbs().items()}
    args, passed_on = command_line._parser(modules).parse_known_args(words)
    assert not passed_on or args.passes_on
    if words[0] == "embodiment":
        assert all(word.startswith("--robot.") for word in passed_on)  # each driver has its own
    else:
        of_checkpoint = ["--policy.path=any"] if words[0] in ("adapt", "serve") else []
        taken_by = "lerobot-rollout" if words[0] == "drive" else "lerobot-train"
        check_flags(taken_by, [*of_checkpoint, *passed_on], monkeypatch, tmp_path)


@pytest.mark.parametrize("program", PIPELINES)
def test_the_documents_show_it(program: str):
    assert commands_of(program)
    assert commands_of("lerobot-wam")


@pytest.mark.parametrize(
    ("program", "words"),
    [pytest.param(p, *found.values, id=found.id) for p in PIPELINES for found in commands_of(p)],
)
def test_lerobot_takes_every_flag(program: str, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    check_flags(program, words, monkeypatch, tmp_path)


def check_flags(program: str, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Names exist, and LeRobot's own parser reads the values; what depends on a checkpoint stays unread."""
    flags = dict(flag(word) for word in words)
    for name in flags.keys() - {"config_path"}:
        check_name(PIPELINES[program], name)
    monkeypatch.setattr("sys.argv", [program])  # the configurations look at the command line themselves
    monkeypatch.setattr(RolloutConfig, "__post_init__", lambda self: None)  # it opens the checkpoint
    own = {name: value for name, value in flags.items() if name.startswith("policy.")}
    monkeypatch.chdir(tmp_path)
    if (robot := own.get("policy.embodiment", "")).endswith(".yaml"):  # a file that an earlier command wrote
        Path(robot).write_text(load_embodiment("oxe_droid").to_yaml())
    if "policy.path" in flags or "config_path" in flags:
        settings = [f"--{name.removeprefix('policy.')}={value}" for name, value in own.items() if name != "policy.path"]
        draccus.parse(WAMConfig, args=settings)
        flags = {name: value for name, value in flags.items() if name not in own and name != "config_path"}
    if program == "lerobot-train":
        flags.setdefault("dataset.repo_id", "local/any")
    parsed = draccus.parse(PIPELINES[program], args=[f"--{name}={value}" for name, value in flags.items()])
    assert parsed is not None
    assert parser.get_type_arg("policy", words) in (None, "wam")
    assert parser.get_type_arg("env", words) in (None, "wam_tabletop", "wam_metaworld")
    assert parser.get_type_arg("robot", words) in (None, "wam_sim_arm", "so101_follower")
    assert parser.get_type_arg("teleop", words) in (None, "wam_sim_expert")


def test_named_flags_exist():
    """Flags in running text and tables, such as `--policy.video_stride`."""
    for path in DOCUMENTS:
        for name in re.findall(r"`--([\w.]+\.[\w]+)[`=]", path.read_text(encoding="utf-8")):
            if (kind := name.partition(".")[0]) in CHOSEN:
                check_name(TAKEN_BY.get(kind, TrainPipelineConfig), name)


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    asked = {words[1] for _, words in commands() if words[0] == "make" and len(words) > 1}
    assert {"demo", "test"} <= asked
    assert asked <= targets


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path):
    """As written, on a dataset that `lerobot-wam record` wrote; only the sizes are small."""
    pytest.importorskip("mujoco")
    sizes = {"STEPS": "2", "BATCH": "2", "EPISODES": "2", "OMP_NUM_THREADS": "1"}
    environment = os.environ | sizes | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def run(*words: str | Path) -> None:
        subprocess.run(words, cwd=tmp_path, env=environment, check=True)

    run("lerobot-wam", "record", "--root=data", "--episodes=4", "--workers=1")
    run("bash", ROOT / "examples/train_on_your_dataset.sh", "data", "run")
    checkpoint = "run/checkpoints/last/pretrained_model"
    run("bash", ROOT / "examples/evaluate.sh", checkpoint, "eval")
    run(sys.executable, ROOT / "examples/dream.py", checkpoint, "data")
    assert (tmp_path / "run/dream/dream.mp4").is_file()
    assert (tmp_path / "outputs/dream/report.html").is_file()
    assert len(list(tmp_path.glob("eval/*/eval_info.json"))) == 3


# Text


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path):
    def anchors(file: Path) -> set[str]:
        headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_the_yaml_of_the_documents_is_what_it_says(tmp_path: Path):
    mixture = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/training.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert mixture is not None
    (tmp_path / "mix.yaml").write_text(mixture[1])
    assert len(load_recipe(tmp_path / "mix.yaml").datasets) == 3
    text = (ROOT / "docs/embodiments.md").read_text(encoding="utf-8")
    embodiment, prompts = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    EmbodimentSpec.from_dict(load_yaml(embodiment, "docs"), where="docs").check_chunk()
    (tmp_path / "prompts.yaml").write_text(prompts)
    load_prompts(tmp_path / "prompts.yaml").template("oxe_droid")


def test_the_picture_of_attention_is_drawn_from_the_code():
    drawn = load_module(ROOT / "docs/attention.py").svg()
    assert (ROOT / "docs/attention.svg").read_text(encoding="utf-8") == drawn, "run python docs/attention.py"


# Numbers


def test_the_results_tables_are_up_to_date():
    assert fill_results.main(["--check"]) == 0, "run python -m benchmarks.fill_results"


MADE = {
    "command": "make it",
    "date": "2026-01-02T03:04",
    "commit": "abc",
    "machine": {"processor": "A processor", "cores": "2 usable", "accelerator": "none"},
    "versions": {},
    "seed": [0, 1],
}
"""What a result file says of its making."""


def test_results_become_rows(tmp_path: Path):
    expected = [file for file in fill_results.FILES.values() if file.expected and file.headlines]
    assert fill_results.readme_table(tmp_path).count("not yet measured") == len(expected)
    outcome = {"successes": 9, "n_episodes": 10}
    scores = {"psnr": 20.0, "psnr_moving": 12.0, "ssim": 0.9}
    metrics = {
        "success_rate": 0.9,
        "n_episodes": 10,
        "success_wilson_95": [0.6, 0.98],
        "success_by_condition": {"policy": outcome, "two-stage": outcome, "hold still": outcome | {"successes": 0}},
        "success_by_task": {"touch | it": {"successes": 1, "episodes": 2}},
        "video_scores": {"imagined": scores, "copy": scores | {"psnr_moving": 10.5}},
        "chunk_latency_p50_ms": 21.34,
        "seconds": {"record": 60.0, "train": 540.0},
        "plan": {"quick": False, "dreams": 24, "steps": 1000},
    }
    record = MADE | {"metrics": metrics}
    file = tmp_path / "nano_demo_viperx.json"
    file.write_text(json.dumps(record))
    rows = fill_results.summary(tmp_path)
    tail = "| 0, 1 | A processor, cores: 2 usable | 2026-01-02 | `abc` | `make it` |"
    assert f"| success on 12 tasks, new placements (ViperX) | 90 % | 9 of 10, 60–98 % {tail}" in rows
    assert "| hold still 0 % | 10 each | 0, 1 |" in rows
    assert "| +1.5 dB PSNR of moving pixels (12.0, 10.5) | 24 held-out clips |" in rows
    assert "| 10 min | one run |" in rows
    assert "| 10 min | one run |" not in fill_results.readme_table(tmp_path)  # no headline
    page = fill_results.results_page(tmp_path)
    assert r"| touch \| it | 50 % | 1 of 2, 9–91 % |" in page
    assert "| train | 540 |" in page
    file.write_text(json.dumps(record | {"metrics": metrics | {"plan": {"quick": True}}}))
    with pytest.raises(ValueError, match="quick"):
        fill_results.readme_table(tmp_path)
    file.write_text(json.dumps({"metrics": {}}))
    with pytest.raises(ValueError, match="lacks command, date, commit, machine, versions, seed"):
        fill_results.readme_table(tmp_path)


def test_robots_at_a_server_become_rows(tmp_path: Path):
    row = {"chunk_latency_p50_ms": 50.21, "chunk_latency_p99_ms": 80.0, "chunks_per_s": 19.04}
    kinds = {kind: {"1": row, "8": row} for kind in ("near", "far_at_control_rate", "far_at_full_speed")}
    metrics = {"chunks_per_robot": 40, "load_average": 1.0, "control_rate_hz": 10.0, **kinds}
    (tmp_path / "serving.json").write_text(json.dumps(MADE | {"metrics": metrics}))
    attacked = {"messages": 10_000, "good_robot_differences": 0, "good_robot_steps": 1234}
    sizes = {"rss_mb_after_warm_up": 970.4, "rss_mb_last": 972.0}
    driven = sizes | {"simulated_hours": 2.0, "control_steps": 72_000, "times_real_time": 20.33}
    metrics = {"under_attack": attacked, "drive": driven}
    (tmp_path / "soak.json").write_text(json.dumps(MADE | {"metrics": metrics}))
    rows = fill_results.summary(tmp_path)
    latency = "median 50.2, 50.2 ms; p99 80, 80 ms"
    assert f"| wait for a chunk of one server, 1, 8 robots at 10 Hz | {latency} | 40 chunks a robot; load 1.0 |" in rows
    assert "| its chunks a second, 1, 8 robots at full speed | 19, 19; near 19, 19 |" in rows
    assert "| 0 of its actions differ from those near by | 1,234 control steps |" in rows
    assert "| 970 MB after the warm-up, 972 MB at the end | 72,000 steps, 20.3 times real time |" in rows


def test_costs_become_rows(tmp_path: Path):
    training = {"frames_per_sample": 33, "train_step_ms_p50": 210.2}
    step_cost = {
        "batch_size": 32,
        "actions_per_chunk": 8,
        "repetitions": 30,
        "threads": 1,
        "train": {"wam_nano": training, "act_resnet18": training},
        "act": {"wam_nano, 4 steps": {"chunk_latency_p50_ms": 20.04}},
    }
    episode = {
        "chunks": 50,
        "repetitions": 10,
        "first_window_chunk_ms_mean": 20.0,
        "last_window_chunk_ms_mean": 21.0,
        "last_over_first_window_cost": 1.05,
        "chunk_ms_median": [20.0] * 50,
    }
    for name, metrics in {"step_cost": step_cost, "step_cost_cuda": step_cost, "long_episode": episode}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(MADE | {"metrics": metrics}))
    rows = fill_results.summary(tmp_path)
    assert "| training step, batch of 32 | wam_nano 210 ms (33 frames a sample) | median of 30, threads: 1 |" in rows
    assert "| chunk of 8 actions (GPU) | wam_nano, 4 steps 20 ms |" in rows
    assert "| 1.05 times the cost (20, 21 ms a chunk) | median of 10 episodes |" in rows
    assert "| chunk ms median | 50 values, see the file |" in fill_results.results_page(tmp_path)
