"""The engine faster-whisper: the library's `WhisperModel.transcribe`, over CTranslate2. Imported only in the runner."""

from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.transcribe import Segment as LibrarySegment
from numpy.typing import NDArray

from transcription.whisper import languages
from transcription.whisper.engine import Event, Sound, Tell
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.result import Segment, Word
from transcription.whisper.samples import finite, read

# The decoder has room for 448 tokens. A prompt may fill half of them, and a window begins with a few special tokens.
MOST_NEW_TOKENS = 448 // 2 - 8

MOST_HOTWORD_TOKENS = 100

Loaded = tuple[Path, str, int]  # the model's folder, its compute type, its threads


class Engine:
    """One model on one device. By default int8 on a CPU and float16 on a GPU, the fastest types that keep the words."""

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
        self._load(model, options.compute_type or self.compute_type, options.threads or 0)
        if options.seed is not None:
            ctranslate2.set_random_seed(options.seed)
        self._open[section] = self._decode(section, sound, options)

    def _load(self, model: Path, compute_type: str, threads: int) -> None:
        """Load a model unless it is loaded in just this way."""
        if self._loaded == (model, compute_type, threads):
            return
        self._model = self._loaded = None  # two models at once may not fit into memory, and this one may fail to load
        self._model = WhisperModel(
            str(model),
            self.device,
            self.device_index,
            compute_type=compute_type,
            cpu_threads=threads,
            local_files_only=True,
        )
        self._loaded = (model, compute_type, threads)

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
        samples = read(sound)  # (samples,)
        detect = partial(self._detect, section) if self._model.model.is_multilingual else None
        passages = languages.detected(sound, samples, options, detect)
        language, probability = languages.main_language(passages)
        if language:
            yield {"event": "language", "section": section, "language": language, "probability": probability}
        for passage in passages if options.task != "detect" else []:
            arguments = library_arguments(passage.options(options))
            hotwords = self._shortened(options.hotwords)
            segments, info = self._model.transcribe(passage.of(samples), **{**arguments, "hotwords": hotwords})
            if not language:  # the library has detected it
                language, probability = info.language, finite(info.language_probability)
                yield {"event": "language", "section": section, "language": language, "probability": probability}
            for library_segment in segments:
                segment = passage.place(_to_segment(library_segment, with_words=options.gives_words))
                yield {"event": "segment", "section": section, "segment": segment.to_json()}
        yield {"event": "done", "section": section}

    def _detect(self, section: int, samples: NDArray[np.float32]) -> dict[str, float]:
        """The probability of each language in at most 30 s of sound."""
        assert self._model is not None  # noqa: S101
        _, _, pairs = self._model.detect_language(samples)
        self.tell({"event": "progress", "section": section, "seconds": 0.0})  # there may be many windows to listen to
        return dict(pairs)

    def _shortened(self, hotwords: str | None) -> str | None:
        """As many hotwords as leave room for new tokens beside a prompt; the library lets each of the two fill half."""
        assert self._model is not None  # noqa: S101
        tokenizer = self._model.hf_tokenizer
        tokens = tokenizer.encode(hotwords, add_special_tokens=False).ids if hotwords else []
        return hotwords if len(tokens) <= MOST_HOTWORD_TOKENS else tokenizer.decode(tokens[:MOST_HOTWORD_TOKENS])


def library_arguments(options: TranscriptionOptions) -> dict[str, Any]:
    """The arguments of `WhisperModel.transcribe`. Clips and silence are not among them; they are cut out before."""
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
        "max_new_tokens": _max_new_tokens(options),
        "word_timestamps": options.finds_words,
        "hallucination_silence_threshold": options.hallucination_silence_threshold,
        "prepend_punctuations": options.prepend_punctuations,
        "append_punctuations": options.append_punctuations,
        "vad_filter": False,
    }


def _max_new_tokens(options: TranscriptionOptions) -> int | None:
    """The limit of a window; None (what room the prompt leaves) where the library could refuse the limit."""
    if options.max_length is None or options.max_length > MOST_NEW_TOKENS:
        return None
    has_more_prompt = options.hotwords is not None or options.prefix is not None
    return None if has_more_prompt else options.max_length


def _to_segment(segment: LibrarySegment, *, with_words: bool) -> Segment:
    words = [
        Word(word.word, float(word.start), float(word.end), float(word.probability)) for word in segment.words or ()
    ]
    return Segment(
        start=float(segment.start),
        end=float(segment.end),
        text=segment.text,
        seek=segment.seek,
        tokens=tuple(segment.tokens),
        temperature=finite(segment.temperature),
        avg_logprob=finite(segment.avg_logprob),
        compression_ratio=finite(segment.compression_ratio),
        no_speech_prob=finite(segment.no_speech_prob),
        words=tuple(words) if with_words else None,
    )
