"""The checks before Django: a request is refused here before any of its body is written to the disk.

Django's ASGI handler reads the whole body before any middleware runs, so the Host header, the body's size and pace, the
credentials and the disk's free space are checked in front of it. A refusal is a sentence in the shape of the endpoint.
"""

import asyncio
import contextlib
import errno
import io
import re
import threading
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import Any
from urllib.parse import quote

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from corsheaders.middleware import CorsMiddleware
from django.conf import settings
from django.contrib.auth import get_user
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import resolve_url
from django.urls import set_script_prefix
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from config.proxy import Scope, as_the_client_sent_it, is_served
from transcription import disk, errors, sentences
from transcription.api import client_address
from transcription.api.authentication import WRONG_KEY, NoKey, NotAdmitted, caller_by_key, caller_of
from transcription.api.compat import input_audio
from transcription.api.errors import IN_API, IN_LEGACY, refuse, retry_later, turn_away
from transcription.models import AnyUser
from transcription.queue import quotas
from transcription.templatetags.stenograf import size
from transcription.workers import process

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

API_UPLOAD = re.compile(r"/api/v1/(jobs|batches)/?")
CHUNKS = re.compile(r"/api/v1/uploads/([^/]+/)?")
OPENAI_UPLOAD = re.compile(r"/v1/audio/(transcriptions|translations)")
LEGACY_UPLOAD = re.compile(r"/((api/)?transcribe|asr|detect-language)/?")
PAGE_UPLOAD = re.compile(r"/")

SMALL_BODY = 1024**2
FORM_AROUND_A_FILE = 64 * 1024
SPACE_IS_CHECKED_EVERY = 16 * 1024**2
# The most seconds without a byte of the body.
READ_DEADLINE = 60.0
# Most clients read an early answer only after they have sent the rest of their body: so much of it is read.
DRAINED_AT_MOST, DRAINING_SECONDS = 4 * 1024**2, 2.0
RETRY_AFTER_SECONDS = 10

# Django's requests pass the same middleware; a page may read a refusal of the gate too.
CORS = CorsMiddleware(lambda _request: HttpResponse())

DISCONNECT: Message = {"type": "http.disconnect"}


class Gate:
    """The ASGI application, which passes acceptable requests on to Django's."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.uploads_under_way = 0
        self.key_throttle = client_address.KeyThrottle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            scope = as_the_client_sent_it(scope)
            held: list[Message] = []  # Django's answer to a wrong key

            async def hold_or_send(message: Message) -> None:
                if WRONG_KEY in scope:
                    held.append(message)
                else:
                    await send(message)

            # Without its own context each request would wait for the one thread that all share.
            async with ThreadSensitiveContext():
                refusal = await self._pass_on(scope, receive, hold_or_send)
            # From here on the request holds no thread.
            if WRONG_KEY in scope:
                refusal = await self._slow_down(ASGIRequest(scope, io.BytesIO())) or refusal
            if refusal is not None:
                with contextlib.suppress(UnicodeDecodeError):
                    CORS.add_response_headers(ASGIRequest(scope, io.BytesIO()), refusal)
                await _answer_early(scope, receive, send, refusal, is_body_read=bool(held))
            else:
                for message in held:
                    await send(message)
        else:
            await self.application(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> HttpResponse | None:
        """Have Django answer the request; return the refusal to send instead, if any."""
        try:
            request = ASGIRequest(scope, io.BytesIO())
        except UnicodeDecodeError:
            return HttpResponse("The address is not UTF-8.", status=400, content_type="text/plain; charset=utf-8")
        if (refusal := await self._refusal(request)) is not None:
            return refusal
        body = Body(self, request, receive)
        has_started = False

        async def note_and_send(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self.application(scope, body.receive, note_and_send)
        except OSError as error:
            if has_started or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            body.refusal = body.ask(_disk_full)
        finally:
            body.end()
        return None if has_started else body.refusal

    async def _slow_down(self, request: ASGIRequest) -> HttpResponse | None:
        """Delay the answer to a wrong key, longer with each; return the refusal after too many of them.

        A request with a valid key never comes here, so nobody is locked out by others at the same address.
        """
        address = client_address.address_of(request)
        seconds = self.key_throttle.another(address)
        if not seconds:
            await asyncio.sleep(self.key_throttle.pause(address))
            return None
        with translation.override(translation.get_language_from_request(request)):
            message = _("Too many wrong keys came from your address. Send one that works, or wait %(seconds)s seconds.")
            answer = refuse(request.path_info, 429, message % {"seconds": seconds})
        answer["Retry-After"] = str(seconds)
        return answer

    async def _refusal(self, request: ASGIRequest) -> HttpResponse | None:
        """The refusal of a request, or None. The cheap checks come first."""
        with translation.override(translation.get_language_from_request(request)):
            refusal = _wrong_host(request) or _too_large(request, _declared_length(request))
            if refusal is None and _is_upload(request):
                refusal = await _not_admitted(request) or _no_space(request) or self._too_many(request)
            return refusal

    def _too_many(self, request: ASGIRequest) -> HttpResponse | None:
        if self.uploads_under_way < settings.MAX_UPLOADS_AT_ONCE:
            return None
        message = _("Too many uploads are under way. Try again in %(seconds)s seconds.") % {
            "seconds": RETRY_AFTER_SECONDS
        }
        answer = refuse(request.path_info, 503, message)
        answer["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return answer


class Body:
    """A request's body on its way to Django, with its size and pace checked.

    When a check fails, `refusal` is set and Django sees a disconnect.
    """

    def __init__(self, gate: Gate, request: ASGIRequest, receive: Receive) -> None:
        self.gate = gate
        self.request = request
        self.receive_next = receive
        self.received = 0
        self.checked = 0
        self.is_complete = False
        self.refusal: HttpResponse | None = None
        self.is_upload = _is_upload(request)
        gate.uploads_under_way += self.is_upload

    async def receive(self) -> Message:
        if self.is_complete:
            return await self.receive_next()  # Django waits for the client's disconnect
        try:
            async with asyncio.timeout(READ_DEADLINE):
                message = await self.receive_next()
        except TimeoutError:
            message = DISCONNECT
            self.refusal = self.ask(_too_slow)
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self.refusal = self.ask(self._too_large_or_no_space)
        if self.refusal is not None or not message.get("more_body", False):
            self.end()
        return message if self.refusal is None else DISCONNECT

    def end(self) -> None:
        """Count the upload as ended: its body is complete, or nothing waits for it any more."""
        if not self.is_complete:
            self.is_complete = True
            self.gate.uploads_under_way -= self.is_upload

    def ask(self, check: Callable[[ASGIRequest], HttpResponse | None]) -> HttpResponse | None:
        """The result of a check, in the request's language."""
        with translation.override(translation.get_language_from_request(self.request)):
            return check(self.request)

    def _too_large_or_no_space(self, request: ASGIRequest) -> HttpResponse | None:
        too_large = _too_large(request, self.received)
        if too_large is not None or self.received - self.checked < SPACE_IS_CHECKED_EVERY:
            return too_large
        # Others may have filled the disk meanwhile, and a chunked body did not declare its length.
        self.checked = self.received
        return _no_space(request, expected=0)


# ------------------------------------------------------------------ the checks, each a refusal or None


def _wrong_host(request: ASGIRequest) -> HttpResponse | None:
    # Another site's page can only point a name of its own here.
    if is_served(request.scope, request.META.get("HTTP_HOST")):
        return None
    message = _(
        "This server does not know itself by this name. Set PUBLIC_URL to its address, or add the name to "
        "ALLOWED_HOSTS."
    )
    return refuse(request.path_info, 400, message)


def _is_upload(request: ASGIRequest) -> bool:
    endpoints = (API_UPLOAD, OPENAI_UPLOAD, LEGACY_UPLOAD, PAGE_UPLOAD)
    is_whole_file = request.method == "POST" and any(endpoint.fullmatch(request.path_info) for endpoint in endpoints)
    return is_whole_file or _is_chunk(request)


def _is_chunk(request: ASGIRequest) -> bool:
    """Whether it is a chunk of an upload, or begins an upload, possibly with the first chunk."""
    return request.method in ("POST", "PATCH") and CHUNKS.fullmatch(request.path_info) is not None


def _declared_length(request: ASGIRequest) -> int:
    """The body's length that the client declares; 0 if it does not, and the bytes are counted as they come."""
    return _number(request.META.get("CONTENT_LENGTH", ""))


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def _too_large(request: ASGIRequest, length: int) -> HttpResponse | None:
    if _is_chunk(request):
        limit = most = settings.UPLOAD_CHUNK_BYTES
        message = gettext_noop(
            "A chunk of an upload has at most %(size)s. Have your client send chunks of %(bytes)s bytes."
        )
    elif OPENAI_UPLOAD.fullmatch(request.path_info) and input_audio.is_json(request):
        return refuse(request.path_info, 413, input_audio.too_long()) if length > input_audio.LONGEST_BODY else None
    elif _is_upload(request):
        limit, most = settings.MAX_UPLOAD_BYTES, settings.MAX_UPLOAD_BYTES + FORM_AROUND_A_FILE
        message = gettext_noop("The file is over %(size)s. Split it, or ask the administrator to raise the limit.")
    else:
        limit = most = SMALL_BODY
        message = gettext_noop("This address takes at most %(size)s.")
    if length <= most:
        return None
    return refuse(request.path_info, 413, _(message) % {"size": size(limit), "bytes": limit})


async def _not_admitted(request: ASGIRequest) -> HttpResponse | None:
    """The refusal of a caller who may not upload here (by key or session on the API, by key elsewhere), or not now."""
    try:
        await sync_to_async(_admit)(request)
    except errors.RetryLater as problem:
        return retry_later(request.path_info, problem)
    except NotAdmitted as error:
        if not PAGE_UPLOAD.fullmatch(request.path_info):
            return turn_away(request.path_info, error)
        set_script_prefix(settings.FORCE_SCRIPT_NAME or "/")  # Django does this for the requests that it sees
        login: HttpResponse = HttpResponseRedirect(f"{resolve_url(settings.LOGIN_URL)}?next={quote(request.path)}")
        login.status_code = 303
        return login
    return None


def _admit(request: ASGIRequest) -> None:
    """Raises NotAdmitted, QueueFull, UploadsThrottled."""
    try:
        user = _uploading_user(request)
        if _makes_a_job(request):
            quotas.check_queue(user)
            quotas.check_uploads(user)
    finally:
        close_old_connections()  # Django does this after a request, but may never see this one


def _uploading_user(request: ASGIRequest) -> AnyUser:
    """The user who uploads. Raises NotAdmitted."""
    is_page = PAGE_UPLOAD.fullmatch(request.path_info)
    if not is_page and (IN_LEGACY.match(request.path_info) or not IN_API.match(request.path_info)):
        return caller_of(request).user
    caller = None if is_page else caller_by_key(request)
    user = _user_of_session(request) if caller is None else caller.user
    if user is None:
        raise NoKey
    return user


def _makes_a_job(request: ASGIRequest) -> bool:
    """Whether an upload makes a job that counts against the quotas, as far as its headers show.

    A request that may be a repetition passes: if it is, its job exists already.
    """
    may_join = OPENAI_UPLOAD.fullmatch(request.path_info) or "Idempotency-Key" in request.headers
    return request.method == "POST" and not may_join and not PAGE_UPLOAD.fullmatch(request.path_info)


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
    """The bytes that a request needs on the disk, as far as its headers show."""
    if _is_chunk(request):
        # A chunk is held in memory and written once. A request that begins an upload declares its full length.
        return max(_declared_length(request), _number(request.headers.get("Upload-Length", "")))
    return 2 * _declared_length(request)  # for the body, and for the file that is taken out of it


def _disk_full(request: ASGIRequest) -> HttpResponse:
    return refuse(request.path_info, 507, sentences.describe(errors.DiskFull()))


def _too_slow(request: ASGIRequest) -> HttpResponse:
    message = _("Nothing came for %(seconds)s seconds, so the upload was ended. Send it again.")
    return refuse(request.path_info, 408, message % {"seconds": int(READ_DEADLINE)})


# ------------------------------------------------------------------ answers before the body's end


async def _answer_early(
    scope: Scope, receive: Receive, send: Send, answer: HttpResponse, *, is_body_read: bool
) -> None:
    """Answer, then read a little of what the client is still sending, so that it goes on to read the answer."""
    answer["Connection"] = "close"
    answer["Content-Length"] = str(len(answer.content))
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.items()]
    await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": answer.content, "more_body": True})
    # A client with `Expect: 100-continue` has the answer by now and sends no body, unless the answer was delayed.
    waits_to_send = (b"expect", b"100-continue") in scope["headers"] and WRONG_KEY not in scope
    if not (is_body_read or waits_to_send):
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
    """Handle the server's start and stop; between them this process sweeps the queue."""
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
