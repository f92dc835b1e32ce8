"""The queue against a model of it in plain Python: whatever is done to it in whatever order, both say the same.

Hypothesis submits, claims, stores, fails, cancels, retries and deletes, lets time pass, kills workers, repeats calls
and writes with claims that somebody else has by now; after each step every row must be what the model says. At the end
honest workers, woken by nothing but the sweeper, must bring every job to its end.

QUEUE_MODEL_EXAMPLES=2000 looks longer, and at other examples in each run.
"""

import os
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import hypothesis
import pytest
from django.conf import LazySettings, settings
from django.contrib.auth.models import User
from django.db import IntegrityError
from django.utils import timezone
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from transcription import errors, jobs
from transcription.clock import DatabaseNow
from transcription.models import Event, Job, Recording, Section, Segment, Worker
from transcription.queue import jobs as queue_jobs
from transcription.queue import sections, sweeper, wakeups
from transcription.queue.jobs import JobClaim
from transcription.queue.sections import SectionClaim
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.result import Segment as DecodedSegment

T = TypeVar("T")

EXAMPLES = int(os.environ.get("QUEUE_MODEL_EXAMPLES", "0"))
HERE = "this machine"
REASONS = (None, errors.NoAudio(), errors.EngineFailed(detail="…"), errors.DiskFull())  # None: the worker is stopping
UNCLAIMED = (None, None, None)

ENDS = {"failed", "cancelled"}  # of every unfinished job, and whoever likes may try it again
MOVES = {
    "queued": {"preparing", *ENDS},
    "preparing": {"queued", "transcribing", *ENDS},
    "transcribing": {"finishing", *ENDS},
    "finishing": {"done", *ENDS},
    "done": set(),
    "failed": {"queued"},
    "cancelled": {"queued"},
}

anyone = st.integers(0, 2)  # of the users, or of the workers
which = st.integers(0, 50)  # of however many there are


@dataclass(eq=False, kw_only=True)
class Piece:
    """What the model knows of a row that can be claimed."""

    pk: uuid.UUID | int
    next_attempt_at: datetime
    status: str = "queued"
    attempts: int = 0
    held: tuple[uuid.UUID | None, uuid.UUID | None, datetime | None] = UNCLAIMED  # claim, worker, lease

    def is_waiting(self, now: datetime) -> bool:
        return self.status == "queued" and self.next_attempt_at <= now

    def move(self, status: str) -> None:
        self.status = status


@dataclass(eq=False, kw_only=True)
class ModelJob(Piece):
    owner: User
    priority: int
    length: int
    latest_start: datetime
    sections: "list[ModelSection]" = field(default_factory=list)
    language: str = ""
    waiting_for: str = ""
    error_code: str = ""
    preparing_at: datetime | None = None
    served_at: datetime | None = None
    finishing_at: datetime | None = None
    ends: Counter[str] = field(default_factory=Counter)  # how often it came to which end

    @property
    def is_ended(self) -> bool:
        return self.status in {"done", *ENDS}

    def move(self, status: str) -> None:
        assert status in MOVES[self.status]
        self.status = status


@dataclass(eq=False, kw_only=True)
class ModelSection(Piece):
    job: ModelJob
    index: int
    segments: list[int] = field(default_factory=list)  # their keys


class Clock:
    """The time that the queue sees: it stands still but when it is told."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Queue(RuleBasedStateMachine):
    """The queue and its model, side by side."""

    def __init__(self, clock: Clock, users: list[User], dead: set[int], rung: list[str]) -> None:
        super().__init__()
        self.clock, self.users, self.dead, self.rung = clock, users, dead, rung
        for kind in (Job, Recording, Worker, Event):
            kind.objects.all().delete()
        self.jobs: list[ModelJob] = []
        self.job_claims: list[tuple[JobClaim, ModelJob]] = []
        self.section_claims: list[tuple[SectionClaim, ModelSection]] = []
        self.pid = 0
        self.workers: list[Worker] = []

    @initialize(lengths=st.lists(st.integers(1, 600), min_size=1, max_size=3), count=st.integers(1, 3), held=anyone)
    def begin(self, lengths: list[int], count: int, held: int) -> None:
        """Some jobs are being transcribed already."""
        self.dead.clear()
        self.workers = [self._new_worker() for _ in range(3)]
        for user, length in enumerate(lengths):
            self.submit(user, 0, length)
            self.prepare_a_job(0, count, "")
            self.clock.pass_by(0.001)
        for worker in range(held):
            self.takes_a_section(worker)
            self.clock.pass_by(0.001)

    def _new_worker(self) -> Worker:
        self.pid += 1
        now = self.clock.now
        return Worker.objects.create(
            kind="device",
            queue="device.cpu",
            device="cpu",
            hostname=HERE,
            pid=self.pid,
            pid_namespace=sweeper.processes.namespace(),
            heartbeat_at=now,
        )

    # ---------------------------------------------------------------- what the model knows

    @property
    def now(self) -> datetime:
        return self.clock.now

    @property
    def sections(self) -> list[ModelSection]:
        return [section for job in self.jobs for section in job.sections]

    def held_jobs(self) -> list[tuple[JobClaim, ModelJob]]:
        return [(claim, job) for claim, job in self.job_claims if job.held[0] == claim.token]

    def held_sections(self) -> list[tuple[SectionClaim, ModelSection]]:
        return [(claim, section) for claim, section in self.section_claims if section.held[0] == claim.token]

    def lost(self) -> list[tuple[JobClaim | SectionClaim, Piece]]:
        """Claims of what somebody else holds now; when there is no such, of what has ended."""
        claims: list[tuple[JobClaim | SectionClaim, Piece]] = [*self.section_claims, *self.job_claims]
        lost = [(claim, piece) for claim, piece in claims if piece.held[0] != claim.token]
        ended = [(claim, piece) for claim, piece in lost if job_of(piece).is_ended]
        return [(claim, piece) for claim, piece in lost if piece.held[0]] or ended

    def ready_sections(self, job: ModelJob) -> list[ModelSection]:
        if job.status != "transcribing":
            return []
        return [s for s in job.sections if s.is_waiting(self.now) and (s.index == 0 or job.language)]

    def in_turn(self, waiting: list[ModelJob], served: str) -> ModelJob | None:
        """High priority first, then the user served longest ago.

        Of that user's jobs the first submitted whose latest start has passed goes first, then the shortest.
        """
        last: dict[User, datetime] = {}
        for job in self.jobs:
            if (at := getattr(job, served)) is not None:
                last[job.owner] = max(at, last.get(job.owner, at))
        first = self.now - timedelta(days=1)
        return min(
            waiting,
            key=lambda job: (-job.priority, last.get(job.owner, first), *self.among_its_owners(job)),
            default=None,
        )

    def among_its_owners(self, job: ModelJob) -> tuple[bool, int, int]:
        is_early = job.latest_start > self.now
        return is_early, job.length if is_early else 0, self.jobs.index(job)

    def take(self, piece: Piece, token: uuid.UUID, worker: Worker) -> None:
        piece.held = (token, worker.pk, self.lease())
        piece.attempts += 1

    def lease(self) -> datetime:
        return self.now + timedelta(seconds=settings.LEASE_SECONDS)

    def renew(self, piece: Piece) -> None:
        piece.held = (*piece.held[:2], self.lease())

    def give_back(self, piece: Piece) -> None:
        piece.held = UNCLAIMED
        if piece.status != "finishing":
            piece.move("queued")

    def end(self, job: ModelJob, status: str, error_code: str = "") -> None:
        job.move(status)
        job.error_code = error_code
        job.ends[status] += 1
        for piece in (job, *job.sections):
            piece.held = UNCLAIMED

    def hand_on(self, job: ModelJob) -> None:
        if all(section.status == "done" for section in job.sections):
            job.move("finishing")
            job.attempts, job.finishing_at = 0, self.now

    def given_up(self, piece: Piece, why: errors.Problem | None) -> None:
        """A worker gave back what it had, for a problem or because it is stopping."""
        job = job_of(piece)
        if why is None:
            piece.attempts -= 1
        elif why.waiting_sentence:
            piece.attempts -= 1
            piece.next_attempt_at = self.now + timedelta(seconds=30)
            job.waiting_for = why.code
        elif why.is_transient and piece.attempts < settings.MAX_ATTEMPTS:
            piece.next_attempt_at = self.now + timedelta(seconds=2**piece.attempts - 2)
            job.waiting_for = ""
        else:
            self.end(job, "failed", why.code)
            return
        self.give_back(piece)

    # ---------------------------------------------------------------- endpoints

    @precondition(lambda self: len(self.jobs) < 6)
    @rule(user=anyone, priority=st.integers(-1, 1), length=st.integers(1, 600))
    def submit(self, user: int, priority: int, length: int) -> None:
        now, owner = self.now, self.users[user]
        recording = Recording.objects.create(
            owner=owner, original_name="a.ogg", bytes=length, sha256="0" * 64, duration=length
        )
        job = Job.objects.create(
            owner=owner, recording=recording, name="a", model="nano", options=TranscriptionOptions().to_json(),
            priority=priority, created_at=now, next_attempt_at=now, rung_at=now, latest_start=self.patience(),
        )  # fmt: skip
        self.jobs.append(
            ModelJob(
                pk=job.pk,
                next_attempt_at=now,
                owner=owner,
                priority=priority,
                length=length,
                latest_start=self.patience(),
            )  # fmt: skip
        )

    def patience(self) -> datetime:
        return self.now + timedelta(seconds=queue_jobs.PATIENCE_SECONDS)

    @precondition(lambda self: not all(job.is_ended for job in self.jobs))
    @rule(n=which, status=st.sampled_from(sorted(ENDS)))
    def end_early(self, n: int, status: str) -> None:
        job = pick([job for job in self.jobs if not job.is_ended], n)
        assert queue_jobs.cancel(job.pk) if status == "cancelled" else queue_jobs.fail(job.pk, errors.NoAudio())
        self.end(job, status, "" if status == "cancelled" else "no_audio")
        assert not queue_jobs.cancel(job.pk)
        assert not queue_jobs.fail(job.pk, errors.DiskFull())

    @precondition(lambda self: any(job.status in ENDS for job in self.jobs))
    @rule(n=which)
    def retry(self, n: int) -> None:
        job = pick([job for job in self.jobs if job.status in ENDS], n)
        assert queue_jobs.retry(job.pk)
        job.error_code, job.waiting_for, job.latest_start = "", "", self.patience()
        for piece in (job, *(section for section in job.sections if section.status != "done")):
            piece.move("queued")
            piece.attempts, piece.next_attempt_at = 0, self.now

    @precondition(lambda self: len(self.jobs) > 2)
    @rule(n=which)
    def delete(self, n: int) -> None:
        job = pick(self.jobs, n)
        row = Job.objects.select_related("recording").get(pk=job.pk)
        pcm = row.pcm_path
        jobs.delete(row)
        assert not pcm.exists()
        self.jobs.remove(job)
        for piece in (job, *job.sections):
            piece.held = UNCLAIMED

    # ---------------------------------------------------------------- the default worker

    @precondition(lambda self: any(job.status == "queued" for job in self.jobs))
    @rule(worker=anyone, most_bytes=st.sampled_from((None, None, 100)))
    def claim_job(self, worker: int, most_bytes: int | None) -> None:
        self.takes_a_job(worker, most_bytes)

    def takes_a_job(self, worker: int, most_bytes: int | None = None) -> bool:
        waiting = [job for job in self.jobs if job.is_waiting(self.now)]
        small = [job for job in waiting if most_bytes is None or job.length <= most_bytes]
        expected = self.in_turn(small, "preparing_at")
        claim = queue_jobs.claim_job(self.workers[worker], most_bytes=most_bytes)
        assert (claim and claim.job) == (expected and expected.pk)
        if claim is None or expected is None:
            return False
        self.take(expected, claim.token, self.workers[worker])
        expected.move("preparing")
        expected.preparing_at = self.now
        self.job_claims.append((claim, expected))
        with pytest.raises(errors.LeaseLost):
            claim.finish(text="early")
        pcm = Job(pk=claim.job).pcm_path
        pcm.parent.mkdir(parents=True, exist_ok=True)
        pcm.touch()
        return True

    @precondition(lambda self: any(job.is_waiting(self.now) for job in self.jobs))
    @rule(worker=anyone, count=st.integers(0, 2), language=st.sampled_from(("", "en")))
    def prepare_a_job(self, worker: int, count: int, language: str) -> None:
        self.takes_a_job(worker)
        self.prepared(len(of_status(self.held_jobs(), "preparing")) - 1, count, language)

    @precondition(lambda self: of_status(self.held_jobs(), "preparing"))
    @rule(n=which, count=st.integers(0, 4), language=st.sampled_from(("", "en")))
    def prepared(self, n: int, count: int, language: str) -> None:
        claim, job = pick(of_status(self.held_jobs(), "preparing"), n)
        times = {"next_attempt_at": self.now, "rung_at": self.now}
        found = [
            Section(
                job_id=job.pk, index=index, start=index, end=index + 1, spans=[[index, index + 1]], seconds=1, **times
            )
            for index in range(count)
        ]
        claim.store_sections(found, language=language or job.language, decoding_seconds=count)
        job.latest_start += timedelta(seconds=queue_jobs.PATIENCE_FACTOR * count)
        job.move("transcribing")
        job.attempts, job.waiting_for, job.held = 0, "", UNCLAIMED
        job.language = language or job.language
        if not job.sections:
            rows = Section.objects.filter(job=job.pk).order_by("index").values_list("pk", "index")
            job.sections = [ModelSection(pk=pk, index=index, next_attempt_at=self.now, job=job) for pk, index in rows]
        self.hand_on(job)

    @precondition(lambda self: any(job.status == "finishing" for job in self.jobs))
    @rule(worker=anyone)
    def claim_finished_job(self, worker: int) -> None:
        self.takes_a_finished_job(worker)

    def takes_a_finished_job(self, worker: int) -> bool:
        waiting = [j for j in self.jobs if j.status == "finishing" and not j.held[0] and j.next_attempt_at <= self.now]
        expected = min(waiting, key=lambda job: job.finishing_at or self.now, default=None)
        claim = queue_jobs.claim_finished_job(self.workers[worker])
        assert (claim and claim.job) == (expected and expected.pk)
        if claim is None or expected is None:
            return False
        self.take(expected, claim.token, self.workers[worker])
        self.job_claims.append((claim, expected))
        with pytest.raises(errors.LeaseLost):
            claim.store_sections([])
        return True

    @precondition(lambda self: of_status(self.held_jobs(), "finishing"))
    @rule(n=which)
    def finished(self, n: int) -> None:
        claim, job = pick(of_status(self.held_jobs(), "finishing"), n)
        claim.finish(text="…")
        self.end(job, "done")
        assert not queue_jobs.cancel(claim.job)
        assert not queue_jobs.fail(claim.job, errors.NoAudio())
        assert not queue_jobs.retry(claim.job)

    @precondition(lambda self: self.held_jobs())
    @rule(n=which)
    def renew_job(self, n: int) -> None:
        claim, job = pick(self.held_jobs(), n)
        claim.renew(progress=0.5)
        self.renew(job)

    @precondition(lambda self: self.held_jobs())
    @rule(n=which, why=st.sampled_from(REASONS))
    def give_up_a_job(self, n: int, why: errors.Problem | None) -> None:
        claim, job = pick(self.held_jobs(), n)
        if why is None:
            claim.release()
        else:
            claim.retry(why)
        self.given_up(job, why)

    # ---------------------------------------------------------------- the device workers

    @precondition(lambda self: any(section.status == "queued" for section in self.sections))
    @rule(workers=st.lists(anyone, min_size=1, max_size=3))
    def claim_sections(self, workers: list[int]) -> None:
        for worker in workers:
            self.takes_a_section(worker)

    def transcribe_a_section(self, worker: int) -> None:
        self.takes_a_section(worker)
        self.store_segment(len(self.held_sections()) - 1)
        self.section_done(len(self.held_sections()) - 1)

    def takes_a_section(self, worker: int) -> bool:
        expected = self.in_turn([job for job in self.jobs if self.ready_sections(job)], "served_at")
        section = min(self.ready_sections(expected), key=lambda ready: ready.index) if expected else None
        claim = sections.claim_section(self.workers[worker])
        assert (claim and claim.section) == (section and section.pk)
        if claim is None or section is None:
            return False
        self.take(section, claim.token, self.workers[worker])
        section.move("transcribing")
        section.job.served_at = self.now
        self.nobody_is_overtaken_after_its_latest_start(section.job)
        self.section_claims.append((claim, section))
        return True

    def nobody_is_overtaken_after_its_latest_start(self, begun: ModelJob) -> None:
        """No job of the same user and priority that was submitted before and may be overtaken no more is ready."""
        for job in self.jobs[: self.jobs.index(begun)]:
            if (job.owner, job.priority) == (begun.owner, begun.priority) and job.latest_start <= self.now:
                assert not self.ready_sections(job)

    @precondition(lambda self: self.held_sections())
    @rule(n=which, language=st.sampled_from(("en", "ru")))
    def found_language(self, n: int, language: str) -> None:
        claim, section = pick(self.held_sections(), n)
        claim.store_language(language, 0.9)
        section.job.language = section.job.language or language
        self.renew(section)

    @precondition(lambda self: self.held_sections())
    @rule(n=which)
    def store_segment(self, n: int) -> None:
        claim, section = pick(self.held_sections(), n)
        index = len(section.segments)
        claim.store_segment(index, said(f"{index}"), transcribed=index / 10)
        section.segments.append(Segment.objects.get(section=section.pk, index=index).pk)
        section.job.waiting_for = ""
        self.renew(section)
        with pytest.raises(IntegrityError):
            claim.store_segment(index, said("twice"), transcribed=1.0)

    @precondition(lambda self: self.held_sections())
    @rule(n=which, has_news=st.booleans())
    def renew_section(self, n: int, has_news: bool) -> None:
        claim, section = pick(self.held_sections(), n)
        if has_news:
            claim.store_progress(0.5)
            section.job.waiting_for = ""
        else:
            claim.renew()
        self.renew(section)

    @precondition(lambda self: self.held_sections())
    @rule(n=which)
    def section_done(self, n: int) -> None:
        claim, section = pick(self.held_sections(), n)
        if not section.job.language:
            self.found_language(n, "en")  # an engine says it before anything else
        close(claim)
        section.move("done")
        section.held, section.job.waiting_for = UNCLAIMED, ""
        self.hand_on(section.job)

    @precondition(lambda self: self.held_sections())
    @rule(n=which, why=st.sampled_from(REASONS))
    def give_up_a_section(self, n: int, why: errors.Problem | None) -> None:
        claim, section = pick(self.held_sections(), n)
        if why is None:
            claim.release()
        else:
            claim.retry(why)
        self.given_up(section, why)

    # ---------------------------------------------------------------- what must change nothing

    @precondition(lambda self: self.lost())
    @rule(n=which, write=which, why=st.sampled_from(REASONS))
    def write_late(self, n: int, write: int, why: errors.Problem | None) -> None:
        """Somebody goes on with what is another's by now, or has ended."""
        claim, piece = pick(self.lost(), n)
        with pytest.raises(errors.LeaseLost):
            pick(self.writes(claim, piece), write)()
        if isinstance(claim, SectionClaim):
            claim.release()
            claim.retry(why or errors.NoAudio())
        else:
            claim.release()
            claim.retry(why or errors.NoAudio())

    def writes(self, claim: JobClaim | SectionClaim, piece: Piece) -> list[Callable[[], object]]:
        """What needs a claim."""
        if isinstance(claim, JobClaim):
            return [
                lambda: claim.renew(progress=0.1),
                lambda: claim.store_sections([]),
                lambda: claim.finish(text="late"),
            ]
        assert isinstance(piece, ModelSection)
        return [
            lambda: claim.renew(),
            lambda: claim.store_language("late", 0.9),
            lambda: claim.store_segment(len(piece.segments), said("late"), transcribed=1.0),
            lambda: claim.store_progress(1.0),
            lambda: close(claim),
        ]

    # ---------------------------------------------------------------- time, deaths, the sweeper

    @rule(seconds=st.sampled_from((1, 5, 31)))
    def time_passes(self, seconds: int) -> None:
        self.clock.pass_by(seconds)
        Worker.objects.exclude(pid__in=self.dead).update(heartbeat_at=self.now)
        self.sweep()

    @precondition(lambda self: self.held_jobs() or self.held_sections())
    @rule(worker=anyone, n=which, write=which, why=st.sampled_from(REASONS))
    def leases_run_out(self, worker: int, n: int, write: int, why: errors.Problem | None) -> None:
        """Somebody else takes what a worker held for too long and comes back to."""
        self.time_passes(61)
        while self.takes_a_section(worker):
            pass
        if self.lost():
            self.write_late(n, write, why)

    @precondition(lambda self: self.held_jobs() or self.held_sections())
    @rule(worker=anyone)
    def worker_dies(self, worker: int) -> None:
        self.dead.add(self.workers[worker].pid)
        self.workers[worker] = self._new_worker()
        self.sweep()

    def sweep(self) -> None:
        sweeper.sweep()
        living = {worker.pk for worker in self.workers}
        for piece in (*self.sections, *self.jobs):
            _, worker, lease = piece.held
            if lease is not None and (lease <= self.now or worker not in living):
                self.swept(piece)

    def swept(self, piece: Piece) -> None:
        self.give_back(piece)
        if piece.attempts >= settings.MAX_ATTEMPTS:
            is_section = isinstance(piece, ModelSection)
            self.end(job_of(piece), "failed", "runner_died" if is_section else "worker_lost")

    # ---------------------------------------------------------------- what must be true after each step

    @invariant()
    def both_agree(self) -> None:
        self.clock.pass_by(0.001)  # no two steps at one time
        self.rows_are_what_the_model_says()
        self.nobody_tries_too_often()
        self.what_has_ended_holds_nothing()

    def rows_are_what_the_model_says(self) -> None:
        claimable = ("pk", "status", "claim", "worker", "lease_until", "attempts", "next_attempt_at")
        stored = Job.objects.values_list(*claimable, "language", "waiting_for", "error_code")
        assert set(stored) == {(*row(job), job.language, job.waiting_for, job.error_code) for job in self.jobs}
        sections = Section.objects.values_list(*claimable, "job", "index")
        assert set(sections) == {(*row(section), section.job.pk, section.index) for section in self.sections}
        segments = {section.pk: list(enumerate(section.segments)) for section in self.sections if section.segments}
        assert stored_segments() == segments

    def nobody_tries_too_often(self) -> None:
        assert all(0 <= piece.attempts <= settings.MAX_ATTEMPTS for piece in (*self.jobs, *self.sections))

    def what_has_ended_holds_nothing(self) -> None:
        for job in self.jobs:
            if job.is_ended:
                assert all(piece.held == UNCLAIMED for piece in (job, *job.sections))
                assert not Job(pk=job.pk).pcm_path.exists()

    # ---------------------------------------------------------------- at the end

    def teardown(self) -> None:
        """Every claim is forgotten by who has it; then honest workers come, woken by the sweeper alone."""
        for _ in range(20):
            if all(job.is_ended for job in self.jobs):
                break
            self.rung.clear()
            self.time_passes(301)
            self.everything_that_waits_was_rung_for()
            self.honest_workers_work()
            self.both_agree()
        assert all(job.is_ended for job in self.jobs), "work was lost"
        for job in self.jobs:
            noted = Counter(Event.objects.filter(job_id=job.pk).values_list("kind", flat=True))
            assert {kind: noted[kind] for kind in ("done", *ENDS) if noted[kind]} == job.ends
            assert job.ends["done"] <= 1

    def everything_that_waits_was_rung_for(self) -> None:
        if any(self.ready_sections(job) for job in self.jobs):
            assert "device.cpu" in self.rung
        if any(job.is_waiting(self.now) or job.status == "finishing" for job in self.jobs):
            assert "default" in self.rung

    def honest_workers_work(self) -> None:
        while any(job.is_waiting(self.now) for job in self.jobs):
            self.prepare_a_job(0, 2, "")
            self.both_agree()
        while any(self.ready_sections(job) for job in self.jobs):
            self.transcribe_a_section(0)
            self.both_agree()
        while self.takes_a_finished_job(0):
            self.finished(len(of_status(self.held_jobs(), "finishing")) - 1)
            self.both_agree()


def pick(things: "list[T] | tuple[T, ...]", n: int) -> T:
    return things[n % len(things)]


def job_of(piece: Piece) -> ModelJob:
    job = piece.job if isinstance(piece, ModelSection) else piece
    assert isinstance(job, ModelJob)
    return job


def of_status(held: list[tuple[JobClaim, ModelJob]], status: str) -> list[tuple[JobClaim, ModelJob]]:
    return [(claim, job) for claim, job in held if job.status == status]


def said(text: str) -> DecodedSegment:
    return DecodedSegment(0.0, 1.0, text, 0, (1, 2), 0.0, -0.2, 1.1, 0.01)


def close(claim: SectionClaim) -> None:
    claim.finish(seconds=1.0, engine="faster-whisper", device="cpu", versions={"faster-whisper": "1"})


def row(piece: Piece) -> tuple[object, ...]:
    return (piece.pk, piece.status, *piece.held, piece.attempts, piece.next_attempt_at)


def stored_segments() -> dict[int, list[tuple[int, int]]]:
    """(index, key) of each section's segments."""
    found: dict[int, list[tuple[int, int]]] = {}
    for section, index, pk in Segment.objects.order_by("section", "index").values_list("section", "index", "pk"):
        found.setdefault(section, []).append((index, pk))
    return found


@pytest.mark.heavy
@pytest.mark.django_db(transaction=True)
def test_the_queue_does_what_its_model_says(
    monkeypatch: pytest.MonkeyPatch, settings: LazySettings, alice: User, bob: User
) -> None:
    settings.MAX_ATTEMPTS = 2
    clock, dead, rung = Clock(), set[int](), list[str]()
    carol = User.objects.create_user("carol")
    monkeypatch.setattr(timezone, "now", lambda: clock.now)
    monkeypatch.setattr(DatabaseNow, "as_postgresql", lambda *_, **__: ("%s::timestamptz", [clock.now]))
    monkeypatch.setattr(sweeper.socket, "gethostname", lambda: HERE)
    monkeypatch.setattr(sweeper.processes, "is_running", lambda pid, since: pid not in dead)
    monkeypatch.setattr(wakeups.current_app, "send_task", lambda name, queue, **_: rung.append(queue))
    run_state_machine_as_test(
        partial(Queue, clock, [alice, bob, carol], dead, rung),
        settings=hypothesis.settings(
            max_examples=EXAMPLES or 40,
            stateful_step_count=40,
            derandomize=not EXAMPLES,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
