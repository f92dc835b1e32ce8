"""How each door says no: the API in DRF's shape, the founding documents' doors in theirs, the pages in a page."""

import logging
import re
import sys
import uuid

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext
from django.utils.translation import gettext as _
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt

from transcription.api.answers import Json
from transcription.errors import Problem

log = logging.getLogger(__name__)

IN_API = re.compile(r"/api(/|$)")
IN_LEGACY = re.compile(r"/(transcribe|job|models|health)(/|$)")


def sentence(problem: Problem) -> str:
    """The problem's sentence in the reader's language."""
    return gettext(problem.sentence) % problem.values


def answers_in_json(path: str) -> bool:
    return bool(IN_API.match(path) or IN_LEGACY.match(path))


def refuse(path: str, status: int, said: str, **more: object) -> HttpResponse:
    """An error answer in the shape of the door at `path`."""
    if IN_API.match(path):
        return Json({"detail": said, **more}, status=status)
    if IN_LEGACY.match(path):
        return Json({"error": said, **more}, status=status)
    return HttpResponse(said, status=status, content_type="text/plain; charset=utf-8")


@csrf_exempt
def unknown_address(request: HttpRequest) -> HttpResponse:
    return refuse(request.path, 404, _("There is nothing at this address."))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if answers_in_json(request.path):
        return refuse(request.path, 400, _("The request could not be read. Check its form and send it again."))
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    if answers_in_json(request.path):
        return refuse(request.path, 403, _("This is not allowed."))
    return defaults.permission_denied(request, exception)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if answers_in_json(request.path):
        return unknown_address(request)
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    if not answers_in_json(request.path):
        return defaults.server_error(request)
    request_id = uuid.uuid4().hex
    log.error("request %s: %s %s", request_id, request.method, request.path, exc_info=sys.exc_info())
    said = _("Something went wrong on our side. Try again; if it repeats, give the administrator the request id.")
    return refuse(request.path, 500, said, request_id=request_id)
