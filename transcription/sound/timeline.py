"""The recording's time and decoded time. An engine gets a section's spans as one sound and gives times in that sound.

recording   0 ──[ 1.2 ──── 9.4 ]──────────────[ 31.0 ── 40.0 ]──
decoded             0 ──────────────── 8.2 ──────────── 17.2

Here 8.2 is a joint. It stands for two times of the recording, 9.4 and 31.0.
"""

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from transcription.whisper import cutting
from transcription.whisper.cues import Speech
from transcription.whisper.cutting import LONG_SILENCE, PADDING, Span
from transcription.whisper.pcm import SAMPLE_RATE
from transcription.whisper.result import Segment, Word

SAMPLE = 1 / SAMPLE_RATE  # seconds; times less than half a sample apart are the same


@dataclass(frozen=True)
class Timeline:
    """The times of one section, or of all that was decoded.

    `spans` are in the recording's time, in order and apart; there is at least one.
    """

    spans: tuple[Span, ...]
    tempo: float = 1.0  # seconds of the recording in a second of the decoded sound

    @property
    def end(self) -> float:
        """The end of the sound, in the recording's time."""
        return self.spans[-1][1]

    def to_original(self, seconds: float, *, is_end: bool = False) -> float:
        """The recording's time for a decoded time, never outside the spans.

        A start at a joint belongs to the later span, an end at a joint to the earlier one.
        """
        return self._in_span(seconds, self._span_before(seconds) if is_end else self._span(seconds))

    def to_decoded(self, seconds: float) -> float:
        """The decoded time for a time of the recording; the next joint for a time that is in no span."""
        index = bisect_left(self.spans, seconds, key=lambda span: span[1])
        if index == len(self.spans):
            return self._joints[-1] / self.tempo
        return (self._joints[index] + max(0.0, seconds - self.spans[index][0])) / self.tempo

    def to_original_spans(self, start: float, end: float) -> list[Span]:
        """The spans of the recording that a stretch of the decoded sound is from: more than one, if it has joints."""
        whole = (self.to_original(start), self.to_original(end, is_end=True))
        return list(cutting.intersection([whole], self.spans))

    def decoded_speech(self, stretches: Sequence[Span]) -> Speech:
        """Stretches of speech of the recording as they are in the decoded sound. Those in no span are left out."""
        decoded = [(self.to_decoded(start), self.to_decoded(end)) for start, end in stretches]
        kept = [index for index, (start, end) in enumerate(decoded) if end - start > SAMPLE]
        after_silence = frozenset(
            place
            for place, (before, index) in enumerate(itertools.pairwise(kept), start=1)
            if stretches[index][0] - stretches[before][1] >= LONG_SILENCE
        )
        return Speech(tuple(decoded[index] for index in kept), after_silence)

    def restore(self, segment: Segment) -> Segment:
        """The same segment in the recording's time.

        A word belongs to the span that has its middle, and does not reach out of it. A segment with words begins with
        its first word and ends with its last. A segment without words keeps its times, except where it reaches less
        than PADDING over a joint. There is no speech that close to a joint, but Whisper lets a segment begin where the
        one before it ended, so the subtitle would stay for the whole silence.
        """
        seek = round(100 * self.to_original(segment.seek / 100))
        if segment.words:
            words = tuple(self._restore_word(word) for word in segment.words)
            return replace(segment, start=words[0].start, end=words[-1].end, words=words, seek=seek)
        padding = PADDING / self.tempo
        middle = self._span((segment.start + segment.end) / 2)
        start = self._in_span(segment.start, min(middle, self._span(segment.start + padding)))
        end = self._in_span(segment.end, max(middle, self._span_before(segment.end - padding)))
        return replace(segment, start=start, end=end, seek=seek)

    def _restore_word(self, word: Word) -> Word:
        span = self._span((word.start + word.end) / 2)
        return replace(word, start=self._in_span(word.start, span), end=self._in_span(word.end, span))

    @cached_property
    def _joints(self) -> Sequence[float]:
        """The start of each span when they are laid end to end at the recording's tempo, and the end of the last."""
        return [0.0, *itertools.accumulate(end - start for start, end in self.spans)]

    def _span(self, seconds: float, nudge: float = SAMPLE / 2) -> int:
        """The index of the span that has a decoded time: the later one at a joint, the nearest beyond the ends."""
        index = bisect_right(self._joints, seconds * self.tempo + nudge) - 1
        return min(max(0, index), len(self.spans) - 1)

    def _span_before(self, seconds: float) -> int:
        """The same, but the earlier span at a joint."""
        return self._span(seconds, nudge=-SAMPLE / 2)

    def _in_span(self, seconds: float, span: int) -> float:
        """The recording's time for a decoded time, taken to be in this span, and kept within its ends."""
        start, end = self.spans[span]
        return min(max(start, start + seconds * self.tempo - self._joints[span]), end)
