"""A client lists its jobs."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from tests.api.rows import a_done_job, a_job
from transcription import jobs
from transcription.models import Batch, Job
from transcription.text import search


def test_the_newest_job_comes_first(api: Client, owner: User) -> None:
    older, newer = a_job(owner), a_job(owner)

    listed = api.get("/api/v1/jobs/").json()["results"]

    assert [job["id"] for job in listed] == [str(newer.pk), str(older.pk)]


def test_a_page_leads_to_the_next(api: Client, owner: User) -> None:
    jobs = [a_job(owner) for _number in range(3)]

    first = api.get("/api/v1/jobs/?page_size=2").json()
    second = api.get(first["next"]).json()

    assert [job["id"] for job in first["results"] + second["results"]] == [str(job.pk) for job in reversed(jobs)]
    assert second["next"] is None


def test_the_list_leaves_out_the_text(api: Client, owner: User) -> None:
    a_done_job(owner)

    (listed,) = api.get("/api/v1/jobs/").json()["results"]

    assert "text" not in listed
    assert listed["duration"] == 2.5


def test_anothers_jobs_are_not_listed(api: Client, stranger: User) -> None:
    a_job(stranger)

    assert api.get("/api/v1/jobs/").json()["results"] == []


def test_a_long_list_costs_as_many_queries_as_a_short_one(
    api: Client, owner: User, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for _number in range(20):
        a_done_job(owner)

    with django_assert_max_num_queries(4):  # the key, its use, the jobs, their tags
        api.get("/api/v1/jobs/")


def test_a_wrong_cursor_is_a_sentence(api: Client) -> None:
    answer = api.get("/api/v1/jobs/?cursor=nonsense")

    assert answer.status_code == 404
    assert answer.json()["detail"]


# ---------------------------------------------------------------- some of them


@pytest.fixture
def library(owner: User, stranger: User) -> dict[str, Job]:
    """Jobs of all kinds, by their names; one of each is a stranger's too."""
    made = {
        "talk": a_done_job(owner, name="talk", text="Ёлки в лесу. Good day.", language="ru", model="base"),
        "meeting": a_done_job(owner, name="Meeting 100%", text="Good night.", language="en", notes="with Boris"),
        "broken": a_job(owner, name="broken", status="failed", error_code="no_audio"),
        "new": a_job(owner, name="new"),
    }
    for day, job in enumerate(made.values(), start=1):
        Job.objects.filter(pk=job.pk).update(created_at=datetime(2026, 11, day, 12, tzinfo=UTC))
        search.index(job.pk)
    jobs.tag(made["talk"], ["forest", "spring 2026"])
    jobs.tag(made["meeting"], ["forest"])
    a_done_job(stranger, name="talk", text="Ёлки в лесу.", language="ru")
    return made


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("status=done", "meeting talk"),
        ("status=failed,queued", "new broken"),
        ("status=failed&status=queued", "new broken"),
        ("model=base", "talk"),
        ("language=ru", "talk"),
        ("language=Russian", "talk"),
        ("search=good", "meeting talk"),
        ("search=елки", "talk"),
        ("search=ЁЛКИ лесу", "talk"),
        ("search=boris", "meeting"),
        ("search=100%25", "meeting"),
        ("search=1_0", ""),
        ("search=MEETING good", "meeting"),
        ("tag=forest", "meeting talk"),
        ("tag=forest&tag=spring 2026", "talk"),
        ("tag=nonsense", ""),
        ("created_after=2026-11-03", "new broken"),
        ("created_before=2026-11-02T12:00:00Z", "talk"),
        ("created_after=2026-11-02T12:00:00%2B00:00&created_before=2026-11-03", "meeting"),
        ("ordering=created_at", "talk meeting broken new"),
        ("ordering=name", "meeting broken new talk"),
        ("ordering=-name", "talk new broken meeting"),
        ("status=done&search=good&language=en", "meeting"),
        ("batch=00000000-0000-0000-0000-000000000000", ""),
    ],
)
def test_a_client_asks_for_some_of_them(api: Client, library: dict[str, Job], query: str, expected: str) -> None:
    names = {str(job.pk): name for name, job in library.items()}

    answer = api.get(f"/api/v1/jobs/?{query}")

    assert answer.status_code == 200, answer.content
    assert [names[job["id"]] for job in answer.json()["results"]] == expected.split()


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=sleeping", "status"),
        ("language=klingonese", "language"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-13-01", "created_after"),
        ("created_before=9999-12-31T23:59:59-05:00", "created_before"),
        ("ordering=size", "ordering"),
        ("batch=7", "batch"),
        ("page_size=0", "page_size"),
        ("page_size=1000", "page_size"),
        ("staus=done", "staus"),
        ("search=" + "a" * 201, "search"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(api: Client, query: str, field: str) -> None:
    answer = api.get(f"/api/v1/jobs/?{query}")

    assert answer.status_code == 400
    assert list(answer.json()) == [field]


@pytest.mark.parametrize("ordering", ["created_at", "-created_at", "name", "-name"])
def test_pages_in_every_order_hold_each_job_once(api: Client, owner: User, ordering: str) -> None:
    moment = timezone.now()
    made = {str(a_job(owner, name=f"name {number % 3}", created_at=moment).pk) for number in range(7)}

    page, seen = f"/api/v1/jobs/?page_size=2&ordering={ordering}", []
    while page:
        answer = api.get(page).json()
        seen += [job["id"] for job in answer["results"]]
        page = answer["next"]

    assert (len(seen), set(seen)) == (7, made)


def test_a_job_tells_its_tags_and_its_batch(api: Client, owner: User) -> None:
    batch = Batch.objects.create(owner=owner)
    job = a_job(owner, batch=batch)
    jobs.tag(job, ["b", "a"])

    (listed,) = api.get(f"/api/v1/jobs/?batch={batch.pk}").json()["results"]

    assert (listed["tags"], listed["batch"]) == (["a", "b"], str(batch.pk))


def test_old_jobs_are_not_asked_what_their_turn_is(api: Client, owner: User) -> None:
    a_done_job(owner, created_at=timezone.now() - timedelta(days=1))

    assert api.get("/api/v1/jobs/").json()["results"][0]["queue_position"] is None


def test_a_refused_language_is_named_in_the_readers_language(api: Client) -> None:
    answer = api.get("/api/v1/jobs/?language=klingonese", headers={"Accept-Language": "ru"})

    [sentence] = answer.json()["language"]
    assert sentence.startswith("Языка `klingonese` нет.")
