"""Static files reach the browser, from either kind of handler."""

import asyncio
from pathlib import Path

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from pytest_django import Settings

from config.static import StaticFilesMiddleware


@pytest.fixture
def style(tmp_path: Path, settings: Settings) -> bytes:
    settings.STATIC_ROOT = tmp_path
    (tmp_path / "style.css").write_bytes(b"body {}")
    return b"body {}"


def test_a_file_is_served(style: bytes) -> None:
    answer = StaticFilesMiddleware(lambda _request: HttpResponse("page"))(RequestFactory().get("/static/style.css"))

    assert isinstance(answer, HttpResponse)
    assert answer.content == style
    assert answer["Content-Type"].startswith("text/css")


def test_a_file_is_served_without_a_thread_for_each_page(style: bytes) -> None:
    async def page(_request: HttpRequest) -> HttpResponse:
        return HttpResponse("page")

    async def both() -> tuple[bytes, bytes]:
        middleware = StaticFilesMiddleware(page)
        file = await middleware.answer(RequestFactory().get("/static/style.css"))
        other = await middleware.answer(RequestFactory().get("/"))
        return file.content, other.content  # type: ignore[attr-defined]

    assert asyncio.run(both()) == (style, b"page")


def test_what_the_browser_has_is_not_sent_again(style: bytes) -> None:
    middleware = StaticFilesMiddleware(lambda _request: HttpResponse("page"))
    first = middleware(RequestFactory().get("/static/style.css"))
    assert isinstance(first, HttpResponse)

    again = middleware(RequestFactory().get("/static/style.css", headers={"If-None-Match": first["ETag"]}))

    assert isinstance(again, HttpResponse)
    assert (again.status_code, again.content) == (304, b"")


def test_without_collected_files_there_are_pages_all_the_same(tmp_path: Path, settings: Settings) -> None:
    settings.STATIC_ROOT = tmp_path / "nothing"

    answer = StaticFilesMiddleware(lambda _request: HttpResponse("page"))(RequestFactory().get("/static/style.css"))

    assert isinstance(answer, HttpResponse)
    assert answer.content == b"page"
