"""Who makes a request, and what they may do; every endpoint uses this, and so does the gate.

A caller shows an API key in a header (at /asr also in the address), or at the native API the session of the dashboard.
With LEGACY_ANONYMOUS the endpoints whose clients know no keys need neither.
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
from rest_framework import authentication
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from transcription.api import client_address, own_address
from transcription.models import AnyUser, ApiToken

Scope = ApiToken.Scope

CHALLENGE = 'Token realm="stenograf"'
SCHEMES = ("token", "bearer")
READING = ("GET", "HEAD", "OPTIONS")
# Otherwise a client that polls would write to the database with each request.
LAST_USE_IS_KEPT_FOR = timedelta(minutes=5)

# Most clients of this endpoint can send no header.
TAKES_KEY_IN_ADDRESS = re.compile(r"/(asr|detect-language)/?")
# The endpoints whose clients may know no keys: the compatibility API's, but not /keys/reload, and /asr.
MAY_BE_ANONYMOUS = re.compile(
    r"/(transcribe|models|(job|files)/.+|api/(transcribe|queue|gpus|model_status|logs|status/.+)|asr|detect-language)/?"
)
ANONYMOUS = "anonymous"

# Set in the ASGI scope of a request whose key is wrong: the gate delays its answer, without holding a thread.
WRONG_KEY = "stenograf.wrong_key"


@dataclass(frozen=True)
class Caller:
    """The user whose rows a request sees, and the key that it showed."""

    user: AbstractBaseUser
    scope: str = Scope.ADMIN
    token: ApiToken | None = None  # None for the anonymous caller

    def may(self, scope: Scope) -> bool:
        """Whether the caller's scope includes another one."""
        order = list(Scope)
        # A scope that another version stored counts as the smallest of ours.
        own = Scope(self.scope) if self.scope in Scope else Scope.READ
        return order.index(own) >= order.index(scope)


# ------------------------------------------------------------------ refusals


class NotAdmitted(Exception):
    """A caller who is not authenticated, or whose key may not do this; its text is a sentence for them."""


class NoKey(NotAdmitted):
    def __init__(self) -> None:
        super().__init__(_("Send your key in the header X-API-Key, or as Authorization: Bearer."))


class WrongKey(NotAdmitted):
    def __init__(self) -> None:
        super().__init__(_("This key is unknown or no longer works. Make a new one, or ask the administrator."))


class KeyTooSmall(NotAdmitted, Forbidden):
    """The key's scope is too small. Where no view catches it, Django answers 403 in the shape of the endpoint."""

    def __init__(self, needed: Scope) -> None:
        if needed == Scope.WRITE:
            super().__init__(_("This key may only read. Send one that may read and write: the page Keys makes it."))
        else:
            super().__init__(_("This needs a key that may do everything its user may. The page Keys makes it."))


# ------------------------------------------------------------------ the key


def key_in(headers: Mapping[str, str]) -> str | None:
    """The key in a request's headers, or None. An empty one after `Token` or `Bearer` counts as a key.

    Other schemes are ignored: a proxy may have a `Basic` password of its own.
    """
    scheme, _space, key = headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() in SCHEMES:
        return key.strip()
    key = headers.get("X-API-Key", "").strip()
    return key or None


def key_of(request: HttpRequest) -> str | None:
    """The key in a request, wherever its endpoint accepts one, or None."""
    key = key_in(request.headers)
    if key is None and TAKES_KEY_IN_ADDRESS.fullmatch(request.path_info):
        key = request.GET.get("token", "").strip() or _key_before_host(request.headers)
    return key


def _key_before_host(headers: Mapping[str, str]) -> str | None:
    """The key in an address `http://key:KEY@host`, which a client sends as the password of the user `key`."""
    scheme, _space, credentials = headers.get("Authorization", "").strip().partition(" ")
    try:
        name, _colon, key = b64decode(credentials, validate=True).decode().partition(":")
    except ValueError:  # not Base64, or not UTF-8
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


# ------------------------------------------------------------------ the caller


def caller_of(request: HttpRequest) -> Caller:
    """The caller at an endpoint without sessions. Raises NoKey, WrongKey and KeyTooSmall."""
    caller = caller_by_key(request) or _anonymous_caller(request)
    if caller is None:
        raise NoKey
    return caller


def caller_by_key(request: HttpRequest) -> Caller | None:
    """The caller whose key the request has; None if it has none. Raises WrongKey and KeyTooSmall.

    Unless the key's scope is ADMIN, its user does not count as an administrator for the whole request.
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
        # Only in memory: nothing saves a request's user.
        token.user.is_staff = token.user.is_superuser = False
    return caller


async def user_by_key_or_session(request: HttpRequest) -> AnyUser:
    """The user of a request, by key or else by session. Raises NoKey, WrongKey and KeyTooSmall."""
    caller = await sync_to_async(caller_by_key)(request)
    user = await request.auser() if caller is None else caller.user
    if not user.is_authenticated:
        raise NoKey
    return user


# ------------------------------------------------------------------ LEGACY_ANONYMOUS


def _anonymous_caller(request: HttpRequest) -> Caller | None:
    """The caller of a request that needs no key; None if it needs one."""
    is_open = settings.LEGACY_ANONYMOUS and MAY_BE_ANONYMOUS.fullmatch(request.path_info)
    if not is_open or not client_address.is_near(request) or _is_from_a_page(request):
        return None
    user, _is_new = get_user_model().objects.get_or_create(
        username=ANONYMOUS, defaults={"password": make_password(None)}
    )
    is_person = user.has_usable_password() or user.is_staff or user.is_superuser
    # An administrator may have switched the built-in user off, or given its name to a person.
    return Caller(user, Scope.WRITE) if user.is_active and not is_person else None


def _is_from_a_page(request: HttpRequest) -> bool:
    """Whether a page in a browser sends this: pages of other sites must not use a server in the private network.

    Programs send neither header; a browser sends Origin with every POST.
    """
    return "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none"


# ------------------------------------------------------------------ Django REST framework


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Token …`, `Authorization: Bearer …` or `X-API-Key: …`; `request.auth` is the Caller."""

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, Caller] | None:
        try:
            # The scope is checked here and not in a permission, which a view could replace.
            caller = caller_by_key(cast(HttpRequest, request))
        except WrongKey as error:
            raise AuthenticationFailed(str(error)) from error
        except KeyTooSmall as error:
            raise PermissionDenied(str(error)) from error
        return None if caller is None else (caller.user, caller)

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE


class SessionAuthentication(authentication.SessionAuthentication):
    """The dashboard's session, which needs its CSRF token."""

    def enforce_csrf(self, request: Request) -> None:
        try:
            super().enforce_csrf(request)
        except PermissionDenied as error:
            if sentence := own_address.wrong_origin(cast(HttpRequest, request)):
                raise PermissionDenied(sentence) from error
            raise


class HasFullAccess(BasePermission):
    """Allows whoever is signed in, or shows a key whose scope is ADMIN."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if isinstance(request.auth, Caller) and not request.auth.may(Scope.ADMIN):
            raise PermissionDenied(str(KeyTooSmall(Scope.ADMIN)))
        return bool(request.user and request.user.is_authenticated)


class IsAdministrator(BasePermission):
    """Allows an administrator who is signed in, or shows a key whose scope is ADMIN."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if not (request.user and request.user.is_authenticated):
            return False
        if isinstance(request.auth, Caller) and not request.auth.may(Scope.ADMIN):
            raise PermissionDenied(_("Only an administrator may do this, with a key that may do everything."))
        if not getattr(request.user, "is_staff", False):
            raise PermissionDenied(_("Only an administrator may do this."))
        return True
