"""Sends recordings to a running server at each endpoint, and compares what comes back with what is said in them."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from tests.server import Server, wait_until
from transcription.whisper.options import LANGUAGES

BOUNDARY = "stenograf-benchmark"
CODES = {name.lower(): code for code, name in LANGUAGES.items()}
SECONDS = 600  # the longest that an answer may take


@dataclass(frozen=True)
class Cue:
    """A segment of an answer. Times in seconds; no language and no channel where the answer names none."""

    start: float
    end: float
    text: str
    language: str = ""
    channel: int = 0
    words: tuple[tuple[float, float], ...] = ()

    @classmethod
    def from_json(cls, segment: dict[str, Any]) -> Self:
        words = tuple((word["start"], word["end"]) for word in segment.get("words") or ())
        language, channel = segment.get("language") or "", segment.get("channel") or 0
        return cls(segment["start"], segment["end"], segment["text"].strip(), language, channel, words)


@dataclass(frozen=True)
class Answer:
    """What came back: cues, a language and warnings; or an error, its code and sentence."""

    cues: tuple[Cue, ...] = ()
    language: str = ""
    warnings: tuple[str, ...] = ()
    has_words: bool = False  # whether it has the times of words
    error: str = ""
    job: str = ""

    @property
    def text(self) -> str:
        return " ".join(cue.text for cue in self.cues)


@dataclass(frozen=True)
class Request:
    """A recording, and how a client sends it. `filename` may be any bytes, or None for a part without a name."""

    content: bytes
    filename: bytes | None
    parameters: Sequence[tuple[str, str]] = ()

    def multipart(self, field: str, **more: str) -> dict[str, Any]:
        """The arguments of an HTTP client; written out, since such clients do not send names in other encodings."""
        parts = [
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in (*self.parameters, *more.items())
        ]
        named = b"" if self.filename is None else b'; filename="%s"' % self.filename
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"'.encode()
        body = b"".join([*parts, head, named, b"\r\n\r\n", self.content, f"\r\n--{BOUNDARY}--\r\n".encode()])
        return {"content": body, "headers": {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}}


# ------------------------------------------------------------------ the endpoints


def native(client: httpx.Client, request: Request) -> Answer:
    """`POST /api/v1/jobs/`, and the transcript of its job."""
    response = client.post("/api/v1/jobs/", **request.multipart("file"))
    if response.status_code != 202:
        return Answer(error=f"{response.status_code} {response.text}")
    return of_job(client, response.json()["id"])


def of_job(client: httpx.Client, job_id: str) -> Answer:
    job = ended(client, job_id)
    if job["status"] != "done":
        return Answer(error=_of(job["error"]))
    transcript = client.get(f"/api/v1/jobs/{job_id}/transcript.json").raise_for_status().json()
    return _answer(transcript, job)


def openai(client: httpx.Client, request: Request) -> Answer:
    """`POST /v1/audio/transcriptions` with `verbose_json`. Its job has the warnings."""
    fields = {"model": "whisper-1", "response_format": "verbose_json"}
    return _waiting(client, client.post("/v1/audio/transcriptions", **request.multipart("file", **fields)))


def asr(client: httpx.Client, request: Request) -> Answer:
    """`POST /asr` with `output=json`. Its job has the warnings."""
    return _waiting(client, client.post("/asr?output=json", **request.multipart("audio_file")))


ENDPOINTS = {"native": native, "OpenAI": openai, "/asr": asr}


def _waiting(client: httpx.Client, response: httpx.Response) -> Answer:
    """The answer of an endpoint that waits for the text."""
    body = response.json()
    if response.status_code != 200:
        return Answer(error=_of(body.get("error") or {"message": body.get("detail")}))
    return _answer(body, ended(client, response.headers["X-Job-Id"]))


def _answer(body: dict[str, Any], job: dict[str, Any]) -> Answer:
    segments = body.get("segments")
    if segments is None:  # OpenAI's answer with the times of words alone
        words = body.get("words") or [{"start": 0, "end": 0}]
        segments = [{"start": words[0]["start"], "end": words[-1]["end"], "text": body["text"], "words": words}]
    cues = tuple(map(Cue.from_json, segments))
    language = (body.get("language") or "").lower()
    has_words = bool(body.get("words")) or any(cue.words for cue in cues)
    return Answer(cues, CODES.get(language, language), tuple(job["warnings"]), has_words, job=job["id"])


def _of(error: dict[str, Any]) -> str:
    return f"{error.get('code') or ''} {error.get('message') or ''}".strip()


def ended(client: httpx.Client, job_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = client.get(f"/api/v1/jobs/{job_id}/").raise_for_status().json()
        return job if job["status"] in ("done", "failed", "cancelled") else None

    job = wait_until(look, SECONDS)
    assert job is not None
    return job


@contextmanager
def connected(url: str, key: str, models: Path, data: Path) -> Iterator[httpx.Client]:
    """A client of the server at `url`, or of one that is started here with real `base`."""
    server = None if url else Server(data, models, DEFAULT_MODEL="base")
    if server:
        server.start()
        url, key = server.url, server.token
    try:
        headers = {"Authorization": f"Token {key}", "Accept-Language": "en"}
        with httpx.Client(base_url=url, headers=headers, timeout=SECONDS) as client:
            yield client
    finally:
        if server:
            server.stop()


def from_srt(text: str) -> list[Cue]:
    """The cues of a SubRip file."""
    cues = []
    for times, lines in re.findall(r"^\d+\n(.+? --> .+?)\n(.*?)(?:\n\n|\Z)", text.strip(), re.MULTILINE | re.DOTALL):
        start, end = map(_seconds, times.split(" --> "))
        cues.append(Cue(start, end, lines.replace("\n", " ")))
    return cues


def _seconds(moment: str) -> float:
    hours, minutes, seconds = moment.replace(",", ".").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


# ------------------------------------------------------------------ the arithmetic

Place = tuple[float, float]  # where somebody speaks: start and end in seconds


def errors_of(cues: Sequence[Cue], places: Sequence[Place]) -> list[tuple[float, float]]:
    """For each place the distance of its start to the nearest start of a cue, and of its end to the nearest end.

    A cue that covers two places has the end of the first nowhere and the start of the second nowhere, so that the pause
    between them counts as an error. Infinity where there are no cues.
    """
    return [
        (
            min((abs(cue.start - start) for cue in cues), default=float("inf")),
            min((abs(cue.end - end) for cue in cues), default=float("inf")),
        )
        for start, end in places
    ]


def overlap(cue: Cue, places: Sequence[Place], margin: float = 0.0) -> float:
    """For how many seconds somebody speaks during a cue; each place is longer by the margin at both ends."""
    seconds, until = 0.0, cue.start
    for start, end in sorted(places):
        begin, until_here = max(start - margin, until), min(end + margin, cue.end)
        if until_here > begin:
            seconds += until_here - begin
            until = until_here
    return seconds


def covered_pauses(cues: Sequence[Cue], places: Sequence[Place]) -> int:
    """How many of the pauses between places lie inside a cue."""
    pauses = [(before[1], after[0]) for before, after in zip(places, places[1:], strict=False)]
    return sum(any(cue.start < start and end < cue.end for cue in cues) for start, end in pauses)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]
