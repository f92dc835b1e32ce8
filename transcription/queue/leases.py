"""What all claims share: a token, a lease, and the order in which rows are locked."""

import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass

from django.conf import settings
from django.db.models import F
from django.db.models.expressions import Combinable

from transcription import clock, errors
from transcription.models import Job, Worker

# The pause before work that waits for something, such as free space, is tried again.
LOOK_AGAIN_SECONDS = 30

# The columns of a row that nobody has claimed.
UNCLAIMED = {"claim": None, "worker": None, "lease_until": None}


@dataclass(frozen=True)
class Claim(ABC):
    """The right to work on a row until its lease runs out.

    The token is new at each claim: a write under an earlier one changes nothing.
    """

    token: uuid.UUID

    @abstractmethod
    def retry(self, problem: errors.Problem) -> None:
        """Give the work back after a failed attempt, to be tried again later; after the last attempt let it fail."""

    @abstractmethod
    def release(self) -> None:
        """Give the work back because this worker is stopping; this does not count as an attempt."""


def columns(worker: Worker, token: uuid.UUID) -> dict[str, object]:
    """The columns of a row that a worker claims."""
    return {"claim": token, "worker": worker, "lease_until": lease_end(), "attempts": F("attempts") + 1}


def lease_end() -> Combinable:
    """When a lease that begins or is renewed now ends."""
    return clock.after(settings.LEASE_SECONDS)


def must_win(changed: int) -> None:
    """Raises LeaseLost if an update under a claim changed no row."""
    if not changed:
        raise errors.LeaseLost


def lock_job(job_id: uuid.UUID, status: Job.Status) -> bool:
    """Lock a job's row until the transaction ends; return False if the job does not have this status.

    SQLite has no such lock and needs none: its transactions begin IMMEDIATE.
    """
    locked = Job.objects.select_for_update(no_key=True).filter(pk=job_id, status=status)
    return locked.values_list("pk", flat=True).first() is not None


def another_attempt(problem: errors.Problem, attempts: int) -> dict[str, object] | None:
    """The columns of a row that is to be tried again after so many attempts; None if it is not."""
    if problem.waiting_sentence:  # waiting for something is no failed attempt, however long it takes
        return {"attempts": F("attempts") - 1, "next_attempt_at": clock.after(LOOK_AGAIN_SECONDS)}
    if not problem.is_transient or attempts >= settings.MAX_ATTEMPTS:
        return None
    # The second attempt begins at once: the first may have failed for a reason that is gone.
    return {"next_attempt_at": clock.after(min(300.0, 2.0**attempts - 2))}
