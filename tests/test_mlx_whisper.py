"""mlx-whisper behind the seam: on MLX's CPU build here, on an Apple GPU there."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.nano import speak
from tests.server import NANO, ROOT, Server
from transcription.weights.catalogue import LocalModel
from transcription.whisper.engine import ENGINES, Sound
from transcription.whisper.options import TranscriptionOptions
from transcription.workers import devices

pytestmark = pytest.mark.needs("mlx-whisper")

MLX = ENGINES["mlx-whisper"]
SENTENCES = json.loads((NANO / "nano" / "sentences.json").read_text())
GREEDY = TranscriptionOptions(temperature=(0.0,))


@pytest.fixture(scope="module")
def runner() -> Any:
    runner = devices.Runner("cpu", MLX)
    yield runner
    runner.stop()


@pytest.fixture
def nano(mlx_models: Path) -> LocalModel:
    return LocalModel("nano", MLX.name, mlx_models / "whisper-nano", 1, False)


def pcm(source: Path, target: Path) -> Sound:
    decoding = [
        "ffmpeg",
        "-v",
        "error",
        "-y",
        "-i",
        str(source),
        "-ac",
        "1",
        "-ar",
        "16000",
        "-f",
        "s16le",
        str(target),
    ]
    subprocess.run(decoding, check=True)
    return Sound(target, ((0, target.stat().st_size // 2),))


def decode(runner: devices.Runner, sound: Sound, model: LocalModel, options: TranscriptionOptions) -> list[Any]:
    return [event for event in runner.decode(1, sound, model, options, beat=1.0) if event is not None]


def text_of(events: list[Any]) -> str:
    return "".join(event["segment"]["text"] for event in events if event["event"] == "segment").strip()


# What the library itself makes of the same samples with the same options, in a process of its own.
BY_ITSELF = """
import json, sys
import mlx.core as mx, mlx_whisper, numpy as np
mx.set_default_device(mx.cpu)
model, asked, *sounds = sys.argv[1:]
for path in sounds:
    samples = np.fromfile(path, "<i2").astype(np.float32) / 32768
    found = mlx_whisper.transcribe(samples, path_or_hf_repo=model, fp16=False, **json.loads(asked))
    said = [segment for segment in found["segments"] if segment["text"].strip()]
    kept = [{name: segment[name] for name in ("start", "end", "text", "tokens")} for segment in said]
    print(json.dumps({"language": found["language"], "segments": kept}))
"""


def by_itself(model: Path, sounds: list[Sound], **asked: object) -> list[dict[str, Any]]:
    environment = {**os.environ, **devices._preloading(MLX)}
    command = [sys.executable, "-c", BY_ITSELF, str(model), json.dumps(asked), *(str(sound.path) for sound in sounds)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def test_it_gives_what_the_library_gives_by_itself(runner: devices.Runner, nano: LocalModel, tmp_path: Path) -> None:
    sounds = [pcm(NANO / "nano" / item["file"], tmp_path / f"{i}.pcm") for i, item in enumerate(SENTENCES)]
    for sound, library in zip(sounds, by_itself(nano.path, sounds, temperature=0.0), strict=True):
        events = decode(runner, sound, nano, GREEDY)
        ours = [event["segment"] for event in events if event["event"] == "segment"]
        assert [{name: s[name] for name in ("start", "end", "text", "tokens")} for s in ours] == library["segments"]
        assert next(event["language"] for event in events if event["event"] == "language") == library["language"]


@pytest.mark.slow
def test_real_speech_gives_what_the_library_gives_by_itself(
    runner: devices.Runner, base_weights: Path, tmp_path: Path
) -> None:
    model = tmp_path / "whisper-base"
    subprocess.run(
        [sys.executable, "-c", CONVERT, str(base_weights / "faster-whisper-base"), str(model)], cwd=ROOT, check=True
    )
    sounds = [pcm(ROOT / f"transcription/samples/sample-{name}.ogg", tmp_path / f"{name}.pcm") for name in ("en", "ru")]
    base = LocalModel("base", MLX.name, model, 1, True)
    for sound, library in zip(sounds, by_itself(model, sounds, temperature=0.0), strict=True):
        ours = text_of(decode(runner, sound, base, GREEDY))
        assert ours == "".join(segment["text"] for segment in library["segments"]).strip()
        assert len(ours) > 80


CONVERT = """
import sys
from pathlib import Path
from transcription.whisper.convert import ctranslate2_to_mlx
ctranslate2_to_mlx(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_its_progress_bar_is_our_progress(
    runner: devices.Runner, nano: LocalModel, long_recording: Path, tmp_path: Path
) -> None:
    sound = pcm(long_recording, tmp_path / "long.pcm")
    events = decode(runner, sound, nano, TranscriptionOptions(language="en", temperature=(0.0,)))
    progress = [event["seconds"] for event in events if event["event"] == "progress"]
    assert len(progress) >= 3
    assert progress == sorted(progress)
    assert progress[-1] <= sound.spans[0][1] / 16000 + 0.1


def test_a_section_that_nobody_wants_is_left_at_its_window(
    nano: LocalModel, long_recording: Path, tmp_path: Path, runner: devices.Runner
) -> None:
    sound = pcm(long_recording, tmp_path / "long.pcm")
    runner.start()
    before = runner.pid
    options = TranscriptionOptions(language="en", temperature=(0.0,))
    decoding = runner.decode(2, sound, nano, options, beat=1.0)
    while (next(decoding) or {}).get("event") != "progress":
        pass
    decoding.close()
    assert runner.pid == before
    again = pcm(NANO / "nano" / SENTENCES[0]["file"], tmp_path / "again.pcm")
    assert text_of(decode(runner, again, nano, GREEDY)) == SENTENCES[0]["text"]


def test_another_type_of_numbers_loads_the_model_anew(runner: devices.Runner, nano: LocalModel, tmp_path: Path) -> None:
    sound = pcm(NANO / "nano" / SENTENCES[0]["file"], tmp_path / "a.pcm")
    for compute_type in ("float32", "float16", "float32"):
        options = TranscriptionOptions(temperature=(0.0,), compute_type=compute_type)
        events = decode(runner, sound, nano, options)
        assert text_of(events) == SENTENCES[0]["text"]


@pytest.mark.parametrize(
    ("languages", "expected"), [(("ru", "en"), {"en"}), (("ru", "uk"), {"ru", "uk"}), ((), {"en"})]
)
def test_the_language_is_chosen_among_those_that_are_named(
    runner: devices.Runner, nano: LocalModel, tmp_path: Path, languages: tuple[str, ...], expected: set[str]
) -> None:
    sound = pcm(NANO / "nano" / "bears.wav", tmp_path / "bears.pcm")

    events = decode(runner, sound, nano, TranscriptionOptions(languages=languages))

    assert {event["language"] for event in events if event["event"] == "language"} <= expected


@pytest.mark.needs("espeak-ng")
def test_each_passage_is_decoded_in_its_language(runner: devices.Runner, nano: LocalModel, tmp_path: Path) -> None:
    said = [("ru", "Десять кошек спят в доме."), ("en", "Nine mice sing in the forest.")]
    both, speech, done = b"", [], 0
    for language, text in said:
        sound = pcm(speak(text, language, tmp_path / f"{language}.wav"), tmp_path / f"{language}.pcm")
        samples = sound.spans[0][1]
        speech.append((done, done + samples))
        both += sound.path.read_bytes() + bytes(2 * 16000)
        done += samples + 16000
    (tmp_path / "both.pcm").write_bytes(both)
    sound = Sound(tmp_path / "both.pcm", ((0, done),), tuple(speech))

    events = decode(runner, sound, nano, replace(GREEDY, multilingual=True, word_timestamps=True))

    segments = [event["segment"] for event in events if event["event"] == "segment"]
    assert [(segment["language"], segment["text"].strip()) for segment in segments] == said
    assert segments[1]["start"] >= segments[0]["end"]
    assert segments[1]["words"][0]["start"] * 16000 == pytest.approx(speech[1][0], abs=16000)
    progress = [event["seconds"] for event in events if event["event"] == "progress"]
    assert progress == sorted(progress)


def test_words_have_times(runner: devices.Runner, nano: LocalModel, tmp_path: Path) -> None:
    sound = pcm(NANO / "nano" / SENTENCES[0]["file"], tmp_path / "a.pcm")
    events = decode(runner, sound, nano, TranscriptionOptions(word_timestamps=True, temperature=(0.0,)))
    words = [word for event in events if event["event"] == "segment" for word in event["segment"]["words"]]
    assert "".join(word["word"] for word in words).strip() == SENTENCES[0]["text"]
    assert all(0 <= word["start"] <= word["end"] for word in words)


def test_a_server_with_this_engine_transcribes(mlx_server: Server) -> None:
    sentence = next(item for item in SENTENCES if item["language"] == "ru")
    job = mlx_server.transcribe(NANO / "nano" / sentence["file"], word_timestamps="true")
    assert (job["status"], job["text"], job["language"]) == ("done", sentence["text"], "ru")
    assert job["engine"] == "mlx-whisper"
    assert set(job["versions"]) == {"mlx-whisper", "mlx"}


@pytest.mark.slow
def test_a_long_recording_is_cut_and_done_whole(mlx_server: Server, lecture: Path) -> None:
    job = mlx_server.transcribe(lecture, language="en", temperature="[0]")
    assert job["status"] == "done", job
    assert len(job["text"].split()) > 200
