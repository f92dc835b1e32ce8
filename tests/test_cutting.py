"""Where a recording is cut."""

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from transcription.whisper.cutting import SHORTEST_SILENCE, Section, Span, clipped, cut, is_uncut


def lay(pairs: list[tuple[float, float]], rest: float) -> tuple[list[Span], float]:
    """Stretches and the duration of a recording, from the silence before each stretch and its length."""
    stretches, now = [], 0.0
    for silence, speech in pairs:
        start = now + silence
        now = start + speech
        stretches.append((start, now))
    return stretches, now + rest


def talk(seconds: float, *, sentence: float = 4.0, pause: float = 0.5) -> tuple[list[Span], float]:
    """Sentences with short pauses, and no long one."""
    return lay([(pause, sentence)] * int(seconds / (sentence + pause)), 0.0)


def spans_of(sections: list[Section]) -> list[tuple[Span, ...]]:
    return [section.spans for section in sections]


# Windows of 32 ms, as the finder gives them: pauses from a breath to minutes, sentences and minutes without a pause.
WINDOW = 0.032
silences = st.one_of(st.integers(11, 70), st.integers(11, 4000)).map(lambda windows: windows * WINDOW)
speeches = st.one_of(st.integers(1, 300), st.integers(1, 12000)).map(lambda windows: windows * WINDOW)
recordings = st.builds(lay, st.lists(st.tuples(silences, speeches), min_size=1, max_size=60), st.floats(0, 100))
limits = st.none() | st.integers(1, 12)


@given(recordings, limits, st.booleans())
def test_every_stretch_of_speech_is_in_one_span_of_one_section(recording, limit, vad_filter):
    stretches, duration = recording
    spans = [span for section in cut(*recording, sections=limit, vad_filter=vad_filter) for span in section.spans]
    for start, end in stretches:
        holding = [span for span in spans if span[0] <= start and end <= span[1]]
        touching = [span for span in spans if span[0] < end and start < span[1]]
        assert len(holding) == len(touching) == 1


@given(recordings, limits, st.booleans())
def test_sections_and_their_spans_are_in_order_and_within_the_recording(recording, limit, vad_filter):
    sections = cut(*recording, sections=limit, vad_filter=vad_filter)
    edges = [time for section in sections for span in section.spans for time in span]
    assert edges == sorted(edges)
    assert edges[0] >= 0
    assert edges[-1] <= recording[1]
    assert all(start < end for section in sections for start, end in section.spans)


@given(recordings, limits, st.booleans())
def test_there_are_never_more_sections_than_were_asked_for(recording, limit, vad_filter):
    assume(limit is not None)
    assert 1 <= len(cut(*recording, sections=limit, vad_filter=vad_filter)) <= limit


@given(recordings, limits)
def test_without_the_filter_the_spans_cover_the_recording(recording, limit):
    spans = [span for section in cut(*recording, sections=limit, vad_filter=False) for span in section.spans]
    assert [0.0, *(end for _, end in spans)] == [*(start for start, _ in spans), recording[1]]


@given(recordings)
def test_with_the_filter_silence_is_taken_out_and_nothing_else(recording):
    stretches, duration = recording
    silences = [start - end for (_, end), (start, _) in itertools.pairwise(stretches)]
    last = duration - stretches[-1][1]
    taken = sum(seconds - 0.8 for seconds in silences if seconds >= 2) + (last - 0.4 if last >= 2 else 0.0)
    kept = sum(section.seconds for section in cut(*recording))
    taken += max(0.0, stretches[0][0] - 0.4)
    assert kept == pytest.approx(duration - taken)


@given(recordings, st.booleans())
def test_no_section_is_long_that_a_silence_could_halve(recording, vad_filter):
    """Longer than four minutes only where none of its silences leaves two minutes on both sides."""
    stretches, _ = recording
    for section in cut(*recording, vad_filter=vad_filter):
        if section.seconds <= 240:
            continue
        inside = [(s, e) for s, e in stretches if section.start <= s and e <= section.end]
        for (_, end), (start, _) in itertools.pairwise(inside):
            middle = (end + start) / 2
            after = section.since(middle).seconds
            assert start - end < SHORTEST_SILENCE or min(after, section.seconds - after) < 120


@pytest.mark.parametrize("pause", [0.35, 0.5, 1.5, 10.0])
def test_talk_is_cut_into_even_sections_of_two_minutes_however_long_people_pause(pause):
    sections = cut(*talk(3600, pause=pause))
    assert sum(section.seconds for section in sections) / len(sections) == pytest.approx(120, abs=6)
    assert max(section.seconds for section in sections) < 1.1 * min(section.seconds for section in sections)


@pytest.mark.parametrize("seconds", range(100, 400, 3))
def test_no_small_rest_is_left_at_the_end(seconds):
    sections = cut(*talk(seconds))
    assert min(section.seconds for section in sections) > 75
    assert max(section.seconds for section in sections) < 240


def test_the_longest_silence_in_reach_is_cut():
    pairs = [(0.5, 4.0)] * 60
    pairs[24] = (30.0, 4.0)
    stretches, duration = lay(pairs, 0.0)
    assert [section.start for section in cut(stretches, duration)] == [
        stretches[0][0] - 0.4,
        stretches[24][0] - 0.4,
    ]


def test_the_longest_of_silences_close_together_is_cut():
    pairs = [(0.4, 1.0)] * 140
    pairs[86] = (1.4, 1.0)
    stretches, duration = lay(pairs, 0.0)
    assert cut(stretches, duration)[1].start == pytest.approx(stretches[86][0] - 0.7)


def test_a_cut_in_a_short_silence_leaves_half_of_it_on_both_sides():
    stretches = [(0.0, 120.0), (121.0, 240.0)]
    assert spans_of(cut(stretches, 240.0)) == [((0.0, 120.5),), ((120.5, 240.0),)]


def test_speech_that_never_pauses_is_cut_nowhere():
    stretches = [(index * 10.0, index * 10.0 + 9.8) for index in range(100)]
    assert spans_of(cut(stretches, 1000.0)) == [((0.0, 1000.0),)]


def test_a_pause_at_the_beginning_of_endless_speech_is_no_reason_to_cut():
    assert spans_of(cut([(0.0, 1.0), (1.5, 900.0)], 900.0)) == [((0.0, 900.0),)]


def test_long_silences_are_taken_out_of_a_section():
    section = Section(((0.6, 5.4), (9.6, 14.0)), ((1.0, 5.0), (10.0, 11.0), (12.5, 13.0)))
    assert cut([(1.0, 5.0), (10.0, 11.0), (12.5, 13.0)], 14.0) == [section]
    assert section.seconds == pytest.approx(9.2)


def test_asked_for_uncut_without_filter_the_recording_is_whole_and_needs_no_speech_found():
    assert is_uncut(sections=1, vad_filter=False)
    assert cut([], 7200.0, sections=1, vad_filter=False) == [Section(((0.0, 7200.0),))]


@pytest.mark.parametrize(("sections", "vad_filter"), [(None, False), (1, True), (2, False), (None, True)])
def test_anything_else_needs_speech_found(sections, vad_filter):
    assert not is_uncut(sections=sections, vad_filter=vad_filter)


def test_asked_for_one_section_with_filter_only_silence_is_taken_out():
    (section,) = cut([(0.0, 1000.0), (1060.0, 2000.0)], 2000.0, sections=1)
    assert section.spans == ((0.0, 1000.4), (1059.6, 2000.0))


@pytest.mark.parametrize("sections", [2, 3, 7, 16])
def test_fewer_sections_are_longer_and_as_even(sections):
    found = cut(*talk(3600), sections=sections)
    assert len(found) == sections
    assert max(section.seconds for section in found) < 1.1 * min(section.seconds for section in found)


def test_more_sections_than_two_minutes_allow_are_not_made():
    assert len(cut(*talk(600), sections=50)) == 5


def test_where_no_speech_was_found_nothing_is_decoded():
    assert cut([], 3.0) == cut([], 600.0) == []


def test_speech_in_doubt_is_decoded_and_is_not_among_the_speech():
    (section,) = cut([(1.0, 2.0), (2.5, 4.0)], 5.0)
    doubted = section.without_speech({(2.5, 4.0)})
    assert (doubted.spans, doubted.speech) == (((0.6, 5.0),), ((1.0, 2.0),))


def test_without_the_filter_a_recording_without_speech_is_decoded_whole():
    assert cut([], 600.0, vad_filter=False) == [Section(((0.0, 600.0),), ())]


def test_what_is_left_of_a_section_begins_where_it_stopped():
    section = Section(((1.0, 5.0), (10.0, 20.0)))
    assert section.since(0.0) == section
    assert section.since(3.0) == Section(((3.0, 5.0), (10.0, 20.0)))
    assert section.since(5.0) == section.since(7.0) == Section(((10.0, 20.0),))
    assert section.since(20.0) == Section(())


def test_each_stretch_of_speech_is_in_one_section_and_what_is_clipped_away_is_not():
    stretches, duration = talk(600)
    sections = cut(stretches, duration)
    assert [stretch for section in sections for stretch in section.speech or ()] == stretches
    (first, *_) = clipped(sections, [(2.0, 7.0)])
    assert first.speech == ((2.0, 4.5), (5.0, 7.0))
    assert first.since(6.0).speech == ((6.0, 7.0),)


def test_a_day_of_speech_is_cut_at_once():
    stretches, duration = talk(86400, sentence=0.1, pause=0.4)
    sections = cut(stretches, duration, sections=100)
    assert len(sections) == pytest.approx(100, abs=5)
    assert math.isclose(sum(section.seconds for section in sections), duration)


HOLED = [(0.0, 40.0), (100.0, 130.0)]  # sixty seconds of silence are only in the file's stamps


def test_without_cuts_a_hole_is_in_no_span():
    assert cut([], 130.0, sound=HOLED, sections=1, vad_filter=False) == [Section(tuple(HOLED))]
    assert cut([], 130.0, sound=HOLED, vad_filter=False) == [Section(tuple(HOLED), ())]


def test_a_hole_is_a_silence_that_is_left_out_with_and_without_the_filter():
    stretches = [(1.0, 39.9), (100.1, 129.0)]
    (packed,) = cut(stretches, 130.0, sound=HOLED)
    assert packed.spans == ((0.6, 40.0), (100.0, 130.0))
    (whole,) = cut(stretches, 130.0, sound=HOLED, vad_filter=False)
    assert whole.spans == tuple(HOLED)
    assert packed.speech == whole.speech == tuple(stretches)


def test_a_short_hole_parts_a_span_that_the_filter_would_keep_whole():
    (section,) = cut([(0.0, 10.0), (10.5, 20.0)], 20.0, sound=[(0.0, 10.2), (10.4, 20.0)])
    assert section.spans == ((0.0, 10.2), (10.4, 20.0))


def test_a_recording_without_speech_is_decoded_without_its_holes_if_it_is_decoded():
    sound = [(0.0, 10.0), (3600.0, 3610.0)]
    assert cut([], 3610.0, sound=sound, vad_filter=False) == [Section(tuple(sound), ())]
    assert cut([], 3610.0, sound=sound) == []


def test_a_cut_may_be_in_a_hole():
    stretches = [(0.0, 110.0), (500.0, 610.0)]
    first, second = cut(stretches, 610.0, sound=[(0.0, 111.0), (499.5, 610.0)])
    assert (first.spans, second.spans) == (((0.0, 110.4),), ((499.6, 610.0),))
