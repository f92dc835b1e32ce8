"""The result of an engine: words and segments, with openai-whisper's names."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self


@dataclass(frozen=True)
class Word:
    """A word as Whisper wrote it, with the space before it. Times in seconds."""

    word: str
    start: float
    end: float
    probability: float

    def placed(self, seconds: float, end: float) -> Self:
        return replace(self, start=min(self.start + seconds, end), end=min(self.end + seconds, end))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """A word from a runner or a row. Other keys, which another version may have stored, are ignored."""
        # A token may stand for the byte 0, which PostgreSQL cannot store.
        return cls(values["word"].replace("\0", ""), values["start"], values["end"], values["probability"])


@dataclass(frozen=True)
class Segment:
    """A stretch of speech and its text. Times in seconds; `seek` is the start of its window in frames of 10 ms."""

    start: float
    end: float
    text: str
    seek: int
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] | None = None
    channel: int = 0  # of the recording, from 1; 0: all of them
    language: str = ""  # empty: that of the whole recording

    def to_json(self) -> dict[str, Any]:
        """A dict that `from_json` reads; it has a channel only if the segment is of one alone."""
        values = asdict(self)
        return values if self.channel else {name: value for name, value in values.items() if name != "channel"}

    def placed(self, seconds: float, end: float, language: str) -> Self:
        """The segment of a sound that begins at `seconds` of a longer one and ends at its `end`."""
        words = None if self.words is None else tuple(word.placed(seconds, end) for word in self.words)
        return replace(
            self,
            start=min(self.start + seconds, end),
            end=min(self.end + seconds, end),
            seek=self.seek + round(100 * seconds),
            words=words,
            language=language,
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        words = values.get("words")
        changes = {
            "text": values["text"].replace("\0", ""),
            "tokens": tuple(values["tokens"]),
            "words": None if words is None else tuple(Word.from_json(word) for word in words),
        }
        return cls(**{**values, **changes})
