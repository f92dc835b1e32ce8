"""What is to be told to somebody's address: rows that are written in the transaction of what they tell."""

import uuid
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from transcription.models import Delivery, Job, Webhook
from transcription.text import exports


def announce(job_id: uuid.UUID, ending: Delivery.Type) -> int:
    """Write the messages that tell of a job's end, one to each address that wants to know; return how many.

    They are due at the first of WEBHOOK_TRIES_SECONDS.
    """
    job = Job.objects.select_related("recording").defer("text", "searchable", "recording__peaks").get(pk=job_id)
    standing = Webhook.objects.filter(owner_id=job.owner_id).values_list("url", flat=True).first()
    addresses = {url for url in (job.callback_url, standing) if url}
    if addresses:
        first = timezone.now() + timedelta(seconds=settings.WEBHOOK_TRIES_SECONDS[0])
        message = {"owner_id": job.owner_id, "job_id": job_id, "type": ending, "data": _facts(job)}
        Delivery.objects.bulk_create(Delivery(url=url, next_attempt_at=first, **message) for url in addresses)
    return len(addresses)


def _facts(job: Job) -> dict[str, Any]:
    """The job as it ended. Its name and text are put in when the message is sent: they are gone when the job is."""
    # Written out: a worker has no need of the URLs of all endpoints, and loading them takes as long as a short job.
    own = f"{settings.PUBLIC_URL}/api/v1/jobs/{job.pk}/"
    return {
        "id": str(job.pk),
        "name": None,
        "status": job.status,
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
        "language": job.language or None,
        "duration": job.recording.duration,
        "model": job.model,
        "text": None,
        "links": {
            "self": own,
            "audio": f"{own}audio/",
            "transcript": {format: f"{own}transcript.{format}" for format in (*exports.FORMATS, "json")},
        },
    }
