"""How much one user may have waiting, and send in how short a time."""

import math
from datetime import timedelta

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.utils import timezone

from transcription import errors
from transcription.models import AnyUser, Job, Recording

# When a place in the queue will be free nobody knows; so long a client may wait until it asks again.
LOOK_AGAIN_SECONDS = 30


def lock(owner: AbstractBaseUser) -> None:
    """Have no other request of a user's counted until the transaction ends, if anything is limited here."""
    # SQLite has no such lock and needs none: its transactions begin IMMEDIATE.
    if settings.MAX_QUEUED_JOBS or settings.THROTTLE_UPLOADS[0]:
        get_user_model().objects.select_for_update(no_key=True).get(pk=owner.pk)


def check_queue(owner: AnyUser) -> None:
    """Raises QueueFull when a user's unfinished jobs are as many as may be."""
    limit = settings.MAX_QUEUED_JOBS
    if limit and Job.objects.filter(owner_id=owner.pk, status__in=Job.UNFINISHED).count() >= limit:
        raise errors.QueueFull(limit=limit, seconds=LOOK_AGAIN_SECONDS)


def check_uploads(owner: AnyUser) -> None:
    """Raises UploadsThrottled when a user has sent as many recordings as may come in a period."""
    limit, period = settings.THROTTLE_UPLOADS
    if not limit:
        return
    since = timezone.now() - timedelta(seconds=period)
    sent = Recording.objects.filter(owner_id=owner.pk, created_at__gt=since).order_by("-created_at")
    if sent.count() < limit:
        return
    # The next may come when the oldest of those that fill the period has left it.
    frees = sent.values_list("created_at", flat=True)[limit - 1] + timedelta(seconds=period) - timezone.now()
    raise errors.UploadsThrottled(limit=limit, seconds=max(1, math.ceil(frees.total_seconds())))
