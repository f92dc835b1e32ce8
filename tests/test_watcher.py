"""Many wait for jobs; one task looks, and wakes those whose job has changed."""

import asyncio
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from tests.web.conftest import add_segment
from transcription import jobs, watcher
from transcription.api.v1 import events
from transcription.models import Job, Recording, Section
from transcription.queue import forecast
from transcription.watcher import Snapshot, Watched, look, watching
from transcription.whisper.options import TranscriptionOptions

pytestmark = pytest.mark.django_db(transaction=True)

Act = Callable[[], object]


def a_job(owner: User) -> Job:
    """A job that is being transcribed, with one section."""
    recording = Recording.objects.create(owner=owner, original_name="talk.ogg", bytes=9, sha256="0" * 64)
    options = TranscriptionOptions().to_json()
    job = Job.objects.create(
        owner=owner, recording=recording, status="transcribing", name="talk.ogg", model="nano", options=options
    )
    Section.objects.create(job=job, index=0, start=0, end=60, spans=[[0, 60]], seconds=60)
    return job


def say(job: Job, index: int, text: str = " Good day.") -> None:
    add_segment(job.sections.get(), index, text)


class Looks:
    """The watcher's looks, real ones; before each, in its thread, the next act of the story happens."""

    def __init__(self) -> None:
        self.acts: list[Act] = []
        self.queries: list[int] = []

    def __call__(self, before: Mapping[UUID, Snapshot | None]) -> dict[UUID, Snapshot]:
        if self.acts:
            self.acts.pop(0)()
        with CaptureQueriesContext(connection) as queries:
            seen = look(before)
        self.queries.append(len(queries))
        return seen


@pytest.fixture(autouse=True)
def _one_forecast(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, no look makes a new one: its queries would be counted too."""
    monkeypatch.setattr(forecast, "GOOD_FOR_SECONDS", 3600.0)
    forecast.latest()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    made = Looks()
    monkeypatch.setattr(watcher, "look", made)
    monkeypatch.setattr(watcher, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(watcher, "LAST_PAUSE", 0.01)
    monkeypatch.setattr(watcher, "PAUSE_AFTER_FAILURE", 0.01)
    return made


# ------------------------------------------------------------------ a look


def test_a_look_tells_what_has_come_since_the_look_before(alice: User) -> None:
    job = a_job(alice)
    say(job, 0)
    first = look({job.pk: None})[job.pk]
    assert first.segments == ()  # whoever lacks what was there before reads it
    say(job, 1, " And")
    say(job, 2, " more.")
    Job.objects.update(progress=0.5)
    second = look({job.pk: first})[job.pk]
    assert [segment.text for segment in second.segments] == [" And", " more."]
    assert (second.since, second.newest) == (first.newest, second.segments[-1].pk)
    assert second.fingerprint != first.fingerprint
    assert look({job.pk: second})[job.pk].fingerprint == second.fingerprint


def test_progress_that_nobody_would_be_told_is_no_news(alice: User) -> None:
    job = a_job(alice)
    first = look({job.pk: None})[job.pk]
    Job.objects.update(progress=0.0001)
    assert look({job.pk: first})[job.pk].fingerprint == first.fingerprint


def test_a_look_costs_the_same_for_one_job_and_for_fifty(
    alice: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    fifty = [a_job(alice) for _ in range(50)]
    with django_assert_num_queries(1):
        before: dict[UUID, Any] = look({job.pk: None for job in fifty})
    for job in fifty:
        say(job, 0)
    with django_assert_num_queries(2):
        seen = look(before)
    assert all(len(seen[job.pk].segments) == 1 for job in fifty)


# ------------------------------------------------------------------ those who wait


async def follow(watched: Watched) -> list[Snapshot]:
    """Everything that is seen of a job from now to its end."""
    snapshots = []
    snapshot = watched.snapshot
    while snapshot is None or not snapshot.is_over:
        snapshot = await watched.after(snapshot)
        assert snapshot is not None
        snapshots.append(snapshot)
    return snapshots


async def nothing_is_left() -> bool:
    """Whether there is no watcher, no thread of one, and no task but the one that asks; given a moment."""
    for _ in range(100):
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("watcher")]
        if not threads and len(asyncio.all_tasks()) == 1:
            return watcher._watchers == {}
        await asyncio.sleep(0.02)
    return False


async def test_a_hundred_who_wait_cost_what_one_costs(looks: Looks, alice: User) -> None:
    job = await sync_to_async(a_job)(alice)
    async with AsyncExitStack() as stack:
        hundred = [await stack.enter_async_context(watching(job.pk)) for _ in range(100)]
        await hundred[0].after(None)
        looks.queries.clear()
        looks.acts = [lambda: say(job, 0), lambda: say(job, 1), lambda: Job.objects.update(status="done")]
        told = await asyncio.gather(*(follow(watched) for watched in hundred))
    assert all([len(snapshot.segments) for snapshot in snapshots] == [1, 1, 0] for snapshots in told)
    assert looks.queries[-3:] == [2, 2, 1]
    assert await nothing_is_left()


async def test_only_those_whose_job_has_changed_are_woken(looks: Looks, alice: User) -> None:
    changing, still = await sync_to_async(a_job)(alice), await sync_to_async(a_job)(alice)
    async with watching(changing.pk) as one, watching(still.pk) as other:
        snapshots = await one.after(None), await other.after(None)
        waiting = asyncio.create_task(other.after(snapshots[1]))
        looks.acts = [lambda: Job.objects.filter(pk=changing.pk).update(progress=0.5)]
        seen = await one.after(snapshots[0])
        assert seen is not None
        assert seen.job is not None
        assert seen.job.progress == 0.5
        assert not waiting.done()
        waiting.cancel()


async def test_who_waits_no_longer_than_he_wants_gets_what_he_has(looks: Looks, alice: User) -> None:
    job = await sync_to_async(a_job)(alice)
    async with watching(job.pk) as watched:
        snapshot = await watched.after(None)
        assert await watched.after(snapshot, within=0.05) is snapshot


async def test_a_database_that_fails_for_a_while_is_survived(
    looks: Looks, alice: User, caplog: pytest.LogCaptureFixture
) -> None:
    job = await sync_to_async(a_job)(alice)

    def fail() -> None:
        raise OperationalError("the database is away")

    looks.acts = [fail, fail, lambda: Job.objects.update(status="failed", error_code="not_media")]
    async with watching(job.pk) as watched:
        (snapshot,) = await follow(watched)
    assert snapshot.job is not None
    assert snapshot.job.status == "failed"
    assert caplog.text.count("the database is away") == 2
    assert await nothing_is_left()


async def test_a_fault_of_ours_ends_the_waiting_and_the_next_who_comes_is_served(looks: Looks, alice: User) -> None:
    job = await sync_to_async(a_job)(alice)

    def stumble() -> None:
        raise ZeroDivisionError

    looks.acts = [lambda: None, stumble]
    async with watching(job.pk) as watched:
        with pytest.raises(ZeroDivisionError):
            await follow(watched)
        async with watching(job.pk) as another:
            assert await another.after(None) is not None
    assert await nothing_is_left()


async def test_a_client_that_goes_leaves_the_others_waiting(looks: Looks, alice: User) -> None:
    job = await sync_to_async(a_job)(alice)

    async def read() -> list[str]:
        return [event async for event in events._stream(job.pk, 0, "en")]

    going, staying = asyncio.create_task(read()), asyncio.create_task(read())
    while not looks.queries:
        await asyncio.sleep(0.01)
    going.cancel()
    await asyncio.wait((going,))
    looks.acts = [lambda: Job.objects.update(status="cancelled")]
    assert (await staying)[-1] == 'event: end\ndata: {"status": "cancelled"}\n\n'
    assert await nothing_is_left()


async def test_when_the_last_client_goes_nothing_is_left(looks: Looks, alice: User) -> None:
    job = await sync_to_async(a_job)(alice)
    waiting = [asyncio.create_task(jobs.wait(job.pk)) for _ in range(20)]
    while not looks.queries:
        await asyncio.sleep(0.01)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert await nothing_is_left()
    seen = len(looks.queries)
    await asyncio.sleep(0.1)
    assert len(looks.queries) == seen


# ------------------------------------------------------------------ streams and endpoints


async def test_a_stream_that_reads_slowly_misses_nothing(
    looks: Looks, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "AT_ONCE", 1)
    job = await sync_to_async(a_job)(alice)
    await sync_to_async(say)(job, 0, " before")
    stream = events._stream(job.pk, 0, "en")
    told = [await anext(stream), await anext(stream)]
    looks.acts = [lambda: say(job, 1, " one"), lambda: say(job, 2, " two"), lambda: Job.objects.update(status="done")]
    while looks.acts:
        await asyncio.sleep(0.01)
    told += [event async for event in stream]
    assert re.findall(r'"text": "(\w+)"', "".join(told)) == ["before", "one", "two"]
    assert told[-1].startswith("event: end")


async def test_a_stream_on_which_nothing_happens_says_that_it_is_there(
    looks: Looks, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SILENCE_SECONDS", 0.05)
    job = await sync_to_async(a_job)(alice)
    stream = events._stream(job.pk, 0, "en")
    while (event := await anext(stream)) == ": still here\n\n":  # on a slow machine before the first look
        pass
    assert event.startswith("event: state")
    assert await anext(stream) == ": still here\n\n"
    await stream.aclose()
    assert await nothing_is_left()


async def test_a_endpoint_waits_until_the_job_has_ended(looks: Looks, alice: User) -> None:
    job = await sync_to_async(a_job)(alice)
    looks.acts = [lambda: None, lambda: Job.objects.update(status="done", text="Good day.")]
    ended = await jobs.wait(job.pk)
    assert (ended.status, ended.text, ended.recording.original_name) == ("done", "Good day.", "talk.ogg")
    assert await nothing_is_left()


async def test_a_endpoint_learns_that_its_job_was_deleted(looks: Looks, alice: User) -> None:
    job = await sync_to_async(a_job)(alice)
    looks.acts = [lambda: None, lambda: Job.objects.all().delete()]
    with pytest.raises(Job.DoesNotExist):
        await jobs.wait(job.pk)
