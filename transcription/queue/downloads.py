"""Models to be fetched: request, cancel, claim, finish, retry, release."""

import uuid
from dataclasses import dataclass

from django.db import transaction
from django.db.models import F, QuerySet

from transcription import clock, errors, history
from transcription.models import Download, Job, Worker
from transcription.queue import jobs, leases, wakeups
from transcription.queue.jobs import JobClaim
from transcription.queue.leases import UNCLAIMED, Claim


@dataclass(frozen=True)
class DownloadClaim(Claim):
    """The right to fetch a model."""

    model: str

    def renew(self, *, progress: float) -> None:
        """Renew the lease of a download, and show its progress on the jobs that wait for it.

        Raises LeaseLost when the claim is lost, or the model is no longer wanted.
        """
        with transaction.atomic():
            waiting = _lock_waiting_for(self.model).update(progress=progress, waiting_for="")
            held = self._held()
            leases.must_win(held.update(lease_until=leases.lease_end(), progress=progress))
            # This sees jobs that began to wait after the lock.
            is_wanted = bool(waiting) or _waiting_for(self.model).exists() or held.filter(is_asked_for=True).exists()
            if not is_wanted:
                held.delete()
        leases.must_win(is_wanted)

    def finish(self) -> None:
        """Queue the jobs that waited for the model. Raises LeaseLost."""
        with transaction.atomic():
            waiting = _lock_waiting_for(self.model)
            leases.must_win(self._held().delete()[0])
            requeue(waiting)  # the next sweep requeues jobs that began to wait after the lock
            transaction.on_commit(wakeups.ring_default, robust=True)

    def retry(self, problem: errors.Problem) -> None:
        """Give a download back, to be tried again; after the last attempt fail the jobs that wait for it."""
        with transaction.atomic():
            waiting = list(_lock_waiting_for(self.model).values_list("pk", flat=True))
            held = self._held()
            attempts = held.select_for_update(no_key=True).values_list("attempts", flat=True).first()
            if attempts is None:
                return
            again = leases.another_attempt(problem, attempts)
            if again is not None:
                held.update(**UNCLAIMED, **again)
                for job in waiting:
                    jobs.note_delay(job, problem)
                return
            # The row shows the person who asked for the model why it failed; the jobs have rows of their own.
            held.filter(is_asked_for=False).delete()
            values = {name: str(value) for name, value in problem.values.items()}
            held.update(error_code=problem.code, error_values=values, **UNCLAIMED)
            for job in waiting:
                jobs.fail(job, problem)

    def release(self) -> None:
        """Give a download back because this worker is stopping; this does not count as an attempt."""
        self._held().update(attempts=F("attempts") - 1, **UNCLAIMED)

    def _held(self) -> QuerySet[Download]:
        return Download.objects.filter(pk=self.model, claim=self.token)


def wait_for_model(claim: JobClaim) -> None:
    """Give up a job's claim and let the job wait until its model has been fetched. Raises LeaseLost."""
    with transaction.atomic():
        held = Job.objects.filter(pk=claim.job, claim=claim.token, status=Job.Status.PREPARING)
        changes = {"progress": 0, "attempts": F("attempts") - 1, **UNCLAIMED}
        leases.must_win(held.update(status=Job.Status.DOWNLOADING, **changes))
        model = Job.objects.values_list("model", flat=True).get(pk=claim.job)
        _request(model)
        history.note(claim.job, "downloading", model)


def request_download(model: str) -> None:
    """Have a model fetched although no job waits for it; a download that has failed is tried again."""
    with transaction.atomic():
        _request(model, is_asked_for=True)


def cancel_download(model: str) -> None:
    """Stop fetching a model, unless jobs wait for it. The part that was fetched stays on disk for another time."""
    with transaction.atomic():
        Download.objects.filter(model=model).update(is_asked_for=False)
        if not _waiting_for(model).exists():
            Download.objects.filter(model=model).delete()


def _request(model: str, **changes: object) -> None:
    failed = Download.objects.filter(model=model).exclude(error_code="")
    due = {"next_attempt_at": clock.now(), "rung_at": clock.now()}
    failed.update(error_code="", error_values={}, attempts=0, **due)
    Download.objects.update_or_create(model=model, defaults=changes)
    transaction.on_commit(wakeups.ring_default, robust=True)


def has_downloads() -> bool:
    """Whether a model is to be fetched now."""
    return _due().exists()


def _due() -> QuerySet[Download]:
    return Download.objects.filter(claim=None, error_code="", next_attempt_at__lte=clock.now())


def claim_download(worker: Worker) -> DownloadClaim | None:
    """Claim a model that is to be fetched."""
    due = _due()
    while (model := due.values_list("model", flat=True).first()) is not None:
        token = uuid.uuid4()
        if due.filter(pk=model).update(**leases.columns(worker, token)):
            return DownloadClaim(token, model)
    return None


def requeue(waiting: QuerySet[Job]) -> None:
    """Queue jobs that waited for a model."""
    due = {"next_attempt_at": clock.now(), "rung_at": clock.now()}
    waiting.update(status=Job.Status.QUEUED, progress=0, waiting_for="", **due)


def _waiting_for(model: str) -> QuerySet[Job]:
    return Job.objects.filter(model=model, status=Job.Status.DOWNLOADING)


def _lock_waiting_for(model: str) -> QuerySet[Job]:
    """Lock the jobs that wait for a model until the transaction ends."""
    waiting = Job.objects.select_for_update(no_key=True).filter(model=model, status=Job.Status.DOWNLOADING)
    return Job.objects.filter(pk__in=list(waiting.order_by("pk").values_list("pk", flat=True)))
