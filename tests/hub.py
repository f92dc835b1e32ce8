"""A small model hub on loopback: it answers as the real one does, and can be slow, break off, fall silent, or lie."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories with their files. Large ones are somewhere else, as on the real hub: the answer leads there."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}  # "owner/repository/name": content
        self.large = ("model.bin", "weights.safetensors")
        self.bytes_a_second = 0  # 0: as fast as it goes
        self.breaks_after = 0  # bytes of each answer; 0: never
        self.is_silent = False
        self.tells_sums = True
        self.asked: list[tuple[str, int]] = []  # what was begun to be sent: name, from which byte
        self.sent = 0  # bytes of files

    def put(self, repository: str, files: dict[str, bytes]) -> None:
        self.files |= {f"{repository}/{name}": content for name, content in files.items()}

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Its address."""
        handler = type("ThisHub", (_Handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(is_head=True)

    def do_GET(self) -> None:
        self._answer(is_head=False)

    def _answer(self, *, is_head: bool) -> None:
        while self.hub.is_silent:
            time.sleep(0.1)
        place = re.fullmatch(r"/(?:cdn/)?([^/]+/[^/]+)/resolve/([^/]+)/([^/?]+)", self.path)
        content = self.hub.files.get(f"{place[1]}/{place[3]}") if place else None
        if place is None or content is None or place[2] not in (COMMIT, "main"):
            self._head(404, {"X-Error-Code": "EntryNotFound", "Content-Length": "0"})
        elif place[3] in self.hub.large and not self.path.startswith("/cdn/"):
            elsewhere = (
                f"http://localhost:{self.connection.getsockname()[1]}/cdn{self.path}"  # another host by its name
            )
            linked = {"X-Linked-Size": str(len(content)), "Location": elsewhere, "Content-Length": "0"}
            sums = {"X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"'} if self.hub.tells_sums else {}
            self._head(302, linked | sums)
        else:
            self._send(place[3], content, is_head=is_head)

    def _send(self, name: str, content: bytes, *, is_head: bool) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        part = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if wanted else {}
        self._head(206 if wanted else 200, {"Content-Length": str(len(content) - start)} | part, content)
        if is_head:
            return
        self.hub.asked.append((name, start))
        for at in range(start, len(content), 16384):
            if self.hub.breaks_after and at - start >= self.hub.breaks_after:
                self.close_connection = True
                return
            self.wfile.write(content[at : at + 16384])
            self.hub.sent += len(content[at : at + 16384])
            if self.hub.bytes_a_second:
                time.sleep(16384 / self.hub.bytes_a_second)

    def _head(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def handle(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # who asked was stopped
            super().handle()

    def log_message(self, *args: object) -> None:
        pass
