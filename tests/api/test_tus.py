"""A client sends a large file in chunks, by tus 1.0, and has a job made of it."""

import hashlib
import os
import socket
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from django.utils.http import parse_http_date
from pytest_django import Settings

from config.asgi import application
from config.gate import Gate
from tests.api.test_gate import Behind, ask
from tests.faults import victims
from tests.server import NANO, QUICKLY, Server, wait_until
from transcription import jobs, uploads
from transcription.models import ApiToken, Job, Recording, Upload
from transcription.whisper.options import TranscriptionOptions
from transcription.workers import retention

UPLOADS = "/api/v1/uploads/"
JOBS = "/api/v1/jobs/"
SENTENCE = NANO / "nano" / "bears.wav"
TUS = {"Tus-Resumable": "1.0.0"}
CHUNK = "application/offset+octet-stream"
SOUND = b"RIFF" + bytes(range(256)) * 400


def base64(text: str | bytes) -> str:
    return b64encode(text.encode() if isinstance(text, str) else text).decode()


def begin(api: Client, length: int | str = len(SOUND), body: bytes = b"", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.post(UPLOADS, body, content_type=CHUNK, headers={**TUS, "Upload-Length": str(length), **named})


def begun(api: Client, length: int = len(SOUND), name: str = "lecture.mp3") -> str:
    """The address of a new upload."""
    answer = begin(api, length, Upload_Metadata=f"filename {base64(name)},filetype {base64('audio/mpeg')}")
    assert answer.status_code == 201, answer.content
    return str(answer["Location"])


def send(api: Client, address: str, offset: int, chunk: bytes, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.patch(address, chunk, content_type=CHUNK, headers={**TUS, "Upload-Offset": str(offset), **named})


def complete(api: Client, content: bytes = SOUND, name: str = "lecture.mp3") -> Upload:
    address = begun(api, len(content), name)
    if content:
        assert send(api, address, 0, content).status_code == 204
    return Upload.objects.get(pk=address.rstrip("/").rpartition("/")[2])


# ------------------------------------------------------------------ beginning


def test_a_client_is_told_what_is_spoken(api: Client, settings: Settings) -> None:
    answer = api.options(UPLOADS)

    assert answer.status_code == 204
    assert answer["Tus-Resumable"] == answer["Tus-Version"] == "1.0.0"
    assert answer["Tus-Extension"] == "creation,creation-with-upload,expiration,checksum,termination"
    assert answer["Tus-Max-Size"] == str(settings.MAX_UPLOAD_BYTES)
    assert answer["Tus-Checksum-Algorithm"] == "sha1,sha256,md5"


def test_an_upload_that_was_begun_is_on_disk_with_its_name_and_length(api: Client, owner: User) -> None:
    metadata = f"filename {base64('Лекция.mp3')},is_confidential"
    answer = begin(api, Upload_Metadata=metadata)

    upload = Upload.objects.get()
    assert answer.status_code == 201
    assert answer["Location"] == f"{UPLOADS}{upload.pk}/"
    assert (answer["Upload-Offset"], answer["Tus-Resumable"]) == ("0", "1.0.0")
    assert (upload.owner, upload.original_name, upload.bytes, upload.offset) == (owner, "Лекция.mp3", len(SOUND), 0)
    assert upload.path.stat().st_mode & 0o777 == 0o600
    told = api.head(answer["Location"], headers=TUS)
    assert (told["Upload-Length"], told["Upload-Offset"]) == (str(len(SOUND)), "0")
    assert (told["Upload-Metadata"], told["Cache-Control"]) == (metadata, "no-store")
    assert abs(parse_http_date(told["Upload-Expires"]) - time.time() - 24 * 3600) < 60
    body = api.get(answer["Location"]).json()
    assert body == {**answer.json(), "id": str(upload.pk), "name": "Лекция.mp3", "bytes": len(SOUND), "offset": 0}


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        (f"name {base64('talk.ogg')}", "talk.ogg"),
        (f"name {base64('a')}, filename {base64('b.wav')}", "b.wav"),
        (f"filename {base64('../../etc/passwd')}", "passwd"),
        ("filename", "recording"),
        ("", "recording"),
    ],
)
def test_a_name_is_kept_without_what_could_harm(api: Client, metadata: str, name: str) -> None:
    assert begin(api, Upload_Metadata=metadata).json()["name"] == name


@pytest.mark.parametrize(
    ("headers", "status", "said"),
    [
        ({"Upload-Length": ""}, 400, "Upload-Length"),
        ({"Upload-Length": "-1"}, 400, "Upload-Length"),
        ({"Upload-Length": "many"}, 400, "Upload-Length"),
        ({"Upload-Defer-Length": "1"}, 400, "cannot be told later"),
        ({"Upload-Length": str(6 * 1024**3)}, 413, "over 5\xa0GB"),
        ({"Upload-Metadata": "filename ???"}, 400, "Upload-Metadata"),
        ({"Upload-Checksum": "crc32 AAAA"}, 400, "sha1, sha256, md5"),
        ({"Tus-Resumable": "0.2.2"}, 412, "1.0.0"),
        ({"Tus-Resumable": ""}, 412, "1.0.0"),
    ],
)
def test_what_cannot_be_begun_is_refused_with_a_sentence(
    api: Client, settings: Settings, headers: dict[str, str], status: int, said: str
) -> None:
    answer = api.post(UPLOADS, headers={**TUS, "Upload-Length": "9", **headers})

    assert answer.status_code == status
    assert said in answer.json()["detail"]
    assert answer["Tus-Version"] == "1.0.0"
    assert not Upload.objects.exists()
    assert not settings.UPLOADS_DIR.exists()


def test_the_first_chunk_may_come_with_the_beginning(api: Client) -> None:
    answer = begin(api, len(SOUND), SOUND[:1000], Upload_Checksum=f"md5 {base64(hashlib.md5(SOUND[:1000]).digest())}")

    assert (answer.status_code, answer["Upload-Offset"], answer.json()["offset"]) == (201, "1000", 1000)
    assert Upload.objects.get().path.read_bytes() == SOUND[:1000]


def test_a_beginning_whose_chunk_is_refused_leaves_nothing(api: Client, settings: Settings) -> None:
    assert begin(api, 1000, SOUND).status_code == 413
    assert begin(api, len(SOUND), SOUND, Upload_Checksum=f"sha1 {base64(bytes(20))}").status_code == 460
    assert not Upload.objects.exists()
    assert list(settings.UPLOADS_DIR.iterdir()) == []


# ------------------------------------------------------------------ going on


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
def test_chunks_with_their_sums_make_the_file(api: Client, algorithm: str) -> None:
    address = begun(api)
    for offset in range(0, len(SOUND), 30_000):
        chunk = SOUND[offset : offset + 30_000]
        checksum = f"{algorithm} {base64(hashlib.new(algorithm, chunk).digest())}"
        answer = send(api, address, offset, chunk, Upload_Checksum=checksum)
        assert (answer.status_code, answer.content) == (204, b"")
        assert (answer["Upload-Offset"], answer["Tus-Resumable"]) == (str(offset + len(chunk)), "1.0.0")
        assert parse_http_date(answer["Upload-Expires"]) > time.time()

    upload = Upload.objects.get()
    assert upload.is_complete
    assert upload.path.read_bytes() == SOUND
    assert upload.sha256 == hashlib.sha256(SOUND).hexdigest()


@pytest.mark.parametrize("offset", [0, 999, 1001, len(SOUND)])
def test_a_chunk_for_another_place_is_refused(api: Client, offset: int) -> None:
    address = begun(api)
    send(api, address, 0, SOUND[:1000])

    answer = send(api, address, offset, b"other")

    assert answer.status_code == 409
    assert "HEAD" in answer.json()["detail"]
    assert api.head(address, headers=TUS)["Upload-Offset"] == "1000"
    assert Upload.objects.get().path.read_bytes() == SOUND[:1000]


def test_a_chunk_that_came_wrong_is_sent_again(api: Client) -> None:
    address = begun(api)
    send(api, address, 0, SOUND[:1000])
    checksum = f"sha256 {base64(hashlib.sha256(SOUND[1000:]).digest())}"

    answer = send(api, address, 1000, bytes(len(SOUND) - 1000), Upload_Checksum=checksum)
    assert answer.status_code == 460
    assert "again" in answer.json()["detail"]
    assert api.head(address, headers=TUS)["Upload-Offset"] == "1000"

    assert send(api, address, 1000, SOUND[1000:], Upload_Checksum=checksum).status_code == 204
    assert Upload.objects.get().path.read_bytes() == SOUND


@pytest.mark.parametrize(
    ("headers", "type", "status"),
    [
        ({"Upload-Offset": ""}, CHUNK, 400),
        ({"Upload-Offset": "0x0"}, CHUNK, 400),
        ({"Upload-Checksum": "sha512 AAAA"}, CHUNK, 400),
        ({"Upload-Checksum": "sha1 ???"}, CHUNK, 400),
        ({"Upload-Checksum": "sha1"}, CHUNK, 460),
        ({"Tus-Resumable": "2.0.0"}, CHUNK, 412),
        ({}, "application/octet-stream", 415),
        ({}, "multipart/form-data; boundary=x", 415),
    ],
)
def test_what_is_no_chunk_is_not_taken(api: Client, headers: dict[str, str], type: str, status: int) -> None:
    address = begun(api)

    answer = api.patch(address, b"sound", content_type=type, headers={**TUS, "Upload-Offset": "0", **headers})

    assert answer.status_code == status
    assert answer.json()["detail"]
    assert Upload.objects.get().offset == 0


def test_a_chunk_may_not_go_beyond_the_length(api: Client) -> None:
    address = begun(api, 10)

    assert send(api, address, 0, bytes(11)).status_code == 413
    assert send(api, address, 0, bytes(10)).status_code == 204
    assert send(api, address, 10, b"x").status_code == 413


def test_what_a_killed_process_left_after_the_offset_is_written_over(api: Client) -> None:
    address = begun(api)
    send(api, address, 0, SOUND[:1000])
    upload = Upload.objects.get()
    with upload.path.open("ab") as file:
        file.write(b"?" * 5000)

    assert api.head(address, headers=TUS)["Upload-Offset"] == "1000"
    send(api, address, 1000, SOUND[1000:2000])
    send(api, address, 2000, SOUND[2000:])

    upload.refresh_from_db()
    assert upload.path.read_bytes() == SOUND
    assert upload.sha256 == hashlib.sha256(SOUND).hexdigest()


def test_a_full_disk_is_said(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    address = begun(api)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    answer = send(api, address, 0, SOUND)

    assert answer.status_code == 507
    assert "space" in answer.json()["detail"]
    assert Upload.objects.get().offset == 0


def test_while_a_chunk_is_written_another_is_not(api: Client) -> None:
    address = begun(api)
    upload = Upload.objects.get()

    class Slow(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            answer = send(api, address, 0, b"other")
            assert (answer.status_code, answer.json()["detail"][:13]) == (423, "Another chunk")
            return super().read(size)

    uploads.add(upload, 0, Slow(SOUND))

    assert upload.path.read_bytes() == SOUND
    with pytest.raises(uploads.WrongOffset):
        uploads.add(upload, 0, BytesIO(b"late"))
    assert upload.path.read_bytes() == SOUND


def test_an_upload_given_up_while_a_chunk_is_written_stays_away(api: Client, settings: Settings) -> None:
    address = begun(api)

    class Slow(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            api.delete(address, headers=TUS)
            return super().read(size)

    with pytest.raises(uploads.Gone):
        uploads.add(Upload.objects.get(), 0, Slow(SOUND))
    assert list(settings.UPLOADS_DIR.iterdir()) == []


# ------------------------------------------------------------------ whose it is


def test_anothers_upload_is_not_there(api: Client, stranger: User) -> None:
    address = begun(api)
    other = Client(headers={"Authorization": f"Token {ApiToken.make(stranger)}"})

    for answer in (
        other.get(address),
        other.head(address, headers=TUS),
        send(other, address, 0, SOUND),
        other.delete(address, headers=TUS),
        api.get(f"{UPLOADS}{uuid4()}/"),
    ):
        assert answer.status_code == 404
    refused = other.post(JOBS, {"upload": str(complete(api).pk)})
    assert (refused.status_code, list(refused.json())) == (400, ["upload"])
    assert Upload.objects.filter(offset=0).count() == 1
    assert not Job.objects.exists()


def test_a_session_sends_chunks_only_with_its_csrf_token(owner: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(owner)
    client.cookies["csrftoken"] = "a" * 32
    proof = {"X-CSRFToken": "a" * 32}

    assert begin(client, 5, b"sou").status_code == 403
    address = begin(client, 5, b"sou", **proof)["Location"]
    assert send(client, address, 3, b"nd").status_code == 403
    assert send(client, address, 3, b"nd", **proof).status_code == 204
    assert client.delete(address, headers=TUS).status_code == 403
    assert client.delete(address, headers={**TUS, **proof}).status_code == 204


def test_a_key_that_may_only_read_sends_nothing(api: Client, owner: User) -> None:
    address = begun(api)
    reader = Client(headers={"Authorization": f"Token {ApiToken.make(owner, scope=ApiToken.Scope.READ)}"})

    assert reader.head(address, headers=TUS).status_code == 200
    assert begin(reader).status_code == 403
    assert send(reader, address, 0, SOUND).status_code == 403
    assert reader.delete(address, headers=TUS).status_code == 403
    assert Upload.objects.get().offset == 0


def test_an_upload_is_given_up(api: Client, settings: Settings) -> None:
    address = begun(api)
    send(api, address, 0, SOUND[:1000])

    assert api.delete(address).status_code == 412
    assert api.delete(address, headers=TUS).status_code == 204
    assert api.delete(address, headers=TUS).status_code == 404
    assert send(api, address, 1000, SOUND[1000:]).status_code == 404
    assert list(settings.UPLOADS_DIR.iterdir()) == []


# ------------------------------------------------------------------ expiring


def test_an_upload_that_has_expired_is_gone_and_swept(api: Client, settings: Settings) -> None:
    settings.UPLOAD_EXPIRES_HOURS = 2
    address, living = begun(api), complete(api)
    expired = Upload.objects.exclude(pk=living.pk).get()
    assert abs(expired.expires_at - timezone.now() - timedelta(hours=2)) < timedelta(minutes=1)
    Upload.objects.filter(pk=expired.pk).update(expires_at=timezone.now())

    assert api.head(address, headers=TUS).status_code == 410
    assert "expired" in send(api, address, 0, SOUND).json()["detail"]

    retention.enforce()

    assert api.head(address, headers=TUS).status_code == 404
    assert not expired.path.exists()
    assert living.path.read_bytes() == SOUND


def test_a_chunk_puts_the_end_off(api: Client) -> None:
    address = begun(api)
    Upload.objects.update(expires_at=timezone.now() + timedelta(minutes=1))

    send(api, address, 0, SOUND[:1000])

    assert Upload.objects.get().expires_at > timezone.now() + timedelta(hours=23)


def test_an_expired_upload_makes_no_job(api: Client) -> None:
    upload = complete(api)
    Upload.objects.update(expires_at=timezone.now())

    assert list(api.post(JOBS, {"upload": str(upload.pk)}).json()) == ["upload"]


def test_chunks_without_a_row_go_and_those_of_a_row_stay(api: Client, settings: Settings) -> None:
    kept = complete(api).path
    stray = settings.UPLOADS_DIR / f"{uuid4()}.part"
    stray.write_bytes(b"sound")
    tomorrow = time.time() + 25 * 3600

    retention.remove_strays(time.time())
    assert stray.exists()
    retention.remove_strays(tomorrow)

    assert not stray.exists()
    assert kept.exists()


# ------------------------------------------------------------------ a job of it


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["multipart/form-data", "application/json"])
def test_a_complete_upload_becomes_a_job_and_is_used_up(api: Client, settings: Settings, kind: str) -> None:
    upload = complete(api)
    body = {"upload": str(upload.pk), "language": "en"}

    answer = api.post(JOBS, body, **({} if kind.startswith("multipart") else {"content_type": kind}))

    assert answer.status_code == 202, answer.content
    recording = Recording.objects.get()
    assert recording.path.read_bytes() == SOUND
    assert (recording.original_name, recording.bytes) == ("lecture.mp3", len(SOUND))
    assert recording.sha256 == hashlib.sha256(SOUND).hexdigest()
    assert answer.json()["options"]["language"] == "en"
    assert list(settings.UPLOADS_DIR.iterdir()) == []
    assert not Upload.objects.exists()
    again = api.post(JOBS, body, **({} if kind.startswith("multipart") else {"content_type": kind}))
    assert again.status_code == 400
    assert "no job has yet" in again.json()["upload"][0]
    assert Job.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_upload_goes_to_one_job_whoever_comes_second(api: Client, owner: User, settings: Settings) -> None:
    upload = complete(api)
    job_parameters: jobs.JobParameters = {"model": "nano", "options": TranscriptionOptions()}
    jobs.submit(owner, upload, **job_parameters)

    with pytest.raises(jobs.UploadGone):
        jobs.submit(owner, upload, **job_parameters)
    upload.path.write_bytes(SOUND)  # as if its name had not gone yet
    with pytest.raises(jobs.UploadGone):
        jobs.submit(owner, upload, **job_parameters)

    (kept,) = settings.RECORDINGS_DIR.iterdir()
    assert kept == Recording.objects.get().path


def test_when_the_rows_cannot_be_stored_the_upload_is_as_it_was(
    api: Client, owner: User, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = complete(api)

    def killed(*_arguments: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(jobs, "_queue", killed)
    with pytest.raises(RuntimeError):
        jobs.submit(owner, upload, model="nano", options=TranscriptionOptions())

    assert Upload.objects.get().path.read_bytes() == SOUND
    assert list(settings.RECORDINGS_DIR.iterdir()) == []


@pytest.mark.django_db(transaction=True)
def test_recordings_may_lie_on_another_disk(api: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = complete(api)

    def two_disks(*_arguments: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", two_disks)

    assert api.post(JOBS, {"upload": str(upload.pk)}).status_code == 202
    assert Recording.objects.get().path.read_bytes() == SOUND
    assert list(settings.UPLOADS_DIR.iterdir()) == []


def test_an_incomplete_upload_makes_no_job(api: Client) -> None:
    address = begun(api, 1000)
    send(api, address, 0, bytes(400))
    upload = Upload.objects.get()

    answer = api.post(JOBS, {"upload": str(upload.pk)})

    assert answer.status_code == 400
    assert "400 of its 1000 bytes" in answer.json()["upload"][0]
    assert not Job.objects.exists()
    assert upload.path.exists()


@pytest.mark.parametrize("upload", ["", "lecture.mp3", "0"])
def test_what_is_no_upload_makes_no_job(api: Client, upload: str) -> None:
    answer = api.post(JOBS, {"upload": upload})

    assert answer.status_code == 400
    assert list(answer.json()) == (["upload"] if upload else ["file"])


def test_a_job_is_for_one_thing(api: Client) -> None:
    upload = complete(api)

    answer = api.post(JOBS, {"upload": str(upload.pk), "recording": str(uuid4())})
    assert answer.status_code == 400
    answer = api.post(JOBS, {"upload": str(upload.pk), "file": SimpleUploadedFile("other.mp3", b"sound")})
    assert answer.status_code == 400
    assert "one of" in answer.json()["upload"][0]
    assert Upload.objects.exists()


def test_other_endpoints_take_no_upload(api: Client) -> None:
    answer = api.post(
        "/transcribe", {"upload": str(complete(api).pk), "file": SimpleUploadedFile("other.mp3", b"sound")}
    )

    assert answer.status_code == 422
    assert "no parameter" in answer.json()["error"]


# ------------------------------------------------------------------ at the gate

at_the_gate = pytest.mark.django_db(transaction=True)


@pytest.fixture
def key(owner: User) -> str:
    return ApiToken.make(owner)


@at_the_gate
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_nothing_is_taken_of_a_stranger(method: str) -> None:
    behind = Behind()
    path = UPLOADS if method == "POST" else f"{UPLOADS}{uuid4()}/"

    for headers in ({}, {"x_api_key": "wrong"}, {"cookie": "sessionid=wrong"}):
        answer = ask(Gate(behind), path, [b"sound"], method=method, content_length="5", **headers)
        assert answer.status == 401
        assert answer.json["detail"]
    assert behind.taken == []


@at_the_gate
@pytest.mark.parametrize("declared", [True, False])
def test_a_chunk_is_at_most_8_mib(key: str, declared: bool) -> None:
    behind, most = Behind(), 8 * 1024**2
    path = f"{UPLOADS}{uuid4()}/"

    def knock(length: int) -> Any:
        said = {"content_length": str(length)} if declared else {}
        body = [bytes(1024**2)] * (length // 1024**2) + [bytes(length % 1024**2)]
        return ask(Gate(behind), path, body, method="PATCH", x_api_key=key, **said)

    assert knock(most).status == 200
    assert sum(map(len, behind.taken)) == most
    behind.taken.clear()
    answer = knock(most + 1)
    assert answer.status == 413
    assert "8\xa0MB" in answer.json["detail"]
    assert str(most) in answer.json["detail"]
    assert sum(map(len, behind.taken)) <= (0 if declared else most)


@at_the_gate
def test_the_space_for_the_whole_is_asked_for_at_the_beginning(key: str, settings: Settings) -> None:
    settings.FREE_SPACE_RESERVE_BYTES = 0
    length = {"upload_length": str(2**60)}

    assert ask(Gate(Behind()), UPLOADS, x_api_key=key, **length).status == 507
    assert ask(Gate(Behind()), UPLOADS, x_api_key=key, upload_length="10").status == 200


@at_the_gate
def test_chunks_count_among_the_uploads_under_way(key: str, settings: Settings) -> None:
    settings.MAX_UPLOADS_AT_ONCE = 0

    assert ask(Gate(Behind()), UPLOADS, x_api_key=key).status == 503
    assert ask(Gate(Behind()), f"{UPLOADS}{uuid4()}/", method="PATCH", x_api_key=key).status == 503
    assert ask(Gate(Behind()), f"{UPLOADS}{uuid4()}/", method="HEAD", x_api_key=key).status == 200


@at_the_gate
def test_a_chunk_is_written_to_the_disk_once(
    key: str, api: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = settings.UPLOAD_CHUNK_BYTES
    address, bodies_on_disk = begun(api, length), []
    monkeypatch.setattr(SpooledTemporaryFile, "rollover", bodies_on_disk.append)
    headers = {"tus_resumable": "1.0.0", "upload_offset": "0", "content_type": CHUNK, "x_api_key": key}

    answer = ask(application, address, [bytes(1024**2)] * 8, method="PATCH", content_length=str(length), **headers)

    assert answer.status == 204
    assert bodies_on_disk == []
    assert Upload.objects.get().sha256 == hashlib.sha256(bytes(length)).hexdigest()


# ------------------------------------------------------------------ with a real server


def upload_by(client: httpx.Client, content: bytes, name: str = "talk.wav") -> str:
    """Begin an upload on a real server; return its address."""
    headers = {**TUS, "Upload-Length": str(len(content)), "Upload-Metadata": f"filename {base64(name)}"}
    answer = client.post(UPLOADS, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.headers["Location"])


def chunk_by(client: httpx.Client, address: str, offset: int, content: bytes | Iterator[bytes]) -> httpx.Response:
    headers = {**TUS, "Upload-Offset": str(offset), "Content-Type": CHUNK}
    return client.patch(address, content=content, headers=headers)


def name_of(address: str) -> str:
    return address.rstrip("/").rpartition("/")[2]


def test_a_file_in_chunks_gives_the_transcript_of_the_file(nano_server: Server) -> None:
    content = SENTENCE.read_bytes()
    with nano_server.client() as client:
        address = upload_by(client, content, SENTENCE.name)
        middle = len(content) // 2
        assert chunk_by(client, address, 0, content[:middle]).status_code == 204
        # In chunks, so without its length.
        assert chunk_by(client, address, middle, iter([content[middle:]])).headers["Upload-Offset"] == str(len(content))
        answer = client.post(JOBS, json={"upload": name_of(address), "language": "en"})
        assert answer.status_code == 202, answer.text
        job = nano_server.wait(answer.json()["id"])

        whole = nano_server.transcribe(SENTENCE, language="en")
        assert (job["status"], job["text"]) == ("done", whole["text"])
        assert job["recording"]["sha256"] == whole["recording"]["sha256"] == hashlib.sha256(content).hexdigest()
        assert client.head(address, headers=TUS).status_code == 404
        assert client.get(f"{JOBS}{job['id']}/audio/").content == content
    assert not (nano_server.data / "uploads" / f"{name_of(address)}.part").exists()


def test_an_empty_upload_is_a_job_that_says_so(nano_server: Server) -> None:
    with nano_server.client() as client:
        answer = client.post(JOBS, data={"upload": name_of(upload_by(client, b""))}, files={"x": b""})
        assert answer.status_code == 400  # a form has no field x
        answer = client.post(JOBS, json={"upload": name_of(upload_by(client, b""))})
        assert answer.status_code == 202, answer.text
    assert nano_server.wait(answer.json()["id"])["error"]["code"] == "empty_file"


def test_of_chunks_for_one_place_one_wins_whole(nano_server: Server) -> None:
    size = 8 * 1024**2
    with nano_server.client() as client, ThreadPoolExecutor(4) as four:
        address = upload_by(client, bytes(2 * size))
        offers = [bytes([letter]) * size for letter in b"abcd"]
        for offset in (0, size):
            answers = list(four.map(lambda offer, at=offset: chunk_by(client, address, at, offer), offers))
            assert sorted(answer.status_code == 204 for answer in answers) == [False, False, False, True]
            assert {answer.status_code for answer in answers} <= {204, 409, 423}
            assert client.head(address, headers=TUS).headers["Upload-Offset"] == str(offset + size)
            kept = (nano_server.data / "uploads" / f"{name_of(address)}.part").read_bytes()
            winner = next(offer for offer, answer in zip(offers, answers, strict=True) if answer.status_code == 204)
            assert kept[offset:] == winner
        ((told,),) = nano_server.rows("SELECT sha256 FROM transcription_upload WHERE id = ?", _hex(address))
        assert told == hashlib.sha256(kept).hexdigest()
        assert client.delete(address, headers=TUS).status_code == 204


def _hex(address: str) -> str:
    return name_of(address).replace("-", "")


def test_an_upload_used_by_many_at_once_makes_one_job(nano_server: Server) -> None:
    content = SENTENCE.read_bytes()
    with nano_server.client() as client, ThreadPoolExecutor(4) as four:
        address = upload_by(client, content)
        assert chunk_by(client, address, 0, content).status_code == 204
        job_parameters = {"upload": name_of(address), "language": "en"}
        answers = list(four.map(lambda _: client.post(JOBS, json=job_parameters), range(4)))

        assert sorted(answer.status_code for answer in answers) == [202, 400, 400, 400]
        assert all(list(answer.json()) == ["upload"] for answer in answers if answer.status_code == 400)
        (made,) = (answer.json() for answer in answers if answer.status_code == 202)
        assert nano_server.wait(made["id"])["status"] == "done"
    assert (nano_server.data / "recordings" / made["recording"]["id"]).read_bytes() == content


def test_a_server_killed_in_the_middle_of_a_chunk_goes_on_from_the_last(
    nano_server: Server, long_recording: Path
) -> None:
    content = long_recording.read_bytes()
    third = len(content) // 3
    with nano_server.client() as client:
        address = upload_by(client, content)
        assert chunk_by(client, address, 0, content[:third]).status_code == 204
        half_sent = _half_a_chunk(nano_server, address, third, content[third:])
        assert victims.kill(nano_server, "web")
        half_sent.close()
        wait_until(nano_server.is_healthy)

    with nano_server.client() as client:
        assert client.head(address, headers=TUS).headers["Upload-Offset"] == str(third)
        assert chunk_by(client, address, third, content[third:]).status_code == 204
        answer = client.post(JOBS, json={"upload": name_of(address), **QUICKLY})
        assert answer.status_code == 202, answer.text
        made = answer.json()
        assert made["recording"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert (nano_server.data / "recordings" / made["recording"]["id"]).read_bytes() == content
    assert nano_server.wait(made["id"])["status"] == "done"
    assert not [file for file in (nano_server.data / "uploads").iterdir() if name_of(address) in file.name]


def _half_a_chunk(server: Server, address: str, offset: int, chunk: bytes) -> socket.socket:
    """A connection on which half a chunk has been sent."""
    head = (
        f"PATCH {address} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Token {server.token}\r\n"
        f"Tus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\nContent-Type: {CHUNK}\r\n"
        f"Content-Length: {len(chunk)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(head.encode() + chunk[: len(chunk) // 2])
    return connection
