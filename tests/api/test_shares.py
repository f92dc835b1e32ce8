"""A client makes a link to a transcript, and whoever has it reads."""

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from tests.api.rows import a_done_job, a_segment
from transcription.models import Job, Share


@pytest.fixture
def job(owner: User) -> Job:
    return a_done_job(owner, name="Lecture <1>")


@pytest.fixture
def shares(job: Job) -> str:
    return f"/api/v1/jobs/{job.pk}/share/"


def link(api: Client, shares: str, **wishes: Any) -> str:
    """The path of a new link."""
    answer = api.post(shares, wishes, content_type="application/json")
    assert answer.status_code == 201, answer.content
    return urlsplit(answer.json()["url"]).path


def test_whoever_has_the_link_reads_and_hears(api: Client, job: Job, shares: str) -> None:
    address, anybody = link(api, shares), Client()

    page = anybody.get(address)

    assert page.status_code == 200
    assert "Lecture &lt;1&gt;" in page.content.decode()
    assert "Good day." in page.content.decode()
    assert f"{address}audio/" in page.content.decode()
    assert page["X-Robots-Tag"] == "noindex, nofollow"
    assert page["Referrer-Policy"] == "no-referrer"
    assert anybody.get(f"{address}audio/").status_code == 200
    text = anybody.get(f"{address}transcript.txt")
    assert (text.content, text["Content-Type"]) == (b"Good day.\n", "text/plain; charset=utf-8")


def test_the_link_shows_edits_as_they_come(api: Client, job: Job, shares: str) -> None:
    address = link(api, shares)
    a_segment(job, 1, " Heard.", edited_text=" Meant.")

    page = Client().get(address).content.decode()

    assert "Meant." in page
    assert "Heard." not in page


def test_it_opens_nothing_else(api: Client, job: Job, shares: str) -> None:
    anybody = Client()
    anybody.get(link(api, shares))

    assert anybody.get(f"/api/v1/jobs/{job.pk}/").status_code == 401
    assert anybody.get(f"/jobs/{job.pk}/").status_code == 302


def test_without_sound_it_is_only_read(api: Client, shares: str) -> None:
    address = link(api, shares, has_audio=False)

    assert "<audio" not in Client().get(address).content.decode()
    assert Client().get(f"{address}audio/").status_code == 404


def test_it_ends_with_its_time(api: Client, shares: str) -> None:
    address = link(api, shares, expires_in_days=1)
    Share.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    for path in (address, f"{address}audio/", f"{address}transcript.txt"):
        assert Client().get(path).status_code == 404
    assert api.get(shares).json() == {"results": []}


def test_it_is_taken_back_at_once(api: Client, shares: str) -> None:
    address = link(api, shares)
    (listed,) = api.get(shares).json()["results"]

    assert api.delete(f"{shares}{listed['id']}/").status_code == 204

    assert Client().get(address).status_code == 404


def test_only_its_sum_is_stored_and_no_list_shows_it(api: Client, shares: str) -> None:
    address = link(api, shares)

    secret = address.strip("/").split("/")[-1]
    assert secret not in api.get(shares).content.decode()
    assert not Share.objects.filter(digest=secret).exists()
    assert len(secret) >= 32


def test_a_guess_leads_nowhere(db: None) -> None:
    for guess in ("a" * 32, "%ff", "..", "\ud800".encode(errors="surrogatepass").hex()):
        assert Client().get(f"/s/{guess}/").status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [({"expires_in_days": 0}, "expires_in_days"), ({"expires_in_days": 366}, "expires_in_days"), ({"days": 3}, "days")],
)
def test_a_link_for_ever_is_refused(api: Client, shares: str, body: object, field: str) -> None:
    answer = api.post(shares, body, content_type="application/json")

    assert (answer.status_code, list(answer.json())) == (400, [field])


def test_a_deleted_job_takes_its_links_along(api: Client, job: Job, shares: str) -> None:
    address = link(api, shares)

    api.delete(f"/api/v1/jobs/{job.pk}/")

    assert Client().get(address).status_code == 404
