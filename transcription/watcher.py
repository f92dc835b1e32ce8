"""News of jobs for all who wait in this process: one task looks at the watched jobs, however many watch them."""

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
from django.db import Error as DatabaseFailure
from django.db import close_old_connections, connections
from django.db.models import OuterRef, Q, Subquery
from django.db.models.functions import Coalesce

from transcription.models import Job, Segment
from transcription.queue import forecast
from transcription.queue.forecast import Forecast

# Seconds between two looks: few at first, for who has just come may wait for a voice message.
FIRST_PAUSE, LAST_PAUSE = 0.05, 0.25
PAUSE_AFTER_FAILURE = 2.0
WATCHED_COLUMNS = ("status", "progress", "language", "error_code", "error_values")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """A job as a look found it: what its row tells (None when it is gone), and how far its segments had come.

    `forecast` is what is foreseen for it. `segments` are those with ids above `since`, up to `newest`: what came since
    the snapshot before.
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
        """What makes another snapshot news; progress as finely as anybody is told it."""
        row = {name: getattr(self.job, name, None) for name in WATCHED_COLUMNS}
        expected = None if self.forecast is None else (self.forecast.position, self.forecast.about)
        return self.newest, expected, {**row, "progress": round(row["progress"] or 0, 3)}


class Watched:
    """A job, for those who watch it."""

    def __init__(self) -> None:
        self.watchers = 0
        self.snapshot: Snapshot | None = None
        self._next = asyncio.get_running_loop().create_future()

    async def after(self, snapshot: Snapshot | None, within: float | None = None) -> Snapshot | None:
        """The newest snapshot: at once if it is another than `snapshot`, otherwise when there is one or time is up."""
        if self.snapshot is snapshot:
            await asyncio.wait((self._next,), timeout=within)
        if self._next.done():  # there will be no other: the watcher has failed
            self._next.result()
        return self.snapshot

    async def end(self) -> None:
        """Return when the job has ended or is deleted."""
        snapshot = None
        while snapshot is None or not snapshot.is_over:
            snapshot = await self.after(snapshot)

    def see(self, snapshot: Snapshot) -> None:
        if self.snapshot is None or snapshot.fingerprint != self.snapshot.fingerprint:
            self.snapshot = snapshot
            turned, self._next = self._next, self._next.get_loop().create_future()
            turned.set_result(None)

    def fail(self, error: BaseException) -> None:
        self._next.set_exception(error)
        self._next.exception()  # asyncio would complain if nobody waited at this moment


class Watcher:
    """Looks at all jobs that are watched on one event loop, from a thread with a connection of its own."""

    def __init__(self) -> None:
        self.jobs: dict[UUID, Watched] = {}
        self._pause = FIRST_PAUSE
        self._has_come = asyncio.Event()
        self._task = asyncio.create_task(self._look_on())
        self._task.add_done_callback(self._end)

    def add(self, job_id: UUID) -> Watched:
        if job_id not in self.jobs:
            self.jobs[job_id] = Watched()
            self._has_come.set()
        self.jobs[job_id].watchers += 1
        return self.jobs[job_id]

    def remove(self, job_id: UUID) -> None:
        self.jobs[job_id].watchers -= 1
        if not self.jobs[job_id].watchers:
            del self.jobs[job_id]
        if not self.jobs:
            self._forget()
            self._task.cancel()

    async def _look_on(self) -> None:
        thread = ThreadPoolExecutor(1, thread_name_prefix="watcher")
        try:
            while True:
                await self._rest()
                try:
                    await self._look(thread)
                except DatabaseFailure as error:
                    log.warning("Those who wait for a job learn nothing now: %s", error)
                    self._pause = PAUSE_AFTER_FAILURE
        finally:
            # The loop does not wait for the thread: a database that does not answer may keep it for long.
            thread.submit(connections.close_all)
            thread.shutdown(wait=False)

    async def _rest(self) -> None:
        """Return when the next look is due, or somebody has come for a job that nobody watched."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause):
                await self._has_come.wait()
        self._pause = FIRST_PAUSE if self._has_come.is_set() else min(LAST_PAUSE, self._pause * 1.2)
        self._has_come.clear()

    async def _look(self, thread: ThreadPoolExecutor) -> None:
        before = {job_id: watched.snapshot for job_id, watched in self.jobs.items()}
        seen = await asyncio.get_running_loop().run_in_executor(thread, look, before)
        for job_id, watched in self.jobs.items():
            if job_id in seen:
                watched.see(seen[job_id])

    def _end(self, task: asyncio.Task[None]) -> None:
        """Tell those who still wait that nobody looks any more."""
        self._forget()
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        for watched in self.jobs.values():
            watched.fail(error or asyncio.CancelledError())

    def _forget(self) -> None:
        loop = self._task.get_loop()
        if _watchers.get(loop) is self:
            del _watchers[loop]


# By event loop, of which a web process has one: its watcher, while somebody waits.
_watchers: dict[asyncio.AbstractEventLoop, Watcher] = {}


@asynccontextmanager
async def watching(job_id: UUID) -> AsyncIterator[Watched]:
    """Have a job looked at for as long as this is open."""
    await sync_to_async(close_old_connections)()  # who waits, it may be for hours, holds none
    loop = asyncio.get_running_loop()
    watcher = _watchers[loop] = _watchers.get(loop) or Watcher()
    watched = watcher.add(job_id)
    try:
        yield watched
    finally:
        watcher.remove(job_id)


def look(before: Mapping[UUID, Snapshot | None]) -> dict[UUID, Snapshot]:
    """See jobs as they are now: one query, one more when segments have come since `before`, and at times a forecast."""
    try:
        rows = _rows(before)
        # The rows first, then their segments: when a row says that it has ended, none of them is missing.
        since = {pk: was.newest for pk, was in before.items() if was and pk in rows and rows[pk].newest > was.newest}
        come = _segments(since) if since else {}
        forecasts = forecast.latest() if any(not row.is_ended for row in rows.values()) else {}
    except DatabaseFailure:
        close_old_connections()  # the next look gets one that may work
        raise
    return {pk: _snapshot(rows.get(pk), forecasts.get(pk), was, come.get(pk, [])) for pk, was in before.items()}


def _rows(job_ids: Iterable[UUID]) -> dict[UUID, Any]:
    newest = Segment.objects.filter(job=OuterRef("pk")).order_by("-pk").values("pk")[:1]
    jobs = Job.objects.filter(pk__in=job_ids).only(*WATCHED_COLUMNS)
    return {job.pk: job for job in jobs.annotate(newest=Coalesce(Subquery(newest), 0))}


def _segments(since: Mapping[UUID, int]) -> dict[UUID, list[Segment]]:
    wanted = [Q(job=job_id, pk__gt=newest) for job_id, newest in since.items()]
    found: dict[UUID, list[Segment]] = defaultdict(list)
    for segment in Segment.objects.filter(reduce(or_, wanted)).order_by("pk").defer("tokens"):
        found[segment.job_id].append(segment)
    return found


def _snapshot(row: Any, expected: Forecast | None, was: Snapshot | None, come: list[Segment]) -> Snapshot:
    if row is None:
        return Snapshot(None)
    newest = come[-1].pk if come else row.newest
    return Snapshot(
        row, None if row.is_ended else expected, newest, since=was.newest if was else newest, segments=tuple(come)
    )
