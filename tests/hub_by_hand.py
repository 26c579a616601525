"""A hub on this machine: the part of the Hugging Face hub's HTTP interface that fetching a checkpoint uses."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "12af15fef9d0ac838c3f475bfbbf26d2060dd4f5"


@dataclass
class HubByHand:
    """One repository in one commit, what was asked of it, and how often answers above a size break off half-way."""

    name: str
    files: dict[str, bytes]
    commit: str = COMMIT
    break_off: int = 0
    break_above: int = 1 << 30
    status: int = 200
    error_code: str = ""
    url: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def fetched(self) -> list[str]:
        """Return the files whose content was asked for, in order."""
        return [path.rpartition("/")[2] for method, path, _ in self.asked if method == "GET" and "/resolve/" in path]


@contextmanager
def serve(hub: HubByHand) -> Iterator[HubByHand]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            hub.asked.append((self.command, self.path, self.headers.get("Range", "")))
            if hub.status != 200:
                return self._send(hub.status, {"X-Error-Code": hub.error_code}, b"", with_body)
            path = self.path.split("?")[0]
            if re.fullmatch(rf"/api/models/{hub.name}(/revision/[^/]+)?", path):
                if "/revision/" in path and path.rpartition("/")[2] not in ("main", hub.commit):
                    return self._send(404, {"X-Error-Code": "RevisionNotFound"}, b"", with_body)
                siblings = [{"rfilename": name} for name in hub.files]
                body = json.dumps({"id": hub.name, "sha": hub.commit, "siblings": siblings}).encode()
                return self._send(200, {"Content-Type": "application/json"}, body, with_body)
            match = re.fullmatch(rf"/{hub.name}/resolve/([^/]+)/(.+)", path)
            if match is None:
                return self._send(404, {"X-Error-Code": "RepoNotFound"}, b"", with_body)
            content = hub.files.get(match[2])
            if match[1] not in ("main", hub.commit) or content is None:
                code = "EntryNotFound" if content is None else "RevisionNotFound"
                return self._send(404, {"X-Error-Code": code}, b"", with_body)
            headers = {
                "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Repo-Commit": hub.commit,
                "Accept-Ranges": "bytes",
            }
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(wanted[1]) if wanted else 0
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            broken = with_body and hub.break_off > 0 and len(content) > hub.break_above
            self._send(206 if start else 200, headers, content[start:], with_body, half=broken)
            hub.break_off -= broken
            return None

        def _send(self, status: int, headers: dict[str, str], body: bytes, with_body: bool, *, half: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body[: len(body) // 2] if half else body)
            if half:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
