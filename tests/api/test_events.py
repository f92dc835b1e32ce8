"""Following a job as it is transcribed."""

import json
from pathlib import Path
from typing import Any

import httpx

from tests.server import NANO, QUICKLY, Server, wait_until

Told = list[tuple[str, dict[str, Any], str]]


def follow(server: Server, job_id: str, after: int = 0, **headers: str) -> Told:
    """(event, data, id) of everything that the stream says until it closes."""
    told: Told = []
    address = f"/api/v1/jobs/{job_id}/events/" + (f"?after={after}" if after else "")
    with server.client() as client, client.stream("GET", address, headers=headers) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name:
                event[name] = value
            elif "event" in event:
                told.append((event["event"], json.loads(event["data"]), event.get("id", "")))
                event = {}
    return told


def test_state_segments_and_the_end_come_as_they_happen(nano_server: Server, long_recording: Path) -> None:
    job_id = nano_server.submit(long_recording, **QUICKLY)["id"]
    told = follow(nano_server, job_id)
    states = [data["status"] for kind, data, _ in told if kind == "state"]
    assert states == sorted(states, key=["queued", "preparing", "transcribing", "finishing", "done"].index)
    assert told[-1][:2] == ("end", {"status": "done"})
    texts = [data["text"] for kind, data, _ in told if kind == "segment"]
    assert texts == [text.strip() for _, _, text, _ in nano_server.segments(job_id)]
    kinds = [kind if kind == "segment" else data["status"] for kind, data, _ in told]
    assert kinds.index("segment") < min(kinds.index(status) for status in ("finishing", "done") if status in kinds)


def test_a_client_that_comes_back_goes_on_after_its_last_event(nano_server: Server, long_recording: Path) -> None:
    job_id = nano_server.transcribe(long_recording, **QUICKLY)["id"]
    segments = nano_server.segments(job_id)
    told = follow(nano_server, job_id, **{"Last-Event-ID": str(segments[2][3])})
    assert [int(identity) for kind, _, identity in told if kind == "segment"] == [row[3] for row in segments[3:]]
    assert follow(nano_server, job_id, after=segments[2][3]) == told


def test_a_failed_jobs_stream_ends_with_its_sentence(nano_server: Server) -> None:
    job_id = nano_server.submit(NANO / "media" / "silent.mkv")["id"]
    told = follow(nano_server, job_id, **{"Accept-Language": "ru"})
    assert "нет звуковой дорожки" in told[-2][1]["error"]["message"]
    assert told[-1][1] == {"status": "failed"}


def test_a_deleted_jobs_stream_ends(nano_server: Server, long_recording: Path) -> None:
    job_id = nano_server.submit(long_recording, language="en")["id"]
    wait_until(lambda: nano_server.segments(job_id))
    with nano_server.client() as client, client.stream("GET", f"/api/v1/jobs/{job_id}/events/") as answer:
        lines = answer.iter_lines()
        next(lines)
        httpx.delete(f"{nano_server.url}/api/v1/jobs/{job_id}/", headers=dict(client.headers))
        assert any("deleted" in line for line in lines)
