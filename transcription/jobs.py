"""What every endpoint does with jobs: submit, transcribe again, cancel, retry, delete, wait."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, Required, TypedDict, Unpack

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models import Q, QuerySet

from transcription import clock, disk, errors, history
from transcription.models import Batch, Job, Recording, Tag, Upload
from transcription.queue import jobs as queue_jobs
from transcription.queue import quotas, wakeups
from transcription.text import search
from transcription.watcher import watching
from transcription.whisper.options import TranscriptionOptions

# How long a done job answers a request that comes once more, and one that comes with its key.
DONE_IS_KEPT_FOR_SECONDS = 10 * 60
KEY_IS_KEPT_FOR_SECONDS = 24 * 3600


class JobParameters(TypedDict, total=False):
    """What somebody wants of a job; without a priority it has this installation's default."""

    model: Required[str]
    options: Required[TranscriptionOptions]
    priority: Job.Priority
    engine: str  # empty: any
    device: str  # or its kind; empty: any
    warnings: list[str]
    improve: bool  # the text, with a language model
    callback_url: str  # to be told of its end
    tags: list[str]
    batch: Batch | None


@dataclass(frozen=True)
class RequestKey:
    """By what a request is known when it comes once more: what it asks, and the key that its client may have given it.

    `digest` is of everything that the text depends on, and of who asks.
    """

    digest: str
    key: str = ""


class KeyTaken(Exception):
    """A client gave the key of an earlier request to another one."""


class UploadGone(Exception):
    """What was uploaded is not there any more: another job has it, or it was removed."""


class StoredFile(Protocol):
    """What somebody gave, whole on our disk: a file out of a form, or an Upload that came in chunks."""

    @property
    def name(self) -> str | None: ...

    @property
    def size(self) -> int | None: ...

    @property
    def sha256(self) -> str: ...

    def temporary_file_path(self) -> str: ...


def submit(
    owner: AbstractBaseUser,
    upload: StoredFile,
    *,
    name: str = "",
    container: str = "",
    request_key: RequestKey | None = None,
    **job_parameters: Unpack[JobParameters],
) -> Job:
    """Store an upload and queue a job for it; when this returns, the file is on disk and the rows are committed.

    `container` is audio.RAW for sound that does not say what it is; FFmpeg finds out what everything else is. With a
    request key, a request that has come before gets the job that it got then, unless that failed or is long done. An
    Upload goes to one job only, however many ask at once. Raises RetryLater, KeyTaken, UploadGone.
    """
    stored = Path(upload.temporary_file_path())
    recording = Recording(
        owner_id=owner.pk,
        original_name=upload.name or "",
        bytes=upload.size or 0,
        sha256=upload.sha256,
        container=container,
    )
    _keep(stored, recording.path)
    try:
        with transaction.atomic():
            job = None if request_key is None else _earlier(owner, request_key)
            if job is None:
                quotas.lock(owner)
                quotas.check_queue(owner)
                quotas.check_uploads(owner)
                if isinstance(upload, Upload):
                    _use_up(upload)
                transaction.on_commit(partial(stored.unlink, missing_ok=True), robust=True)
                recording.save(force_insert=True)
                return _queue(
                    recording,
                    _job(name or recording.original_name, job_parameters, request_key),
                    job_parameters.get("tags", []),
                )
    except BaseException:
        recording.path.unlink(missing_ok=True)
        raise
    recording.path.unlink(missing_ok=True)
    return job


def _earlier(owner: AbstractBaseUser, request_key: RequestKey) -> Job | None:
    """The job that this request made when it came before. Until the transaction ends no other of its owner is marked.

    Raises KeyTaken.
    """
    # Two at the same instant make one job. SQLite has no such lock and needs none: its transactions begin IMMEDIATE.
    get_user_model().objects.select_for_update(no_key=True).get(pk=owner.pk)
    named = (
        Q(idempotency_key=request_key.key)
        if request_key.key
        else Q(request_digest=request_key.digest, idempotency_key="")
    )
    kept = KEY_IS_KEPT_FOR_SECONDS if request_key.key else DONE_IS_KEPT_FOR_SECONDS
    lately = Q(status__in=Job.UNFINISHED) | Q(status=Job.Status.DONE, finished_at__gt=clock.after(-kept))
    found = Job.objects.filter(lately, named, owner_id=owner.pk).first()
    if found is not None and found.request_digest != request_key.digest:
        raise KeyTaken
    return found


def earlier(owner: AbstractBaseUser, request_key: RequestKey) -> Job | None:
    """The job that a request made when it came before, or None. Raises KeyTaken."""
    with transaction.atomic():
        return _earlier(owner, request_key)


def again(
    recording: Recording,
    *,
    name: str = "",
    request_key: RequestKey | None = None,
    **job_parameters: Unpack[JobParameters],
) -> Job:
    """Queue a new job for a recording that is here; its other jobs keep their text.

    Without a name it gets that of the recording's newest job. With a request key, a request that has come before gets
    the job that it got then. Raises RecordingMissing, QueueFull, KeyTaken.
    """
    with transaction.atomic():
        if request_key is not None and (job := _earlier(recording.owner, request_key)) is not None:
            return job
        quotas.lock(recording.owner)  # first: whoever locks both rows locks the user's before the recording's
        quotas.check_queue(recording.owner)
        kept = _hold(recording)
        if kept is None or kept.removed_at is not None or not kept.path.exists():
            raise errors.RecordingMissing
        name = name or kept.jobs.values_list("name", flat=True).first() or kept.original_name
        return _queue(kept, _job(name, job_parameters, request_key), job_parameters.get("tags", []))


def _job(name: str, job_parameters: JobParameters, request_key: RequestKey | None = None) -> Job:
    return Job(
        name=name,
        model=job_parameters["model"],
        options=job_parameters["options"].to_json(),
        priority=job_parameters.get("priority", Job.Priority[settings.DEFAULT_PRIORITY.upper()]),
        asked_engine=job_parameters.get("engine", ""),
        asked_device=job_parameters.get("device", ""),
        warnings=job_parameters.get("warnings", []),
        is_to_be_improved=job_parameters.get("improve", settings.DEFAULT_UPGRADE_TRANSCRIBATION),
        callback_url=job_parameters.get("callback_url", ""),
        batch=job_parameters.get("batch"),
        latest_start=queue_jobs.latest_start(),
        request_digest=request_key.digest if request_key else "",
        idempotency_key=request_key.key if request_key else "",
    )


def _hold(recording: Recording) -> Recording | None:
    """The recording as it is now, or None: until the transaction ends it neither goes nor gets another job."""
    # SQLite has no such lock and needs none: its transactions begin IMMEDIATE. No stronger one: a worker that holds one
    # of its jobs has PostgreSQL look whether the recording is there, and must not wait for who waits for the job.
    return Recording.objects.select_for_update(no_key=True).defer("peaks").filter(pk=recording.pk).first()


def _lock(jobs: QuerySet[Job], **which: object) -> list[uuid.UUID]:
    """Lock jobs' rows before those that go with them: a worker locks a job before its sections too."""
    rows = jobs.select_for_update(of=("self",)).filter(**which).order_by("pk")
    return list(rows.values_list("pk", flat=True))


def _use_up(upload: Upload) -> None:
    if not Upload.objects.filter(pk=upload.pk).delete()[0]:
        raise UploadGone


def _keep(stored: Path, target: Path) -> None:
    """Have a file at its place so that it survives a power cut; its first name stays until the rows are stored.

    So whoever is killed in between still has an upload whose row is there. Raises DiskFull, UploadGone.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with disk.full_disk_is_a_problem():
            disk.link_or_copy(stored, target)
            disk.sync_file(target)
            disk.sync_folder(target.parent)
    except FileNotFoundError as error:
        raise UploadGone from error
    except (OSError, errors.DiskFull):
        target.unlink(missing_ok=True)
        raise


def _queue(recording: Recording, job: Job, tags: list[str]) -> Job:
    """Store a job of a recording and wake a worker on commit."""
    job.owner_id, job.recording = recording.owner_id, recording
    job.searchable = search.folded(job.name)
    job.save(force_insert=True)
    if tags:
        tag(job, tags)
    history.note(job.pk, "queued")
    transaction.on_commit(_ring, robust=True)
    return job


def tag(job: Job, names: Iterable[str]) -> None:
    """Give a job these tags and no others."""
    job.tags.set([Tag.objects.get_or_create(owner_id=job.owner_id, name=name)[0] for name in names])


def _ring() -> None:
    wakeups.ring(wakeups.DEFAULT_QUEUE)


def change(job: Job, *, tags: Iterable[str] | None = None, **columns: str) -> None:
    """Change a job's name, notes or tags; what is not given stays."""
    with transaction.atomic():
        if columns:
            Job.objects.filter(pk=job.pk).update(**columns)
            search.index(job.pk)
        if tags is not None:
            tag(job, tags)


def cancel(job: Job) -> bool:
    """Stop an unfinished job within seconds; its text so far is kept. Return whether there was anything to stop."""
    return queue_jobs.cancel(job.pk)


def retry(job: Job) -> bool:
    """Queue a failed or cancelled job again as it was asked for; return False if it is neither.

    Raises RecordingMissing when retention has removed the sound, and QueueFull.
    """
    if job.recording.removed_at is not None:
        raise errors.RecordingMissing
    with transaction.atomic():
        if Job.objects.filter(pk=job.pk, status__in=(Job.Status.FAILED, Job.Status.CANCELLED)).exists():
            quotas.lock(job.owner)
            quotas.check_queue(job.owner)
        return queue_jobs.retry(job.pk)  # if the sound goes just now, preparing fails with the same


def delete(job: Job, *, only: QuerySet[Job] | None = None) -> bool:
    """Delete a job, its text, and its recording when no other job has it; a worker that is on it stops by itself.

    With `only`, it must still be one of these; return False if it is not.
    """
    recording = job.recording
    path, pcm = recording.path, job.pcm_path  # a deleted row has no key to make its path of
    with transaction.atomic():
        _hold(recording)
        if not _lock(Job.objects.all() if only is None else only, pk=job.pk):
            return False
        job.delete()
        is_last = not recording.jobs.exists()
        if is_last:
            recording.delete()
    # Rows first, files second: a file without a row is harmless, a row without its file is not.
    pcm.unlink(missing_ok=True)
    if is_last:
        path.unlink(missing_ok=True)
    return True


def delete_recording(recording: Recording) -> None:
    """Delete a recording, its jobs and their texts; workers that are on one stop by themselves."""
    with transaction.atomic():
        files = delete_rows_of(recording)
    for file in files:
        file.unlink(missing_ok=True)


def delete_rows_of(recording: Recording) -> list[Path]:
    """Delete the rows of a recording; return its files, which go when the transaction has ended."""
    path = recording.path  # a deleted row has no key to make its path of
    _hold(recording)
    _lock(Job.objects.all(), recording=recording)
    pcms = [job.pcm_path for job in recording.jobs.only("pk")]
    recording.delete()
    return [*pcms, path]


async def wait(job_id: uuid.UUID) -> Job:
    """Return the job when it has ended. Raises Job.DoesNotExist if it is deleted meanwhile."""
    found = Job.objects.select_related("recording").defer("searchable", "recording__peaks")
    while not (job := await found.aget(pk=job_id)).is_ended:
        async with watching(job_id) as watched:
            await watched.end()
    return job
