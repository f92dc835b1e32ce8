"""Links by which others read a transcript without an account: good for a time, taken back at once."""

import hashlib
import secrets
from datetime import datetime

from django.utils import timezone

from transcription.models import Job, Share


def make(job: Job, *, expires_at: datetime, has_audio: bool = True) -> tuple[Share, str]:
    """A new link to a job, and its secret, which is never shown again."""
    secret = secrets.token_urlsafe(24)
    share = Share.objects.create(job=job, digest=_digest(secret), expires_at=expires_at, has_audio=has_audio)
    return share, secret


def find(secret: str) -> Share | None:
    """The link whose secret this is; None when there is none, or its time is over."""
    good = Share.objects.filter(digest=_digest(secret), expires_at__gt=timezone.now())
    return good.select_related("job", "job__recording").defer("job__recording__peaks", "job__searchable").first()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
