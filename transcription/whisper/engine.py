"""The seam: what an engine promises, and what each one can do as plain data that anybody may read.

An engine is driven by the runner's loop (`runner.py`), in one thread: `open` a section, `step` until it has told
`done`, `close` to stop early. Nothing here imports an engine's library.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from transcription.whisper.options import COMPUTE_TYPES, TranscriptionOptions


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do, and where its parts are."""

    name: str
    module: str  # of its Engine class, imported only in the runner
    package: str  # on the package index
    folder_prefix: str  # of its models: models/<prefix><name>/
    weights_files: tuple[str, ...]  # a model's folder must hold one of these to be one
    gpu: str  # what its devices are called where they are no CPU: "cuda", "mps"
    unsupported: frozenset[str]  # options that it has no way to honour
    compute_types: tuple[str, ...]
    highest: tuple[tuple[str, float], ...] = ()  # options that it takes up to a value alone
    exclusive: tuple[tuple[str, str], ...] = ()  # options of which it honours the second alone where both are given
    preloaded: tuple[str, ...] = ()  # libraries that its runner begins with on Linux, where they are installed

    @property
    def weights_file(self) -> str:
        """What its weights are usually called."""
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
        # MLX's own BLAS for Linux is the slow reference one: a product of matrices takes twenty times as long.
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

# Asking for these asks for nothing that an engine would have to be able to do.
ASKS_NOTHING = {
    "batch_size": 1,
    "beam_size": 1,
    "carry_initial_prompt": False,
    "no_repeat_ngram_size": 0,
    "patience": 1.0,
    "repetition_penalty": 1.0,
    "top_p": 1.0,
}


@dataclass(frozen=True)
class Sound:
    """Stretches of a PCM file, 16 kHz mono s16le, that are heard as one. `spans` in samples: (start, end) of each."""

    path: Path
    spans: tuple[tuple[int, int], ...]


Event = dict[str, Any]
"""One line of JSON from the runner: `event` is its kind, `section` whose it is.

    {"event": "language", "section": 7, "language": "ru", "probability": 0.98}
    {"event": "segment", "section": 7, "segment": Segment.to_json()}     times from the section's start, in seconds
    {"event": "progress", "section": 7, "seconds": 21.5}                 decoded so far
    {"event": "done", "section": 7}                                      the runner adds how many `seconds` it took
    {"event": "error", "section": 7, "code": "engine_failed", "detail": "…"}

The runner itself says what it is and has, of no section:

    {"event": "ready", "versions": {…}, "capacity": 1, "compute_types": […], "threads": 8}
    {"event": "device", "reading": {"name": "…", "memory_total_mb": 24564, "memory_used_mb": 1024, "utilization": 12}}
    {"event": "model", "model": "models/…", "state": "loading"}           then "loaded" or "error"
"""


Tell = Callable[[Event], None]
"""How an engine says what came of a section. Raises SectionClosed when nobody wants to hear more of it."""


class SectionClosed(Exception):
    """A section was closed while it was being decoded: the engine forgets it."""


class Engine(Protocol):
    """Decodes sections, up to `capacity` of them at once. Made with the device's name and a Tell."""

    capacity: int
    versions: dict[str, str]  # of the libraries that decode
    compute_types: list[str]  # that its device can compute with

    def __init__(self, device: str, tell: Tell) -> None: ...

    def open(self, section: int, sound: Sound, model: Path, options: TranscriptionOptions) -> None:
        """Take a section in, loading the model if another is loaded. Raises what loading raises."""
        ...

    def step(self) -> None:
        """Decode a little of what is open and tell what comes of it: as little as the library lets it stop after.

        What `tell` raises passes through.
        """
        ...

    def close(self, section: int) -> None:
        """Forget a section, finished or not; unknown ones are no error."""
        ...

    def memory_bytes(self) -> int | None:
        """What it holds of memory that its device shares with the machine; None where the machine tells by itself.

        Asked in another thread at any time.
        """
        ...
