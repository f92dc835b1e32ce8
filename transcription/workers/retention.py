"""What goes by itself: sound and jobs older than the administrator has them kept, and files that are nobody's.

Rows first, files second: a file without a row goes at the next run, a row without its file would be a loss. Safe to run
by any number of processes at once: each removal asks the rows again in the transaction that does it.
"""

import logging
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
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

AT_ONCE = 100  # rows, so that a first run over years of them takes no memory
DELIVERIES_KEPT_DAYS = 30

# For so many seconds after it was touched a file is left alone whatever the rows say: a submit gives it its name before
# the row is committed.
FRESH_UPLOAD, FRESH_RECORDING = 24 * 3600, 3600
FRESH_FOLDER = 60  # a temporary folder is made a moment before it is held

RECORDING_NAME = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
COPY_NAME = re.compile(RECORDING_NAME.pattern + r"\.copy")
UPLOAD_NAME = re.compile(r"tmp[a-z0-9_]{8}\.upload")
PART_NAME = re.compile(RECORDING_NAME.pattern + r"\.part")
PCM_NAME = re.compile(RECORDING_NAME.pattern + r"\.pcm(?:\.[0-9a-f]{32}\.part)?")


def enforce() -> None:
    """Remove whatever is not to be kept any longer."""
    if settings.RETENTION_DAYS_JOBS:
        _delete_jobs(settings.RETENTION_DAYS_JOBS)
    if settings.RETENTION_DAYS_AUDIO:
        _remove_sounds(settings.RETENTION_DAYS_AUDIO)
    _end_uploads()
    _forget_deliveries()
    remove_strays(time.time())


def _end_uploads() -> None:
    due = Upload.objects.filter(expires_at__lte=timezone.now())
    while found := list(due.select_related("owner")[:AT_ONCE]):
        for upload in found:
            if due.filter(pk=upload.pk).delete()[0]:  # no chunk of it has come meanwhile, and no job taken it
                _remove(upload.path, f"{upload.original_name}, whose upload has expired", user=upload.owner)


def _forget_deliveries() -> None:
    """The log of webhooks is there to find out what went wrong, not for ever."""
    Delivery.objects.filter(ended_at__lte=_ago(DELIVERIES_KEPT_DAYS)).delete()


def _delete_jobs(days: int) -> None:
    due = Job.objects.filter(status__in=Job.ENDED, finished_at__lte=_ago(days))
    due = due.select_related("recording", "owner").defer("text", "notes", "searchable", "recording__peaks")
    while found := list(due[:AT_ONCE]):
        for job in found:
            about = {"job": job.pk, "user": job.owner}
            if jobs.delete(job, only=due):
                log.info("deleted the job %s: RETENTION_DAYS_JOBS=%s", job.name, days, extra=about)


def _remove_sounds(days: int) -> None:
    own = Job.objects.filter(recording=OuterRef("pk"))
    others = own.exclude(status__in=Job.ENDED, finished_at__lte=_ago(days))
    due = Recording.objects.filter(Exists(own), ~Exists(others), removed_at=None)
    why = f"RETENTION_DAYS_AUDIO={days}"
    while found := list(due.select_related("owner").defer("peaks")[:AT_ONCE]):
        for recording in found:
            if _give_up_sound(recording, due, why):
                _remove(recording.path, f"the sound of {recording.original_name}, {why}", user=recording.owner)


def _ago(days: int) -> datetime:
    return timezone.now() - timedelta(days=days)


def _give_up_sound(recording: Recording, due: QuerySet[Recording], why: str) -> bool:
    """Note that a recording has no sound any more, if it is still due; return whether this call did it."""
    with transaction.atomic():
        # Who would try one of its jobs again, or add one, waits until this is committed, and finds the sound gone.
        # SQLite has no such locks and needs none: its transactions begin IMMEDIATE.
        list(Recording.objects.select_for_update(no_key=True).filter(pk=recording.pk).values_list("pk"))
        jobs_of_it = Job.objects.select_for_update(no_key=True).filter(recording=recording).order_by("pk")
        held = list(jobs_of_it.values_list("pk", flat=True))
        won = bool(due.filter(pk=recording.pk).update(removed_at=timezone.now()))
        for job_id in held if won else ():
            history.note(job_id, "removed", f"the sound, by {why}")
    return won


def _remove(path: Path, why: str, **about: object) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # as a stray it is tried again each hour
        log.warning("could not remove %s (%s): %s", path, why, error, extra=about)
    else:
        log.info("removed %s: %s", path, why, extra=about)


# ---------------------------------------------------------------- files that are nobody's


def remove_strays(now: float) -> None:
    """Remove what ended uploads, deleted users and killed processes left; a file whose name is not ours stays."""
    for folder in disk.abandoned_folders(now - FRESH_FOLDER):
        shutil.rmtree(folder, ignore_errors=True)  # what stays is tried again each hour
        log.info("removed %s: a process was killed that made something in it", folder)
    for path in _untouched(settings.UPLOADS_DIR, now - FRESH_UPLOAD):
        if UPLOAD_NAME.fullmatch(path.name):
            _remove(path, "an upload that was never finished")
    for path in _unneeded(settings.UPLOADS_DIR, PART_NAME, _uploads_of, now - FRESH_UPLOAD):
        _remove(path, "an upload in pieces that no row has")
    before = now - FRESH_RECORDING
    born = _birth_of_the_database()
    for path in _unneeded(settings.RECORDINGS_DIR, RECORDING_NAME, _with_sound, before):
        # What was written before the database was made came with another one, and may be meant to go back to it.
        if _written(path) >= born:
            _remove(path, "a recording that no row has")
    for path in _untouched(settings.RECORDINGS_DIR, before):
        if COPY_NAME.fullmatch(path.name):
            _remove(path, "a copy that was never finished")
    for path in _unneeded(settings.RECORDINGS_DIR, PCM_NAME, _unfinished, before):
        _remove(path, "decoded sound that no job needs")


def _birth_of_the_database() -> float:
    first = MigrationRecorder.Migration.objects.aggregate(first=Min("applied"))["first"]
    return float(first.timestamp())


def _written(path: Path) -> float:
    """When; never for a file that has gone meanwhile."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def _with_sound(ids: list[UUID]) -> QuerySet[Recording]:
    return Recording.objects.filter(pk__in=ids, removed_at=None)


def _uploads_of(ids: list[UUID]) -> QuerySet[Upload]:
    return Upload.objects.filter(pk__in=ids)


def _unfinished(ids: list[UUID]) -> QuerySet[Job]:
    return Job.objects.filter(pk__in=ids, status__in=Job.UNFINISHED)


def _unneeded(
    folder: Path,
    name: re.Pattern[str],
    rows: Callable[[list[UUID]], QuerySet[Recording] | QuerySet[Job] | QuerySet[Upload]],
    before: float,
) -> Iterator[Path]:
    """A folder's files of such names, untouched since `before`, for which `rows` has no row."""
    matches = ((path, name.fullmatch(path.name)) for path in _untouched(folder, before))
    files = ((path, UUID(match[1])) for path, match in matches if match)
    while some := list(islice(files, AT_ONCE)):
        needed = set(rows([row for _, row in some]).values_list("pk", flat=True))
        # Looked at once more: a job may have been tried again, and decoded, since.
        yield from (path for path, row in some if row not in needed and _is_untouched(path, before))


def _untouched(folder: Path, before: float) -> Iterator[Path]:
    files = folder.iterdir() if folder.is_dir() else ()
    return (path for path in files if not path.name.startswith(".") and _is_untouched(path, before))


def _is_untouched(path: Path, before: float) -> bool:
    """Whether it is a file that was neither written nor renamed since: the latter does not show in its mtime."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_ctime < before
