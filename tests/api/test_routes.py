"""Every address of the native API, for everybody: a new one that is not in the table fails here."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern
from django.utils import timezone

from tests.api.rows import a_done_job
from transcription.api.v1.urls import urlpatterns
from transcription.models import ApiToken, Batch, Delivery, Job, Share, Upload

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
    ("job", "patch"): (401, 200, MISSING, MISSING),
    ("peaks", "get"): (401, 409, MISSING, MISSING),
    ("segments", "get"): (401, 200, MISSING, MISSING),
    ("segment", "patch"): (401, 400, MISSING, MISSING),
    ("shares", "get"): (401, 200, MISSING, MISSING),
    ("shares", "post"): (401, 201, MISSING, MISSING),
    ("share", "delete"): (401, 204, MISSING, MISSING),
    ("batches", "get"): (401, 200, 200, 200),
    ("batches", "post"): (401, 201, 201, 201),
    ("batch", "get"): (401, 200, MISSING, MISSING),
    ("archive", "get"): (401, 200, MISSING, MISSING),
    ("recordings", "get"): (401, 200, 200, 200),
    ("recording", "get"): (401, 200, MISSING, MISSING),
    ("recording", "delete"): (401, 204, MISSING, MISSING),
    ("workers", "get"): (401, 200, 200, 200),
    ("queue", "get"): (401, 200, 200, 200),
    ("stats", "get"): (401, 200, 200, 200),
    ("uploads", "post"): (401, 201, 201, 201),
    ("upload", "get"): (401, 200, MISSING, MISSING),
    ("upload", "patch"): (401, 415, MISSING, MISSING),
    ("upload", "delete"): (401, 204, MISSING, MISSING),
    ("webhook", "get"): (401, 200, 200, 200),
    ("webhook", "put"): (401, 400, 400, 400),
    ("webhook", "delete"): (401, 204, 204, 204),
    ("webhook-secret", "post"): (401, 200, 200, 200),
    ("webhook-test", "post"): (401, 409, 409, 409),
    ("deliveries", "get"): (401, 200, 200, 200),
    ("delivery", "get"): (401, 200, MISSING, MISSING),
    ("delivery-replay", "post"): (401, 202, MISSING, MISSING),
    ("models", "get"): (401, 200, 200, 200),
    ("model", "delete"): (401, 403, 403, MISSING),
    ("model-download", "post"): (401, 403, 403, MISSING),
    ("tokens", "get"): (401, 200, 200, 200),
    ("tokens", "post"): (401, 201, 201, 201),
    ("token", "delete"): (401, 204, MISSING, MISSING),
}
METHODS = ("get", "post", "put", "patch", "delete")
TUS = {"Tus-Resumable": "1.0.0", "Upload-Length": "5"}  # what the uploads' addresses want to hear first
WHO = ("nobody", "owner", "other", "staff")


ROUTES = [
    (pattern, method, who)
    for pattern in urlpatterns
    for method in METHODS
    for who in (WHO if (pattern.name, method) in EXPECTED else ("nobody", "owner"))  # the others are refused alike
]


@pytest.mark.parametrize(("pattern", "method", "who"), ROUTES, ids=lambda value: getattr(value, "name", value))
def test_everybody_gets_what_is_theirs_and_json(
    owner: User, stranger: User, pattern: URLPattern, method: str, who: str
) -> None:
    job = a_done_job(owner)
    Batch.objects.create(pk=job.pk, owner=owner)
    share = Share.objects.create(pk=job.pk, job=job, digest="0" * 64, expires_at=timezone.now() + timedelta(days=1))
    upload = Upload.objects.create(pk=job.pk, owner=owner, bytes=5, expires_at=timezone.now() + timedelta(days=1))
    Delivery.objects.create(pk=job.pk, owner=owner, url="https://example.org/", type=Delivery.Type.DONE)
    ApiToken.make(owner)
    token = ApiToken.objects.get()
    staff = User.objects.create_superuser("clara")
    client = Client()
    user = {"owner": owner, "other": stranger, "staff": staff}.get(who)
    if user is not None:
        client.force_login(user)

    answer = getattr(client, method)(
        _address(pattern, job), content_type="multipart/form-data; boundary=x", headers=TUS
    )

    expected = EXPECTED.get((str(pattern.name), method))
    allowed = {405} | ({401} if who == "nobody" else set()) if expected is None else {expected[WHO.index(who)]}
    assert answer.status_code in allowed
    row = {"token": token, "upload": upload, "share": share, "recording": job.recording}.get(str(pattern.name), job)
    is_gone = answer.status_code == 204 and pattern.name != "webhook"  # of which the address alone goes
    assert type(row).objects.filter(pk=row.pk).exists() is not is_gone
    if answer.status_code >= 400:
        assert answer["Content-Type"] == "application/json"
    answer.close()


def _address(pattern: URLPattern, job: Job) -> str:
    address = "/api/v1/" + str(pattern.pattern)
    if str(pattern.name).startswith("recording"):
        address = address.replace("<uuid:pk>", str(job.recording_id))
    if pattern.name == "segment":
        address = address.replace("<int:pk>", str(job.segments.get().pk))
    if pattern.name == "token":
        address = address.replace("<int:pk>", str(ApiToken.objects.get().pk))
    address = address.replace("<uuid:job_pk>", str(job.pk))
    for place, value in {"<uuid:pk>": str(job.pk), "<slug:extension>": "txt", "<str:name>": "nowhere"}.items():
        address = address.replace(place, value)
    assert "<" not in address, "this test does not know a part of this address"
    return address


def test_the_table_has_no_address_that_is_gone() -> None:
    assert {name for name, _method in EXPECTED} == {pattern.name for pattern in urlpatterns}
