"""Changes of jobs for all requests of this process that wait: one task polls the watched jobs for all of them."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, close_old_connections, connections
from django.db.models import OuterRef, Q, Subquery
from django.db.models.functions import Coalesce

from transcription.models import Job, Segment
from transcription.queue import forecast
from transcription.queue.forecast import Forecast

# Seconds between two looks. Short at first: a new watcher may wait for a voice message.
FIRST_PAUSE, LAST_PAUSE = 0.05, 0.25
PAUSE_AFTER_FAILURE = 2.0
WATCHED_COLUMNS = ("status", "progress", "language", "error_code", "error_values")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """A job at one moment: its row (None if it is deleted), its forecast, and the id of its newest segment.

    `segments` are those with ids above `since`, up to `newest`: the ones that are new since the previous snapshot.
    """

    job: Job | None
    forecast: Forecast | None = None
    newest: int = 0
    since: int = 0
    segments: tuple[Segment, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come: the job has ended, or is deleted."""
        return self.job is None or self.job.is_ended

    @property
    def fingerprint(self) -> tuple[Any, ...]:
        """What distinguishes two snapshots for watchers; progress in the precision that they see."""
        row = {name: getattr(self.job, name, None) for name in WATCHED_COLUMNS}
        position = None if self.forecast is None else (self.forecast.position, self.forecast.about)
        return self.newest, position, {**row, "progress": round(row["progress"] or 0, 3)}


class Watched:
    """A watched job: the number of its watchers, and its newest snapshot."""

    def __init__(self) -> None:
        self.watchers = 0
        self.snapshot: Snapshot | None = None
        self._next = asyncio.get_running_loop().create_future()

    async def after(self, snapshot: Snapshot | None, within: float | None = None) -> Snapshot | None:
        """The newest snapshot: at once if it is not `snapshot`, else when there is another or time is up.

        Raises the watcher's error if it has failed.
        """
        if self.snapshot is snapshot:
            await asyncio.wait((self._next,), timeout=within)
        if self._next.done():  # the watcher has failed
            self._next.result()
        return self.snapshot

    async def end(self) -> None:
        """Return when the job has ended or is deleted."""
        snapshot = None
        while snapshot is None or not snapshot.is_over:
            snapshot = await self.after(snapshot)

    def update(self, snapshot: Snapshot) -> None:
        """Take a new snapshot, and wake those who wait if it differs."""
        if self.snapshot is None or snapshot.fingerprint != self.snapshot.fingerprint:
            self.snapshot = snapshot
            waited_for, self._next = self._next, self._next.get_loop().create_future()
            waited_for.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Raise an error in all who wait."""
        self._next.set_exception(error)
        self._next.exception()  # otherwise asyncio complains when nobody waits at this moment


class Watcher:
    """Polls all jobs that are watched on one event loop, from a thread with its own database connection."""

    def __init__(self) -> None:
        self.jobs: dict[UUID, Watched] = {}
        self._pause = FIRST_PAUSE
        self._job_added = asyncio.Event()
        self._task = asyncio.create_task(self._poll())
        self._task.add_done_callback(self._end)

    def add(self, job_id: UUID) -> Watched:
        if job_id not in self.jobs:
            self.jobs[job_id] = Watched()
            self._job_added.set()
        self.jobs[job_id].watchers += 1
        return self.jobs[job_id]

    def remove(self, job_id: UUID) -> None:
        self.jobs[job_id].watchers -= 1
        if not self.jobs[job_id].watchers:
            del self.jobs[job_id]
        if not self.jobs:
            self._forget()
            self._task.cancel()

    async def _poll(self) -> None:
        thread = ThreadPoolExecutor(1, thread_name_prefix="watcher")
        try:
            while True:
                await self._wait_for_next_look()
                try:
                    await self._update(thread)
                except (DatabaseError, InterfaceError) as error:
                    log.warning("Those who wait for a job learn nothing now: %s", error)
                    self._pause = PAUSE_AFTER_FAILURE
        finally:
            # The loop does not wait for the thread, which a database that does not answer may hold for long.
            thread.submit(connections.close_all)
            thread.shutdown(wait=False)

    async def _wait_for_next_look(self) -> None:
        """Return when the next look is due, or when another job is watched."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause):
                await self._job_added.wait()
        self._pause = FIRST_PAUSE if self._job_added.is_set() else min(LAST_PAUSE, self._pause * 1.2)
        self._job_added.clear()

    async def _update(self, thread: ThreadPoolExecutor) -> None:
        before = {job_id: watched.snapshot for job_id, watched in self.jobs.items()}
        snapshots = await asyncio.get_running_loop().run_in_executor(thread, look, before)
        for job_id, watched in self.jobs.items():
            if job_id in snapshots:
                watched.update(snapshots[job_id])

    def _end(self, task: asyncio.Task[None]) -> None:
        """Raise the error that ended the watcher in all who still wait."""
        self._forget()
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        for watched in self.jobs.values():
            watched.fail(error or asyncio.CancelledError())

    def _forget(self) -> None:
        loop = self._task.get_loop()
        if _watchers.get(loop) is self:
            del _watchers[loop]


# The watchers by event loop, of which a web process has one. There is none while nobody waits.
_watchers: dict[asyncio.AbstractEventLoop, Watcher] = {}


@asynccontextmanager
async def watching(job_id: UUID) -> AsyncIterator[Watched]:
    """Watch a job while this context is open."""
    await sync_to_async(close_old_connections)()  # a request that may wait for hours holds no connection
    loop = asyncio.get_running_loop()
    watcher = _watchers[loop] = _watchers.get(loop) or Watcher()
    watched = watcher.add(job_id)
    try:
        yield watched
    finally:
        watcher.remove(job_id)


def look(before: Mapping[UUID, Snapshot | None]) -> dict[UUID, Snapshot]:
    """New snapshots of jobs: one query, one more if there are segments since `before`, and the forecast's if needed."""
    try:
        rows = _rows(before)
        # The rows before their segments: when a row says that the job has ended, none of its segments is missing.
        since = {pk: old.newest for pk, old in before.items() if old and pk in rows and rows[pk].newest > old.newest}
        new_segments = _segments(since) if since else {}
        forecasts = forecast.latest() if any(not row.is_ended for row in rows.values()) else {}
    except (DatabaseError, InterfaceError):
        close_old_connections()  # so that the next look gets a new connection
        raise
    return {pk: _snapshot(rows.get(pk), forecasts.get(pk), old, new_segments.get(pk, [])) for pk, old in before.items()}


def _rows(job_ids: Iterable[UUID]) -> dict[UUID, Any]:
    """The jobs by id, each with the id of its `newest` segment."""
    newest = Segment.objects.filter(job=OuterRef("pk")).order_by("-pk").values("pk")[:1]
    jobs = Job.objects.filter(pk__in=job_ids).only(*WATCHED_COLUMNS)
    return {job.pk: job for job in jobs.annotate(newest=Coalesce(Subquery(newest), 0))}


def _segments(since: Mapping[UUID, int]) -> dict[UUID, list[Segment]]:
    """The segments of each job with ids above the given one."""
    conditions = [Q(job=job_id, pk__gt=newest) for job_id, newest in since.items()]
    by_job: dict[UUID, list[Segment]] = defaultdict(list)
    new = Segment.objects.filter(reduce(or_, conditions)).select_related("section")
    for segment in new.order_by("pk").defer("tokens", "section__spans", "section__speech"):
        by_job[segment.job_id].append(segment)
    return by_job


def _snapshot(row: Any, job_forecast: Forecast | None, old: Snapshot | None, segments: list[Segment]) -> Snapshot:
    if row is None:
        return Snapshot(None)
    newest = segments[-1].pk if segments else row.newest
    return Snapshot(
        row,
        None if row.is_ended else job_forecast,
        newest,
        since=old.newest if old else newest,
        segments=tuple(segments),
    )
