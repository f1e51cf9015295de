"""What waits for the model is computed together, the newest first, and no failure goes further than its robot."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_policies import SIZE, build_policy

from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.runtime.state import Dream, Observation, Session
from lerobot_wam.serving.engine import Engine, Superseded
from lerobot_wam.serving.metrics import Metrics
from lerobot_wam.serving.protocol import ProtocolError
from lerobot_wam.serving.settings import ServeSettings


def see(step: int) -> Observation:
    generator = torch.Generator().manual_seed(step)
    return Observation(torch.rand(3, SIZE, SIZE, generator=generator), torch.rand(6, generator=generator), "push red")


@asynccontextmanager
async def running(policy: WAMPolicy, **settings: Any) -> AsyncIterator[Engine]:
    engine = Engine(policy, ServeSettings(**settings), Metrics())
    async with engine.running():
        yield engine


def test_requests_that_wait_are_one_batch_as_large_as_agreed(policy: WAMPolicy):
    async def plan() -> list[int]:
        async with running(policy, max_batch=3) as engine:
            return [p.robots for p in await asyncio.gather(*(engine.plan(engine.seat(0), see(i)) for i in range(5)))]

    assert asyncio.run(plan()) == [3, 3, 3, 2, 2]


def test_of_several_requests_of_one_robot_the_newest_wins(policy: WAMPolicy):
    async def plan() -> None:
        async with running(policy) as engine:
            seat = engine.seat(0)
            older, newest = engine.plan(seat, see(0)), engine.plan(seat, see(1))
            engine.observe(seat, see(2))
            with pytest.raises(Superseded):
                await older
            torch.testing.assert_close((await newest).dream.anchor_frame, see(1).frame)
            assert b"wam_superseded_total 1.0" in engine.metrics.page()

    asyncio.run(plan())


@pytest.mark.parametrize("end", ["leave", "restart"])
def test_nobody_waits_for_a_robot_that_left_or_began_anew(policy: WAMPolicy, end: str):
    async def plan() -> None:
        async with running(policy) as engine:
            seat = engine.seat(0)
            waiting = engine.plan(seat, see(0))
            getattr(engine, end)(seat)
            with pytest.raises(Superseded):
                await waiting
            assert (await engine.plan(seat, see(1))).dream.starts_window

    asyncio.run(plan())


def test_an_engine_that_ends_lets_nobody_wait(policy: WAMPolicy):
    async def plan() -> None:
        async with running(policy) as engine:
            seats = [engine.seat(0) for _ in range(3)]
            waiting = [engine.plan(seat, see(0)) for seat in seats]
        for request in [*waiting, engine.plan(seats[0], see(1))]:
            with pytest.raises(Superseded):
                await request

    asyncio.run(plan())


def test_frames_are_encoded_while_nothing_is_due(policy: WAMPolicy):
    async def look() -> list[int]:
        async with running(policy) as engine:
            seat = engine.seat(0)
            await engine.plan(seat, see(0))
            lengths = []
            for step in range(1, 9):
                engine.observe(seat, see(step))
                while seat.inbox:
                    await asyncio.sleep(0.01)
                await engine.imagine((await engine.plan(engine.seat(0), see(0))).dream)  # behind what was observed
                lengths.append(len(seat.session.stream.latents))
            return lengths

    assert policy.config.video_stride == 1
    assert asyncio.run(look()) == [1, 1, 1, 2, 2, 2, 2, 3]


def test_a_robot_that_only_looks_keeps_no_more_than_a_block(policy: WAMPolicy):
    async def look() -> Engine:
        async with running(policy) as engine:
            seat = engine.seat(0)
            await engine.plan(seat, see(0))
            for step in range(100):
                engine.observe(seat, see(step))
                assert len(seat.inbox) <= 4 * engine.runtime.chunk_steps
            assert (await engine.plan(seat, see(1))).dream.starts_window
            for step in range(100):
                engine.observe(seat, see(step))
                await asyncio.sleep(0)
            while seat.inbox:
                await asyncio.sleep(0.01)
            await engine.imagine((await engine.plan(engine.seat(0), see(0))).dream)
            assert len(seat.session.frames) <= engine.runtime.block_frames
            return engine

    asyncio.run(look())


@pytest.mark.parametrize(
    ("failure", "code"), [(RuntimeError("secret detail"), "internal"), (torch.OutOfMemoryError("full"), "overloaded")]
)
def test_who_shares_a_batch_with_a_failure_still_gets_a_chunk(policy: WAMPolicy, failure: Exception, code: str):
    async def plan() -> None:
        async with running(policy) as engine:
            bad, good = engine.seat(0), engine.seat(0)
            plan_observed = engine.runtime.plan_observed

            def failing(sessions: Sequence[Session], seen: Sequence[Observation]) -> list[Dream]:
                if bad.session in sessions:
                    raise failure
                return plan_observed(sessions, seen)

            engine.runtime.plan_observed = failing  # type: ignore[method-assign]
            refused, served = engine.plan(bad, see(0)), engine.plan(good, see(1))
            with pytest.raises(ProtocolError) as error:
                await refused
            assert error.value.code == code
            assert "secret" not in str(error.value)
            assert (await served).dream.starts_window
            engine.runtime.plan_observed = plan_observed  # type: ignore[method-assign]
            assert (await engine.plan(bad, see(2))).dream.starts_window

    asyncio.run(plan())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_action_of_damaged_weights_is_sent(arm_recordings: Path, value: float):
    policy = build_policy(arm_recordings).eval()
    with torch.no_grad():
        next(policy.acting_model.action_decoder.parameters()).fill_(value)

    async def plan() -> None:
        async with running(policy) as engine:
            with pytest.raises(ProtocolError, match="not finite; no chunk is sent"):
                await engine.plan(engine.seat(0), see(0))

    asyncio.run(plan())


def test_clips_are_planned_like_the_official_server_is_called(policy: WAMPolicy):
    block = torch.stack([see(step).frame for step in range(1, 9)])

    async def plan() -> tuple[bool, bool]:
        async with running(policy) as engine:
            seat = engine.seat(0)
            first = await engine.plan_frames(seat, see(0).frame[None], see(0).state, "push red")
            second = await engine.plan_frames(seat, block, see(8).state, "push red")
            return first.dream.starts_window, second.dream.starts_window

    assert asyncio.run(plan()) == (True, False)
