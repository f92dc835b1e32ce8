"""How many unfinished jobs a user may have, and how many recordings they may send in a period."""

import math
from datetime import timedelta

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.utils import timezone

from transcription import errors
from transcription.models import AnyUser, Job, Recording

# When a refused client may ask again: nobody knows when there will be room in the queue.
LOOK_AGAIN_SECONDS = 30


def lock(owner: AbstractBaseUser) -> None:
    """Make a user's other requests wait until the transaction ends, if there is a limit that they could pass."""
    # SQLite has no such lock and needs none: its transactions begin IMMEDIATE.
    if settings.MAX_QUEUED_JOBS or settings.THROTTLE_UPLOADS[0]:
        get_user_model().objects.select_for_update(no_key=True).get(pk=owner.pk)


def check_queue(owner: AnyUser) -> None:
    """Raises QueueFull if a user has as many unfinished jobs as MAX_QUEUED_JOBS allows."""
    limit = settings.MAX_QUEUED_JOBS
    if limit and Job.objects.filter(owner_id=owner.pk, status__in=Job.UNFINISHED).count() >= limit:
        raise errors.QueueFull(limit=limit, seconds=LOOK_AGAIN_SECONDS)


def check_uploads(owner: AnyUser) -> None:
    """Raises UploadsThrottled if a user has sent as many recordings as THROTTLE_UPLOADS allows in its period."""
    limit, period = settings.THROTTLE_UPLOADS
    if not limit:
        return
    since = timezone.now() - timedelta(seconds=period)
    sent = Recording.objects.filter(owner_id=owner.pk, created_at__gt=since).order_by("-created_at")
    if sent.count() < limit:
        return
    # There is room again when the oldest of the last `limit` uploads is older than the period.
    wait = sent.values_list("created_at", flat=True)[limit - 1] + timedelta(seconds=period) - timezone.now()
    raise errors.UploadsThrottled(limit=limit, seconds=max(1, math.ceil(wait.total_seconds())))
