"""A client gives many files at once."""

import errno
import io
import tempfile
import zipfile
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import Settings

from tests.api.rows import a_done_job, a_job, a_segment
from tests.server import NANO, Server, wait_until
from transcription import errors
from transcription.api.v1 import batches
from transcription.models import Batch, Job, Recording

BATCHES = "/api/v1/batches/"


def sounds(*names: str) -> list[SimpleUploadedFile]:
    return [SimpleUploadedFile(name, b"RIFF" + name.encode()) for name in names]


def archive(api: Client, batch: Batch, query: str = "") -> zipfile.ZipFile:
    answer: Any = api.get(f"{BATCHES}{batch.pk}/archive.zip{query}")
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"] == "application/zip"
    content = async_to_sync(_all)(answer)
    assert len(content) == int(answer["Content-Length"])
    return zipfile.ZipFile(io.BytesIO(content))


async def _all(answer: Any) -> bytes:
    return b"".join([block async for block in answer.streaming_content])


@pytest.fixture
def batch(owner: User) -> Batch:
    return Batch.objects.create(owner=owner, name="Interviews")


def test_each_file_gets_a_job_with_the_same_parameters(api: Client, owner: User) -> None:
    form = {"file": sounds("a.mp3", "b.mp3"), "name": "Interviews", "language": "ru", "tags": "field work"}
    answer = api.post(BATCHES, form)

    told = answer.json()
    assert (answer.status_code, answer["Location"]) == (202, f"{BATCHES}{told['id']}/")
    assert (told["name"], told["jobs"]["total"], told["jobs"]["queued"]) == ("Interviews", 2, 2)
    jobs = api.get(told["links"]["jobs"]).json()["results"]
    assert [job["name"] for job in jobs] == ["b.mp3", "a.mp3"]
    assert {job["options"]["language"] for job in jobs} == {"ru"}
    assert {tuple(job["tags"]) for job in jobs} == {("field work",)}


def test_jobs_are_put_into_a_batch_one_after_the_other(api: Client) -> None:
    answer = api.post(BATCHES, {"name": "Later"})
    batch = answer.json()["id"]
    assert answer.status_code == 201

    for name in ("a.mp3", "b.mp3"):
        (file,) = sounds(name)
        assert api.post("/api/v1/jobs/", {"file": file, "batch": batch}).json()["batch"] == batch

    assert api.get(f"{BATCHES}{batch}/").json()["jobs"]["total"] == 2


def test_a_batch_tells_how_far_it_is(api: Client, owner: User, batch: Batch) -> None:
    for values in ({"status": "done"}, {"status": "failed"}, {"status": "transcribing", "progress": 0.5}, {}):
        a_job(owner, batch=batch, **values)

    told = api.get(f"{BATCHES}{batch.pk}/").json()

    assert {name: count for name, count in told["jobs"].items() if count} == {
        "total": 4, "done": 1, "failed": 1, "transcribing": 1, "queued": 1,
    }  # fmt: skip
    assert (told["progress"], told["is_ended"]) == (0.625, False)
    assert api.get(BATCHES).json()["results"] == [told]


def test_a_wrong_parameter_takes_no_file(api: Client) -> None:
    answer = api.post(BATCHES, {"file": sounds("a.mp3"), "beam_size": "many"})

    assert (answer.status_code, list(answer.json())) == (400, ["beam_size"])
    assert not Batch.objects.exists()
    assert not Job.objects.exists()


def test_a_text_is_no_file(api: Client) -> None:
    assert api.post(BATCHES, {"file": "a.mp3"}).status_code == 400


def test_all_files_are_taken_or_none(api: Client, settings: Settings) -> None:
    settings.MAX_QUEUED_JOBS = 2

    answer = api.post(BATCHES, {"file": sounds("a.mp3", "b.mp3", "c.mp3")})

    assert (answer.status_code, answer["Retry-After"]) == (429, "30")
    assert (Batch.objects.count(), Job.objects.count(), Recording.objects.count()) == (0, 0, 0)
    assert list(settings.RECORDINGS_DIR.iterdir()) == []


def test_anothers_batch_takes_no_job(api: Client, stranger: User) -> None:
    theirs = Batch.objects.create(owner=stranger)
    (file,) = sounds("a.mp3")

    answer = api.post("/api/v1/jobs/", {"file": file, "batch": str(theirs.pk)})

    assert (answer.status_code, list(answer.json())) == (400, ["batch"])


# ---------------------------------------------------------------- the archive


def test_an_archive_holds_every_transcript_under_a_name_of_its_own(api: Client, owner: User, batch: Batch) -> None:
    for name in ("lecture.mp3", "Lecture.mp3", "../x/evil.mp3"):
        a_done_job(owner, batch=batch, name=name)

    packed = archive(api, batch, "?formats=txt,srt")

    assert sorted(packed.namelist()) == [
        "Lecture (2).srt", "Lecture (2).txt", "evil.srt", "evil.txt", "lecture.srt", "lecture.txt",
    ]  # fmt: skip
    assert packed.read("lecture.txt") == b"Good day.\n"


def test_an_archive_tells_why_a_job_has_no_text(api: Client, owner: User, batch: Batch) -> None:
    a_job(owner, batch=batch, status="failed", error_code="no_audio")

    packed = archive(api, batch, "?formats=json,docx")

    assert sorted(packed.namelist()) == ["errors.txt", "lecture.docx", "lecture.json"]
    assert b"lecture.mp3: The file has no sound track." in packed.read("errors.txt")


def test_an_archive_waits_for_the_last_job_unless_told_not_to(api: Client, owner: User, batch: Batch) -> None:
    a_segment(a_job(owner, batch=batch, status="transcribing"))

    assert api.get(f"{BATCHES}{batch.pk}/archive.zip").status_code == 409
    assert archive(api, batch, "?partial=true").read("lecture.txt") == b"Good day.\n"


@pytest.mark.parametrize("query", ["formats=exe", "formats=,", "partial=perhaps", "format=txt"])
def test_an_archive_of_nothing_known_is_refused(api: Client, batch: Batch, query: str) -> None:
    assert api.get(f"{BATCHES}{batch.pk}/archive.zip?{query}").status_code == 400


@pytest.fixture
def spilling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Archives are written to the disk from their first byte on."""
    monkeypatch.setattr(batches, "HELD_IN_MEMORY", 1)


@pytest.mark.usefixtures("spilling")
def test_a_large_archive_lies_on_the_data_disk(
    api: Client, owner: User, batch: Batch, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_done_job(owner, batch=batch)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")

    assert archive(api, batch).namelist() == ["lecture.txt", "lecture.srt"]
    assert list(settings.TEMPORARY_DIR.iterdir()) == []


@pytest.mark.usefixtures("spilling")
@pytest.mark.parametrize("full", ["before", "in the middle", "for this user"])
def test_without_space_there_is_no_archive(
    api: Client, owner: User, batch: Batch, settings: Settings, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    a_done_job(owner, batch=batch)
    refusals = {"in the middle": errno.ENOSPC, "for this user": errno.EDQUOT}
    if full in refusals:
        monkeypatch.setattr(batches, "export", lambda *_: (_ for _ in ()).throw(OSError(refusals[full], "no room")))
    else:
        settings.FREE_SPACE_RESERVE_BYTES = 2**60

    answer = api.get(f"{BATCHES}{batch.pk}/archive.zip")

    assert (answer.status_code, answer.json()["detail"]) == (507, errors.DiskFull.sentence)
    assert list(settings.TEMPORARY_DIR.iterdir()) == []


def test_twenty_recordings_become_an_archive_of_twenty_texts(nano_server: Server) -> None:
    spoken = [NANO / "nano" / name for name in ("bears.wav", "mice.wav")]
    with nano_server.client() as client:
        files = [("file", (f"{number}.wav", spoken[number % 2].read_bytes())) for number in range(20)]
        batch = client.post(BATCHES, files=files, data={"name": "Twenty"}).json()
        address = batch["links"]["self"]
        wait_until(lambda: client.get(address).json()["is_ended"], 120)
        packed = zipfile.ZipFile(io.BytesIO(client.get(batch["links"]["archive"]).content))

    texts = {name: packed.read(name).decode() for name in packed.namelist() if name.endswith(".txt")}
    assert len(texts) == 20
    assert len({texts[f"{number}.txt"] for number in range(0, 20, 2)}) == 1
    assert len({texts[f"{number}.txt"] for number in range(1, 20, 2)}) == 1
    assert texts["0.txt"] != texts["1.txt"]
