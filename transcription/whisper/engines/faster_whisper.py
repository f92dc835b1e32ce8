"""faster-whisper as its makers wrote it: `WhisperModel.transcribe` over CTranslate2. Imported only in the runner."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.transcribe import Segment as LibrarySegment
from numpy.typing import NDArray

from transcription.whisper.engine import Event, Sound, Tell
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.result import Segment, Word
from transcription.whisper.samples import finite, read

# A prompt may fill half of the 448 places; of what is left a few are for the tokens that begin a window.
LONGEST_ASKED = 448 // 2 - 8

MOST_HOTWORDS = 100  # tokens

Loaded = tuple[Path, str, int]  # where the model is, its type of numbers, its threads


class Engine:
    """One model on one device. int8 on a CPU and float16 on a GPU: the fastest that keep the words."""

    capacity = 1

    def __init__(self, device: str, tell: Tell) -> None:
        self.tell = tell
        self.device, _, index = device.partition(":")
        self.device_index = int(index or 0)
        self.compute_type = "float16" if self.device == "cuda" else "int8"
        self.compute_types = sorted(ctranslate2.get_supported_compute_types(self.device, self.device_index))
        self.versions = {name: version(name) for name in ("faster-whisper", "ctranslate2")}
        self._model: WhisperModel | None = None
        self._loaded: Loaded | None = None
        self._open: dict[int, Iterator[Event]] = {}

    def open(self, section: int, sound: Sound, model: Path, options: TranscriptionOptions) -> None:
        wanted = (model, options.compute_type or self.compute_type, options.threads or 0)
        if self._loaded != wanted:
            self._model = self._loaded = None  # two models at once may not fit, and this one may not load
            self._model = WhisperModel(
                str(model),
                self.device,
                self.device_index,
                compute_type=wanted[1],
                cpu_threads=wanted[2],
                local_files_only=True,
            )
            self._loaded = wanted
        if options.seed is not None:
            ctranslate2.set_random_seed(options.seed)
        self._open[section] = self._decode(section, sound, options)

    def step(self) -> None:
        for section, decoding in list(self._open.items()):
            event = next(decoding)
            if event["event"] == "done":
                self.close(section)
            self.tell(event)

    def close(self, section: int) -> None:
        self._open.pop(section, None)

    def memory_bytes(self) -> int | None:
        return None

    def _decode(self, section: int, sound: Sound, options: TranscriptionOptions) -> Iterator[Event]:
        assert self._model is not None  # noqa: S101  (open() loaded it)
        samples = read(sound)
        asked = {**asked_of_the_library(options), "hotwords": self._within_places(options.hotwords)}
        chosen = self._choose(samples, options.languages) if options.language is None else None
        if chosen is not None:
            asked["language"] = chosen[0]
        segments, about = self._model.transcribe(samples, **asked)
        language, probability = chosen or (about.language, finite(about.language_probability))
        yield {"event": "language", "section": section, "language": language, "probability": probability}
        for found in segments:
            segment = _segment(found, with_words=options.gives_words)
            yield {"event": "segment", "section": section, "segment": segment.to_json()}
        yield {"event": "done", "section": section}

    def _choose(self, samples: NDArray[np.float32], languages: Sequence[str]) -> tuple[str, float] | None:
        """The likeliest of some languages and how likely it is; None when there is nothing to choose."""
        assert self._model is not None  # noqa: S101
        if not languages or not self._model.model.is_multilingual:
            return None
        _, _, found = self._model.detect_language(samples)
        probabilities = dict(found)
        best = max(languages, key=lambda language: probabilities.get(language, 0.0))
        return best, finite(probabilities.get(best, 0.0))

    def _within_places(self, hotwords: str | None) -> str | None:
        """As many of the hotwords as leave places beside a prompt: the library cuts each of the two to half of all."""
        assert self._model is not None  # noqa: S101
        tokens = self._model.hf_tokenizer.encode(hotwords, add_special_tokens=False).ids if hotwords else []
        return hotwords if len(tokens) <= MOST_HOTWORDS else self._model.hf_tokenizer.decode(tokens[:MOST_HOTWORDS])


def asked_of_the_library(options: TranscriptionOptions) -> dict[str, Any]:
    """The arguments of `WhisperModel.transcribe`. Clips and silence are taken out before, the same for every engine."""
    return {
        "language": options.language,
        "task": options.task,
        "beam_size": options.beam_size,
        "best_of": options.best_of,
        "patience": options.patience,
        "length_penalty": 1.0 if options.length_penalty is None else options.length_penalty,
        "repetition_penalty": options.repetition_penalty,
        "no_repeat_ngram_size": options.no_repeat_ngram_size,
        "temperature": list(options.temperature),
        "compression_ratio_threshold": options.compression_ratio_threshold,
        "log_prob_threshold": options.logprob_threshold,
        "no_speech_threshold": options.no_speech_threshold,
        "condition_on_previous_text": options.condition_on_previous_text,
        "initial_prompt": options.initial_prompt,
        "prefix": options.prefix,
        "hotwords": options.hotwords,
        "suppress_blank": options.suppress_blank,
        "suppress_tokens": list(options.suppress_tokens),
        "without_timestamps": options.no_timestamps,
        "max_initial_timestamp": options.max_initial_timestamp,
        "max_new_tokens": _most_tokens(options),
        "word_timestamps": options.finds_words,
        "hallucination_silence_threshold": options.hallucination_silence_threshold,
        "prepend_punctuations": options.prepend_punctuations,
        "append_punctuations": options.append_punctuations,
        "vad_filter": False,
    }


def _most_tokens(options: TranscriptionOptions) -> int | None:
    """Of a window; None, which is what the prompt leaves, where the library would refuse what is asked."""
    crowded = options.hotwords is not None or options.prefix is not None
    return None if options.max_length is None or options.max_length > LONGEST_ASKED or crowded else options.max_length


def _segment(found: LibrarySegment, *, with_words: bool) -> Segment:
    words = [Word(w.word, float(w.start), float(w.end), float(w.probability)) for w in found.words or ()]
    return Segment(
        start=float(found.start),
        end=float(found.end),
        text=found.text,
        seek=found.seek,
        tokens=tuple(found.tokens),
        temperature=finite(found.temperature),
        avg_logprob=finite(found.avg_logprob),
        compression_ratio=finite(found.compression_ratio),
        no_speech_prob=finite(found.no_speech_prob),
        words=tuple(words) if with_words else None,
    )
