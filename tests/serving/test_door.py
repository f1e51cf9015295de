"""Who is let in, how much a client may ask for, and how a server begins and ends."""

import asyncio
import ssl
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from raw_robots import robot, see, served
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from lerobot_wam.embodiments.spec import CameraView, Dimension, EmbodimentSpec
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.serving import robots
from lerobot_wam.serving.engine import Engine
from lerobot_wam.serving.limits import Limits
from lerobot_wam.serving.protocol import ProtocolError, pack
from lerobot_wam.serving.server import Server
from lerobot_wam.serving.settings import ServeSettings, read_token

TOKEN = "a-token-of-many-characters"


async def get(address: str, path: str, **headers: str) -> tuple[int, str]:
    """Status and body of a plain GET."""

    def fetch() -> tuple[int, str]:
        try:
            with urlopen(Request(address.replace("ws", "http", 1) + path, headers=headers), timeout=60) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(fetch)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "robot.lab"])
def test_other_machines_are_served_with_a_token_only(host: str):
    with pytest.raises(ValueError, match=r"can be reached from other machines and no token is set.*--token-file=FILE"):
        ServeSettings(host=host)
    ServeSettings(host=host, token=TOKEN)
    ServeSettings(host=host, insecure=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_this_machine_needs_no_token(host: str):
    assert ServeSettings(host=host).is_loopback


@pytest.mark.parametrize("name", ["max_message_mb", "rate_limit", "max_sessions", "memory_gb", "session_timeout"])
def test_bounds_are_above_zero(name: str):
    with pytest.raises(ValueError, match=f"{name} is 0, expected more than 0"):
        ServeSettings(**{name: 0})


def test_half_of_tls_is_refused():
    with pytest.raises(ValueError, match="both a certificate and its key"):
        ServeSettings(tls_cert=Path("cert.pem"))


def test_a_token_is_read_from_a_file_of_ones_own(tmp_path: Path):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    assert read_token(file) == TOKEN
    file.chmod(0o644)
    with pytest.raises(ValueError, match="can be read by other users of this machine: chmod 600"):
        read_token(file)


@pytest.mark.parametrize("text", ["", "short", "with blanks in between it", "ümlaute-über-ümlaute"])
def test_weak_tokens_are_refused(tmp_path: Path, text: str):
    (tmp_path / "token").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="expected at least 16 printable ASCII"):
        read_token(tmp_path / "token")


def test_without_the_token_nobody_gets_in(policy: WAMPolicy):
    async def far() -> None:
        async with served(policy, token=TOKEN) as (server, address):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {TOKEN}x"}):
                with pytest.raises(InvalidStatus, match="401"):
                    async with robot(address, additional_headers=headers):
                        pass
            assert (await get(address, "/metrics"))[0] == 401
            assert (await get(address, "/healthz"))[0] == 200
            assert b'wam_rejected_total{status="401"} 4.0' in server.metrics.page()
            async with robot(address, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as one:
                await one.greet()
            status, page = await get(address, "/metrics", Authorization=f"Bearer {TOKEN}")
            assert status == 200
            assert TOKEN not in page

    asyncio.run(far())


def test_web_pages_are_no_robots(policy: WAMPolicy):
    async def far() -> None:
        async with served(policy) as (_, address):
            with pytest.raises(InvalidStatus, match="403"):
                async with robot(address, origin="http://evil.example"):
                    pass

    asyncio.run(far())


def test_other_paths_are_not_found(policy: WAMPolicy):
    async def far() -> None:
        async with served(policy) as (_, address):
            assert (await get(address, "/robot"))[0] == 404
            assert (await get(address, "/etc/passwd?x=1"))[0] == 404
            with pytest.raises(InvalidStatus, match="404"):
                async with robot(f"{address}/else"):
                    pass

    asyncio.run(far())


def test_more_connections_than_agreed_are_refused(policy: WAMPolicy):
    async def far() -> None:
        async with served(policy, max_connections=1) as (_, address), robot(address) as one:
            await one.greet()
            with pytest.raises(InvalidStatus, match="503"):
                async with robot(address):
                    pass

    asyncio.run(far())


def test_a_message_of_too_many_bytes_ends_its_connection_only(policy: WAMPolicy):
    async def far() -> None:
        async with served(policy, max_message_mb=0.01) as (server, address), robot(address) as good:
            await good.greet()
            async with robot(address) as one:
                assert (await one.greet())["max_message_bytes"] == Limits(int(0.01 * 2**20)).message_bytes
                await one.connection.send(pack({"type": "observe", "more": bytes(20000)}))
                with pytest.raises(ConnectionClosed, match="1009"):
                    await one.connection.recv()
            await good.show(see(0), plan=True)
            await good.hear("chunk")
            assert b'wam_errors_total{code="too_large"} 1.0' in server.metrics.page()

    asyncio.run(far())


def test_a_flood_is_answered_once_and_taken_in_at_the_agreed_rate(policy: WAMPolicy):
    async def far() -> None:
        async with served(policy, rate_limit=5) as (server, address), robot(address) as one:
            await one.greet()
            for _ in range(40):
                await one.say("reset", epoch=0)
            ready = 0
            while (await one.connection.recv()) == pack({"type": "ready", "epoch": 0}):
                ready += 1
            assert ready == 10
            page = server.metrics.page()
            assert b'wam_errors_total{code="rate_limited"} 1.0' in page

    asyncio.run(far())


def test_silent_connections_are_closed(policy: WAMPolicy):
    async def far() -> None:
        async with served(policy, handshake_timeout=0.2, idle_timeout=0.2) as (_, address), robot(address) as mute:
            with pytest.raises(ConnectionClosed, match=r"nothing heard for 0\.2 s"):
                await mute.connection.recv()
            async with robot(address) as one:
                await one.greet()
                with pytest.raises(ConnectionClosed, match=r"nothing heard for 0\.2 s"):
                    await one.connection.recv()

    asyncio.run(far())


def test_a_client_that_does_not_read_is_cut_off(policy: WAMPolicy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(robots, "_LONGEST_ERROR", 10**7)
    strange = dict.fromkeys([f"{name:04000}" for name in range(1000)], 0)  # an answer lists them all: 4 MB

    async def far() -> None:
        async with served(policy, send_timeout=0.3) as (server, address), robot(address, max_queue=1) as deaf:
            await deaf.greet()

            async def ask() -> None:
                while True:  # until every buffer on the way back is full
                    await deaf.show({"images": strange, "state": None})

            with pytest.raises(ConnectionClosed):
                await ask()
            while b'wam_sessions{state="connected"} 0.0' not in server.metrics.page():
                await asyncio.sleep(0.05)

    asyncio.run(far())


def test_a_server_is_ready_once_it_has_planned(policy: WAMPolicy, monkeypatch: pytest.MonkeyPatch):
    async def far() -> None:
        warm, warm_up = asyncio.Event(), Engine.warm_up

        async def later(self: Engine, category: int) -> None:
            await warm.wait()
            await warm_up(self, category)

        monkeypatch.setattr(Engine, "warm_up", later)
        server = Server(policy, ServeSettings(port=0))
        async with server.listening() as address:
            assert (await get(address, "/readyz"))[0] == 503
            assert (await get(address, "/healthz"))[0] == 200
            warm.set()
            await server.wait_until_ready()
            assert await get(address, "/readyz") == (200, "ready\n")
        assert not server.ready

    asyncio.run(far())


def test_a_server_whose_engine_has_died_says_so(policy: WAMPolicy, monkeypatch: pytest.MonkeyPatch):
    async def far() -> None:
        async with served(policy) as (server, address), robot(address) as one:
            await one.greet()
            with monkeypatch.context() as patch:
                patch.setattr(server.engine, "_next_round", lambda: 1 / 0)
                await one.show(see(0))
                while server.engine.alive:
                    await asyncio.sleep(0.05)
            assert (await get(address, "/healthz"))[0] == 503

    with pytest.raises(ZeroDivisionError):
        asyncio.run(far())


def of_several(**specs: tuple[str, ...]) -> Any:
    """What `category_of` needs to know of a server whose policy acts as these robots, and of one that only films."""
    dimension = (Dimension("a"),)
    timing: dict[str, Any] = {"cameras": (CameraView("c"),), "fps": 10.0, "video_stride": 1, "chunk_steps": 8}
    known = [EmbodimentSpec(n, state=dimension, action=dimension, robot_types=t, **timing) for n, t in specs.items()]
    films = EmbodimentSpec("human_video", state=(), action=(), **timing)
    spaces = [SimpleNamespace(spec=spec) for spec in (films, *known)]
    return SimpleNamespace(policy=SimpleNamespace(action_spaces=spaces, config=SimpleNamespace(embodiment="auto")))


def test_a_robot_is_known_by_its_name_or_type():
    one, two = of_several(a=("arm",)), of_several(a=("arm",), b=("arm", "leg"))
    assert [Server.category_of(one, word) for word in ("", "a", "arm")] == [1, 1, 1]
    assert [Server.category_of(two, word) for word in ("a", "b", "leg")] == [1, 2, 2]
    for server, word in ((one, "leg"), (two, ""), (two, "arm"), (two, "human_video")):
        with pytest.raises(ProtocolError, match="expected one of this policy's embodiments: a"):
            Server.category_of(server, word)


def test_a_server_that_ends_sends_the_chunk_in_hand_and_says_goodbye(policy: WAMPolicy):
    async def far() -> None:
        async with AsyncExitStack() as stack:
            async with served(policy) as (server, address):
                one = await stack.enter_async_context(robot(address))
                await one.greet()
                begun, loop, plan = asyncio.Event(), asyncio.get_running_loop(), server.engine.runtime.plan_observed

                def announced(*args: Any) -> Any:
                    loop.call_soon_threadsafe(begun.set)
                    return plan(*args)

                server.engine.runtime.plan_observed = announced  # type: ignore[method-assign]
                await one.show(see(0), plan=True)
                await begun.wait()
            assert (await one.hear("chunk"))["sequence"] == 0
            error = await one.hear("error")
            assert (error["code"], error["fatal"]) == ("shutting_down", True)
            with pytest.raises(ConnectionClosed, match="1001"):
                await one.connection.recv()

    asyncio.run(far())


def test_the_metrics_count_what_happens_and_tell_no_secrets(policy: WAMPolicy):
    async def far() -> None:
        async with served(policy) as (_, address), robot(address) as one:
            secret = (await one.greet())["session"]
            await one.show(see(0), plan=True, task="fetch my diary")
            await one.hear("chunk")
            await one.show(see(1), task="fetch my diary")
            await one.ask("nonsense", "error")
            status, page = await get(address, "/metrics")
            assert status == 200
            for line in (
                'wam_sessions{state="connected"} 1.0',
                "wam_frames_total 2.0",
                "wam_plans_total 1.0",
                "wam_plan_seconds_count 1.0",
                'wam_errors_total{code="bad_message"} 1.0',
            ):
                assert line in page
            assert secret not in page
            assert "diary" not in page

    asyncio.run(far())


def test_tls_hides_what_is_said(policy: WAMPolicy, tmp_path: Path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    words = [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(words, check=True, capture_output=True)
    trust = ssl.create_default_context(cafile=str(cert))

    async def far() -> None:
        async with served(policy, tls_cert=cert, tls_key=key) as (_, address):
            assert address.startswith("wss://")
            async with robot(address, ssl=trust) as one:
                await one.greet()
            with pytest.raises((InvalidHandshake, OSError)):
                async with robot(address.replace("wss", "ws")):
                    pass

    asyncio.run(far())
