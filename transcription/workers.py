"""The life of a process that works on the queue: its row, its heartbeat, its sweeping, its stopping."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import DatabaseError, connection
from django.utils import timezone

from transcription import devices, queue
from transcription.models import Worker
from transcription.speech import SpeechFinder

log = logging.getLogger(__name__)

DEFAULT_THREADS = 4  # of the default worker; one of them is kept for small files


class WorkerProcess:
    """This process as a worker: a row that says it is alive, a runner if it has a device, whether it is stopping."""

    def __init__(self, queue_name: str) -> None:
        device = queue_name.removeprefix(queue.DEVICE_QUEUE_PREFIX) if queue_name != queue.DEFAULT_QUEUE else ""
        self.stopping = threading.Event()
        self.runner = devices.Runner(device) if device else None
        self.finder = SpeechFinder() if not device else None
        self._large = threading.Semaphore(DEFAULT_THREADS - 1)
        self.row = Worker(
            kind=Worker.Kind.DEVICE if device else Worker.Kind.DEFAULT,
            queue=queue_name,
            device=device,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            engine=devices.engine().name if device else "",
        )

    @contextmanager
    def place_for_large(self) -> Iterator[bool]:
        """Whether this thread may take large files: all but one may, so that a voice message never waits for films."""
        takes_large = self._large.acquire(blocking=False)
        try:
            yield takes_large
        finally:
            if takes_large:
                self._large.release()

    def begin(self) -> None:
        """Come to life: take back what dead workers of this machine held, and look for work."""
        try:
            self._heartbeat()
        except DatabaseError as error:  # the next beat tries again: Celery would go on with a worker that has no row
            log.warning("the database did not answer at the start: %s", error)
        _beat_in_a_thread(self.stopping, self._heartbeat)
        queue.ring(self.row.queue)

    def _heartbeat(self) -> None:
        loaded = self.runner.model_loaded if self.runner else ""
        alive = Worker.objects.filter(pk=self.row.pk)
        if not alive.update(heartbeat_at=timezone.now(), model_loaded=loaded):
            self.row.heartbeat_at = timezone.now()  # new, or forgotten while this machine slept
            self.row.save(force_insert=True)

    def stop(self) -> None:
        """Ask whatever works here to give back what it holds."""
        self.stopping.set()

    def end(self) -> None:
        """Leave nothing behind."""
        self.stopping.set()
        for child in (self.runner, self.finder):
            if child is not None:
                child.stop()
        Worker.objects.filter(pk=self.row.pk).delete()


def keep_sweeping(stopping: threading.Event) -> None:
    """Sweep the queue from this process until `stopping`; the web process does, so that no worker is needed for it."""
    _beat_in_a_thread(stopping, _nothing)


def _nothing() -> None:
    """The web process has no row to keep alive."""


def _beat_in_a_thread(stopping: threading.Event, heartbeat: Callable[[], None]) -> None:
    threading.Thread(target=_beat, args=(stopping, heartbeat), name="heartbeat", daemon=True).start()


def _beat(stopping: threading.Event, heartbeat: Callable[[], None]) -> None:
    """Beat and sweep until told to stop, or until the supervisor that started this process is gone."""
    next_sweep = 0.0
    while not stopping.is_set():
        try:
            heartbeat()
            if time.monotonic() >= next_sweep:
                queue.sweep()
                next_sweep = time.monotonic() + settings.SWEEP_SECONDS
        except Exception:  # noqa: BLE001  (whatever it is: without a heart the process would go on and count as dead)
            log.exception("heartbeat")
            connection.close()
        if settings.SUPERVISOR_PID and os.getppid() != settings.SUPERVISOR_PID:
            log.warning("the supervisor is gone: stopping")
            os.kill(os.getpid(), signal.SIGTERM)
            return
        stopping.wait(settings.HEARTBEAT_SECONDS)
    connection.close()
