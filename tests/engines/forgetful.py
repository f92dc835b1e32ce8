"""An engine that leaves the second of several sentences out.

A sentence by itself it writes down as its prompt, if it has one.
"""

from pathlib import Path

from transcription.whisper.engine import Sound, Tell
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.result import Segment


class Engine:
    capacity = 1
    compute_types = ("int8",)

    def __init__(self, device: str, tell: Tell) -> None:
        self.tell = tell
        self.versions = {"forgetful": "1"}
        self._open: list[tuple[int, Sound, str]] = []

    def open(self, section: int, sound: Sound, model: Path, options: TranscriptionOptions) -> None:
        self._open.append((section, sound, options.initial_prompt or ""))

    def step(self) -> None:
        section, sound, prompt = self._open.pop()
        self.tell({"event": "language", "section": section, "language": "en", "probability": 0.9})
        done = 0
        for index, (first, last) in enumerate(sound.spans):
            start, end = sound.speech[index]
            text = f" Sentence {index + 1}." if len(sound.spans) > 1 else prompt
            if text and not (index == 1 and len(sound.spans) > 1):
                times = ((start - first + done) / 16000, (end - first + done) / 16000)
                segment = Segment(*times, text, 0, (), 0.0, -0.1, 1.0, 0.0)
                self.tell({"event": "segment", "section": section, "segment": segment.to_json()})
            done += last - first
        self.tell({"event": "done", "section": section})

    def close(self, section: int) -> None:
        """Nothing is held."""

    def memory_bytes(self) -> int | None:
        return None
