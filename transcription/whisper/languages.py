"""Which language is spoken where, from what an engine hears in stretches of speech. The same for every engine.

The language of a recording is the likeliest on average over several places that have speech (`places`, `heard`). In a
recording of several languages each piece between two pauses is listened to by itself, and the languages of the pieces
are chosen together (`passages`): a change of language costs more than what a short piece can say, so "ok" has the
language of its neighbours.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from transcription.whisper.cutting import LONG_SILENCE, PADDING, Span
from transcription.whisper.engine import Sound
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.pcm import SAMPLE_RATE
from transcription.whisper.result import Segment
from transcription.whisper.samples import finite, read

Samples = NDArray[np.float32]  # (samples,)
Probabilities = Mapping[str, float]  # by language
Detect = Callable[[Samples], Probabilities]  # in at most a window of sound
Part = tuple[int, int]  # a part of a sound: its first sample and the one after it

# All in seconds.
WINDOW = 30.0  # what Whisper hears at once
SHORT_PAUSE = 1.0  # is listened to together with the speech around it
PAUSE = 0.5  # ends a piece that has SPEECH
LONG_PAUSE = 0.7  # ends a piece that has LITTLE_SPEECH; of a silence that was taken out 0.8 s are left
SPEECH = 2.0
LITTLE_SPEECH = 1.0
LONGEST_PIECE = 4.0  # of speech without a pause; it is cut where it is quietest
PHRASE = 0.6  # the shortest that is listened to where a language changes without a pause
FRAME = 0.05  # whose loudness is compared to find where that is
ENOUGH = 2.0  # of speech, after which a piece counts in full

MOST_PLACES = 5
CHANGE_COST = 1.5  # the logarithm of how much likelier the other language must be, at each of its two ends
QUIET = 0.05  # the energy of the moment between two phrases, of that of the speech around it
LEAST_PROBABILITY = 0.01  # a piece says no more against a language than this


@dataclass(frozen=True)
class Passage:
    """A part of a sound that is decoded by itself. The ends are samples of the sound."""

    start: int
    end: int
    language: str  # empty: the library detects it
    probability: float
    is_one_of_several: bool = False  # languages, so that each segment says which is its own

    def of(self, samples: Samples) -> Samples:
        return samples[self.start : self.end]

    def options(self, options: TranscriptionOptions) -> TranscriptionOptions:
        """The options to decode it with."""
        prefix = options.prefix if self.start == 0 else None
        return replace(options, language=self.language or options.language, prefix=prefix)

    def place(self, segment: Segment) -> Segment:
        """A segment of the passage as one of the whole sound."""
        if not self.is_one_of_several:
            return segment
        return segment.placed(self.start / SAMPLE_RATE, self.end / SAMPLE_RATE, self.language)


def detected(
    sound: Sound,
    samples: Samples,
    options: TranscriptionOptions,
    detect: Detect | None,
    *,
    is_library_silent: bool = False,
) -> list[Passage]:
    """A sound as one passage in its language, or with `multilingual` a passage for each stretch of a language.

    `detect` is None for a model that knows English alone. Where no places with speech are known the language is left to
    the library, or is that of the first window if the library `is_library_silent` about what it detects.
    """
    is_library_silent = is_library_silent or options.task == "detect"
    if detect is None:
        return [Passage(0, len(samples), (options.language or "en") if is_library_silent else "", 1.0)]
    if options.language is not None:
        return [Passage(0, len(samples), options.language, 1.0)]
    if options.multilingual:
        return passages(samples, _within(sound), detect, options.languages)
    windows = [read(Sound(sound.path, place)) for place in sound.places]
    if not windows and (options.languages or is_library_silent):
        windows = [samples[: int(WINDOW * SAMPLE_RATE)]]
    language, probability = likeliest(heard(windows, detect, options.languages)) if windows else ("", 0.0)
    return [Passage(0, len(samples), language, probability)]


# ---------------------------------------------------------------- one language


def places(speech: Sequence[Span]) -> list[tuple[Span, ...]]:
    """Up to five windows spread over the speech of a recording, each as the spans that are listened to."""
    joined = _joined(speech, SHORT_PAUSE)
    seconds = sum(end - start for start, end in joined)
    count = min(MOST_PLACES, math.ceil(seconds / WINDOW))
    if not count:
        return []
    length = min(WINDOW, seconds / count)
    step = (seconds - length) / (count - 1) if count > 1 else 0.0
    return [tuple(_between(joined, place * step, place * step + length)) for place in range(count)]


def _joined(spans: Sequence[Span], pause: float) -> list[Span]:
    """The spans, those with less than a pause between them as one."""
    joined: list[Span] = []
    for start, end in spans:
        if joined and start - joined[-1][1] < pause:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _between(spans: Sequence[Span], first: float, last: float) -> Iterator[Span]:
    """What lies between two times of the spans laid end to end."""
    done = 0.0
    for start, end in spans:
        begin, stop = max(start, start + first - done), min(end, start + last - done)
        if begin < stop:
            yield begin, stop
        done += end - start


def heard(windows: Sequence[Samples], detect: Detect, candidates: Sequence[str] = ()) -> dict[str, float]:
    """The probability of each language on average over some windows, weighted by their length.

    Does not listen to windows that could not change which language is the likeliest.
    """
    sums: defaultdict[str, float] = defaultdict(float)
    done, left = 0, sum(len(window) for window in windows)
    for window in windows:
        for language, probability in among(candidates, detect(window)).items():
            sums[language] += finite(probability) * len(window)
        done, left = done + len(window), left - len(window)
        best, second = [*sorted(sums.values(), reverse=True), 0.0, 0.0][:2]
        if best - second > left:
            break
    return {language: weight / done for language, weight in sums.items()}


def among(candidates: Sequence[str], probabilities: Probabilities) -> Probabilities:
    """The probabilities of the candidates alone; of all languages if there are no candidates."""
    return {name: probabilities.get(name, 0.0) for name in candidates} if candidates else probabilities


def likeliest(probabilities: Probabilities) -> tuple[str, float]:
    language = max(probabilities, key=lambda name: finite(probabilities[name]))
    return language, finite(probabilities[language])


# ---------------------------------------------------------------- several languages


def main_language(parts: Sequence[Passage]) -> tuple[str, float]:
    """The language of the longest part of the passages, and its mean probability there."""
    lengths: Counter[str] = Counter()
    for part in parts:
        lengths[part.language] += part.end - part.start
    language = max(lengths, key=lengths.__getitem__)
    same = [part for part in parts if part.language == language]
    weighted = sum(part.probability * (part.end - part.start) for part in same)
    return language, weighted / lengths[language] if lengths[language] else same[0].probability


def passages(samples: Samples, speech: Sequence[Part], detect: Detect, candidates: Sequence[str] = ()) -> list[Passage]:
    """Where a sound is parted by language, at pauses. `speech` are the parts of it that have speech."""
    parts = pieces(samples, speech) or [(0, len(samples))]
    window = int(WINDOW * SAMPLE_RATE)
    heard_in = [among(candidates, detect(samples[start : min(end, start + window)])) for start, end in parts]
    chosen = smooth(heard_in, [(end - start) / SAMPLE_RATE for start, end in parts])
    runs = [list(run) for _, run in itertools.groupby(range(len(parts)), key=chosen.__getitem__)]
    starts, ends = [0], []
    for before, after in itertools.pairwise(runs):
        first, second = before[-1], after[0]
        part_before = (max(starts[-1], parts[first][0]), parts[first][1])
        end, start = _edges(samples, part_before, parts[second], detect, chosen[first], chosen[second])
        starts.append(start)
        ends.append(end)
    ends.append(len(samples))
    return [
        Passage(start, end, chosen[run[0]], _mean([heard_in[piece].get(chosen[piece], 0.0) for piece in run]), True)
        for run, start, end in zip(runs, starts, ends, strict=True)
    ]


def _edges(
    samples: Samples, before: Part, after: Part, detect: Detect, language_before: str, language_after: str
) -> tuple[int, int]:
    """Where one passage ends and the next begins, between the speech of both.

    With no more silence than elsewhere; but in a long one there may be what could be speech, and nothing is left out.
    """
    end, start = before[1], after[0]
    if start - end < PAUSE * SAMPLE_RATE:
        cut = _change(samples, before, after, detect, language_before, language_after)
        return cut, cut
    middle, padding = (end + start) // 2, int(PADDING * SAMPLE_RATE)
    if start - end >= LONG_SILENCE * SAMPLE_RATE:
        return middle, middle
    return min(middle, end + padding), max(middle, start - padding)


def _change(
    samples: Samples, before: Part, after: Part, detect: Detect, language_before: str, language_after: str
) -> int:
    """Where between two phrases the language changes, in two pieces with hardly a pause between them."""
    cuts = [*_quiet_places(samples, before), (before[1] + after[0]) // 2, *_quiet_places(samples, after)]
    gains = [0.0]  # of the language after over the one before, in all phrases up to each cut
    for start, end in itertools.pairwise([before[0], *cuts, after[1]]):
        probabilities = detect(samples[start:end])
        first, second = (_evidence(probabilities, name) for name in (language_before, language_after))
        gains.append(gains[-1] + (second - first) * (end - start))
    return min(zip(gains[1:-1], cuts, strict=True))[1]


def _evidence(probabilities: Probabilities, language: str) -> float:
    return math.log(max(LEAST_PROBABILITY, finite(probabilities.get(language, 0.0))))


def _quiet_places(samples: Samples, part: Part) -> list[int]:
    """Where a part is quiet for a moment, at least PHRASE apart from each other and from its ends."""
    start, end = part
    frame, phrase = int(FRAME * SAMPLE_RATE), int(PHRASE * SAMPLE_RATE)
    frames = samples[start : start + (end - start) // frame * frame].reshape(-1, frame)  # (frames, samples)
    energies = (frames**2).mean(axis=1)  # (frames,)
    found: list[int] = []
    for index in np.argsort(energies):
        place = start + int(index) * frame + frame // 2
        if energies[index] > QUIET * energies.mean():
            break
        if all(abs(place - other) >= phrase for other in (start, end, *found)):
            found.append(place)
    return sorted(found)


def _mean(values: Sequence[float]) -> float:
    return sum(finite(value) for value in values) / len(values)


def _within(sound: Sound) -> list[Part]:
    """A sound's speech as parts of its samples, which are its spans laid end to end."""
    parts, done = [], 0
    for first, last in sound.spans:
        for start, end in sound.speech:
            if max(start, first) < min(end, last):
                parts.append((max(start, first) - first + done, min(end, last) - first + done))
        done += last - first
    return parts


def pieces(samples: Samples, speech: Sequence[Part]) -> list[Part]:
    """Parts of a sound with some seconds of speech each, apart from each other or side by side.

    Without `speech` the whole sound is taken for it.
    """
    short = [part for stretch in speech or [(0, len(samples))] for part in _cut(samples, stretch)]
    joined: list[Part] = []
    for start, end in short:
        if joined and not _is_piece(joined[-1], start):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    if len(joined) > 1 and joined[-1][1] - joined[-1][0] < LITTLE_SPEECH * SAMPLE_RATE:
        *joined, before, last = joined
        joined.append((before[0], last[1]))
    return joined


def _is_piece(part: Part, following: int) -> bool:
    """Whether a piece ends before the speech that begins at `following`."""
    start, end = part
    seconds, pause = (end - start) / SAMPLE_RATE, (following - end) / SAMPLE_RATE
    is_long = pause >= LONG_PAUSE and seconds >= LITTLE_SPEECH
    return is_long or (pause >= PAUSE and seconds >= SPEECH) or seconds >= LONGEST_PIECE / 2


def _cut(samples: Samples, stretch: Part) -> Iterator[Part]:
    """A stretch of speech in pieces of at most LONGEST_PIECE, cut where it is quietest."""
    start, end = stretch
    frame, longest = int(FRAME * SAMPLE_RATE), int(LONGEST_PIECE * SAMPLE_RATE)
    while end - start > longest:
        first = start + longest // 2
        frames = samples[first : min(start + longest, end - longest // 4)]
        frames = frames[: len(frames) // frame * frame].reshape(-1, frame)  # (frames, samples)
        cut = first + int(np.argmin((frames**2).sum(axis=1))) * frame + frame // 2
        yield start, cut
        start = cut
    yield start, end


def smooth(heard_in: Sequence[Probabilities], seconds: Sequence[float]) -> list[str]:
    """The languages of successive pieces, chosen together: the likeliest sequence when each change has its cost."""
    names = sorted({likeliest(probabilities)[0] for probabilities in heard_in})
    best = dict.fromkeys(names, 0.0)  # the value of the best sequence that ends with a language
    before: list[dict[str, str]] = []  # of each piece: the language of the piece before it in that sequence
    for probabilities, length in zip(heard_in, seconds, strict=True):
        weight = min(1.0, length / ENOUGH)
        champion = max(names, key=best.__getitem__)
        source = {name: name if best[name] >= best[champion] - CHANGE_COST else champion for name in names}
        best = {
            name: max(best[name], best[champion] - CHANGE_COST) + weight * _evidence(probabilities, name)
            for name in names
        }
        before.append(source)
    chosen = [max(names, key=best.__getitem__)]
    for source in reversed(before[1:]):
        chosen.append(source[chosen[-1]])
    return chosen[::-1]
