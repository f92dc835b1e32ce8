"""Real voices through real weights, beside what the library gives by itself."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import speech
from tests.server import ROOT, Server
from transcription.sound import audio

pytestmark = [pytest.mark.needs("speech prompts"), pytest.mark.slow]

EXACT = {"sections": "1", "vad_filter": "false", "temperature": "[0]"}

# What faster-whisper makes of PCM files by itself.
BY_ITSELF = """
import json, sys
import numpy as np
from faster_whisper import WhisperModel
folder, asked, *sounds = sys.argv[1:]
model = WhisperModel(folder, "cpu", compute_type="int8", local_files_only=True)
for path in sounds:
    samples = np.fromfile(path, "<i2").astype(np.float32) / 32768
    segments, _ = model.transcribe(samples, **json.loads(asked))
    print(json.dumps([[segment.start, segment.end, segment.text] for segment in segments]))
"""


def by_itself(base_weights: Path, sounds: list[Path], **asked: object) -> list[list[tuple[float, float, str]]]:
    command = [sys.executable, "-c", BY_ITSELF, str(base_weights / "faster-whisper-base"), json.dumps(asked)]
    said = subprocess.run([*command, *map(str, sounds)], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return [[(start, end, text) for start, end, text in json.loads(line)] for line in said.splitlines()]


def pcm_of(path: Path) -> Path:
    """The very samples that we decode."""
    target = path.with_suffix(".pcm")

    def ignore(_: object) -> None:
        return None

    audio.decode(
        path, target, name=path.name, max_seconds=600, on_probe=ignore, on_progress=ignore, should_stop=lambda: False
    )
    return target


def stored(server: Server, job: dict[str, Any]) -> list[tuple[float, float, str]]:
    assert job["status"] == "done", job
    return [(start, end, text) for start, end, text, _ in server.segments(job["id"])]


def told(segments: list[tuple[float, float, str]], pcm: Path) -> list[tuple[float, float, str]]:
    """Texts to the letter, times to a hundredth of a second; the library lets the last one reach beyond the end."""
    whole = pcm.stat().st_size / 32000
    return [(round(min(start, whole), 2), round(min(end, whole), 2), text) for start, end, text in segments]


@pytest.fixture(scope="module", params=["ru", "en"])
def joined(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, list[str]]:
    """Two minutes of prompts in a language: its code, the file, what is said."""
    path = tmp_path_factory.mktemp("joined") / f"{request.param}.wav"
    return request.param, path, speech.join(request.param, path, seconds=120)


@pytest.mark.parametrize("language", ["ru", "en"])
def test_single_clips_give_what_the_library_gives(
    base_server: Server, base_weights: Path, tmp_path: Path, language: str
) -> None:
    clips = []
    for index, name in enumerate(speech.sentences(language)[3:60:14]):
        clips.append(tmp_path / f"{index}.wav")
        speech.write(language, name, clips[-1])
    sounds = [pcm_of(clip) for clip in clips]
    library = by_itself(base_weights, sounds, temperature=0, language=language)
    for clip, sound, expected in zip(clips, sounds, library, strict=True):
        job = base_server.transcribe(clip, language=language, **EXACT)
        assert told(stored(base_server, job), sound) == told(expected, sound)


def test_two_minutes_uncut_give_what_the_library_gives_through_each_endpoint(
    base_server: Server, base_weights: Path, joined: tuple[str, Path, list[str]]
) -> None:
    language, path, _ = joined
    sound = pcm_of(path)
    (library,) = by_itself(base_weights, [sound], temperature=0, language=language)
    job = base_server.transcribe(path, language=language, **EXACT)
    assert told(stored(base_server, job), sound) == told(library, sound)
    with base_server.client() as client, path.open("rb") as file:
        asked = {"language": language, **EXACT}
        answer = client.post("/transcribe", files={"file": (path.name, file)}, data=asked).json()
    assert [segment["text"] for segment in answer["segments"]] == [text.strip() for _, _, text in library]
    flags = ["--language", language, "--sections", "1", "--no-vad-filter", "--temperature", "[0]"]
    done = base_server.manage("transcribe", str(path), "--model", "base", *flags)
    assert done.stdout.splitlines() == [text.strip() for _, _, text in library], done.stderr


def test_with_the_defaults_it_hears_as_many_words_as_the_library(
    base_server: Server, base_weights: Path, joined: tuple[str, Path, list[str]]
) -> None:
    language, path, said = joined
    (library,) = by_itself(base_weights, [pcm_of(path)], vad_filter=True, language=language)
    job = base_server.transcribe(path, language=language)
    ours = speech.wrong_words(" ".join(said), job["text"])
    assert ours <= speech.wrong_words(" ".join(said), "".join(text for _, _, text in library)) + 0.01
