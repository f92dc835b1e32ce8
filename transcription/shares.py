"""Links that let people without an account read a transcript, until they expire or are revoked."""

import hashlib
import secrets
from datetime import datetime

from django.utils import timezone

from transcription.models import Job, Share


def make(job: Job, *, expires_at: datetime, has_audio: bool = True) -> tuple[Share, str]:
    """Create a link to a job; return it and its secret, which is not stored and cannot be shown again."""
    secret = secrets.token_urlsafe(24)
    share = Share.objects.create(job=job, digest=_digest(secret), expires_at=expires_at, has_audio=has_audio)
    return share, secret


def find(secret: str) -> Share | None:
    """The link with this secret; None if there is none or it has expired."""
    valid = Share.objects.filter(digest=_digest(secret), expires_at__gt=timezone.now())
    return valid.select_related("job", "job__recording").defer("job__recording__peaks", "job__searchable").first()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
