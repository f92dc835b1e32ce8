"""The web process dies while clients wait at its endpoints: what they asked for is done, and they get it."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.faults.victims import kill, pid_of
from tests.server import QUICKLY, Server, wait_until


def at_openai(client: httpx.Client, recording: Path, key: str, **more: str) -> httpx.Response:
    form = {"model": "nano", "language": "en", "beam_size": "1", **more}
    files, headers = {"file": (recording.name, recording.read_bytes())}, {"Idempotency-Key": key}
    return client.post("/v1/audio/transcriptions", files=files, data=form, headers=headers)


def at_openais_stream(client: httpx.Client, recording: Path, key: str) -> httpx.Response:
    return at_openai(client, recording, key, stream="true")


def at_transcribe(client: httpx.Client, recording: Path, key: str) -> httpx.Response:
    files, headers = {"file": (recording.name, recording.read_bytes())}, {"Idempotency-Key": key}
    return client.post("/transcribe", files=files, data={"model": "nano", **QUICKLY}, headers=headers)


def at_asr(client: httpx.Client, recording: Path, key: str) -> httpx.Response:
    files, headers = {"audio_file": (recording.name, recording.read_bytes())}, {"Idempotency-Key": key}
    return client.post("/asr?output=txt", files=files, data={"model": "nano", **QUICKLY}, headers=headers)


Endpoint = Callable[[httpx.Client, Path, str], httpx.Response]
ENDPOINTS: tuple[Endpoint, ...] = (at_openai, at_openais_stream, at_transcribe, at_asr)


def jobs_of(server: Server) -> set[str]:
    return {str(UUID(row[0])) for row in server.rows("SELECT id FROM transcription_job")}


def text_of(answer: httpx.Response) -> str:
    """The text in an answer: JSON, the last event of a stream, or plain."""
    kind, body = answer.headers["content-type"].partition(";")[0], answer.text
    if kind == "text/event-stream":
        kind, body = "application/json", body.strip().splitlines()[-1].removeprefix("data: ")
    return str(json.loads(body)["text"]) if kind == "application/json" else body


def killed_while_they_wait(server: Server, recording: Path, endpoints: dict[Endpoint, str]) -> set[str]:
    """Ask at endpoints, each with its key, and kill the web process when something is told of each; return the jobs."""
    known = jobs_of(server)

    def ask(endpoint: Endpoint) -> httpx.Response:
        with server.client() as client:
            return endpoint(client, recording, endpoints[endpoint])

    with ThreadPoolExecutor(len(endpoints)) as clients:
        asked = [clients.submit(ask, endpoint) for endpoint in endpoints]
        wait_until(lambda: len(jobs_of(server) - known) == len(endpoints), 60)
        made = jobs_of(server) - known
        wait_until(lambda: any(server.segments(job) for job in made), 60)
        assert not any(waiting.done() for waiting in asked)
        dead = kill(server, "web")
        for waiting in asked:
            assert isinstance(waiting.exception(60), httpx.TransportError)
    wait_until(lambda: pid_of(server, "web") not in (0, dead))
    wait_until(server.is_healthy, 60)
    return made


def test_who_waited_gets_the_answer_by_the_same_key_and_the_model_ran_once(
    nano_server: Server, long_recording: Path
) -> None:
    endpoints = {endpoint: uuid4().hex for endpoint in ENDPOINTS}
    made = killed_while_they_wait(nano_server, long_recording, endpoints)

    with nano_server.client() as client:
        answers = [endpoint(client, long_recording, key) for endpoint, key in endpoints.items()]

    assert [answer.status_code for answer in answers] == [200] * len(endpoints)
    assert {answer.headers["x-job-id"] for answer in answers} == made == jobs_of(nano_server) & made
    for answer in answers:
        job: dict[str, Any] = nano_server.job(answer.headers["x-job-id"])
        assert job["status"] == "done"
        assert text_of(answer).split() == job["text"].split() != []
        ran = "SELECT count(*), sum(attempts), sum(status = 'done') FROM transcription_section WHERE job_id = ?"
        (sections, attempts, done), = nano_server.rows(ran, UUID(job["id"]).hex)  # fmt: skip
        assert sections == attempts == done > 0
        turns = "SELECT count(*) FROM transcription_event WHERE kind = 'queued' AND job_id = ?"
        assert nano_server.rows(turns, UUID(job["id"]).hex) == [(1,)]


def test_who_asks_no_more_finds_it_in_the_history(nano_server: Server, long_recording: Path) -> None:
    (job_id,) = killed_while_they_wait(nano_server, long_recording, {at_transcribe: uuid4().hex})

    assert nano_server.wait(job_id)["status"] == "done"
    with nano_server.client() as client:
        newest = client.get("/api/v1/jobs/?page_size=1").json()["results"][0]
        body = client.get(f"/job/{job_id}").json()
    assert newest["id"] == job_id
    assert body["status"] == "done"
    assert body["text"] == nano_server.job(job_id)["text"] != ""


@pytest.mark.parametrize("last", [pytest.param("", marks=pytest.mark.slow), "the last"])
def test_an_event_stream_goes_on_where_it_broke_off(nano_server: Server, long_recording: Path, last: str) -> None:
    job_id = nano_server.submit(long_recording, language="en")["id"]
    heard: list[str] = []

    def listen() -> None:
        with nano_server.client() as client, client.stream("GET", f"/api/v1/jobs/{job_id}/events/") as answer:
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    heard.append(line.removeprefix("id: "))

    with ThreadPoolExecutor(1) as clients:
        listening = clients.submit(listen)
        wait_until(lambda: len(heard) >= 2, 60)
        kill(nano_server, "web")
        assert isinstance(listening.exception(60), httpx.TransportError)
    wait_until(nano_server.is_healthy, 60)
    before = list(heard)
    headers = {"Last-Event-ID": before[-1]} if last else {}
    with nano_server.client() as client:
        rest = client.get(f"/api/v1/jobs/{job_id}/events/", headers=headers).text
    ids = [line.removeprefix("id: ") for line in rest.splitlines() if line.startswith("id: ")]
    stored = [str(segment[3]) for segment in nano_server.segments(job_id)]
    assert (before if last else []) + ids == stored
    assert "event: end" in rest
