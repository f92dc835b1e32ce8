"""Turns segments into text, subtitles, tables, lyrics and documents.

Nothing that somebody said may become the format's own syntax: a text stays in its line, its cue or its cell.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from django.utils.translation import gettext
from docx import Document
from docx.shared import Cm, RGBColor

from transcription.whisper.result import Segment

# Control characters, Unicode's line ends, surrogates, which UTF-8 cannot hold, and characters that XML cannot hold.
UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
# A spreadsheet runs a cell that begins with one of these as a formula.
FORMULA = re.compile("[=+@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH COMMERCIAL AT}"
                     "\N{FULLWIDTH HYPHEN-MINUS}-]")  # fmt: skip
GREY = RGBColor(0x70, 0x70, 0x70)


@dataclass(frozen=True)
class Export:
    """A format for transcripts."""

    content_type: str
    write: Callable[[Sequence[Segment], bool, str], bytes]

    def render(self, segments: Sequence[Segment], highlight: bool = False, *, title: str = "") -> bytes:
        """The content of the file. `highlight` marks the word being spoken, where the format can do that.

        Where there are several channels, each text begins with the name of its own, in the reader's language.
        """
        return self.write(segments, highlight, title)


def to_txt(segments: Sequence[Segment], highlight: bool = False) -> str:
    """One segment a line. Plain text has no times, so no word is marked."""
    return "".join(f"{_line(name + segment.text)}\n" for name, segment in _named(segments))


def has_channels(segments: Sequence[Segment]) -> bool:
    """Whether the segments are of several channels, so that each is named."""
    return len({segment.channel for segment in segments}) > 1


def channel_name(channel: int) -> str:
    return gettext("Channel %(channel)s:") % {"channel": channel}


def _named(segments: Sequence[Segment]) -> Iterator[tuple[str, Segment]]:
    """Each segment with what its text begins with, the name of its channel or nothing."""
    are_named = has_channels(segments)
    for segment in segments:
        yield f"{channel_name(segment.channel)} " if are_named else "", segment


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
    rows = (f"{start}\t{end}\t{_cell(''.join(words))}\n" for start, end, words, _ in _cues(segments, False))
    return "start\tend\ttext\n" + "".join(rows)


def to_csv(segments: Sequence[Segment], highlight: bool = False) -> str:
    """Start and end in seconds and the text, under a header, for a spreadsheet; of several languages, which it is."""
    table = io.StringIO()
    table.write("\N{BYTE ORDER MARK}")  # without it Excel does not recognise UTF-8
    writer = csv.writer(table, lineterminator="\n")
    names = has_channels(segments)
    languages = len({segment.language for segment in segments}) > 1
    writer.writerow(("start", "end", *(["channel"] * names), "text", *(["language"] * languages)))
    for segment in segments:
        times = [f"{milliseconds / 1000:.3f}" for milliseconds in _times(segment)]
        channel, language = [segment.channel] * names, [segment.language] * languages
        writer.writerow((*times, *channel, _cell(segment.text), *language))
    return table.getvalue()


def to_lrc(segments: Sequence[Segment], highlight: bool = False) -> str:
    """One segment a line, for players that show lyrics; with `highlight`, each word has its time too."""
    lines = []
    for name, segment in _named(segments):
        words = segment.words if highlight else None
        timed = [f"<{_lyrics_time(word.start)}>{_lrc_text(word.word)}" for word in words or ()]
        text = " ".join(timed) or _lrc_text(segment.text)
        lines.append(f"[{_lyrics_time(segment.start)}]{name}{text}\n")
    return "".join(lines)


def to_docx(segments: Sequence[Segment], title: str = "") -> bytes:
    """A document with the title as its heading, and a paragraph for each segment that begins with its time in grey."""
    document = Document()
    properties = document.core_properties  # the template of the library has its own name and a day of 2013 in them
    properties.title, properties.author, properties.comments = _line(title), "", ""
    properties.created = datetime.now(UTC)
    if title:
        document.add_heading(_line(title), level=1)
    for name, segment in _named(segments):
        paragraph = document.add_paragraph()
        paragraph.paragraph_format.left_indent = Cm(2)
        paragraph.paragraph_format.first_line_indent = Cm(-2)
        paragraph.paragraph_format.tab_stops.add_tab_stop(Cm(2))
        paragraph.add_run(f"{_cue_time(_milliseconds(segment.start), '.')[:8]}\t").font.color.rgb = GREY
        if name:
            paragraph.add_run(name).bold = True
        paragraph.add_run(_line(segment.text))
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def _encoded(render: Callable[[Sequence[Segment], bool], str]) -> Callable[[Sequence[Segment], bool, str], bytes]:
    return lambda segments, highlight, title: render(segments, highlight).encode()


DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

FORMATS: Mapping[str, Export] = MappingProxyType(
    {
        "txt": Export("text/plain; charset=utf-8", _encoded(to_txt)),
        "srt": Export("application/x-subrip; charset=utf-8", _encoded(to_srt)),
        "vtt": Export("text/vtt; charset=utf-8", _encoded(to_vtt)),
        "tsv": Export("text/tab-separated-values; charset=utf-8", _encoded(to_tsv)),
        "csv": Export("text/csv; charset=utf-8", _encoded(to_csv)),
        "lrc": Export("application/x-lrc; charset=utf-8", _encoded(to_lrc)),
        "docx": Export(DOCX, lambda segments, highlight, title: to_docx(segments, title)),
    }
)


Cue = tuple[int, int, Sequence[str], int | None]  # start and end in ms, words, index of the marked word


def _cues(segments: Sequence[Segment], highlight: bool) -> Iterator[Cue]:
    """Cues in order, none of negative length: one a segment, or with `highlight` one for each word and each pause."""
    for name, segment in _named(segments):
        start, end = _times(segment)
        if not (highlight and segment.words):
            yield start, end, [name, segment.text], None
            continue
        words = [name, *(word.word for word in segment.words)]
        for index, word in enumerate(segment.words, start=1):
            begins, ends = _milliseconds(word.start), _milliseconds(word.end)
            if begins > start:
                yield start, begins, words, None
            yield max(start, begins), max(start, begins, ends), words, index
            start = max(start, begins, ends)


def _times(segment: Segment) -> tuple[int, int]:
    """A segment's start and end in milliseconds, the end not before the start."""
    start = _milliseconds(segment.start)
    return start, max(start, _milliseconds(segment.end))


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
    """HH:MM:SS,mmm; hours above 99 have more digits."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


def _lyrics_time(seconds: float) -> str:
    """MM:SS.xx; minutes above 99 have more digits, because the format has no hours."""
    minutes, rest = divmod(max(0, round(seconds * 100)), 6000)
    return f"{minutes:02}:{rest // 100:02}.{rest % 100:02}"


def _lrc_text(text: str) -> str:
    """In lyrics `[` and `<` begin a time."""
    return _line(text).translate({ord("["): "(", ord("]"): ")", ord("<"): "‹", ord(">"): "›"})


def _line(text: str) -> str:
    """A text as one line with single spaces."""
    return " ".join(UNWRITABLE.sub(" ", text).split())


def _cue_text(text: str) -> str:
    # "-->" would begin another cue.
    return _line(text).replace("-->", "→")


def _vtt_text(text: str) -> str:
    """In VTT `<` begins a tag and `&` a character reference."""
    return _cue_text(text).replace("&", "&amp;").replace("<", "&lt;")


def _cell(text: str) -> str:
    line = _line(text)
    return f"'{line}" if FORMULA.match(line) else line
