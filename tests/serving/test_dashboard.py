"""The live page in a browser, before a real server with a tiny policy, and who its feed is for."""

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_network import faulty_network
from playwright.sync_api import Browser, Page, expect, sync_playwright
from served_policies import Served, served
from tiny_policies import ARM_JOINTS, SIZE, build_policy, write_dataset
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.serving import dashboard
from lerobot_wam.serving.client import WAMClient
from lerobot_wam.serving.monitor import Monitor, PlanRecord

PATIENCE_S = 60.0
TOKEN = "only-for-robots-and-eyes"
CAMERA = "observation.images.front"
NARROW_SOCKET = 4096


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> WAMPolicy:
    return build_policy(write_dataset(tmp_path_factory.mktemp("data") / "arm", lengths=(20,))).eval()


@pytest.fixture
def monitor() -> Monitor:
    return Monitor("a tiny policy", ["everything"])


@pytest.fixture
def server(policy: WAMPolicy, monitor: Monitor) -> Iterator[Served]:
    with served(policy, monitor) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = next(filter(None, map(shutil.which, names)), own if Path(own).exists() else None)
        if found is None:
            refuse = pytest.fail if os.environ.get("WAM_REQUIRE_GOLDEN") == "1" else pytest.skip
            refuse(f"no browser: install one of {', '.join(names)}, or run 'playwright install chromium'")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        expect.set_options(timeout=1e3 * PATIENCE_S)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test when a script of it fails or its policy stops something."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    yield page
    page.close()
    # What is not there while the server is away is no complaint of ours.
    assert [text for text in complaints if "WebSocket" not in text] == []


def address(server: Served, path: str = "/") -> str:
    return f"http://{server.host}:{server.port}{path}"


def drive(client: WAMClient, steps: int, task: str = "push red") -> None:
    rng = np.random.default_rng(0)
    for _ in range(steps):
        client.act({CAMERA: rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)}, np.zeros(6, np.float32), task)


def record(value: float = 0.0, **changes: Any) -> PlanRecord:
    fields: dict[str, Any] = {"names": ARM_JOINTS, "execute": 4, "robot": "arm", "task": "push red"}
    return PlanRecord(np.full((8, len(ARM_JOINTS)), value), **(fields | changes))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def look(server: Served, said: str = '{"token": ""}', **options: Any) -> ClientConnection:
    connection = connect(f"{server.url}{dashboard.FEED}", **options)
    with suppress(ConnectionClosed):  # some are sent away before they say anything
        connection.send(said)
    return connection


def goodbye(connection: ClientConnection) -> int | None:
    """The code that the server ends a feed with, whatever it says before."""
    with suppress(ConnectionClosed):
        while True:
            connection.recv(PATIENCE_S)
    return connection.close_code


def test_every_served_robot_is_there_and_one_is_large(server: Served, page: Page):
    page.goto(address(server))
    expect(page.locator("#nobody")).to_be_visible()
    with WAMClient(server.url) as first, WAMClient(server.url) as second:
        first.reset()
        second.reset()
        drive(first, 3, "push red")
        drive(second, 3, "push blue")
        expect(page.locator("#robots button.driving")).to_have_count(2)
        expect(page.locator("#robots img:visible")).to_have_count(2)
        expect(page.locator("#task")).to_have_text("“push red”")
        expect(page.locator("#joints figcaption")).to_contain_text(ARM_JOINTS)
        page.locator("#robots button").nth(1).press("Enter")
        expect(page.locator("#task")).to_have_text("“push blue”")
    expect(page.locator("#robots button.left")).to_have_count(2)


def test_the_dream_is_beside_the_camera_and_decoded_only_for_those_who_look(
    server: Served, page: Page, monkeypatch: pytest.MonkeyPatch
):
    decoded: list[int] = []
    imagine = server.server.engine.imagine

    async def counted(dream: Any) -> Any:
        decoded.append(1)
        return await imagine(dream)

    monkeypatch.setattr(server.server.engine, "imagine", counted)
    with WAMClient(server.url) as client:
        client.reset()
        drive(client, 9)
        assert decoded == []
        page.goto(address(server))
        expect(page.locator("#dreamless")).to_be_visible()
        drive(client, 16)
        expect(page.locator("#camera")).to_be_visible()
        expect(page.locator("#dream")).to_be_visible()
        sizes = page.evaluate("[camera, dream].map((picture) => [picture.naturalWidth, picture.naturalHeight])")
        assert sizes == [[SIZE, SIZE], [SIZE, SIZE]]
        assert decoded != []


def test_surprise_above_the_threshold_is_marked(server: Served, page: Page, monitor: Monitor):
    for surprise in (0.4, 0.6, 0.5):
        monitor.planned("r1", record(surprise=surprise))
    page.goto(address(server))
    expect(page.locator("#surprise")).to_have_text("0.50 × threshold")
    expect(page.locator("#surprises .curve")).to_have_count(1)
    expect(page.locator("#surprises circle.alarm")).to_have_count(0)
    monitor.planned("r1", record(surprise=1.4))
    expect(page.locator("#surprises circle.alarm")).to_have_count(1)
    expect(page.locator("#surprise")).to_have_text("1.40 × threshold, above")
    expect(page.locator("#robots button")).to_contain_text("surprised")
    points = page.locator("#surprises .curve").get_attribute("points") or ""
    assert len(points.split()) == 4


def test_an_uncalibrated_policy_says_so(server: Served, page: Page, monitor: Monitor):
    monitor.planned("r1", record())
    page.goto(address(server))
    expect(page.locator("#surprise")).to_have_text("not calibrated")
    expect(page.locator("#surprises .curve")).to_have_count(0)


def test_actions_that_are_not_finite_break_the_line_and_not_the_page(server: Served, page: Page, monitor: Monitor):
    actions = np.zeros((8, len(ARM_JOINTS)))
    actions[2, 0] = actions[:, 1] = np.nan
    monitor.planned("r1", PlanRecord(actions, ARM_JOINTS, 8, "arm", "push red"))
    page.goto(address(server))
    expect(page.locator("#joints figure").nth(0).locator(".next")).to_have_count(2)
    expect(page.locator("#joints figure").nth(1)).to_contain_text("not finite")
    expect(page.locator("#joints figure").nth(2).locator(".next")).to_have_count(1)


def test_clips_latency_errors_and_approximations_are_told(server: Served, page: Page, monitor: Monitor):
    monitor.planned("r1", record(clips={"elbow.pos": 3}, queue_ms=5, compute_ms=1200))
    monitor.failed("r1", "bad_observation")
    monitor.failed("", "unauthorized")
    page.goto(address(server))
    expect(page.locator("#clips li")).to_have_text(["3 elbow.pos "])
    expect(page.locator("#faults li")).to_have_text(["1 bad_observation "])
    expect(page.locator("#errors li")).to_contain_text(["1 bad_observation", "1 unauthorized"])
    expect(page.locator("#latency")).to_have_text("p50 1.21 s, p95 1.21 s")
    expect(page.locator("#approximations")).to_have_text("Approximate: everything")


def test_a_task_with_markup_stays_text(server: Served, page: Page):
    task = '<img src=x onerror="window.hit = 1"><script>window.hit = 1</script>'
    with WAMClient(server.url) as client:
        client.reset()
        page.goto(address(server))
        drive(client, 3, task)
        expect(page.locator("#task")).to_have_text(f"“{task}”")
        assert page.evaluate("window.hit") is None


def test_the_page_says_that_the_server_is_away_and_comes_back_with_it(policy: WAMPolicy, page: Page):
    with served(policy, Monitor("before")) as server:
        page.goto(address(server))
        expect(page.locator("#feed")).to_have_text("live")
    expect(page.locator("#feed")).to_contain_text("what you see is old")
    expect(page.locator("body")).to_have_class("lost")
    with served(policy, Monitor("after"), port=server.port):
        expect(page.locator("#feed")).to_have_text("live")
        expect(page.locator("#title")).to_have_text("after")


def test_the_page_notices_a_feed_that_falls_silent(server: Served, page: Page):
    with faulty_network(server.host, server.port) as network:
        page.goto(f"http://127.0.0.1:{network.port}/")
        expect(page.locator("#feed")).to_have_text("live")
        network.hold()
        expect(page.locator("#feed")).to_contain_text("no news")
        network.restore()
        expect(page.locator("#feed")).to_have_text("live")


def test_the_page_asks_for_the_token_and_keeps_it_out_of_the_address(policy: WAMPolicy, page: Page, monitor: Monitor):
    with served(policy, monitor, token=TOKEN) as server:
        page.goto(address(server))
        expect(page.locator("#ask")).to_be_visible()
        page.fill("#token", "a-guess-that-is-wrong")
        page.press("#token", "Enter")
        expect(page.locator("#refused")).to_have_text("The server refused this token.")
        assert not monitor.watched
        page.fill("#token", TOKEN)
        page.press("#token", "Enter")
        expect(page.locator("#feed")).to_have_text("live")
        expect(page.locator("#ask")).to_be_hidden()
        page.reload()
        expect(page.locator("#feed")).to_have_text("live")
        assert TOKEN not in page.url
        assert TOKEN not in page.content()


@pytest.mark.parametrize("size", [(1280, 720), (390, 844)])
def test_nothing_is_wider_than_the_screen(server: Served, page: Page, monitor: Monitor, size: tuple[int, int]):
    monitor.observed("r1", np.zeros((48, 96, 3), np.uint8))
    monitor.planned("r1", record(task="push " + 200 * "x", surprise=0.5))
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(address(server))
    expect(page.locator("#camera")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]


def test_the_page_may_load_nothing_from_elsewhere(server: Served, page: Page):
    response = page.goto(address(server))
    assert response is not None
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_page_is_served_only_where_it_was_asked_for(policy: WAMPolicy, page: Page):
    with served(policy) as server:
        response = page.request.get(address(server))
        assert response.status == 404


def test_without_the_token_the_feed_tells_nothing(policy: WAMPolicy, monitor: Monitor):
    with served(policy, monitor, token=TOKEN) as server:
        for said in ('{"token": ""}', '{"token": "wrong"}'):
            connection = look(server, said)
            with pytest.raises(ConnectionClosed):
                connection.recv(PATIENCE_S)
            assert connection.close_code == dashboard.UNAUTHORIZED


@pytest.mark.parametrize("said", ["", "[]", "{}", '{"token": 1}', "[" * 5000, b"\xff"])
def test_a_viewer_that_talks_nonsense_is_sent_away(server: Served, said: str):
    assert goodbye(look(server, said)) == 1008


def test_a_viewer_chooses_what_it_sees_and_nothing_else(server: Served, monitor: Monitor):
    with look(server) as one, look(server) as other:
        for name in ("r1", "r2"):
            monitor.planned(name, record())
        one.send(json.dumps({"show": "r2"}))
        wait_for(lambda: json.loads(one.recv(PATIENCE_S))["shown"] == "r2")
        wait_for(lambda: json.loads(other.recv(PATIENCE_S))["shown"] == "r1")
        one.send(json.dumps({"type": "reset", "epoch": 1}))
        assert goodbye(one) == 1008


def test_other_websites_may_not_look(server: Served):
    assert goodbye(look(server, origin="http://elsewhere.example")) == dashboard.FOREIGN


def test_a_website_whose_name_points_here_may_not_look_without_a_token(policy: WAMPolicy, monitor: Monitor):
    with served(policy, monitor) as server, socket.create_connection((server.host, server.port)) as here:
        named = f"ws://rebound.example:{server.port}{dashboard.FEED}"
        connection = connect(named, sock=here, origin=f"http://rebound.example:{server.port}")
        assert goodbye(connection) == dashboard.FOREIGN


def test_viewers_are_bounded(server: Served, monitor: Monitor):
    connections = [look(server) for _ in range(dashboard.VIEWERS)]
    wait_for(lambda: monitor.viewers == dashboard.VIEWERS)
    assert goodbye(look(server)) == dashboard.TOO_MANY
    for connection in connections:
        connection.close()
    wait_for(lambda: not monitor.watched)


def test_a_viewer_that_does_not_read_is_dropped(server: Served, monitor: Monitor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dashboard, "PATIENCE_S", 0.5)
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    with socket.socket() as narrow:
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_SOCKET)
        narrow.connect((server.host, server.port))
        look(server, sock=narrow, max_queue=1)
        wait_for(lambda: monitor.watched)

        def gone() -> bool:
            monitor.observed("r1", noise)
            return not monitor.watched

        wait_for(gone)
