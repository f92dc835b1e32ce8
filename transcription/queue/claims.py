"""What all claims share: a token, a lease, and the order in which rows are locked."""

import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass

from django.conf import settings
from django.db.models import F
from django.db.models.expressions import Combinable

from transcription import clock, errors
from transcription.models import Job, Worker

# How often a job that waits for space is tried again.
LOOK_AGAIN_SECONDS = 30

# What a row holds when nobody has it.
UNCLAIMED = {"claim": None, "worker": None, "lease_until": None}


@dataclass(frozen=True)
class Claim(ABC):
    """The right to work on a row until its lease runs out.

    The token is new at each claim: a write under an earlier one changes nothing.
    """

    token: uuid.UUID

    @abstractmethod
    def retry(self, problem: errors.Problem) -> None:
        """Give the work back after a failed attempt, to be tried again a little later; after the last it has failed."""

    @abstractmethod
    def release(self) -> None:
        """Give the work back because this worker is stopping; a deploy is not a failed attempt."""


def taken(worker: Worker, token: uuid.UUID) -> dict[str, object]:
    """The columns of a row that a worker takes."""
    return {"claim": token, "worker": worker, "lease_until": lease(), "attempts": F("attempts") + 1}


def lease() -> Combinable:
    """When a lease that begins or is renewed now runs out."""
    return clock.after(settings.LEASE_SECONDS)


def must_win(changed: int) -> None:
    """Raises LeaseLost when an update under a claim changed no row."""
    if not changed:
        raise errors.LeaseLost


def lock_job(job_id: uuid.UUID, status: Job.Status) -> bool:
    """Lock a job's row until the transaction ends; return False if the job has not this status.

    SQLite has no such lock and needs none: its transactions begin IMMEDIATE.
    """
    locked = Job.objects.select_for_update(no_key=True).filter(pk=job_id, status=status)
    return locked.values_list("pk", flat=True).first() is not None


def another_attempt(problem: errors.Problem, attempts: int) -> dict[str, object] | None:
    """What changes for another attempt after so many; None when there shall be none."""
    if problem.waiting_sentence:  # nobody's fault: it does not count, however often it is tried
        return {"attempts": F("attempts") - 1, "next_attempt_at": clock.after(LOOK_AGAIN_SECONDS)}
    if not problem.is_transient or attempts >= settings.MAX_ATTEMPTS:
        return None
    # The second attempt comes at once: the first may have failed by anybody's fault.
    return {"next_attempt_at": clock.after(min(300.0, 2.0**attempts - 2))}
