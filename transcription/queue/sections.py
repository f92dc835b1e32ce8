"""The sections of a job: claim, store segments, finish, retry, release."""

import uuid
from dataclasses import asdict, dataclass

from django.db import transaction
from django.db.models import F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Greatest

from transcription import clock, errors
from transcription.logs import timed
from transcription.models import Job, Section, Segment, Worker
from transcription.queue import jobs, leases, wakeups
from transcription.queue.leases import UNCLAIMED, Claim
from transcription.whisper.result import Segment as DecodedSegment


@dataclass(frozen=True)
class SectionClaim(Claim):
    """The right to decode a section of a job."""

    job: uuid.UUID
    section: int

    def renew(self) -> None:
        """Renew the lease of a section. Raises LeaseLost when the claim is lost or the job has ended."""
        with transaction.atomic():
            leases.must_win(self._held().update(lease_until=leases.lease_end()))

    def store_language(self, language: str, probability: float) -> None:
        """Store the language detected in a job's first section, which opens the others. Raises LeaseLost."""
        with transaction.atomic():
            leases.must_win(self._held().update(lease_until=leases.lease_end()))
            unknown = Job.objects.filter(pk=self.job, language="")
            if unknown.update(language=language, language_probability=probability):
                transaction.on_commit(wakeups.ring_devices, robust=True)

    @timed("storing a segment")
    def store_segment(self, index: int, segment: DecodedSegment, *, transcribed: float) -> None:
        """Store a section's `index`th segment, in the recording's time. Raises LeaseLost.

        `transcribed` is how many of the section's seconds are decoded, up to and including this segment.
        """
        with transaction.atomic():
            moved = Greatest(F("transcribed"), transcribed)
            # The lock on the job's row makes its segments appear in the order of their ids: a reader that continues
            # after an id misses none.
            leases.must_win(self._held().update(lease_until=leases.lease_end(), transcribed=moved))
            jobs.update_progress(self.job)
            Segment.objects.create(
                job_id=self.job,
                section_id=self.section,
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
                language=segment.language,
            )

    def store_progress(self, seconds: float) -> None:
        """Note that `seconds` of a section are decoded, and renew its lease. Raises LeaseLost."""
        with transaction.atomic():
            moved = Greatest(F("transcribed"), seconds)
            leases.must_win(self._held().update(lease_until=leases.lease_end(), transcribed=moved))
            jobs.update_progress(self.job)

    @timed("closing the section")
    def finish(self, *, seconds: float, engine: str, device: str, versions: dict[str, str]) -> None:
        """Mark a section as done; after a job's last section the job can be finished. Raises LeaseLost.

        `seconds` is the time that decoding took. The section keeps engine, device and versions; the job keeps those of
        the section that was done last.
        """
        facts = {"engine": engine, "device": device, "versions": versions}
        with transaction.atomic():
            changes = {"finished_at": clock.now(), "transcribed": F("seconds"), "processing_seconds": seconds}
            leases.must_win(self._held().update(status=Section.Status.DONE, **changes, **facts, **UNCLAIMED))
            Job.objects.filter(pk=self.job).update(processing_seconds=F("processing_seconds") + seconds, **facts)
            jobs.update_progress(self.job)
            jobs.end_transcribing(self.job)

    def retry(self, problem: errors.Problem) -> None:
        """Give a section back after a failed attempt, to be tried again later; after the last attempt fail its job."""
        with transaction.atomic():
            held = self._held()
            attempts = held.values_list("attempts", flat=True).first()
            if attempts is None:
                return
            again = leases.another_attempt(problem, attempts)
            if again is None:
                jobs.fail(self.job, problem)
                return
            held.update(status=Section.Status.QUEUED, **UNCLAIMED, **again)
            jobs.note_delay(self.job, problem)

    def release(self) -> None:
        """Give a section back because this worker is stopping; this does not count as an attempt."""
        with transaction.atomic():
            self._held().update(status=Section.Status.QUEUED, attempts=F("attempts") - 1, **UNCLAIMED)

    def _held(self) -> QuerySet[Section]:
        """The claimed section, or none if the claim is lost. Locks the job's row, so it must run in a transaction."""
        if not leases.lock_job(self.job, Job.Status.TRANSCRIBING):
            return Section.objects.none()
        return Section.objects.filter(pk=self.section, claim=self.token, status=Section.Status.TRANSCRIBING)


def claim_section(worker: Worker) -> SectionClaim | None:
    """Claim the next section of the job whose turn it is.

    High priority goes first, then the user whose last section was begun longest ago. Of one user's jobs those whose
    latest start has passed go first, in the order of their submit, then the shortest recording, so that a voice message
    waits for the rest of one section of a lecture at most. A job's first section detects the language, and the others
    wait for it unless the job is multilingual. A job that asked for an engine or a device waits for a worker with it.
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
    in_turn = jobs.in_turn(Job.objects.filter(status=Job.Status.TRANSCRIBING), "served_at", "recording__duration")
    turn = in_turn.annotate(first=Subquery(first)).exclude(first=None).values_list("pk", "first")
    while (job_and_section := turn.first()) is not None:
        if claim := _claim_section(worker, *job_and_section):
            return claim
    return None


def _claim_section(worker: Worker, job: uuid.UUID, section: int) -> SectionClaim | None:
    """Claim a section of a job if it still waits, which ends its owner's turn."""
    token = uuid.uuid4()
    with transaction.atomic():
        is_open = Job.objects.filter(pk=job, status=Job.Status.TRANSCRIBING).update(served_at=clock.now())
        # The other conditions for a section to be ready never become false again.
        queued = Section.objects.filter(pk=section, status=Section.Status.QUEUED, next_attempt_at__lte=clock.now())
        changes = {"status": Section.Status.TRANSCRIBING, "started_at": clock.now(), **leases.columns(worker, token)}
        if is_open and queued.update(**changes):
            return SectionClaim(token, job, section)
        transaction.set_rollback(True)
    return None
