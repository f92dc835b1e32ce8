"""Many recordings by every endpoint at once, as two users: each transcript is there once, under its job and user."""

import hashlib
import json
import wave
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.server import NANO, Server, wait_until

USERS = ("carol", "dave")
MAKE_USERS = """
from django.contrib.auth.models import User
from transcription.models import ApiToken
for name in {names!r}:
    print(ApiToken.make(User.objects.create_user(name)))
"""
SPOKEN = {
    item["file"]: item
    for item in json.loads((NANO / "nano" / "sentences.json").read_text())
    if item["file"] in ("bears.wav", "mice.wav")
}


@dataclass(frozen=True)
class Sent:
    """A recording that nobody else sends, and what is said in it."""

    name: str
    sound: bytes
    said: str
    language: str

    @classmethod
    def number(cls, number: int) -> "Sent":
        """One of the tests' sentences with so many hundredths of a second of silence after it."""
        file, spoken = list(SPOKEN.items())[number % len(SPOKEN)]
        sound = BytesIO()
        with wave.open(str(NANO / "nano" / file)) as sentence, wave.open(sound, "wb") as longer:
            longer.setparams(sentence.getparams())
            longer.writeframes(sentence.readframes(sentence.getnframes()) + bytes(2 * 160 * number))
        return cls(f"{number}.wav", sound.getvalue(), spoken["text"], spoken["language"])

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sound).hexdigest()

    @property
    def form(self) -> dict[str, str]:
        return {"model": "nano", "language": self.language, "beam_size": "1", "temperature": "[0]"}


Posted = tuple[str, str | None]  # the id of the job, and the text where the endpoint waits for it


def native(client: httpx.Client, sent: Sent) -> Posted:
    answer = client.post("/api/v1/jobs/", files={"file": (sent.name, sent.sound)}, data=sent.form)
    assert answer.status_code == 202, answer.text
    assert answer.json()["id"] == answer.headers["x-job-id"]
    return answer.headers["x-job-id"], None


def in_pieces(client: httpx.Client, sent: Sent) -> Posted:
    spoken = {"Tus-Resumable": "1.0.0"}
    begun = client.post("/api/v1/uploads/", headers={**spoken, "Upload-Length": str(len(sent.sound))})
    assert begun.status_code == 201, begun.text
    half = len(sent.sound) // 2
    for start, piece in ((0, sent.sound[:half]), (half, sent.sound[half:])):
        headers = {**spoken, "Upload-Offset": str(start), "Content-Type": "application/offset+octet-stream"}
        answer = client.patch(begun.headers["location"], headers=headers, content=piece)
        assert answer.status_code == 204, answer.text
    answer = client.post("/api/v1/jobs/", json={"upload": begun.json()["id"], **sent.form})
    assert answer.status_code == 202, answer.text
    return answer.headers["x-job-id"], None


def openai(client: httpx.Client, sent: Sent) -> Posted:
    form = {**sent.form, "temperature": "0"}
    answer = client.post("/v1/audio/transcriptions", files={"file": (sent.name, sent.sound)}, data=form)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-job-id"], answer.json()["text"]


def transcribe(client: httpx.Client, sent: Sent) -> Posted:
    answer = client.post("/transcribe", files={"audio_file": (sent.name, sent.sound)}, data=sent.form)
    assert answer.status_code == 200, answer.text
    assert answer.json()["job_id"] == answer.headers["x-job-id"]
    return answer.headers["x-job-id"], answer.json()["text"]


def task(client: httpx.Client, sent: Sent) -> Posted:
    answer = client.post("/api/transcribe", files={"file": (sent.name, sent.sound)}, data=sent.form)
    assert answer.status_code == 200, answer.text
    task_id = answer.json()["task_id"]

    def look() -> dict[str, Any] | None:
        told: dict[str, Any] = client.get(f"/api/status/{task_id}").json()
        return told if told["status"] in ("done", "error") else None

    told = wait_until(look, 240)
    assert told is not None
    return task_id, told["result"]


def asr(client: httpx.Client, sent: Sent) -> Posted:
    files, asked = {"audio_file": (sent.name, sent.sound)}, {**sent.form, "output": "json"}
    answer = client.post("/asr", files=files, params=asked)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-job-id"], answer.json()["text"]


ENDPOINTS: tuple[Callable[[httpx.Client, Sent], Posted], ...] = (native, in_pieces, openai, transcribe, task, asr)


@pytest.fixture
def keys(nano_server: Server) -> dict[str, str]:
    """Two users of this test's own, by name, and their keys."""
    names = [f"{user}-{uuid4().hex[:8]}" for user in USERS]
    made = nano_server.manage("shell", "-v", "0", "-c", MAKE_USERS.format(names=names))
    return dict(zip(names, made.stdout.split(), strict=True))


@pytest.mark.parametrize("each", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_recordings_by_every_endpoint_at_once_are_each_there_once(
    nano_server: Server, keys: dict[str, str], each: int
) -> None:
    names = list(keys)
    plan = [(endpoint, Sent.number(number)) for number, endpoint in enumerate(ENDPOINTS * each)]
    owners = [names[place % 2 == place // len(ENDPOINTS) % 2] for place in range(len(plan))]  # every endpoint for both

    def post(place: int) -> Posted:
        (endpoint, sent), key = plan[place], keys[owners[place]]
        headers = {"X-API-Key": key}
        with httpx.Client(base_url=nano_server.url, headers=headers, timeout=240) as client:
            return endpoint(client, sent)

    with ThreadPoolExecutor(len(plan)) as clients:
        posted = list(clients.map(post, range(len(plan))))

    assert len({job_id for job_id, _text in posted}) == len(plan)
    for name, key in keys.items():
        with httpx.Client(base_url=nano_server.url, headers={"X-API-Key": key}, timeout=60) as client:
            wait_until(lambda c=client: not c.get("/api/v1/queue/").json()["own"], 240)  # type: ignore[misc]
            listed = client.get("/api/v1/jobs/?page_size=200").json()
            assert listed["next"] is None
            jobs = {job["id"]: job for job in listed["results"]}
            recordings = client.get("/api/v1/recordings/?page_size=200").json()["results"]
            texts = {job_id: client.get(f"/api/v1/jobs/{job_id}/").json()["text"] for job_id in jobs}
        mine = [place for place, owner in enumerate(owners) if owner == name]
        assert set(jobs) == {posted[place][0] for place in mine}
        assert Counter(recording["sha256"] for recording in recordings) == Counter(
            plan[place][1].sha256 for place in mine
        )
        assert {plan[place][0] for place in mine} == set(ENDPOINTS)
        for place in mine:
            (_endpoint, sent), (job_id, told) = plan[place], posted[place]
            assert jobs[job_id]["status"] == "done"
            assert jobs[job_id]["recording"]["sha256"] == sent.sha256
            assert texts[job_id].strip() == sent.said
            assert told is None or told.strip() == sent.said
