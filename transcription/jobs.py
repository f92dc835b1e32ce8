"""The operations on jobs that all endpoints share: submit, transcribe again, cancel, retry, delete, wait."""

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

# How long a repeated request gets the job that is done already: without and with an idempotency key.
DONE_IS_KEPT_FOR_SECONDS = 10 * 60
KEY_IS_KEPT_FOR_SECONDS = 24 * 3600


class JobParameters(TypedDict, total=False):
    """The parameters of a new job; without a priority it gets this installation's default."""

    model: Required[str]
    options: Required[TranscriptionOptions]
    priority: Job.Priority
    engine: str  # empty: any
    device: str  # or a kind of device; empty: any
    warnings: list[str]
    improve: bool  # the text, with a language model
    callback_url: str  # gets a message when the job ends
    tags: list[str]
    batch: Batch | None


@dataclass(frozen=True)
class RequestKey:
    """Recognises a request that is sent again."""

    digest: str  # of the user and of everything that the text depends on
    key: str = ""  # the idempotency key, if the client sent one


class KeyTaken(Exception):
    """The idempotency key belongs to an earlier request with other contents."""


class UploadGone(Exception):
    """The upload no longer exists: another job has taken it, or it was removed."""


class StoredFile(Protocol):
    """A complete file on our disk: from a form, or an Upload that came in chunks."""

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

    `container` is audio.RAW for PCM without a header; FFmpeg recognises everything else. With a request key, a repeated
    request gets the job of the first one, unless that failed or was done long ago. An Upload goes to one job only, even
    if several requests name it at once. Raises RetryLater, KeyTaken, UploadGone.
    """
    stored = Path(upload.temporary_file_path())
    recording = Recording(
        owner_id=owner.pk,
        original_name=upload.name or "",
        bytes=upload.size or 0,
        sha256=upload.sha256,
        container=container,
    )
    _store(stored, recording.path)
    try:
        with transaction.atomic():
            job = None if request_key is None else earlier(owner, request_key)
            if job is None:
                quotas.lock(owner)
                quotas.check_queue(owner)
                quotas.check_uploads(owner)
                if isinstance(upload, Upload) and not Upload.objects.filter(pk=upload.pk).delete()[0]:
                    raise UploadGone
                transaction.on_commit(partial(stored.unlink, missing_ok=True), robust=True)
                recording.save(force_insert=True)
                return _queue(recording, name or recording.original_name, job_parameters, request_key)
    except BaseException:
        recording.path.unlink(missing_ok=True)
        raise
    recording.path.unlink(missing_ok=True)
    return job


def earlier(owner: AbstractBaseUser, request_key: RequestKey) -> Job | None:
    """The job that the same request made earlier, or None. Raises KeyTaken.

    The outermost transaction holds a lock on the owner to its end, so that two requests at one instant make one job.
    """
    if request_key.key:
        is_same, seconds = Q(idempotency_key=request_key.key), KEY_IS_KEPT_FOR_SECONDS
    else:
        is_same, seconds = Q(request_digest=request_key.digest, idempotency_key=""), DONE_IS_KEPT_FOR_SECONDS
    is_recent = Q(status__in=Job.UNFINISHED) | Q(status=Job.Status.DONE, finished_at__gt=clock.after(-seconds))
    with transaction.atomic():
        # SQLite has no such lock and needs none: its transactions begin IMMEDIATE.
        get_user_model().objects.select_for_update(no_key=True).get(pk=owner.pk)
        job = Job.objects.filter(is_recent, is_same, owner_id=owner.pk).first()
        if job is not None and job.request_digest != request_key.digest:
            raise KeyTaken
        return job


def again(
    recording: Recording,
    *,
    name: str = "",
    request_key: RequestKey | None = None,
    **job_parameters: Unpack[JobParameters],
) -> Job:
    """Queue a new job for a stored recording; its other jobs keep their text.

    Without a name it gets that of the recording's newest job. With a request key, a repeated request gets the job of
    the first one. Raises RecordingMissing, QueueFull, KeyTaken.
    """
    with transaction.atomic():
        if request_key is not None and (job := earlier(recording.owner, request_key)) is not None:
            return job
        quotas.lock(recording.owner)  # before the recording, as everywhere
        quotas.check_queue(recording.owner)
        current = _lock_recording(recording)
        if current is None or current.removed_at is not None or not current.path.exists():
            raise errors.RecordingMissing
        name = name or current.jobs.values_list("name", flat=True).first() or current.original_name
        return _queue(current, name, job_parameters, request_key)


def _queue(
    recording: Recording, name: str, job_parameters: JobParameters, request_key: RequestKey | None = None
) -> Job:
    """Store a job of a recording, and wake a worker on commit."""
    job = Job(
        owner_id=recording.owner_id,
        recording=recording,
        name=name,
        searchable=search.folded(name),
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
    job.save(force_insert=True)
    if tags := job_parameters.get("tags"):
        tag(job, tags)
    history.note(job.pk, "queued")
    transaction.on_commit(wakeups.ring_default, robust=True)
    return job


def _lock_recording(recording: Recording) -> Recording | None:
    """Read the recording again and lock it; None if it is gone. Until the transaction ends it gets no other job."""
    # SQLite has no such lock and needs none: its transactions begin IMMEDIATE. A stronger lock could deadlock: when a
    # worker writes a job that it holds, PostgreSQL looks whether the job's recording exists.
    return Recording.objects.select_for_update(no_key=True).defer("peaks").filter(pk=recording.pk).first()


def _lock_jobs(jobs: QuerySet[Job]) -> list[uuid.UUID]:
    """Lock jobs in the order of their ids, and before their sections, as the queue does; return the ids."""
    return list(jobs.select_for_update(of=("self",)).order_by("pk").values_list("pk", flat=True))


def _store(stored: Path, target: Path) -> None:
    """Give an uploaded file its place, so that it survives a power cut. Raises DiskFull, UploadGone.

    The old name stays until the rows are committed: if the process is killed before that, the upload is still complete.
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


def tag(job: Job, names: Iterable[str]) -> None:
    """Replace a job's tags."""
    job.tags.set([Tag.objects.get_or_create(owner_id=job.owner_id, name=name)[0] for name in names])


def change(job: Job, *, tags: Iterable[str] | None = None, **columns: str) -> None:
    """Change a job's name, notes or tags; leave the others as they are."""
    with transaction.atomic():
        if columns:
            Job.objects.filter(pk=job.pk).update(**columns)
            search.index(job.pk)
        if tags is not None:
            tag(job, tags)


def cancel(job: Job) -> bool:
    """Stop an unfinished job within seconds and keep its text so far. Return whether it was unfinished."""
    return queue_jobs.cancel(job.pk)


def retry(job: Job) -> bool:
    """Queue a failed or cancelled job again with its parameters; return False if it is neither.

    Raises RecordingMissing if retention has removed the sound, and QueueFull.
    """
    if job.recording.removed_at is not None:
        raise errors.RecordingMissing
    with transaction.atomic():
        if Job.objects.filter(pk=job.pk, status__in=(Job.Status.FAILED, Job.Status.CANCELLED)).exists():
            quotas.lock(job.owner)
            quotas.check_queue(job.owner)
        return queue_jobs.retry(job.pk)  # if the file is removed just now, preparing fails with RecordingMissing


def delete(job: Job, *, only: QuerySet[Job] | None = None) -> bool:
    """Delete a job, its text, and its recording if no other job has it; a worker that is on it stops by itself.

    Return False if the job is gone or, with `only`, no longer in that queryset.
    """
    recording = job.recording
    path, pcms = recording.path, job.pcm_paths  # a deleted row has no id to make its path from
    with transaction.atomic():
        _lock_recording(recording)
        if not _lock_jobs((Job.objects.all() if only is None else only).filter(pk=job.pk)):
            return False
        job.delete()
        is_last = not recording.jobs.exists()
        if is_last:
            recording.delete()
    # Rows first, files second: a file without a row is harmless, a row without its file is not.
    for pcm in pcms:
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
    """Delete a recording, its jobs and their texts; return their files, for the caller to delete after the commit."""
    path = recording.path  # a deleted row has no id to make its path from
    _lock_recording(recording)
    _lock_jobs(Job.objects.filter(recording=recording))
    pcms = [pcm for job in recording.jobs.only("pk") for pcm in job.pcm_paths]
    recording.delete()
    return [*pcms, path]


async def wait(job_id: uuid.UUID) -> Job:
    """Return the job when it has ended. Raises Job.DoesNotExist if it is deleted before that."""
    jobs = Job.objects.select_related("recording").defer("searchable", "recording__peaks")
    while not (job := await jobs.aget(pk=job_id)).is_ended:
        async with watching(job_id) as watched:
            await watched.end()
    return job
