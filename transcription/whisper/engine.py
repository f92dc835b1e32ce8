"""The seam: what an engine promises, and what each one can do as plain data that anybody may read.

An engine is driven by the runner's loop (`runner.py`), in one thread: `open` a section, `step` until it says `done` or
`error`, `close` to stop early. Nothing here imports an engine's library.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from transcription.whisper.options import TranscriptionOptions


@dataclass(frozen=True)
class Abilities:
    """What an engine can do, and where its parts are."""

    name: str
    module: str  # of its Engine class, imported only in the runner
    package: str  # on the package index
    folder_prefix: str  # of its models: models/<prefix><name>/
    weights_file: str  # what a model's folder must hold to be one
    has_beam_search: bool
    gives_segments_while_decoding: bool


ENGINES = {
    "faster-whisper": Abilities(
        name="faster-whisper",
        module="transcription.whisper.engines.faster_whisper",
        package="faster-whisper",
        folder_prefix="faster-whisper-",
        weights_file="model.bin",
        has_beam_search=True,
        gives_segments_while_decoding=True,
    ),
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
    {"event": "done", "section": 7}
    {"event": "error", "section": 7, "code": "engine_failed", "detail": "…"}
"""


class Engine(Protocol):
    """Decodes sections, up to `capacity` of them at once."""

    capacity: int
    versions: dict[str, str]  # of the libraries that decode

    def open(self, section: int, sound: Sound, model: Path, options: TranscriptionOptions) -> None:
        """Take a section in, loading the model if another is loaded. Raises what loading raises."""
        ...

    def step(self) -> list[Event]:
        """Decode a little of what is open and tell what came of it; at most one window of each section."""
        ...

    def close(self, section: int) -> None:
        """Forget a section, finished or not; unknown ones are no error."""
        ...
