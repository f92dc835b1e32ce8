"""faster-whisper behind the seam."""

from pathlib import Path

import pytest

from tests.server import NANO
from transcription.whisper.engine import Sound
from transcription.whisper.engines.faster_whisper import Engine
from transcription.whisper.options import TranscriptionOptions


@pytest.fixture
def sound(tmp_path: Path) -> Sound:
    path = tmp_path / "silence.pcm"
    path.write_bytes(bytes(2 * 16000))
    return Sound(path, 0, 16000)


def test_a_model_that_does_not_load_does_no_harm_to_the_one_before(sound: Sound, tmp_path: Path) -> None:
    engine, nano, options = Engine("cpu"), NANO / "faster-whisper-nano", TranscriptionOptions(language="en")
    engine.open(1, sound, nano, options)
    engine.close(1)
    (tmp_path / "model.bin").write_bytes(b"no weights")
    with pytest.raises(RuntimeError):
        engine.open(2, sound, tmp_path, options)
    engine.open(3, sound, nano, options)
    assert engine.step()[0]["event"] == "language"
