"""An engine whose driver is broken: it writes words, and they are the wrong ones."""

from pathlib import Path

from transcription.whisper.engine import Sound, Tell
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.result import Segment


class Engine:
    capacity = 1
    compute_types = ("int8",)

    def __init__(self, device: str, tell: Tell) -> None:
        self.tell = tell
        self.versions = {"nonsense": "1"}
        self._open: list[int] = []

    def open(self, section: int, sound: Sound, model: Path, options: TranscriptionOptions) -> None:
        self._open.append(section)

    def step(self) -> None:
        section = self._open.pop()
        said = Segment(0.0, 2.0, " Thank you for watching! Thank you for watching!", 0, (), 0.0, -0.1, 1.0, 0.0)
        self.tell({"event": "language", "section": section, "language": "en", "probability": 0.9})
        self.tell({"event": "segment", "section": section, "segment": said.to_json()})
        self.tell({"event": "done", "section": section})

    def close(self, section: int) -> None:
        """Nothing is held."""

    def memory_bytes(self) -> int | None:
        return None
