"""Who is asking: an API token in a header, or the dashboard's session."""

from collections.abc import Mapping
from datetime import timedelta
from typing import cast

from asgiref.sync import sync_to_async
from django.contrib.auth.models import AbstractBaseUser
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from transcription.models import AnyUser, ApiToken

CHALLENGE = 'Token realm="stenograf"'
SCHEMES = ("token", "bearer")
# A client that polls would otherwise write to the database with each request.
LAST_USE_IS_KEPT_FOR = timedelta(minutes=5)


def key_in(headers: Mapping[str, str]) -> str | None:
    """The key that a request carries in its headers, or None; an empty one counts as carried.

    Other schemes than ours (a proxy's `Basic`) are somebody else's business.
    """
    scheme, _space, key = headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() in SCHEMES:
        return key.strip()
    key = headers.get("X-API-Key", "").strip()
    return key or None


def user_of(key: str) -> AbstractBaseUser | None:
    """The active user whose key this is; None if there is no such key, or it has stopped working."""
    now = timezone.now()
    works = Q(expires_at=None) | Q(expires_at__gt=now)
    token = (
        ApiToken.objects.select_related("user")
        .filter(works, digest=ApiToken.digest_of(key), user__is_active=True)
        .first()
    )
    if token is None:
        return None
    _note_use(token)
    return cast(AbstractBaseUser, token.user)


def _note_use(token: ApiToken) -> None:
    now = timezone.now()
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - LAST_USE_IS_KEPT_FOR)
    ApiToken.objects.filter(stale, pk=token.pk).update(last_used_at=now)


def no_key() -> str:
    return _("Send your key in the header X-API-Key, or as Authorization: Bearer.")


def unknown_key() -> str:
    return _("This key is unknown or no longer works. Make a new one, or ask the administrator.")


async def user_asking(request: HttpRequest) -> AnyUser | None:
    """Whose request this is, by key or else by session; None if a key is given that does not work."""
    key = key_in(request.headers)
    if key is not None:
        return await sync_to_async(user_of)(key)
    return await request.auser()


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Token …`, `Authorization: Bearer …` or `X-API-Key: …`."""

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, None] | None:
        key = key_in(request.headers)
        if key is None:
            return None
        user = user_of(key)
        if user is None:
            raise AuthenticationFailed(unknown_key())
        return user, None

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE
