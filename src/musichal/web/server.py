"""The page's process: it serves the page on one port and passes messages between it and the engine's process.

Run as ``python -m musichal.web.server HOST PORT``. The first line of its standard input holds the two tokens; every other is
a list of messages for the pages. It writes where it serves, and each command of a page, as a line of JSON. It ends when its
standard input ends.
"""

import asyncio
import contextlib
import functools
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from musichal.machine import own_output
from musichal.text import path_text, printable, reason, text_path
from musichal.web.guard import (
    LONGEST_PATH,
    PART_BYTES,
    Guard,
    Intake,
    RefusedError,
    Upload,
    byte_range,
    page_headers,
    wanted_moment,
    wanted_stretch,
)
from musichal.web.hub import Hub, Page

if TYPE_CHECKING:
    from musichal.web.sounds import Sounds

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_LARGEST_MESSAGE = 4096
_MOST_CONNECTIONS = 64
_LINES_AHEAD = 16
_NICENESS = 5
_ASK_S, _ANSWER_S = 5.0, 120.0  # so long may a request take to arrive; and its answer, such as the sound of a session
_WAIT_S, _LOOK_S = 5.0, 0.01
_BETWEEN_S = 0.03  # so long a page draws between two parts of what is long past
_ROLE = "musichal_role"
_UPLOAD = "upload"
_PART_S = 30.0  # so long may a part of a file take to come
_EXPORTED = {"midi": ("audio/midi", "mid"), "wav": ("audio/wav", "wav")}


def static_files() -> dict[str, tuple[str, bytes]]:
    """Return type and content of each file of the page, by name: what is not among them is not served."""
    found = {}
    for entry in files("musichal.web").joinpath("static").iterdir():
        suffix = os.path.splitext(entry.name)[1]  # noqa: PTH122 - a name, not a path
        if suffix in _TYPES:
            found[entry.name] = (f"{_TYPES[suffix]}; charset=utf-8", entry.read_bytes())
    return found


class Server:
    """Serves the page.

    * `tell`: Takes tables for the engine's process.
    """

    def __init__(self, tokens: tuple[str, str], host: str, port: int, tell: Callable[[Mapping[str, Any]], object]) -> None:
        self.hub = Hub(tell)
        self._sounds: asyncio.Future[Sounds] | None = None
        self._paths: Mapping[str, str] = {}
        self._takes: list[asyncio.Future[Sounds]] = []
        self._intake: Intake | None = None
        self._tokens, self._host, self._port = tokens, host, port
        self._guard: Guard
        self._files = static_files()
        self._tell = tell

    async def run(self, lines: asyncio.Queue[bytes]) -> None:
        """Serve until there are no more lines."""
        try:
            listening = await serve(
                self._socket,
                self._host,
                self._port,
                create_connection=_limited(_MOST_CONNECTIONS),
                process_request=self._request,
                max_size=_LARGEST_MESSAGE,
                max_queue=8,
                compression=None,
                open_timeout=_ANSWER_S,
                write_limit=1 << 16,
                server_header=None,
                backlog=128,
            )
        except (OSError, OverflowError) as error:
            why = reason(error) if isinstance(error, OSError) else "the port is out of range"
            self._tell({"refused": f"cannot serve the page on {self._host}, port {self._port}: {why}; name another --web-port"})
            return
        port = listening.sockets[0].getsockname()[1]
        self._guard = Guard(self._tokens, self._host, port)
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 - every address of this machine
        shown = f"[{shown}]" if ":" in shown else shown
        self._tell({"serving": [f"http://{shown}:{port}/{token}/" for token in self._tokens]})
        await self._pass_on(lines)

    async def _pass_on(self, lines: asyncio.Queue[bytes]) -> None:
        while line := await lines.get():
            messages = json.loads(line)
            for message in messages:
                self._open(message)
            until_s = time.monotonic() + _WAIT_S
            while self._waits_for_page and time.monotonic() < until_s:
                await asyncio.sleep(_LOOK_S)
            self.hub.spread(messages)

    def _open(self, message: dict[str, Any]) -> None:
        """Open the files that a message names; a page is not told where they are."""

        def opened(files: Mapping[str, str]) -> "asyncio.Future[Sounds]":
            return asyncio.get_running_loop().run_in_executor(None, _open_sounds, files)

        if message.get("k") == "hello":
            self._paths = message.pop("files", {})
            self._sounds = opened(self._paths)
            self._looking = asyncio.create_task(self._look_into_memory(self._sounds))
        elif message.get("k") == "compared":
            self._takes = [opened(files) for files in message.pop("files", [])]
        elif message.get("k") == "shelf" and (intake := message.pop("intake", None)) and self._intake is None:
            self._intake = Intake(text_path(intake["folder"]), is_fresh=intake["is_fresh"], suffixes=intake["suffixes"])

    @property
    def _waits_for_page(self) -> bool:
        """Return whether a page should catch up first: a session is there already, so its messages can wait."""
        return not self.hub.is_live and any(page.is_full for page in self.hub.pages.values())

    async def _look_into_memory(self, opening: "asyncio.Future[Sounds]") -> None:
        """Load the partner beside everything else, tell the pages what its memory looks like, and have the sound ready."""
        sounds = await opening
        message = await asyncio.get_running_loop().run_in_executor(None, sounds.memory)
        if message is not None and opening is self._sounds:
            self.hub.spread([message])
        if opening is self._sounds:
            await asyncio.get_running_loop().run_in_executor(None, sounds.prepare)

    async def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Return the answer to a request, None where it may open a socket."""
        hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
        path = urlsplit(request.path[:LONGEST_PATH])
        token, _, name = path.path.removeprefix("/").partition("/")
        role = self._guard.role(token)
        if role is None or len(request.path) > LONGEST_PATH or not self._guard.knows_host(hosts):
            return _answer(HTTPStatus.FORBIDDEN, "text/plain", b"forbidden\n")
        setattr(connection, _ROLE, role)
        headers = page_headers(hosts[0])
        if name in ("socket", _UPLOAD):
            may_send = name == "socket" or (role == "player" and self._intake is not None)
            if not (may_send and self._guard.knows_origin(origins, hosts)):
                return _answer(HTTPStatus.FORBIDDEN, "text/plain", b"forbidden\n")
            if name == _UPLOAD:
                connection.protocol.max_message_size = PART_BYTES
                setattr(connection, _ROLE, _UPLOAD)
            return None
        if name in ("sound", "whole", "export"):
            query, wanted = parse_qs(path.query), request.headers.get("Range")
            return await (self._export(query, headers) if name == "export" else self._sound(name, query, wanted, headers))
        kind, content = self._files.get(name or "index.html", ("", b""))
        if not kind:
            return _answer(HTTPStatus.NOT_FOUND, "text/plain", b"not found\n", headers)
        return _answer(HTTPStatus.OK, kind, content, headers)

    async def _sound(
        self, name: str, query: Mapping[str, list[str]], wanted: str | None, headers: Mapping[str, str]
    ) -> Response:
        moment = wanted_moment(query) if name == "sound" else None
        opening, take = self._sounds, query.get("take", [""])[0]
        if name == "whole" and take:
            opening = self._takes[int(take)] if take in ("0", "1") and len(self._takes) == 2 else None
        elif not (moment if name == "sound" else "session" in self._paths):
            opening = None
        if opening is None:
            return _answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such sound\n", headers)
        sounds = await asyncio.shield(opening)
        make = sounds.whole if moment is None else functools.partial(sounds.moment, *moment)
        content = await asyncio.get_running_loop().run_in_executor(None, make)
        if content is None:
            return _answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such sound\n", headers)
        headers = {**headers, "Accept-Ranges": "bytes"}
        kind = "audio/flac" if content[:4] == b"fLaC" else "audio/wav"
        part = byte_range(wanted, len(content))
        if part is None:
            return _answer(HTTPStatus.OK, kind, content, headers)
        first, end = part
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(content)}"
        return _answer(HTTPStatus.PARTIAL_CONTENT, kind, content[first:end], headers)

    async def _export(self, query: Mapping[str, list[str]], headers: Mapping[str, str]) -> Response:
        """Return a stretch of a session as a file to keep: ``kind`` is midi or wav."""
        stretch, kind = wanted_stretch(query), query.get("kind", [""])[0]
        content = None
        if self._sounds is not None and stretch is not None and kind in _EXPORTED and "session" in self._paths:
            sounds = await asyncio.shield(self._sounds)
            content = await asyncio.get_running_loop().run_in_executor(None, sounds.exported, kind, *stretch)
        if content is None or stretch is None:
            return _answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is nothing to export\n", headers)
        media, suffix = _EXPORTED[kind]
        named = {"Content-Disposition": f'attachment; filename="musichal-{stretch[0]:.1f}-{stretch[1]:.1f}s.{suffix}"'}
        return _answer(HTTPStatus.OK, media, content, {**headers, **named})

    async def _take_file(self, connection: ServerConnection, intake: Intake) -> None:
        """Take one file that is dropped on a page, and say what became of it; one that does not come whole leaves nothing."""
        upload: Upload | None = None
        try:
            upload = intake.begin(await asyncio.wait_for(connection.recv(), _ASK_S))
            while True:
                part = await asyncio.wait_for(connection.recv(), _PART_S)
                if not isinstance(part, bytes):
                    raise RefusedError("a file is sent as bytes")
                if upload.write(part):
                    break
            kept, upload = upload.keep(), None
            self._tell({"received": path_text(kept)})
            await connection.send(json.dumps({"kept": printable(kept.name)}))
        except (RefusedError, OSError) as error:
            text = str(error) if isinstance(error, RefusedError) else f"it cannot be written: {reason(error)}"
            await connection.send(json.dumps({"refused": text}))
        finally:
            if upload is not None:
                intake.drop(upload)

    async def _socket(self, connection: ServerConnection) -> None:
        """Pass messages to a page, and its commands to the engine."""
        if getattr(connection, _ROLE, "") == _UPLOAD:
            with contextlib.suppress(TimeoutError, ConnectionClosed):
                assert self._intake is not None
                await self._take_file(connection, self._intake)
            return
        page = self.hub.open(may_play=getattr(connection, _ROLE, "") == "player")
        if page is None:
            await connection.close(1013, "too many pages are open")
            return
        sending = None
        try:
            sending = asyncio.create_task(_send(connection, self.hub, page))
            async for text in connection:
                self.hub.take(page, text, time.monotonic())
        finally:
            self.hub.close(page)
            if sending is not None:
                sending.cancel()


async def _send(connection: ServerConnection, hub: Hub, page: Page) -> None:
    """Send a page the past, then what waits; a page that does not read makes only its own queue wait.

    What is long past goes in between, as slowly as the page can take it in beside its drawing.
    """
    you = f'[{{"k":"you","page":{page.number},"may_play":{str(page.may_play).lower()}}}]'
    later: deque[str] = deque()
    with contextlib.suppress(Exception):
        while True:
            if page.is_behind:
                page.is_behind = False
                first, rest = hub.past()
                later = deque(rest)
                for part in [you, *first]:
                    await connection.send(part)
            page.wake.clear()
            while (page.waiting or later) and not page.is_behind:
                if page.waiting:
                    await connection.send(page.next())
                else:
                    await asyncio.sleep(_BETWEEN_S)
                    await connection.send(later.popleft())
            if not page.is_behind:
                await page.wake.wait()


def _open_sounds(paths: Mapping[str, str]) -> "Sounds":
    """Return the sounds of files; what reads them takes longer to import than the page should wait."""
    from musichal.web.sounds import Sounds

    return Sounds(paths)


def _limited(most: int) -> type[ServerConnection]:
    """Return connections of which no more than so many are open, and none for long that does not ask with a token."""
    there: set[int] = set()

    class Limited(ServerConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            there.add(id(self))
            super().connection_made(transport)
            if len(there) > most:
                self.transport.abort()
            asyncio.get_running_loop().call_later(_ASK_S, self._end_if_idle)

        def _end_if_idle(self) -> None:
            if not hasattr(self, _ROLE):
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            there.discard(id(self))
            super().connection_lost(exc)

    return Limited


def _answer(status: HTTPStatus, kind: str, content: bytes, headers: Mapping[str, str] | None = None) -> Response:
    values = {**(headers or page_headers("")), "Content-Type": kind, "Content-Length": str(len(content)), "Connection": "close"}
    return Response(status.value, status.phrase, Headers(values), content)


def _read_lines(lines: asyncio.Queue[bytes], loop: asyncio.AbstractEventLoop) -> None:
    """Put the lines of standard input into a queue, on a thread of its own; while it is full, the engine's side waits."""

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            for line in sys.stdin.buffer:
                asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()
            asyncio.run_coroutine_threadsafe(lines.put(b""), loop).result()

    threading.Thread(target=read, daemon=True).start()


def main(host: str, port: int) -> None:
    """Serve until standard input ends."""
    output = own_output(buffering=0)
    logging.getLogger("websockets").disabled = True
    with contextlib.suppress(OSError, AttributeError):
        os.nice(_NICENESS)

    def tell(values: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            output.write(json.dumps(values).encode() + b"\n")

    async def run() -> None:
        tokens = json.loads(sys.stdin.buffer.readline())
        lines: asyncio.Queue[bytes] = asyncio.Queue(_LINES_AHEAD)
        _read_lines(lines, asyncio.get_running_loop())
        await Server((tokens[0], tokens[1]), host, port, tell).run(lines)
        os._exit(0)  # whatever a thread or a page still does

    asyncio.run(run())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
