"""A client lists its jobs."""

from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from tests.api.rows import a_done_job, a_job


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

    with django_assert_max_num_queries(3):  # the key, its use, the jobs
        api.get("/api/v1/jobs/")


def test_a_wrong_cursor_is_a_sentence(api: Client) -> None:
    answer = api.get("/api/v1/jobs/?cursor=nonsense")

    assert answer.status_code == 404
    assert answer.json()["detail"]
