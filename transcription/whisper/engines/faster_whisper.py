"""faster-whisper as its makers wrote it: `WhisperModel.transcribe` over CTranslate2. Imported only in the runner."""

import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from faster_whisper import WhisperModel
from numpy.typing import NDArray

from transcription.whisper.engine import Event, Sound
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.result import Segment, Word


class Engine:
    """One model on one device. int8 on a CPU and float16 on a GPU: the fastest that keep the words."""

    capacity = 1

    def __init__(self, device: str) -> None:
        self.device, _, index = device.partition(":")
        self.device_index = int(index or 0)
        self.compute_type = "float16" if self.device == "cuda" else "int8"
        self.versions = {name: version(name) for name in ("faster-whisper", "ctranslate2")}
        self._model: WhisperModel | None = None
        self._model_path: Path | None = None
        self._open: dict[int, Iterator[Event]] = {}

    def open(self, section: int, sound: Sound, model: Path, options: TranscriptionOptions) -> None:
        if self._model_path != model:
            self._model = self._model_path = None  # two models at once may not fit, and this one may not load
            self._model = WhisperModel(
                str(model), self.device, self.device_index, self.compute_type, local_files_only=True
            )
            self._model_path = model
        self._open[section] = self._decode(section, sound, options)

    def step(self) -> list[Event]:
        events = []
        for section, decoding in list(self._open.items()):
            event = next(decoding)
            events.append(event)
            if event["event"] == "done":
                self.close(section)
        return events

    def close(self, section: int) -> None:
        self._open.pop(section, None)

    def _decode(self, section: int, sound: Sound, options: TranscriptionOptions) -> Iterator[Event]:
        assert self._model is not None  # noqa: S101  (open() loaded it)
        segments, about = self._model.transcribe(
            read(sound),
            language=options.language,
            task=options.task,
            beam_size=options.beam_size,
            temperature=list(options.temperature),
            initial_prompt=options.initial_prompt,
            word_timestamps=options.word_timestamps,
            vad_filter=False,  # silence is taken out before, the same for every engine
        )
        probability = _number(about.language_probability)
        yield {"event": "language", "section": section, "language": about.language, "probability": probability}
        for found in segments:
            segment = Segment(
                start=float(found.start),
                end=float(found.end),
                text=found.text,
                seek=found.seek,
                tokens=tuple(found.tokens),
                temperature=_number(found.temperature),
                avg_logprob=_number(found.avg_logprob),
                compression_ratio=_number(found.compression_ratio),
                no_speech_prob=_number(found.no_speech_prob),
                words=None
                if found.words is None
                else tuple(Word(w.word, float(w.start), float(w.end), float(w.probability)) for w in found.words),
            )
            yield {"event": "segment", "section": section, "segment": segment.to_json()}
        yield {"event": "done", "section": section}


def _number(value: float | None) -> float:
    """A measure as JSON has it: NaN, which a model may give for one, is 0 and costs nobody the text."""
    return float(value) if value is not None and math.isfinite(value) else 0.0


def read(sound: Sound) -> NDArray[np.float32]:
    """The samples of a sound as floats in [-1, 1).  # (samples,)"""
    samples = np.memmap(sound.path, dtype="<i2", mode="r")
    floats = np.concatenate([samples[start:end] for start, end in sound.spans], dtype=np.float32)
    floats /= 32768.0  # in place: an hour is 230 MB
    return floats
