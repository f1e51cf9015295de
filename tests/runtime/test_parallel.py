"""Chunks computed by several processes at once are those of one process."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from processes import FORKS, in_processes
from tiny_loops import CHUNKS, SIZE, STEPS, make_model, make_runtime, run, see
from torch import Tensor

from lerobot_wam.model.inputs import NoisyWindow
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.runtime.following import follow, lead
from lerobot_wam.runtime.parallel import Parallel
from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.state import LoopRules, Savings
from lerobot_wam.runtime.stitching import Commitment

CPU = torch.device("cpu")


def wan_like() -> WorldActionModel:
    """An image branch, conditioning channels, four heads."""
    return make_model(image_dim=3, condition_channels=28, num_heads=4, visual_summary=None)


def two_robots(runtime: Runtime) -> Tensor:
    """Actions and dreams of two robots over a window that fills and starts again; one has a new task midway."""
    sessions, found = [runtime.new_session(seed) for seed in (0, 1)], []
    for step in range(STEPS * CHUNKS + 1):
        tasks = "push red", "touch blue" if step >= STEPS + 3 else "push red"
        found += runtime.act(sessions, [see(step, robot, task) for robot, task in enumerate(tasks)])
    dreams = [session.dream.latents for session in sessions if session.dream is not None]
    return torch.cat([*found, *(latents.flatten() for latents in dreams if latents is not None)])


def share(mode: str, make: Callable[[], WorldActionModel], settings: dict[str, Any]) -> None:
    """Every process does the same as one alone, and all find the same bits."""
    model = make()
    alone = two_robots(make_runtime(model, **settings))
    shared = make_runtime(model, parallel=Parallel.join(mode, CPU), **settings)
    found = two_robots(shared)
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)
    others = [torch.empty_like(found) for _ in range(dist.get_world_size())]
    dist.all_gather(others, found)
    assert all(torch.equal(other, found) for other in others)


@FORKS
@pytest.mark.parametrize(
    ("mode", "processes", "make", "settings"),
    [
        ("cfg", 2, make_model, {"guidance": 2.0}),
        ("cfg", 2, make_model, {"guidance": 2.0, "action_only": True, "savings": Savings.none()}),
        ("context", 2, make_model, {"rules": LoopRules(window_full="slide")}),
        ("cfg+context", 4, wan_like, {"guidance": 2.0}),
    ],
)
def test_several_processes_equal_one(
    tmp_path: Path, mode: str, processes: int, make: Callable[[], WorldActionModel], settings: dict[str, Any]
):
    in_processes(processes, share, tmp_path, mode, make, settings)


def remember_less(mode: str) -> None:
    runtime = make_runtime(make_model(), guidance=2.0)
    whole = runtime.new_session(0)
    runtime.plan([whole], [see(0)])
    runtime = make_runtime(make_model(), guidance=2.0, parallel=Parallel.join(mode, CPU))
    part = runtime.new_session(0)
    runtime.plan([part], [see(0)])
    assert whole.branch is not None
    assert part.branch is not None
    assert part.branch.cache.bytes == whole.branch.cache.bytes / 2


@FORKS
@pytest.mark.parametrize("mode", ["cfg", "context"])
def test_a_process_keeps_a_share_of_keys_and_values(tmp_path: Path, mode: str):
    in_processes(2, remember_less, tmp_path, mode)


def video_and_robots(mode: str) -> None:
    """A batch in which one sample has no robot, so that keys are masked."""
    model = make_model()
    torch.manual_seed(1)
    latent, text = torch.randn(2, 24, 1, 2, 2), torch.randn(2, 6, 16)
    window = NoisyWindow(
        video=torch.randn(2, 24, 2, 2, 2),
        video_timestep=torch.full((2, 2), 500.0),
        action=torch.randn(2, STEPS, 4),
        action_timestep=torch.full((2, STEPS), 300.0),
        state=torch.randn(2, 1, 4),
        category=torch.zeros(2, dtype=torch.int64),
        has_robot=torch.tensor([True, False]),
    )

    def velocities() -> tuple[Tensor, Tensor]:
        context = model.embed_context(text)
        return model.denoise(window, context, model.write_observation(latent, context))

    alone = velocities()
    Parallel.join(mode, CPU).share(make_runtime(model))
    torch.testing.assert_close(velocities(), alone, rtol=0, atol=1e-5)


@FORKS
def test_tokens_that_a_mask_hides_are_hidden_on_every_process(tmp_path: Path):
    in_processes(2, video_and_robots, tmp_path, "context")


def episodes(runtime: Runtime) -> Tensor:
    """A window that fills and starts again, another task, and another episode."""
    session = runtime.new_session(seed=3)
    seen = STEPS * CHUNKS + 3
    first = [run(runtime, session, range(seen)), run(runtime, session, range(seen, seen + 2), task="touch blue")]
    del session
    return torch.cat([*first, run(runtime, runtime.new_session(seed=4), range(STEPS + 1))])


def act_or_follow(mode: str) -> None:
    """Rank 0 acts, makes a mistake, and acts on; the other knows nothing but what it is told."""
    parallel = Parallel.join(mode, CPU)
    runtime = make_runtime(make_model(), guidance=2.0, parallel=parallel)
    if parallel.rank > 0:
        follow(runtime, parallel)
        return
    alone = make_runtime(make_model(), guidance=2.0)
    with lead(runtime, parallel) as leading:
        torch.testing.assert_close(episodes(leading), episodes(alone), rtol=0, atol=1e-5)
        clips = [torch.zeros(5, 3, SIZE, SIZE)]
        with pytest.raises(ValueError, match="5 frames in one call"):
            leading.plan_frames([leading.new_session(0)], clips, [torch.zeros(2)], ["push red"])
        with pytest.raises(ValueError, match="do not know this session"):
            leading.observe(replace(leading.new_session(0)), see(0))
        given = [torch.zeros(STEPS, 2)]
        agreed = [Commitment(torch.ones(2, 2), torch.ones(2))]
        guided = [r.plan([r.new_session(1)], [see(0)], commitments=agreed)[0].actions for r in (leading, alone)]
        torch.testing.assert_close(*guided, rtol=0, atol=1e-5)
        simulated = [r.plan([r.new_session(1)], [see(0)], given_action=given)[0].latents for r in (leading, alone)]
        torch.testing.assert_close(*simulated, rtol=0, atol=1e-5)


@FORKS
@pytest.mark.parametrize("mode", ["cfg", "context"])
def test_those_who_follow_keep_up_with_the_one_who_leads(tmp_path: Path, mode: str):
    in_processes(2, act_or_follow, tmp_path, mode)


@pytest.mark.parametrize(
    ("mode", "processes", "message"),
    [
        ("tensor", 2, "parallel is 'tensor'; choose one of cfg, context"),
        ("cfg", 1, "over 1 process, expected 2: start with torchrun --nproc-per-node=2"),
        ("cfg", 3, "over 3 processes, expected 2"),
        ("context", 1, "over 1 process, expected 2 or more"),
        ("cfg+context", 2, "over 2 processes, expected 4, 6, 8, .* --nproc-per-node=4"),
    ],
)
def test_a_number_of_processes_that_does_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch, mode: str, processes: int, message: str
):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with pytest.raises(ValueError, match=message):
        Parallel.join(mode, CPU)


def test_every_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="1 GPUs for 2 processes"):
        Parallel.join("cfg", torch.device("cuda"))


def refuse(mode: str, message: str) -> None:
    parallel = Parallel.join(mode, CPU)
    with pytest.raises(ValueError, match=message):
        make_runtime(make_model(num_heads=1), parallel=parallel)


@FORKS
@pytest.mark.parametrize(
    ("mode", "message"),
    [("cfg", "guidance is 1: nothing to split"), ("context", "1 attention heads cannot be split over 2 processes")],
)
def test_what_cannot_be_split_is_refused(tmp_path: Path, mode: str, message: str):
    in_processes(2, refuse, tmp_path, mode, message)
