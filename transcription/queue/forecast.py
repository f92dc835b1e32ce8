"""When each unfinished job's turn comes and when it will be done, as the queue stands now.

A simulation follows the rules of `sections.claim_section`: priority, users in turn, of each user's jobs those whose
latest start has passed and then the shortest. How long a section takes is estimated from the newest sections that the
same device decoded with the same model, and from those of the job itself.
"""

import heapq
import math
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import attrgetter
from statistics import StatisticsError, linear_regression
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Count, DurationField, ExpressionWrapper, F, OuterRef, Q, QuerySet, Subquery, Sum

from transcription import clock
from transcription.models import Job, Section, Worker
from transcription.queue.jobs import PATIENCE_FACTOR
from transcription.whisper.cutting import SECTION

WINDOW = 30.0  # seconds of sound
UNKNOWN_PACE = 0.02  # seconds for a second of sound, assumed of a device that has decoded nothing: that of a fast one
LEARNED_FROM = 30  # newest sections of a device and model
OWN_SECTIONS = 3  # when a job has this many done, they are used in place of other jobs' sections
LONGEST_SIMULATION = 2000  # turns; in longer queues several sections are decoded in one turn
GOOD_FOR_SECONDS = 2.0  # how long one forecast is used for all requests

Sample = tuple[float, float]  # seconds of sound, seconds that decoding them took


@dataclass(frozen=True)
class Forecast:
    """The forecast of an unfinished job.

    `position` is its place among the jobs that have not begun, from 1; 0 when it has begun. `seconds` is the time until
    it is done; None if there is no device worker, or if it is not known how long decoding takes.
    """

    position: int
    seconds: float | None

    @property
    def about(self) -> int | None:
        """The seconds, rounded up to tens, above a minute to minutes, so that they seldom change."""
        if self.seconds is None:
            return None
        step = 10 if self.seconds < 60 else 60
        return max(step, math.ceil(self.seconds / step) * step)


@dataclass(frozen=True)
class Speed:
    """How long a section takes: constant seconds, and seconds for each second of sound.

    Whisper decodes windows of 30 s, so shorter sound takes as long as a window.
    """

    constant: float
    rate: float

    def of(self, seconds: float) -> float:
        return self.constant + self.rate * max(WINDOW, seconds)


@dataclass
class Waiting:
    """A job and what is still to be decoded of it: the sections that are not claimed, and the sum of their seconds."""

    id: uuid.UUID
    rank: int  # its place among all jobs by priority and length
    place: int  # its place among all jobs by submit
    latest_start: float  # in seconds from now; from then on no later job of its owner goes before it
    owner: int
    priority: int
    model: str
    is_begun: bool
    sections: int
    seconds: float | None  # None while the length of the recording is not known
    own: Sample | None  # of its sections that are done, if they are enough
    preparing: float  # seconds
    is_prepared: bool
    # When each of its turns ends, in seconds from now; None if that is not known.
    ends: list[float | None] = field(default_factory=list)

    def take(self, count: int) -> float | None:
        """Remove some sections; return their seconds."""
        share = None if self.seconds is None else self.seconds * min(1, count / self.sections)
        self.sections = max(0, self.sections - count)
        if self.seconds is not None and share is not None:
            self.seconds -= share
        return share


_lock = threading.Lock()
_latest: tuple[float, dict[uuid.UUID, Forecast]] = (-math.inf, {})


def latest() -> dict[uuid.UUID, Forecast]:
    """The forecasts of all unfinished jobs, at most GOOD_FOR_SECONDS old."""
    global _latest  # noqa: PLW0603  (one forecast serves all requests of two seconds)
    with _lock:
        made_at, forecasts = _latest
        if time.monotonic() - made_at > GOOD_FOR_SECONDS:
            forecasts = forecast_now()
            _latest = (time.monotonic(), forecasts)
        return forecasts


def forget() -> None:
    """Have the next call of `latest` make a new forecast."""
    global _latest  # noqa: PLW0603
    with _lock:
        _latest = (-math.inf, {})


def forecast_now() -> dict[uuid.UUID, Forecast]:
    """The forecasts of all unfinished jobs."""
    waiting = _waiting_jobs()
    if not waiting:
        return {}
    devices = list(Worker.alive().filter(kind=Worker.Kind.DEVICE).values_list("pk", "device"))
    simulation = Simulation(waiting, {str(pk): device for pk, device in devices} or {"": ""})
    simulation.run()
    return simulation.forecasts(is_attended=bool(devices))


# ------------------------------------------------------------------ the queue as it is


def _waiting_jobs() -> list[Waiting]:
    """The unfinished jobs that wait for nothing but their turn, by priority and length."""
    unfinished = Job.objects.filter(status__in=Job.UNFINISHED, waiting_for="")
    jobs = unfinished.exclude(status=Job.Status.DOWNLOADING).values(  # it is not known when a model will be here
        "pk", "owner", "priority", "model", "status", "created_at", "recording__duration", "recording__channels",
        "options__channels",
        patience=ExpressionWrapper(F("latest_start") - clock.now(), output_field=DurationField()), **_section_sums(),
    )  # fmt: skip
    pace = _preparing_pace()
    by_length = jobs.order_by("-priority", F("recording__duration").asc(nulls_last=True), "created_at", "pk")
    waiting = [_waiting_job(dict[str, Any](job), rank, pace) for rank, job in enumerate(by_length)]
    by_submit = sorted(range(len(waiting)), key=lambda rank: (by_length[rank]["created_at"], by_length[rank]["pk"]))
    for place, rank in enumerate(by_submit):
        waiting[rank].place = place
    return waiting


def _section_sums() -> dict[str, Any]:
    """Counts and seconds of a job's sections, by their state."""
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
    apart = (job["recording__channels"] or 1) if job["options__channels"] == "separate" else 1
    sound = None if duration is None else apart * duration
    return Waiting(
        id=job["pk"],
        rank=rank,
        place=0,
        latest_start=job["patience"].total_seconds(),
        owner=job["owner"],
        priority=job["priority"],
        model=job["model"],
        is_begun=bool(job["begun"]) or job["status"] == Job.Status.FINISHING,
        sections=job["queued"] if is_cut else max(1, math.ceil((sound or 0) / SECTION)),
        seconds=job["rest"] if is_cut else sound,
        own=(job["heard"], job["took"]) if job["done"] >= OWN_SECTIONS else None,
        preparing=0 if is_prepared else pace * (duration or 0),
        is_prepared=is_prepared,
    )


def decoding_seconds(model: str, sections: Sequence[float]) -> float:
    """How long the devices that are alive take together for sections of so many seconds.

    The estimate is rather too short: it is that of the fastest device for all of them, and a device that has decoded
    nothing yet counts as a fast one.
    """
    devices = list(Worker.alive().filter(kind=Worker.Kind.DEVICE).values_list("device", flat=True))
    speeds = [_speed(model, device) or Speed(0, UNKNOWN_PACE) for device in set(devices)] or [Speed(0, UNKNOWN_PACE)]
    return min(sum(map(speed.of, sections)) for speed in speeds) / max(1, len(devices))


def _preparing_pace() -> float:
    """Seconds that preparing takes for each second of a recording, as for the last ten."""
    done = Job.objects.filter(status=Job.Status.DONE, preparing_at__isnull=False, transcribing_at__isnull=False)
    last = done.order_by("-created_at").values_list("preparing_at", "transcribing_at", "recording__duration")[:10]
    samples = [(duration or 0, (until - since).total_seconds()) for since, until, duration in last if since and until]
    sound = sum(duration for duration, _ in samples)
    return sum(took for _, took in samples) / sound if sound else 0


def _speed(model: str, device: str) -> Speed | None:
    """How fast a device decodes with a model; None if it has decoded nothing with it."""
    sections = Section.objects.filter(device=device, job__model=model, status=Section.Status.DONE, attempts=1)
    last = sections.order_by("-finished_at").values_list("seconds", "processing_seconds")[:LEARNED_FROM]
    return fit(list(last)) or _speed_so_far(model, device)


def _speed_so_far(model: str, device: str) -> Speed | None:
    """The speed of a device that has finished no section, from those that it is decoding."""
    running = _running().filter(job__model=model, worker__device=device, attempts=1, transcribed__gt=0)
    took = ExpressionWrapper(clock.now() - F("started_at"), output_field=DurationField())
    samples = running.annotate(took=took).values_list("transcribed", "took")
    return fit([(sound, took.total_seconds() if took else 0) for sound, took in samples])


def fit(samples: Sequence[Sample]) -> Speed | None:
    """The straight line through the samples, or their mean rate if that line has a negative rate or constant."""
    samples = [(max(WINDOW, seconds), took) for seconds, took in samples if seconds]
    sound, took = sum(seconds for seconds, _ in samples), sum(seconds for _, seconds in samples)
    if not sound or not took:
        return None
    try:
        rate, constant = linear_regression(*zip(*samples, strict=True))
    except StatisticsError:  # a single sample, or all of the same length
        return Speed(0, took / sound)
    return Speed(constant, rate) if rate > 0 and constant >= 0 else Speed(0, took / sound)


def _running() -> QuerySet[Section]:
    return Section.objects.filter(status=Section.Status.TRANSCRIBING, worker__isnull=False)


# ------------------------------------------------------------------ the simulation


class Simulation:
    """The queue from now on: each device takes a section when it is free, which ends the turn of the job's owner."""

    def __init__(self, waiting: list[Waiting], devices: dict[str, str]) -> None:
        self.waiting = waiting
        self.devices = devices
        self.speeds: dict[tuple[str, str], Speed | None] = {}
        self.turn = 0
        self.served: dict[int, float] = defaultdict(lambda: -math.inf)
        self.order: dict[uuid.UUID, None] = {}  # the jobs that have not begun, in the order of their first turns
        self.stride = math.ceil(sum(job.sections for job in waiting) / LONGEST_SIMULATION)

    def run(self) -> None:
        self._load_last_served()
        free = self._finish_running_sections()
        heapq.heapify(free)
        unfinished = [job for job in self.waiting if job.sections > 0]
        for _, jobs in groupby(unfinished, key=attrgetter("priority")):
            self._simulate(free, list(jobs))

    def _load_last_served(self) -> None:
        owners = {job.owner for job in self.waiting}
        # One look into the index for each owner, where Max would read all jobs that they ever had.
        served = Job.objects.filter(owner=OuterRef("pk"), served_at__isnull=False).order_by("-served_at")
        last = Subquery(served.values("served_at")[:1])
        users = get_user_model().objects.filter(pk__in=owners).annotate(last=last).exclude(last=None)
        for owner, moment in users.values_list("pk", "last"):
            self.served[owner] = moment.timestamp()

    def _finish_running_sections(self) -> list[tuple[float, int, str, bool]]:
        """When each device is free: the seconds, its number, its worker's id, and whether the seconds are known."""
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
        return [(at, number, worker, is_known) for number, (worker, (at, is_known)) in enumerate(free.items())]

    def _simulate(self, free: list[tuple[float, int, str, bool]], jobs: list[Waiting]) -> None:
        """Decode all jobs of one priority."""
        by_owner: dict[int, list[Waiting]] = defaultdict(list)
        for job in jobs:
            by_owner[job.owner].append(job)
        lines = {owner: _Line(own, self._latest_start) for owner, own in by_owner.items()}

        def turn_key(at: float, owner: int) -> tuple[float, tuple[bool, int]]:
            return self.served[owner], lines[owner].first(at)[0]

        while lines:
            at, number, worker, is_known = heapq.heappop(free)
            owner = min(lines, key=partial(turn_key, at))
            job = lines[owner].first(at)[1]
            if not job.is_begun:
                self.order.setdefault(job.id)
            speed, seconds = self._speed(job, self.devices[worker]), job.take(self.stride)
            took = None if speed is None or seconds is None else speed.of(seconds)
            is_known = is_known and took is not None
            at += took or 0.0
            job.ends.append(at if is_known else None)
            self.turn += 1
            self.served[owner] = time.time() + self.turn
            if lines[owner].is_empty:
                del lines[owner]
            heapq.heappush(free, (at, number, worker, is_known))

    def _latest_start(self, job: Waiting) -> float:
        """A job's latest start in seconds from now, including the decoding time that preparing will add to it."""
        if job.is_prepared or job.seconds is None:
            return job.latest_start
        speeds = [self._speed(job, device) or Speed(0, UNKNOWN_PACE) for device in set(self.devices.values())]
        each = job.seconds / job.sections
        took = job.sections * min(speed.of(each) for speed in speeds) / len(self.devices)
        return job.latest_start + PATIENCE_FACTOR * took

    def _speed(self, job: Waiting, device: str) -> Speed | None:
        if job.own is not None and (own := fit([job.own])) is not None:
            return own
        key = (job.model, device)
        if key not in self.speeds:
            self.speeds[key] = _speed(*key)
        return self.speeds[key]

    def forecasts(self, *, is_attended: bool) -> dict[uuid.UUID, Forecast]:
        """The forecast of each job, without a time unless there is a device worker (`is_attended`)."""
        places = {job_id: place for place, job_id in enumerate(self.order, 1)}
        return {job.id: Forecast(places.get(job.id, 0), _end(job) if is_attended else None) for job in self.waiting}


class _Line:
    """One user's jobs of one priority in the order of `sections.claim_section`; they are given shortest first."""

    def __init__(self, jobs: list[Waiting], latest_start: Callable[[Waiting], float]) -> None:
        self.by_length = deque(jobs)
        self.by_latest_start = deque(sorted((latest_start(job), job.place, job) for job in jobs))
        self.overdue: list[tuple[int, Waiting]] = []  # a heap by submit

    def first(self, at: float) -> tuple[tuple[bool, int], Waiting]:
        """The job whose turn it is in `at` seconds, and its key for comparing it with other users' first jobs."""
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


def _end(job: Waiting) -> float | None:
    """When a job's last section is decoded, in seconds from now; None if that is not known."""
    known = [end for end in job.ends if end is not None]
    return job.preparing + max(known, default=0.0) if len(known) == len(job.ends) else None
