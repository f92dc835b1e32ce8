"""A program on loopback that gets webhooks: it takes them, refuses them, sends them elsewhere, or hangs."""

import base64
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Message:
    path: str
    headers: dict[str, str]  # with small letters
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.body)
        return told

    def is_signed_with(self, secret: str) -> bool:
        """Written from the specification, apart from the code that signs."""
        key = base64.b64decode(secret.split("_", 1)[1])
        signed = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return f"v1,{expected}" in self.headers["webhook-signature"].split(" ")


class Receiver:
    """What it got, and what it answers: `answers` one after the other, then 204."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.answers: list[int] = []
        self.goes_on = threading.Event()  # cleared: it takes a message and says nothing
        self.goes_on.set()
        self.drips = False  # it answers a byte at a time, for ever
        self.is_gone = threading.Event()

    @contextmanager
    def serving(self, certificate: str = "") -> Iterator[str]:
        """Its address; with a certificate (a file with its key) it speaks TLS."""
        handler = type("ThisReceiver", (_Handler,), {"receiver": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"http{'s' * bool(certificate)}://127.0.0.1:{server.server_port}/hook"
        finally:
            self.is_gone.set()
            self.goes_on.set()
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answers = self.receiver.answers
        status = answers.pop(0) if answers else 204
        self.receiver.got.append(Message(self.path, headers, body))
        self.receiver.goes_on.wait(60)
        with suppress(OSError):
            if self.receiver.drips:
                self._drip()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _drip(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not self.receiver.is_gone.wait(0.05):
            self.wfile.write(b"x")

    def handle(self) -> None:
        with suppress(OSError):  # who asked has gone, or did not like the certificate
            super().handle()

    def log_message(self, *_: object) -> None:
        pass
