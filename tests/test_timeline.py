"""Original time and decoded time."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcription.sound.timeline import Timeline
from transcription.whisper.result import Segment, Word

SAMPLE = 1 / 16000


def segment(start: float, end: float, words: tuple[Word, ...] | None = None, seek: int = 0) -> Segment:
    return Segment(
        start=start, end=end, text="", seek=seek, tokens=(), temperature=0.0, avg_logprob=-0.1,
        compression_ratio=1.0, no_speech_prob=0.0, words=words,
    )  # fmt: skip


def word(start: float, end: float) -> Word:
    return Word(" word", start, end, 0.9)


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """Up to a dozen spans with silences of two seconds and more taken out between them, on samples as PCM is."""
    spans, now = [], draw(st.integers(0, 10**7))
    for length, gap in draw(st.lists(st.tuples(st.integers(1, 10**6), st.integers(19200, 10**7)), min_size=1)):
        spans.append((now * SAMPLE, (now + length) * SAMPLE))
        now += length + gap
    return Timeline(tuple(spans), tempo=draw(st.sampled_from([1.0, 1.5, 2.0])))


def seconds(timeline: Timeline) -> float:
    return sum(end - start for start, end in timeline.spans) / timeline.tempo


@st.composite
def decoded(draw: st.DrawFn, number: int) -> tuple[Timeline, list[float]]:
    """A timeline and times in order, a little beyond its end too, and often exactly on its joints."""
    timeline = draw(timelines())
    lengths = [end - start for start, end in timeline.spans]
    joints = [joint / timeline.tempo for joint in itertools.accumulate(lengths)]
    time = st.floats(0, seconds(timeline) + 5) | st.sampled_from([0.0, *joints])
    return timeline, sorted(draw(st.lists(time, min_size=number, max_size=number)))


def to_decoded(timeline: Timeline, time: float) -> float:
    """The seconds of the spans before a time of the recording, as they are decoded."""
    return sum(max(0.0, min(time, end) - start) for start, end in timeline.spans) / timeline.tempo


def is_in_a_span(timeline: Timeline, time: float) -> bool:
    return any(start <= time <= end for start, end in timeline.spans)


@given(decoded(1), st.booleans())
def test_a_time_there_and_back_is_the_same(situation, is_end):
    timeline, (time,) = situation
    there = timeline.to_original(time, is_end=is_end)
    assert to_decoded(timeline, there) == pytest.approx(min(time, seconds(timeline)), abs=SAMPLE)


@given(decoded(2), st.booleans())
def test_later_in_the_decoded_sound_is_later_in_the_recording(situation, is_end):
    timeline, (first, second) = situation
    there = [timeline.to_original(time, is_end=is_end) for time in (first, second)]
    assert there == sorted(there)


@given(decoded(1), st.booleans())
def test_an_original_time_is_one_that_was_decoded(situation, is_end):
    timeline, (time,) = situation
    assert is_in_a_span(timeline, timeline.to_original(time, is_end=is_end))


@given(timelines(), st.floats(-10, 2000), st.booleans())
def test_a_time_far_outside_the_decoded_sound_is_in_the_recording_too(timeline, time, is_end):
    assert is_in_a_span(timeline, timeline.to_original(time, is_end=is_end))


@given(decoded(8))
def test_words_keep_their_order_and_span_no_silence(situation):
    timeline, times = situation
    words = tuple(word(times[i], times[i + 1]) for i in range(0, len(times), 2))
    restored = timeline.restore(segment(times[0], times[-1], words))
    edges = [time for w in restored.words for time in (w.start, w.end)]
    assert edges == sorted(edges)
    assert all(any(s <= w.start and w.end <= e for s, e in timeline.spans) for w in restored.words)
    assert (restored.start, restored.end) == (edges[0], edges[-1])


@given(decoded(6))
def test_segments_keep_their_order_and_do_not_overlap(situation):
    timeline, times = situation
    found = [timeline.restore(segment(times[i], times[i + 1])) for i in range(0, len(times), 2)]
    edges = [time for s in found for time in (s.start, s.end)]
    assert edges == sorted(edges)
    assert all(is_in_a_span(timeline, edge) for edge in edges)


TWO = Timeline(((10.0, 15.0), (30.0, 40.0)))


def test_what_ends_at_a_joint_ends_before_the_silence_and_what_begins_there_begins_after_it():
    assert TWO.to_original(5.0, is_end=True) == 15.0
    assert TWO.to_original(5.0) == 30.0
    first, second = TWO.restore(segment(2.0, 5.0)), TWO.restore(segment(5.0, 8.0))
    assert (first.start, first.end, second.start, second.end) == (12.0, 15.0, 30.0, 33.0)


def test_a_joint_is_met_though_thirds_do_not_add_up():
    thirds = Timeline(tuple((n * 10.0, n * 10.0 + 1 / 3) for n in range(30)))
    assert thirds.to_original(9.0, is_end=True) == pytest.approx(260 + 1 / 3)
    assert thirds.to_original(9.0) == 270.0


def test_a_time_beyond_either_end_is_that_end():
    assert TWO.to_original(-1.0) == TWO.to_original(-1.0, is_end=True) == 10.0
    assert TWO.to_original(99.0) == TWO.to_original(99.0, is_end=True) == 40.0


def test_whisper_ends_a_segment_beyond_the_sound_and_the_recording_is_not_longer_for_it():
    assert TWO.restore(segment(12.0, 30.0)).end == 40.0


def test_a_segment_over_a_joint_begins_and_ends_where_its_speech_is():
    restored = TWO.restore(segment(3.0, 8.0))
    assert (restored.start, restored.end) == (13.0, 33.0)


def test_a_segment_that_begins_in_the_padding_before_a_joint_begins_after_the_silence():
    assert TWO.restore(segment(4.7, 8.0)).start == 30.0
    assert TWO.restore(segment(4.5, 8.0)).start == 14.5


def test_a_segment_that_ends_in_the_padding_after_a_joint_ends_before_the_silence():
    assert TWO.restore(segment(2.0, 5.3)).end == 15.0
    assert TWO.restore(segment(2.0, 5.5)).end == 30.5


def test_a_word_over_a_joint_is_where_its_middle_is():
    early, late = TWO.restore(segment(4.0, 6.0, (word(4.0, 5.9), word(4.8, 5.4)))).words
    assert (early.start, early.end) == (14.0, 15.0)
    assert (late.start, late.end) == (30.0, 30.4)


def test_a_segment_with_words_is_as_long_as_they_are():
    restored = TWO.restore(segment(4.9, 8.0, (word(4.9, 5.5), word(5.5, 7.0))))
    assert (restored.start, restored.end) == (30.0, 32.0)


def test_a_segment_without_text_has_no_words_and_keeps_its_times():
    assert (TWO.restore(segment(1.0, 2.0, ())).start, TWO.restore(segment(1.0, 2.0, ())).words) == (11.0, ())


def test_the_window_of_a_segment_is_where_it_was_in_the_recording():
    assert TWO.restore(segment(6.0, 7.0, seek=600)).seek == 3100


def test_a_faster_sound_is_stretched_again():
    fast = Timeline(((10.0, 15.0), (30.0, 40.0)), tempo=2.0)
    assert fast.to_original(1.0) == 12.0
    assert fast.to_original(2.5, is_end=True) == 15.0
    assert fast.to_original(7.5) == 40.0
    assert fast.to_original(3.5) == 32.0
    assert fast.restore(segment(2.25, 4.0)).start == 14.5  # half a second before the silence: more than padding


def test_one_span_only_moves():
    one = Timeline(((100.0, 220.0),))
    restored = one.restore(segment(1.5, 3.0, (word(1.5, 2.0), word(2.0, 3.0))))
    assert (restored.start, restored.end) == (101.5, 103.0)


def test_what_no_database_can_store_is_taken_out_of_what_an_engine_says() -> None:
    word = {"word": " a\0b", "start": 0.0, "end": 1.0, "probability": 1.0}
    heard = Segment(0.0, 1.0, " a\0b", 0, (1,), 0.0, -0.1, 1.0, 0.0).to_json() | {"words": [word]}
    read = Segment.from_json(heard)
    assert read.text == " ab"
    assert read.words == (Word(" ab", 0.0, 1.0, 1.0),)


def test_a_stretch_of_the_decoded_sound_is_parted_at_its_joints():
    timeline = Timeline(((6.0, 10.0), (20.0, 30.0), (31.0, 32.0)), tempo=2.0)
    assert timeline.to_original_spans(1.0, 1.5) == [(8.0, 9.0)]
    assert timeline.to_original_spans(1.0, 7.5) == [(8.0, 10.0), (20.0, 30.0), (31.0, 32.0)]
    assert timeline.to_original_spans(2.0, 3.0) == [(20.0, 22.0)]  # from a joint
    assert timeline.to_original_spans(1.0, 2.0) == [(8.0, 10.0)]  # up to a joint


@given(timelines())
def test_all_of_the_decoded_sound_is_from_all_of_the_spans(timeline):
    found = timeline.to_original_spans(0.0, seconds(timeline))
    longer = [span for span in timeline.spans if span[1] - span[0] > 0.011]
    assert [span for span in found if span[1] - span[0] > 0.011] == [pytest.approx(span) for span in longer]
