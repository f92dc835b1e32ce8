"""What goes by itself, and what must not: real rows, real files."""

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from tests.server import NANO, ROOT, Server
from transcription import errors, jobs
from transcription.models import Event, Job, Recording, Worker
from transcription.queue import jobs as queue_jobs
from transcription.queue import wakeups
from transcription.sound.speech import SpeechFinder
from transcription.whisper.options import TranscriptionOptions
from transcription.workers import pipeline, retention

pytestmark = pytest.mark.django_db

TOMORROW = 25 * 3600
MakeJob = Callable[..., Job]


@pytest.fixture(autouse=True)
def _folders(settings: LazySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.RECORDINGS_DIR = tmp_path / "recordings"
    settings.UPLOADS_DIR = tmp_path / "uploads"
    settings.TEMPORARY_DIR = tmp_path / "temporary"
    for folder in (settings.RECORDINGS_DIR, settings.UPLOADS_DIR):
        folder.mkdir()
    monkeypatch.setattr(wakeups, "ring", lambda *queues: None)


@pytest.fixture
def make(alice: User) -> MakeJob:
    """A job of Alice's, with a recording of its own unless one is given, that ended so many days ago."""

    def make(status: str = "done", days: float | None = None, recording: Recording | None = None) -> Job:
        if recording is None:
            recording = Recording.objects.create(owner=alice, original_name="talk.ogg", bytes=5, sha256="0" * 64)
            recording.path.write_bytes(b"sound")
        ended = None if days is None else timezone.now() - timedelta(days=days)
        options = TranscriptionOptions().to_json()
        return Job.objects.create(
            owner=alice, recording=recording, name="talk", model="nano", options=options, status=status,
            text="Good day.", finished_at=ended,
        )  # fmt: skip

    return make


def has_sound(job: Job) -> bool:
    """Whether a job's recording has its sound: the row and the disk must say the same."""
    recording = Recording.objects.get(pk=job.recording_id)
    assert recording.path.exists() == (recording.removed_at is None)
    return recording.removed_at is None


# ---------------------------------------------------------------- sound


def test_sound_goes_when_its_days_are_over_and_the_text_stays(
    make: MakeJob, alice: User, settings: LazySettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.RETENTION_DAYS_AUDIO = 30
    old, young = make(days=31), make(days=29)
    with caplog.at_level("INFO"):
        retention.enforce()
    assert (has_sound(old), has_sound(young)) == (False, True)
    old.refresh_from_db()
    assert (old.status, old.text) == ("done", "Good day.")
    assert [(event.job, event.kind) for event in Event.objects.all()] == [(old, "removed")]
    (said,) = [record for record in caplog.records if record.name == "transcription.workers.retention"]
    assert "the sound of talk.ogg, RETENTION_DAYS_AUDIO=30" in said.getMessage()
    assert vars(said)["user"] == alice
    retention.enforce()
    assert Event.objects.count() == 1


def test_nothing_goes_unless_somebody_set_when(make: MakeJob) -> None:
    job = make(days=36_500)
    retention.enforce()
    assert has_sound(job)


@pytest.mark.parametrize(
    ("status", "days"),
    [*((status, None) for status in Job.UNFINISHED), ("done", 1), ("failed", 1), ("cancelled", 1)],
)
def test_the_last_of_a_recordings_jobs_decides(
    make: MakeJob, settings: LazySettings, status: str, days: float | None
) -> None:
    settings.RETENTION_DAYS_AUDIO = 30
    first = make(days=100)
    second = make(status, days, recording=first.recording)
    retention.enforce()
    assert has_sound(first)
    Job.objects.filter(pk=second.pk).update(status="failed", finished_at=timezone.now() - timedelta(days=30))
    retention.enforce()
    assert not has_sound(first)
    assert {event.job for event in Event.objects.filter(kind="removed")} == {first, second}


def test_a_job_that_is_tried_again_between_the_look_and_the_deed_keeps_its_sound(
    make: MakeJob, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.RETENTION_DAYS_AUDIO = 30
    job = make("failed", 31)
    deed = retention._mark_sound_removed

    def after_a_retry(*arguments: object) -> bool:
        assert jobs.retry(job)
        return deed(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(retention, "_mark_sound_removed", after_a_retry)
    retention.enforce()
    assert has_sound(job)
    assert not Event.objects.filter(kind="removed").exists()


def test_a_new_job_between_the_look_and_the_deed_keeps_the_sound(
    make: MakeJob, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.RETENTION_DAYS_AUDIO = 30
    job = make(days=31)
    deed = retention._mark_sound_removed

    def after_another(*arguments: object) -> bool:
        jobs.again(job.recording, model="nano", options=TranscriptionOptions())
        return deed(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(retention, "_mark_sound_removed", after_another)
    retention.enforce()
    assert has_sound(job)


def test_a_job_without_its_sound_is_not_tried_again(make: MakeJob, settings: LazySettings) -> None:
    settings.RETENTION_DAYS_AUDIO = 30
    job = make("cancelled", 31)
    retention.enforce()
    job = Job.objects.get(pk=job.pk)
    with pytest.raises(errors.RecordingMissing):
        jobs.retry(job)
    job.refresh_from_db()
    assert job.status == "cancelled"


def test_a_retry_of_who_has_not_seen_the_removal_fails_with_the_sentence(make: MakeJob, settings: LazySettings) -> None:
    settings.RETENTION_DAYS_AUDIO = 30
    job = make("cancelled", 31)
    assert job.recording.removed_at is None  # read by now, as a page has
    retention.enforce()
    assert jobs.retry(job)
    worker = Worker.objects.create(kind="default", queue="default", hostname="here", pid=1)
    claim = queue_jobs.claim_job(worker)
    assert claim is not None
    with pytest.raises(errors.RecordingMissing) as raised:
        pipeline.prepare(claim, SpeechFinder(), threading.Event())
    claim.retry(raised.value)
    job.refresh_from_db()
    assert (job.status, job.error_code) == ("failed", "recording_missing")


def test_a_file_that_cannot_be_removed_is_said_and_stops_nothing(
    make: MakeJob, settings: LazySettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.RETENTION_DAYS_AUDIO = 30
    first, second = make(days=31), make(days=31)
    unlink = Path.unlink

    def refuse_first(path: Path, **kwargs: bool) -> None:
        if path == first.recording.path:
            raise PermissionError(13, "Permission denied")
        unlink(path, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse_first)
        retention.enforce()
    assert "Permission denied" in caplog.text
    assert not has_sound(second)
    assert first.recording.path.exists()
    retention.remove_strays(time.time() + TOMORROW)
    assert not has_sound(first)


# ---------------------------------------------------------------- jobs


def test_a_job_goes_with_all_that_is_its_when_its_days_are_over(
    make: MakeJob, alice: User, settings: LazySettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.RETENTION_DAYS_JOBS = 90
    old, young, waiting = make("failed", 91), make("failed", 89), make("queued")
    with caplog.at_level("INFO"):
        retention.enforce()
    assert set(Job.objects.all()) == {young, waiting}
    assert not old.recording.path.exists()
    assert not Recording.objects.filter(pk=old.recording_id).exists()
    (said,) = [record for record in caplog.records if record.name == "transcription.workers.retention"]
    assert said.getMessage() == "deleted the job talk: RETENTION_DAYS_JOBS=90"
    assert (vars(said)["job"], vars(said)["user"]) == (old.pk, alice)


def test_a_recording_stays_while_another_job_has_it(make: MakeJob, settings: LazySettings) -> None:
    settings.RETENTION_DAYS_JOBS = 90
    old = make(days=91)
    young = make(days=1, recording=old.recording)
    retention.enforce()
    assert list(Job.objects.all()) == [young]
    assert has_sound(young)


def test_a_job_that_is_tried_again_between_the_look_and_the_deed_is_not_deleted(
    make: MakeJob, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.RETENTION_DAYS_JOBS = 90
    job = make("failed", 91)
    deed = jobs.delete

    def after_a_retry(found: Job, **kwargs: object) -> bool:
        assert jobs.retry(job)
        return deed(found, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs, "delete", after_a_retry)
    retention.enforce()
    job.refresh_from_db()
    assert job.status == "queued"
    assert has_sound(job)


# ---------------------------------------------------------------- strays


def put(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(b"sound")
    return path


def test_a_deleted_users_recordings_go(make: MakeJob, alice: User) -> None:
    paths = [make().recording.path, make("transcribing").recording.path]
    alice.delete()
    retention.remove_strays(time.time())
    assert all(path.exists() for path in paths)  # fresh
    retention.remove_strays(time.time() + 3700)
    assert not any(path.exists() for path in paths)


def test_what_a_row_needs_stays(make: MakeJob, settings: LazySettings) -> None:
    needed = [make(days=1000).recording.path]
    for status in Job.UNFINISHED:
        job = make(status)
        draft = f"{job.pk}.pcm.{uuid.uuid4().hex}.part"
        needed += [
            job.recording.path,
            put(settings.RECORDINGS_DIR, f"{job.pk}.pcm"),
            put(settings.RECORDINGS_DIR, draft),
            put(settings.RECORDINGS_DIR, f"{job.pk}.pcm-2"),
        ]
    retention.remove_strays(time.time() + TOMORROW)
    assert all(path.exists() for path in needed)


def test_decoded_sound_of_ended_and_deleted_jobs_goes(make: MakeJob, settings: LazySettings) -> None:
    folder = settings.RECORDINGS_DIR
    ended, deleted = make("failed", 1), uuid.uuid4()
    endings = ("", "-2", "-levels", f".{uuid.uuid4().hex}.part", f"-2.{uuid.uuid4().hex}.part")
    names = [f"{job_id}.pcm{ending}" for job_id in (ended.pk, deleted) for ending in endings]
    strays = [put(folder, name) for name in names]
    retention.remove_strays(time.time() + 3000)
    assert all(path.exists() for path in strays)
    retention.remove_strays(time.time() + 3700)
    assert not any(path.exists() for path in strays)
    assert has_sound(ended)


def test_a_name_that_is_not_ours_stays(settings: LazySettings) -> None:
    identity = uuid.uuid4()
    names = ["holiday.ogg", ".DS_Store", f"{identity}.ogg", f"{identity}.pcm.bak", f"{identity}".upper(), "0" * 32]
    foreign = [put(settings.RECORDINGS_DIR, name) for name in names]
    foreign += [put(settings.UPLOADS_DIR, name) for name in (".hidden", "thesis.odt", "my.upload", "tmpa1b2c3d4")]
    folder = settings.RECORDINGS_DIR / str(uuid.uuid4())
    folder.mkdir()
    link = settings.RECORDINGS_DIR / str(uuid.uuid4())
    link.symlink_to(foreign[0])
    retention.remove_strays(time.time() + 10 * TOMORROW)
    assert all(path.exists() for path in [*foreign, folder, link])


def test_uploads_that_never_ended_go_after_a_day(settings: LazySettings) -> None:
    upload = put(settings.UPLOADS_DIR, "tmpa1b2c3d4.upload")
    retention.remove_strays(time.time() + 23 * 3600)
    assert upload.exists()
    retention.remove_strays(time.time() + TOMORROW)
    assert not upload.exists()


def test_what_a_killed_process_was_making_goes_and_what_another_makes_stays(settings: LazySettings) -> None:
    making = """
import sys, pathlib
from django.conf import settings
from transcription import disk
settings.TEMPORARY_DIR = pathlib.Path(sys.argv[1])
with disk.temporary_folder() as folder:
    (folder / "sound.pcm").write_bytes(b"sound")
    print(folder, flush=True)
    input()
"""
    program = [sys.executable, "-c", making, str(settings.TEMPORARY_DIR)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        subprocess.Popen(program, text=True, cwd=ROOT, **pipes) as killed,
        subprocess.Popen(program, text=True, cwd=ROOT, **pipes) as other,
    ):
        folders = [Path(process.stdout.readline().strip()) for process in (killed, other) if process.stdout]
        killed.kill()
        killed.wait()
        retention.remove_strays(time.time())
        assert [folder.is_dir() for folder in folders] == [True, True]  # just made
        retention.remove_strays(time.time() + retention.FRESH_FOLDER + 1)
        assert [folder.is_dir() for folder in folders] == [False, True]
        other.communicate("\n")
        assert not folders[1].exists()


def test_copies_that_never_ended_go_after_an_hour(settings: LazySettings) -> None:
    copy = put(settings.RECORDINGS_DIR, f"{uuid.uuid4()}.copy")
    retention.remove_strays(time.time() + 3000)
    assert copy.exists()
    retention.remove_strays(time.time() + 3700)
    assert not copy.exists()


def test_a_file_that_was_just_renamed_is_fresh_whenever_it_was_written(settings: LazySettings) -> None:
    upload = put(settings.UPLOADS_DIR, "tmpa1b2c3d4.upload")
    written = time.time() - 5000
    os.utime(upload, (written, written))
    MigrationRecorder.Migration.objects.update(applied=timezone.now() - timedelta(days=1))
    kept = upload.rename(settings.RECORDINGS_DIR / str(uuid.uuid4()))
    retention.remove_strays(time.time())
    assert kept.exists()
    retention.remove_strays(time.time() + 3700)
    assert not kept.exists()


def test_recordings_older_than_the_database_are_left_for_the_one_that_knows_them(settings: LazySettings) -> None:
    recording = put(settings.RECORDINGS_DIR, str(uuid.uuid4()))
    os.utime(recording, (1e9, 1e9))  # long before this database was made
    retention.remove_strays(time.time() + TOMORROW)
    assert recording.exists()


def test_more_files_than_are_looked_at_at_once(
    make: MakeJob, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    kept = [make().recording.path for _ in range(3)]
    strays = [put(settings.RECORDINGS_DIR, str(uuid.uuid4())) for _ in range(5)]
    retention.remove_strays(time.time() + TOMORROW)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in strays)


# ---------------------------------------------------------------- many processes


ROWS = """
from datetime import timedelta
from django.contrib.auth.models import User
from django.utils import timezone
from transcription.models import Job, Recording

alice = User.objects.create_user("alice")
for index in range(40):
    recording = Recording.objects.create(owner=alice, original_name="talk.ogg", bytes=5, sha256="")
    recording.path.parent.mkdir(exist_ok=True)
    recording.path.write_bytes(b"sound")
    ended = timezone.now() - timedelta(days=10 + index)
    Job.objects.create(owner=alice, recording=recording, name="talk", options={}, status="done", finished_at=ended)
"""


@pytest.mark.heavy
def test_many_processes_at_once_remove_each_once(tmp_path: Path) -> None:
    days = {"RETENTION_DAYS_AUDIO": "20", "RETENTION_DAYS_JOBS": "40"}
    server = Server(tmp_path / "data", NANO, **days)
    server.prepare()
    assert server.manage("shell", "-v", "0", "-c", ROWS).returncode == 0
    program = [sys.executable, "manage.py", "shell", "-v", "0", "-c"]
    enforce = "from transcription.workers import retention; retention.enforce()"
    started = [
        subprocess.Popen([*program, enforce], cwd=ROOT, env=server.environment, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    assert server.rows("SELECT count(*), count(removed_at) FROM transcription_recording") == [(30, 20)]
    assert server.rows("SELECT count(*) FROM transcription_job") == [(30,)]
    assert server.rows("SELECT count(DISTINCT job_id), count(*) FROM transcription_event") == [(20, 20)]
    assert len(list((server.data / "recordings").iterdir())) == 10
    assert "".join(said).count("deleted the job") == 10
