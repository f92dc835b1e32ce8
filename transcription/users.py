"""Deleting users with everything they own, without leaving an installation that has no administrator."""

from functools import partial
from pathlib import Path

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q, QuerySet, Sum
from django.utils.translation import gettext

from transcription import jobs
from transcription.models import ApiToken, Delivery, Job, Recording, Share, Upload

ADMINISTRATORS = Q(is_superuser=True, is_staff=True, is_active=True)


class LastAdministrator(Exception):
    """The last administrator cannot be removed."""

    def __init__(self) -> None:
        super().__init__(gettext("This is the last administrator. Make another user a superuser first."))


def check_somebody_stays(leaving: QuerySet[User]) -> None:
    """Raises LastAdministrator if these are all administrators. Call it in the transaction that removes them.

    It locks the administrators until then, so that two who remove each other at once leave one.
    """
    # SQLite has no such lock and needs none: its transactions begin IMMEDIATE.
    administrators = set(
        User.objects.select_for_update().filter(ADMINISTRATORS).order_by("pk").values_list("pk", flat=True)
    )
    if administrators and administrators <= set(leaving.values_list("pk", flat=True)):
        raise LastAdministrator


def delete(users: QuerySet[User]) -> None:
    """Delete users and their rows, then their files; workers on their jobs stop by themselves.

    The keys of KEYS_FILE keep working: the next administrator gets them. Raises LastAdministrator.
    """
    with transaction.atomic():
        check_somebody_stays(users)
        leaving = list(users.select_for_update().order_by("pk"))
        files: list[Path] = []
        for recording in Recording.objects.filter(owner__in=leaving).only("pk").iterator(chunk_size=100):
            files += jobs.delete_rows_of(recording)
        uploads = Upload.objects.filter(owner__in=leaving)
        files += [upload.path for upload in uploads.only("pk")]
        uploads.delete()
        remaining = User.objects.filter(ADMINISTRATORS).exclude(pk__in=[user.pk for user in leaving])
        if (successor := remaining.order_by("date_joined", "pk").first()) is not None:
            ApiToken.objects.filter(user__in=leaving, is_from_file=True).update(user=successor)
        for user in leaving:
            user.delete()
        transaction.on_commit(partial(_unlink, files), robust=True)


def _unlink(files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def belongings(users: QuerySet[User]) -> dict[str, int]:
    """What is deleted with users: the number of rows of each kind, and the bytes of their recordings."""
    recordings = Recording.objects.filter(owner__in=users)
    users_jobs = Job.objects.filter(owner__in=users)
    return {
        "recordings": recordings.count(),
        "bytes": recordings.filter(removed_at=None).aggregate(sum=Sum("bytes", default=0))["sum"],
        "jobs": users_jobs.count(),
        "unfinished": users_jobs.filter(status__in=Job.UNFINISHED).count(),
        "uploads": Upload.objects.filter(owner__in=users).count(),
        "shares": Share.objects.filter(job__owner__in=users).count(),
        "keys": ApiToken.objects.filter(user__in=users, is_from_file=False).count(),
        "deliveries": Delivery.objects.filter(owner__in=users).count(),
    }
