"""Segments to text and subtitle files: pure functions.

What somebody said must not become a format's own marks: a text stays in its line, its cue and its cell.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """A format that a transcript can be had in. `highlight` asks for the word being spoken to be marked."""

    content_type: str
    render: Callable[[Sequence[Segment], bool], str]


def to_txt(segments: Sequence[Segment], highlight: bool = False) -> str:
    """One segment a line; text has no moment at which a word could be marked."""
    return "".join(f"{_line(segment.text)}\n" for segment in segments)


def to_srt(segments: Sequence[Segment], highlight: bool = False) -> str:
    return "".join(
        f"{number}\n{_cue_time(start, ',')} --> {_cue_time(end, ',')}\n{_marked(words, marked, _cue_text)}\n\n"
        for number, (start, end, words, marked) in enumerate(_cues(segments, highlight), start=1)
    )


def to_vtt(segments: Sequence[Segment], highlight: bool = False) -> str:
    return "WEBVTT\n\n" + "".join(
        f"{_cue_time(start, '.')} --> {_cue_time(end, '.')}\n{_marked(words, marked, _vtt_text)}\n\n"
        for start, end, words, marked in _cues(segments, highlight)
    )


def to_tsv(segments: Sequence[Segment], highlight: bool = False) -> str:
    """Start and end in milliseconds and the text, under a header, as openai-whisper writes it."""
    rows = (f"{start}\t{end}\t{_cell(words[0])}\n" for start, end, words, _ in _cues(segments, False))
    return "start\tend\ttext\n" + "".join(rows)


FORMATS: Mapping[str, Export] = MappingProxyType(
    {
        "txt": Export("text/plain; charset=utf-8", to_txt),
        "srt": Export("application/x-subrip; charset=utf-8", to_srt),
        "vtt": Export("text/vtt; charset=utf-8", to_vtt),
        "tsv": Export("text/tab-separated-values; charset=utf-8", to_tsv),
    }
)


Cue = tuple[int, int, Sequence[str], int | None]  # start, end in milliseconds; the words; which of them is marked


def _cues(segments: Sequence[Segment], highlight: bool) -> Iterator[Cue]:
    """Cues in order, never negative: one a segment, or one for each word that it marks and each pause between them."""
    for segment in segments:
        start, end = _milliseconds(segment.start), _milliseconds(segment.end)
        if not (highlight and segment.words):
            yield start, max(start, end), [segment.text], None
            continue
        words = [word.word for word in segment.words]
        for index, word in enumerate(segment.words):
            begins, ends = _milliseconds(word.start), _milliseconds(word.end)
            if begins > start:
                yield start, begins, words, None
            yield max(start, begins), max(start, begins, ends), words, index
            start = max(start, begins, ends)


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _marked(words: Sequence[str], marked: int | None, write: Callable[[str], str]) -> str:
    """The words as a cue's text, one of them underlined."""
    if marked is None:
        return write("".join(words))
    word, space = words[marked].lstrip(), words[marked].startswith(" ")
    before, after = write("".join(words[:marked])), write("".join(words[marked + 1 :]))
    follows = "".join(words[marked + 1 :]).startswith(" ")
    return f"{before}{' ' * (space and bool(before))}<u>{write(word)}</u>{' ' * follows}{after}"


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


def _vtt_text(text: str) -> str:
    """In VTT `<` begins a tag and `&` a character's name."""
    return _cue_text(text).replace("&", "&amp;").replace("<", "&lt;")


def _cell(text: str) -> str:
    line = _line(text)
    return f"'{line}" if FORMULA.match(line) else line
