"""The protocol of an engine, and the capabilities of each engine as plain data.

The runner's loop (`runner.py`) drives an engine in one thread: `open` a section, `step` until the engine reports
`done`, `close` to stop early. Nothing here imports an engine's library.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from transcription.whisper.options import COMPUTE_TYPES, TranscriptionOptions


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do, and where its parts are."""

    name: str
    module: str  # of its Engine class, imported only in the runner
    package: str  # on the package index
    folder_prefix: str  # of its models: models/<prefix><name>/
    weights_files: tuple[str, ...]  # a folder that holds one of these is a model
    gpu: str  # the name of its GPU devices: "cuda", "mps"
    unsupported: frozenset[str]  # options that it cannot honour
    compute_types: tuple[str, ...]
    highest: tuple[tuple[str, float], ...] = ()  # options and the highest value of each
    exclusive: tuple[tuple[str, str], ...] = ()  # pairs of options of which it honours only the second
    preloaded: tuple[str, ...] = ()  # libraries for LD_PRELOAD of its runner on Linux, where they are installed

    @property
    def weights_file(self) -> str:
        """The usual name of its weights."""
        return self.weights_files[0]

    def weights_in(self, folder: Path) -> Path | None:
        """The weights that a folder holds for this engine, or None."""
        return next((folder / name for name in self.weights_files if (folder / name).is_file()), None)


ENGINES = {
    "mlx-whisper": Capabilities(
        name="mlx-whisper",
        module="transcription.whisper.engines.mlx_whisper",
        package="mlx-whisper",
        folder_prefix="whisper-",
        weights_files=("weights.safetensors", "weights.npz"),
        gpu="mps",
        unsupported=frozenset(
            {
                "batch_size",
                "beam_size",
                "carry_initial_prompt",
                "hotwords",
                "no_repeat_ngram_size",
                "patience",
                "repetition_penalty",
                "seed",
                "threads",
                "top_p",
            }  # fmt: skip
        ),
        compute_types=("float32", "float16"),
        highest=(("length_penalty", 1.0),),
        # MLX for Linux brings the reference BLAS, which multiplies matrices twenty times as slowly.
        preloaded=("/usr/lib/*/openblas-pthread/libblas.so.3",),
    ),
    "faster-whisper": Capabilities(
        name="faster-whisper",
        module="transcription.whisper.engines.faster_whisper",
        package="faster-whisper",
        folder_prefix="faster-whisper-",
        weights_files=("model.bin",),
        gpu="cuda",
        unsupported=frozenset({"batch_size", "carry_initial_prompt", "top_p"}),
        compute_types=COMPUTE_TYPES,
        exclusive=(("hotwords", "prefix"),),
    ),
}

# Values that every engine honours, even one that does not support the option.
NEUTRAL_VALUES = {
    "batch_size": 1,
    "beam_size": 1,
    "carry_initial_prompt": False,
    "no_repeat_ngram_size": 0,
    "patience": 1.0,
    "repetition_penalty": 1.0,
    "top_p": 1.0,
}


SampleSpans = tuple[tuple[int, int], ...]  # of a PCM file (`pcm.py`): the first sample, and the one after the last


@dataclass(frozen=True)
class Sound:
    """Spans of a PCM file that are decoded as one sound, and where in the file somebody speaks."""

    path: Path
    spans: SampleSpans
    speech: SampleSpans = ()  # the stretches with speech; (): not looked for
    places: tuple[SampleSpans, ...] = ()  # where the language is detected; (): in the first window of the sound

    def to_json(self) -> dict[str, Any]:
        """A dict that `from_json` reads."""
        return {**asdict(self), "path": str(self.path)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        places = tuple(_sample_spans(place) for place in values["places"])
        return cls(Path(values["path"]), _sample_spans(values["spans"]), _sample_spans(values["speech"]), places)


def _sample_spans(pairs: list[list[int]]) -> SampleSpans:
    return tuple((start, end) for start, end in pairs)


Event = dict[str, Any]
"""One line of JSON from the runner, about one section:

    {"event": "language", "section": 7, "language": "ru", "probability": 0.98}   of most of it, if there are several
    {"event": "segment", "section": 7, "segment": Segment.to_json()}     times from the section's start, in seconds
    {"event": "progress", "section": 7, "seconds": 21.5}                 decoded so far
    {"event": "done", "section": 7}                                      the runner adds `seconds`, the time it took
    {"event": "error", "section": 7, "code": "engine_failed", "detail": "…"}

or about the runner itself:

    {"event": "ready", "versions": {…}, "capacity": 1, "compute_types": […], "threads": 8}
    {"event": "device", "reading": {"name": "…", "memory_total_mb": 24564, "memory_used_mb": 1024, "utilization": 12}}
    {"event": "model", "model": "models/…", "state": "loading"}           then "loaded" or "error"
"""


Tell = Callable[[Event], None]
"""Passes on an event of an open section. Raises SectionClosed when the section was closed meanwhile."""


class SectionClosed(Exception):
    """The section that is being decoded was closed; the engine must forget it."""


class Engine(Protocol):
    """Decodes sections, up to `capacity` of them at once. `device` is a name such as `cpu` or `cuda:1`."""

    capacity: int
    versions: dict[str, str]  # of the libraries that decode
    compute_types: list[str]  # those of the device

    def __init__(self, device: str, tell: Tell) -> None: ...

    def open(self, section: int, sound: Sound, model: Path, options: TranscriptionOptions) -> None:
        """Accept a section, and load the model if another one is loaded. Raises what loading raises."""
        ...

    def step(self) -> None:
        """Decode the smallest piece of the open sections that the library can, and `tell` its events.

        What `tell` raises passes through.
        """
        ...

    def close(self, section: int) -> None:
        """Forget a section, finished or not. An unknown one is no error."""
        ...

    def memory_bytes(self) -> int | None:
        """The memory that the engine holds, where its device shares the machine's memory; None elsewhere.

        Called from another thread at any time.
        """
        ...
