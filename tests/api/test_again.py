"""A client has a recording that is here transcribed once more."""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from tests.api.rows import a_done_job
from tests.server import NANO, Server
from transcription import jobs
from transcription.models import Job, Recording
from transcription.whisper.options import TEMPERATURES, TranscriptionOptions

JOBS = "/api/v1/jobs/"
SENTENCE = NANO / "nano" / "bears.wav"


def as_json(api: Client, body: Any, address: str = JOBS) -> HttpResponse:
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    return api.generic("POST", address, text, content_type="application/json")


def refused(answer: Any, status: int = 400) -> dict[str, Any]:
    """What is wrong with a request that changed nothing."""
    assert answer.status_code == status, answer.content
    assert Job.objects.count() == 1
    problems: dict[str, Any] = answer.json()
    return problems


@pytest.fixture
def before(owner: User) -> Job:
    """The owner's job of which there shall be another."""
    return a_done_job(owner)


@pytest.mark.parametrize("is_json", [False, True])
def test_a_recording_gets_a_second_job_and_the_first_keeps_its_text(api: Client, before: Job, is_json: bool) -> None:
    wishes = {"recording": str(before.recording_id), "language": "ru", "beam_size": "2"}
    answer: Any = as_json(api, wishes) if is_json else api.post(JOBS, wishes)

    job = Job.objects.exclude(pk=before.pk).get()
    assert (answer.status_code, answer["Location"]) == (202, f"{JOBS}{job.pk}/")
    assert answer.json()["recording"]["id"] == str(before.recording_id)
    assert (job.status, job.owner, job.recording, job.model) == ("queued", before.owner, before.recording, "nano")
    assert job.transcription_options == TranscriptionOptions(language="ru", beam_size=2)
    before.refresh_from_db()
    assert (before.status, before.text, before.segments.count()) == ("done", "Good day.", 1)
    assert Recording.objects.count() == 1


def test_it_has_the_name_of_the_newest_transcript(api: Client, before: Job) -> None:
    Job.objects.update(name="Lecture on probability")

    assert api.post(JOBS, {"recording": before.recording_id}).json()["name"] == "Lecture on probability"


def test_in_json_parameters_are_values(api: Client, before: Job) -> None:
    wishes = {"word_timestamps": True, "temperature": [0, 0.5], "beam_size": 3, "vad_filter": False, "sections": None}
    answer: Any = as_json(api, {"recording": str(before.recording_id), "priority": "high", **wishes})

    job = Job.objects.get(pk=answer.json()["id"])
    expected = TranscriptionOptions(word_timestamps=True, temperature=(0, 0.5), beam_size=3, vad_filter=False)
    assert (job.transcription_options, job.priority) == (expected, Job.Priority.HIGH)
    assert answer.json()["priority"] == "high"


@pytest.mark.parametrize(("sent", "tried"), [(0, TEMPERATURES), ([0], (0.0,)), (0.2, (0.2,)), ("0.2", (0.2,))])
def test_a_temperature_is_a_number_or_a_list(api: Client, before: Job, sent: object, tried: tuple[float, ...]) -> None:
    answer: Any = as_json(api, {"recording": str(before.recording_id), "temperature": sent})

    assert Job.objects.get(pk=answer.json()["id"]).transcription_options.temperature == tried


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", []),
        ("temperature", [[0]]),
        ("temperature", {"from": 0}),
        ("temperature", True),
        ("temperature", 10**400),
        ("beam_size", 1e400),
        ("beam_size", [5]),
        ("word_timestamps", [True]),
        ("word_timestamps", {}),
        ("language", ["ru", "en"]),
        ("model", {"name": "nano"}),
        ("task", 5),
        ("initial_prompt", ["a"]),
        ("best_of", 17),
        ("nonsense", 1),
        ("file", "talk.mp3"),
    ],
)
def test_another_value_is_refused_by_name(api: Client, before: Job, name: str, value: object) -> None:
    assert name in refused(as_json(api, {"recording": str(before.recording_id), name: value}))


@pytest.mark.parametrize(
    "body",
    ["{", "[]", '"text"', "null", "[" * 100_000, b"\xff{}", r'{"\ud800": 1}', r'{"language": "\ud800"}'],
    ids=["half", "a list", "text", "null", "a well", "no text", "half a sign", "half a sign as a value"],
)
def test_a_body_that_is_no_json_object_is_said(api: Client, before: Job, body: str | bytes) -> None:
    assert refused(as_json(api, body)) == {"detail": "The body is not a JSON object of parameters."}


def test_a_body_too_large_to_be_parameters_is_not_read(api: Client, before: Job, settings: Settings) -> None:
    prompt = "a" * settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    assert refused(as_json(api, {"recording": str(before.recording_id), "initial_prompt": prompt}))["detail"]


@pytest.mark.parametrize("recording", [str(uuid.UUID(int=7)), "nonsense", 5, -1, ["a"], True])
def test_a_recording_that_is_not_there_is_refused_by_name(api: Client, before: Job, recording: object) -> None:
    assert "one of your recordings" in refused(as_json(api, {"recording": recording}))["recording"][0]


def test_another_users_recording_is_not_there_not_even_for_staff(api: Client, owner: User, stranger: User) -> None:
    User.objects.filter(pk=owner.pk).update(is_staff=True, is_superuser=True)
    job = a_done_job(stranger)

    assert "one of your recordings" in refused(api.post(JOBS, {"recording": job.recording_id}))["recording"][0]


def test_a_file_and_a_recording_are_one_too_many(api: Client, before: Job) -> None:
    file = SimpleUploadedFile("other.mp3", b"sound")

    problems = refused(api.post(JOBS, {"recording": before.recording_id, "file": file}))

    assert "one of" in problems["recording"][0]


@pytest.mark.parametrize("body", [{}, {"recording": ""}, {"recording": None}, {"model": "nano"}])
def test_neither_is_too_few(api: Client, before: Job, body: dict[str, object]) -> None:
    said = refused(as_json(api, body))["file"][0]

    assert "`file`" in said
    assert "`recording`" in said


def test_a_recording_whose_sound_was_removed_is_a_conflict(api: Client, before: Job) -> None:
    Recording.objects.update(removed_at=timezone.now())

    assert "no longer" in refused(api.post(JOBS, {"recording": before.recording_id}), 409)["detail"]


def test_a_recording_whose_file_is_gone_is_a_conflict(api: Client, before: Job) -> None:
    before.recording.path.unlink()

    assert "no longer" in refused(api.post(JOBS, {"recording": before.recording_id}), 409)["detail"]


def test_a_recording_that_is_deleted_meanwhile_is_a_conflict(
    api: Client, before: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = jobs.again

    def late(recording: Recording, **wishes: Any) -> Job:
        jobs.delete(before)
        return again(recording, **wishes)

    monkeypatch.setattr(jobs, "again", late)

    answer = api.post(JOBS, {"recording": before.recording_id})

    assert answer.status_code == 409
    assert not Job.objects.exists()


def test_the_documents_endpoint_takes_files_alone(api: Client, before: Job) -> None:
    file = SimpleUploadedFile("other.mp3", b"sound")

    assert api.post("/transcribe", {"recording": before.recording_id, "file": file}).status_code == 422


def test_a_session_needs_its_csrf_token_for_json_too(before: Job) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(before.owner)
    client.cookies["csrftoken"] = "a" * 32
    body = json.dumps({"recording": str(before.recording_id)})

    assert client.post(JOBS, body, "application/json").status_code == 403
    assert client.post(JOBS, body, "application/json", headers={"X-CSRFToken": "a" * 32}).status_code == 202


# ------------------------------------------------------------------ with a real server


def test_two_transcripts_of_a_recording_stand_side_by_side_until_both_are_deleted(nano_server: Server) -> None:
    first = nano_server.transcribe(SENTENCE, language="en")
    file = nano_server.data / "recordings" / first["recording"]["id"]
    with nano_server.client() as client:
        wishes = {"recording": first["recording"]["id"], "language": "en", "word_timestamps": True}
        answer = client.post(JOBS, json=wishes)
        assert answer.status_code == 202, answer.text
        second = nano_server.wait(answer.json()["id"])

        assert (second["status"], second["text"]) == ("done", first["text"])
        (segment,) = client.get(f"{JOBS}{second['id']}/transcript.json").json()["segments"]
        assert segment["words"][0]["word"] == first["text"].split()[0]
        assert nano_server.job(first["id"]) == first

        assert client.delete(f"{JOBS}{first['id']}/").status_code == 204
        assert client.get(f"{JOBS}{second['id']}/audio/").content == SENTENCE.read_bytes()
        assert client.delete(f"{JOBS}{second['id']}/").status_code == 204
        assert client.post(JOBS, json=wishes).status_code == 400
    assert not file.exists()


def test_a_recording_never_goes_from_under_a_job_that_was_accepted(nano_server: Server) -> None:
    with nano_server.client() as client, ThreadPoolExecutor(2) as both:
        for _round in range(8):
            first = nano_server.transcribe(SENTENCE, language="en")
            recording = first["recording"]["id"]
            deleting = both.submit(client.delete, f"{JOBS}{first['id']}/")
            asking = both.submit(client.post, JOBS, json={"recording": recording, "language": "en"})
            assert deleting.result().status_code == 204
            answer = asking.result()
            is_there = (nano_server.data / "recordings" / recording).exists()
            assert (answer.status_code == 202) is is_there, answer.text
            if is_there:
                assert nano_server.wait(answer.json()["id"])["status"] == "done"
            else:
                assert answer.status_code in (400, 409), answer.text
