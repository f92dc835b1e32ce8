"""A client of the compatibility API watches tasks, devices and the log; files are got by their labels."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from tests.api.rows import a_done_job, a_job, a_recording, a_segment
from transcription import history, jobs
from transcription.models import ApiToken, Event, Job, Section, Worker

SOUND = b"RIFF" + bytes(1000)
ENDPOINTS = ["/api/queue", "/api/gpus", "/api/model_status", "/api/logs"]


@pytest.fixture
def staff(db: None) -> Client:
    user = User.objects.create_superuser("clara")
    return Client(headers={"Authorization": f"Token {ApiToken.make(user)}"})


@pytest.fixture
def other(stranger: User) -> Client:
    return Client(headers={"Authorization": f"Token {ApiToken.make(stranger)}"})


def a_device(**values: Any) -> Worker:
    known = {"queue": "device.cpu", "device": "cpu", "hostname": "here", "pid": 1}
    return Worker.objects.create(kind="device", **{**known, **values})


@pytest.mark.parametrize("address", ["/api/transcribe", "/api/transcribe/"])
def test_a_task_is_queued_at_once(api: Client, address: str) -> None:
    answer = api.post(address, {"file": SimpleUploadedFile("a.mp3", SOUND), "model_name": "nano", "up_speed": "1.5"})

    job = Job.objects.get()
    assert answer.status_code == 200
    assert answer.json() == {"task_id": str(job.pk)}
    assert answer["X-Job-Id"] == str(job.pk)
    assert (job.status, job.transcription_options.up_speed) == ("queued", 1.5)


@pytest.mark.parametrize(
    ("form", "status", "field"),
    [
        ({}, 400, "file"),
        ({"file": 1, "up_speed": "9"}, 422, "up_speed"),
        ({"file": 1, "nonsense": "1"}, 422, "nonsense"),
    ],
)
def test_a_bad_request_is_refused_in_the_documents_shape(
    api: Client, form: dict[str, Any], status: int, field: str
) -> None:
    sent = {name: SimpleUploadedFile("a.mp3", SOUND) if name == "file" else value for name, value in form.items()}

    answer = api.post("/api/transcribe", sent)

    assert answer.status_code == status
    assert answer.json()["field"] == field
    assert answer.json()["error"]
    assert not Job.objects.exists()


def test_parameters_may_stand_in_the_query_and_in_one_field(api: Client) -> None:
    form = {"file": SimpleUploadedFile("a.mp3", SOUND), "params": '{"language": "ru"}'}

    api.post("/api/transcribe?initial_prompt=Names", form)

    options = Job.objects.get().transcription_options
    assert (options.language, options.initial_prompt) == ("ru", "Names")


def test_our_own_failure_has_a_request_id(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_named: object) -> Job:
        raise RuntimeError("a detail for the log alone")

    monkeypatch.setattr(jobs, "submit", broken)
    client = Client(headers={"X-API-Key": ApiToken.make(owner)}, raise_request_exception=False)

    answer = client.post("/api/transcribe", {"file": SimpleUploadedFile("a.mp3", SOUND)})

    assert (answer.status_code, set(answer.json())) == (500, {"error", "request_id"})


def test_every_endpoint_asks_for_a_key(db: None) -> None:
    for address in [*ENDPOINTS, f"/api/status/{uuid.uuid4()}", f"/files/{uuid.uuid4()}_a.txt"]:
        for key, status in (({}, 401), ({"X-API-Key": "wrong"}, 403)):
            answer = Client(headers=key).get(address)
            assert answer.status_code == status, address
            assert answer.json()["error"]
    assert Client().post("/api/transcribe").status_code == 401


@pytest.mark.parametrize("address", ENDPOINTS)
def test_a_slash_at_the_end_is_no_redirect(api: Client, address: str) -> None:
    assert api.get(f"{address}/").status_code == api.get(address).status_code == 200
    assert api.post(address).status_code == 405


def test_what_else_is_under_api_speaks_as_before(api: Client) -> None:
    assert "detail" in api.get("/api/nothing").json()
    assert "error" in api.get(f"/api/status/{uuid.uuid4()}").json()


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("queued", "queued"),
        ("downloading", "processing"),
        ("preparing", "processing"),
        ("transcribing", "processing"),
        ("finishing", "processing"),
        ("done", "done"),
        ("failed", "error"),
        ("cancelled", "error"),
    ],
)
def test_every_status_has_the_documents_word(api: Client, owner: User, status: str, word: str) -> None:
    job = a_job(owner, status=status, text="Good day.", error_code="empty_file" if status == "failed" else "")

    told = api.get(f"/api/status/{job.pk}").json()

    assert (told["task_id"], told["status"]) == (str(job.pk), word)
    assert told["result"] == ("Good day." if word == "done" else None)
    assert bool(told["error"]) == (word == "error")


def test_a_done_task_tells_its_times_and_device(api: Client, owner: User) -> None:
    moment = datetime(2025, 7, 14, 9, 55, 24, tzinfo=UTC)
    job = a_done_job(owner, device="cpu", engine="faster-whisper", created_at=moment, finished_at=moment)

    told = api.get(f"/api/status/{job.pk}/").json()

    assert (told["device"], told["engine"], told["model"]) == ("cpu", "faster-whisper", "nano")
    assert (told["created_at"], told["completed_at"]) == ("2025-07-14T09:55:24Z", "2025-07-14T09:55:24Z")


def test_anothers_task_is_not_there(other: Client, owner: User) -> None:
    for task_id in (a_done_job(owner).pk, "nonsense"):
        assert other.get(f"/api/status/{task_id}").status_code == 404


def test_the_queue_has_each_task_in_its_place(api: Client, owner: User) -> None:
    here = a_device()
    waiting, running, done = a_job(owner), a_job(owner, status="transcribing"), a_done_job(owner)
    failed, cancelled = a_job(owner, status="failed", error_code="empty_file"), a_job(owner, status="cancelled")
    section = a_segment(running).section
    Section.objects.filter(pk=section.pk).update(status="transcribing", worker=here)

    told = api.get("/api/queue").json()

    assert [(task["id"], set(task)) for task in told["queue"]] == [(str(waiting.pk), {"id", "filename", "created_at"})]
    assert told["processing"] == [{"id": str(running.pk), "filename": "lecture.mp3", "gpu_id": 0}]
    assert [(task["id"], set(task)) for task in told["completed"]] == [
        (str(done.pk), {"id", "filename", "completed_at"})
    ]
    assert {task["id"]: bool(task["error"]) for task in told["failed"]} == {
        str(failed.pk): True,
        str(cancelled.pk): True,
    }


def test_the_queue_is_the_newest_hundred(api: Client, owner: User) -> None:
    recording = a_recording(owner)
    made = [a_job(owner, recording=recording) for _ in range(102)]

    told = api.get("/api/queue").json()

    assert [task["id"] for task in told["queue"]] == [str(job.pk) for job in reversed(made[2:])]


def test_anothers_files_are_named_to_staff_alone(other: Client, staff: Client, owner: User) -> None:
    recording = a_recording(owner, original_name="secret.mp3")
    for status in ("queued", "transcribing", "done"):
        job = a_job(owner, recording=recording, status=status)
        history.note(job.pk, status)
    a_job(owner, recording=recording, status="failed", error_code="not_media", error_values={"name": "secret.mp3"})

    for address in ("/api/queue", "/api/logs"):
        assert "secret" not in other.get(address).content.decode()
        assert "secret" in staff.get(address).content.decode()


def test_the_devices_are_told_in_the_documents_words(api: Client) -> None:
    a_device(hostname="b", device="mps")
    a_device(
        hostname="a", device="cuda:0", device_name="NVIDIA RTX 4090",
        memory_total_mb=24576, memory_used_mb=1024, utilization=12,
    )  # fmt: skip
    Worker.objects.create(kind="default", queue="default", hostname="a", pid=2)
    a_device(hostname="gone", heartbeat_at=timezone.now() - timedelta(minutes=5))

    first, second = api.get("/api/gpus").json()

    assert first == {
        "id": 0, "name": "NVIDIA RTX 4090", "memory_total_mb": 24576, "memory_used_mb": 1024, "utilization_gpu": 12,
        "device": "cuda:0",
    }  # fmt: skip
    assert (second["id"], second["name"], second["memory_used_mb"]) == (1, "mps", None)


def test_the_models_are_told_by_device(api: Client) -> None:
    a_device(hostname="a", model_states={"base": "loaded", "large-v2": "error"})
    a_device(hostname="b", model_states={"medium": "loading"})

    assert api.get("/api/model_status").json() == {
        "0": {"base": "loaded", "large-v2": "error"},
        "1": {"medium": "loading"},
    }


def test_the_log_ends_with_what_is_newest(api: Client, owner: User) -> None:
    job = a_job(owner)
    for number in range(202):
        history.note(job.pk, "decoded", str(number))

    told = api.get("/api/logs").json()

    assert len(told) == 200
    assert set(told[0]) == {"time", "msg"}
    assert told[0]["time"].endswith("Z")
    assert told[-1]["msg"] == f"Task {job.pk} (lecture.mp3) decoded: 201"


def test_an_event_of_no_job_is_for_staff(api: Client, staff: Client) -> None:
    Event.objects.create(kind="started")

    assert api.get("/api/logs").json() == []
    assert staff.get("/api/logs").json()[0]["msg"] == "started"


# ------------------------------------------------------------------ GET /files/…


@pytest.fixture
def done(owner: User) -> Job:
    recording = a_recording(owner, SOUND, original_name="Моя лекция.mp3")
    return a_done_job(owner, recording=recording, text="Добрый день.")


def test_a_text_is_got_by_its_label(api: Client, done: Job) -> None:
    label = api.get(f"/job/{done.pk}").json()["result_file"]

    for address in (f"/files/{label}", f"/files/{label}/"):
        answer = api.get(address)
        assert answer["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.content.decode() == "Добрый день."


def test_a_recording_is_got_by_its_label_also_in_part(api: Client, done: Job) -> None:
    label = api.get(f"/job/{done.pk}").json()["uploaded_file"]

    whole = api.get(f"/files/{label}")
    part = api.get(f"/files/{label}", headers={"Range": "bytes=0-3"})

    assert (whole.status_code, whole["Content-Length"], whole["Accept-Ranges"]) == (200, str(len(SOUND)), "bytes")
    assert (part.status_code, part["Content-Range"]) == (206, f"bytes 0-3/{len(SOUND)}")


def test_the_text_of_an_unfinished_job_is_not_there_yet(api: Client, owner: User) -> None:
    job = a_job(owner, status="transcribing")
    answer = api.get(f"/files/{job.pk}_lecture.txt")
    assert answer.status_code == 404
    assert "yet" in answer.json()["error"]


@pytest.mark.parametrize(
    "name",
    [
        "{id}_another.txt", "{id}.txt", "{id}_Моя_лекция.pcm", "nonsense.txt",
        "../{id}_Моя_лекция.txt", "..%2F..%2Fetc%2Fpasswd",
        "{id}_..%2F..%2Fstenograf.txt", "%2Fetc%2Fpasswd", "{other}_Моя_лекция.txt",
    ],
)  # fmt: skip
def test_no_other_name_gives_anything(api: Client, done: Job, name: str) -> None:
    answer = api.get("/files/" + name.format(id=done.pk, other=uuid.uuid4()))
    assert answer.status_code == 404
    assert answer["Content-Type"] == "application/json"


def test_a_name_with_a_nul_is_no_name(api: Client, done: Job) -> None:
    answer = api.get(f"/files/{done.pk}_Моя_лекция.txt%00.txt")
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/json")


def test_anothers_files_are_not_there(other: Client, done: Job) -> None:
    for kind in ("txt", "wav"):
        assert other.get(f"/files/{done.pk}_Моя_лекция.{kind}").status_code == 404
