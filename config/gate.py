"""What stands before Django: a request is turned away here before a byte of its body is written anywhere.

Django's ASGI handler takes the whole body in before any middleware runs, so Host, size, credentials, space and pace are
checked in front of it. A refusal is a sentence in the shape of the endpoint that was asked.
"""

import asyncio
import errno
import io
import re
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

from transcription import disk, errors, sentences
from transcription.api import client_address
from transcription.api.authentication import WRONG_KEY, NoKey, NotAdmitted, caller_by_key, caller_of
from transcription.api.errors import IN_API, IN_LEGACY, refuse, retry_later, turn_away
from transcription.models import AnyUser
from transcription.queue import quotas
from transcription.templatetags.stenograf import size
from transcription.workers import process

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

API_UPLOAD = re.compile(r"/api/v1/(jobs|batches)/?")
PIECES = re.compile(r"/api/v1/uploads/([^/]+/)?")
OPENAI_UPLOAD = re.compile(r"/v1/audio/(transcriptions|translations)")
LEGACY_UPLOAD = re.compile(r"/((api/)?transcribe|asr|detect-language)/?")
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
        self.key_throttle = client_address.KeyThrottle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            held: list[Message] = []
            # Without its own context each request would wait for the one thread that all share.
            async with ThreadSensitiveContext():
                refused = await self._take(scope, receive, _holding_what_a_wrong_key_gets(scope, held, send))
            # From here on it holds no thread.
            if WRONG_KEY in scope:
                refused = await self._slow_down(ASGIRequest(scope, io.BytesIO())) or refused
            if refused is not None:
                await _answer_early(scope, receive, send, refused, is_all_taken=bool(held))
            else:
                for message in held:
                    await send(message)
        else:
            await self.application(scope, receive, send)

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> HttpResponse | None:
        """Have the request answered; return the refusal that it is to get instead, if any."""
        request = _request(scope)
        if request is None:
            return _bad_request()
        if (answer := await self._objection(request)) is not None:
            return answer
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
        return None if started else body.refused

    async def _slow_down(self, request: ASGIRequest) -> HttpResponse | None:
        """Let who showed a wrong key wait, longer with each; return what is said to who showed too many.

        A right key never comes here, so nobody is shut out by another at the same address.
        """
        address = client_address.address_of(request)
        seconds = self.key_throttle.another(address)
        if not seconds:
            await asyncio.sleep(self.key_throttle.pause(address))
            return None
        with translation.override(translation.get_language_from_request(request)):
            message = _("Too many wrong keys came from your address. Send one that works, or wait %(seconds)s seconds.")
            answer = refuse(request.path, 429, message % {"seconds": seconds})
        answer["Retry-After"] = str(seconds)
        return answer

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
        message = _("Too many uploads are under way. Try again in %(seconds)s seconds.") % {
            "seconds": RETRY_AFTER_SECONDS
        }
        answer = refuse(request.path, 503, message)
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
    message = _("This server does not know itself by this name. Add the name to ALLOWED_HOSTS to serve it.")
    return refuse(request.path, 400, message)


def _is_upload(request: ASGIRequest) -> bool:
    endpoints = (API_UPLOAD, OPENAI_UPLOAD, LEGACY_UPLOAD, PAGE_UPLOAD)
    is_whole = request.method == "POST" and any(endpoint.fullmatch(request.path) for endpoint in endpoints)
    return is_whole or _is_chunk(request)


def _is_chunk(request: ASGIRequest) -> bool:
    """A chunk of an upload, or the beginning of one, which may bring its first chunk."""
    return request.method in ("POST", "PATCH") and PIECES.fullmatch(request.path) is not None


def _declared_length(request: ASGIRequest) -> int:
    """The body's length as the client says; 0 if it does not say (then it is counted)."""
    return _number(request.META.get("CONTENT_LENGTH", ""))


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def _too_large(request: ASGIRequest, length: int) -> HttpResponse | None:
    if _is_chunk(request):
        return _too_large_a_chunk(request) if length > settings.UPLOAD_CHUNK_BYTES else None
    limit = settings.MAX_UPLOAD_BYTES + FORM_AROUND_A_FILE if _is_upload(request) else SMALL_BODY
    if length <= limit:
        return None
    if _is_upload(request):
        message = _("The file is over %(size)s. Split it, or ask the administrator to raise the limit.")
        return refuse(request.path, 413, message % {"size": size(settings.MAX_UPLOAD_BYTES)})
    message = _("This address takes at most %(size)s.")
    return refuse(request.path, 413, message % {"size": size(SMALL_BODY)})


def _too_large_a_chunk(request: ASGIRequest) -> HttpResponse:
    message = _("A piece of an upload has at most %(size)s. Have your client send pieces of %(bytes)s bytes.")
    most = settings.UPLOAD_CHUNK_BYTES
    return refuse(request.path, 413, message % {"size": size(most), "bytes": most})


async def _stranger(request: ASGIRequest) -> HttpResponse | None:
    """A refusal for whoever may not upload here (by key or session on the API, by key elsewhere), or not now."""
    try:
        await sync_to_async(_admit)(request)
    except errors.RetryLater as problem:
        return retry_later(request.path, problem)
    except NotAdmitted as stranger:
        is_page = PAGE_UPLOAD.fullmatch(request.path)
        return _to_sign_in(request) if is_page else turn_away(request.path, stranger)
    return None


def _to_sign_in(request: ASGIRequest) -> HttpResponse:
    answer: HttpResponse = HttpResponseRedirect(f"{resolve_url(settings.LOGIN_URL)}?next={quote(request.path)}")
    answer.status_code = 303
    return answer


def _admit(request: ASGIRequest) -> None:
    """Raises NotAdmitted, QueueFull, UploadsThrottled."""
    try:
        user = _uploading(request)
        if _begins_something(request):
            quotas.check_queue(user)
            quotas.check_uploads(user)
    finally:
        close_old_connections()  # Django, which does that after a request, may never see this one


def _uploading(request: ASGIRequest) -> AnyUser:
    """Whose upload it is. Raises NotAdmitted."""
    is_page = PAGE_UPLOAD.fullmatch(request.path)
    if not is_page and (IN_LEGACY.match(request.path) or not IN_API.match(request.path)):
        return caller_of(request).user
    caller = None if is_page else caller_by_key(request)
    user = _user_of_session(request) if caller is None else caller.user
    if user is None:
        raise NoKey
    return user


def _begins_something(request: ASGIRequest) -> bool:
    """Whether an upload makes a job that would count, as far as can be seen before it is taken in.

    One that may be another's repetition is taken: its job is there already.
    """
    may_join = OPENAI_UPLOAD.fullmatch(request.path) or "Idempotency-Key" in request.headers
    return request.method == "POST" and not may_join and not PAGE_UPLOAD.fullmatch(request.path)


def _user_of_session(request: ASGIRequest) -> AnyUser | None:
    """The active user who is signed in by the request's cookie, or None."""
    cookie = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if not cookie:
        return None
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(cookie)
    user = get_user(request)
    return user if user.is_authenticated and user.is_active else None


def _no_space(request: ASGIRequest, expected: int | None = None) -> HttpResponse | None:
    reserve = settings.FREE_SPACE_RESERVE_BYTES
    needed = reserve + (_space_for(request) if expected is None else expected)
    has_space = disk.free_bytes(settings.DATA_DIR) >= reserve and all(
        disk.free_bytes(folder) >= needed for folder in (settings.UPLOADS_DIR, settings.RECORDINGS_DIR)
    )
    return None if has_space else _disk_full(request)


def _space_for(request: ASGIRequest) -> int:
    if _is_chunk(request):
        # It is taken in memory and written once; who begins an upload says how long it will be.
        return max(_declared_length(request), _number(request.headers.get("Upload-Length", "")))
    return 2 * _declared_length(request)  # the body as it comes, and the file that is taken out of it


def _disk_full(request: ASGIRequest) -> HttpResponse:
    return refuse(request.path, 507, sentences.describe(errors.DiskFull()))


def _too_slow(request: ASGIRequest) -> HttpResponse:
    message = _("Nothing came for %(seconds)s seconds, so the upload was ended. Send it again.")
    return refuse(request.path, 408, message % {"seconds": int(READ_DEADLINE)})


# ------------------------------------------------------------------ answering before the end, and later


def _holding_what_a_wrong_key_gets(scope: Scope, held: list[Message], send: Send) -> Send:
    async def hold_or_send(message: Message) -> None:
        if WRONG_KEY in scope:
            held.append(message)
        else:
            await send(message)

    return hold_or_send


async def _answer_early(
    scope: Scope, receive: Receive, send: Send, answer: HttpResponse, *, is_all_taken: bool
) -> None:
    """Answer, then take a little of what the client is still sending, so that it gets to reading the answer."""
    answer["Connection"] = "close"
    answer["Content-Length"] = str(len(answer.content))
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.items()]
    await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": answer.content, "more_body": True})
    # Who asked whether to send at all has the answer by now and sends nothing, unless it was made to wait.
    has_nothing_more = is_all_taken or ((b"expect", b"100-continue") in scope["headers"] and WRONG_KEY not in scope)
    if not has_nothing_more:
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
            process.keep_sweeping(stopping)
            await send({"type": "lifespan.startup.complete"})
        else:
            stopping.set()
            await send({"type": "lifespan.shutdown.complete"})
            return
