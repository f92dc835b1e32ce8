"""Jobs as rows of the dashboard."""

import hashlib
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from itertools import groupby
from typing import Any

from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Left
from django.utils import timezone

from transcription.models import AnyUser, Job, Segment, Worker
from transcription.queue import forecast
from transcription.queue.forecast import Forecast

PAGE = 50
FIRST_WORDS = 300  # characters
LAST_WORDS = 200

# Seconds between two polls of an unfinished job's state, by status; 1 for the others.
POLL_SECONDS: dict[str, int] = {Job.Status.QUEUED: 3, Job.Status.DOWNLOADING: 2}

# The CSS class and the icon of each status.
STATES: dict[str, tuple[str, str]] = {
    Job.Status.QUEUED: ("is-queued", "clock"),
    Job.Status.DOWNLOADING: ("is-active", "download"),
    Job.Status.PREPARING: ("is-active", "prepare"),
    Job.Status.TRANSCRIBING: ("is-transcribing", "pen"),
    Job.Status.FINISHING: ("is-active", "pen"),
    Job.Status.DONE: ("is-done", "check"),
    Job.Status.FAILED: ("is-failed", "failed"),
    Job.Status.CANCELLED: ("is-cancelled", "cancelled"),
}
UNKNOWN = ("is-unknown", "info")  # a status that another version of the program has stored


@dataclass(frozen=True)
class Row:
    """A job with what its row shows."""

    job: Job
    first_words: str  # of its text
    last_words: str  # of its newest segment
    is_attended: bool  # whether a worker for it is alive
    forecast: Forecast | None

    @property
    def is_waiting(self) -> bool:
        """Whether it cannot continue until a worker is alive or a problem has passed."""
        return self.job.status in Job.UNFINISHED and (not self.is_attended or bool(self.job.waiting_message))

    @property
    def place(self) -> int:
        """The place in the queue, from 1; 0 if it has begun."""
        return 0 if self.forecast is None or self.job.progress else self.forecast.position

    @property
    def status(self) -> str:
        """The job's status; a job whose sections have not begun is shown as queued."""
        is_in_queue = self.job.status == Job.Status.TRANSCRIBING and self.place
        return Job.Status.QUEUED.value if is_in_queue else self.job.status

    @property
    def status_label(self) -> str:
        """The status in the reader's language; a status that this version does not know stays as stored."""
        return str(dict(Job.Status.choices).get(self.status, self.status))

    @property
    def state(self) -> str:
        """The CSS class of the row."""
        return "is-waiting" if self.is_waiting else STATES.get(self.status, UNKNOWN)[0]

    @property
    def state_template(self) -> str:
        """The fragment for the job's state: one for each status, and two for jobs that cannot continue."""
        if self.job.waiting_message:
            return "job_state/_waiting.html"
        if self.is_waiting and self.status not in (Job.Status.TRANSCRIBING, Job.Status.DOWNLOADING):
            return "job_state/_unattended.html"
        return f"job_state/_{self.status}.html" if self.status in STATES else "job_state/_unknown.html"

    @property
    def can_go_on(self) -> bool:
        """Whether a retry may help: the job was cancelled or failed for a retryable reason, and the file is here."""
        problem = self.job.problem
        is_retryable = self.job.status == Job.Status.CANCELLED or (problem is not None and problem.retryable)
        return is_retryable and self.job.recording.removed_at is None

    @property
    def icon(self) -> str:
        return "clock" if self.is_waiting else STATES.get(self.status, UNKNOWN)[1]

    @property
    def percent(self) -> int:
        return math.floor(100 * self.job.progress)

    @property
    def poll_seconds(self) -> int:
        return POLL_SECONDS.get(self.status, 1)

    @property
    def speed(self) -> int | None:
        """How many times faster than real time."""
        duration, processing = self.job.recording.duration, self.job.processing_seconds
        if self.job.status != Job.Status.DONE or not duration or not processing:
            return None
        return round(duration / processing)

    @property
    def seconds_left(self) -> int | None:
        """About how many seconds until it is done."""
        return None if self.forecast is None or self.is_waiting else self.forecast.about

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the row would look different."""
        job = self.job
        state = (job.status, self.percent, self.seconds_left, self.is_waiting, self.place, job.waiting_for)
        facts = (job.name, job.language, job.recording.duration, job.error_code, job.error_values)
        shown = repr((state, facts, self.first_words, self.last_words))
        return hashlib.blake2s(shown.encode(), digest_size=6).hexdigest()


@dataclass(frozen=True)
class Group:
    """The rows of one day."""

    day: date
    rows: list[Row]


def is_attended() -> bool:
    """Whether a device worker is alive."""
    return Worker.alive().filter(kind=Worker.Kind.DEVICE).exists()


def one(user: AnyUser, job_id: uuid.UUID) -> Row:
    """Raises Job.DoesNotExist if the user has no such job."""
    job = _jobs_of(user).get(pk=job_id)
    return _row(job, is_attended(), None if job.is_ended else forecast.latest().get(job.pk))


def unfinished(user: AnyUser) -> list[Row]:
    """The oldest unfinished jobs, as many as a page has, in the order of the newest first."""
    jobs = _jobs_of(user).filter(status__in=Job.UNFINISHED).order_by("created_at", "id")
    attended, forecasts = is_attended(), forecast.latest()
    return [_row(job, attended, forecasts.get(job.pk)) for job in jobs[:PAGE]][::-1]


def ended(user: AnyUser, before: str = "") -> tuple[list[Group], str]:
    """A page of the ended jobs, the newest first, and where the next page begins, or `""`.

    A status of another version counts as ended.
    """
    jobs = list(_jobs_of(user).filter(_older_than(before)).exclude(status__in=Job.UNFINISHED)[: PAGE + 1])
    rows = [_row(job, True, None) for job in jobs[:PAGE]]
    by_day = groupby(rows, key=lambda row: timezone.localdate(row.job.created_at))
    return [Group(day, list(rows)) for day, rows in by_day], _place(jobs[PAGE - 1]) if len(jobs) > PAGE else ""


def others(job: Job) -> QuerySet[Job]:
    """The other jobs of a job's recording, the newest first."""
    of_recording = Job.objects.filter(recording=job.recording_id, owner=job.owner_id)
    return of_recording.exclude(pk=job.pk).only("model", "language", "status", "created_at")


def _jobs_of(user: AnyUser) -> QuerySet[Job]:
    """A user's jobs with only what a row shows: a text may be a megabyte."""
    last_words = Segment.objects.filter(job=OuterRef("pk")).order_by("-pk").values("text")[:1]
    return (
        Job.objects.for_user(user)
        .select_related("recording")
        .defer("text", "notes", "searchable", "recording__peaks")
        .annotate(first_words=Left("text", FIRST_WORDS), last_words=Subquery(last_words))
    )


def _row(job: Any, attended: bool, expected: Forecast | None) -> Row:
    """The row of a job from `_jobs_of`."""
    return Row(job, job.first_words.strip(), (job.last_words or "")[-LAST_WORDS:].strip(), attended, expected)


def _place(job: Job) -> str:
    return f"{job.created_at.isoformat()},{job.pk}"


def _older_than(place: str) -> Q:
    """The filter for the page that begins after a place of `_place`; the first page for any other text."""
    created_at, _, job_id = place.partition(",")
    try:
        at, last = datetime.fromisoformat(created_at).astimezone(UTC), uuid.UUID(job_id)
    except (ValueError, OverflowError):  # OverflowError: the year in UTC would be before 1 or after 9999
        return Q()
    return Q(created_at__lt=at) | Q(created_at=at, pk__lt=last)
