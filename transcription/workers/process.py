"""The life of a process that works on the queue: its row, its heartbeat, its sweeping, its stopping."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from transcription import clock, processes
from transcription.models import Worker
from transcription.queue import sweeper, wakeups
from transcription.sound.speech import SpeechFinder
from transcription.workers import devices, retention

log = logging.getLogger(__name__)

# The columns that each heartbeat updates.
REPORTED_COLUMNS = (
    "model_loaded", "model_states", "compute_types", "threads",
    "device_name", "memory_total_mb", "memory_used_mb", "utilization",
)  # fmt: skip

DEFAULT_THREADS = 4  # of the default worker; one of them takes small files only

FIRST_RETENTION, NEXT_RETENTION = 30.0, 3600.0  # seconds from the start, and between two runs


class WorkerProcess:
    """This process as a worker: its row, its runner if it has a device, its finder of speech if not."""

    def __init__(self, queue_name: str) -> None:
        device = queue_name.removeprefix(wakeups.DEVICE_QUEUE_PREFIX) if queue_name != wakeups.DEFAULT_QUEUE else ""
        self.stopping = threading.Event()
        self.runner = devices.Runner(device) if device else None
        self.finder = SpeechFinder() if not device else None
        self._large = threading.Semaphore(DEFAULT_THREADS - 1)
        self._background_slots: dict[Callable[[Self], None], threading.Semaphore] = {}
        self._background_threads: set[threading.Thread] = set()
        self.row = Worker(
            kind=Worker.Kind.DEVICE if device else Worker.Kind.DEFAULT,
            queue=queue_name,
            device=device,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            pid_namespace=processes.namespace(),
            pid_started=processes.started(os.getpid()),
            engine=self.runner.capabilities.name if self.runner else "",
        )

    @contextmanager
    def place_for_large(self) -> Iterator[bool]:
        """Give whether this thread may take large files. All but one may, so a voice message never waits for films."""
        takes_large = self._large.acquire(blocking=False)
        try:
            yield takes_large
        finally:
            if takes_large:
                self._large.release()

    def run_in_background(self, work: Callable[[Self], None], *, at_once: int = 1) -> None:
        """Do work in a thread with its own connection, unless `at_once` threads do the same work already."""
        slots = self._background_slots.setdefault(work, threading.Semaphore(at_once))
        if slots.acquire(blocking=False):
            thread = threading.Thread(target=self._run_and_release, args=(work, slots), name="background", daemon=True)
            self._background_threads.add(thread)
            try:
                thread.start()
            except RuntimeError as error:  # the system is out of threads; the sweeper rings again
                log.warning("no thread for work beside the queue: %s", error)
                self._background_threads.discard(thread)
                slots.release()

    def _run_and_release(self, work: Callable[[Self], None], slots: threading.Semaphore) -> None:
        try:
            try:
                work(self)
            finally:
                _close_connection()
        except Exception:  # noqa: BLE001  (whatever it is: the sweeper rings again)
            log.exception("work beside the queue")
        finally:
            self._background_threads.discard(threading.current_thread())
            slots.release()

    def begin(self) -> None:
        """Write the row, start the runner and the heartbeat, and look for work."""
        try:
            self._heartbeat()
        except (
            DatabaseError
        ) as error:  # the next beat tries again; raised here, Celery would go on with a worker that has no row
            log.warning("the database did not answer at the start: %s", error)
        if self.runner is not None:
            self.runner.start()  # so that the first recording does not wait for imports
        _beat_in_a_thread(self.stopping, self._heartbeat)
        if self.row.kind == Worker.Kind.DEFAULT:
            # In a thread of its own: a first run over years of recordings must not stop the heartbeat.
            threading.Thread(target=_enforce_retention, args=(self.stopping,), name="retention", daemon=True).start()
        wakeups.ring(self.row.queue)

    def _heartbeat(self) -> None:
        if self.runner is not None:
            self.row.model_loaded = self.runner.model_loaded
            self.row.model_states = self.runner.model_states
            self.row.compute_types, self.row.threads = self.runner.compute_types, self.runner.threads
            reading = self.runner.reading
            self.row.device_name = reading.name[:200]
            self.row.memory_total_mb, self.row.memory_used_mb = reading.memory_total_mb, reading.memory_used_mb
            self.row.utilization = reading.utilization
        columns = {name: getattr(self.row, name) for name in REPORTED_COLUMNS}
        if not Worker.objects.filter(pk=self.row.pk).update(heartbeat_at=clock.now(), **columns):
            self.row.heartbeat_at = clock.now()  # new, or forgotten while this machine slept
            self.row.save(force_insert=True)

    def stop(self) -> None:
        """Ask all work in this process to stop and give back its claim."""
        self.stopping.set()

    def end(self) -> None:
        """Wait for background work to give back its claims, kill the children and delete the row."""
        self.stopping.set()
        deadline = time.monotonic() + 5
        for thread in list(self._background_threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        for child in (self.runner, self.finder):
            if child is not None:
                child.stop()
        Worker.objects.filter(pk=self.row.pk).delete()


def keep_sweeping(stopping: threading.Event) -> None:
    """Sweep the queue from the web process until `stopping`, so that no worker is needed for it."""
    _beat_in_a_thread(stopping, lambda: None)  # it has no row to keep alive


def _beat_in_a_thread(stopping: threading.Event, heartbeat: Callable[[], None]) -> None:
    threading.Thread(target=_beat, args=(stopping, heartbeat), name="heartbeat", daemon=True).start()


def _beat(stopping: threading.Event, heartbeat: Callable[[], None]) -> None:
    """Beat and sweep until `stopping`, or until the supervisor that started this process is gone."""
    next_sweep = 0.0
    while not stopping.is_set():
        try:
            heartbeat()
            if time.monotonic() >= next_sweep:
                sweeper.sweep()
                next_sweep = time.monotonic() + settings.SWEEP_SECONDS
        except Exception:  # noqa: BLE001  (whatever it is: without a heartbeat a working process counts as dead)
            log.exception("heartbeat")
            _close_connection()
        if settings.SUPERVISOR_PID and os.getppid() != settings.SUPERVISOR_PID:
            log.warning("the supervisor is gone: stopping")
            os.kill(os.getpid(), signal.SIGTERM)
            return
        stopping.wait(settings.HEARTBEAT_SECONDS)
    _close_connection()


def _close_connection() -> None:
    try:
        connection.close()
    except (DatabaseError, InterfaceError) as error:  # it is useless in any case, and the thread must go on
        log.warning("the connection to the database did not close: %s", error)


def _enforce_retention(stopping: threading.Event) -> None:
    """Remove what is not to be kept, after FIRST_RETENTION and then each hour, until `stopping`."""
    pause = FIRST_RETENTION
    while not stopping.wait(pause):
        try:
            retention.enforce()
        except Exception:  # noqa: BLE001  (whatever it is: the next hour tries again)
            log.exception("retention")
        _close_connection()
        pause = NEXT_RETENTION
