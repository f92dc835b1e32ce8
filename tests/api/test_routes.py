"""Every address of the native API, for everybody: a new one that is not in the table fails here."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern

from tests.api.rows import a_done_job
from transcription.api.urls import urlpatterns
from transcription.models import Job

MISSING = 404
# What each gets: nobody, the owner, another user, and staff, who are another user here.
EXPECTED: dict[tuple[str, str], tuple[int, int, int, int]] = {
    ("jobs", "get"): (401, 200, 200, 200),
    ("jobs", "post"): (401, 400, 400, 400),
    ("job", "get"): (401, 200, MISSING, MISSING),
    ("job", "delete"): (401, 204, MISSING, MISSING),
    ("transcript", "get"): (401, 200, MISSING, MISSING),
    ("audio", "get"): (401, 200, MISSING, MISSING),
    ("events", "get"): (401, 200, MISSING, MISSING),
    ("cancel", "post"): (401, 409, MISSING, MISSING),
    ("retry", "post"): (401, 409, MISSING, MISSING),
    ("models", "get"): (401, 200, 200, 200),
    ("model", "delete"): (401, 403, 403, MISSING),
    ("model-download", "post"): (401, 403, 403, MISSING),
}
METHODS = ("get", "post", "put", "patch", "delete")
WHO = ("nobody", "owner", "other", "staff")


ROUTES = [(pattern, method) for pattern in urlpatterns for method in METHODS]


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(("pattern", "method"), ROUTES, ids=lambda value: getattr(value, "name", value))
def test_everybody_gets_what_is_theirs_and_json(
    owner: User, stranger: User, pattern: URLPattern, method: str, who: str
) -> None:
    job = a_done_job(owner)
    staff = User.objects.create_superuser("clara")
    client = Client()
    user = {"owner": owner, "other": stranger, "staff": staff}.get(who)
    if user is not None:
        client.force_login(user)

    answer = getattr(client, method)(_address(pattern, job), content_type="multipart/form-data; boundary=x")

    expected = EXPECTED.get((str(pattern.name), method))
    allowed = {405} | ({401} if who == "nobody" else set()) if expected is None else {expected[WHO.index(who)]}
    assert answer.status_code in allowed
    assert Job.objects.filter(pk=job.pk).exists() is (answer.status_code != 204)
    if answer.status_code >= 400:
        assert answer["Content-Type"] == "application/json"


def _address(pattern: URLPattern, job: Job) -> str:
    address = "/api/v1/" + str(pattern.pattern)
    for place, value in {"<uuid:pk>": str(job.pk), "<slug:extension>": "txt", "<str:name>": "nowhere"}.items():
        address = address.replace(place, value)
    assert "<" not in address, "this test does not know a part of this address"
    return address


def test_the_table_has_no_address_that_is_gone() -> None:
    assert {name for name, _method in EXPECTED} == {pattern.name for pattern in urlpatterns}
