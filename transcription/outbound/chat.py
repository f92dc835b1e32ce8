"""Asks a language model: one POST to an OpenAI-compatible chat endpoint, and the text of its answer.

The address is the administrator's (`LLM_BASE_URL`), so it may be a private one; no redirect is followed and no proxy
asked. An exchange ends within one deadline, of its answer so much is read and no more, and while it lasts `beat` is
called each second: whoever waits may renew a lease there, or raise to wait no longer. What a server says when it fails
is kept nowhere: it may repeat our key.
"""

import contextlib
import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from django.conf import settings

from transcription.outbound.addresses import Address
from transcription.outbound.connection import DeadlineSocket

MOST_OF_AN_ANSWER = 256 * 1024  # bytes
MOST_TOKENS = 4096  # of an answer, what a model thinks by itself before it included
TRIES = 3
LONGEST_PAUSE = 60.0  # seconds, whatever Retry-After says
CONNECT_SECONDS = 5.0  # for each address of the name; looking it up has the system's own limits
BEAT_SECONDS = 1.0
THOUGHT = re.compile(r"^.*</think>", re.DOTALL)


class Unanswered(Exception):
    """The language model's server gave no answer; what it says is for the log."""


class _Failed(Exception):
    """One try failed; another may not, after so many seconds."""

    def __init__(self, message: str, pause: float | None = None) -> None:
        super().__init__(message)
        self.pause = pause


@dataclass
class Chat:
    """A language model that can be asked. What `beat` raises ends the asking."""

    address: Address
    key: str = field(repr=False)
    model: str  # empty: what the server has loaded
    seconds: float  # that one answer may take
    beat: Callable[[], None]
    is_plain: bool = False  # whether it takes neither `temperature` nor `max_tokens`, as OpenAI's reasoning models

    def ask(self, system: str, user: str) -> str:
        """What the model answers; nothing when that is too long, or not what this protocol says. Raises Unanswered."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        for tried in range(1, TRIES + 1):
            try:
                return _content(self._completed(messages))
            except _Failed as failure:
                if tried == TRIES:
                    raise Unanswered(str(failure)) from failure
                self._wait(min(LONGEST_PAUSE, 2.0 ** (tried - 1) if failure.pause is None else failure.pause))
        raise AssertionError  # the last try returns or raises

    def models(self) -> list[str]:
        """The names of the models that the server has. Raises Unanswered."""
        try:
            status, body = self._exchange("GET", "/models", None)
            if status == 200:
                return [str(model["id"]) for model in json.loads(body)["data"]]
        except _Failed as failure:
            raise Unanswered(str(failure)) from failure
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Unanswered("it is no OpenAI-compatible server") from error
        raise Unanswered(_refusal(status))

    def _completed(self, messages: list[dict[str, str]]) -> bytes:
        status, body = self._exchange("POST", "/chat/completions", self._request(messages))
        if status in (400, 422) and not self.is_plain:
            self.is_plain = True
            status, body = self._exchange("POST", "/chat/completions", self._request(messages))
        if status != 200:
            raise Unanswered(_refusal(status))
        return body

    def _request(self, messages: list[dict[str, str]]) -> bytes:
        limits: dict[str, object] = {"temperature": 0, "max_tokens": MOST_TOKENS}
        if self.is_plain:
            limits = {"max_completion_tokens": MOST_TOKENS}
        named = {"model": self.model} if self.model else {}
        return json.dumps({**named, "messages": messages, "stream": False, **limits}).encode()

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        """The status and the body of an answer. Raises _Failed when asking again may help."""
        clock = _Clock(self.seconds, self.beat)
        try:
            with _connect(self.address, clock) as plain, _secure(plain, self.address) as connected:
                asking = http.client.HTTPConnection(self.address.host, self.address.port)
                asking.sock = DeadlineSocket(connected, clock.left, sending=CONNECT_SECONDS, is_patient=True)
                asking.request(method, f"{self.address.path.rstrip('/')}{path}", body, self._headers())
                with asking.getresponse() as answer:
                    if answer.status == 429 or answer.status >= 500:
                        raise _Failed(_refusal(answer.status), _seconds(answer.headers.get("Retry-After")))
                    return answer.status, answer.read(MOST_OF_AN_ANSWER + 1)
        except TimeoutError as error:
            raise _Failed(f"there was no answer within {self.seconds:g} s") from error
        except OSError as error:
            raise _Failed(f"it cannot be reached ({error.strerror or type(error).__name__})") from error
        except http.client.HTTPException as error:
            raise _Failed("what answers does not speak HTTP") from error

    def _headers(self) -> dict[str, str]:
        admission = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        told = {"Host": self.address.authority, "Connection": "close", "Content-Type": "application/json"}
        return {**told, "Accept": "application/json", **admission}

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(BEAT_SECONDS, left))
            self.beat()


def configured(beat: Callable[[], None], *, seconds: float | None = None) -> Chat:
    """The language model that the settings name. Only where LLM_BASE_URL is set."""
    return Chat(
        address=Address.read(settings.LLM_BASE_URL),
        key=settings.LLM_API_KEY,
        model=settings.LLM_MODEL,
        seconds=settings.LLM_TIMEOUT_SECONDS if seconds is None else seconds,
        beat=beat,
    )


def _refusal(status: int) -> str:
    return f"it answered with status {status}"


def _seconds(retry_after: str | None) -> float | None:
    """How long to wait; None when it is not said in seconds."""
    return float(retry_after) if retry_after and retry_after.isdecimal() else None


def _content(body: bytes) -> str:
    if len(body) > MOST_OF_AN_ANSWER:
        return ""
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return ""
    return THOUGHT.sub("", content) if isinstance(content, str) else ""


# ------------------------------------------------------------------ a connection that ends in time


class _Clock:
    """The time that an exchange may take, and its beat."""

    def __init__(self, seconds: float, beat: Callable[[], None]) -> None:
        self.until = time.monotonic() + seconds
        self.beat = beat
        self.beaten = time.monotonic()

    def left(self) -> float:
        """Seconds until the next beat or the end. Raises TimeoutError at the end, and what the beat raises."""
        now = time.monotonic()
        if now >= self.until:
            raise TimeoutError
        if now - self.beaten >= BEAT_SECONDS:
            self.beaten = now
            self.beat()
        return min(BEAT_SECONDS, self.until - now)


def _connect(address: Address, clock: _Clock) -> socket.socket:
    clock.left()
    return socket.create_connection((address.host, address.port), timeout=CONNECT_SECONDS)


def _secure(plain: socket.socket, address: Address) -> contextlib.AbstractContextManager[socket.socket]:
    if address.scheme == "http":
        return contextlib.nullcontext(plain)
    return ssl.create_default_context().wrap_socket(plain, server_hostname=address.host)
