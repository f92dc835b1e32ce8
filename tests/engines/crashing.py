"""An engine whose driver takes the process with it."""

import os
import signal
from pathlib import Path

from transcription.whisper.engine import Sound, Tell
from transcription.whisper.options import TranscriptionOptions


class Engine:
    capacity = 1
    compute_types = ("int8",)

    def __init__(self, device: str, tell: Tell) -> None:
        self.versions = {"crashing": "1"}

    def open(self, section: int, sound: Sound, model: Path, options: TranscriptionOptions) -> None:
        """Begins well."""

    def step(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def close(self, section: int) -> None:
        """Nothing is held."""

    def memory_bytes(self) -> int | None:
        return None
