"""How each endpoint refuses: ours in DRF's shape, those of other programs in their own, the pages with a page."""

import logging
import re
import sys
import uuid

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt

from transcription import sentences
from transcription.api import own_address
from transcription.api.authentication import CHALLENGE, KeyTooSmall, NoKey, NotAdmitted, WrongKey
from transcription.api.responses import Json
from transcription.api.upload_handler import FileTooLarge
from transcription.errors import DiskFull, RetryLater

log = logging.getLogger(__name__)

IN_API = re.compile(r"/api(/|$)")
IN_OPENAI = re.compile(r"/v1(/|$)")
# Matched before IN_API: some of these addresses begin with /api too.
IN_LEGACY = re.compile(
    r"/(transcribe|job|models|health|files|keys/reload|api/(transcribe|status|queue|gpus|model_status|logs))(/|$)"
)
IN_ASR = re.compile(r"/(asr|detect-language)(/|$)")

# What OpenAI's service calls an error, by its status.
OPENAI_CODES = {
    401: "invalid_api_key",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "file_too_large",
    429: "rate_limit_exceeded",
    503: "overloaded",
    507: "disk_full",
}


def retry_later(path: str, problem: RetryLater) -> HttpResponse:
    """Refuse a request that may pass later, in the shape of the endpoint at `path`, with Retry-After if known."""
    status = 507 if isinstance(problem, DiskFull) else 429
    answer = refuse(path, status, sentences.describe(problem))
    if "seconds" in problem.values:
        answer["Retry-After"] = str(problem.values["seconds"])
    return answer


def answers_in_json(path: str) -> bool:
    return any(endpoint.match(path) for endpoint in (IN_API, IN_OPENAI, IN_LEGACY, IN_ASR))


def refuse(path: str, status: int, message: str, **more: object) -> HttpResponse:
    """An error answer in the shape of the endpoint at `path`."""
    if IN_LEGACY.match(path):
        return Json({"error": message, **more}, status=status)
    if IN_API.match(path) or IN_ASR.match(path):
        return Json({"detail": message, **more}, status=status)
    if IN_OPENAI.match(path):
        return Json(openai_body(status, message, **more), status=status)
    return HttpResponse(message, status=status, content_type="text/plain; charset=utf-8")


def turn_away(path: str, error: NotAdmitted) -> HttpResponse:
    """401 or 403, in the shape of the endpoint at `path`; the compatibility API answers a wrong key with 403."""
    is_compat = IN_LEGACY.match(path) or IN_ASR.match(path)
    if isinstance(error, NoKey) or (isinstance(error, WrongKey) and not is_compat):
        answer = refuse(path, 401, str(error))
        answer["WWW-Authenticate"] = CHALLENGE
        return answer
    return refuse(path, 403, str(error))


def wrong_method(path: str, allowed: str) -> HttpResponse:
    """405, in the shape of the endpoint at `path`, where only `allowed` works: one method, or `GET, HEAD`."""
    is_one = allowed != "GET, HEAD"
    message = _("Only %(method)s works here.") % {"method": allowed} if is_one else _("Only GET and HEAD work here.")
    answer = refuse(path, 405, message)
    answer["Allow"] = allowed
    return answer


def openai_body(
    status: int, message: str, param: object = None, code: object = None, **more: object
) -> dict[str, object]:
    """An error in the one shape that OpenAI's clients read; `param` is the field at fault."""
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    return {
        "error": {"message": message, "type": kind, "param": param, "code": code or OPENAI_CODES.get(status), **more}
    }


@csrf_exempt
def unknown_address(request: HttpRequest) -> HttpResponse:
    return refuse(request.path_info, 404, _("There is nothing at this address."))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if isinstance(exception, FileTooLarge):
        return refuse(request.path_info, 413, str(exception))
    if answers_in_json(request.path_info):
        return refuse(request.path_info, 400, _("The request could not be read. Check its form and send it again."))
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    if isinstance(exception, KeyTooSmall):
        return turn_away(request.path_info, exception)
    if answers_in_json(request.path_info):
        return refuse(request.path_info, 403, _("This is not allowed."))
    return defaults.permission_denied(request, exception)


def form_refused(request: HttpRequest, reason: str = "") -> HttpResponse:
    """The answer to a form without its CSRF token, or from a page that has another address than this server."""
    sentence = own_address.wrong_origin(request)
    if answers_in_json(request.path_info):
        return refuse(request.path_info, 403, sentence or _("This is not allowed."))
    return render(request, "403_csrf.html", {"sentence": sentence}, status=403)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if answers_in_json(request.path_info):
        return unknown_address(request)
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    if not answers_in_json(request.path_info):
        return defaults.server_error(request)
    request_id = uuid.uuid4().hex
    log.error("request %s: %s %s", request_id, request.method, request.path, exc_info=sys.exc_info())
    message = _("Something went wrong on our side. Try again; if it repeats, give the administrator the request id.")
    answer = refuse(request.path_info, 500, message, request_id=request_id)
    answer["X-Request-Id"] = request_id
    return answer
