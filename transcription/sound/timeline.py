"""Original time and decoded time: an engine hears a section's spans as one sound and gives times in that.

recording   0 ──[ 1.2 ──── 9.4 ]──────────────[ 31.0 ── 40.0 ]──
decoded             0 ──────────────── 8.2 ──────────── 17.2

Here 8.2 is a joint: two times of the recording in one.
"""

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from transcription.whisper.pcm import SAMPLE_RATE
from transcription.whisper.result import Segment, Word
from transcription.whisper.sections import PADDING, Span

SAMPLE = 1 / SAMPLE_RATE  # seconds; times less than half a sample apart are the same


@dataclass(frozen=True)
class Timeline:
    """The times of one section. `spans` are of the recording, in order and apart, at least one."""

    spans: tuple[Span, ...]
    tempo: float = 1.0  # how many seconds of the recording a second of the decoded sound holds

    def to_original(self, seconds: float, *, is_end: bool = False) -> float:
        """The recording's time for a decoded one, never outside the spans.

        A joint is two times of the recording: what begins there begins in the later span, what ends there ends in
        the earlier one.
        """
        return self._place(seconds, self._span_before(seconds) if is_end else self._span(seconds))

    def restore(self, segment: Segment) -> Segment:
        """A segment as the engine gave it, with the recording's times.

        A word belongs to the span of its middle, and ends where that ends. A segment is as long as its words. Without
        them it begins and ends where it says, but for what reaches less than PADDING over a joint: there is no speech
        within that of one, and Whisper, which lets a segment begin where the one before it ended, would show it for the
        whole silence (research/perf.md §3.3, rule 6).
        """
        seek = round(100 * self.to_original(segment.seek / 100))
        if segment.words:
            words = tuple(self._restore_word(word) for word in segment.words)
            return replace(segment, start=words[0].start, end=words[-1].end, words=words, seek=seek)
        padding = PADDING / self.tempo
        middle = self._span((segment.start + segment.end) / 2)
        start = self._place(segment.start, min(middle, self._span(segment.start + padding)))
        end = self._place(segment.end, max(middle, self._span_before(segment.end - padding)))
        return replace(segment, start=start, end=end, seek=seek)

    def _restore_word(self, word: Word) -> Word:
        span = self._span((word.start + word.end) / 2)
        return replace(word, start=self._place(word.start, span), end=self._place(word.end, span))

    @cached_property
    def _joints(self) -> Sequence[float]:
        """Where each span begins in the spans laid end to end, and where the last one ends."""
        return [0.0, *itertools.accumulate(end - start for start, end in self.spans)]

    def _span(self, seconds: float) -> int:
        """The span that holds a decoded time; of two at a joint the later, beyond the ends the first or the last."""
        return self._among_spans(bisect_right(self._joints, seconds * self.tempo + SAMPLE / 2) - 1)

    def _span_before(self, seconds: float) -> int:
        """The same, but of two at a joint the earlier."""
        return self._among_spans(bisect_right(self._joints, seconds * self.tempo - SAMPLE / 2) - 1)

    def _among_spans(self, index: int) -> int:
        return min(max(0, index), len(self.spans) - 1)

    def _place(self, seconds: float, span: int) -> float:
        """The recording's time for a decoded one as this span sees it, and no farther than its ends."""
        start, end = self.spans[span]
        return min(max(start, start + seconds * self.tempo - self._joints[span]), end)
