"""The live page: its files, and the feed that keeps it up to date. A viewer can only look.

The only thing that a viewer says after its token is which robot it wants to see large.
"""

import asyncio
import base64
import io
import ipaddress
import json
import math
import time
from collections.abc import Callable
from http import HTTPStatus
from importlib.resources import files
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from lerobot_wam.serving.monitor import Monitor, Viewer

FEED = "/dashboard/feed"
UNAUTHORIZED, FOREIGN, TOO_SLOW, TOO_MANY = 4401, 4403, 4408, 4429
"""Codes with which the feed is closed."""
VIEWERS = 8
TICK_S = 0.2
"""Time between two messages of news, and between two pictures of the robot that is seen large [s]."""
THUMBNAIL_S = 1.0
"""Time between two pictures of every other robot [s]."""
WIDTH, THUMBNAIL_WIDTH = 640, 160
"""Pictures that are wider are made smaller [pixels]."""
PATIENCE_S = 5.0
"""A viewer that takes longer to say its token, or to take a message, is dropped [s]."""

_FILES = {
    "/": ("dashboard.html", "text/html; charset=utf-8"),
    "/dashboard/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    "/dashboard/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
}
PATHS = tuple(_FILES)
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page(path: str) -> Response:
    """Answer a GET of one of the page's files; `PATHS` names them."""
    name, mime = _FILES[path]
    body = files("lerobot_wam.serving").joinpath(name).read_bytes()
    headers = {
        "Content-Type": mime,
        "Content-Length": str(len(body)),
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
        "Connection": "close",
    }
    return Response(HTTPStatus.OK, HTTPStatus.OK.phrase, Headers(headers), body)


async def feed(connection: ServerConnection, monitor: Monitor, authorized: Callable[[str], bool]) -> None:
    """Keep one viewer up to date for as long as it looks.

    Args:
        connection: An open websocket.
        monitor: What there is to see.
        authorized: Whether a token lets in; "" is the token of those who have none.
    """
    assert connection.request is not None
    try:
        if reason := _foreign(connection.request, open_to_all=authorized("")):
            return await connection.close(FOREIGN, reason)
        async with asyncio.timeout(PATIENCE_S):
            token = _said(await connection.recv(), "token")
        if not authorized(token):
            return await connection.close(UNAUTHORIZED, "wrong token" if token else "a token is needed")
        if monitor.viewers >= VIEWERS:
            return await connection.close(TOO_MANY, f"{VIEWERS} viewers look already")
        with monitor.viewing() as viewer:
            async with asyncio.TaskGroup() as both:
                both.create_task(_listen(connection, viewer))
                both.create_task(_show(connection, monitor, viewer))
    except* ConnectionClosed:
        pass
    except* ValueError as errors:
        await connection.close(CloseCode.POLICY_VIOLATION, str(errors.exceptions[0]))
    except* TimeoutError:
        await connection.close(TOO_SLOW, "this viewer is too slow")


async def _listen(connection: ServerConnection, viewer: Viewer) -> None:
    while True:
        viewer.chosen = _said(await connection.recv(), "show")


async def _show(connection: ServerConnection, monitor: Monitor, viewer: Viewer) -> None:
    """Send what is new. A slow viewer misses news, as nothing waits for it; one that stands still is dropped."""
    sent: dict[str, tuple[float, tuple[int, bool]]] = {}  # by robot: when, and which picture, large or not
    while True:
        began = time.monotonic()
        news = monitor.news(viewer)
        names = [robot["name"] for robot in news["robots"]]
        async with asyncio.timeout(PATIENCE_S):
            await connection.send(json.dumps({"type": "news"} | news, allow_nan=False))
            sent = {name: sent.get(name, (-math.inf, (0, False))) for name in names}
            for name, (when, last) in sent.items():
                large = name == viewer.shown
                number, picture, dream = monitor.pictures(name)
                if picture is None or (number, large) == last or (not large and began - when < THUMBNAIL_S):
                    continue
                width = WIDTH if large else THUMBNAIL_WIDTH
                message = {
                    "type": "picture",
                    "name": name,
                    "camera": await asyncio.to_thread(_encoded, picture, width),
                    "dream": await asyncio.to_thread(_encoded, dream, width) if large and dream is not None else None,
                }
                await connection.send(json.dumps(message))
                sent[name] = began, (number, large)
        await asyncio.sleep(TICK_S)


def _encoded(picture: np.ndarray, width: int) -> str:
    """A picture [H, W, 3] uint8, made smaller where it is wider than `width`, as a data: URI."""
    image = Image.fromarray(picture)
    image.thumbnail((width, picture.shape[0]))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _said(message: str | bytes, key: str) -> str:
    """The text under `key` of a viewer's message.

    Raises:
        ValueError: Any other message.
    """
    try:
        said = json.loads(message[:1000])[key]
    except (ValueError, TypeError, KeyError):
        said = None
    if not isinstance(said, str):
        raise ValueError(f'expected {{"{key}": text}}')
    return said


def _foreign(request: Request, open_to_all: bool) -> str | None:
    """Why a feed is refused to the website that asks for it; None where it is not.

    A browser connects wherever any website tells it to, so the page must come from this server. Without a token a name
    would not prove that: a website can make its own name point here.
    """
    origin, host = request.headers.get("Origin"), request.headers.get("Host", "")
    name = urlsplit(f"//{host}").hostname or ""
    if origin is not None and urlsplit(origin).netloc != host:
        return "only this server's own page may look"
    if open_to_all and name != "localhost" and not _is_address(name):
        return "without a token, use localhost or an IP address"
    return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
