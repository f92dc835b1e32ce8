"""Who is asking, and how much of what they may do: every endpoint asks here, and so does the gate.

By an API key in a header (at /asr also in the address), or at the API by the session of the dashboard; with
LEGACY_ANONYMOUS also without either, at the endpoints whose clients know no keys.
"""

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import PermissionDenied as Forbidden
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from transcription.api import client_address
from transcription.models import AnyUser, ApiToken

Scope = ApiToken.Scope

CHALLENGE = 'Token realm="stenograf"'
SCHEMES = ("token", "bearer")
READING = ("GET", "HEAD", "OPTIONS")
# A client that polls would otherwise write to the database with each request.
LAST_USE_IS_KEPT_FOR = timedelta(minutes=5)

# Most clients of this endpoint can send no header.
TAKES_KEY_IN_ADDRESS = re.compile(r"/(asr|detect-language)/?")
# The endpoints of the compatibility API and the one above, whose clients may know no keys. Not /keys/reload.
MAY_BE_ANONYMOUS = re.compile(
    r"/(transcribe|models|(job|files)/.+|api/(transcribe|queue|gpus|model_status|logs|status/.+)|asr|detect-language)/?"
)
ANONYMOUS = "anonymous"

# Set in the ASGI scope of a request whose key is wrong: the gate, which holds no thread, lets such requests wait.
WRONG_KEY = "stenograf.wrong_key"


@dataclass(frozen=True)
class Caller:
    """Somebody who may come in: whose rows they see, and by which key."""

    user: AbstractBaseUser
    scope: str = Scope.ADMIN
    token: ApiToken | None = None  # None: nobody in particular

    def may(self, scope: Scope) -> bool:
        order = list(Scope)
        # One that another version stored is worth the least of ours.
        own = Scope(self.scope) if self.scope in Scope else Scope.READ
        return order.index(own) >= order.index(scope)


# ------------------------------------------------------------------ who may not come in


class NotAdmitted(Exception):
    """The sentence for somebody who may not come in as they are."""


class NoKey(NotAdmitted):
    def __init__(self) -> None:
        super().__init__(no_key())


class WrongKey(NotAdmitted):
    def __init__(self) -> None:
        super().__init__(unknown_key())


class KeyTooSmall(NotAdmitted, Forbidden):
    """A view that leaves it to Django answers 403, in the shape of its endpoint."""

    def __init__(self, needed: Scope) -> None:
        super().__init__(reads_only() if needed == Scope.WRITE else is_no_administrators())


def no_key() -> str:
    return _("Send your key in the header X-API-Key, or as Authorization: Bearer.")


def unknown_key() -> str:
    return _("This key is unknown or no longer works. Make a new one, or ask the administrator.")


def reads_only() -> str:
    return _("This key may only read. Send one that may read and write: the page Keys makes it.")


def is_no_administrators() -> str:
    return _("This needs a key that may do everything its user may. The page Keys makes it.")


# ------------------------------------------------------------------ the key


def key_in(headers: Mapping[str, str]) -> str | None:
    """The key that a request carries in its headers, or None; an empty one counts as carried.

    Other schemes than ours (a proxy's `Basic`) are somebody else's business.
    """
    scheme, _space, key = headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() in SCHEMES:
        return key.strip()
    key = headers.get("X-API-Key", "").strip()
    return key or None


def key_of(request: HttpRequest) -> str | None:
    """The key that a request carries where its endpoint takes one, or None."""
    key = key_in(request.headers)
    if key is None and TAKES_KEY_IN_ADDRESS.fullmatch(request.path):
        key = request.GET.get("token", "").strip() or _key_before_host(request.headers)
    return key


def _key_before_host(headers: Mapping[str, str]) -> str | None:
    """The key of a client that was given `http://key:KEY@host`, which it sends as the password of the user `key`."""
    scheme, _space, sent = headers.get("Authorization", "").strip().partition(" ")
    try:
        name, _colon, key = b64decode(sent, validate=True).decode().partition(":")
    except ValueError:  # neither Base64 nor UTF-8
        return None
    return key.strip() or None if (scheme.lower(), name) == ("basic", "key") else None


def _valid_token(key: str) -> ApiToken | None:
    """The token of a key, whose use is noted; None if it does not exist, has expired, or its user is inactive."""
    now = timezone.now()
    is_unexpired = Q(expires_at=None) | Q(expires_at__gt=now)
    token = (
        ApiToken.objects.select_related("user")
        .filter(is_unexpired, digest=ApiToken.digest_of(key), user__is_active=True)
        .first()
    )
    if token is not None:
        is_stale = Q(last_used_at=None) | Q(last_used_at__lt=now - LAST_USE_IS_KEPT_FOR)
        ApiToken.objects.filter(is_stale, pk=token.pk).update(last_used_at=now)
    return token


# ------------------------------------------------------------------ who asks


def caller_of(request: HttpRequest) -> Caller:
    """Who asks at an endpoint without sessions. Raises NoKey, WrongKey and KeyTooSmall."""
    caller = caller_by_key(request) or _anonymous_caller(request)
    if caller is None:
        raise NoKey
    return caller


def owner_of(request: HttpRequest) -> AbstractBaseUser:
    """Whose rows the request is about, at an endpoint without sessions. Raises NoKey, WrongKey and KeyTooSmall."""
    return caller_of(request).user


def caller_by_key(request: HttpRequest) -> Caller | None:
    """Who asks, by key; None if none is given. Raises WrongKey, and KeyTooSmall where the key's scope is.

    A user whose key is not for everything is no administrator in this request, wherever that is asked.
    """
    key = key_of(request)
    if key is None:
        return None
    token = _valid_token(key)
    if token is None:
        getattr(request, "scope", {})[WRONG_KEY] = True
        raise WrongKey
    caller = Caller(token.user, token.scope, token)
    if not (request.method in READING or caller.may(Scope.WRITE)):
        raise KeyTooSmall(Scope.WRITE)
    if not caller.may(Scope.ADMIN):
        # In this object alone: nothing saves a request's user.
        token.user.is_staff = token.user.is_superuser = False
    return caller


async def user_asking(request: HttpRequest) -> AnyUser | None:
    """Whose request this is, by key or else by session; None if a key is given that does not work.

    Raises KeyTooSmall, which Django answers with 403.
    """
    try:
        caller = await sync_to_async(caller_by_key)(request)
    except WrongKey:
        return None
    return await request.auser() if caller is None else caller.user


# ------------------------------------------------------------------ nobody in particular


def _anonymous_caller(request: HttpRequest) -> Caller | None:
    """The caller for whom no key is asked for; None where one is."""
    if not (settings.LEGACY_ANONYMOUS and MAY_BE_ANONYMOUS.fullmatch(request.path) and client_address.is_near(request)):
        return None
    if _is_of_a_page(request):
        return None
    user = _anonymous_user()
    return None if user is None else Caller(user, Scope.WRITE)


def _is_of_a_page(request: HttpRequest) -> bool:
    """Whether a page in a browser sends this: one from elsewhere must not speak with the neighbours' server.

    A program sends neither header; a browser sends the first with every POST.
    """
    return "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none"


def _anonymous_user() -> AbstractBaseUser | None:
    """The built-in user, made when first needed; None if a person has that name, or it was switched off."""
    user, _is_new = get_user_model().objects.get_or_create(
        username=ANONYMOUS, defaults={"password": make_password(None)}
    )
    is_person = user.has_usable_password() or user.is_staff or user.is_superuser
    return user if user.is_active and not is_person else None


# ------------------------------------------------------------------ Django REST framework


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Token …`, `Authorization: Bearer …` or `X-API-Key: …`; `request.auth` is the Caller."""

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, Caller] | None:
        try:
            # Here, and not in a permission, which a view may replace: no view forgets to ask what a key may.
            caller = caller_by_key(cast(HttpRequest, request))
        except WrongKey as wrong:
            raise AuthenticationFailed(str(wrong)) from wrong
        except KeyTooSmall as too_small:
            raise PermissionDenied(str(too_small)) from too_small
        return None if caller is None else (caller.user, caller)

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE


class IsWhole(BasePermission):
    """Who is signed in, or has a key for everything."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if isinstance(request.auth, Caller) and not request.auth.may(Scope.ADMIN):
            raise PermissionDenied(is_no_administrators())
        return bool(request.user and request.user.is_authenticated)


class IsAdministrator(BasePermission):
    """An administrator who is signed in, or has a key for everything."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if not (request.user and request.user.is_authenticated):
            return False
        if isinstance(request.auth, Caller) and not request.auth.may(Scope.ADMIN):
            raise PermissionDenied(_("Only an administrator may do this, with a key that may do everything."))
        if not getattr(request.user, "is_staff", False):
            raise PermissionDenied(_("Only an administrator may do this."))
        return True
