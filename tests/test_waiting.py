"""How long a job waits for its owner's later ones: a queue and its devices, simulated over real claims.

The promise: counting only the time that devices spend on work of the same user and priority that was submitted later,
no job waits more than ten times its own decoding time plus a minute until it is done.
"""

import heapq
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import hypothesis
import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from transcription import jobs
from transcription.clock import DatabaseNow
from transcription.models import Job, Recording, Section, Worker
from transcription.queue import jobs as queue_jobs
from transcription.queue import sections, wakeups
from transcription.queue.sections import SectionClaim
from transcription.whisper.options import TranscriptionOptions

PACE = 0.2  # seconds that decoding takes for a second of sound, as on a CPU
SECTION = 120.0  # seconds of sound

Submit = tuple[float, float]  # seconds since the start, seconds of sound


@dataclass
class Followed:
    """A job of the simulation: its decoding time, and how long devices worked on later ones until it was done."""

    submitted: float
    decoding: float
    later: float = 0.0
    done: float | None = None
    runs: list[tuple[float, float]] = field(default_factory=list)


class Simulation:
    """Devices that take sections of one user's jobs as the queue gives them, in simulated time."""

    def __init__(self, owner: User, devices: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.start = self.now = datetime(2100, 1, 1, tzinfo=UTC)  # after whatever the database writes by itself
        monkeypatch.setattr(timezone, "now", lambda: self.now)
        monkeypatch.setattr(DatabaseNow, "as_postgresql", lambda *_, **__: ("%s::timestamptz", [self.now]))
        monkeypatch.setattr(wakeups.current_app, "send_task", lambda *_, **__: None)
        self.owner = owner
        self.workers = [
            Worker.objects.create(kind="device", queue=f"device.cuda:{i}", device=f"cuda:{i}", hostname="h", pid=i)
            for i in range(devices)
        ]
        self.followed: dict[object, Followed] = {}

    def submit(self, at: float, seconds: float) -> None:
        """Submit a job and prepare it at once."""
        recording = Recording.objects.create(
            owner=self.owner, original_name="a", bytes=1, sha256="0" * 64, duration=seconds
        )
        job_parameters = jobs.JobParameters(model="nano", options=TranscriptionOptions(language="en"))
        job = jobs._queue(recording, "a", job_parameters)
        claim = queue_jobs.claim_job(self.workers[0])
        assert claim is not None
        starts = [index * SECTION for index in range(max(1, round(seconds / SECTION)))]
        each = seconds / len(starts)
        sections = [
            Section(job_id=claim.job, index=index, start=0, end=1, spans=[], seconds=each)
            for index in range(len(starts))
        ]
        decoding = PACE * max(30.0, each) * len(sections)
        claim.store_sections(sections, language="en", decoding_seconds=decoding / len(self.workers))
        self.followed[job.pk] = Followed(at, decoding)

    def run(self, submits: list[Submit]) -> None:
        free = [(0.0, index) for index in range(len(self.workers))]
        waiting = sorted(submits, reverse=True)
        ends: dict[int, tuple[SectionClaim, float]] = {}
        while waiting or ends or any(one.done is None for one in self.followed.values()):
            at, index = heapq.heappop(free)
            while waiting and waiting[-1][0] <= at:
                moment, seconds = waiting.pop()
                self._set(moment)
                self.submit(moment, seconds)
            self._set(at)
            if index in ends:
                self._end(*ends.pop(index), at)
            claim = sections.claim_section(self.workers[index])
            if claim is None:
                later = min([at + 1.0, *(moment for moment, _ in waiting[-1:])])
                heapq.heappush(free, (max(at + 0.01, later), index))
                continue
            took = PACE * max(30.0, Section.objects.values_list("seconds", flat=True).get(pk=claim.section))
            ends[index] = (claim, at)
            heapq.heappush(free, (at + took, index))

    def _set(self, at: float) -> None:
        self.now = self.start + timedelta(seconds=at)

    def _end(self, claim: SectionClaim, since: float, until: float) -> None:
        claim.finish(seconds=until - since, engine="faster-whisper", device="cuda:0", versions={})
        own = self.followed[claim.job]
        for one in self.followed.values():
            if one.done is None and one is not own and one.submitted < own.submitted:
                one.later += until - max(since, one.submitted)
        if Job.objects.values_list("status", flat=True).get(pk=claim.job) == "finishing":
            own.done = until


VICTIM = st.tuples(st.floats(0, 60), st.sampled_from((15.0, 60.0, 400.0, 1500.0)))
BURST = st.tuples(st.floats(0, 200), st.integers(1, 40), st.sampled_from((5.0, 20.0, 60.0, 300.0)))
STREAM = st.tuples(st.floats(0, 60), st.floats(2.0, 8.0), st.sampled_from((5.0, 15.0)))


@pytest.mark.heavy
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_nobody_waits_for_later_work_longer_than_promised(devices: int) -> None:
    @given(
        victims=st.lists(
            st.tuples(st.floats(0, 60), st.sampled_from((15.0, 60.0, 400.0, 1500.0))), min_size=1, max_size=3
        ),
        bursts=st.lists(BURST, max_size=2),
        streams=st.lists(STREAM, max_size=1),
    )
    @hypothesis.settings(
        max_examples=8,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    def simulate(
        victims: list[Submit], bursts: list[tuple[float, int, float]], streams: list[tuple[float, float, float]]
    ) -> None:
        for kind in (Job, Recording, Worker):
            kind.objects.all().delete()
        owner = User.objects.get_or_create(username="alice")[0]
        submits = list(victims)
        submits += [(at, seconds) for at, count, seconds in bursts for _ in range(count)]
        submits += [(at + number * every / devices, seconds) for at, every, seconds in streams for number in range(50)]
        with pytest.MonkeyPatch.context() as monkeypatch:
            simulation = Simulation(owner, devices, monkeypatch)
            simulation.run([(at + number / 1000, seconds) for number, (at, seconds) in enumerate(submits)])
        for one in simulation.followed.values():
            assert one.later <= 10 * one.decoding + 60

    simulate()
