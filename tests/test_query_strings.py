"""No query string, no part of an address and no header makes a 500, whoever sends it."""

import base64
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.signals import request_finished
from django.db import close_old_connections, transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_django import Settings
from rest_framework import serializers

from tests.api.rows import a_done_job
from transcription.api.v1.base import PageQuestion
from transcription.api.v1.batches import ArchiveQuestion
from transcription.api.v1.jobs import JobsQuestion
from transcription.api.v1.segments import SegmentsQuestion
from transcription.models import ApiToken, Batch, Delivery, Event, Share, Upload, Worker

EXAMPLES = int(os.environ.get("QUERY_STRINGS", "400"))
SECRET = "the-secret-of-a-link"


def cursor(position: str) -> str:
    return base64.b64encode(urlencode({"p": position, "o": "3"}).encode()).decode()


# Percent-encoded, as they stand in an address; %ED%A0%80 is half of a surrogate pair.
NASTY = (
    "", "%00", "a%00b", "%ED%A0%80", "%FF%FE", "%F0%9F%8E%A4", "%0D%0A", "%25", "%2E%2E%2F", "'", '"', "%3Cscript%3E",
    "-1", "0", "1", "2147483648", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "9" * 20,
    "9" * 5000, "%D9%A3", "%C2%B2", "1e400", "1.5", "inf", "-inf", "nan", "true", "None", "null", "[]", "{}", "[1]",
    "1,2", ",", ".",
    "1.2.3", f"{'9' * 5000}.1", "0001-01-01", "9999-12-31", "0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00",
    "2026-02-30", "2026-11-21T10:00:00", "0000-00-00T00:00:00Z", "10000-01-01", "0", "13", "32", "99999",
    "0001-01-01T00:00:00%2B14:00,00000000-0000-0000-0000-000000000000",
    "9999-12-31T23:59:59-14:00,00000000-0000-0000-0000-000000000000",
    "2026-11-21T10:00:00,00000000-0000-0000-0000-000000000000", "2026-11-21,not-an-id",
    "00000000-0000-0000-0000-000000000000", "0" * 32, "not-an-id", "%D0%B9" * 3000, "x" * 20_000, "a+" * 90,
    "queued,,paused",
    "name", "-name", "pk", "-created_at", "owner__password", "json", "txt,exe", "ru", "xx", "zh-hans-%00", "../../etc",
    "//example.org", "javascript:0", "http://[", "id__in=1", "1:2",
    *(quote(cursor(place)) for place in (
        "", "nothing", "\0", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-02-30T00:00:00Z",
        "2026-11-21T10:00:00", "9" * 5000,
    )),
    quote(base64.b64encode(b"o=99999999999999999999").decode()), quote(base64.b64encode(b"o=-1&r=x").decode()),
    "%3D%3D", "YQ",
)  # fmt: skip
TAKEN_BY_PAGES = (
    "before", "seen", "status", "have", "next", "after", "lang", "version", "format", "token", "partial", "from_job",
)  # fmt: skip
LOOKUPS = (
    "",
    "__exact",
    "__gte",
    "__lt",
    "__isnull",
    "__in",
    "__year",
    "__month",
    "__day",
    "__id__exact",
    "__contains",
)
OF_CHANGELISTS = (
    "q", "o", "p", "all", "e", "_facets", "_popup", "_to_field", "_changelist_filters", "app_label", "model_name",
    "field_name", "term", "next",
)  # fmt: skip


def names_of(*questions: type[serializers.Serializer[object]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for question in questions for name in question().fields))


# The native API refuses a name that an address does not know before it looks at any value.
QUESTIONS = {
    "/api/v1/jobs/": names_of(JobsQuestion),
    "/api/v1/jobs/<uuid:job_pk>/segments/": names_of(SegmentsQuestion),
    "/api/v1/batches/<uuid:pk>/archive.zip": names_of(ArchiveQuestion),
    **dict.fromkeys((f"/api/v1/{rows}/" for rows in ("batches", "recordings", "deliveries")), names_of(PageQuestion)),
}


@cache
def names_at(route: str) -> tuple[str, ...]:
    """What an address reads of its query string."""
    if not route.startswith("/admin/"):
        return QUESTIONS.get(route, TAKEN_BY_PAGES)
    lists = next(
        (a for m, a in admin.site._registry.items() if f"/{m._meta.label_lower.replace('.', '/')}/" in route), None
    )
    filters = () if lists is None else (*lists.list_filter, lists.date_hierarchy)
    narrowed = [one[0] if isinstance(one, tuple) else getattr(one, "parameter_name", one) for one in filters if one]
    return (*OF_CHANGELISTS, *(f"{name}{lookup}" for name in dict.fromkeys(narrowed) for lookup in LOOKUPS))


def addresses(patterns: list[URLPattern | URLResolver], before: str = "/") -> Iterator[str]:
    """Every address of the program, with `<kind:name>` or `(?P<name>…)` for its parts."""
    for pattern in patterns:
        here = before + str(pattern.pattern).lstrip("^")
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern.url_patterns, here)
        else:
            yield here


@cache
def routes() -> tuple[str, ...]:
    found = dict.fromkeys(_readable(address) for address in addresses(get_resolver().url_patterns))
    return tuple(route for route in found if route != "/health/")  # whose business is to say 503


def _readable(address: str) -> str:
    """A regular expression as the address that it stands for."""
    plain = re.sub(r"\(\?P(<\w+>)[^)]*\)", r"\1", address)
    return plain.replace("(?:/|$)", "/").replace("/?$", "/").replace("\\Z", "").replace("$", "").replace("\\", "")


@pytest.fixture
def chief(db: None, tmp_path: Path, settings: Settings) -> Client:
    """An administrator who has one of everything, signed in; the numbers and ids of it all are PLACES."""
    settings.DATA_DIR = tmp_path
    settings.RECORDINGS_DIR, settings.UPLOADS_DIR = tmp_path / "recordings", tmp_path / "uploads"
    owner = User.objects.create_superuser("chief")
    job = a_done_job(owner)
    Batch.objects.create(pk=job.pk, owner=owner)
    soon = timezone.now() + timedelta(days=1)
    Share.objects.create(pk=job.pk, job=job, digest="0" * 64, expires_at=soon)
    Upload.objects.create(pk=job.pk, owner=owner, bytes=5, expires_at=soon)
    Delivery.objects.create(pk=job.pk, owner=owner, job=job, url="https://example.org/", type=Delivery.Type.DONE)
    Event.objects.create(job=job, kind="queued")
    Worker.objects.create(kind="device", queue="device.cpu", device="cpu", hostname="elsewhere", pid=1)
    # The pages know the session, the endpoints without sessions the key.
    client = Client(raise_request_exception=False, headers={"X-API-Key": ApiToken.make(owner)})
    client.force_login(owner)
    PLACES["uuid"] = PLACES["id"] = str(job.pk)
    return client


PLACES = {"uuid": "", "id": "", "int": "1", "slug": "txt", "str": "nano", "path": "1", "": "nano"}


def filled(route: str, parts: dict[str, str]) -> str:
    """A route with a value in each of its places: a good one, or the one in `parts`."""
    address = ""
    while "<" in route:
        before, _, rest = route.partition("<")
        place, _, route = rest.partition(">")
        kind, _, name = place.rpartition(":")
        good = PLACES["id" if name.endswith("id") and not kind else kind]
        address += before + parts.get(place, good)
    return address + route


def status_of(client: Client, method: str, address: str, body: bytes = b"", **more: Any) -> int:
    """What a request is answered with; whatever it does to the rows is undone."""
    with transaction.atomic():  # what an error spoils in PostgreSQL ends with the request
        answer = client.generic(method, address, body, **more)
        request_finished.disconnect(close_old_connections)  # they are the test's
        answer.close()
        request_finished.connect(close_old_connections)
        transaction.set_rollback(True)
    return int(answer.status_code)


few = settings(derandomize=True, max_examples=EXAMPLES, deadline=None, suppress_health_check=[*HealthCheck])
values = st.sampled_from(NASTY)


@st.composite
def requests(draw: st.DrawFn) -> str:
    route = draw(st.sampled_from(routes()))
    asked = draw(st.lists(st.tuples(st.sampled_from(names_at(route)), values), min_size=1, max_size=3))
    parts: dict[str, str] = {}
    if "<" in route and draw(st.integers(0, 3)) == 0:
        parts[draw(st.sampled_from([place.partition(">")[0] for place in route.split("<")[1:]]))] = draw(values)
    return f"{filled(route, parts)}?{'&'.join(f'{name}={value}' for name, value in asked)}"


@few
@given(data=st.data())
def test_no_address_makes_a_500(chief: Client, data: st.DataObject) -> None:
    address = data.draw(requests())
    assert status_of(chief, "GET", address) < 500, address[:500]


JOB = "/api/v1/jobs/{job}/"
KNOWN = (
    ("/api/v1/jobs/?ordering=", 200),
    ("/api/v1/jobs/?ordering=owner__password", 400),
    (f"/api/v1/jobs/?cursor={quote(cursor('nothing'))}", 404),
    (f"/api/v1/jobs/?cursor={quote(cursor('0001-01-01T00:00:00+14:00'))}", 404),
    ("/api/v1/jobs/?" + "&".join(["tag=a"] * 40), 400),
    (f"{JOB}segments/?offset=99999999999999999999", 400),
    (f"{JOB}segments/99999999999999999999/", 405),
    (f"{JOB}transcript.txt?partial=%00", 400),
    ("/?before=0001-01-01T00:00:00%2B14:00,00000000-0000-0000-0000-000000000000", 200),
    ("/jobs/{job}/text/?have=" + "9" * 5000, 200),
    ("/api/v1/tokens/99999999999999999999/", 405),
    ("/keys/99999999999999999999/revoke/", 404),
    ("/s/%00/", 400),
    ("/login/?next=%00", 400),
    ("/api/schema/?version=%0D%0A&lang=%0D%0A", 200),
    ("/admin/transcription/job/?created_at__lt=0001-01-01T00:00:00%2B14:00", 302),
    ("/admin/transcription/event/?at__year=9223372036854775808", 302),
    ("/admin/auth/user/?groups__gte=99999999999999999999", 302),
)


@pytest.mark.parametrize(("address", "status"), KNOWN, ids=lambda value: str(value)[:60])
def test_what_is_asked_too_much_is_refused(chief: Client, address: str, status: int) -> None:
    answered = status_of(chief, "GET", address.format(job=PLACES["uuid"]))
    # The admin goes back to the whole list, where the database does not take the value for one that finds nothing.
    assert answered in ((200, 302) if status == 302 else (status,))


HEADERS = (
    "Range", "If-Range", "If-None-Match", "If-Modified-Since", "Last-Event-ID", "Idempotency-Key", "Accept",
    "Accept-Language", "Authorization", "X-API-Key", "Tus-Resumable", "Upload-Offset", "Upload-Length",
    "Upload-Metadata", "Upload-Checksum", "Upload-Defer-Length", "X-Stainless-Retry-Count", "X-HTTP-Method-Override",
    "Content-Type", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded",
    "X-Stenograf-Doctor", "Origin", "Sec-Fetch-Site", "HX-Request", "HX-Current-URL",
)  # fmt: skip
COOKIES = ("sessionid", "csrftoken", "messages", "timezone", "theme", "offer", "django_language")
VALUES_OF_HEADERS = (
    "", "\0", '"\\000aaaaaaaaaaa"', "-1", "0", "9" * 20, "9" * 5000, "\u00b2", "nan", "bytes=0-", "bytes=-0",
    "bytes=9-1", f"bytes={'9' * 20}-", f"bytes={'9' * 5000}-", "bytes=0-0,2-3", "items=0-1", "sha1 !", "md5 AAAA",
    "filename !", "filename AAAA", "filename /////w==", ",,,", "Basic !", "Basic a2V5Og==", "Basic //8=", "Bearer ",
    "Token x", "x" * 10_000, "\u00ff\u00fe", "*/*;q=inf", "text/html", "xx;q=nan", "../../etc/passwd", "1.0.0",
    "multipart/form-data", "multipart/form-data; boundary=", "application/json", "application/offset+octet-stream",
)  # fmt: skip
TO_SEND = (
    ("get", "/"), ("get", "/api/v1/jobs/"), ("get", JOB), ("get", f"{JOB}audio/"), ("get", f"{JOB}events/"),
    ("post", "/api/v1/jobs/"), ("post", "/api/v1/uploads/"), ("head", "/api/v1/uploads/{job}/"),
    ("get", "/api/schema/"), ("patch", "/api/v1/uploads/{job}/"), ("get", "/jobs/{job}/"),
    ("get", "/admin/transcription/job/"), ("post", "/asr"),
    ("post", "/v1/audio/transcriptions"), ("post", "/transcribe"), ("post", "/api/transcribe"), ("post", "/theme/"),
    ("post", "/login/"), ("post", "/i18n/setlang/"), ("get", "/s/x/"), ("post", "/api/v1/batches/"),
)  # fmt: skip


@few
@given(
    route=st.sampled_from(TO_SEND),
    headers=st.dictionaries(st.sampled_from(HEADERS), st.sampled_from(VALUES_OF_HEADERS), max_size=3),
    cookies=st.dictionaries(st.sampled_from(COOKIES), st.sampled_from(VALUES_OF_HEADERS), max_size=1),
)
def test_no_header_makes_a_500(
    chief: Client, route: tuple[str, str], headers: dict[str, str], cookies: dict[str, str]
) -> None:
    method, address = route
    sent = dict(headers)
    if cookies:
        sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    of_uploads = {"Tus-Resumable": "1.0.0", "Upload-Length": "5", "Upload-Offset": "0"} if "uploads" in address else {}
    kind = sent.pop("Content-Type", "application/x-www-form-urlencoded")
    address = address.format(job=PLACES["uuid"])
    assert status_of(chief, method.upper(), address, b"12345", content_type=kind, headers=of_uploads | sent) < 500
