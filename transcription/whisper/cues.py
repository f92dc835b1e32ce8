"""Makes the cues of subtitles from an engine's segments: each begins and ends with its words.

Whisper writes the times of segments in steps of 20 ms, but lets a segment begin where the one before it ended, and its
words lean into the silence beside them. The stretches of speech that were found before decoding are better known, so
words are moved into them, and a segment that reaches over a long silence is parted there. A segment that is too long to
read is parted at the ends of its sentences.

All times are in seconds of the sound that the engine decoded.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from transcription.whisper.cutting import PADDING, Span
from transcription.whisper.result import Segment, Word

# A word belongs to a stretch that has so much of it, in seconds; a shorter overlap is an error of the alignment.
LEAST_OVERLAP = 0.15
# The finder is sure of speech a little after it begins and until a little after it ends, in seconds.
ONSET = 0.05
# The first and the last word of a stretch reach to its ends, if they come so near, in seconds.
REACH = 0.3
# Two lines of subtitles, and as long as people read them.
LONGEST_CUE = 84  # characters
LONGEST_CUE_SECONDS = 7.0

SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”»)\]]*$")
# What ends with a dot and ends no sentence: an initial, a number, an abbreviation with a dot inside.
NO_END = re.compile(r"^\W*(\w|\d+|\w+\.\w+|Mr|Mrs|Ms|Dr|St|vs|etc|ул|г|гг|стр|см|др|им|тыс|руб)\.$", re.IGNORECASE)


@dataclass(frozen=True)
class Speech:
    """The stretches of speech in a decoded sound, in order and apart.

    `after_silence` has the indexes of those that follow a long silence, which may have been taken out of the sound.
    """

    stretches: tuple[Span, ...]
    after_silence: frozenset[int] = frozenset()

    def is_parted(self, first: int, second: int) -> bool:
        """Whether a long silence lies between two stretches, given by their indexes."""
        return any(first < index <= second for index in self.after_silence)

    def overlaps(self, start: float, end: float) -> dict[int, float]:
        """By the indexes of the stretches that a span touches, the seconds that each has of it."""
        return {
            index: min(end, stretch_end) - max(start, stretch_start)
            for index, (stretch_start, stretch_end) in enumerate(self.stretches)
            if min(end, stretch_end) > max(start, stretch_start)
        }

    def nearest(self, start: float, end: float) -> int:
        """The index of the stretch that is nearest to a span which touches none."""
        return min(
            range(len(self.stretches)),
            key=lambda index: max(self.stretches[index][0] - end, start - self.stretches[index][1]),
        )


@dataclass(frozen=True)
class _Placed:
    """A word, and the index of the stretch that it begins in and of the one that it ends in."""

    word: Word
    first: int
    last: int


def part(segment: Segment, speech: Speech, *, after: float = 0.0) -> list[Segment]:
    """Part a segment into cues, and move their ends to the speech. `after` is the end of the cue before.

    Text and words are divided; the measures, the tokens and `seek` of each are those of the whole segment.
    """
    if not speech.stretches or not segment.text.strip():
        return [segment]
    if not segment.words:
        return [_trimmed(segment, speech)]
    if not any(speech.overlaps(word.start, word.end) for word in segment.words):
        return [segment]  # nobody was heard there: these times are as good as any
    placed = _in_order([_place(word, speech) for word in segment.words], after)
    groups = [sentences for group in _parted_at_silences(placed, speech) for sentences in _parted_at_sentences(group)]
    parts = []
    for group in groups:
        part = _cue(segment, group, speech, after, is_whole=len(groups) == 1)
        after = part.end
        parts.append(part)
    return parts


def _trimmed(segment: Segment, speech: Speech) -> Segment:
    """A segment without words, without the silence at its ends; of both sides of a long silence it keeps the longer."""
    overlaps = speech.overlaps(segment.start, segment.end)
    if not overlaps:
        return segment
    most = max(overlaps, key=overlaps.__getitem__)
    together = [index for index in overlaps if not speech.is_parted(min(index, most), max(index, most))]
    start, end = speech.stretches[together[0]][0], speech.stretches[together[-1]][1]
    return replace(segment, start=max(segment.start, start), end=min(segment.end, end))


def _place(word: Word, speech: Speech) -> _Placed:
    """Move a word's ends out of silence, into the stretches that have most of it.

    A word that touches no speech stays where it is, unless it lies in the silence that is kept beside a stretch.
    """
    overlaps = speech.overlaps(word.start, word.end)
    if not overlaps:
        return _placed_near(word, speech)
    most = max(overlaps, key=overlaps.__getitem__)
    # A long number is one word with pauses in it, but no word has a long silence in it.
    own = [
        index
        for index, seconds in overlaps.items()
        if index == most or (seconds >= LEAST_OVERLAP and not speech.is_parted(min(index, most), max(index, most)))
    ]
    start, end = speech.stretches[own[0]][0], speech.stretches[own[-1]][1]
    moved = replace(word, start=max(word.start, start - ONSET), end=min(word.end, end + ONSET))
    return _Placed(moved, own[0], own[-1])


def _placed_near(word: Word, speech: Speech) -> _Placed:
    nearest = speech.nearest(word.start, word.end)
    start, end = speech.stretches[nearest]
    if end <= word.start < end + PADDING:
        word = replace(word, start=end, end=end + ONSET)
    elif start - PADDING < word.end <= start:
        word = replace(word, start=start - ONSET, end=start)
    return _Placed(word, nearest, nearest)


def _in_order(placed: Sequence[_Placed], after: float) -> list[_Placed]:
    """The same words, none beginning before the one before it, before `after`, or in an earlier stretch."""
    ordered: list[_Placed] = []
    for item in placed:
        before = ordered[-1] if ordered else _Placed(item.word, 0, 0)
        start = max(item.word.start, before.word.start if ordered else after)
        word = replace(item.word, start=start, end=max(start, item.word.end))
        ordered.append(_Placed(word, max(item.first, before.first), max(item.last, before.last)))
    return ordered


def _parted_at_silences(placed: Sequence[_Placed], speech: Speech) -> list[list[_Placed]]:
    return _parted(placed, lambda before, word: speech.is_parted(before.last, word.first))


def _parted_at_sentences(placed: Sequence[_Placed]) -> list[list[_Placed]]:
    """Part words that are too long to read as one cue at the ends of sentences, as seldom as that helps."""
    if not _is_long(placed):
        return [list(placed)]
    groups: list[list[_Placed]] = []
    for sentence in _parted(placed, lambda before, word: _ends_sentence(before.word.word, word.word.word)):
        if groups and not _is_long([*groups[-1], *sentence]):
            groups[-1] += sentence
        else:
            groups.append(sentence)
    return groups


def _parted(placed: Sequence[_Placed], is_parted: Callable[[_Placed, _Placed], bool]) -> list[list[_Placed]]:
    groups = [[placed[0]]]
    for before, word in pairwise(placed):
        if is_parted(before, word):
            groups.append([])
        groups[-1].append(word)
    return groups


def _is_long(placed: Sequence[_Placed]) -> bool:
    characters = len(_text(item.word for item in placed).strip())
    return characters > LONGEST_CUE or placed[-1].word.end - placed[0].word.start > LONGEST_CUE_SECONDS


def _ends_sentence(word: str, following: str) -> bool:
    word, following = word.strip(), following.strip()
    return bool(SENTENCE_END.search(word)) and not NO_END.match(word) and not following[:1].islower()


def _cue(segment: Segment, group: Sequence[_Placed], speech: Speech, after: float, *, is_whole: bool) -> Segment:
    """The cue of some of a segment's words, from where their speech begins to where it ends."""
    words = [item.word for item in group]
    first, last = speech.stretches[group[0].first], speech.stretches[group[-1].last]
    if after <= first[0] < words[0].start <= first[0] + REACH:
        words[0] = replace(words[0], start=first[0])
    if last[1] - REACH <= words[-1].end < last[1]:
        words[-1] = replace(words[-1], end=last[1])
    return replace(
        segment,
        start=words[0].start,
        end=max(word.end for word in words),
        text=segment.text if is_whole else _text(words),
        words=tuple(words),
    )


def _text(words: Iterable[Word]) -> str:
    return "".join(word.word for word in words)
