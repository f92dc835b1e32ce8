"""A player fetches a recording."""

import asyncio
from collections.abc import AsyncIterable
from typing import Any, cast

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from tests.api.rows import a_job, a_recording
from transcription.api.media import BLOCK, Unsatisfiable, bytes_wanted
from transcription.models import ApiToken, Job, Recording

CONTENT = bytes(range(256)) * 2000  # two blocks


@pytest.fixture
def job(owner: User) -> Job:
    return a_job(owner, recording=a_recording(owner, CONTENT))


def body(answer: Any) -> bytes:
    async def collect() -> bytes:
        return b"".join([block async for block in cast(AsyncIterable[bytes], answer)])

    return asyncio.run(collect())


def test_a_recording_is_given_whole(api: Client, job: Job) -> None:
    answer = api.get(f"/api/v1/jobs/{job.pk}/audio/")

    assert answer.status_code == 200
    assert len(CONTENT) > BLOCK
    assert body(answer) == CONTENT
    assert answer["Content-Length"] == str(len(CONTENT))
    assert answer["Accept-Ranges"] == "bytes"
    assert answer["Content-Type"] == "audio/mpeg"
    assert answer["Content-Security-Policy"] == "sandbox"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Disposition"] == 'inline; filename="lecture.mp3"'


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("bytes=0-0", slice(0, 1)), ("bytes=300000-", slice(300000, None)), ("bytes=-5", slice(-5, None))],
)
def test_a_range_is_given(api: Client, job: Job, asked: str, expected: slice) -> None:
    answer = api.get(f"/api/v1/jobs/{job.pk}/audio/", headers={"Range": asked})

    start, stop, _step = expected.indices(len(CONTENT))
    assert answer.status_code == 206
    assert body(answer) == CONTENT[expected]
    assert answer["Content-Range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"
    assert answer["Content-Length"] == str(stop - start)


def test_a_range_after_the_end_is_refused(api: Client, job: Job) -> None:
    answer = api.get(f"/api/v1/jobs/{job.pk}/audio/", headers={"Range": f"bytes={len(CONTENT)}-"})

    assert answer.status_code == 416
    assert answer["Content-Range"] == f"bytes */{len(CONTENT)}"


def test_several_ranges_at_once_are_answered_with_the_whole(api: Client, job: Job) -> None:
    answer = api.get(f"/api/v1/jobs/{job.pk}/audio/", headers={"Range": "bytes=0-1,5-6"})

    assert answer.status_code == 200
    assert body(answer) == CONTENT


@pytest.mark.parametrize(("tag", "status"), [("same", 206), ('"other"', 200), ("Wed, 21 Oct 2015 07:28:00 GMT", 200)])
def test_a_part_is_given_only_of_the_file_that_the_client_knows(api: Client, job: Job, tag: str, status: int) -> None:
    known = f'"{job.recording.sha256}"' if tag == "same" else tag

    answer = api.get(f"/api/v1/jobs/{job.pk}/audio/", headers={"Range": "bytes=0-1", "If-Range": known})

    assert answer.status_code == status
    body(answer)


def test_a_head_tells_the_length_and_gives_nothing(api: Client, job: Job) -> None:
    answer = api.head(f"/api/v1/jobs/{job.pk}/audio/", headers={"Range": "bytes=0-1"})

    assert answer.status_code == 200
    assert answer["Content-Length"] == str(len(CONTENT))
    assert not answer.streaming


def test_a_session_may_listen(job: Job, owner: User) -> None:
    client = Client()
    client.force_login(owner)

    assert client.head(f"/api/v1/jobs/{job.pk}/audio/").status_code == 200


def test_nobody_may_not(job: Job) -> None:
    answer = Client().get(f"/api/v1/jobs/{job.pk}/audio/")

    assert answer.status_code == 401
    assert answer["WWW-Authenticate"]
    assert answer.json()["detail"]


def test_what_our_probe_does_not_know_is_no_page(api: Client, owner: User) -> None:
    job = a_job(owner, recording=a_recording(owner, b"<script>", original_name="a.html", container="html"))

    assert api.head(f"/api/v1/jobs/{job.pk}/audio/")["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(("has_video", "expected"), [(False, "audio/mp4"), (True, "video/mp4")])
def test_a_picture_makes_it_a_video(api: Client, owner: User, has_video: bool, expected: str) -> None:
    job = a_job(owner, recording=a_recording(owner, container="mov,mp4,m4a,3gp,3g2,mj2", has_video=has_video))

    assert api.head(f"/api/v1/jobs/{job.pk}/audio/")["Content-Type"] == expected


def test_a_recording_that_is_gone_from_the_disk_is_a_sentence(api: Client, job: Job) -> None:
    job.recording.path.unlink()

    answer = api.get(f"/api/v1/jobs/{job.pk}/audio/")

    assert answer.status_code == 404
    assert "disk" in answer.json()["detail"]


def test_sound_that_retention_removed_is_gone_for_good(api: Client, job: Job) -> None:
    job.recording.path.unlink()
    Recording.objects.update(removed_at=timezone.now())

    answer = api.get(f"/api/v1/jobs/{job.pk}/audio/")

    assert answer.status_code == 410
    assert answer.json() == {
        "detail": "The sound is removed, as this server keeps it for a limited time; the text is kept."
    }


def test_without_its_sound_a_job_is_not_tried_again(api: Client, job: Job) -> None:
    Job.objects.update(status="failed", error_code="out_of_memory")
    Recording.objects.update(removed_at=timezone.now())

    answer = api.post(f"/api/v1/jobs/{job.pk}/retry/")

    assert answer.status_code == 409
    assert answer.json() == {"detail": "The recording is no longer on this machine's disk. Give it again."}
    assert Job.objects.get().error_code == "out_of_memory"


@given(content=st.binary(max_size=20), first=st.integers(0, 30), last=st.none() | st.integers(0, 30))
def test_a_range_is_a_slice(content: bytes, first: int, last: int | None) -> None:
    header = f"bytes={first}-{'' if last is None else last}"
    if last is not None and last < first:
        assert bytes_wanted(header, len(content)) is None
        return
    expected = content[first:] if last is None else content[first : last + 1]

    if expected:
        wanted = bytes_wanted(header, len(content))
        assert wanted is not None
        assert content[wanted.start : wanted.stop] == expected
    else:
        with pytest.raises(Unsatisfiable):
            bytes_wanted(header, len(content))


@given(content=st.binary(max_size=20), count=st.integers(0, 30))
def test_a_suffix_is_a_slice_from_the_end(content: bytes, count: int) -> None:
    expected = content[-count:] if count else b""

    if expected:
        wanted = bytes_wanted(f"bytes=-{count}", len(content))
        assert wanted is not None
        assert content[wanted.start : wanted.stop] == expected
    else:
        with pytest.raises(Unsatisfiable):
            bytes_wanted(f"bytes=-{count}", len(content))


@given(header=st.text(max_size=40))
def test_what_is_no_range_asks_for_the_whole(header: str) -> None:
    if not header.strip().lower().startswith("bytes="):
        assert bytes_wanted(header, 100) is None


@pytest.mark.parametrize(
    "header", ["", "bytes=-", "bytes=a-b", "seconds=0-1", "bytes=0", "bytes=٣-٤", "bytes=" + "9" * 5000 + "-"]
)
def test_a_broken_range_asks_for_the_whole(header: str) -> None:
    assert bytes_wanted(header, 100) is None


@pytest.mark.parametrize(("endpoint", "allowed"), [("audio", "GET, HEAD"), ("events", "GET")])
def test_another_method_with_a_key_is_405_and_not_a_question_of_cookies(
    owner: User, job: Job, endpoint: str, allowed: str
) -> None:
    client = Client(enforce_csrf_checks=True, headers={"X-API-Key": ApiToken.make(owner)})

    answer = client.post(f"/api/v1/jobs/{job.pk}/{endpoint}/")

    assert (answer.status_code, answer["Allow"]) == (405, allowed)
    assert answer["Content-Type"] == "application/json"
