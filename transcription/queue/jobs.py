"""A job in the queue: claim, store sections, finish, fail, cancel, retry, release."""

import uuid
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Case, Exists, F, OuterRef, QuerySet, Subquery, Sum, When
from django.db.models.expressions import Combinable

from transcription import clock, errors, history
from transcription.logs import timed
from transcription.models import Delivery, Job, Section, Worker
from transcription.queue import leases, outbox, wakeups
from transcription.queue.leases import UNCLAIMED, Claim
from transcription.text import search

# The shortest of a user's jobs goes first, but after its latest start a job goes before all that were submitted later.
# The latest start is this many seconds, and this many times the job's decoding time, after its submit.
PATIENCE_SECONDS = 10
PATIENCE_FACTOR = 4


@dataclass(frozen=True)
class JobClaim(Claim):
    """The right to prepare or finish a job."""

    job: uuid.UUID

    def renew(self, *, progress: float | None = None) -> None:
        """Renew the lease of a job. Raises LeaseLost when the claim is lost or the job has ended."""
        changes = {} if progress is None else {"progress": progress}
        held = Job.objects.filter(pk=self.job, claim=self.token, status__in=Job.UNFINISHED)
        leases.must_win(held.update(lease_until=leases.lease_end(), **changes))

    @timed("storing sections")
    def store_sections(self, sections: list[Section], *, decoding_seconds: float = 0, **facts: object) -> None:
        """Store a job's sections and open it to the device workers, in one transaction. Raises LeaseLost.

        `decoding_seconds` is how long decoding them may take, as far as that is known. A job that is tried again keeps
        the sections it has; if all of them are done, the job is ready to be finished.
        """
        with transaction.atomic():
            held = Job.objects.filter(pk=self.job, claim=self.token, status=Job.Status.PREPARING)
            changes = {"transcribing_at": clock.now(), "attempts": 0, "waiting_for": "", **UNCLAIMED, **facts}
            changes["latest_start"] = F("latest_start") + timedelta(seconds=PATIENCE_FACTOR * decoding_seconds)
            leases.must_win(held.update(status=Job.Status.TRANSCRIBING, **changes))
            if not Section.objects.filter(job_id=self.job).exists():
                Section.objects.bulk_create(sections)
            history.note(self.job, "transcribing")
            update_progress(self.job)
            transaction.on_commit(wakeups.ring_devices, robust=True)
            end_transcribing(self.job)

    def finish(self, **facts: object) -> None:
        """End a job as done. Raises LeaseLost."""
        with transaction.atomic():
            held = Job.objects.filter(pk=self.job, claim=self.token, status=Job.Status.FINISHING)
            changes = {"finished_at": clock.now(), "progress": 1, **UNCLAIMED, **facts}
            leases.must_win(held.update(status=Job.Status.DONE, **changes))
            search.index(self.job)
            _remove_pcm(self.job)
            history.note(self.job, "done")
            _announce(self.job, Delivery.Type.DONE)

    def retry(self, problem: errors.Problem) -> None:
        """Give a job back after a failed step, to be tried again later; after the last attempt fail it."""
        with transaction.atomic():
            held = Job.objects.filter(pk=self.job, claim=self.token, status__in=Job.UNFINISHED)
            attempts = held.select_for_update(no_key=True).values_list("attempts", flat=True).first()
            if attempts is None:
                return
            again = leases.another_attempt(problem, attempts)
            if again is None:
                fail(self.job, problem)
                return
            give_back(held, **again)
            note_delay(self.job, problem)

    def release(self) -> None:
        """Give a job back because this worker is stopping; this does not count as an attempt."""
        held = Job.objects.filter(pk=self.job, claim=self.token)
        give_back(held, attempts=F("attempts") - 1)


def claim_job(worker: Worker, *, most_bytes: int | None = None) -> JobClaim | None:
    """Claim the queued job whose turn it is, to prepare it; with `most_bytes`, only one whose file is no larger.

    The order is: high priority, the user whose last job was begun longest ago, that user's jobs whose latest start has
    passed in the order of their submit, the smallest file.
    """
    waiting = Job.objects.filter(status=Job.Status.QUEUED, next_attempt_at__lte=clock.now())
    small = waiting if most_bytes is None else waiting.filter(recording__bytes__lte=most_bytes)
    turn = in_turn(small, "preparing_at", "recording__bytes")
    return _claim_job(turn, waiting, worker, status=Job.Status.PREPARING, preparing_at=clock.now())


def claim_finished_job(worker: Worker, *, is_to_be_improved: bool = False) -> JobClaim | None:
    """Claim a job whose sections are all done, to finish it.

    Jobs whose text a language model is to improve may take an hour, so they are claimed separately, by other threads.
    """
    waiting = _to_be_finished(is_to_be_improved)
    return _claim_job(waiting.order_by("finishing_at"), waiting, worker)


def improvements_due(most: int) -> int:
    """The number of jobs that wait for a language model, at most `most`."""
    return len(_to_be_finished(True).values_list("pk")[:most])


def _to_be_finished(is_to_be_improved: bool) -> QuerySet[Job]:
    waiting = Job.objects.filter(status=Job.Status.FINISHING, claim=None, next_attempt_at__lte=clock.now())
    return waiting.filter(is_to_be_improved=is_to_be_improved)


def _claim_job(turn: QuerySet[Job], waiting: QuerySet[Job], worker: Worker, **changes: object) -> JobClaim | None:
    """Claim the first job of `turn` that is still in `waiting`, which filters by columns of the job's own row alone."""
    while (job := turn.values_list("pk", flat=True).first()) is not None:
        token = uuid.uuid4()
        if waiting.filter(pk=job).update(**leases.columns(worker, token), **changes):
            return JobClaim(token, job)
    return None


def latest_start() -> Combinable:
    """The latest start of a job that is submitted now, before `store_sections` adds its decoding time."""
    return clock.after(PATIENCE_SECONDS)


def in_turn(jobs: QuerySet[Job], served: str, length: str) -> QuerySet[Job]:
    """The jobs in the order of their turns.

    `served` is the field that says when a job was last worked on, `length` the field that says how long it is.
    """
    own = Job.objects.filter(owner=OuterRef("owner"), **{f"{served}__isnull": False})
    owner_served = own.order_by(f"-{served}").values(served)[:1]
    overdue = Case(When(latest_start__lte=clock.now(), then=F("created_at")))
    return jobs.annotate(owner_served=Subquery(owner_served)).order_by(
        "-priority",
        F("owner_served").asc(nulls_first=True),
        overdue.asc(nulls_last=True),
        length,
        "created_at",
        "pk",
    )


def update_progress(job_id: uuid.UUID) -> None:
    """Set a job's progress to the decoded share of its sections."""
    sums = Section.objects.filter(job_id=job_id).aggregate(done=Sum("transcribed"), whole=Sum("seconds"))
    share = min(1.0, sums["done"] / sums["whole"]) if sums["whole"] else 0
    Job.objects.filter(pk=job_id).update(progress=share, waiting_for="")  # it waits for nothing any more


def end_transcribing(job_id: uuid.UUID) -> None:
    """Let a job be finished if all of its sections are done; of several callers one does it."""
    unfinished = Section.objects.filter(job=OuterRef("pk")).exclude(status=Section.Status.DONE)
    decoded = Job.objects.filter(~Exists(unfinished), pk=job_id, status=Job.Status.TRANSCRIBING)
    if decoded.update(status=Job.Status.FINISHING, finishing_at=clock.now(), attempts=0, **UNCLAIMED):
        history.note(job_id, "finishing")
        transaction.on_commit(wakeups.ring_default, robust=True)


def fail(job_id: uuid.UUID, problem: errors.Problem) -> bool:
    """End an unfinished job with a problem and keep its segments. Return whether this call did it."""
    with transaction.atomic():
        values = {name: str(value) for name, value in problem.values.items()}
        changes = {"error_code": problem.code, "error_values": values, "finished_at": clock.now(), **UNCLAIMED}
        won = Job.move(job_id, Job.Status.FAILED, since=Job.UNFINISHED, **changes)
        if won:
            _remove_pcm(job_id)
            Section.objects.filter(job_id=job_id).update(**UNCLAIMED)
            history.note(job_id, "failed", str(problem))
            _announce(job_id, Delivery.Type.FAILED)
    return won


def cancel(job_id: uuid.UUID) -> bool:
    """End an unfinished job at its owner's request and keep its segments. Return whether this call did it.

    A worker that has claimed it loses the claim, and stops at its next beat.
    """
    with transaction.atomic():
        # While a job waits for its model, its progress is the download's.
        progress = Case(When(status=Job.Status.DOWNLOADING, then=0.0), default=F("progress"))
        changes = {"finished_at": clock.now(), "progress": progress, **UNCLAIMED}
        won = Job.move(job_id, Job.Status.CANCELLED, since=Job.UNFINISHED, **changes)
        if won:
            _remove_pcm(job_id)
            Section.objects.filter(job_id=job_id).update(**UNCLAIMED)
            history.note(job_id, "cancelled")
            _announce(job_id, Delivery.Type.CANCELLED)
    return won


def _announce(job_id: uuid.UUID, ending: Delivery.Type) -> None:
    """Write the messages about a job's end, in its transaction."""
    if outbox.announce(job_id, ending):
        transaction.on_commit(wakeups.ring_default, robust=True)


def retry(job_id: uuid.UUID) -> bool:
    """Queue a failed or cancelled job again with the same parameters; it continues after its stored segments.

    Return whether this call did it.
    """
    with transaction.atomic():
        due = {"attempts": 0, "next_attempt_at": clock.now(), "rung_at": clock.now(), **UNCLAIMED}
        cleared: dict[str, object] = {"error_code": "", "error_values": {}, "finished_at": None, "waiting_for": ""}
        changes = {**due, **cleared, "latest_start": latest_start()}
        won = Job.move(job_id, Job.Status.QUEUED, since=(Job.Status.FAILED, Job.Status.CANCELLED), **changes)
        if won:
            unfinished = Section.objects.filter(job_id=job_id).exclude(status=Section.Status.DONE)
            unfinished.update(status=Section.Status.QUEUED, **due)
            history.note(job_id, "queued", "again")
            transaction.on_commit(wakeups.ring_default, robust=True)
    return won


def remove_unwanted_pcm(job_id: uuid.UUID) -> None:
    """Remove the decoded sound of a job that ended or was deleted while it was decoded."""
    if not Job.objects.filter(pk=job_id, status__in=Job.UNFINISHED).exists():
        _remove_pcm(job_id)


def _remove_pcm(job_id: uuid.UUID) -> None:
    """Remove an ended job's decoded sound, including an interrupted FFmpeg's, when the transaction is committed."""
    folder = settings.RECORDINGS_DIR

    def remove() -> None:
        for path in folder.glob(f"{job_id}.pcm*"):
            path.unlink(missing_ok=True)

    transaction.on_commit(remove, robust=True)


def note_delay(job_id: uuid.UUID, problem: errors.Problem) -> None:
    """Write an event that says why a job does not go on now, but only one while it waits for the same thing."""
    waiting_for = problem.code if problem.waiting_sentence else ""
    is_news = Job.objects.filter(pk=job_id).exclude(waiting_for=waiting_for).update(waiting_for=waiting_for)
    if not problem.waiting_sentence:
        history.note(job_id, "retrying", str(problem))
    elif is_news:
        history.note(job_id, "waiting", str(problem))


def give_back(jobs: QuerySet[Job], **changes: object) -> int:
    """Return jobs to a status in which they can be claimed; return how many. Preparing begins again."""
    prepared_again = jobs.filter(status=Job.Status.PREPARING)
    finished_again = jobs.filter(status=Job.Status.FINISHING)
    rows = prepared_again.update(status=Job.Status.QUEUED, **UNCLAIMED, **changes)
    return rows + finished_again.update(**UNCLAIMED, **changes)
