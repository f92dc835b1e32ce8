"""What every door does with jobs: submit, cancel, retry, delete, wait."""

import asyncio
import errno
import os
import shutil
import uuid
from pathlib import Path

from django.contrib.auth.models import AbstractBaseUser
from django.core.files.uploadedfile import UploadedFile
from django.db import transaction

from transcription import errors, queue
from transcription.models import Job, Recording
from transcription.whisper.options import TranscriptionOptions

# How often a waiting door looks at its row: at once for a voice message, seldom for a lecture. Seconds.
FIRST_LOOK, LAST_LOOK = 0.05, 1.0


def submit(
    owner: AbstractBaseUser,
    upload: UploadedFile,
    *,
    model: str,
    options: TranscriptionOptions,
    name: str = "",
    priority: Job.Priority = Job.Priority.NORMAL,
) -> Job:
    """Store an upload and queue a job for it; when this returns, the file is on disk and the rows are committed.

    The upload must have been taken by HashingUploadHandler. Raises DiskFull.
    """
    recording = Recording(
        owner_id=owner.pk,
        original_name=upload.name or "",
        bytes=upload.size or 0,
        sha256=upload.sha256,  # type: ignore[attr-defined]  # set by HashingUploadHandler
    )
    _keep(Path(upload.temporary_file_path()), recording.path)  # type: ignore[attr-defined]
    try:
        job = Job(name=name or recording.original_name, model=model, options=options.to_json(), priority=priority)
        return _queue(recording, job)
    except BaseException:
        recording.path.unlink(missing_ok=True)
        raise


def _keep(upload: Path, target: Path) -> None:
    """Move a file to its place so that it survives a power cut."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with upload.open("rb") as file:
            os.fsync(file.fileno())
        shutil.move(upload, target)
        _sync_folder(target.parent)
    except OSError as error:
        target.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.DiskFull from error
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _queue(recording: Recording, job: Job) -> Job:
    job.owner_id, job.recording = recording.owner_id, recording
    with transaction.atomic():
        recording.save(force_insert=True)
        job.save(force_insert=True)
        queue.note(job.pk, "queued")
        transaction.on_commit(_ring, robust=True)
    return job


def _ring() -> None:
    queue.ring(queue.DEFAULT_QUEUE)


def cancel(job: Job) -> bool:
    """Stop an unfinished job within seconds; its text so far is kept. Return whether there was anything to stop."""
    return queue.cancel(job.pk)


def retry(job: Job) -> bool:
    """Queue a failed or cancelled job again as it was asked for; return False if it is neither."""
    return queue.retry(job.pk)


def delete(job: Job) -> None:
    """Delete a job, its text, and its recording when no other job has it; a worker that is on it stops by itself."""
    recording = job.recording
    path, pcm = recording.path, job.pcm_path  # a deleted row has no key to make its path of
    with transaction.atomic():
        job.delete()
        is_last = not recording.jobs.exists()
        if is_last:
            recording.delete()
    # Rows first, files second: a file without a row is harmless, a row without its file is not.
    pcm.unlink(missing_ok=True)
    if is_last:
        path.unlink(missing_ok=True)


async def wait(job_id: uuid.UUID) -> Job:
    """Return the job when it has ended. Raises Job.DoesNotExist if it is deleted meanwhile."""
    pause = FIRST_LOOK
    while True:
        job = await Job.objects.select_related("recording").aget(pk=job_id)
        if job.is_ended:
            return job
        await asyncio.sleep(pause)
        pause = min(LAST_LOOK, pause * 1.2)
