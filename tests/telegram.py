"""Telegram's servers on loopback, as far as a bot sees them: news, files and what it sends.

Methods and answers as in https://core.telegram.org/bots/api: getUpdates, getFile, sendMessage.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "123456:test"
LARGEST = 20 * 1024**2
POLL_SECONDS = 1.0  # a question for news is answered after this even when there are none


class Telegram:
    """What people send to a bot, and what it sends to them."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[str, bytes]] = {}
        self.waiting: list[dict[str, Any]] = []  # updates that the bot has not confirmed
        self.sent: list[tuple[int, str]] = []  # (chat, text)
        self.has_news = threading.Condition()
        self.count = 0
        self.file_asked_for = ""
        self.gives_files = threading.Event()  # cleared: a file that is asked for does not come
        self.gives_files.set()

    def say(self, chat: int, **content: Any) -> None:
        """Somebody writes to the bot."""
        with self.has_news:
            self.count += 1
            message = {"message_id": self.count, "chat": {"id": chat, "type": "private"}, **content}
            self.waiting.append({"update_id": 7000 + self.count, "message": message})
            self.has_news.notify_all()

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """Somebody's file, as a message describes it."""
        file_id = f"file{len(self.files)}"
        self.files[file_id] = (f"voice/{name}", content)
        unique = hashlib.sha256(content).hexdigest()[:16]  # the same for the same file, whoever sends it
        return {"file_id": file_id, "file_unique_id": unique, "file_size": len(content), "duration": 2}

    def answer(self, method: str, fields: dict[str, Any]) -> Any:
        """The result of a method. Raises ValueError with Telegram's description of what is wrong."""
        if method == "getUpdates":
            return self._news(int(fields.get("offset", 0)))
        if method == "getFile":
            self.file_asked_for = fields["file_id"]
            self.gives_files.wait(60)
            path, content = self.files[fields["file_id"]]
            if len(content) > LARGEST:
                raise ValueError("Bad Request: file is too big")
            return {"file_id": fields["file_id"], "file_path": path}
        assert method == "sendMessage", method
        if len(fields["text"]) > 4096 or not fields["text"]:
            raise ValueError("Bad Request: message is too long")
        self.sent.append((fields["chat_id"], fields["text"]))
        return {"message_id": 1}

    def _news(self, offset: int) -> list[dict[str, Any]]:
        with self.has_news:
            self.waiting = [update for update in self.waiting if update["update_id"] >= offset]
            if not self.waiting:
                self.has_news.wait(POLL_SECONDS)
            return list(self.waiting)

    @contextmanager
    def serving(self) -> Iterator[str]:
        handler = type("ThisTelegram", (_Handler,), {"telegram": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    telegram: Telegram

    def do_POST(self) -> None:
        fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        bot, _slash, method = self.path.lstrip("/").partition("/")
        if bot != f"bot{TOKEN}":
            return self._send(401, {"ok": False, "error_code": 401, "description": "Unauthorized"})
        try:
            return self._send(200, {"ok": True, "result": self.telegram.answer(method, fields)})
        except ValueError as error:
            return self._send(400, {"ok": False, "error_code": 400, "description": str(error)})

    def do_GET(self) -> None:
        _empty, kind, bot, path = self.path.split("/", 3)
        assert (kind, bot) == ("file", f"bot{TOKEN}")
        self._send(200, next(content for name, content in self.telegram.files.values() if name == path))

    def _send(self, status: int, body: dict[str, Any] | bytes) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        with suppress(OSError):  # the bot was killed
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass
