"""When each unfinished job's turn comes and when it will be done, as the queue stands now.

The rules of `sections.claim_section` are played forward: priority, users in turn, of each user's jobs those that are
overtaken no more and then the shortest. How long a section
takes is learned from the sections that the same device decoded with the same model lately, and from the job's own.
"""

import heapq
import math
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from statistics import StatisticsError, linear_regression
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Count, DurationField, ExpressionWrapper, F, OuterRef, Q, QuerySet, Subquery, Sum

from transcription import clock
from transcription.models import Job, Section, Worker
from transcription.queue.jobs import PATIENCE_FACTOR
from transcription.whisper.sections import SECTION

WINDOW = 30.0  # seconds of sound
UNKNOWN_PACE = 0.02  # seconds for a second of sound that a device is thought to take before it has shown any: few
LEARNED_FROM = 30  # sections, the newest of a device and model
OWN_SECTIONS = 3  # of a job's own that are done: from then on they know better than other jobs'
LONGEST_SIMULATION = 2000  # turns; of longer queues several sections are played as one
GOOD_FOR_SECONDS = 2.0  # how long one forecast serves all who ask

Sample = tuple[float, float]  # seconds of sound, seconds that decoding them took


@dataclass(frozen=True)
class Forecast:
    """What is foreseen for an unfinished job.

    `position` is its place among those that have not begun, from 1; 0 when it has. `seconds` are those until it is
    done; None where nobody is there to do it, or nothing is known of how long that takes.
    """

    position: int
    seconds: float | None

    @property
    def about(self) -> int | None:
        """The seconds rounded up so that they seldom change: to 10, above a minute to minutes."""
        if self.seconds is None:
            return None
        step = 10 if self.seconds < 60 else 60
        return max(step, math.ceil(self.seconds / step) * step)


@dataclass(frozen=True)
class Speed:
    """How long a section takes: seconds however short it is, and seconds for each second of sound.

    Whisper decodes windows of 30 s: what is shorter costs as much.
    """

    constant: float
    rate: float

    def of(self, seconds: float) -> float:
        return self.constant + self.rate * max(WINDOW, seconds)


@dataclass
class Waiting:
    """A job and what of it is still to be decoded: sections that nobody has, and their seconds together."""

    id: uuid.UUID
    rank: int  # among all by length, but for whose user's turn it is
    place: int  # among all by their submit
    latest_start: float  # seconds from now until no later job of its owner goes before it
    owner: int
    priority: int
    model: str
    is_begun: bool
    sections: int
    seconds: float | None  # None while nobody knows how long the recording is
    own: Sample | None
    preparing: float
    is_prepared: bool
    ends: list[float | None] = field(default_factory=list)  # of what is decoded of it, in seconds from now

    def take(self, count: int) -> float | None:
        """Take some sections off; return their seconds."""
        share = None if self.seconds is None else self.seconds * min(1, count / self.sections)
        self.sections = max(0, self.sections - count)
        if self.seconds is not None and share is not None:
            self.seconds -= share
        return share


_lock = threading.Lock()
_latest: tuple[float, dict[uuid.UUID, Forecast]] = (-math.inf, {})


def latest() -> dict[uuid.UUID, Forecast]:
    """The turns of all unfinished jobs, at most some seconds old."""
    global _latest  # noqa: PLW0603  (one forecast serves everybody who looks within two seconds)
    with _lock:
        made, forecasts = _latest
        if time.monotonic() - made > GOOD_FOR_SECONDS:
            forecasts = forecast_now()
            _latest = (time.monotonic(), forecasts)
        return forecasts


def forget() -> None:
    """Make the next look a new one."""
    global _latest  # noqa: PLW0603
    with _lock:
        _latest = (-math.inf, {})


def forecast_now() -> dict[uuid.UUID, Forecast]:
    """The turns of all unfinished jobs."""
    waiting = _waiting()
    if not waiting:
        return {}
    devices = list(Worker.alive().filter(kind=Worker.Kind.DEVICE).values_list("pk", "device"))
    simulation = Simulation(waiting, {str(pk): device for pk, device in devices} or {"": ""})
    simulation.run()
    return simulation.forecasts(is_attended=bool(devices))


# ------------------------------------------------------------------ what is there


def _waiting() -> list[Waiting]:
    """The unfinished jobs that nothing holds up, in the order of their turns but for whose user's it is."""
    waiting = Job.objects.filter(status__in=Job.UNFINISHED, waiting_for="")
    jobs = waiting.exclude(status=Job.Status.DOWNLOADING).values(  # nobody knows when a model will be here
        "pk", "owner", "priority", "model", "status", "created_at", "recording__duration",
        patience=ExpressionWrapper(F("latest_start") - clock.now(), output_field=DurationField()), **_sums(),
    )  # fmt: skip
    pace = _preparing_pace()
    in_order = jobs.order_by("-priority", F("recording__duration").asc(nulls_last=True), "created_at", "pk")
    found = [_waiting_job(dict[str, Any](job), rank, pace) for rank, job in enumerate(in_order)]
    by_submit = sorted(range(len(found)), key=lambda rank: (in_order[rank]["created_at"], in_order[rank]["pk"]))
    for place, rank in enumerate(by_submit):
        found[rank].place = place
    return found


def _sums() -> dict[str, Any]:
    queued = Q(sections__status=Section.Status.QUEUED)
    done = Q(sections__status=Section.Status.DONE, sections__attempts=1)
    return {
        "queued": Count("sections", filter=queued),
        "rest": Sum(F("sections__seconds") - F("sections__transcribed"), filter=queued, default=0.0),
        "begun": Count("sections", filter=Q(sections__started_at__isnull=False)),
        "done": Count("sections", filter=done),
        "heard": Sum("sections__seconds", filter=done, default=0.0),
        "took": Sum("sections__processing_seconds", filter=done, default=0.0),
    }


def _waiting_job(job: dict[str, Any], rank: int, pace: float) -> Waiting:
    is_prepared = job["status"] in (Job.Status.TRANSCRIBING, Job.Status.FINISHING)
    is_cut = is_prepared or job["queued"] > 0
    duration = job["recording__duration"]
    return Waiting(
        id=job["pk"],
        rank=rank,
        place=0,
        latest_start=job["patience"].total_seconds(),
        owner=job["owner"],
        priority=job["priority"],
        model=job["model"],
        is_begun=bool(job["begun"]) or job["status"] == Job.Status.FINISHING,
        sections=job["queued"] if is_cut else max(1, math.ceil((duration or 0) / SECTION)),
        seconds=job["rest"] if is_cut else duration,
        own=(job["heard"], job["took"]) if job["done"] >= OWN_SECTIONS else None,
        preparing=0 if is_prepared else pace * (duration or 0),
        is_prepared=is_prepared,
    )


def decoding_seconds(model: str, sections: Sequence[float]) -> float:
    """How long the devices that are alive may take for sections of so many seconds, working on them together.

    Rather too short: the fastest device stands for all, and one that has decoded nothing yet counts as a fast one.
    """
    devices = list(Worker.alive().filter(kind=Worker.Kind.DEVICE).values_list("device", flat=True))
    speeds = [_speed(model, device) or Speed(0, UNKNOWN_PACE) for device in set(devices)] or [Speed(0, UNKNOWN_PACE)]
    return min(sum(map(speed.of, sections)) for speed in speeds) / max(1, len(devices))


def _preparing_pace() -> float:
    """Seconds that preparing takes for each second of a recording, as of the last ones."""
    done = Job.objects.filter(status=Job.Status.DONE, preparing_at__isnull=False, transcribing_at__isnull=False)
    last = done.order_by("-created_at").values_list("preparing_at", "transcribing_at", "recording__duration")[:10]
    facts = [((until - since).total_seconds(), duration or 0) for since, until, duration in last if since and until]
    heard = sum(duration for _, duration in facts)
    return sum(took for took, _ in facts) / heard if heard else 0


def _speed(model: str, device: str) -> Speed | None:
    """How fast a device is with a model; None when it has not shown it yet."""
    sections = Section.objects.filter(device=device, job__model=model, status=Section.Status.DONE, attempts=1)
    last = sections.order_by("-finished_at").values_list("seconds", "processing_seconds")[:LEARNED_FROM]
    return fit(list(last)) or _speed_so_far(model, device)


def _speed_so_far(model: str, device: str) -> Speed | None:
    """The speed in sections that are being decoded, for a device that has finished none."""
    running = _running().filter(job__model=model, worker__device=device, attempts=1, transcribed__gt=0)
    took = ExpressionWrapper(clock.now() - F("started_at"), output_field=DurationField())
    samples = running.annotate(took=took).values_list("transcribed", "took")
    return fit([(heard, took.total_seconds() if took else 0) for heard, took in samples])


def fit(samples: Sequence[Sample]) -> Speed | None:
    """The straight line through the samples; where they give none that makes sense, their mean."""
    samples = [(max(WINDOW, seconds), took) for seconds, took in samples if seconds]
    heard, took = sum(seconds for seconds, _ in samples), sum(seconds for _, seconds in samples)
    if not heard or not took:
        return None
    try:
        rate, constant = linear_regression(*zip(*samples, strict=True))
    except StatisticsError:  # a single one, or all of the same length
        return Speed(0, took / heard)
    return Speed(constant, rate) if rate > 0 and constant >= 0 else Speed(0, took / heard)


def _running() -> QuerySet[Section]:
    return Section.objects.filter(status=Section.Status.TRANSCRIBING, worker__isnull=False)


# ------------------------------------------------------------------ playing it forward


class Simulation:
    """The queue from now on: each device takes a section when it is free, and its owner's turn is over."""

    def __init__(self, waiting: list[Waiting], devices: dict[str, str]) -> None:
        self.waiting = waiting
        self.devices = devices
        self.speeds: dict[tuple[str, str], Speed | None] = {}
        self.turn = 0
        self.served: dict[int, float] = defaultdict(lambda: -math.inf)
        self.order: dict[uuid.UUID, None] = {}  # those that have not begun, as their turns come
        self.stride = math.ceil(sum(job.sections for job in waiting) / LONGEST_SIMULATION)

    def run(self) -> None:
        self._remember_who_was_served()
        free = self._finish_what_runs()
        heapq.heapify(free)
        for _, jobs in groupby(filter(_has_sections, self.waiting), key=_priority):
            self._simulate(free, list(jobs))

    def _remember_who_was_served(self) -> None:
        owners = {job.owner for job in self.waiting}
        # One look into the index for each, where Max would read all that the owner ever had.
        served = Job.objects.filter(owner=OuterRef("pk"), served_at__isnull=False).order_by("-served_at")
        last = Subquery(served.values("served_at")[:1])
        users = get_user_model().objects.filter(pk__in=owners).annotate(last=last).exclude(last=None)
        for owner, moment in users.values_list("pk", "last"):
            self.served[owner] = moment.timestamp()

    def _finish_what_runs(self) -> list[tuple[float, int, str, bool]]:
        """When each device is free, and whether that is known."""
        free: dict[str, tuple[float, bool]] = dict.fromkeys(self.devices, (0.0, True))
        jobs = {job.id: job for job in self.waiting}
        for job_id, worker, rest in _running().values_list("job", "worker", F("seconds") - F("transcribed")):
            job = jobs.get(job_id)
            if job is None or str(worker) not in free:
                continue
            speed = self._speed(job, self.devices[str(worker)])
            took = None if speed is None else speed.rate * max(0, rest)
            free[str(worker)] = (took or 0.0, took is not None)
            job.ends.append(took)
        return [(at, number, worker, known) for number, (worker, (at, known)) in enumerate(free.items())]

    def _simulate(self, free: list[tuple[float, int, str, bool]], jobs: list[Waiting]) -> None:
        """Play the jobs of one priority to their end."""
        by_owner: dict[int, list[Waiting]] = defaultdict(list)
        for job in jobs:
            by_owner[job.owner].append(job)
        users = {owner: _Line(own, self._latest_start) for owner, own in by_owner.items()}
        while users:
            at, number, worker, is_known = heapq.heappop(free)
            owner = min(users, key=partial(self._turn, users, at))
            job = users[owner].first(at)[1]
            if not job.is_begun:
                self.order.setdefault(job.id)
            took = self._time(job, self.devices[worker], job.take(self.stride))
            is_known = is_known and took is not None
            at += took or 0.0
            job.ends.append(at if is_known else None)
            self._end_turn(users, owner)
            heapq.heappush(free, (at, number, worker, is_known))

    def _turn(self, users: "dict[int, _Line]", at: float, owner: int) -> tuple[float, tuple[bool, int]]:
        return self.served[owner], users[owner].first(at)[0]

    def _end_turn(self, users: "dict[int, _Line]", owner: int) -> None:
        self.turn += 1
        self.served[owner] = time.time() + self.turn
        if users[owner].is_empty:
            del users[owner]

    def _latest_start(self, job: Waiting) -> float:
        """In seconds from now; that of a job which is not prepared is put off by its decoding time when it is."""
        if job.is_prepared or job.seconds is None:
            return job.latest_start
        speeds = [self._speed(job, device) or Speed(0, UNKNOWN_PACE) for device in set(self.devices.values())]
        each = job.seconds / job.sections
        took = job.sections * min(speed.of(each) for speed in speeds) / len(self.devices)
        return job.latest_start + PATIENCE_FACTOR * took

    def _time(self, job: Waiting, device: str, seconds: float | None) -> float | None:
        """How long a device will take for so many seconds of a job."""
        speed = self._speed(job, device)
        return None if speed is None or seconds is None else speed.of(seconds)

    def _speed(self, job: Waiting, device: str) -> Speed | None:
        if job.own is not None and (own := fit([job.own])) is not None:
            return own
        key = (job.model, device)
        if key not in self.speeds:
            self.speeds[key] = _speed(*key)
        return self.speeds[key]

    def forecasts(self, *, is_attended: bool) -> dict[uuid.UUID, Forecast]:
        places = {job_id: place for place, job_id in enumerate(self.order, 1)}
        return {job.id: Forecast(places.get(job.id, 0), _end(job) if is_attended else None) for job in self.waiting}


class _Line:
    """One user's jobs of one priority, as `sections.claim_section` takes them: given by length, shortest first."""

    def __init__(self, jobs: list[Waiting], latest_start: Callable[[Waiting], float]) -> None:
        self.by_length = deque(jobs)
        self.by_latest_start = deque(sorted((latest_start(job), job.place, job) for job in jobs))
        self.overdue: list[tuple[int, Waiting]] = []  # a heap by their submit

    def first(self, at: float) -> tuple[tuple[bool, int], Waiting]:
        """The job whose turn it is in `at` seconds, and its place among other users' first ones."""
        while self.by_latest_start and self.by_latest_start[0][0] <= at:
            _, place, job = self.by_latest_start.popleft()
            heapq.heappush(self.overdue, (place, job))
        while self.overdue and not self.overdue[0][1].sections:
            heapq.heappop(self.overdue)
        if self.overdue:
            place, job = self.overdue[0]
            return (False, place), job
        while not self.by_length[0].sections:
            self.by_length.popleft()
        return (True, self.by_length[0].rank), self.by_length[0]

    @property
    def is_empty(self) -> bool:
        while self.by_length and not self.by_length[0].sections:
            self.by_length.popleft()
        return not self.by_length


def _has_sections(job: Waiting) -> bool:
    return job.sections > 0


def _priority(job: Waiting) -> int:
    return job.priority


def _end(job: Waiting) -> float | None:
    """When the last of a job is decoded."""
    return None if None in job.ends else job.preparing + max(_known(job.ends), default=0.0)


def _known(ends: Iterable[float | None]) -> list[float]:
    return [end for end in ends if end is not None]
