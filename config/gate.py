"""What stands before Django: a request is turned away here before a byte of its body is written anywhere.

Django's ASGI handler takes the whole body in before any middleware runs, so Host, size, credentials, space and pace are
checked in front of it. A refusal is a sentence in the shape of the door that was knocked at.
"""

import asyncio
import errno
import io
import re
import shutil
import threading
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import Any
from urllib.parse import quote

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.http import HttpResponse, HttpResponseRedirect
from django.http.request import split_domain_port, validate_host
from django.shortcuts import resolve_url
from django.utils import translation
from django.utils.translation import gettext as _

from transcription import errors, workers
from transcription.api.authentication import CHALLENGE, key_in, no_key, unknown_key, user_of
from transcription.api.errors import refuse, sentence
from transcription.models import AnyUser
from transcription.templatetags.stenograf import size

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

API_UPLOAD = re.compile(r"/api/v1/jobs/?")
OPENAI_UPLOAD = re.compile(r"/v1/audio/(transcriptions|translations)")
LEGACY_UPLOAD = re.compile(r"/transcribe/?")
PAGE_UPLOAD = re.compile(r"/")

SMALL_BODY = 1024**2
FORM_AROUND_A_FILE = 64 * 1024
SPACE_IS_CHECKED_EVERY = 16 * 1024**2
# Seconds without a byte of the body.
READ_DEADLINE = 60.0
# An answer that comes before the body's end is read only by a client that has somewhere to put the rest.
DRAINED_AT_MOST, DRAINING_SECONDS = 4 * 1024**2, 2.0
RETRY_AFTER_SECONDS = 10

GONE: Message = {"type": "http.disconnect"}


class Gate:
    """The ASGI application that lets through to Django's what may pass."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.uploads_under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            # Without its own context each request would wait for the one thread that all share.
            async with ThreadSensitiveContext():
                await self._take(scope, receive, send)
        else:
            await self.application(scope, receive, send)

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _request(scope)
        answer = _bad_request() if request is None else await self._objection(request)
        if answer is not None or request is None:
            await _answer_early(scope, receive, send, answer or _bad_request())
            return
        body = Body(self, request, receive)
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.application(scope, body.receive, watched)
        except OSError as error:
            if started or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            body.refused = body.say(_disk_full)
        finally:
            body.end()
        if body.refused is not None and not started:
            await _answer_early(scope, receive, send, body.refused)

    async def _objection(self, request: ASGIRequest) -> HttpResponse | None:
        """Why this request does not pass, or None. The cheap questions come first."""
        with translation.override(translation.get_language_from_request(request)):
            answer = _wrong_host(request) or _too_large(request, _declared_length(request))
            if answer is None and _is_upload(request):
                answer = await _stranger(request) or _no_space(request) or self._too_many(request)
            return answer

    def _too_many(self, request: ASGIRequest) -> HttpResponse | None:
        if self.uploads_under_way < settings.MAX_UPLOADS_AT_ONCE:
            return None
        said = _("Too many uploads are under way. Try again in %(seconds)s seconds.") % {"seconds": RETRY_AFTER_SECONDS}
        answer = refuse(request.path, 503, said)
        answer["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return answer


class Body:
    """A request's body on its way to Django: counted, timed, and cut off with a refusal when it misbehaves."""

    def __init__(self, gate: Gate, request: ASGIRequest, receive: Receive) -> None:
        self.gate = gate
        self.request = request
        self.receive_next = receive
        self.received = 0
        self.checked = 0
        self.is_complete = False
        self.refused: HttpResponse | None = None
        self.is_upload = _is_upload(request)
        gate.uploads_under_way += self.is_upload

    async def receive(self) -> Message:
        if self.is_complete:
            return await self.receive_next()  # Django listens for the client's leaving
        try:
            async with asyncio.timeout(READ_DEADLINE):
                message = await self.receive_next()
        except TimeoutError:
            message = GONE
            self.refused = self.say(_too_slow)
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self.refused = self.say(self._objection)
        if self.refused is not None or not message.get("more_body", False):
            self.end()
        return message if self.refused is None else GONE

    def end(self) -> None:
        """The body is in, or nobody waits for it any more: its place is free."""
        if not self.is_complete:
            self.is_complete = True
            self.gate.uploads_under_way -= self.is_upload

    def say(self, question: Callable[[ASGIRequest], HttpResponse | None]) -> HttpResponse | None:
        with translation.override(translation.get_language_from_request(self.request)):
            return question(self.request)

    def _objection(self, request: ASGIRequest) -> HttpResponse | None:
        too_large = _too_large(request, self.received)
        if too_large is not None or self.received - self.checked < SPACE_IS_CHECKED_EVERY:
            return too_large
        # Others may have filled the disk meanwhile, and a body in chunks did not say its length.
        self.checked = self.received
        return _no_space(request, expected=0)


# ------------------------------------------------------------------ the questions


def _request(scope: Scope) -> ASGIRequest | None:
    """The request without its body; None if its address is not UTF-8."""
    try:
        return ASGIRequest(scope, io.BytesIO())
    except UnicodeDecodeError:
        return None


def _bad_request() -> HttpResponse:
    return HttpResponse("The address is not UTF-8.", status=400, content_type="text/plain; charset=utf-8")


def _wrong_host(request: ASGIRequest) -> HttpResponse | None:
    address = str((request.scope.get("server") or ("localhost",))[0]).removeprefix("::ffff:")
    address = f"[{address}]" if ":" in address else address
    # Also the address that the request came in by: a page elsewhere can have its name point here, but not be here.
    domain, _port = split_domain_port(request.META.get("HTTP_HOST", address))
    if domain and validate_host(domain, [*settings.NAMES_SERVED, address]):
        return None
    said = _("This server does not know itself by this name. Add the name to ALLOWED_HOSTS to serve it.")
    return refuse(request.path, 400, said)


def _is_upload(request: ASGIRequest) -> bool:
    doors = (API_UPLOAD, OPENAI_UPLOAD, LEGACY_UPLOAD, PAGE_UPLOAD)
    return request.method == "POST" and any(door.fullmatch(request.path) for door in doors)


def _declared_length(request: ASGIRequest) -> int:
    """The body's length as the client says; 0 if it does not say (then it is counted)."""
    length = request.META.get("CONTENT_LENGTH", "")
    return int(length) if length.isdecimal() and len(length) < 20 else 0


def _too_large(request: ASGIRequest, length: int) -> HttpResponse | None:
    limit = settings.MAX_UPLOAD_BYTES + FORM_AROUND_A_FILE if _is_upload(request) else SMALL_BODY
    if length <= limit:
        return None
    if _is_upload(request):
        said = _("The file is over %(size)s. Split it, or ask the administrator to raise the limit.")
        return refuse(request.path, 413, said % {"size": size(settings.MAX_UPLOAD_BYTES)})
    said = _("This address takes at most %(size)s.")
    return refuse(request.path, 413, said % {"size": size(SMALL_BODY)})


async def _stranger(request: ASGIRequest) -> HttpResponse | None:
    """A refusal for whoever may not upload here: by key or session on the API, by key at the other programs' doors."""
    if await sync_to_async(_is_known)(request):
        return None
    if PAGE_UPLOAD.fullmatch(request.path):
        answer: HttpResponse = HttpResponseRedirect(f"{resolve_url(settings.LOGIN_URL)}?next={quote(request.path)}")
        answer.status_code = 303
        return answer
    has_key = key_in(request.headers) is not None
    if has_key and LEGACY_UPLOAD.fullmatch(request.path):
        return refuse(request.path, 403, unknown_key())
    answer = refuse(request.path, 401, unknown_key() if has_key else no_key())
    answer["WWW-Authenticate"] = CHALLENGE
    return answer


def _is_known(request: ASGIRequest) -> bool:
    user: AnyUser | None = None
    key = None if PAGE_UPLOAD.fullmatch(request.path) else key_in(request.headers)
    if key is not None:
        user = user_of(key)
    elif not (LEGACY_UPLOAD.fullmatch(request.path) or OPENAI_UPLOAD.fullmatch(request.path)):
        user = _user_of_session(request)
    if user is None:
        close_old_connections()  # Django, which does that after a request, does not see this one.
    return user is not None


def _user_of_session(request: ASGIRequest) -> AnyUser | None:
    """The active user who is signed in by the request's cookie, or None."""
    cookie = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if not cookie:
        return None
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(cookie)
    user = get_user(request)
    return user if user.is_authenticated and user.is_active else None


def _no_space(request: ASGIRequest, expected: int | None = None) -> HttpResponse | None:
    # Twice: the body as it comes, and the file that is taken out of it.
    needed = 2 * (_declared_length(request) if expected is None else expected) + settings.FREE_SPACE_RESERVE_BYTES
    settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(settings.DATA_DIR).free >= needed:
        return None
    return _disk_full(request)


def _disk_full(request: ASGIRequest) -> HttpResponse:
    return refuse(request.path, 507, sentence(errors.DiskFull()))


def _too_slow(request: ASGIRequest) -> HttpResponse:
    said = _("Nothing came for %(seconds)s seconds, so the upload was ended. Send it again.")
    return refuse(request.path, 408, said % {"seconds": int(READ_DEADLINE)})


# ------------------------------------------------------------------ answering before the end


async def _answer_early(scope: Scope, receive: Receive, send: Send, answer: HttpResponse) -> None:
    """Answer, then take a little of what the client is still sending, so that it gets to reading the answer."""
    answer["Connection"] = "close"
    answer["Content-Length"] = str(len(answer.content))
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.items()]
    await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": answer.content, "more_body": True})
    # Who asked whether to send at all has the answer by now and sends nothing.
    if (b"expect", b"100-continue") not in scope["headers"]:
        await _drain(receive)
    await send({"type": "http.response.body"})


async def _drain(receive: Receive) -> None:
    drained = 0
    try:
        async with asyncio.timeout(DRAINING_SECONDS):
            while drained < DRAINED_AT_MOST:
                message = await receive()
                drained += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


async def _live(receive: Receive, send: Send) -> None:
    """The server's start and stop: between them this process sweeps the queue."""
    stopping = threading.Event()
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            workers.keep_sweeping(stopping)
            await send({"type": "lifespan.startup.complete"})
        else:
            stopping.set()
            await send({"type": "lifespan.shutdown.complete"})
            return
