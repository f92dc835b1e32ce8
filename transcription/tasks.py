"""The tasks that Celery calls for a wake-up: they claim work from the rows until none is left."""

import logging
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import shared_task, signals
from django.conf import settings
from django.db import DatabaseError, close_old_connections

from transcription import disk, errors, logs, webhooks
from transcription.queue import deliveries, downloads, sections, wakeups
from transcription.queue import jobs as queue_jobs
from transcription.queue.jobs import JobClaim
from transcription.queue.leases import Claim
from transcription.text import enhance
from transcription.workers import pipeline
from transcription.workers.process import WorkerProcess

log = logging.getLogger(__name__)

# This process as a worker: one element between Celery's start and end, none in other processes.
_here: list[WorkerProcess] = []


@signals.worker_ready.connect
def _begin(sender: Any, **_: Any) -> None:
    process = WorkerProcess(sender.task_consumer.queues[0].name)
    _here.append(process)
    process.begin()


@signals.worker_shutting_down.connect
def _stop(**_: Any) -> None:
    for process in _here:
        process.stop()


@signals.worker_shutdown.connect
def _end(**_: Any) -> None:
    for process in _here:
        process.end()


@shared_task(name=wakeups.DEFAULT_TASK)
def work_default() -> None:
    """Finish and prepare jobs until none waits, and start threads for work that may take long."""
    for process in _here:
        if downloads.has_downloads():
            process.run_in_background(_fetch_models)
        for _ in range(deliveries.deliveries_due(webhooks.AT_ONCE)):
            process.run_in_background(_deliver, at_once=webhooks.AT_ONCE)
        for _ in range(queue_jobs.improvements_due(enhance.AT_ONCE)):
            process.run_in_background(_improve, at_once=enhance.AT_ONCE)
        with process.place_for_large() as takes_large:
            most_bytes = None if takes_large else settings.SMALL_FILE_BYTES
            while process.finder and not process.stopping.is_set():
                if claim := queue_jobs.claim_finished_job(process.row):
                    _work_on_job(claim, partial(pipeline.finish, claim, process.stopping))
                elif claim := queue_jobs.claim_job(process.row, most_bytes=most_bytes):
                    _work_on_job(claim, partial(pipeline.prepare, claim, process.finder, process.stopping))
                else:
                    break


@shared_task(name=wakeups.DEVICE_TASK)
def work_device() -> None:
    """Decode sections until none waits."""
    for process in _here:
        while process.runner and not process.stopping.is_set() and (claim := sections.claim_section(process.row)):
            with logs.about(job=claim.job, section=claim.section):
                _work(claim, partial(pipeline.transcribe, claim, process.runner, process.stopping))


def _fetch_models(process: WorkerProcess) -> None:
    """Fetch models until none waits. This may take an hour, so it has a thread of its own."""
    while not process.stopping.is_set() and (claim := downloads.claim_download(process.row)):
        _work(claim, partial(pipeline.fetch, claim, process.stopping))


def _deliver(process: WorkerProcess) -> None:
    """Deliver messages until none waits. Receivers may be slow, so this has threads of its own."""
    while not process.stopping.is_set() and (claim := deliveries.claim_delivery(process.row)):
        _work(claim, partial(webhooks.deliver, claim))


def _improve(process: WorkerProcess) -> None:
    """Finish jobs with a language model until none waits. It may be slow, so this has threads of its own."""
    while not process.stopping.is_set() and (
        claim := queue_jobs.claim_finished_job(process.row, is_to_be_improved=True)
    ):
        _work_on_job(claim, partial(pipeline.finish, claim, process.stopping))


def _work_on_job(claim: JobClaim, step: Callable[[], None]) -> None:
    with logs.about(job=claim.job):
        _work(claim, step)


def _work(claim: Claim, step: Callable[[], None]) -> None:
    """Do a step under a claim; if it fails, give the work back with the problem."""
    try:
        step()
    except errors.LeaseLost:
        claim.release()  # if the claim is still ours, this worker is stopping; if not, this changes nothing
    except errors.Problem as problem:
        claim.retry(problem)
    except Exception as error:
        log.exception("a step failed")
        close_old_connections()  # a new connection works if the database has restarted
        claim.retry(_problem_of(error))


def _problem_of(error: Exception) -> errors.Problem:
    """An unexpected error as a problem. Only its message tells that a database found the disk full."""
    is_database_full = isinstance(error, DatabaseError) and re.search("disk is full|No space left", str(error))
    if disk.is_disk_full(error) or is_database_full:
        return errors.DiskFull()
    return errors.Problem(detail=f"{type(error).__name__}: {error}")
