"""The life of a process that works on the queue."""

import threading

import pytest
from django.conf import LazySettings
from django.db import DatabaseError

from tests.server import wait_until
from transcription.models import Worker
from transcription.queue import sweeper, wakeups
from transcription.workers import process as worker_process
from transcription.workers import retention
from transcription.workers.process import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_heart_goes_on_whatever_a_sweep_meets(monkeypatch: pytest.MonkeyPatch, settings: LazySettings) -> None:
    settings.HEARTBEAT_SECONDS = 0.01
    settings.SWEEP_SECONDS = 0
    sweeps = []

    def meet() -> None:
        sweeps.append(1)
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(sweeper, "sweep", meet)
    stopping = threading.Event()
    worker_process.keep_sweeping(stopping)
    try:
        wait_until(lambda: len(sweeps) > 2, 5)
    finally:
        stopping.set()


def test_a_worker_that_begins_while_the_database_does_not_answer_lives_once_it_does(
    monkeypatch: pytest.MonkeyPatch, settings: LazySettings
) -> None:
    settings.HEARTBEAT_SECONDS = 0.01
    process = WorkerProcess(wakeups.DEFAULT_QUEUE)
    failures = [DatabaseError("database is locked")]
    beat = process._heartbeat

    def heartbeat() -> None:
        if failures:
            raise failures.pop()
        beat()

    monkeypatch.setattr(process, "_heartbeat", heartbeat)
    monkeypatch.setattr(wakeups, "ring", lambda *queues: None)
    process.begin()
    try:
        wait_until(lambda: Worker.alive().filter(pk=process.row.pk).exists(), 5)
    finally:
        end(process)


def end(process: WorkerProcess) -> None:
    """End it when its heart has stopped: the tests' database, which is in memory, waits for no lock."""
    process.stop()
    for thread in threading.enumerate():
        if thread.name == "heartbeat":
            thread.join(5)
    process.end()


@pytest.mark.parametrize(("queue_name", "does"), [(wakeups.DEFAULT_QUEUE, True), ("device.cpu", False)])
def test_the_default_worker_enforces_retention_whatever_it_meets(
    monkeypatch: pytest.MonkeyPatch, settings: LazySettings, queue_name: str, does: bool
) -> None:
    settings.HEARTBEAT_SECONDS = 0.01
    monkeypatch.setattr(worker_process, "FIRST_RETENTION", 0.01)
    monkeypatch.setattr(worker_process, "NEXT_RETENTION", 0.01)
    monkeypatch.setattr(wakeups, "ring", lambda *queues: None)
    runs = []

    def meet() -> None:
        runs.append(1)
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(retention, "enforce", meet)
    process = WorkerProcess(queue_name)
    process.begin()
    try:
        if does:
            wait_until(lambda: len(runs) > 2, 5)
        born = process.row.heartbeat_at
        wait_until(lambda: Worker.objects.get(pk=process.row.pk).heartbeat_at > born, 5)
    finally:
        end(process)
    assert bool(runs) == does


def test_work_beside_the_queue_that_fails_is_logged_and_its_place_is_free(caplog: pytest.LogCaptureFixture) -> None:
    process = WorkerProcess(wakeups.DEFAULT_QUEUE)
    tries = []

    def fail(worker: WorkerProcess) -> None:
        tries.append(1)
        raise ValueError("nobody thought of this")

    for count in (1, 2):
        process.run_in_background(fail)
        wait_until(lambda: not process._background_threads, 5)
        assert len(tries) == count
    assert "nobody thought of this" in caplog.text


def test_work_that_gets_no_thread_leaves_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    process = WorkerProcess(wakeups.DEFAULT_QUEUE)
    done = threading.Event()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def work(worker: WorkerProcess) -> None:
        done.set()

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        process.run_in_background(work)
    process.run_in_background(work)
    assert done.wait(5)
    process.end()
