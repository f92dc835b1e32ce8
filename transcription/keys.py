"""API keys: those that users make, and those in KEYS_FILE.

KEYS_FILE has one key a line. It is read at the start and on request. Its keys belong to the first administrator. Only
their hashes are stored, as for other keys. A key that is removed from the file stops working when it is read again.
"""

import logging
import os
import secrets
import stat
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext

from transcription.models import AnyUser, ApiToken

log = logging.getLogger(__name__)

LONGEST_DAYS = 36_500
# The first characters of a key this long may be shown: the rest cannot be guessed.
LONG_ENOUGH_TO_SHOW = 32
LONG_ENOUGH = 16  # a shorter one can be guessed


class StandsInFile(Exception):
    """The key is in KEYS_FILE and can be removed only there."""

    def __init__(self, token: ApiToken) -> None:
        sentence = gettext("This key stands in %(file)s. Remove its line there and have the file read again.")
        super().__init__(sentence % {"file": token.name})


class FileMissing(Exception):
    """This machine has no KEYS_FILE, and keys of another machine's file work."""

    def __init__(self) -> None:
        message = gettext(
            "There is no %(file)s on this machine; its keys stay as they were. Send this to the machine that has the "
            "file. To remove all of its keys, put an empty file here."
        )
        super().__init__(message % {"file": settings.KEYS_FILE.name})


def of_user(user: AnyUser) -> QuerySet[ApiToken]:
    """A user's keys, the newest first."""
    return ApiToken.objects.filter(user_id=user.pk) if user.is_authenticated else ApiToken.objects.none()


def revoke(token: ApiToken) -> None:
    """Delete a key. Raises StandsInFile."""
    if token.is_from_file:
        raise StandsInFile(token)
    token.delete()


# ------------------------------------------------------------------ KEYS_FILE


def first_administrator() -> AbstractBaseUser | None:
    """The active superuser who joined first."""
    superusers = get_user_model().objects.filter(is_superuser=True, is_active=True)
    return superusers.order_by("date_joined", "pk").first()


def make_file() -> bool:
    """Create the file with one random key, readable by its owner alone; return False if it exists. Raises OSError."""
    path: Path = settings.KEYS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(file, "w") as keys:
        keys.write(f"{secrets.token_hex(32)}\n")
    return True


def in_file() -> list[str]:
    """The keys in the file, each once; none if there is no file. Raises OSError."""
    try:
        text = settings.KEYS_FILE.read_text("utf-8-sig", errors="replace")
    except FileNotFoundError:
        return []
    return list(dict.fromkeys(filter(None, (line.strip() for line in text.splitlines()))))


def is_in_file(key: str) -> bool:
    """Raises OSError."""
    digest = ApiToken.digest_of(key)
    return any(secrets.compare_digest(digest, ApiToken.digest_of(other)) for other in in_file())


def is_readable_by_others(path: Path) -> bool:
    """Raises OSError."""
    return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def reload() -> int:
    """Let exactly the keys of the file work, beside those made elsewhere; return how many of it do.

    Raises OSError, and FileMissing when there is no file here but keys of another machine's file work.
    """
    keys, owner = in_file(), first_administrator()
    of_file = ApiToken.objects.filter(is_from_file=True)
    if not keys and not settings.KEYS_FILE.exists() and of_file.exists():
        raise FileMissing
    if owner is None:
        keys = []
        log.warning("%s is not used: there is no administrator whom its keys could belong to", settings.KEYS_FILE)
    digests = [ApiToken.digest_of(key) for key in keys]
    with transaction.atomic():
        of_file.exclude(digest__in=digests).delete()
        if owner is not None:
            of_file.exclude(user_id=owner.pk).update(user_id=owner.pk)
            missing = [_token(key, owner) for key in keys]
            # A key of the file that was made elsewhere is left as it is.
            ApiToken.objects.bulk_create(missing, ignore_conflicts=True)
    log.info("%s: %d keys work", settings.KEYS_FILE, len(keys))
    return len(keys)


def _token(key: str, owner: AbstractBaseUser) -> ApiToken:
    return ApiToken(
        user_id=owner.pk,
        name=settings.KEYS_FILE.name[:100],
        prefix=key[:8] if len(key) >= LONG_ENOUGH_TO_SHOW else "",
        digest=ApiToken.digest_of(key),
        scope=ApiToken.Scope.ADMIN,
        is_from_file=True,
    )
