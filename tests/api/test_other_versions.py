"""Rows that a newer or older version wrote: each page and endpoint shows them, and nothing of them is lost."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from tests.api.rows import WORDS, a_done_job, a_job, a_segment
from transcription import jobs, shares, webhooks
from transcription.models import ApiToken, Batch, Delivery, Download, Event, Job, Worker
from transcription.text import exports
from transcription.whisper.options import TranscriptionOptions, unknown_options
from transcription.workers import pipeline

UNKNOWN_OPTIONS = {
    **TranscriptionOptions(language="ru", highlight=True).to_json(),
    "speakers": 2,  # an option that is no more, or not yet
    "temperature": 0.5,  # one whose values were others
    "task": "summarise",
    "beam_size": None,
}
del UNKNOWN_OPTIONS["hotwords"]  # an older version had no such option

OF_JOB = (
    "/jobs/{job}/", "/jobs/{job}/row/", "/jobs/{job}/text/", "/jobs/{job}/again/", "/jobs/{job}/delete/",
    "/api/v1/jobs/{job}/", "/api/v1/jobs/{job}/segments/", "/api/v1/jobs/{job}/share/",
    *(f"/api/v1/jobs/{{job}}/transcript.{format}?partial=true" for format in (*exports.FORMATS, "json")),
    "/job/{job}/", "/api/status/{job}/", "/api/v1/batches/{job}/", "/api/v1/batches/{job}/archive.zip?partial=true",
    "/api/v1/deliveries/{job}/", "/admin/transcription/job/{job}/change/",
    "/admin/transcription/job/{job}/transcript.txt", "/admin/transcription/delivery/{job}/change/",
    "/admin/transcription/job/{job}/delete/",
)  # fmt: skip
LISTS = (
    "/", "/webhook/", "/webhook/log/", "/keys/", "/offer/", "/api/v1/jobs/",
    "/api/v1/batches/", "/api/v1/recordings/", "/api/v1/deliveries/",
    "/api/v1/queue/", "/api/v1/stats/", "/api/v1/models/", "/api/v1/workers/", "/api/v1/tokens/", "/api/queue/",
    "/api/logs/", "/api/gpus/", "/api/model_status/", "/models/", "/v1/models",
    *(f"/admin/transcription/{name}/" for name in ("job", "recording", "worker", "event", "download", "delivery")),
    "/admin/transcription/apitoken/",
)  # fmt: skip
TRIES: list[dict[str, Any]] = [
    {"at": "2026-11-21T10:00:00Z", "seconds": 1, "status_code": None, "code": "quantum", "values": {"detail": "x"}},
    {"at": "2026-11-21T10:00:00Z", "seconds": 1, "status_code": None, "code": "timeout", "values": {}},
    {"at": "some day", "code": "redirect", "hops": 3},
    {},
]


@pytest.fixture
def chief(owner: User) -> Client:
    """The owner, who is an administrator and has a key; the pages know the session."""
    User.objects.filter(pk=owner.pk).update(is_staff=True, is_superuser=True)
    client = Client(headers={"X-API-Key": ApiToken.make(owner)})
    client.force_login(owner)
    return client


ROWS: dict[str, dict[str, Any]] = {
    "a code that is not known": {"status": "failed", "error_code": "gpu_on_fire", "error_values": {"heat": 451}},
    "values that are missing": {"status": "failed", "error_code": "too_long", "error_values": {}},
    "values that are more": {"status": "failed", "error_code": "too_long", "error_values": {"hours": 1, "days": 2}},
    "values that are no object": {"status": "failed", "error_code": "damaged_file", "error_values": ["detail"]},
    "a wait that is not known": {"status": "queued", "waiting_for": "moonrise"},
    "a wait for what nobody waits for any more": {"status": "queued", "waiting_for": "too_long"},
    "a status that is not known": {"status": "diarizing", "progress": 0.5},
    "a priority that is not known": {"status": "queued", "priority": 7},
    "a model that is not known": {"status": "done", "model": "whisper-9", "language": "tlh", "engine": "abacus"},
    "warnings that are not known": {"status": "done", "warnings": ["speakers_guessed:3"]},
    "options that are not known": {"status": "done", "options": UNKNOWN_OPTIONS},
    "options of the first version": {"status": "done", "options": {}},
}


@pytest.fixture(autouse=True)
def _on_this_server(owner: User) -> None:
    Download.objects.create(model="turbo", error_code="gpu_on_fire", error_values={"heat": 1}, is_asked_for=True)
    Download.objects.create(model="whisper-9", is_asked_for=True)
    Worker.objects.create(kind="oracle", queue="q", device="qpu:0", engine="abacus", hostname="elsewhere", pid=1)
    Worker.objects.create(
        kind="device", queue="device.qpu", device="qpu:1", engine="abacus", hostname="elsewhere", pid=2
    )
    token = ApiToken.make(owner)
    ApiToken.objects.filter(digest=ApiToken.digest_of(token)).update(scope="paint")


def stored(owner: User, **columns: Any) -> Job:
    """A job of another version's, with a batch and a message of its id, and a word that says more than ours do."""
    job = a_job(owner, **columns)
    a_segment(job, words=[{**word, "speaker": "A"} for word in WORDS])
    Batch.objects.create(pk=job.pk, owner=owner)
    Job.objects.filter(pk=job.pk).update(batch_id=job.pk)
    url = "https://example.org/"
    Delivery.objects.create(pk=job.pk, owner=owner, job=job, url=url, type="job.paused", status="held", tries=TRIES)
    Event.objects.create(job=job, kind="transmogrified")
    return Job.objects.get(pk=job.pk)


@pytest.mark.parametrize("columns", ROWS.values(), ids=ROWS)
def test_every_page_and_endpoint_shows_them(chief: Client, owner: User, columns: dict[str, Any]) -> None:
    job = stored(owner, **columns)
    before = Job.objects.filter(pk=job.pk).values().get()
    share = shares.make(job, expires_at=timezone.now() + timedelta(days=1))[1]
    addresses = [address.format(job=job.pk) for address in (*OF_JOB, *LISTS)]
    for address in (
        *addresses,
        f"/s/{share}/",
        *(f"/s/{share}/transcript.{format}" for format in ("txt", "srt", "docx")),
    ):
        answer = chief.get(address)
        assert answer.status_code in (200, 204), address
        answer.close()
    assert Job.objects.filter(pk=job.pk).values().get() == before


@pytest.mark.parametrize("columns", ROWS.values(), ids=ROWS)
def test_they_stand_in_the_lists(chief: Client, owner: User, columns: dict[str, Any]) -> None:
    job = stored(owner, **columns)
    assert str(job.pk) in chief.get("/").content.decode()
    assert [row["id"] for row in chief.get("/api/v1/jobs/").json()["results"]] == [str(job.pk)]
    assert str(job.pk) in chief.get("/api/queue/").content.decode()


def test_a_code_that_is_not_known_is_said_with_its_name(chief: Client, owner: User) -> None:
    job = stored(owner, **ROWS["a code that is not known"])
    error = chief.get(f"/api/v1/jobs/{job.pk}/").json()["error"]
    assert (error["code"], error["retryable"]) == ("gpu_on_fire", True)
    assert "`gpu_on_fire`" in error["message"]
    assert "`gpu_on_fire`" in chief.get(f"/jobs/{job.pk}/").content.decode()


def test_a_value_that_is_missing_leaves_its_place_open(owner: User) -> None:
    job = stored(owner, **ROWS["values that are missing"])
    assert job.error_message.startswith("The recording is longer than ? hours")


def test_a_wait_that_is_not_known_is_said_with_its_name(chief: Client, owner: User) -> None:
    job = stored(owner, **ROWS["a wait that is not known"])
    waiting = chief.get(f"/api/v1/jobs/{job.pk}/").json()["waiting_for"]
    assert waiting["code"] == "moonrise"
    assert "`moonrise`" in waiting["message"]


def test_who_waits_for_a_job_in_a_status_that_is_not_known_is_told_so(api: Client, owner: User) -> None:
    job = stored(owner, **ROWS["a status that is not known"])
    assert job.is_ended
    told = api.get(f"/api/status/{job.pk}/").json()
    assert told["status"] == "error"
    assert "`diarizing`" in told["error"]


def test_a_key_of_a_scope_that_is_not_known_may_only_read(owner: User) -> None:
    key = ApiToken.make(owner, scope="paint")
    client = Client(headers={"X-API-Key": key})
    assert client.get("/api/v1/jobs/").status_code == 200
    assert client.post("/api/v1/jobs/").status_code == 403


def test_a_try_that_is_not_known_is_told_as_far_as_it_is(owner: User) -> None:
    message = Delivery.objects.create(owner=owner, url="https://example.org/", type="job.paused", tries=TRIES)
    told = webhooks.tries(message)
    assert "`quantum`" in told[0].error
    assert told[1].error.startswith("No answer within ? seconds")
    assert (told[2].at, told[3].error) == (None, "")


def test_unknown_options_are_left_out_and_named() -> None:
    options = TranscriptionOptions.from_json(UNKNOWN_OPTIONS)
    assert options == TranscriptionOptions(language="ru", highlight=True)
    assert unknown_options(UNKNOWN_OPTIONS) == ["beam_size", "speakers", "task", "temperature"]
    assert unknown_options(TranscriptionOptions(temperature=(0.0, 1.0)).to_json()) == []
    assert TranscriptionOptions.from_json(["no", "object"]) == TranscriptionOptions()


def test_a_retry_honours_the_options_that_it_knows_and_names_the_others(owner: User, worker: Worker) -> None:
    job = stored(owner, status="failed", error_code="gpu_on_fire", options=UNKNOWN_OPTIONS, warnings=["not_improved"])
    assert jobs.retry(job)
    job.refresh_from_db()
    assert (job.status, job.error_code, job.options) == ("queued", "", UNKNOWN_OPTIONS)
    warnings = pipeline.warnings(job, [])
    assert warnings == ["not_improved", *(f"option_unknown:{name}" for name in unknown_options(UNKNOWN_OPTIONS))]
    job.warnings, job.options = warnings, TranscriptionOptions().to_json()
    assert pipeline.warnings(job, []) == ["not_improved"]


def test_the_recording_is_transcribed_again_with_what_is_known(chief: Client, owner: User) -> None:
    job = a_done_job(owner, options=UNKNOWN_OPTIONS, priority=7, model="whisper-9")
    sent = {"language": "ru", "model": "nano", "task": "transcribe", "beam_size": "5", "temperature": ""}
    assert chief.post(f"/jobs/{job.pk}/again/", sent).status_code == 302
    new = Job.objects.exclude(pk=job.pk).get()
    assert (new.priority, new.transcription_options.highlight) == (1, True)
