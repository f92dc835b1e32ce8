"""faster-whisper behind the seam."""

from pathlib import Path

import numpy as np
import pytest

from tests.server import NANO
from transcription.whisper.engine import Event, Sound
from transcription.whisper.engines.faster_whisper import Engine
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.samples import finite, read

pytestmark = pytest.mark.heavy


@pytest.fixture
def sound(tmp_path: Path) -> Sound:
    path = tmp_path / "silence.pcm"
    path.write_bytes(bytes(2 * 16000))
    return Sound(path, ((0, 16000),))


def test_a_model_that_does_not_load_does_no_harm_to_the_one_before(sound: Sound, tmp_path: Path) -> None:
    told: list[Event] = []
    engine, nano, options = (
        Engine("cpu", told.append),
        NANO / "faster-whisper-nano",
        TranscriptionOptions(language="en"),
    )
    engine.open(1, sound, nano, options)
    engine.close(1)
    (tmp_path / "model.bin").write_bytes(b"no weights")
    with pytest.raises(RuntimeError):
        engine.open(2, sound, tmp_path, options)
    engine.open(3, sound, nano, options)
    engine.step()
    assert told[0]["event"] == "language"


@pytest.mark.parametrize("measure", [float("nan"), float("inf"), None])
def test_a_measure_that_is_no_number_costs_nobody_the_text(measure: float | None) -> None:
    assert finite(measure) == 0.0


@pytest.fixture
def pcm(tmp_path: Path) -> Path:
    path = tmp_path / "ramp.pcm"
    path.write_bytes(np.arange(-500, 500, dtype="<i2").tobytes())
    return path


def test_spans_are_heard_one_after_the_other(pcm: Path) -> None:
    heard = read(Sound(pcm, ((0, 10), (400, 405), (990, 1000))))
    assert heard.dtype == np.float32
    assert (heard * 32768).tolist() == [*range(-500, -490), *range(-100, -95), *range(490, 500)]


def test_one_span_of_all_is_the_file(pcm: Path) -> None:
    assert (read(Sound(pcm, ((0, 1000),))) * 32768).tolist() == list(range(-500, 500))
