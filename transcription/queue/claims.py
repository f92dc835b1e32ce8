"""The rights to work on something until a lease runs out, and how rows store them."""

import uuid
from dataclasses import dataclass

from django.conf import settings
from django.db.models import F
from django.db.models.expressions import Combinable

from transcription import clock, errors
from transcription.models import Job, Worker

# What a row holds when nobody has it.
UNCLAIMED = {"claim": None, "worker": None, "lease_until": None}


@dataclass(frozen=True)
class JobClaim:
    """The right to prepare or finish a job until the lease runs out. `token` is what every write must name."""

    job: uuid.UUID
    token: uuid.UUID


@dataclass(frozen=True)
class SectionClaim:
    """The right to decode a section of a job until the lease runs out."""

    job: uuid.UUID
    section: int
    token: uuid.UUID


@dataclass(frozen=True)
class DownloadClaim:
    """The right to fetch a model until the lease runs out."""

    model: str
    token: uuid.UUID


@dataclass(frozen=True)
class DeliveryClaim:
    """The right to try to deliver a message until the lease runs out; a try that outlasts it is made once more."""

    delivery: uuid.UUID
    token: uuid.UUID


def taken(worker: Worker, token: uuid.UUID) -> dict[str, object]:
    return {"claim": token, "worker": worker, "lease_until": lease(), "attempts": F("attempts") + 1}


def lease() -> Combinable:
    return clock.after(settings.LEASE_SECONDS)


def must_win(changed: int) -> None:
    if not changed:
        raise errors.LeaseLost


def lock_job(job_id: uuid.UUID, status: Job.Status) -> bool:
    """Lock a job's row until the transaction ends; return False if the job has not this status.

    SQLite has no such lock and needs none: its transactions begin IMMEDIATE.
    """
    locked = Job.objects.select_for_update(no_key=True).filter(pk=job_id, status=status)
    return locked.values_list("pk", flat=True).first() is not None
