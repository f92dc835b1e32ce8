"""Where a recording is cut, and what of it is decoded, from where speech was found in it.

Silences of two seconds and more are taken out but for 0.4 s beside speech: what faster-whisper's `vad_filter` keeps.
A cut is made in the middle of a silence and never in speech. Which silences are cut is decided for all the recording at
once: a section costs the more the farther it is from two minutes, a cut the more the shorter its silence, and the
cheapest division wins. So long silences are preferred, lengths are even, speech that never pauses stays whole however
long it is, and no three seconds are left over at the end.
"""

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

Span = tuple[float, float]  # start and end in seconds of the recording

SHORTEST_SILENCE = 0.3  # seconds; less is a breath or a stop consonant
LONG_SILENCE = 2.0  # taken out
PADDING = 0.4  # of it stays on both sides of speech, which begins before it is sure to be speech
SECTION = 120.0  # seconds that a section has where silence allows
SHORTEST_CLIP = 0.01  # of less an engine makes nothing
SHORT = 30.0  # one window of Whisper: a recording so short is decoded whatever was found in it


@dataclass(frozen=True)
class Section:
    """Spans of a recording that are decoded one after the other as one sound."""

    spans: tuple[Span, ...]

    @property
    def start(self) -> float:
        return self.spans[0][0]

    @property
    def end(self) -> float:
        return self.spans[-1][1]

    @property
    def seconds(self) -> float:
        """What there is to decode; the silences taken out are not in it."""
        return sum(end - start for start, end in self.spans)

    def since(self, seconds: float) -> Self:
        """What is left of it from a time of the recording on; without spans when nothing is."""
        return type(self)(tuple((max(start, seconds), end) for start, end in self.spans if end > seconds))


def cut(
    stretches: Sequence[Span], duration: float, *, sections: int | None = None, vad_filter: bool = True
) -> list[Section]:
    """Divide a recording into at most `sections` sections: all of its speech, in order, each stretch in one of them.

    `stretches` are where speech is, in order and apart. With `vad_filter` long silences are in no section; without it
    the sections cover the recording without a gap. Where no speech was found a recording of up to 30 s is one section,
    for Silero may be wrong; a longer one has none with `vad_filter`, and is one without. What `is_uncut` needs no
    stretches.
    """
    if is_uncut(sections=sections, vad_filter=vad_filter):
        return [Section(((0.0, duration),))]
    if not stretches:
        return [Section(((0.0, duration),))] if duration <= SHORT or not vad_filter else []
    kept = _without_long_silences(stretches, duration) if vad_filter else [(0.0, duration)]
    cuts = _at_most(sections, _silences(stretches, kept), sum(end - start for start, end in kept))
    return [Section(_within(kept, start, end)) for start, end in itertools.pairwise([0.0, *cuts, duration])]


def clipped(found: Sequence[Section], clips: Sequence[Span]) -> list[Section]:
    """What of the sections lies in the clips, which are in order and apart; a section with nothing left goes."""
    left = (Section(tuple(_common(section.spans, clips))) for section in found)
    return [section for section in left if section.spans]


def _common(spans: Sequence[Span], clips: Sequence[Span]) -> Iterator[Span]:
    for start, end in spans:
        for clip_start, clip_end in clips:
            if min(end, clip_end) - max(start, clip_start) >= SHORTEST_CLIP:
                yield max(start, clip_start), min(end, clip_end)


def is_uncut(*, sections: int | None, vad_filter: bool) -> bool:
    """Whether the engine gets the recording whole, as the library by itself would: then no speech need be found."""
    return sections == 1 and not vad_filter


def _without_long_silences(stretches: Sequence[Span], duration: float) -> list[Span]:
    kept = [stretches[0]]
    for start, end in stretches[1:]:
        if start - kept[-1][1] < LONG_SILENCE:
            kept[-1] = (kept[-1][0], end)
        else:
            kept.append((start, end))
    if duration - kept[-1][1] < LONG_SILENCE:
        kept[-1] = (kept[-1][0], duration)
    return [(max(0.0, start - PADDING), min(duration, end + PADDING)) for start, end in kept]


@dataclass(frozen=True)
class _Silence:
    """A place to cut: the time of its middle, the same in the sound that is decoded, its length."""

    middle: float
    decoded: float
    seconds: float


def _silences(stretches: Sequence[Span], kept: Sequence[Span]) -> list[_Silence]:
    starts = [start for start, _ in kept]
    before = [0.0, *itertools.accumulate(end - start for start, end in kept)]
    found = []
    for (_, end), (start, _) in itertools.pairwise(stretches):
        if start - end >= SHORTEST_SILENCE:
            middle = (start + end) / 2
            span = bisect_right(starts, middle) - 1
            found.append(_Silence(middle, before[span] + min(middle, kept[span][1]) - starts[span], start - end))
    return found


def _at_most(sections: int | None, silences: Sequence[_Silence], seconds: float) -> list[float]:
    """The cuts, with a longer target than two minutes where there would be too many."""
    target = max(SECTION, seconds / sections) if sections else SECTION
    cuts = _cheapest(silences, seconds, target)
    while sections and len(cuts) >= sections:
        target *= 1.05
        cuts = _cheapest(silences, seconds, target)
    return cuts


def _cheapest(silences: Sequence[_Silence], seconds: float, target: float) -> list[float]:
    """The cuts of the cheapest division into sections of about `target` seconds.

    With lengths in targets a section costs (length - 1)², and two of u and v in place of one 2uv - 1 less. Dynamic
    programming over the places, some 24 in a target: the work grows with the recording, and with nothing else.
    """
    nearby = itertools.groupby(silences, key=lambda silence: silence.decoded // (target / 24))
    candidates = [max(group, key=lambda silence: silence.seconds) for _, group in nearby]
    places = [0.0, *(silence.decoded / target for silence in candidates), seconds / target]
    prices = [*_prices(candidates, usual=int(seconds / target)), 0.0]  # of the cut at which a section ends
    cheapest = [0.0]
    begins = [0]  # where the last section of the cheapest division up to each place begins
    for end in range(1, len(places)):
        costs = {}
        middle = None  # a place inside that leaves a target or more behind it
        for start in reversed(range(end)):
            if middle is not None and places[middle] - places[start] > 1:
                break  # a cut there saves 1 or more, which none costs, and from every earlier start still more
            length = places[end] - places[start]
            costs[start] = cheapest[start] + (length - 1) ** 2 + prices[end - 1]
            if middle is None and length >= 1:
                middle = start
        begins.append(min(costs, key=costs.__getitem__))
        cheapest.append(costs[begins[-1]])
    return _walked_back(candidates, begins)


def _prices(silences: Sequence[_Silence], *, usual: int) -> list[float]:
    """What a cut of each costs, or earns: the `usual`th longest, about as many as there will be cuts, costs nothing.

    So sections are about as long where people pause for half a second as where they pause for ten.
    """
    prices = [1 / (1 + silence.seconds) for silence in silences]
    nothing = sorted(prices)[min(usual, len(prices) - 1)] if prices else 0.0
    return [price - nothing for price in prices]


def _walked_back(candidates: Sequence[_Silence], begins: Sequence[int]) -> list[float]:
    cuts = []
    place = begins[-1]
    while place > 0:
        cuts.append(candidates[place - 1].middle)
        place = begins[place]
    return cuts[::-1]


def _within(spans: Sequence[Span], start: float, end: float) -> tuple[Span, ...]:
    """The parts of the spans between two times."""
    first = bisect_right(spans, start, key=lambda span: span[1])
    last = bisect_left(spans, end, key=lambda span: span[0])
    return tuple((max(start, s), min(end, e)) for s, e in spans[first:last])
