"""What every endpoint does with jobs, below the endpoints."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks

from tests.api.rows import a_done_job
from transcription import errors, jobs
from transcription.models import Job, Recording
from transcription.queue import wakeups
from transcription.whisper.options import TranscriptionOptions

WISHES: dict[str, Any] = {"model": "nano", "options": TranscriptionOptions(beam_size=1)}


@pytest.fixture
def before(alice: User) -> Job:
    return a_done_job(alice, name="Lecture")


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queues whose workers were woken."""
    queues: list[str] = []
    monkeypatch.setattr(wakeups, "ring", lambda *names: queues.extend(names))
    return queues


def test_another_job_of_a_recording_is_queued_and_wakes_a_worker(
    before: Job, rung: list[str], django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        job = jobs.again(before.recording, **WISHES)

    assert (job.name, job.status, job.owner, job.options["beam_size"]) == ("Lecture", "queued", before.owner, 1)
    assert [event.kind for event in job.events.all()] == ["queued"]
    assert rung == ["default"]


def test_a_recording_that_went_meanwhile_gets_no_job(before: Job) -> None:
    recording = Recording.objects.get()
    jobs.delete(before)

    with pytest.raises(errors.RecordingMissing):
        jobs.again(recording, **WISHES)
    assert not Job.objects.exists()
    assert not Recording.objects.exists()


def test_a_recording_whose_sound_went_meanwhile_gets_no_job(before: Job) -> None:
    recording = Recording.objects.get()
    Recording.objects.update(removed_at=timezone.now())

    with pytest.raises(errors.RecordingMissing):
        jobs.again(recording, **WISHES)
    assert Job.objects.get() == before


@pytest.mark.parametrize("act", [lambda job: jobs.again(job.recording, **WISHES), jobs.delete])
def test_the_recording_is_held_before_anything_is_decided_about_it(before: Job, act: Callable[[Job], object]) -> None:
    # Where rows are locked (PostgreSQL), whoever deletes thus waits for whoever adds a job, and sees that job.
    with CaptureQueriesContext(connection) as asked:
        act(before)
    first = next(query["sql"] for query in asked if not query["sql"].startswith(("BEGIN", "SAVEPOINT")))
    assert 'FROM "transcription_recording"' in first


def test_a_recording_goes_with_its_last_job(before: Job) -> None:
    path = before.recording.path
    second = jobs.again(before.recording, **WISHES)

    jobs.delete(before)
    assert path.exists()
    jobs.delete(second)
    assert not path.exists()
    assert not Recording.objects.exists()
