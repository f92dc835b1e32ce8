"""Messages about a job's end: rows that are written in the transaction that ends it."""

import uuid
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from transcription.models import Delivery, Job, Webhook
from transcription.text import exports


def announce(job_id: uuid.UUID, ending: Delivery.Type) -> int:
    """Write the messages about a job's end, one for each of its addresses; return how many.

    They are due at the first of WEBHOOK_TRIES_SECONDS.
    """
    job = Job.objects.select_related("recording").defer("text", "searchable", "recording__peaks").get(pk=job_id)
    standing = Webhook.objects.filter(owner_id=job.owner_id).values_list("url", flat=True).first()
    addresses = {url for url in (job.callback_url, standing) if url}
    if addresses:
        due_at = timezone.now() + timedelta(seconds=settings.WEBHOOK_TRIES_SECONDS[0])
        message = {"owner_id": job.owner_id, "job_id": job_id, "type": ending, "data": _job_facts(job)}
        Delivery.objects.bulk_create(Delivery(url=url, next_attempt_at=due_at, **message) for url in addresses)
    return len(addresses)


def _job_facts(job: Job) -> dict[str, Any]:
    """The job as it ended. Its name and text are filled in when the message is sent, unless the job is deleted then."""
    # Not by `reverse`: loading the URLs of all endpoints takes a worker as long as a short job.
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
