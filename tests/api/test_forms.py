"""Clients send a recording under a name in any bytes, in every form that a multipart body can have."""

from base64 import b64encode
from collections.abc import Iterator
from typing import Any, BinaryIO, cast
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from transcription.api.file_names import LONGEST_NAME, repaired_name
from transcription.api.form_parts import RepairedForm
from transcription.models import Job, Recording

SOUND = b"RIFF" + bytes(range(256)) * 8
FORM = "multipart/form-data; boundary=x"
ENDPOINTS = (
    "/api/v1/jobs/", "/api/v1/batches/", "/transcribe", "/api/transcribe", "/asr", "/v1/audio/transcriptions",
    "/v1/audio/translations",
)  # fmt: skip


def a_form(*parts: tuple[bytes, bytes]) -> bytes:
    """A body of parts: each a Content-Disposition's options and what comes after, and the content."""
    return b"".join(
        b"--x\r\nContent-Disposition: form-data; " + options + b"\r\n\r\n" + content + b"\r\n"
        for options, content in parts
    ) + b"--x--\r\n"  # fmt: skip


def send(api: Client, *parts: tuple[bytes, bytes], path: str = "/api/v1/jobs/") -> Any:
    return api.generic("POST", path, a_form(*parts), content_type=FORM)


def name_of(api: Client, options: bytes, content: bytes = SOUND) -> str:
    """The name under which a file is taken whose part has these options."""
    answer = send(api, (b'name="file"; ' + options, content))
    assert answer.status_code == 202, answer.content
    recording = Recording.objects.latest("created_at")
    assert recording.path.read_bytes() == content
    return recording.original_name


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_name_from_a_windows_shell_is_taken_at_every_endpoint(api: Client, ends: dict[str, Any], path: str) -> None:
    name = b'name="file"; filename="' + "Моя лекция №1.mp3".encode("cp1251") + b'"'
    answer = send(api, (name, SOUND), (b'name="language"', b"ru"), path=path)

    assert answer.status_code in (200, 202), answer.content
    assert Recording.objects.get().original_name == "Моя лекция №1.mp3"


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_file_without_a_name_is_taken_at_every_endpoint(api: Client, ends: dict[str, Any], path: str) -> None:
    answer = send(api, (b'name="file"', SOUND), path=path)

    assert answer.status_code in (200, 202), answer.content
    recording = Recording.objects.get()
    assert (recording.original_name, recording.path.read_bytes()) == ("recording", SOUND)


def test_the_page_takes_both(owner: User, client: Client) -> None:
    client.force_login(owner)
    fields = [(b'name="language"', b"auto"), (b'name="model"', b"nano"), (b'name="task"', b"transcribe")]
    name = b'name="file"; filename="' + "Лекция.mp3".encode("cp1251") + b'"'
    answer = send(client, *fields, (b'name="beam_size"', b"5"), (name, SOUND), (b'name="file"', SOUND), path="/")

    assert answer.status_code == 302, answer.content
    assert {recording.original_name for recording in Recording.objects.all()} == {"Лекция.mp3", "recording"}


@pytest.mark.parametrize("encoding", ["utf-8", "cp1251", "cp866"])
@pytest.mark.parametrize(
    "name",
    [
        "Лекция.mp3", "лекция 12.mp3", "ЛЕКЦИЯ.WAV", "МояЛекция.mp3", "Иванов И.И. — доклад.ogg", "«Ёлка».mp3",
        "Встреча с Ivan Petrov.mp3", "запись_79161234567.wav", "да.mp3", "Українська мова.mp3",
    ],
)  # fmt: skip
def test_a_russian_name_is_read_in_the_encodings_of_russian(name: str, encoding: str) -> None:
    try:
        assert repaired_name(name.encode(encoding)) == name
    except UnicodeEncodeError:
        assert encoding == "cp866"  # which has no dash and no guillemets


@pytest.mark.parametrize(
    "name",
    [
        "Café.mp3", "Müller Straße.wav", "Über.mp3", "Señor Ñandú.mp3", "Þórður.mp3", "São João.mp3", "Åsa på ö.mp3",
        "À bientôt.mp3", "Für Élise – 2.mp3", "Ü.mp3", "Smørrebrød.mp3", "1½ hours.mp3",
    ],
)  # fmt: skip
def test_a_western_name_is_not_taken_for_russian(name: str) -> None:
    assert repaired_name(name.encode("cp1252")) == repaired_name(name.encode()) == name


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (b'filename="lecture.mp3"', "lecture.mp3"),
        (b"filename=lecture.mp3", "lecture.mp3"),
        (b"filename=" + "Лекция 1.mp3".encode("cp1251"), "Лекция 1.mp3"),
        (b"filename*=UTF-8''" + quote("Лекция.mp3").encode(), "Лекция.mp3"),
        (b"filename*=windows-1251''%CB%E5%EA%F6%E8%FF.mp3", "Лекция.mp3"),
        (b"filename*=utf-8''%CB%E5%EA%F6%E8%FF.mp3", "Лекция.mp3"),  # it is not what it says
        (b"filename*=klingon''%CB%E5%EA%F6%E8%FF.mp3", "Лекция.mp3"),
        (b"filename=\"fallback.mp3\"; filename*=UTF-8''%D0%AF%20%D0%B8.mp3", "Я и.mp3"),
        (b"filename*=UTF-8''%D0%AF%20%D0%B8.mp3; filename=\"fallback.mp3\"", "Я и.mp3"),
        (b'filename*0="lec"; filename*1="ture.mp3"', "lecture.mp3"),
        (b"filename*=a'b'c'd", "c'd"),
        (b'filename="%D0%9B%D0%B5%D0%BA%D1%86%D0%B8%D1%8F%201.mp3"', "Лекция 1.mp3"),
        (b"filename=%CB%E5%EA%F6%E8%FF.mp3", "Лекция.mp3"),
        (b'filename="my%20talk.mp3"', "my%20talk.mp3"),
        (b'filename="100%ABV.mp3"', "100%ABV.mp3"),
        (b'filename="=?utf-8?B?0JvQtdC60YbQuNGP?= 1.mp3"', "Лекция 1.mp3"),
        (b'filename="=?klingon?B?0JvQ?=.mp3"', "=?klingon?B?0JvQ?=.mp3"),
        (b'filename="&#1051;&#1077;.mp3"', "Ле.mp3"),
        (b'filename="a%22b.mp3"', 'a"b.mp3'),
        (b'filename="a"b.mp3"', 'a"b.mp3'),
        (b'filename="a\\"b;c.mp3"', 'a"b;c.mp3'),
        (b'FileName="a.mp3"', "a.mp3"),
        (b'filename="a.mp3"\r\nContent-Type: audio/mpeg; name="\xcb\xe5"', "a.mp3"),
        (b'filename="a.mp3"\r\nX-Junk \xff\r\nContent-Length: ten', "a.mp3"),
        (b'\r\n filename="folded.mp3"', "folded.mp3"),
    ],
)
def test_a_name_is_understood_however_it_is_written(api: Client, options: bytes, name: str) -> None:
    assert name_of(api, options) == name


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (b'filename="\0"', "recording"),
        (b'filename="a\0\n\tb.mp3"', "ab.mp3"),
        (b'filename="a\r\nb.mp3"', '"a'),
        (b'filename=""', "recording"),
        (b'filename=".."', "recording"),
        (b'filename="&#46;&#46;"', "recording"),
        (b'filename="a/"', "recording"),
        (b'filename="../../etc/passwd"', "passwd"),
        (b'filename="C:\\Users\\Anna\\talk.mp3"', "talk.mp3"),
        (b'filename="%2e%2e%2fetc%2fpasswd"', "%2e%2e%2fetc%2fpasswd"),
        (b'filename="%D0%9B/%2e%2e/a.mp3"', "a.mp3"),
        (b'filename="\xed\xa0\x80\xed\xa0\x80.mp3"', ".mp3"),  # lone surrogates
        (b'filename="\xed\xa0\xbd\xed\xb8\x80.mp3"', "😀.mp3"),  # a pair, each in three bytes
        (b'filename="' + "Лекция".encode()[:-1] + b'.mp3"', "Лекци.mp3"),  # a letter is cut in half
        (b'filename="\xe2\x80\xae3pm.exe"', "3pm.exe"),
        (b'filename="0"', "0"),
    ],
)
def test_a_hostile_name_is_made_harmless(api: Client, options: bytes, name: str) -> None:
    assert name_of(api, options) == name


@pytest.mark.parametrize(
    "long", ["a" * 10_000, "&" * 10_000, "Ж" * 10_000, "%D0%96" * 10_000, "=?utf-8?Q?" + "a" * 10_000 + "?="]
)
def test_a_long_name_is_cut(api: Client, long: str) -> None:
    name = name_of(api, b'filename="' + long.encode("cp1251") + b'.mp3"')
    assert 200 < len(name.encode()) <= LONGEST_NAME


def test_a_file_whose_part_has_no_field_name_is_the_file(api: Client) -> None:
    assert send(api, (b'filename="a.mp3"', SOUND)).status_code == 202


@pytest.mark.parametrize(
    "parts",
    [
        [(b'name="file"', b"")],
        [(b'name="file"; filename=""\r\nContent-Type: application/octet-stream', b"")],
        [(b'name="file"', b"talk.mp3")],  # whoever forgets the @ of curl
        [(b'name="file"', "Лекция.mp3".encode("cp1251"))],
        [(b'name="sound"; filename=""', b"")],
        [(b'name="fil', SOUND)],
        [],
    ],
)
def test_what_is_no_file_is_none(api: Client, parts: list[tuple[bytes, bytes]]) -> None:
    answer = send(api, *parts)

    assert answer.status_code == 400
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="' + b"a" * 200_000 + b'"\r\n\r\na\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\nbroken off',
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"',
        b"--x" * 3000,
        b"--x\r\n\r\n\r\n" * 3000,
        b"--x--",
        b"",
    ],
)
def test_a_body_that_is_no_form_is_refused(api: Client, body: bytes) -> None:
    for path in ("/api/v1/jobs/", "/transcribe", "/v1/audio/transcriptions"):
        assert api.generic("POST", path, body, content_type=FORM).status_code == 400
    assert not Job.objects.exists()


@pytest.mark.parametrize("encoding", ["utf-8", "cp1251", "cp866"])
def test_a_field_from_a_windows_shell_is_read_too(api: Client, encoding: str) -> None:
    prompt = "Анна Каренина, Стива Облонский. " * 200
    fields = ((b'name="initial_prompt"', prompt.encode(encoding)), (b'name="language"', "русский".encode(encoding)))
    assert send(api, *fields, (b'name="file"; filename="a.mp3"', SOUND)).status_code == 202

    options = Job.objects.get().transcription_options
    assert (options.initial_prompt, options.language) == (prompt.strip(), "ru")


def test_a_part_in_base64_is_decoded(api: Client) -> None:
    assert name_of(api, b'filename="a.mp3"') == "a.mp3"
    options = b'name="file"; filename="b.mp3"\r\nContent-Transfer-Encoding: base64'
    assert send(api, (options, b"UklGRg==")).status_code == 202
    assert Recording.objects.latest("created_at").path.read_bytes() == b"RIFF"


def test_an_upload_in_chunks_has_its_name_repaired(api: Client) -> None:
    def named(name: bytes) -> Any:
        metadata = f"filename {b64encode(name).decode()}"
        headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "10", "Upload-Metadata": metadata}
        return api.post("/api/v1/uploads/", headers=headers).json()["name"]

    assert named("Лекция.mp3".encode("cp1251")) == "Лекция.mp3"
    assert named(b"../\xed\xa0\x80\0a.mp3") == "a.mp3"


# ------------------------------------------------------------------ the stream


class Slowly:
    """A body that comes in pieces of any size."""

    def __init__(self, body: bytes, sizes: Iterator[int]) -> None:
        self.body, self.sizes, self.at = body, sizes, 0

    def read(self, _size: int) -> bytes:
        before, self.at = self.at, self.at + next(self.sizes)
        return self.body[before : self.at]


def repaired(body: bytes, size: int, boundary: bytes = b"x") -> tuple[bytes, list[str]]:
    form = RepairedForm(cast(BinaryIO, Slowly(body, iter(lambda: size, 0))), boundary)
    return b"".join(iter(form.read, b"")), form.names


@given(st.integers(1, 200), st.lists(st.binary(max_size=50) | st.sampled_from([b"\r\n", b"--", b"\r\n--", b"-"])))
def test_the_pieces_in_which_a_form_comes_do_not_matter(size: int, contents: list[bytes]) -> None:
    body = a_form(*((b'name="file"; filename="\xcb\xe5\xea.mp3"', content) for content in contents))

    assert repaired(body, size) == repaired(body, len(body) + 1)


@given(st.binary(max_size=300) | st.lists(st.sampled_from([
    b"--x", b"\r\n", b"\r\n\r\n", b"Content-Disposition: form-data", b"; name=", b"; filename", b"*", b"0", b"=", b'"',
    b"file", b"'", b"%", b"\xff", b":", b"--",
]), max_size=40).map(b"".join))  # fmt: skip
def test_nothing_is_lost_and_no_bytes_are_an_error(noise: bytes) -> None:
    text, names = repaired(b"--x" + noise + b"\r\n--x--", 7)

    assert text.endswith(b"--x--")
    assert all(0 < len(name.encode()) <= LONGEST_NAME for name in names)
