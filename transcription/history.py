"""The events of a job: each is a row and a line in the log."""

import logging
import uuid

from transcription.models import Event

log = logging.getLogger(__name__)


def note(job_id: uuid.UUID, kind: str, message: str = "") -> None:
    """Write an Event of a job, and a log line."""
    Event.objects.create(job_id=job_id, kind=kind, message=message)
    log.info("%s: %s" if message else "%s%s", kind, message, extra={"job": job_id})


def has(job_id: uuid.UUID, kind: str) -> bool:
    """Whether a job has an Event of this kind."""
    return Event.objects.filter(job_id=job_id, kind=kind).exists()
