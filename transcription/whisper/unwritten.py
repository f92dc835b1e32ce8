"""Finds speech that has no text. Whisper sometimes leaves a sentence out, above all after one in another language.

All times are in seconds of the recording.
"""

import re
from collections.abc import Iterator, Sequence

from transcription.whisper.cutting import LONG_SILENCE, PADDING, Section, Span

SHORTEST = 1.0  # of speech; less may be a cough, and Whisper may be right to write nothing
SHORTEST_REST = 2.0  # of a stretch that has some text; the ends of a text may be this wrong
TOLERANCE = 0.3  # by which a text's ends may be wrong
MOST_PASSAGES = 8  # of a section, that are decoded again
WHOLE = 0.8  # of a sound: decoding it again would give the same


def without_text(speech: Sequence[Span], texts: Sequence[Span]) -> list[Span]:
    """The spans of a recording that have speech and no text. `texts` are the spans that have text, in any order."""
    covers = [(start - TOLERANCE, end + TOLERANCE) for start, end in sorted(texts)]
    bare = [
        (start, end)
        for stretch in speech
        for start, end in _outside(stretch, covers)
        if (start, end) == stretch or end - start >= SHORTEST_REST
    ]
    return [(spans[0][0], spans[-1][1]) for spans in _groups(bare, covers) if _seconds(spans) >= SHORTEST]


def _outside(stretch: Span, covers: Sequence[Span]) -> Iterator[Span]:
    """What of a stretch lies in none of the covers, which are in order."""
    start, end = stretch
    for cover_start, cover_end in covers:
        if cover_start < end and cover_end > start:
            if start < cover_start:
                yield start, cover_start
            start = cover_end
    if start < end:
        yield start, end


def _groups(spans: Sequence[Span], covers: Sequence[Span]) -> list[list[Span]]:
    """The spans, those together that are not parted by a text or a long silence."""
    groups: list[list[Span]] = []
    for span in spans:
        before = groups[-1][-1][1] if groups else 0.0
        is_parted = span[0] - before >= LONG_SILENCE or any(
            before <= start < span[0] or before < end <= span[0] for start, end in covers
        )
        if groups and not is_parted:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups


def _seconds(spans: Sequence[Span]) -> float:
    return sum(end - start for start, end in spans)


def to_decode_again(section: Section, texts: Sequence[Span]) -> list[Section]:
    """The passages of a section that are to be decoded by themselves because they have no text, the longest few.

    None of them reaches into a text. A passage that is nearly all of the section is left out.
    """
    bare = without_text(section.speech or (), texts)
    longest = sorted(bare, key=lambda span: span[0] - span[1])[:MOST_PASSAGES]
    passages = [section.between(*_padded(span, texts)) for span in sorted(longest)]
    return [passage for passage in passages if 0 < passage.seconds < WHOLE * section.seconds]


def _padded(span: Span, texts: Sequence[Span]) -> Span:
    """A span with the silence beside it, as far as there is no text in it."""
    start = max([span[0] - PADDING, *(end for _, end in texts if end <= span[0])])
    end = min([span[1] + PADDING, *(start for start, _ in texts if start >= span[1])])
    return start, end


def is_repeated(text: str, before: str, after: str) -> bool:
    """Whether a text is the end of what was said before it, or the beginning of what was said after it."""
    words, words_before, words_after = (re.findall(r"\w+", each.casefold()) for each in (text, before, after))
    return words in (words_before[-len(words) :], words_after[: len(words)]) if words else True
