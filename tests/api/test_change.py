"""A client changes what a job is called, its notes, its tags, and what its transcript reads."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.api.rows import WORDS, a_done_job, a_job, a_segment
from transcription.models import Job, Segment


def patch(api: Client, address: str, body: Any) -> Any:
    return api.patch(address, body if isinstance(body, str) else json.dumps(body), content_type="application/json")


@pytest.fixture
def job(owner: User) -> Job:
    return a_done_job(owner)


@pytest.fixture
def address(job: Job) -> str:
    return f"/api/v1/jobs/{job.pk}/"


def test_what_is_sent_changes_and_the_rest_stays(api: Client, job: Job, address: str) -> None:
    answer = patch(api, address, {"name": " Lecture\n1 ", "tags": ["maths", "spring , maths"]})
    assert answer.status_code == 200
    assert (answer.json()["name"], answer.json()["tags"]) == ("Lecture 1", ["maths", "spring"])

    answer = patch(api, address, {"notes": "The board is hard to read.\nSlide 3!"})

    told = answer.json()
    assert (told["name"], told["tags"]) == ("Lecture 1", ["maths", "spring"])
    assert told["notes"] == "The board is hard to read.\nSlide 3!"
    assert told["text"] == "Good day."


def test_tags_are_taken_off(api: Client, job: Job, address: str) -> None:
    patch(api, address, {"tags": ["a", "b"]})

    assert patch(api, address, {"tags": []}).json()["tags"] == []


def test_a_changed_job_is_found_by_its_new_name(api: Client, job: Job, address: str) -> None:
    patch(api, address, {"name": "Ёжик", "notes": "в тумане"})

    for words in ("ежик", "ТУМАНЕ", "good day"):
        assert len(api.get("/api/v1/jobs/", {"search": words}).json()["results"]) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "\u0007"}, "name"),
        ({"name": "a" * 256}, "name"),
        ({"name": None}, "name"),
        ({"notes": "a" * 20_001}, "notes"),
        ({"tags": ["a" * 51]}, "tags"),
        ({"tags": [f"tag {number}" for number in range(21)]}, "tags"),
        ({"tags": [7]}, "tags"),
        ({"tags": None}, "tags"),
        ({"status": "done"}, "status"),
        ({"speakers": {"1": "Anna"}}, "speakers"),
        (["name"], "detail"),
        ("{", "detail"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(
    api: Client, job: Job, address: str, body: object, field: str
) -> None:
    answer = patch(api, address, body)

    assert answer.status_code == 400, answer.content
    assert list(answer.json()) == [field]
    job.refresh_from_db()
    assert (job.name, job.notes, job.tags.count()) == ("lecture.mp3", "", 0)


def test_tags_come_with_a_new_job(api: Client, job: Job) -> None:
    for sent in ("a, b", ["a", "b"]):
        answer = api.post("/api/v1/jobs/", {"recording": str(job.recording_id), "tags": sent})
        assert answer.status_code == 202, answer.content
        assert answer.json()["tags"] == ["a", "b"]


# ---------------------------------------------------------------- the text


@pytest.fixture
def segment(job: Job) -> Segment:
    return a_segment(job, 1, " Good", words=WORDS)


def test_segments_tell_how_they_read_and_what_was_heard(api: Client, address: str, segment: Segment) -> None:
    answer = api.get(f"{address}segments/").json()

    assert answer["count"] == 2
    assert answer["results"][1] == {
        "id": segment.pk,
        "start": 1.0,
        "end": 2.0,
        "channel": None,
        "text": "Good",
        "language": "en",
        "words": [{"word": "Good", "start": 0.0, "end": 0.4, "probability": 0.9}],
        "heard": {"text": "Good", "words": [{"word": "Good", "start": 0.0, "end": 0.4, "probability": 0.9}]},
        "improved": None,
        "edited_at": None,
    }


def test_segments_come_in_pages(api: Client, address: str, segment: Segment) -> None:
    answer = api.get(f"{address}segments/?offset=1&page_size=1").json()

    assert (answer["count"], [row["id"] for row in answer["results"]]) == (2, [segment.pk])


def test_an_edit_is_in_every_export_and_the_engines_words_are_kept(
    api: Client, job: Job, address: str, segment: Segment
) -> None:
    answer = patch(api, f"{address}segments/{segment.pk}/", {"text": "Very good"})

    told = answer.json()
    assert (told["text"], told["heard"]["text"]) == ("Very good", "Good")
    assert [(word["word"], word["start"]) for word in told["words"]] == [("Very", 1.0), ("good", 0.0)]
    assert told["edited_at"] is not None
    assert api.get(address).json()["text"] == "Good day. Very good"
    for format, expected in {"txt": b"Good day.\nVery good\n", "srt": b"\nVery good\n", "csv": b",Very good\n"}.items():
        assert expected in api.get(f"{address}transcript.{format}").content
    body = api.get(f"{address}transcript.json").json()
    assert body["text"] == "Good day. Very good"
    assert [word["word"] for word in body["segments"][1]["words"]] == ["Very", "good"]


def test_an_edit_is_taken_back(api: Client, job: Job, address: str, segment: Segment) -> None:
    patch(api, f"{address}segments/{segment.pk}/", {"text": "Very good"})

    answer = patch(api, f"{address}segments/{segment.pk}/", {"text": None})

    assert (answer.json()["text"], answer.json()["edited_at"]) == ("Good", None)
    assert api.get(address).json()["text"] == "Good day. Good"


def test_what_is_edited_away_is_in_no_export(api: Client, job: Job, address: str, segment: Segment) -> None:
    assert patch(api, f"{address}segments/{segment.pk}/", {"text": " "}).json()["text"] == ""

    assert api.get(f"{address}transcript.txt").content == b"Good day.\n"
    assert len(api.get(f"{address}transcript.json").json()["segments"]) == 1


def test_the_text_of_a_running_job_is_not_edited(api: Client, job: Job, address: str, segment: Segment) -> None:
    Job.objects.update(status="transcribing")

    assert patch(api, f"{address}segments/{segment.pk}/", {"text": "Very good"}).status_code == 409


def test_a_segment_of_another_job_is_not_there(
    api: Client, owner: User, stranger: User, address: str, segment: Segment
) -> None:
    for other in (a_job(owner), a_done_job(stranger)):
        answer = patch(api, f"/api/v1/jobs/{other.pk}/segments/{segment.pk}/", {"text": "Mine"})
        assert answer.status_code == 404


@pytest.mark.parametrize("body", [{}, {"text": 7.5, "x": 1} | {"text": ["a"]}, {"text": "a" * 10_001}])
def test_an_edit_is_a_text(api: Client, address: str, segment: Segment, body: object) -> None:
    answer = patch(api, f"{address}segments/{segment.pk}/", body)

    assert (answer.status_code, list(answer.json())) == (400, ["text"])


# ---------------------------------------------------------------- the player


def test_peaks_are_told_when_they_are_known(api: Client, job: Job, address: str) -> None:
    assert api.get(f"{address}peaks/").status_code == 409

    job.recording.peaks = [0, 50, 100]
    job.recording.save()

    assert api.get(f"{address}peaks/").json() == {"duration": 2.5, "peaks": [0, 50, 100]}
