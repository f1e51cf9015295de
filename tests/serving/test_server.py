"""A server with a tiny policy, and what robots get from it."""

import asyncio
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from raw_robots import TASK, robot, see, served
from tiny_policies import SIZE, build_policy
from websockets.exceptions import ConnectionClosedError

from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.runtime.surprise import Alarm, Calibration
from lerobot_wam.serving.protocol import VERSION


def near(policy: WAMPolicy, steps: list[dict[str, Any]], task: str = TASK) -> np.ndarray:
    """What `select_action` does with the same, prepared as LeRobot's rollout prepares it."""
    policy.reset()
    actions = []
    for seen in steps:
        batch: dict[str, Any] = {"observation.state": torch.from_numpy(seen["state"])[None], "task": [task]}
        for key, picture in seen["images"].items():
            batch[key] = (torch.from_numpy(picture).type(torch.float32) / 255).permute(2, 0, 1).contiguous()[None]
        actions.append(policy.select_action(batch)[0].numpy())
    return np.stack(actions)


def test_near_and_far_are_bitwise_equal(policy: WAMPolicy):
    steps = [see(step) for step in range(3 * policy.config.chunk_steps + 3)]

    async def far() -> np.ndarray:
        async with served(policy) as (_, address), robot(address) as one:
            await one.greet()
            return await one.act(steps)

    np.testing.assert_array_equal(asyncio.run(far()), near(policy, steps))


def test_eight_robots_get_what_each_gets_alone(policy: WAMPolicy):
    length = 2 * policy.config.chunk_steps + 2
    shown = [[see(step, number) for step in range(length)] for number in range(8)]

    async def together(address: str, steps: list[dict[str, Any]]) -> np.ndarray:
        async with robot(address) as one:
            await one.greet()
            return await one.act(steps)

    async def far() -> list[np.ndarray]:
        async with served(policy) as (server, address):
            actions = await asyncio.gather(*(together(address, steps) for steps in shown))
            assert b'wam_batch_robots_bucket{le="1.0"} 24.0' not in server.metrics.page(), "never more than one"
            return actions

    for actions, steps in zip(asyncio.run(far()), shown, strict=True):
        np.testing.assert_allclose(actions, near(policy, steps), rtol=0, atol=1e-5)


def test_each_episode_begins_alike(policy: WAMPolicy):
    steps = [see(step) for step in range(policy.config.chunk_steps + 1)]

    async def twice() -> list[np.ndarray]:
        async with served(policy) as (_, address), robot(address) as one:
            await one.greet()
            episodes = [await one.act(steps)]
            assert (await one.ask("reset", "ready", epoch=1))["epoch"] == 1
            one.epoch, one.sequence = 1, -1
            return [*episodes, await one.act(steps)]

    first, second = asyncio.run(twice())
    np.testing.assert_array_equal(first, second)


def test_repeated_and_late_frames_are_dropped(policy: WAMPolicy):
    steps = [see(step) for step in range(policy.config.chunk_steps + 1)]

    async def far() -> np.ndarray:
        async with served(policy) as (_, address), robot(address) as one:
            await one.greet()
            actions = await one.act(steps[:4])
            await one.show(see(99), step=0)
            await one.show(see(98), sequence=1)
            one.sequence -= 1
            await one.say("reset", epoch=0)
            await one.hear("ready")
            for seen in steps[4:-1]:
                await one.show(seen)
            await one.show(steps[-1], plan=True)
            chunk = await one.hear("chunk")
            assert not chunk["starts_window"]
            return np.stack([*actions, chunk["actions"][0]])

    np.testing.assert_array_equal(asyncio.run(far())[-1], near(policy, steps)[-1])


@pytest.mark.parametrize("fault", ["a frame is missing", "the plan comes late", "the plan comes early", "resumed"])
def test_a_block_that_is_not_whole_starts_a_window(policy: WAMPolicy, fault: str):
    async def far() -> dict[str, Any]:
        steps = policy.config.chunk_steps + {"the plan comes late": 1, "the plan comes early": -2}.get(fault, 0)
        async with served(policy) as (_, address):
            async with robot(address) as one:
                secret = (await one.greet())["session"]
                await one.show(see(0), plan=True)
                await one.hear("chunk")
                for step in range(1, steps):
                    await one.show(see(step), step=2 if fault == "a frame is missing" and step == 3 else 1)
                if fault != "resumed":
                    await one.show(see(steps), plan=True)
                    return await one.hear("chunk")
            async with robot(address) as back:
                welcome = await back.greet(session=secret)
                assert (welcome["resumed"], welcome["session"]) == (True, secret)
                back.sequence = welcome["sequence"]
                await back.show(see(steps), plan=True)
                return await back.hear("chunk")

    assert asyncio.run(far())["starts_window"]


def test_frames_of_another_epoch_change_nothing(policy: WAMPolicy):
    async def far() -> None:
        async with served(policy) as (_, address), robot(address) as one:
            await one.greet()
            await one.ask("reset", "ready", epoch=3)
            await one.show(see(0), plan=True)
            assert (await one.ask("reset", "error", epoch=2))["code"] == "stale"
            error = await one.ask("observe", "error", epoch=4, sequence=0, time=0.0, plan=True, task=TASK, **see(0))
            assert (error["code"], error["epoch"], error["fatal"]) == ("stale", 4, False)
            one.epoch = 3
            await one.show(see(0), plan=True)
            assert (await one.hear("chunk"))["sequence"] == one.sequence

    asyncio.run(far())


FRONT = "observation.images.front"
PICTURE = np.zeros((SIZE, SIZE, 3), np.uint8)
HUGE = BytesIO()
Image.new("L", (5000, 4000)).save(HUGE, "JPEG")
BAD = [
    ({"images": {FRONT: {"jpeg": HUGE.getvalue()}}}, "sent a JPEG of 4000x5000, expected at most 16777216 pixels"),
    ({"images": {}}, "camera observation.images.front is missing (found none)"),
    ({"images": {"wrist": PICTURE}}, "(found wrist)"),
    ({"images": {FRONT: PICTURE[:, :, :1]}}, "sent uint8 [32, 32, 1], expected uint8 [height, width, 3]"),
    ({"images": {FRONT: PICTURE.astype(np.float32)}}, "sent float32 [32, 32, 3]"),
    ({"images": {FRONT: PICTURE[:0]}}, "expected 1 to 16777216 pixels"),
    ({"images": {FRONT: {"jpeg": b"\xff\xd8\xff\xe0 nothing"}}}, "no whole JPEG picture"),
    ({"images": {FRONT: PICTURE[:16]}}, "front 16x32, expected observation.images.front 32x32"),
    ({"state": np.zeros(5, np.float32)}, "state is float32 [5], expected float32 [6] (waist.pos, shoulder.pos"),
    ({"state": np.zeros(6)}, "state is float64 [6]"),
    ({"state": None}, "state is nothing"),
    ({"state": np.full(6, np.nan, np.float32)}, "state of waist.pos, shoulder.pos"),
    ({"task": " "}, "task is empty"),
    ({"commitment": {"actions": np.zeros((2, 5), np.float32), "delay": 0}}, "must be finite float32 [n, 6], n > 0"),
]


def test_each_bad_observation_is_named_and_the_connection_survives(policy: WAMPolicy):
    async def far() -> None:
        async with served(policy) as (server, address), robot(address) as one:
            await one.greet()
            await one.show(see(0), plan=True)
            await one.hear("chunk")
            for fault, words in BAD:
                await one.show(see(1), plan=True, **fault)
                error = await one.hear("error")
                assert (error["code"], error["sequence"]) == ("bad_observation", one.sequence), error
                assert words in error["message"]
            await one.show(see(1), plan=True)
            assert (await one.hear("chunk"))["starts_window"]
            assert f'wam_errors_total{{code="bad_observation"}} {len(BAD)}.0'.encode() in server.metrics.page()

    asyncio.run(far())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type": "reset", "epoch": 1}, "the first message is 'reset', expected 'hello'"),
        ({"type": "hello", "protocol": 2}, "protocol 2 is asked for, this server speaks 1"),
        (
            {"type": "hello", "protocol": 1, "robot": "toaster"},
            "'toaster', expected one of this policy's",
        ),
        ({"type": "hello"}, "field 'protocol' is absent"),
    ],
)
def test_who_does_not_say_hello_is_not_let_in(policy: WAMPolicy, fields: dict[str, Any], words: str):
    async def far() -> None:
        async with served(policy) as (_, address), robot(address) as one:
            error = await one.ask(answer="error", kind=fields.pop("type"), **fields)
            assert words in error["message"]
            assert error["fatal"]
            await asyncio.wait_for(one.connection.wait_closed(), 60)

    asyncio.run(far())


def test_the_welcome_says_what_is_served(policy: WAMPolicy):
    async def far() -> dict[str, Any]:
        async with served(policy) as (_, address), robot(address) as one:
            return await one.greet(robot="wam_sim_viperx")

    welcome = asyncio.run(far())
    assert welcome["embodiment"] == policy.action_spaces[0].spec.to_dict()
    assert welcome["pictures"] == {FRONT: [SIZE, SIZE]}
    assert (welcome["chunk_steps"], welcome["execute_steps"]) == (policy.config.chunk_steps, policy.config.chunk_steps)
    assert welcome["approximations"] == ["num_inference_steps=2 solver steps, 16 are exact"]
    assert (welcome["resumed"], welcome["epoch"], welcome["sequence"]) == (False, 0, -1)


def test_a_guessed_secret_opens_no_session(policy: WAMPolicy):
    async def far() -> None:
        async with served(policy) as (_, address), robot(address) as one, robot(address) as other:
            secret = (await one.greet())["session"]
            for guess in ("", "a", secret[:-1], secret.upper()):
                assert len(secret) > 40
                async with robot(address) as guesser:
                    welcome = await guesser.greet(session=guess)
                    assert not welcome["resumed"]
                    assert welcome["session"] not in (secret, guess)
            assert (await other.greet())["session"] != secret

    asyncio.run(far())


def test_a_session_ends_when_its_robot_stays_away(policy: WAMPolicy):
    async def far() -> None:
        async with served(policy, session_timeout=0.2) as (server, address):
            async with robot(address) as one:
                secret = (await one.greet())["session"]
            gone = (b'wam_sessions{state="connected"} 0.0', b'wam_sessions{state="waiting"} 0.0')
            while not all(line in server.metrics.page() for line in gone):
                await asyncio.sleep(0.05)
            async with robot(address) as back:
                assert not (await back.greet(session=secret))["resumed"]

    asyncio.run(far())


def test_no_more_robots_are_let_in_than_agreed_but_the_vanished_make_room(policy: WAMPolicy):
    async def far() -> None:
        async with served(policy, max_sessions=2) as (server, address), robot(address) as one:
            await one.greet()
            async with robot(address) as other, robot(address) as third:
                await other.greet()
                error = await third.ask("hello", "error", protocol=VERSION)
                assert (error["code"], error["fatal"]) == ("overloaded", True)
            while b'wam_sessions{state="waiting"} 1.0' not in server.metrics.page():
                await asyncio.sleep(0.05)
            async with robot(address) as fourth:
                await fourth.greet()

    asyncio.run(far())


def test_a_robot_that_comes_back_over_a_new_connection_ends_the_old_one(policy: WAMPolicy):
    async def far() -> None:
        async with served(policy) as (_, address), robot(address) as old, robot(address) as new:
            secret = (await old.greet())["session"]
            assert (await new.greet(session=secret))["resumed"]
            await asyncio.wait_for(old.connection.wait_closed(), 60)
            await new.show(see(0), plan=True)
            await new.hear("chunk")

    asyncio.run(far())


def test_evicted_robots_go_on_with_a_new_window(policy: WAMPolicy):
    async def far() -> None:
        async with served(policy, memory_gb=1e-9) as (server, address), robot(address) as one:
            await one.greet()
            for step in range(2 * policy.config.chunk_steps):
                plan = step % policy.config.chunk_steps == 0
                await one.show(see(step), plan=plan)
                if plan:
                    assert (await one.hear("chunk"))["starts_window"]
            assert b"wam_evictions_total 2.0" in server.metrics.page()

    asyncio.run(far())


def test_a_robot_with_another_task_is_told_to_ask_anew(policy: WAMPolicy):
    async def far() -> None:
        async with served(policy) as (_, address), robot(address) as one:
            await one.greet()
            await one.show(see(0), plan=True)
            await one.hear("chunk")
            await one.show(see(1), task="push blue")
            replan = await one.hear("replan")
            assert (replan["epoch"], replan["sequence"], replan["surprise"]) == (0, 1, None)

    asyncio.run(far())


def test_a_surprised_policy_calls_its_chunk_off(arm_recordings: Path):
    policy = build_policy(arm_recordings).eval()
    calibration = Calibration([[1e-6] * 24] * 2, [1e-6] * 2, 0.9, [10, 10], "a test", {})  # nothing is ever as dreamed

    async def far() -> None:
        async with served(policy) as (server, address), robot(address) as one:
            server.engine.runtime.watching = Alarm({0: calibration}, "replan", {0: np.full(6, np.nan)})
            await one.greet()
            await one.show(see(0), plan=True)
            await one.hear("chunk")
            for step in range(1, 5):
                await one.show(see(step))
            assert (await one.hear("replan"))["surprise"] > 1
            await one.show(see(5), plan=True)
            assert (await one.hear("chunk"))["starts_window"]
            assert b"wam_surprise_count 1.0" in server.metrics.page()

    asyncio.run(far())


def test_a_robot_that_is_gone_before_its_welcome_is_not_taken_for_connected(
    policy: WAMPolicy, monkeypatch: pytest.MonkeyPatch
):
    async def lost(*args: Any) -> None:
        raise ConnectionClosedError(None, None)

    async def far() -> None:
        async with served(policy) as (server, address), robot(address) as one:
            with monkeypatch.context() as patch:
                patch.setattr(server.robots, "_send", lost)
                await one.say("hello", protocol=VERSION)
                while b'wam_sessions{state="waiting"} 1.0' not in server.metrics.page():
                    await asyncio.sleep(0.05)

    asyncio.run(far())
