"""Who works on what: claim, lease, release, sweep, and the wake-ups.

The row is the queue. Each transition is an UPDATE whose WHERE names the state it expects, in columns of that row alone:
PostgreSQL looks at those again after waiting for another transaction, but not at a joined table. When it changes no
row somebody else was first, and the caller stops. A transition of several rows locks them in one order, so that no two
wait for each other: recording, jobs by id, then a job's sections, downloads, deliveries. Leases and waits are reckoned
by the database's clock. A Celery message only wakes a worker: losing, doubling or reordering messages changes nothing.
"""

import contextlib
import logging
import socket
import uuid
from dataclasses import asdict, dataclass
from datetime import timedelta

from celery import current_app
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Case, Count, Exists, F, OuterRef, Q, QuerySet, Subquery, Sum, When
from django.db.models.expressions import Combinable
from django.db.models.functions import Greatest
from kombu.exceptions import OperationalError

from transcription import clock, errors, history, processes, search
from transcription.logs import timed
from transcription.models import Claimable, Delivery, Download, Job, Row, Section, Segment, Worker
from transcription.queue import outbox
from transcription.whisper.result import Segment as DecodedSegment

log = logging.getLogger(__name__)

DEFAULT_QUEUE = "default"
DEVICE_QUEUE_PREFIX = "device."

# How often a job that waits for space is tried again.
LOOK_AGAIN_SECONDS = 30

# Of a message that is sent anew again and again, so many tries are remembered.
TRIES_KEPT = 50

# Of one user's jobs the shortest goes first, but none is overtaken for ever: after its latest start a job goes before
# all that were submitted later. That is so many seconds after its submit, and so many times its decoding time.
PATIENCE_SECONDS = 10
PATIENCE_FACTOR = 4

# A worker that was not heard of for so long is forgotten.
FORGET_WORKERS_SECONDS = 24 * 3600

# The columns that say who holds a row.
LEASE = ("claim", "lease_until")

# What a row holds when nobody has it.
_UNCLAIMED = {"claim": None, "worker": None, "lease_until": None}

# The tasks in tasks.py, by name: whoever makes work must not import them upward.
DEFAULT_TASK = "transcription.work_default"
DEVICE_TASK = "transcription.work_device"


@dataclass(frozen=True)
class JobClaim:
    """The right to prepare or finish a job until the lease runs out. `token` is what every write must name."""

    job: uuid.UUID
    token: uuid.UUID


@dataclass(frozen=True)
class SectionClaim:
    """The right to decode a section of a job until the lease runs out."""

    job: uuid.UUID
    section: int
    token: uuid.UUID


@dataclass(frozen=True)
class DownloadClaim:
    """The right to fetch a model until the lease runs out."""

    model: str
    token: uuid.UUID


@dataclass(frozen=True)
class DeliveryClaim:
    """The right to try to deliver a message until the lease runs out; a try that outlasts it is made once more."""

    delivery: uuid.UUID
    token: uuid.UUID


def ring(*queues: str) -> None:
    """Wake the workers of `queues`. A broker that is down costs a log line: the sweeper rings again."""
    for queue in queues:
        task = DEFAULT_TASK if queue == DEFAULT_QUEUE else DEVICE_TASK
        try:
            current_app.send_task(task, queue=queue, ignore_result=True)
        except (OperationalError, OSError, ValueError) as error:  # ValueError: a file of the broker's is damaged
            log.warning("could not ring %s: %s", queue, error)


def ring_devices() -> None:
    """Wake every device worker that is alive."""
    ring(*Worker.alive().filter(kind=Worker.Kind.DEVICE).values_list("queue", flat=True).distinct())


def claim_job(worker: Worker, *, most_bytes: int | None = None) -> JobClaim | None:
    """Take the queued job whose turn it is, to prepare it; with `most_bytes`, only one whose file is no larger.

    High priority goes first, then the user whose last job was begun longest ago, then that user's jobs whose latest
    start has passed, in the order of their submit, then the smallest file.
    """
    waiting = Job.objects.filter(status=Job.Status.QUEUED, next_attempt_at__lte=clock.now())
    small = waiting if most_bytes is None else waiting.filter(recording__bytes__lte=most_bytes)
    turn = _in_turn(small, "preparing_at", "recording__bytes")
    return _claim_job(turn, waiting, worker, status=Job.Status.PREPARING, preparing_at=clock.now())


def claim_finished_job(worker: Worker, *, is_to_be_improved: bool = False) -> JobClaim | None:
    """Take a job whose sections are all done, to finish it: of those whose text a language model is to improve, or not.

    The former may take an hour, so threads of their own take them.
    """
    waiting = _to_be_finished(is_to_be_improved)
    return _claim_job(waiting.order_by("finishing_at"), waiting, worker)


def improvements_due(most: int) -> int:
    """How many jobs wait for a language model; no more than `most` are counted."""
    return len(_to_be_finished(True).values_list("pk")[:most])


def _to_be_finished(is_to_be_improved: bool) -> QuerySet[Job]:
    waiting = Job.objects.filter(status=Job.Status.FINISHING, claim=None, next_attempt_at__lte=clock.now())
    return waiting.filter(is_to_be_improved=is_to_be_improved)


def _claim_job(turn: QuerySet[Job], waiting: QuerySet[Job], worker: Worker, **changes: object) -> JobClaim | None:
    """Take the first of `turn` that nobody else takes first; `waiting` is what must still be true of its own row."""
    while (job := turn.values_list("pk", flat=True).first()) is not None:
        token = uuid.uuid4()
        if waiting.filter(pk=job).update(**_taken(worker, token), **changes):
            return JobClaim(job, token)
    return None


def claim_section(worker: Worker) -> SectionClaim | None:
    """Take the next section of the job whose turn it is.

    High priority goes first. Then users take turns: the one whose last section was begun longest ago. Of one user's
    recordings those whose latest start has passed go first, in the order of their submit; then the shortest, so that a
    voice message waits for no more than the rest of one section of a lecture. A job's language is that of its first
    section, which the others wait for unless each shall have its own. A job that asked for an engine or a device waits
    for a worker that has it.
    """
    kind = worker.device.partition(":")[0]
    ready = Section.objects.filter(
        Q(index=0) | ~Q(job__language="") | Q(job__options__multilingual=True),
        job__asked_engine__in=("", worker.engine),
        job__asked_device__in=("", kind, worker.device),
        status=Section.Status.QUEUED,
        job__status=Job.Status.TRANSCRIBING,
        next_attempt_at__lte=clock.now(),
    )
    first = ready.filter(job=OuterRef("pk")).order_by("index").values("pk")[:1]
    in_turn = _in_turn(Job.objects.filter(status=Job.Status.TRANSCRIBING), "served_at", "recording__duration")
    turn = in_turn.annotate(first=Subquery(first)).exclude(first=None).values_list("pk", "first")
    while (found := turn.first()) is not None:
        job, section = found
        if claim := _claim_section(worker, job, section):
            return claim
    return None


def _claim_section(worker: Worker, job: uuid.UUID, section: int) -> SectionClaim | None:
    """Take a section of a job if it still waits; its owner's turn is over with that."""
    token = uuid.uuid4()
    with transaction.atomic():
        is_open = Job.objects.filter(pk=job, status=Job.Status.TRANSCRIBING).update(served_at=clock.now())
        # Whatever else makes a section ready never changes back.
        queued = Section.objects.filter(pk=section, status=Section.Status.QUEUED, next_attempt_at__lte=clock.now())
        changes = {"status": Section.Status.TRANSCRIBING, "started_at": clock.now(), **_taken(worker, token)}
        if is_open and queued.update(**changes):
            return SectionClaim(job, section, token)
        transaction.set_rollback(True)
    return None


def latest_start() -> Combinable:
    """When a job that is submitted now is overtaken no more; its decoding time comes on top once it is known."""
    return clock.after(PATIENCE_SECONDS)


def _in_turn(jobs: QuerySet[Job], served: str, length: str) -> QuerySet[Job]:
    """The jobs in the order of their turns; `served` is the field that says when a job was last worked on."""
    own = Job.objects.filter(owner=OuterRef("owner"), **{f"{served}__isnull": False})
    last = own.order_by(f"-{served}").values(served)[:1]
    turns = jobs.annotate(owner_served=Subquery(last))
    overdue = Case(When(latest_start__lte=clock.now(), then=F("created_at")))
    return turns.order_by(
        "-priority",
        F("owner_served").asc(nulls_first=True),
        overdue.asc(nulls_last=True),
        length,
        "created_at",
        "pk",
    )


def _taken(worker: Worker, token: uuid.UUID) -> dict[str, object]:
    return {"claim": token, "worker": worker, "lease_until": _lease(), "attempts": F("attempts") + 1}


def _lease() -> Combinable:
    return clock.after(settings.LEASE_SECONDS)


def _must_win(changed: int) -> None:
    if not changed:
        raise errors.LeaseLost


def renew_job(claim: JobClaim, *, progress: float | None = None) -> None:
    """Keep a job for another lease. Raises LeaseLost when it is no longer ours to work on."""
    changes = {} if progress is None else {"progress": progress}
    held = Job.objects.filter(pk=claim.job, claim=claim.token, status__in=Job.UNFINISHED)
    _must_win(held.update(lease_until=_lease(), **changes))


def renew_section(claim: SectionClaim) -> None:
    """Keep a section for another lease. Raises LeaseLost when it is no longer ours to work on."""
    with transaction.atomic():
        _must_win(_held_section(claim).update(lease_until=_lease()))


def _held_section(claim: SectionClaim) -> QuerySet[Section]:
    """The section of a claim, or none when the claim is lost; call it in a transaction: it locks the job's row."""
    if not _lock_job(claim.job, Job.Status.TRANSCRIBING):
        return Section.objects.none()
    return Section.objects.filter(pk=claim.section, claim=claim.token, status=Section.Status.TRANSCRIBING)


def _lock_job(job_id: uuid.UUID, status: Job.Status) -> bool:
    """Lock a job's row until the transaction ends; return False if the job has not this status.

    SQLite has no such lock and needs none: its transactions begin IMMEDIATE.
    """
    locked = Job.objects.select_for_update(no_key=True).filter(pk=job_id, status=status)
    return locked.values_list("pk", flat=True).first() is not None


def _lock_waiting_for(model: str) -> QuerySet[Job]:
    """Lock the jobs that wait for a model until the transaction ends."""
    waiting = Job.objects.select_for_update(no_key=True).filter(model=model, status=Job.Status.DOWNLOADING)
    return Job.objects.filter(pk__in=list(waiting.order_by("pk").values_list("pk", flat=True)))


@timed("storing sections")
def prepared(claim: JobClaim, sections: list[Section], *, decoding_seconds: float = 0, **facts: object) -> None:
    """Store a job's sections and open it to the device workers, in one transaction. Raises LeaseLost.

    `decoding_seconds` is how long decoding them may take, as far as it is known. A job that is tried again keeps the
    sections it has. When none is left to decode the job goes on to be finished.
    """
    with transaction.atomic():
        held = Job.objects.filter(pk=claim.job, claim=claim.token, status=Job.Status.PREPARING)
        changes = {"transcribing_at": clock.now(), "attempts": 0, "waiting_for": "", **_UNCLAIMED, **facts}
        latest_start = F("latest_start") + timedelta(seconds=PATIENCE_FACTOR * decoding_seconds)
        _must_win(held.update(status=Job.Status.TRANSCRIBING, latest_start=latest_start, **changes))
        if not Section.objects.filter(job_id=claim.job).exists():
            Section.objects.bulk_create(sections)
        history.note(claim.job, "transcribing")
        _move_progress(claim.job)
        transaction.on_commit(ring_devices, robust=True)
        _hand_on(claim.job)


def found_language(claim: SectionClaim, language: str, probability: float) -> None:
    """Store a job's language as its first section has it, and open the others to be claimed. Raises LeaseLost."""
    with transaction.atomic():
        _must_win(_held_section(claim).update(lease_until=_lease()))
        unknown = Job.objects.filter(pk=claim.job, language="")
        if unknown.update(language=language, language_probability=probability):
            transaction.on_commit(ring_devices, robust=True)


@timed("storing a segment")
def store_segment(claim: SectionClaim, index: int, segment: DecodedSegment, *, transcribed: float) -> None:
    """Store a section's `index`th segment, in the recording's time. Raises LeaseLost.

    `transcribed` is how many of the section's seconds are decoded with it.
    """
    with transaction.atomic():
        moved = Greatest(F("transcribed"), transcribed)
        # The lock on the job's row makes its segments appear in the order of their ids: who reads on from an id misses
        # none.
        _must_win(_held_section(claim).update(lease_until=_lease(), transcribed=moved))
        _move_progress(claim.job)
        Segment.objects.create(
            job_id=claim.job,
            section_id=claim.section,
            index=index,
            start=segment.start,
            end=segment.end,
            text=segment.text,
            seek=segment.seek,
            tokens=list(segment.tokens),
            temperature=segment.temperature,
            avg_logprob=segment.avg_logprob,
            compression_ratio=segment.compression_ratio,
            no_speech_prob=segment.no_speech_prob,
            words=None if segment.words is None else [asdict(word) for word in segment.words],
        )


def store_progress(claim: SectionClaim, seconds: float) -> None:
    """Note that `seconds` of a section are decoded, and renew its lease. Raises LeaseLost."""
    with transaction.atomic():
        _must_win(_held_section(claim).update(lease_until=_lease(), transcribed=Greatest(F("transcribed"), seconds)))
        _move_progress(claim.job)


def _move_progress(job_id: uuid.UUID) -> None:
    sums = Section.objects.filter(job_id=job_id).aggregate(done=Sum("transcribed"), whole=Sum("seconds"))
    share = min(1.0, sums["done"] / sums["whole"]) if sums["whole"] else 0
    Job.objects.filter(pk=job_id).update(progress=share, waiting_for="")  # what moves waits for nothing


@timed("closing the section")
def section_done(claim: SectionClaim, *, seconds: float, engine: str, device: str, versions: dict[str, str]) -> None:
    """Close a section; the worker that closes a job's last one hands the job on to be finished. Raises LeaseLost.

    `seconds` is the time that decoding took. The section keeps what did it, the job what did its last one.
    """
    facts = {"engine": engine, "device": device, "versions": versions}
    with transaction.atomic():
        changes = {"finished_at": clock.now(), "transcribed": F("seconds"), "processing_seconds": seconds}
        _must_win(_held_section(claim).update(status=Section.Status.DONE, **changes, **facts, **_UNCLAIMED))
        Job.objects.filter(pk=claim.job).update(processing_seconds=F("processing_seconds") + seconds, **facts)
        _move_progress(claim.job)
        _hand_on(claim.job)


def _hand_on(job_id: uuid.UUID) -> None:
    """Hand a job on to be finished if none of its sections is left to do; one caller wins."""
    others = Section.objects.filter(job=OuterRef("pk")).exclude(status=Section.Status.DONE)
    last = Job.objects.filter(~Exists(others), pk=job_id, status=Job.Status.TRANSCRIBING)
    if last.update(status=Job.Status.FINISHING, finishing_at=clock.now(), attempts=0, **_UNCLAIMED):
        history.note(job_id, "finishing")
        transaction.on_commit(_ring_default, robust=True)


def finished(claim: JobClaim, **facts: object) -> None:
    """Close a job as done. Raises LeaseLost."""
    with transaction.atomic():
        held = Job.objects.filter(pk=claim.job, claim=claim.token, status=Job.Status.FINISHING)
        changes = {"finished_at": clock.now(), "progress": 1, **_UNCLAIMED, **facts}
        _must_win(held.update(status=Job.Status.DONE, **changes))
        search.index(claim.job)
        _remove_pcm(claim.job)
        history.note(claim.job, "done")
        _announce(claim.job, Delivery.Type.DONE)


def fail(job_id: uuid.UUID, problem: errors.Problem) -> bool:
    """End an unfinished job with a problem; what it had is kept. Return whether this call did it."""
    with transaction.atomic():
        values = {name: str(value) for name, value in problem.values.items()}
        changes = {"error_code": problem.code, "error_values": values, "finished_at": clock.now(), **_UNCLAIMED}
        won = Job.move(job_id, Job.Status.FAILED, since=Job.UNFINISHED, **changes)
        if won:
            _remove_pcm(job_id)
            Section.objects.filter(job_id=job_id).update(**_UNCLAIMED)
            history.note(job_id, "failed", str(problem))
            _announce(job_id, Delivery.Type.FAILED)
    return won


def cancel(job_id: uuid.UUID) -> bool:
    """End an unfinished job because its owner asks; what it had is kept. Return whether this call did it.

    Who works on it finds its claim gone at the next beat, and stops.
    """
    with transaction.atomic():
        # Of the recording nothing was done while the model came.
        progress = Case(When(status=Job.Status.DOWNLOADING, then=0.0), default=F("progress"))
        changes = {"finished_at": clock.now(), "progress": progress, **_UNCLAIMED}
        won = Job.move(job_id, Job.Status.CANCELLED, since=Job.UNFINISHED, **changes)
        if won:
            _remove_pcm(job_id)
            Section.objects.filter(job_id=job_id).update(**_UNCLAIMED)
            history.note(job_id, "cancelled")
            _announce(job_id, Delivery.Type.CANCELLED)
    return won


def _announce(job_id: uuid.UUID, ending: Delivery.Type) -> None:
    """Have whoever wants to know told of a job's end: the messages are committed with it, or not at all."""
    if outbox.announce(job_id, ending):
        transaction.on_commit(_ring_default, robust=True)


def retry(job_id: uuid.UUID) -> bool:
    """Queue a failed or cancelled job again, as it was asked for; what is stored of it stays and is gone on from.

    Return whether this call did it.
    """
    with transaction.atomic():
        fresh = {"attempts": 0, "next_attempt_at": clock.now(), "rung_at": clock.now(), **_UNCLAIMED}
        cleared: dict[str, object] = {"error_code": "", "error_values": {}, "finished_at": None}
        cleared["waiting_for"] = ""  # a full disk of an earlier attempt
        cleared["latest_start"] = latest_start()
        won = Job.move(job_id, Job.Status.QUEUED, since=(Job.Status.FAILED, Job.Status.CANCELLED), **fresh, **cleared)
        if won:
            left = Section.objects.filter(job_id=job_id).exclude(status=Section.Status.DONE)
            left.update(status=Section.Status.QUEUED, **fresh)
            history.note(job_id, "queued", "again")
            transaction.on_commit(_ring_default, robust=True)
    return won


def remove_unwanted_pcm(job_id: uuid.UUID) -> None:
    """Remove the decoded sound of a job that ended or was deleted before it was there."""
    if not Job.objects.filter(pk=job_id, status__in=Job.UNFINISHED).exists():
        _remove_pcm(job_id)


def _remove_pcm(job_id: uuid.UUID) -> None:
    """Remove an ended job's decoded sound, and what an interrupted FFmpeg left, once the end is committed."""
    folder = settings.RECORDINGS_DIR

    def remove() -> None:
        for path in folder.glob(f"{job_id}.pcm*"):
            path.unlink(missing_ok=True)

    transaction.on_commit(remove, robust=True)


def retry_section(claim: SectionClaim, problem: errors.Problem) -> None:
    """Give a section back after a failed attempt, to be tried again a little later; after the last fail its job."""
    with transaction.atomic():
        held = _held_section(claim)
        attempts = held.values_list("attempts", flat=True).first()
        if attempts is None:
            return
        again = _another_attempt(problem, attempts)
        if again is None:
            fail(claim.job, problem)
            return
        held.update(status=Section.Status.QUEUED, **_UNCLAIMED, **again)
        _note_delay(claim.job, problem)


def retry_job(claim: JobClaim, problem: errors.Problem) -> None:
    """Give a job back after a failed step, to be tried again a little later; after the last attempt fail it."""
    with transaction.atomic():
        held = Job.objects.filter(pk=claim.job, claim=claim.token, status__in=Job.UNFINISHED)
        attempts = held.select_for_update(no_key=True).values_list("attempts", flat=True).first()
        if attempts is None:
            return
        again = _another_attempt(problem, attempts)
        if again is None:
            fail(claim.job, problem)
            return
        _give_back_jobs(held, **again)
        _note_delay(claim.job, problem)


def _another_attempt(problem: errors.Problem, attempts: int) -> dict[str, object] | None:
    """What changes for another attempt after so many; None when there shall be none."""
    if problem.waiting:  # nobody's fault: it does not count, however often we look again
        return {"attempts": F("attempts") - 1, "next_attempt_at": clock.after(LOOK_AGAIN_SECONDS)}
    if not problem.is_passing or attempts >= settings.MAX_ATTEMPTS:
        return None
    return {"next_attempt_at": clock.after(_pause(attempts))}


def _note_delay(job_id: uuid.UUID, problem: errors.Problem) -> None:
    """Say why a job does not go on now; what it waits for is said once."""
    waiting_for = problem.code if problem.waiting else ""
    is_news = Job.objects.filter(pk=job_id).exclude(waiting_for=waiting_for).update(waiting_for=waiting_for)
    if not problem.waiting:
        history.note(job_id, "retrying", str(problem))
    elif is_news:
        history.note(job_id, "waiting", str(problem))


def _pause(attempts: int) -> float:
    """Seconds to wait after so many failed attempts: none after the first, which may be anybody's fault."""
    return min(300.0, 2.0**attempts - 2)


def release_section(claim: SectionClaim) -> None:
    """Give a section back because this worker is stopping; a deploy is not a failed attempt."""
    with transaction.atomic():
        _held_section(claim).update(status=Section.Status.QUEUED, attempts=F("attempts") - 1, **_UNCLAIMED)


def release_job(claim: JobClaim) -> None:
    """Give a job back because this worker is stopping; a deploy is not a failed attempt."""
    held = Job.objects.filter(pk=claim.job, claim=claim.token)
    _give_back_jobs(held, attempts=F("attempts") - 1)


def _give_back_jobs(jobs: QuerySet[Job], **changes: object) -> int:
    """Back to the status each can be claimed in: preparing begins again, finishing stays."""
    rows = jobs.filter(status=Job.Status.PREPARING).update(status=Job.Status.QUEUED, **_UNCLAIMED, **changes)
    return rows + jobs.filter(status=Job.Status.FINISHING).update(**_UNCLAIMED, **changes)


def wait_for_model(claim: JobClaim) -> None:
    """Have a job wait, in nobody's hands, until its model has been fetched. Raises LeaseLost."""
    with transaction.atomic():
        held = Job.objects.filter(pk=claim.job, claim=claim.token, status=Job.Status.PREPARING)
        changes = {"progress": 0, "attempts": F("attempts") - 1, **_UNCLAIMED}
        _must_win(held.update(status=Job.Status.DOWNLOADING, **changes))
        model = Job.objects.values_list("model", flat=True).get(pk=claim.job)
        _order(model)
        history.note(claim.job, "downloading", model)


def order_model(model: str) -> None:
    """Have a model fetched for whoever will want it; one that could not be fetched is tried anew."""
    with transaction.atomic():
        _order(model, is_asked_for=True)


def call_off_model(model: str) -> None:
    """Fetch a model no longer, unless jobs wait for it; what has come of it stays for another time."""
    with transaction.atomic():
        Download.objects.filter(model=model).update(is_asked_for=False)
        if not _waiting_for(model).exists():
            Download.objects.filter(model=model).delete()


def _order(model: str, **changes: object) -> None:
    waits = {"next_attempt_at": clock.now(), "rung_at": clock.now()}
    anew = {"error_code": "", "error_values": {}, "attempts": 0, **waits}
    Download.objects.filter(model=model).exclude(error_code="").update(**anew)
    Download.objects.update_or_create(model=model, defaults=changes)
    transaction.on_commit(_ring_default, robust=True)


def has_downloads() -> bool:
    """Whether a model is to be fetched now."""
    return _downloads().exists()


def _downloads() -> QuerySet[Download]:
    return Download.objects.filter(claim=None, error_code="", next_attempt_at__lte=clock.now())


def claim_download(worker: Worker) -> DownloadClaim | None:
    """Take a model that is to be fetched."""
    waiting = _downloads()
    while (model := waiting.values_list("model", flat=True).first()) is not None:
        token = uuid.uuid4()
        if waiting.filter(pk=model).update(**_taken(worker, token)):
            return DownloadClaim(model, token)
    return None


def renew_download(claim: DownloadClaim, *, progress: float) -> None:
    """Keep a download for another lease, and show its progress on the jobs that wait for it.

    Raises LeaseLost when it is no longer ours to work on, or nobody wants it any more.
    """
    with transaction.atomic():
        waiting = _lock_waiting_for(claim.model).update(progress=progress, waiting_for="")
        held = _held_download(claim)
        _must_win(held.update(lease_until=_lease(), progress=progress))
        # A job that came to wait after the lock is seen here.
        is_wanted = bool(waiting) or _waiting_for(claim.model).exists() or held.filter(is_asked_for=True).exists()
        if not is_wanted:
            held.delete()
    _must_win(is_wanted)


def _held_download(claim: DownloadClaim) -> QuerySet[Download]:
    return Download.objects.filter(pk=claim.model, claim=claim.token)


def _waiting_for(model: str) -> QuerySet[Job]:
    return Job.objects.filter(model=model, status=Job.Status.DOWNLOADING)


def downloaded(claim: DownloadClaim) -> None:
    """Let the jobs go on that waited for a model. Raises LeaseLost."""
    with transaction.atomic():
        waiting = _lock_waiting_for(claim.model)
        _must_win(_held_download(claim).delete()[0])
        _go_on(waiting)  # a job that came to wait after the lock goes on by the next sweep
        transaction.on_commit(_ring_default, robust=True)


def _go_on(jobs: QuerySet[Job]) -> None:
    waits = {"next_attempt_at": clock.now(), "rung_at": clock.now()}
    jobs.update(status=Job.Status.QUEUED, progress=0, waiting_for="", **waits)


def retry_download(claim: DownloadClaim, problem: errors.Problem) -> None:
    """Give a download back after a failed attempt, to be tried again; after the last fail the jobs that wait for it."""
    with transaction.atomic():
        waiting = list(_lock_waiting_for(claim.model).values_list("pk", flat=True))
        held = _held_download(claim)
        attempts = held.select_for_update(no_key=True).values_list("attempts", flat=True).first()
        if attempts is None:
            return
        again = _another_attempt(problem, attempts)
        if again is None:
            _fail_download(claim.model, problem)
        else:
            held.update(**_UNCLAIMED, **again)
        for job in waiting:
            if again is None:
                fail(job, problem)
            else:
                _note_delay(job, problem)


def _fail_download(model: str, problem: errors.Problem) -> None:
    """Keep what went wrong for the person who asked; the jobs keep it for theirs."""
    values = {name: str(value) for name, value in problem.values.items()}
    Download.objects.filter(pk=model, is_asked_for=False).delete()
    Download.objects.filter(pk=model).update(error_code=problem.code, error_values=values, **_UNCLAIMED)


def release_download(claim: DownloadClaim) -> None:
    """Give a download back because this worker is stopping; a deploy is not a failed attempt."""
    _held_download(claim).update(attempts=F("attempts") - 1, **_UNCLAIMED)


def deliveries_due(most: int) -> int:
    """To how many addresses a message is to be sent now; no more than `most` are counted."""
    return len(_deliveries().order_by().values_list("url").distinct()[:most])


def _deliveries() -> QuerySet[Delivery]:
    """What is to be sent now, but for an address that is being spoken to: a slow one holds up itself alone."""
    waiting = Delivery.objects.filter(status=Delivery.Status.WAITING)
    due = waiting.filter(claim=None, next_attempt_at__lte=clock.now())
    return due.exclude(url__in=waiting.exclude(claim=None).values("url"))


def claim_delivery(worker: Worker) -> DeliveryClaim | None:
    """Take the message that waits longest, of the owner who has fewest on their way."""
    under_way = Delivery.objects.filter(owner=OuterRef("owner")).exclude(claim=None).order_by().values("owner")
    busy = Subquery(under_way.annotate(count=Count("pk")).values("count"))
    turn = _deliveries().annotate(busy=busy).order_by(F("busy").asc(nulls_first=True), "next_attempt_at", "created_at")
    waiting = Delivery.objects.filter(status=Delivery.Status.WAITING, claim=None, next_attempt_at__lte=clock.now())
    while (delivery := turn.values_list("pk", flat=True).first()) is not None:
        token = uuid.uuid4()
        # The constraint refuses a second message to an address that another worker has just begun to speak to.
        with contextlib.suppress(IntegrityError), transaction.atomic():
            if waiting.filter(pk=delivery).update(**_taken(worker, token)):
                return DeliveryClaim(delivery, token)
    return None


def _held_delivery(claim: DeliveryClaim) -> QuerySet[Delivery]:
    return Delivery.objects.filter(pk=claim.delivery, claim=claim.token, status=Delivery.Status.WAITING)


def delivered(claim: DeliveryClaim, attempt: dict[str, object]) -> None:
    """Close a message with the try that reached its address. Raises LeaseLost: then it may be sent twice."""
    with transaction.atomic():
        tries = _held_delivery(claim).values_list("tries", flat=True).first() or []
        changes = {"status": Delivery.Status.DELIVERED, "ended_at": clock.now(), **_UNCLAIMED}
        _must_win(_held_delivery(claim).update(tries=_with(tries, attempt), **changes))


def retry_delivery(claim: DeliveryClaim, attempt: dict[str, object]) -> None:
    """Give a message back after a failed try, to be tried again at its time; after the last one it has failed."""
    with transaction.atomic():
        held = _held_delivery(claim).values_list("attempts", "type", "tries").first()
        if held is None:
            return
        made, kind, tries = held
        # Whoever sends a test looks at what comes of it, and sends another.
        seconds = settings.WEBHOOK_TRIES_SECONDS[: 1 if kind == Delivery.Type.TEST else None]
        again: dict[str, object] = {"status": Delivery.Status.FAILED, "ended_at": clock.now()}
        if made < len(seconds):
            again = {"next_attempt_at": clock.after(seconds[made] - seconds[made - 1])}
        _held_delivery(claim).update(tries=_with(tries, attempt), **_UNCLAIMED, **again)


def _with(tries: list[object], attempt: dict[str, object]) -> list[object]:
    return [*tries, attempt][-TRIES_KEPT:]


def replay_delivery(delivery_id: uuid.UUID) -> bool:
    """Have a message sent anew, from now on and under its id; return False while it is being sent."""
    with transaction.atomic():
        fresh = {"attempts": 0, "next_attempt_at": clock.now(), "rung_at": clock.now(), "ended_at": None}
        idle = Delivery.objects.filter(pk=delivery_id, claim=None)
        won = bool(idle.update(status=Delivery.Status.WAITING, **fresh))
        transaction.on_commit(_ring_default, robust=True)
    return won


def release_delivery(claim: DeliveryClaim) -> None:
    """Give a message back because this worker is stopping; a deploy is not a failed try."""
    _held_delivery(claim).update(attempts=F("attempts") - 1, **_UNCLAIMED)


def sweep() -> None:
    """Return what dead workers held, fail what failed too often, and ring for work that nobody has looked at.

    Safe to run anywhere at any time, by any number of processes.
    """
    dead = _dead_workers()
    lost = Q(lease_until__lte=clock.now()) | Q(worker__in=dead, claim__isnull=False)
    for section in Section.objects.filter(lost, status=Section.Status.TRANSCRIBING).defer("spans", "versions"):
        _sweep_section(section)
    for job in Job.objects.filter(lost, status__in=Job.UNFINISHED).only("attempts", *LEASE):
        _sweep_job(job)
    _sweep_downloads(lost)
    _sweep_deliveries(lost)
    Worker.objects.filter(pk__in=dead).delete()
    Worker.objects.filter(heartbeat_at__lt=clock.after(-FORGET_WORKERS_SECONDS)).delete()
    _ring_for_waiting_work()


def _dead_workers() -> list[uuid.UUID]:
    """The workers of this machine whose process is gone: there is no need to wait for their leases to run out.

    A PID of another namespace says nothing here: such a worker, as one of another machine, is waited for.
    """
    here = Worker.objects.filter(hostname=socket.gethostname(), pid_namespace=processes.namespace())
    seen = here.values_list("pk", "pid", "pid_started")
    return [worker for worker, pid, since in seen if not processes.is_running(pid, since=since)]


def _still_lost(row: Claimable) -> dict[str, object]:
    """What is true of a row whose claim was neither renewed nor ended since it was read."""
    return {"pk": row.pk, "claim": row.claim, "lease_until": row.lease_until}


def _sweep_section(section: Section) -> None:
    with transaction.atomic():
        if not _lock_job(section.job_id, Job.Status.TRANSCRIBING):
            return
        returned = Section.objects.filter(**_still_lost(section)).update(status=Section.Status.QUEUED, **_UNCLAIMED)
        if returned and section.attempts >= settings.MAX_ATTEMPTS:
            fail(section.job_id, errors.RunnerDied(attempts=section.attempts))
        elif returned:
            history.note(section.job_id, "returned", "the worker that held a section is gone")


def _sweep_job(job: Job) -> None:
    with transaction.atomic():
        returned = _give_back_jobs(Job.objects.filter(**_still_lost(job)))
        if returned and job.attempts >= settings.MAX_ATTEMPTS:
            fail(job.pk, errors.WorkerLost(attempts=job.attempts))
        elif returned:
            history.note(job.pk, "returned", "the worker that held the job is gone")


def _sweep_downloads(lost: Q) -> None:
    """Return what dead workers fetched, as often as they die: what has come is gone on from."""
    for download in Download.objects.filter(lost).only(*LEASE):
        Download.objects.filter(**_still_lost(download)).update(attempts=F("attempts") - 1, **_UNCLAIMED)
    stranded = Job.objects.filter(status=Job.Status.DOWNLOADING).exclude(model__in=Download.objects.values("model"))
    for job in stranded.values_list("pk", flat=True):
        _go_on(Job.objects.filter(pk=job, status=Job.Status.DOWNLOADING))


def _sweep_deliveries(lost: Q) -> None:
    """Return what dead workers were sending, as often as they die: it may have arrived, and is sent once more."""
    for delivery in Delivery.objects.filter(lost).only(*LEASE):
        Delivery.objects.filter(**_still_lost(delivery)).update(attempts=F("attempts") - 1, **_UNCLAIMED)


def _ring_for_waiting_work() -> None:
    """Ring once for each kind of work that waits and was not rung for in the last sweep's time."""
    unheard = Q(next_attempt_at__lte=clock.now(), rung_at__lte=clock.after(-settings.SWEEP_SECONDS))
    to_prepare = Q(status=Job.Status.QUEUED) | Q(status=Job.Status.FINISHING, claim=None)
    jobs = _mark_rung(Job.objects.filter(unheard, to_prepare))
    downloads = _mark_rung(Download.objects.filter(unheard, claim=None, error_code=""))
    deliveries = _mark_rung(Delivery.objects.filter(unheard, status=Delivery.Status.WAITING, claim=None))
    if jobs or downloads or deliveries:
        ring(DEFAULT_QUEUE)
    sections = Section.objects.filter(unheard, status=Section.Status.QUEUED, job__status=Job.Status.TRANSCRIBING)
    if _mark_rung(sections):
        ring_devices()


def _mark_rung(rows: QuerySet[Row]) -> int:
    """Note that these rows are rung for now; return how many."""
    # Rows that somebody works on are skipped: this update of many rows waits for nobody.
    free = rows.select_for_update(skip_locked=True, of=("self",), no_key=True).values("pk")
    with transaction.atomic():
        return rows.model._default_manager.filter(pk__in=free).update(rung_at=clock.now())


def _ring_default() -> None:
    ring(DEFAULT_QUEUE)
