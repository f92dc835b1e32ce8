"""A recording as one row of the dashboard, from waiting to done."""

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

# How often a page asks for an unfinished job's state; each second where nothing else is written.
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
    """A job, the first words of its text, those recognised last, whether somebody is there to work on it, its turn."""

    job: Job
    first_words: str
    last_words: str
    is_attended: bool
    forecast: Forecast | None

    @property
    def is_waiting(self) -> bool:
        """Whether it cannot go on until a worker is back, or space on the disk."""
        return self.job.status in Job.UNFINISHED and (not self.is_attended or bool(self.job.waiting_message))

    @property
    def place(self) -> int:
        """In the queue, from 1; 0 for what has begun."""
        return 0 if self.forecast is None or self.job.progress else self.forecast.position

    @property
    def status(self) -> str:
        """The job's status; a job whose sections wait for their turn is shown as queued."""
        is_in_line = self.job.status == Job.Status.TRANSCRIBING and self.place
        return Job.Status.QUEUED.value if is_in_line else self.job.status

    @property
    def status_label(self) -> str:
        """The status in the reader's language; one that this version does not know, as it is stored."""
        return str(dict(Job.Status.choices).get(self.status, self.status))

    @property
    def state(self) -> str:
        """The CSS class of the row."""
        return "is-waiting" if self.is_waiting else STATES.get(self.status, UNKNOWN)[0]

    @property
    def state_template(self) -> str:
        """The fragment that shows how far the job is: one for each status, and two for what holds a job up."""
        if self.job.waiting_message:
            return "job_state/_waiting.html"
        if self.is_waiting and self.status not in (Job.Status.TRANSCRIBING, Job.Status.DOWNLOADING):
            return "job_state/_unattended.html"
        return f"job_state/_{self.status}.html" if self.status in STATES else "job_state/_unknown.html"

    @property
    def can_go_on(self) -> bool:
        """Whether another try may help: after a cancel or a failure whose sentence says so, while the sound is here."""
        problem = self.job.problem
        may_help = self.job.status == Job.Status.CANCELLED or (problem is not None and problem.retryable)
        return may_help and self.job.recording.removed_at is None

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
        """How many times faster than it was spoken."""
        duration, spent = self.job.recording.duration, self.job.processing_seconds
        if self.job.status != Job.Status.DONE or not duration or not spent:
            return None
        return round(duration / spent)

    @property
    def seconds_left(self) -> int | None:
        """Until it is done, about."""
        return None if self.forecast is None or self.is_waiting else self.forecast.about

    @cached_property
    def fingerprint(self) -> str:
        """Another one when the row would look different."""
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
    """Whether a worker that can recognise speech is alive."""
    return Worker.alive().filter(kind=Worker.Kind.DEVICE).exists()


def one(user: AnyUser, job_id: uuid.UUID) -> Row:
    """Raises Job.DoesNotExist if the user has no such job."""
    job = _of(user).get(pk=job_id)
    return _row(job, is_attended(), None if job.is_ended else forecast.latest().get(job.pk))


def unfinished(user: AnyUser) -> list[Row]:
    """The newest first; when there are more than a page, those whose turn comes first."""
    jobs = _of(user).filter(status__in=Job.UNFINISHED).order_by("created_at", "id")
    attended, forecasts = is_attended(), forecast.latest()
    return [_row(job, attended, forecasts.get(job.pk)) for job in jobs[:PAGE]][::-1]


def ended(user: AnyUser, before: str = "") -> tuple[list[Group], str]:
    """A page of the jobs that are not unfinished, the newest first, and where the next page begins, or `""`.

    They are done, failed or cancelled, or have a status that another version of the program has stored.
    """
    jobs = list(_of(user).filter(_older_than(before)).exclude(status__in=Job.UNFINISHED)[: PAGE + 1])
    rows = [_row(job, True, None) for job in jobs[:PAGE]]
    by_day = groupby(rows, key=lambda row: timezone.localdate(row.job.created_at))
    return [Group(day, list(rows)) for day, rows in by_day], _place(jobs[PAGE - 1]) if len(jobs) > PAGE else ""


def others(job: Job) -> QuerySet[Job]:
    """The other jobs of a job's recording, the newest first."""
    of_recording = Job.objects.filter(recording=job.recording_id, owner=job.owner_id)
    return of_recording.exclude(pk=job.pk).only("model", "language", "status", "created_at")


def _of(user: AnyUser) -> QuerySet[Job]:
    """The user's jobs with what a row shows and no more: a text may be a megabyte."""
    last_words = Segment.objects.filter(job=OuterRef("pk")).order_by("-pk").values("text")[:1]
    return (
        Job.objects.for_user(user)
        .select_related("recording")
        .defer("text", "notes", "searchable", "recording__peaks")
        .annotate(first_words=Left("text", FIRST_WORDS), last_words=Subquery(last_words))
    )


def _row(job: Any, attended: bool, expected: Forecast | None) -> Row:
    """A row of a job that `_of` has read."""
    return Row(job, job.first_words.strip(), (job.last_words or "")[-LAST_WORDS:].strip(), attended, expected)


def _place(job: Job) -> str:
    return f"{job.created_at.isoformat()},{job.pk}"


def _older_than(place: str) -> Q:
    """What comes after a place that `_place` wrote; from anything else, the first page."""
    moment, _, job_id = place.partition(",")
    try:
        at, last = datetime.fromisoformat(moment).astimezone(UTC), uuid.UUID(job_id)
    except (ValueError, OverflowError):  # near the ends of time a moment is none in UTC
        return Q()
    return Q(created_at__lt=at) | Q(created_at=at, pk__lt=last)
