"""Cuts a recording into sections, from the stretches of speech that were found in it.

Silences of two seconds and more are left out, except 0.4 s beside speech, as in faster-whisper's `vad_filter`. A cut is
in the middle of a silence, never in speech. The cuts of the whole recording are chosen together, as the division with
the lowest cost: the farther a section is from two minutes, the more it costs, and the shorter a silence is, the more a
cut in it costs. So long silences are preferred, sections are of similar length, speech without a pause stays whole
however long it is, and there is no rest of three seconds at the end.
"""

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

Span = tuple[float, float]  # start and end in seconds of the recording

# All in seconds.
SHORTEST_SILENCE = 0.3  # anything shorter is a breath or a stop consonant
LONG_SILENCE = 2.0  # left out
PADDING = 0.4  # of silence that stays on both sides of speech, which begins before the network is sure of it
SECTION = 120.0  # the length of a section where the silences allow it
SHORTEST_CLIP = 0.01  # from anything shorter an engine makes nothing


@dataclass(frozen=True)
class Section:
    """Spans of a recording that are joined and decoded as one sound, and the speech in them.

    `speech` is None where it was not looked for, and has no stretch that is in doubt.
    """

    spans: tuple[Span, ...]
    speech: tuple[Span, ...] | None = None

    @property
    def start(self) -> float:
        return self.spans[0][0]

    @property
    def end(self) -> float:
        return self.spans[-1][1]

    @property
    def seconds(self) -> float:
        """The length of the sound to decode, without the silences between the spans."""
        return sum(end - start for start, end in self.spans)

    def since(self, seconds: float) -> Self:
        """The rest of the section from a time of the recording on; without spans when nothing is left."""
        return self.between(seconds, math.inf)

    def between(self, start: float, end: float) -> Self:
        """The part of the section between two times of the recording; without spans when there is nothing."""
        speech = None if self.speech is None else _between(self.speech, start, end)
        return type(self)(_between(self.spans, start, end), speech)

    def without_speech(self, doubtful: Collection[Span]) -> Self:
        """The same section, but these stretches of speech are in doubt."""
        if self.speech is None:
            return self
        return type(self)(self.spans, tuple(stretch for stretch in self.speech if stretch not in doubtful))


def cut(
    stretches: Sequence[Span],
    duration: float,
    *,
    sound: Sequence[Span] | None = None,
    sections: int | None = None,
    vad_filter: bool = True,
) -> list[Section]:
    """Divide a recording into at most `sections` sections that have all of its speech, each stretch in one section.

    `stretches` are the spans with speech, `sound` those with any sound (None: all), both in order and apart. What is in
    no span of `sound` is a silence that only the file's stamps know, and is in no section. With `vad_filter` other long
    silences are in none either; without it the sections cover the sound without a gap. Where no speech was found, there
    is no section with `vad_filter`, and one without it. If `is_uncut`, `stretches` is not read.
    """
    sound = sound or [(0.0, duration)]
    if is_uncut(sections=sections, vad_filter=vad_filter):
        return [Section(tuple(sound))]
    if not stretches:
        return [] if vad_filter else [Section(tuple(sound), ())]
    kept = list(intersection(_without_long_silences(stretches, duration), sound)) if vad_filter else list(sound)
    cuts = _choose_cuts(_silences(stretches, kept), sum(end - start for start, end in kept), sections)
    return [
        Section(_between(kept, start, end), _between(stretches, start, end))
        for start, end in itertools.pairwise([0.0, *cuts, duration])
    ]


def clipped(whole: Sequence[Section], clips: Sequence[Span]) -> list[Section]:
    """The parts of the sections that lie in the clips, which are in order and apart; empty sections are dropped."""
    parts = (
        Section(
            tuple(intersection(section.spans, clips)),
            None if section.speech is None else tuple(intersection(section.speech, clips)),
        )
        for section in whole
    )
    return [section for section in parts if section.spans]


def intersection(spans: Sequence[Span], clips: Sequence[Span]) -> Iterator[Span]:
    """The parts of the spans that lie in the clips; both are in order and apart."""
    for start, end in spans:
        for clip_start, clip_end in clips[bisect_right(clips, start, key=lambda clip: clip[1]) :]:
            if clip_start >= end:
                break
            if min(end, clip_end) - max(start, clip_start) >= SHORTEST_CLIP:
                yield max(start, clip_start), min(end, clip_end)


def is_uncut(*, sections: int | None, vad_filter: bool) -> bool:
    """Whether the engine gets the whole recording, as the library by itself would, so that no speech need be found."""
    return sections == 1 and not vad_filter


def _without_long_silences(stretches: Sequence[Span], duration: float) -> list[Span]:
    """The spans of a recording that are decoded."""
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
    """A place to cut."""

    middle: float  # in the recording's time
    decoded: float  # the middle in the time of the sound that is decoded
    seconds: float  # its length


def _silences(stretches: Sequence[Span], kept: Sequence[Span]) -> list[_Silence]:
    """The silences between stretches of speech."""
    starts = [start for start, _ in kept]
    decoded_starts = [0.0, *itertools.accumulate(end - start for start, end in kept)]
    silences = []
    for (_, end), (start, _) in itertools.pairwise(stretches):
        if start - end >= SHORTEST_SILENCE:
            middle = (start + end) / 2
            span = bisect_right(starts, middle) - 1
            decoded = decoded_starts[span] + min(middle, kept[span][1]) - starts[span]
            silences.append(_Silence(middle, decoded, start - end))
    return silences


def _choose_cuts(silences: Sequence[_Silence], seconds: float, sections: int | None) -> list[float]:
    """The times of the cuts. If they make too many sections, the target length grows beyond two minutes."""
    target = max(SECTION, seconds / sections) if sections else SECTION
    cuts = _cheapest_cuts(silences, seconds, target)
    while sections and len(cuts) >= sections:
        target *= 1.05
        cuts = _cheapest_cuts(silences, seconds, target)
    return cuts


def _cheapest_cuts(silences: Sequence[_Silence], seconds: float, target: float) -> list[float]:
    """The cuts of the cheapest division into sections of about `target` seconds, by dynamic programming.

    Lengths are in targets. A section costs (length - 1)², so a cut of a section into u and v saves 2uv - 1. There are
    at most 24 places for a cut in a target, so the work grows linearly with the recording.
    """
    groups = itertools.groupby(silences, key=lambda silence: silence.decoded // (target / 24))
    candidates = [max(group, key=lambda silence: silence.seconds) for _, group in groups]
    places = [0.0, *(silence.decoded / target for silence in candidates), seconds / target]
    prices = [*_cut_prices(candidates, usual=int(seconds / target)), 0.0]  # the end of the recording costs nothing
    cheapest = [0.0]  # the cost of the cheapest division up to each place
    starts = [0]  # the start of the last section in that division
    for end in range(1, len(places)):
        costs = {}
        middle = None  # the last place that is a target or more before the end
        for start in reversed(range(end)):
            if middle is not None and places[middle] - places[start] > 1:
                break  # a cut at `middle` would save 1 or more, which no cut costs; earlier starts are worse still
            length = places[end] - places[start]
            costs[start] = cheapest[start] + (length - 1) ** 2 + prices[end - 1]
            if middle is None and length >= 1:
                middle = start
        starts.append(min(costs, key=costs.__getitem__))
        cheapest.append(costs[starts[-1]])
    cuts = []
    place = starts[-1]
    while place > 0:
        cuts.append(candidates[place - 1].middle)
        place = starts[place]
    return cuts[::-1]


def _cut_prices(silences: Sequence[_Silence], *, usual: int) -> list[float]:
    """The price of a cut in each silence. The `usual`-th longest, about as many as there will be cuts, costs nothing.

    A longer silence has a negative price. So sections are about equally long whether people pause for half a second or
    for ten.
    """
    prices = [1 / (1 + silence.seconds) for silence in silences]
    usual_price = sorted(prices)[min(usual, len(prices) - 1)] if prices else 0.0
    return [price - usual_price for price in prices]


def _between(spans: Sequence[Span], start: float, end: float) -> tuple[Span, ...]:
    """The parts of the spans between two times."""
    first = bisect_right(spans, start, key=lambda span: span[1])
    last = bisect_left(spans, end, key=lambda span: span[0])
    return tuple((max(start, s), min(end, e)) for s, e in spans[first:last])
