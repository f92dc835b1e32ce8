"""Refuses requests with a NUL character, which PostgreSQL cannot store: a query with one raises an error.

Bodies are not checked: the fields of forms and serializers refuse NUL, and it is removed from a file's name.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils import translation
from django.utils.decorators import sync_and_async_middleware
from django.utils.translation import gettext as _

from transcription.api.errors import refuse

GetResponse = Callable[[HttpRequest], Any]


@sync_and_async_middleware
def refuse_nul(get_response: GetResponse) -> GetResponse:
    """Answer 400 to a NUL in the address, in a header, or in a cookie, whose quoted form can hold one."""

    async def answer_async(request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = _refusal(request) if has_nul(request) else await get_response(request)
        return response

    def answer(request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        response: HttpResponseBase = _refusal(request) if has_nul(request) else get_response(request)
        return response

    return answer_async if iscoroutinefunction(get_response) else answer


def has_nul(request: HttpRequest) -> bool:
    headers = (value for name, value in request.META.items() if name.startswith("HTTP_"))
    query = request.META.get("QUERY_STRING", "")
    return "%00" in query or any("\0" in text for text in (request.path, query, *headers, *request.COOKIES.values()))


def _refusal(request: HttpRequest) -> HttpResponse:
    with translation.override(translation.get_language_from_request(request)):
        return refuse(request.path_info, 400, _("The request has a NUL character. Send it without."))
