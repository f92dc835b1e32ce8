"""What is removed by itself: sound and jobs past the administrator's limits, and files without a row.

Rows are deleted before files: a file without a row is removed by the next run, but a row without its file would be a
loss. Safe to run in any number of processes at once: each removal checks the rows again in its own transaction.
"""

import logging
import re
import shutil
import stat
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Exists, Min, OuterRef, QuerySet
from django.utils import timezone

from transcription import disk, history, jobs
from transcription.models import Delivery, Job, Recording, Upload

log = logging.getLogger(__name__)

AT_ONCE = 100  # rows, so that a first run over years of them needs little memory
DELIVERIES_KEPT_DAYS = 30

# Seconds for which a file that was changed is kept whatever the rows say: a submit names a file before it commits the
# row.
FRESH_UPLOAD, FRESH_RECORDING = 24 * 3600, 3600
FRESH_FOLDER = 60  # a temporary folder is made a moment before it is locked

RECORDING_NAME = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
COPY_NAME = re.compile(RECORDING_NAME.pattern + r"\.copy")
UPLOAD_NAME = re.compile(r"tmp[a-z0-9_]{8}\.upload")
PART_NAME = re.compile(RECORDING_NAME.pattern + r"\.part")
PCM_NAME = re.compile(RECORDING_NAME.pattern + r"\.pcm(?:-[a-z0-9]+)?(?:\.[0-9a-f]{32}\.part)?")


def enforce() -> None:
    """Remove everything that is not to be kept any longer."""
    if settings.RETENTION_DAYS_JOBS:
        _delete_jobs(settings.RETENTION_DAYS_JOBS)
    if settings.RETENTION_DAYS_AUDIO:
        _remove_sounds(settings.RETENTION_DAYS_AUDIO)
    _end_uploads()
    # The log of webhooks is there to find out what went wrong, not for ever.
    Delivery.objects.filter(ended_at__lte=_ago(DELIVERIES_KEPT_DAYS)).delete()
    remove_strays(time.time())


def _end_uploads() -> None:
    due = Upload.objects.filter(expires_at__lte=timezone.now())
    while uploads := list(due.select_related("owner")[:AT_ONCE]):
        for upload in uploads:
            if due.filter(pk=upload.pk).delete()[0]:  # unless a chunk has come meanwhile, or a job has taken it
                _remove(upload.path, f"{upload.original_name}, whose upload has expired", user=upload.owner)


def _delete_jobs(days: int) -> None:
    due = Job.objects.filter(status__in=Job.ENDED, finished_at__lte=_ago(days))
    due = due.select_related("recording", "owner").defer("text", "notes", "searchable", "recording__peaks")
    while batch := list(due[:AT_ONCE]):
        for job in batch:
            subjects = {"job": job.pk, "user": job.owner}
            if jobs.delete(job, only=due):
                log.info("deleted the job %s: RETENTION_DAYS_JOBS=%s", job.name, days, extra=subjects)


def _remove_sounds(days: int) -> None:
    own = Job.objects.filter(recording=OuterRef("pk"))
    not_due = own.exclude(status__in=Job.ENDED, finished_at__lte=_ago(days))
    due = Recording.objects.filter(Exists(own), ~Exists(not_due), removed_at=None)
    reason = f"RETENTION_DAYS_AUDIO={days}"
    while recordings := list(due.select_related("owner").defer("peaks")[:AT_ONCE]):
        for recording in recordings:
            if _mark_sound_removed(recording, due, reason):
                _remove(recording.path, f"the sound of {recording.original_name}, {reason}", user=recording.owner)


def _ago(days: int) -> datetime:
    return timezone.now() - timedelta(days=days)


def _mark_sound_removed(recording: Recording, due: QuerySet[Recording], reason: str) -> bool:
    """Note that a recording has no sound any more, if it is still due; return whether this call did it."""
    with transaction.atomic():
        # With these locks, a request to retry one of its jobs or to add one waits, and then finds the sound removed.
        # SQLite has no such locks and needs none: its transactions begin IMMEDIATE.
        list(Recording.objects.select_for_update(no_key=True).filter(pk=recording.pk).values_list("pk"))
        its_jobs = Job.objects.select_for_update(no_key=True).filter(recording=recording).order_by("pk")
        job_ids = list(its_jobs.values_list("pk", flat=True))
        won = bool(due.filter(pk=recording.pk).update(removed_at=timezone.now()))
        if won:
            for job_id in job_ids:
                history.note(job_id, "removed", f"the sound, by {reason}")
    return won


def _remove(path: Path, reason: str, **subjects: object) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # the next run tries again: it is a stray now
        log.warning("could not remove %s (%s): %s", path, reason, error, extra=subjects)
    else:
        log.info("removed %s: %s", path, reason, extra=subjects)


# ---------------------------------------------------------------- files without a row


def remove_strays(now: float) -> None:
    """Remove what ended uploads, deleted users and killed processes left; a file with a name of another form stays."""
    for folder in disk.abandoned_folders(now - FRESH_FOLDER):
        shutil.rmtree(folder, ignore_errors=True)  # the next run tries again what stays
        log.info("removed %s: a process was killed that made something in it", folder)
    for path in _untouched(settings.UPLOADS_DIR, now - FRESH_UPLOAD):
        if UPLOAD_NAME.fullmatch(path.name):
            _remove(path, "an upload that was never finished")
    for path in _unneeded(settings.UPLOADS_DIR, PART_NAME, Upload.objects.all(), now - FRESH_UPLOAD):
        _remove(path, "an upload in chunks that no row has")
    before = now - FRESH_RECORDING
    created = MigrationRecorder.Migration.objects.aggregate(first=Min("applied"))["first"].timestamp()
    with_sound = Recording.objects.filter(removed_at=None)
    for path in _unneeded(settings.RECORDINGS_DIR, RECORDING_NAME, with_sound, before):
        # A file that is older than the database belongs to another one, which may be restored.
        if _modified_at(path) >= created:
            _remove(path, "a recording that no row has")
    for path in _untouched(settings.RECORDINGS_DIR, before):
        if COPY_NAME.fullmatch(path.name):
            _remove(path, "a copy that was never finished")
    unfinished = Job.objects.filter(status__in=Job.UNFINISHED)
    for path in _unneeded(settings.RECORDINGS_DIR, PCM_NAME, unfinished, before):
        _remove(path, "decoded sound that no job needs")


def _modified_at(path: Path) -> float:
    """When a file was modified; 0 if it is gone."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def _unneeded(
    folder: Path,
    name: re.Pattern[str],
    rows: QuerySet[Recording] | QuerySet[Job] | QuerySet[Upload],
    before: float,
) -> Iterator[Path]:
    """A folder's files with names of this form, unchanged since `before`, for whose ids `rows` has no row."""
    matches = ((path, name.fullmatch(path.name)) for path in _untouched(folder, before))
    files = ((path, UUID(match[1])) for path, match in matches if match)
    while batch := list(islice(files, AT_ONCE)):
        needed = set(rows.filter(pk__in=[row for _, row in batch]).values_list("pk", flat=True))
        # Checked once more: a job may have been retried and decoded in the meantime.
        yield from (path for path, row in batch if row not in needed and _is_untouched(path, before))


def _untouched(folder: Path, before: float) -> Iterator[Path]:
    files = folder.iterdir() if folder.is_dir() else ()
    return (path for path in files if not path.name.startswith(".") and _is_untouched(path, before))


def _is_untouched(path: Path, before: float) -> bool:
    """Whether it is a file that was neither written nor renamed since `before`; ctime shows both, mtime does not."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_ctime < before
