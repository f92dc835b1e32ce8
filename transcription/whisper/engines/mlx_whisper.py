"""The engine mlx-whisper: the library's `mlx_whisper.transcribe`.

Imported only in the runner, whose main thread owns MLX. The library decodes a section in one call and returns its
segments at the end; until then its progress bar shows how far it is.
"""

import importlib
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import mlx.core as mx
import numpy as np
from mlx_whisper.audio import N_FRAMES, N_SAMPLES, log_mel_spectrogram, pad_or_trim
from numpy.typing import NDArray

from transcription.whisper import languages
from transcription.whisper.engine import Sound, Tell
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.pcm import SAMPLE_RATE
from transcription.whisper.result import Segment, Word
from transcription.whisper.samples import finite, read

# An import statement would give the function of the same name, which the package puts in the module's place.
library: Any = importlib.import_module("mlx_whisper.transcribe")

FRAMES_A_SECOND = 100
CACHE_BYTES = 512 * 1024**2  # without a limit MLX keeps a buffer for each length of sound that it has decoded
MOST_NEW_TOKENS = 448 // 2  # of the decoder's 448 tokens, a prompt may fill the other half


class Engine:
    """One model on one device. By default float16 on a GPU and float32 on a CPU, which has no shorter type."""

    capacity = 1

    def __init__(self, device: str, tell: Tell) -> None:
        self.tell = tell
        self.versions = {name: version(name) for name in ("mlx-whisper", "mlx")}
        self.compute_types = ["float16", "float32"]
        self.is_on_gpu = device != "cpu"
        self.compute_type = "float16" if self.is_on_gpu else "float32"
        mx.set_default_device(mx.gpu if self.is_on_gpu else mx.cpu)
        mx.set_cache_limit(CACHE_BYTES)
        self._loaded: tuple[Path, mx.Dtype] | None = None
        self._open: dict[int, tuple[Sound, TranscriptionOptions]] = {}

    def open(self, section: int, sound: Sound, model: Path, options: TranscriptionOptions) -> None:
        self._load(model, getattr(mx, options.compute_type or self.compute_type))
        self._open[section] = (sound, options)

    def _load(self, model: Path, dtype: mx.Dtype) -> None:
        """Load a model unless it is loaded in this type; the library itself would compare the path alone."""
        if self._loaded == (model, dtype):
            return
        holder = library.ModelHolder
        # Two models at once may not fit into memory, and this one may fail to load.
        holder.model = holder.model_path = self._loaded = None
        mx.clear_cache()
        holder.get_model(str(model), dtype)
        self._loaded = (model, dtype)

    def step(self) -> None:
        for section, (sound, options) in list(self._open.items()):
            try:
                self._decode(section, sound, options)
            finally:
                self.close(section)
            self.tell({"event": "done", "section": section})

    def close(self, section: int) -> None:
        if self._open.pop(section, None) is not None:
            mx.clear_cache()

    def memory_bytes(self) -> int | None:
        """The memory of an Apple GPU is the machine's."""
        return int(mx.get_active_memory()) if self.is_on_gpu else None

    def _decode(self, section: int, sound: Sound, options: TranscriptionOptions) -> None:
        assert self._loaded is not None  # noqa: S101  (open() loaded it)
        samples = read(sound)  # (samples,)
        path, dtype = self._loaded
        detect = partial(self._detect, section, dtype) if library.ModelHolder.model.is_multilingual else None
        passages = languages.detected(sound, samples, options, detect, is_library_silent=True)
        language, probability = languages.main_language(passages)
        self.tell({"event": "language", "section": section, "language": language, "probability": probability})
        for passage in passages if options.task != "detect" else []:
            seconds = passage.start / SAMPLE_RATE
            library.tqdm = SimpleNamespace(tqdm=lambda seconds=seconds, **_: _ProgressBar(section, self.tell, seconds))
            result = library.transcribe(
                passage.of(samples),
                path_or_hf_repo=str(path),
                verbose=False,  # shows the progress bar; None would not
                fp16=dtype == mx.float16,
                **library_arguments(passage.options(options)),
            )
            for library_segment in result["segments"]:
                if library_segment["text"].strip():  # the library empties a segment that it discards
                    segment = passage.place(_to_segment(library_segment, with_words=options.gives_words))
                    self.tell({"event": "segment", "section": section, "segment": segment.to_json()})

    def _detect(self, section: int, dtype: mx.Dtype, samples: NDArray[np.float32]) -> dict[str, float]:
        """The probability of each language in at most 30 s of sound, as `mlx_whisper.transcribe` finds it."""
        model = library.ModelHolder.model
        mel = log_mel_spectrogram(samples[:N_SAMPLES], n_mels=model.dims.n_mels, padding=N_SAMPLES)  # (frames, mels)
        mel = pad_or_trim(mel, N_FRAMES, axis=-2).astype(dtype)  # (3000, mels)
        _, probabilities = model.detect_language(mel)
        self.tell({"event": "progress", "section": section, "seconds": 0.0})  # there may be many windows to listen to
        return dict(probabilities)


class _ProgressBar:
    """Takes the place of tqdm's progress bar in the library, and reports progress after each window.

    `seconds` are those before the passage that the library decodes.
    """

    def __init__(self, section: int, tell: Tell, seconds: float) -> None:
        self.section = section
        self.tell = tell
        self.seconds = seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to clean up."""

    def update(self, frames: int) -> None:
        self.seconds += frames / FRAMES_A_SECOND
        self.tell({"event": "progress", "section": self.section, "seconds": self.seconds})


def library_arguments(options: TranscriptionOptions) -> dict[str, Any]:
    """The arguments of `mlx_whisper.transcribe`. Clips and silence are not among them; they are cut out before."""
    return {
        "language": options.language,
        "task": options.task,
        "temperature": options.temperature,
        "best_of": options.best_of,
        "length_penalty": options.length_penalty,
        "compression_ratio_threshold": options.compression_ratio_threshold,
        "logprob_threshold": options.logprob_threshold,
        "no_speech_threshold": options.no_speech_threshold,
        "condition_on_previous_text": options.condition_on_previous_text,
        "initial_prompt": options.initial_prompt,
        "prefix": options.prefix,
        "suppress_blank": options.suppress_blank,
        "suppress_tokens": list(options.suppress_tokens),
        "without_timestamps": options.no_timestamps,
        "max_initial_timestamp": options.max_initial_timestamp,
        "sample_len": None if options.max_length is None else min(options.max_length, MOST_NEW_TOKENS),
        "word_timestamps": options.finds_words,
        "hallucination_silence_threshold": options.hallucination_silence_threshold,
        "prepend_punctuations": options.prepend_punctuations,
        "append_punctuations": options.append_punctuations,
    }


def _to_segment(segment: dict[str, Any], *, with_words: bool) -> Segment:
    words = [
        Word(word["word"], float(word["start"]), float(word["end"]), finite(word["probability"]))
        for word in segment.get("words") or ()
    ]
    return Segment(
        start=float(segment["start"]),
        end=float(segment["end"]),
        text=segment["text"],
        seek=int(segment["seek"]),
        tokens=tuple(segment["tokens"]),
        temperature=finite(segment["temperature"]),
        avg_logprob=finite(segment["avg_logprob"]),
        compression_ratio=finite(segment["compression_ratio"]),
        no_speech_prob=finite(segment["no_speech_prob"]),
        words=tuple(words) if with_words else None,
    )
