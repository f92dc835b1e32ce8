"""Asking a child process where somebody speaks."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import NANO
from transcription import errors
from transcription.sound import audio, speech
from transcription.sound.speech import SpeechFinder

pytestmark = pytest.mark.heavy


@pytest.fixture
def finder() -> Iterator[SpeechFinder]:
    finder = SpeechFinder()
    yield finder
    finder.stop()


@pytest.fixture
def pcm(tmp_path: Path) -> Path:
    """A sentence between two silences of two seconds."""
    path = tmp_path / "sound.pcm"
    sentence = tmp_path / "sentence.pcm"
    heard = {"on_probe": lambda _: None, "on_progress": lambda _: None, "should_stop": lambda: False}
    audio.decode(NANO / "nano" / "bears.wav", sentence, name="bears.wav", max_seconds=60, **heard)
    path.write_bytes(bytes(64000) + sentence.read_bytes() + bytes(64000))
    return path


def ignore(seconds: float) -> None:
    """Nobody waits."""


def test_it_tells_where_speech_is(finder: SpeechFinder, pcm: Path) -> None:
    stretches = finder.find(pcm, on_beat=ignore).stretches
    assert stretches[0][0] == pytest.approx(2.0, abs=0.3)
    assert stretches[-1][1] == pytest.approx(pcm.stat().st_size / 32000 - 2.0, abs=0.3)


def test_several_threads_ask_one_child(finder: SpeechFinder, pcm: Path) -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(finder.find(pcm, on_beat=ignore))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(stretches == found[0] for stretches in found)


def test_a_child_that_dies_fails_who_asked_and_the_next_gets_another(finder: SpeechFinder, pcm: Path) -> None:
    def kill(seconds: float) -> None:
        assert finder._child is not None
        os.kill(finder._child.pid, signal.SIGKILL)

    with pytest.raises(errors.EngineFailed):
        finder.find(pcm, on_beat=kill)
    assert finder.find(pcm, on_beat=ignore).stretches


def test_a_child_that_says_no_more_is_replaced_though_it_lives(
    finder: SpeechFinder, pcm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dying process closes its pipes before the kernel calls it dead."""
    with monkeypatch.context() as patch:
        patch.setattr(speech, "PROGRAM", ("-c", "import os, time; os.close(1); time.sleep(60)"))
        with pytest.raises(errors.EngineFailed):
            finder.find(pcm, on_beat=ignore)

    def lose_patience(seconds: float) -> None:
        assert time.monotonic() - began < 30

    began = time.monotonic()
    assert finder.find(pcm, on_beat=lose_patience).stretches


def test_what_the_beat_raises_passes_through_and_the_child_goes_on(finder: SpeechFinder, pcm: Path) -> None:
    def lost(seconds: float) -> None:
        raise errors.LeaseLost

    with pytest.raises(errors.LeaseLost):
        finder.find(pcm, on_beat=lost)
    assert finder.find(pcm, on_beat=ignore).stretches


def test_a_file_that_is_not_there_is_an_error_in_words(finder: SpeechFinder, tmp_path: Path) -> None:
    with pytest.raises(errors.EngineFailed, match="FileNotFoundError"):
        finder.find(tmp_path / "nothing.pcm", on_beat=ignore)


def test_it_tells_nobody_outside(
    finder: SpeechFinder, pcm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime marks the temporary folder when its reports are on."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    finder.find(pcm, on_beat=ignore)
    assert list((tmp_path / "temporary").iterdir()) == []
