"""Cues begin and end with their words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcription.sound.timeline import Timeline
from transcription.whisper.cues import LONGEST_CUE, Speech, part
from transcription.whisper.result import Segment, Word

# Two sentences and the silence of half a minute between them, of which 0.8 s are decoded.
ONE, OTHER = (0.4, 4.4), (5.2, 10.2)
PARTED = Speech((ONE, OTHER), frozenset({1}))


def spoken(*words: tuple[str, float, float]) -> Segment:
    made = tuple(Word(text, start, end, 0.9) for text, start, end in words)
    return without_words("".join(word.word for word in made), made[0].start, made[-1].end, made)


def without_words(text: str, start: float, end: float, words: tuple[Word, ...] | None = None) -> Segment:
    return Segment(
        start=start, end=end, text=text, seek=0, tokens=(1, 2), temperature=0.0, avg_logprob=-0.1,
        compression_ratio=1.0, no_speech_prob=0.0, words=words,
    )  # fmt: skip


def times(cues: list[Segment]) -> list[tuple[float, float]]:
    return [(cue.start, cue.end) for cue in cues]


def test_a_segment_over_a_long_silence_is_parted_there():
    segment = spoken((" Try", 0.5, 1.0), (" again.", 1.0, 4.3), (" Please", 4.3, 5.9), (" enter", 5.9, 10.1))
    first, second = part(segment, PARTED)
    assert (first.text, second.text) == (" Try again.", " Please enter")
    assert times([first, second]) == [(0.4, 4.4), (pytest.approx(5.15), 10.2)]
    assert first.tokens == second.tokens == segment.tokens


def test_a_word_belongs_to_where_most_of_it_is_spoken():
    """An alignment often lets the word after a silence begin with the silence, or a little before it."""
    (first, second) = part(spoken((" one", 3.0, 4.3), (" two", 4.3, 5.5)), PARTED)
    assert (first.text, second.text) == (" one", " two")
    (first, second) = part(spoken((" one", 3.5, 5.3), (" two", 5.3, 6.0)), PARTED)
    assert (first.text, second.text) == (" one", " two")


def test_a_short_pause_parts_nothing():
    segment = spoken((" one", 0.5, 4.2), (" two", 5.3, 9.0))
    assert len(part(segment, Speech((ONE, OTHER)))) == 1


def test_ends_in_silence_are_moved_to_the_speech_and_near_ones_reach_its_end():
    (cue,) = part(spoken((" one", 0.0, 0.9), (" two", 0.9, 4.9)), Speech((ONE,)))
    assert times([cue]) == [(pytest.approx(0.35), pytest.approx(4.45))]
    (cue,) = part(spoken((" one", 0.6, 0.9), (" two", 0.9, 4.2)), Speech((ONE,)))
    assert times([cue]) == [(0.4, 4.4)]


def test_a_word_in_the_middle_of_speech_keeps_its_times():
    (cue,) = part(spoken((" one", 1.5, 1.9), (" two", 1.9, 2.4)), Speech((ONE,)))
    assert times([cue]) == [(1.5, 2.4)]


def test_a_cue_does_not_begin_before_the_one_before_it_ended():
    (cue,) = part(spoken((" two", 0.6, 0.9)), Speech((ONE,)), after=0.6)
    assert cue.start == 0.6


def test_a_long_number_is_one_word_with_pauses_in_it():
    (cue,) = part(spoken((" 8-800-555", 0.5, 3.9)), Speech(((0.4, 1.4), (1.9, 2.9), (3.3, 4.0))))
    assert times([cue]) == [(0.4, 4.0)]


def test_a_segment_without_words_loses_the_silence_at_its_ends():
    assert times(part(without_words(" one", 0.0, 4.9), PARTED)) == [(0.4, 4.4)]
    assert times(part(without_words(" one", 3.9, 10.4), PARTED)) == [(5.2, 10.2)]


def test_where_no_speech_was_found_or_looked_for_times_are_the_engines():
    segment = spoken((" one", 0.0, 29.0))
    assert part(segment, Speech(())) == [segment]
    far = spoken((" one", 20.0, 21.0))
    assert times(part(far, PARTED)) == [(20.0, 21.0)]


LONG = Speech(((0.0, 30.0),))
SENTENCES = " I am sorry, that is not a valid extension. Please enter your number of e.g. 4.5 digits for Dr. No."


def read_aloud(text: str, *, word_seconds: float = 0.4) -> Segment:
    words = text.split()
    return spoken(*((f" {word}", index * word_seconds, (index + 1) * word_seconds) for index, word in enumerate(words)))


def test_a_segment_too_long_to_read_is_parted_at_the_ends_of_its_sentences():
    cues = part(read_aloud(SENTENCES), LONG)
    assert [cue.text for cue in cues] == [SENTENCES[:43], SENTENCES[43:]]
    assert cues[0].end <= cues[1].start


def test_short_sentences_stay_together():
    assert len(part(read_aloud(" Yes. No. Perhaps."), LONG)) == 1
    together = part(read_aloud(" Yes. No. Perhaps." * 8, word_seconds=0.2), LONG)
    assert all(len(cue.text) <= LONGEST_CUE + 1 for cue in together)
    assert len(together) == 2


def test_a_sentence_without_an_end_is_not_parted():
    assert len(part(read_aloud(" word" * 60), LONG)) == 1


def test_chinese_sentences_have_no_spaces():
    cues = part(spoken(("你好。", 0.0, 6.0), ("你好吗？", 6.0, 12.0)), LONG)
    assert [cue.text for cue in cues] == ["你好。", "你好吗？"]


moments = st.floats(0, 60)
pairs = st.tuples(moments, moments).map(sorted)


@given(
    st.lists(pairs, min_size=1, max_size=8),
    st.lists(st.tuples(st.floats(0.1, 8), st.floats(0.3, 20)), min_size=1, max_size=8),
)
def test_no_word_is_lost_and_no_cue_reaches_over_a_long_silence(words, recording):
    now, stretches = 0.0, []
    for seconds, silence in recording:
        stretches.append((now, now + seconds))
        now += seconds + silence
    timeline = Timeline(((0.0, now),))
    segment = spoken(*((f" {index}.", start, end) for index, (start, end) in enumerate(sorted(words))))
    speech = timeline.decoded_speech(stretches)
    cues = part(segment, speech)
    assert "".join(cue.text for cue in cues) == segment.text
    assert [word.word for cue in cues for word in cue.words or ()] == [word.word for word in segment.words or ()]
    assert all(cue.start <= cue.end for cue in cues)
    assert all(before.start <= after.start for before, after in zip(cues, cues[1:], strict=False))
