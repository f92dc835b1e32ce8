"""A recording's own clock: where its decoded sound lies in it, from the stamps of FFmpeg's frames.

stamps      ──────[ 6.0 ──── 9.4 ]──────────────[ 31.0 ── 40.0 ]
decoded           0 ──────────── 3.4 ──────────────────── 12.4

Decoded sound has no stamps, so a silence that is only in them, a hole, is not in it. While FFmpeg decodes, a filter
writes a line wherever a frame's stamp is not where the sound before it ended, and nothing else: most recordings have
one line. Holes are from the sound's late start, packets that were lost, a recorder that was paused, an edit list.

A stamp is only a claim. Time never goes back: where stamps do, in joined files or after a counter began anew, the sound
goes on. A hole that would make the recording longer than any may be is none.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from transcription.whisper.cutting import Span
from transcription.whisper.pcm import SAMPLE_RATE

HOLE = 0.1  # seconds; stamps of live recordings stray by less although nothing is missing
BACKWARD = 1.0  # seconds; stamps that go back farther are those of another clock
GLITCH = 1.0  # seconds of sound whose stamps stray and come back

# Numbers of this size are seconds of sound, smaller ones are stamps: FFmpeg repeats no more than the number.
SOUND = 1e10
# ld(0): the last reported stamp less the seconds of sound before it; ld(2): the samples so far; ld(3): lines so far.
# After each thousand lines a frame must stray ten times as far, so that no file can have more than some thousands.
WATCH = (
    "aselect='st(1,t-ld(2)/sample_rate);"
    f"if(eq(n,0)+isnan(ld(0))*not(isnan(t))+gt(abs(ld(1)-ld(0)),{HOLE}*10^floor(ld(3)/1000)),"
    f"print({SOUND:.0f}+ld(2)/sample_rate)+print(t)+st(0,ld(1))+st(3,ld(3)+1));"
    "st(2,ld(2)+samples_n);1'"
)
# The sound itself is decoded without its stamps: a jump of a year must not count against the longest duration.
UNSTAMPED = "asetpts=N/SR/TB"
# A graph of filters ends where the sound's rate or channels change. Its last word is how many samples it gave.
COUNT = "volumedetect@stamps"

NUMBER = re.compile(rb"(?:\[Eval @ \w+\] )?\[info\] (-?\d+\.\d{6}|-?nan)\s*")
SAMPLES = re.compile(rb"\[volumedetect@stamps @ \w+\] \[info\] (?:n_samples: (\d+)|[a-z_0-9]+: \S+(?: dB)?)\s*")


class Anchor(NamedTuple):
    """A place in decoded sound, and what the file says of its time. Both in seconds of the recording."""

    sound: float
    stamp: float


@dataclass
class Reader:
    """Reads the filters' lines among FFmpeg's messages. `tempo` is that of the decoded sound."""

    tempo: float = 1.0
    anchors: list[Anchor] = field(default_factory=list)
    _decoded: float = 0.0  # by the graphs of filters that have ended
    _sound: float | None = None

    def read(self, line: bytes) -> bool:
        """Read a line; return False if no filter of ours wrote it."""
        if number := NUMBER.fullmatch(line):
            self._read_number(float(number[1]))
        elif samples := SAMPLES.fullmatch(line):
            self._decoded += self.tempo * int(samples[1] or 0) / SAMPLE_RATE
        return bool(number or samples)

    def _read_number(self, number: float) -> None:
        if number >= SOUND:
            self._sound = number - SOUND
        elif self._sound is not None:
            if not math.isnan(number):
                self.anchors.append(Anchor(self._decoded + self._sound, number))
            self._sound = None


@dataclass(frozen=True)
class Layout:
    """Where decoded sound lies in its recording. Laid end to end, the spans are the sound."""

    spans: tuple[Span, ...]
    is_plausible: bool = True


def lay(anchors: Sequence[Anchor], seconds: float, *, start: float, longest: float) -> Layout:
    """The layout of `seconds` of decoded sound in a recording of at most `longest` seconds.

    `start` is the stamp that a player shows as 0: the lowest of the file's, be it of sound or picture.
    """
    shifts = [-start]  # of the file's clocks so far, the present one last: from a stamp to the recording's time
    offset = 0.0  # from decoded time to the recording's
    joints = [(0.0, 0.0)]  # (a place in the sound, the offset from there on)
    is_plausible = True
    for sound, stamp in _steady(anchors):
        told = stamp + shifts[-1] - sound
        if told < offset - BACKWARD:
            shifts.append(offset + sound - stamp)
        elif told >= offset + HOLE:
            if earlier := [shift for shift in shifts if abs(stamp + shift - sound - offset) < HOLE]:
                shifts.append(earlier[-1])
            elif seconds + told > longest:
                shifts.append(offset + sound - stamp)
                is_plausible = False
            else:
                offset = told
                joints.append((sound, offset))
        del shifts[:-100]
    ends = [*(place for place, _ in joints[1:]), seconds]
    spans = [
        (round(place + offset, 4), round(end + offset, 4))
        for (place, offset), end in zip(joints, ends, strict=True)
        if end > place
    ]
    return Layout(tuple(spans), is_plausible)


def _steady(anchors: Sequence[Anchor]) -> list[Anchor]:
    """The anchors without those of a moment whose stamps stray, after which the clock goes on as before it."""
    steady: list[Anchor] = []
    for index, anchor in enumerate(anchors):
        after = anchors[index + 1] if index + 1 < len(anchors) else None
        if steady and after and after.sound - anchor.sound < GLITCH:
            before = steady[-1]
            if abs((after.stamp - after.sound) - (before.stamp - before.sound)) < HOLE:
                continue
        steady.append(anchor)
    return steady
