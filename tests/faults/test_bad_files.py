"""A file that cannot be transcribed is answered in a sentence, by each endpoint."""

from pathlib import Path

import pytest

from tests.server import NANO, Server, files_below

MEDIA = NANO / "media"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "empty.mp3"
    path.touch()
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "notes.mp3"
    path.write_text("This is not a sound.\n" * 100)
    return path


@pytest.fixture
def silent_video() -> Path:
    return MEDIA / "silent.mkv"


CASES = [
    ("empty", "empty_file", "The file is empty"),
    ("text", "not_media", "neither audio nor video, although it is named notes.mp3"),
    ("silent_video", "no_audio", "no sound track"),
]


@pytest.mark.parametrize(("kind", "code", "words"), CASES)
def test_the_native_endpoint_takes_it_and_the_job_fails_with_a_sentence(
    nano_server: Server, request: pytest.FixtureRequest, kind: str, code: str, words: str
) -> None:
    job = nano_server.transcribe(request.getfixturevalue(kind))
    assert job["status"] == "failed"
    assert job["error"]["code"] == code
    assert words in job["error"]["message"]
    assert job["error"]["retryable"] is False
    assert job["recording"]["id"] in files_below(nano_server.data / "recordings")  # kept until it is deleted


@pytest.mark.parametrize(("kind", "code", "words"), CASES)
def test_the_waiting_endpoint_answers_422_with_a_sentence(
    nano_server: Server, request: pytest.FixtureRequest, kind: str, code: str, words: str
) -> None:
    path = request.getfixturevalue(kind)
    with nano_server.client() as client, path.open("rb") as file:
        answer = client.post("/transcribe", files={"file": (path.name, file)})
    assert answer.status_code == 422
    assert words in answer.json()["error"]


def test_the_sentence_is_in_the_readers_language(nano_server: Server, text: Path) -> None:
    with nano_server.client() as client, text.open("rb") as file:
        answer = client.post("/transcribe", files={"file": ("notes.mp3", file)}, headers={"Accept-Language": "ru"})
    assert "не звук и не видео" in answer.json()["error"]


def test_a_file_that_a_playlist_points_to_is_not_opened(nano_server: Server) -> None:
    job = nano_server.transcribe(MEDIA / "playlist.wav")
    assert (job["status"], job["error"]["code"]) == ("failed", "not_media")
