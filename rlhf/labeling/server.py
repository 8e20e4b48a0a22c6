"""The page over HTTP, for those who have the token.

The address that the terminal prints holds the token; the page gets it as a cookie that no script and no other site can
use. A request must name this machine (against DNS rebinding), a change must come from the page itself (against forged
requests), and the page loads and runs nothing but its own files (Content-Security-Policy), whatever a model wrote.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import json
import os
import secrets
import socket
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlhf.errors import UserError
from rlhf.labeling.judgements import InvalidError
from rlhf.labeling.session import Session
from rlhf.labeling.store import JudgedError

PAGE = Path(__file__).parent / "page"
MOST_BYTES = 64 * 1024  # of a request; a judgement of 9 responses with everything ticked is 4 kB
_COOKIE_S = 30 * 24 * 3600
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_LEAST_TOKEN = 20  # characters of one that can be meant


def kept_token(path: Path) -> str:
    """The token in the file, made where there is none; a page that is open stays open when the server starts again.

    A file that a full disk or a crash has left empty or short holds none: it would let everybody in.
    """
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
        kept = path.read_text(encoding="ascii").strip()
        if len(kept) >= _LEAST_TOKEN:
            return kept
    token = secrets.token_urlsafe(32)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    return token


def listen(host: str, port: int) -> socket.socket:
    """A socket that is listening. Raises UserError where it cannot."""
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(
            f"label.host={host} label.port={port} cannot be listened on ({error.strerror or error}); set label.port to "
            "another, or to 0 for any that is free."
        ) from None
    return listening


def address(host: str, port: int, token: str) -> str:
    """What to open, from this machine or, where the host stands for all its addresses, from others by its name."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/?token={token}"


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def application(session: Session, token: str, *, host: str, port: int) -> ASGIApp:
    """The page and what it calls, behind the `Guard`."""

    async def page(request: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    def reading(answer: Callable[[], dict[str, Any]]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            return JSONResponse(await run_in_threadpool(answer))

        return endpoint

    def changing(answer: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            try:
                return JSONResponse(await run_in_threadpool(answer, await _body(request)))
            except InvalidError as error:
                return _refusal(422, str(error))
            except JudgedError:
                return _refusal(409, "You have judged this prompt already, in another window; that judgement stands.")
            except sqlite3.Error as error:
                return _refusal(503, f"It could not be saved ({error}).")
            except ClientDisconnect:
                return _refusal(400, "The request broke off.")

        return endpoint

    routes = [
        Route("/", page),
        Mount("/static", StaticFiles(directory=PAGE)),
        Route("/api/session", reading(session.describe)),
        Route("/api/progress", reading(session.progress)),
        Route("/api/next", changing(session.next), methods=["POST"]),
        Route("/api/judge", changing(session.judge), methods=["POST"]),
        Route("/api/undo", changing(session.undo), methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes), token, host=host, cookie=f"rlhf_label_{port}")


class Guard:
    """Lets a request through that names this machine, holds the token and, where it changes something, is the page's.

    cookie: its name; cookies are shared by a host's ports, so the port is part of it.
    """

    def __init__(self, app: ASGIApp, token: str, *, host: str, cookie: str) -> None:
        assert token, "an empty one would let everybody in"
        self._app = app
        self._token = token.encode()
        self._hosts = {host.lower(), "localhost", socket.gethostname().lower()}
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refusal = self._refused(request)
        holds_token = self._is_token(request.query_params.get("token"))

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if holds_token and refusal is None:
                    headers.append(
                        "Set-Cookie",
                        f"{self._cookie}={self._token.decode()}; HttpOnly; SameSite=Strict; Path=/; "
                        f"Max-Age={_COOKIE_S}",
                    )
            await send(message)

        await (refusal or self._app)(scope, receive, send_guarded)

    def _refused(self, request: Request) -> Response | None:
        name = _host_name(request.headers.get("host", ""))
        if not (name in self._hosts or _is_address(name)):  # an address cannot be rebound, a name of others' can
            return _refusal(421, "This server does not go by that name; open the address that its terminal printed.")
        if not (self._is_token(request.cookies.get(self._cookie)) or self._is_token(request.query_params.get("token"))):
            text = "Open the address that the terminal printed, with its token.\n"
            return PlainTextResponse(text, 403) if request.url.path == "/" else _refusal(403, text.strip())
        if request.method not in ("GET", "HEAD"):
            origin = urlsplit(request.headers.get("origin", ""))
            if origin.netloc != request.headers.get("host"):
                return _refusal(403, "Only this server's own page may send that.")
            if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                return _refusal(415, "Only application/json is read.")
        return None

    def _is_token(self, given: str | None) -> bool:
        return given is not None and hmac.compare_digest(given.encode(), self._token)


async def _body(request: Request) -> Mapping[str, Any]:
    """The request's JSON object. Raises InvalidError for another body, and for one of more than MOST_BYTES."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MOST_BYTES:
            raise InvalidError(f"The request has more than {MOST_BYTES} bytes.")
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidError("The request is no JSON.") from None
    if not isinstance(values, Mapping):
        raise InvalidError("The request is no JSON object.")
    return values


def _refusal(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status)


def _host_name(host: str) -> str:
    """Of a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
