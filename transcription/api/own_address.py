"""The address that people open this server at: links to it, and what to set where a proxy makes it another one."""

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import signing
from django.http import HttpRequest
from django.utils.translation import gettext as _

from transcription import proxies
from transcription.api import client_address

LONGEST_ORIGIN = 255


def absolute(request: HttpRequest, path: str) -> str:
    """The whole address of a path, which has the prefix: by PUBLIC_URL, or else as the request came."""
    return f"{settings.PUBLIC_ADDRESS.origin}{path}" if settings.PUBLIC_ADDRESS else request.build_absolute_uri(path)


def wrong_origin(request: HttpRequest) -> str:
    """What to set where a form is refused because its page has another address than this server; else empty."""
    sent_from = request.headers.get("Origin", "")
    own = f"{request.scheme}://{request.get_host()}"
    if sent_from in ("", "null", own, *settings.CSRF_TRUSTED_ORIGINS) or len(sent_from) > LONGEST_ORIGIN:
        return ""
    public, peer = settings.PUBLIC_ADDRESS, str(request.META.get("REMOTE_ADDR", ""))
    said = proxies.read(request.headers)
    told = f"{said.scheme or request.scheme}://{said.host or request.get_host()}"
    if told == sent_from and not settings.TRUSTED_PROXIES.has(peer):
        return _unknown_proxy(peer)
    values = {"origin": sent_from, "own": public.url if public else own}
    if public and _name_in(sent_from) == public.host:
        return _("You opened %(origin)s, but by PUBLIC_URL this server's address is %(own)s: open that one.") % values
    message = _(
        "This was sent from a page at %(origin)s, and this server takes its own address to be %(own)s. If you opened "
        "%(origin)s yourself, ask the administrator to set PUBLIC_URL to it and to start the server anew."
    )
    return message % values


def _unknown_proxy(peer: str) -> str:
    message = _(
        "This came through a proxy at %(address)s that this server does not know. Ask the administrator to add "
        "%(address)s to TRUSTED_PROXIES, or to set PUBLIC_URL, and to start the server anew."
    )
    return message % {"address": peer}


def _name_in(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""


def seen(request: HttpRequest) -> dict[str, Any] | None:
    """How a request looks from here, for `manage.py doctor` of this installation; None for everybody else."""
    try:
        signing.loads(request.headers.get(proxies.DOCTOR, ""), salt=proxies.DOCTOR, max_age=60)
    except signing.BadSignature:
        return None
    peer = str(request.META.get("REMOTE_ADDR", ""))
    return {
        "scheme": request.scheme,
        "host": request.get_host(),
        "client": client_address.address_of(request),
        "proxy": peer,
        "is_proxy_known": settings.TRUSTED_PROXIES.has(peer),
        "has_passed_a_proxy": any(sign in request.headers for sign in proxies.SIGNS),
    }
