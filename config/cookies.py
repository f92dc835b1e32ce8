"""Keeps each cookie to this server's own address: below its path, and on HTTPS where the request came by it."""

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

GetResponse = Callable[[HttpRequest], Any]


@sync_and_async_middleware
def keep_to_our_address(get_response: GetResponse) -> GetResponse:
    """Not by Django's settings: one has no path for messages, and a server may be asked by HTTP too, in its network."""

    async def answer_async(request: HttpRequest) -> HttpResponseBase:
        return _with_kept_cookies(request, await get_response(request))

    def answer(request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        return _with_kept_cookies(request, get_response(request))

    return answer_async if iscoroutinefunction(get_response) else answer


def _with_kept_cookies(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    for cookie in response.cookies.values():
        cookie["path"] = f"{settings.FORCE_SCRIPT_NAME or ''}/"
        if request.is_secure():
            cookie["secure"] = True
    return response
