"""Segments to text and subtitle files: pure functions.

What somebody said must not become a format's own marks: a text stays in its line, its cue and its cell.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from transcription.whisper.result import Segment

# Control characters, Unicode's line ends, and halves of characters, which no UTF-8 can hold.
UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# A spreadsheet takes a cell that begins like this for a formula, and runs it.
FORMULA = re.compile("[=+@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH COMMERCIAL AT}"
                     "\N{FULLWIDTH HYPHEN-MINUS}-]")  # fmt: skip


@dataclass(frozen=True)
class Export:
    """A format that a transcript can be had in."""

    content_type: str
    render: Callable[[Sequence[Segment]], str]


def to_txt(segments: Sequence[Segment]) -> str:
    """One segment a line."""
    return "".join(f"{_line(segment.text)}\n" for segment in segments)


def to_srt(segments: Sequence[Segment]) -> str:
    return "".join(
        f"{number}\n{_cue_time(start, ',')} --> {_cue_time(end, ',')}\n{_cue_text(text)}\n\n"
        for number, (start, end, text) in enumerate(_cues(segments), start=1)
    )


def to_vtt(segments: Sequence[Segment]) -> str:
    return "WEBVTT\n\n" + "".join(
        f"{_cue_time(start, '.')} --> {_cue_time(end, '.')}\n{_escaped(_cue_text(text))}\n\n"
        for start, end, text in _cues(segments)
    )


def to_tsv(segments: Sequence[Segment]) -> str:
    """Start and end in milliseconds and the text, under a header, as openai-whisper writes it."""
    return "start\tend\ttext\n" + "".join(f"{start}\t{end}\t{_cell(text)}\n" for start, end, text in _cues(segments))


FORMATS: Mapping[str, Export] = MappingProxyType(
    {
        "txt": Export("text/plain; charset=utf-8", to_txt),
        "srt": Export("application/x-subrip; charset=utf-8", to_srt),
        "vtt": Export("text/vtt; charset=utf-8", to_vtt),
        "tsv": Export("text/tab-separated-values; charset=utf-8", to_tsv),
    }
)


def _cues(segments: Sequence[Segment]) -> Iterable[tuple[int, int, str]]:
    """Start and end in milliseconds, in order and never negative, and the text."""
    for segment in segments:
        start = max(0, round(segment.start * 1000))
        yield start, max(start, round(segment.end * 1000)), segment.text


def _cue_time(milliseconds: int, point: str) -> str:
    """HH:MM:SS,mmm; a recording of more than 99 hours gets more digits."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


def _line(text: str) -> str:
    """The text as one line, its white space made single spaces."""
    return " ".join(UNWRITABLE.sub(" ", text).split())


def _cue_text(text: str) -> str:
    # "-->" in the text would be read as the times of another cue.
    return _line(text).replace("-->", "→")


def _escaped(text: str) -> str:
    """For VTT, where `<` begins a tag and `&` a character's name."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _cell(text: str) -> str:
    line = _line(text)
    return f"'{line}" if FORMULA.match(line) else line
