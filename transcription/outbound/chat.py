"""Asks a language model: one POST to an OpenAI-compatible chat endpoint, and the text of its answer.

The address is the administrator's (`LLM_BASE_URL`), so it may be a private one; redirects are not followed and proxies
are not used. An exchange ends within one deadline and its answer is read up to a limit. Meanwhile `beat` is called each
second: the caller may renew a lease there, or raise to stop waiting. The text of a server's error is not stored: it may
repeat our key.
"""

import http.client
import json
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from django.conf import settings

from transcription.outbound import connection
from transcription.outbound.addresses import Address

MOST_OF_AN_ANSWER = 256 * 1024  # bytes
MOST_TOKENS = 4096  # of an answer, including a model's reasoning before it
TRIES = 3
LONGEST_PAUSE = 60.0  # seconds, whatever Retry-After says
STEP_SECONDS = (
    5.0  # to connect to each place, for the TLS handshake, to send; looking up a name has the system's limits
)
BEAT_SECONDS = 1.0
THOUGHT = re.compile(r"^.*</think>", re.DOTALL)


class Unanswered(Exception):
    """The language model's server gave no answer; the message is for the log."""


class _Failed(Exception):
    """One try failed; another may succeed after `pause` seconds, or after the usual pause."""

    def __init__(self, message: str, pause: float | None = None) -> None:
        super().__init__(message)
        self.pause = pause


@dataclass
class Chat:
    """A language model's server. What `beat` raises passes through."""

    address: Address
    key: str = field(repr=False)
    model: str  # empty: what the server has loaded
    seconds: float  # that one answer may take
    beat: Callable[[], None]
    is_plain: bool = False  # True for those that refuse `temperature` and `max_tokens`: OpenAI's reasoning models

    def ask(self, system: str, user: str) -> str:
        """Return the model's answer; empty if it is too long or not in the protocol's form. Raises Unanswered."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        for attempt in range(1, TRIES + 1):
            try:
                return _content(self._complete(messages))
            except _Failed as failure:
                if attempt == TRIES:
                    raise Unanswered(str(failure)) from failure
                self._wait(min(LONGEST_PAUSE, 2.0 ** (attempt - 1) if failure.pause is None else failure.pause))
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

    def _complete(self, messages: list[dict[str, str]]) -> bytes:
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
        model = {"model": self.model} if self.model else {}
        return json.dumps({**model, "messages": messages, "stream": False, **limits}).encode()

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        """The status and the body of an answer. Raises _Failed when asking again may help."""
        address = replace(self.address, path=f"{self.address.path.rstrip('/')}{path}")
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        left = _Deadline(self.seconds, self.beat).left
        try:
            places = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            with connection.request(
                method, address, body, headers, places=places, left=left, step_seconds=STEP_SECONDS
            ) as answer:
                if answer.status == 429 or answer.status >= 500:
                    raise _Failed(_refusal(answer.status), _seconds(answer.headers.get("Retry-After")))
                return answer.status, answer.read(MOST_OF_AN_ANSWER + 1)
        except TimeoutError as error:
            raise _Failed(f"there was no answer within {self.seconds:g} s") from error
        except OSError as error:
            raise _Failed(f"it cannot be reached ({error.strerror or type(error).__name__})") from error
        except http.client.HTTPException as error:
            raise _Failed("what answers does not speak HTTP") from error

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(BEAT_SECONDS, left))
            self.beat()


def configured(beat: Callable[[], None], *, seconds: float | None = None) -> Chat:
    """The language model that the settings name; only to be called where LLM_BASE_URL is set."""
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
    """The seconds of a Retry-After header; None if it is missing or a date."""
    return float(retry_after) if retry_after and retry_after.isdecimal() else None


def _content(body: bytes) -> str:
    """The text of an answer's message, without what the model thought before it."""
    if len(body) > MOST_OF_AN_ANSWER:
        return ""
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return ""
    return THOUGHT.sub("", content) if isinstance(content, str) else ""


class _Deadline:
    """The end of an exchange, and its beat."""

    def __init__(self, seconds: float, beat: Callable[[], None]) -> None:
        self.until = time.monotonic() + seconds
        self.beat = beat
        self.last_beat = time.monotonic()

    def left(self) -> float:
        """Seconds until the next beat or the end. Raises TimeoutError at the end, and what the beat raises."""
        now = time.monotonic()
        if now >= self.until:
            raise TimeoutError
        if now - self.last_beat >= BEAT_SECONDS:
            self.last_beat = now
            self.beat()
        return min(BEAT_SECONDS, self.until - now)
