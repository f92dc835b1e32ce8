"""A language model on loopback that speaks OpenAI's chat completions: it answers what a test wants it to."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NAME = "nano-llm"


@dataclass(frozen=True)
class Question:
    headers: dict[str, str]  # with small letters
    body: dict[str, Any]

    @property
    def lines(self) -> list[str]:
        """Of the numbered lines, what stands after the number."""
        return re.findall(r"^\[\d+\] (.*)$", self.body["messages"][-1]["content"], re.MULTILINE)


def shouted(question: Question) -> str:
    """Each line in capitals and with an exclamation mark: the same words, and plainly not as they were heard."""
    said = (f"[{number}] {line.upper().rstrip('.!')}!" for number, line in enumerate(question.lines, start=1))
    return "\n".join(said)


@dataclass(frozen=True)
class Refusal:
    """An answer that is none."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()


Answer = Callable[[Question], str] | Refusal


class ChatServer:
    """What it was asked, and what it answers: `answers` one after the other, then `otherwise`."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.answers: list[Answer] = []
        self.otherwise: Answer = shouted
        self.refuses: tuple[str, ...] = ()  # parameters, as OpenAI's reasoning models do
        self.goes_on = threading.Event()  # cleared: it takes a question and says nothing
        self.goes_on.set()
        self.at_once = self.most_at_once = 0
        self.drips = False  # a byte at a time, for ever
        self.is_gone = threading.Event()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Its address, as LLM_BASE_URL has it."""
        handler = type("ThisChatServer", (_Handler,), {"chat": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            self.is_gone.set()
            self.goes_on.set()
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    chat: ChatServer

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._say({"object": "list", "data": [{"id": NAME, "object": "model"}]})
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        if self.path != "/v1/chat/completions":
            self.send_error(404)
            return
        chat, headers = self.chat, {name.lower(): value for name, value in self.headers.items()}
        question = Question(headers, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        chat.asked.append(question)
        answer = chat.answers.pop(0) if chat.answers else chat.otherwise
        if set(chat.refuses) & question.body.keys():
            answer = Refusal(400)
        chat.at_once += 1
        chat.most_at_once = max(chat.most_at_once, chat.at_once)
        chat.goes_on.wait(60)
        chat.at_once -= 1
        with suppress(OSError):  # who asked has gone
            self._answer(answer, question)

    def _answer(self, answer: Answer, question: Question) -> None:
        if isinstance(answer, Refusal):
            self.send_response(answer.status)
            for name, value in (*answer.headers, ("Content-Length", "0")):
                self.send_header(name, value)
            self.end_headers()
        elif self.chat.drips:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not self.chat.is_gone.wait(0.05):
                self.wfile.write(b"x")
        else:
            message = {"role": "assistant", "content": answer(question)}
            self._say({"object": "chat.completion", "choices": [{"index": 0, "message": message}]})

    def _say(self, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()

    def log_message(self, *_: object) -> None:
        pass
