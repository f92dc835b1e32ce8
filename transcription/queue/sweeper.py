"""Returns work whose worker has died to the queue, and sends wake-ups for work that nobody has claimed."""

import socket
import uuid

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet

from transcription import clock, errors, history, processes
from transcription.models import Claimable, Delivery, Download, Job, Row, Section, Worker
from transcription.queue import downloads, jobs, leases, wakeups
from transcription.queue.leases import UNCLAIMED

# The row of a worker without a heartbeat for so long is deleted.
FORGET_WORKERS_SECONDS = 24 * 3600

# The columns that change when a claim is renewed or ends.
LEASE = ("claim", "lease_until")


def sweep() -> None:
    """Return what dead workers held, fail what was attempted too often, and ring for work that waits.

    Safe to run at any time in any number of processes.
    """
    dead = _dead_workers()
    lost = Q(lease_until__lte=clock.now()) | Q(worker__in=dead, claim__isnull=False)
    for section in Section.objects.filter(lost, status=Section.Status.TRANSCRIBING).defer("spans", "versions"):
        _sweep_section(section)
    for job in Job.objects.filter(lost, status__in=Job.UNFINISHED).only("attempts", *LEASE):
        _sweep_job(job)
    _sweep_downloads(lost)
    _sweep_deliveries(lost)
    Worker.objects.filter(pk__in=dead).delete()
    Worker.objects.filter(heartbeat_at__lt=clock.after(-FORGET_WORKERS_SECONDS)).delete()
    _ring_for_waiting_work()


def _dead_workers() -> list[uuid.UUID]:
    """The workers of this machine whose process is gone: their leases end now.

    A PID of another namespace says nothing here. Such a worker's leases run out, as those of another machine's do.
    """
    here = Worker.objects.filter(hostname=socket.gethostname(), pid_namespace=processes.namespace())
    pids = here.values_list("pk", "pid", "pid_started")
    return [worker for worker, pid, since in pids if not processes.is_running(pid, since=since)]


def _still_lost(row: Claimable) -> dict[str, object]:
    """A filter for a row whose claim was neither renewed nor ended since it was read."""
    return {"pk": row.pk, "claim": row.claim, "lease_until": row.lease_until}


def _sweep_section(section: Section) -> None:
    with transaction.atomic():
        if not leases.lock_job(section.job_id, Job.Status.TRANSCRIBING):
            return
        returned = Section.objects.filter(**_still_lost(section)).update(status=Section.Status.QUEUED, **UNCLAIMED)
        if returned and section.attempts >= settings.MAX_ATTEMPTS:
            jobs.fail(section.job_id, errors.RunnerDied(attempts=section.attempts))
        elif returned:
            history.note(section.job_id, "returned", "the worker that held a section is gone")


def _sweep_job(job: Job) -> None:
    with transaction.atomic():
        returned = jobs.give_back(Job.objects.filter(**_still_lost(job)))
        if returned and job.attempts >= settings.MAX_ATTEMPTS:
            jobs.fail(job.pk, errors.WorkerLost(attempts=job.attempts))
        elif returned:
            history.note(job.pk, "returned", "the worker that held the job is gone")


def _sweep_downloads(lost: Q) -> None:
    """Return what dead workers fetched. It does not count as an attempt: the download continues where it stopped."""
    for download in Download.objects.filter(lost).only(*LEASE):
        Download.objects.filter(**_still_lost(download)).update(attempts=F("attempts") - 1, **UNCLAIMED)
    without_download = Job.objects.filter(status=Job.Status.DOWNLOADING).exclude(
        model__in=Download.objects.values("model")
    )
    for job in without_download.values_list("pk", flat=True):
        downloads.requeue(Job.objects.filter(pk=job, status=Job.Status.DOWNLOADING))


def _sweep_deliveries(lost: Q) -> None:
    """Return what dead workers were sending. It may have arrived, but is sent once more and not counted as a try."""
    for delivery in Delivery.objects.filter(lost).only(*LEASE):
        Delivery.objects.filter(**_still_lost(delivery)).update(attempts=F("attempts") - 1, **UNCLAIMED)


def _ring_for_waiting_work() -> None:
    """Ring for work that waits and was not rung for since the last sweep."""
    overdue = Q(next_attempt_at__lte=clock.now(), rung_at__lte=clock.after(-settings.SWEEP_SECONDS))
    to_prepare = Q(status=Job.Status.QUEUED) | Q(status=Job.Status.FINISHING, claim=None)
    has_jobs = _mark_rung(Job.objects.filter(overdue, to_prepare))
    has_downloads = _mark_rung(Download.objects.filter(overdue, claim=None, error_code=""))
    has_deliveries = _mark_rung(Delivery.objects.filter(overdue, status=Delivery.Status.WAITING, claim=None))
    if has_jobs or has_downloads or has_deliveries:
        wakeups.ring_default()
    sections = Section.objects.filter(overdue, status=Section.Status.QUEUED, job__status=Job.Status.TRANSCRIBING)
    if _mark_rung(sections):
        wakeups.ring_devices()


def _mark_rung(rows: QuerySet[Row]) -> int:
    """Note that these rows are rung for now; return how many."""
    # Locked rows are skipped, so that this update of many rows does not wait.
    free = rows.select_for_update(skip_locked=True, of=("self",), no_key=True).values("pk")
    with transaction.atomic():
        return rows.model._default_manager.filter(pk__in=free).update(rung_at=clock.now())
