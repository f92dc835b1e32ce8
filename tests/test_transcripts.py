"""The main job, through each endpoint, with the tests' own model and with real `base`."""

import asyncio
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import speech
from tests.server import NANO, ROOT, Server
from tests.speech import HEARD

SENTENCES = json.loads((NANO / "nano" / "sentences.json").read_text())
SAMPLES = ROOT / "transcription" / "samples"
SAID = {
    "en": "Hello! This short recording came with the program. It shows that everything on this computer works. "
    "Now drop your own recording on the page, and read it a moment later.",
    "ru": "Добрый день! Эта запись нужна для проверки программы. Если вы видите эти слова, программа работает. "
    "Через минуту вы увидите результат. Спасибо за внимание!",
}


def words(text: str) -> list[str]:
    """The words without what Whisper is free to choose: case, punctuation, and «это» for «эта»."""
    return re.findall(r"\w+", text.lower().replace("ё", "е").replace("это запись", "эта запись"))


def post(server: Server, path: Path, **parameters: str) -> Any:
    with server.client() as client, path.open("rb") as file:
        answer = client.post("/transcribe", files={"file": (path.name, file)}, data=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda item: item["file"])
def test_the_native_endpoint_gives_each_sentence(nano_server: Server, sentence: dict[str, Any]) -> None:
    job = nano_server.transcribe(NANO / "nano" / sentence["file"])
    assert (job["status"], job["text"], job["language"]) == ("done", sentence["text"], sentence["language"])


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda item: item["file"])
def test_the_waiting_endpoint_gives_each_sentence(nano_server: Server, sentence: dict[str, Any]) -> None:
    answer = post(nano_server, NANO / "nano" / sentence["file"], word_timestamps="true")
    assert (answer["text"], answer["language"]) == (sentence["text"], sentence["language"])
    assert answer["duration"] == pytest.approx(sentence["seconds"], abs=0.1)
    said = [word["word"] for segment in answer["segments"] for word in segment["words"]]
    assert said == sentence["text"].split()


def test_it_translates_into_english(nano_server: Server) -> None:
    russian = next(item for item in SENTENCES if item["language"] == "ru")
    answer = post(nano_server, NANO / "nano" / russian["file"], task="translate", language="ru")
    assert re.fullmatch(r"[A-Z][A-Za-z' ]+\.", answer["text"])


def test_silence_gives_no_text_and_no_error(nano_server: Server, tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    path.write_bytes(_silence(3))
    job = nano_server.transcribe(path)
    assert (job["status"], job["text"]) == ("done", "")


def _silence(seconds: int) -> bytes:
    header = b"RIFF\xff\xff\xff\x7fWAVEfmt \x10\0\0\0\x01\0\x01\0\x80>\0\0\0}\0\0\x02\0\x10\0data"
    size = seconds * 32000
    return header + size.to_bytes(4, "little") + bytes(size)


async def test_twenty_at_once_each_get_their_own(nano_server: Server) -> None:
    async with httpx.AsyncClient(
        base_url=nano_server.url, headers={"X-API-Key": nano_server.token}, timeout=120
    ) as client:

        async def one(index: int) -> tuple[str, str]:
            sentence = SENTENCES[index % len(SENTENCES)]
            content = (NANO / "nano" / sentence["file"]).read_bytes()
            answer = await client.post("/transcribe", files={"file": (f"{index}.wav", content)})
            return answer.json()["text"], sentence["text"]

        pairs = await asyncio.gather(*(one(index) for index in range(20)))
    assert [given for given, _ in pairs] == [expected for _, expected in pairs]


def test_the_compat_curl_line_works(nano_server: Server) -> None:
    for name in ("tests/test.wav", "tests/2_5258335770527167268.ogg"):
        program = [
            "curl",
            "-sS",
            "-X",
            "POST",
            f"{nano_server.url}/transcribe",
            "-F",
            f"file=@{name}",
            "-F",
            "language=ru",
        ]
        program += ["-F", "task=transcribe", "-F", "model=nano", "-F", "word_timestamps=true"]
        program += ["-H", f"Authorization: Bearer {nano_server.token}"]
        answer = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
        assert re.search(r"[а-яё]{3}", json.loads(answer.stdout)["text"])


def test_the_command_line_prints_the_transcript_alone(nano_server: Server) -> None:
    sentence = SENTENCES[0]
    done = nano_server.manage("transcribe", str(NANO / "nano" / sentence["file"]), "--model", "nano", "--format", "txt")
    assert (done.returncode, done.stdout) == (0, sentence["text"] + "\n")
    assert done.stderr


@pytest.mark.parametrize("extension", ["srt", "json"])  # the others are written by the same exporters
def test_the_command_line_writes_the_format_it_is_asked_for(nano_server: Server, extension: str) -> None:
    sentence = SENTENCES[0]
    program = ["transcribe", str(NANO / "nano" / sentence["file"]), "--model", "nano", "--format", extension]
    done = nano_server.manage(*program)
    assert done.returncode == 0, done.stderr
    assert sentence["text"] in (json.loads(done.stdout)["text"] if extension == "json" else done.stdout)


def test_the_command_line_says_what_is_wrong_with_a_file(nano_server: Server, tmp_path: Path) -> None:
    path = tmp_path / "notes.mp3"
    path.write_text("not a sound")
    done = nano_server.manage("transcribe", str(path), "--model", "nano")
    assert (done.returncode, done.stdout) == (1, "")
    assert "neither audio nor video" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "ru"])
def test_real_base_hears_the_samples_through_the_native_endpoint(base_server: Server, language: str) -> None:
    job = base_server.transcribe(SAMPLES / f"sample-{language}.ogg")
    assert (job["status"], job["language"], job["model"]) == ("done", language, "base")
    assert words(job["text"]) == words(SAID[language])


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "ru"])
def test_real_base_hears_the_samples_through_the_waiting_endpoint(base_server: Server, language: str) -> None:
    answer = post(base_server, SAMPLES / f"sample-{language}.ogg")
    assert words(answer["text"]) == words(SAID[language])
    assert answer["duration"] == pytest.approx(14.3, abs=1)


def test_the_first_start_shows_that_the_machine_can_transcribe(base_server: Server) -> None:
    log = base_server.log.read_text()
    assert words(SAID["en"]) == words(next(line for line in log.splitlines() if "Hello" in line))
    assert "times real time" in log


@pytest.mark.slow
@pytest.mark.needs("speech prompts")
@pytest.mark.parametrize(("language", "name"), [(language, name) for language in HEARD for name in HEARD[language]])
def test_real_base_hears_real_voices(base_server: Server, tmp_path: Path, language: str, name: str) -> None:
    path = tmp_path / "prompt.wav"
    speech.write(language, name, path)
    job = base_server.transcribe(path)
    assert job["language"] == language
    assert words(job["text"]) == words(speech.text(language, name))
