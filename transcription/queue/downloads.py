"""Models to be fetched: requested, claimed, fetched, retried, released."""

import uuid
from dataclasses import dataclass

from django.db import transaction
from django.db.models import F, QuerySet

from transcription import clock, errors, history
from transcription.models import Download, Job, Worker
from transcription.queue import claims, jobs, wakeups
from transcription.queue.claims import UNCLAIMED, Claim
from transcription.queue.jobs import JobClaim


@dataclass(frozen=True)
class DownloadClaim(Claim):
    """The right to fetch a model."""

    model: str

    def renew(self, *, progress: float) -> None:
        """Keep a download for another lease, and show its progress on the jobs that wait for it.

        Raises LeaseLost when it is no longer ours to work on, or nobody wants it any more.
        """
        with transaction.atomic():
            waiting = _lock_waiting_for(self.model).update(progress=progress, waiting_for="")
            held = self._held()
            claims.must_win(held.update(lease_until=claims.lease(), progress=progress))
            # A job that came to wait after the lock is seen here.
            is_wanted = bool(waiting) or _waiting_for(self.model).exists() or held.filter(is_asked_for=True).exists()
            if not is_wanted:
                held.delete()
        claims.must_win(is_wanted)

    def finish(self) -> None:
        """Let the jobs go on that waited for a model. Raises LeaseLost."""
        with transaction.atomic():
            waiting = _lock_waiting_for(self.model)
            claims.must_win(self._held().delete()[0])
            go_on(waiting)  # a job that came to wait after the lock goes on by the next sweep
            transaction.on_commit(wakeups.ring_default, robust=True)

    def retry(self, problem: errors.Problem) -> None:
        """Give a download back, to be tried again; after the last attempt fail the jobs that wait for it."""
        with transaction.atomic():
            waiting = list(_lock_waiting_for(self.model).values_list("pk", flat=True))
            held = self._held()
            attempts = held.select_for_update(no_key=True).values_list("attempts", flat=True).first()
            if attempts is None:
                return
            again = claims.another_attempt(problem, attempts)
            if again is None:
                _fail_download(self.model, problem)
            else:
                held.update(**UNCLAIMED, **again)
            for job in waiting:
                if again is None:
                    jobs.fail(job, problem)
                else:
                    jobs.note_delay(job, problem)

    def release(self) -> None:
        """Give a download back because this worker is stopping; a deploy is not a failed attempt."""
        self._held().update(attempts=F("attempts") - 1, **UNCLAIMED)

    def _held(self) -> QuerySet[Download]:
        return Download.objects.filter(pk=self.model, claim=self.token)


def wait_for_model(claim: JobClaim) -> None:
    """Have a job wait, in nobody's hands, until its model has been fetched. Raises LeaseLost."""
    with transaction.atomic():
        held = Job.objects.filter(pk=claim.job, claim=claim.token, status=Job.Status.PREPARING)
        changes = {"progress": 0, "attempts": F("attempts") - 1, **UNCLAIMED}
        claims.must_win(held.update(status=Job.Status.DOWNLOADING, **changes))
        model = Job.objects.values_list("model", flat=True).get(pk=claim.job)
        _request(model)
        history.note(claim.job, "downloading", model)


def request_download(model: str) -> None:
    """Have a model fetched for whoever will want it; one that could not be fetched is tried anew."""
    with transaction.atomic():
        _request(model, is_asked_for=True)


def cancel_download(model: str) -> None:
    """Fetch a model no longer, unless jobs wait for it; what has come of it stays for another time."""
    with transaction.atomic():
        Download.objects.filter(model=model).update(is_asked_for=False)
        if not _waiting_for(model).exists():
            Download.objects.filter(model=model).delete()


def _request(model: str, **changes: object) -> None:
    waits = {"next_attempt_at": clock.now(), "rung_at": clock.now()}
    anew = {"error_code": "", "error_values": {}, "attempts": 0, **waits}
    Download.objects.filter(model=model).exclude(error_code="").update(**anew)
    Download.objects.update_or_create(model=model, defaults=changes)
    transaction.on_commit(wakeups.ring_default, robust=True)


def has_downloads() -> bool:
    """Whether a model is to be fetched now."""
    return _downloads().exists()


def _downloads() -> QuerySet[Download]:
    return Download.objects.filter(claim=None, error_code="", next_attempt_at__lte=clock.now())


def claim_download(worker: Worker) -> DownloadClaim | None:
    """Take a model that is to be fetched."""
    waiting = _downloads()
    while (model := waiting.values_list("model", flat=True).first()) is not None:
        token = uuid.uuid4()
        if waiting.filter(pk=model).update(**claims.taken(worker, token)):
            return DownloadClaim(token, model)
    return None


def go_on(jobs: QuerySet[Job]) -> None:
    waits = {"next_attempt_at": clock.now(), "rung_at": clock.now()}
    jobs.update(status=Job.Status.QUEUED, progress=0, waiting_for="", **waits)


def _fail_download(model: str, problem: errors.Problem) -> None:
    """Keep what went wrong for the person who asked; the jobs keep it for theirs."""
    values = {name: str(value) for name, value in problem.values.items()}
    Download.objects.filter(pk=model, is_asked_for=False).delete()
    Download.objects.filter(pk=model).update(error_code=problem.code, error_values=values, **UNCLAIMED)


def _waiting_for(model: str) -> QuerySet[Job]:
    return Job.objects.filter(model=model, status=Job.Status.DOWNLOADING)


def _lock_waiting_for(model: str) -> QuerySet[Job]:
    """Lock the jobs that wait for a model until the transaction ends."""
    waiting = Job.objects.select_for_update(no_key=True).filter(model=model, status=Job.Status.DOWNLOADING)
    return Job.objects.filter(pk__in=list(waiting.order_by("pk").values_list("pk", flat=True)))
