"""The arithmetic of the benchmarks that compare transcripts with what was said."""

import numpy as np
import pytest

from benchmarks.answers import Answer, Cue, Request, covered_pauses, errors_of, from_srt, overlap, percentile
from benchmarks.cases import Case, Voice, faults
from benchmarks.cues import RATE, place_of
from tests.speech import wrong_words

PLACES = [(1.0, 3.0), (20.0, 22.0)]
CASE = Case("a kind", "file.ogg", (Voice("RU", (1.0, 5.0)),))
HEARD = "Извините, данный номер не существует. Пожалуйста, попробуйте еще раз."


@pytest.mark.parametrize(
    ("heard", "rate"),
    [
        ("One, two; three four!", 0),
        ("one two four", 0.25),
        ("one two three and four", 0.25),
        ("one 2 free four", 0.25),
        ("", 1),
        ("one two three four one two three four", 1),
    ],
)
def test_wrong_words_are_counted_whatever_their_case_and_marks(heard: str, rate: float) -> None:
    assert wrong_words("one two three four", heard) == rate


def test_cues_in_their_places_have_small_errors() -> None:
    (first, second) = errors_of([Cue(1.1, 2.8, "a"), Cue(20.0, 22.3, "b")], PLACES)

    assert first == pytest.approx((0.1, 0.2))
    assert second == pytest.approx((0, 0.3))


def test_a_place_of_two_cues_begins_with_the_first_and_ends_with_the_second() -> None:
    assert errors_of([Cue(1.0, 1.9, "a"), Cue(2.1, 3.0, "b")], PLACES[:1]) == [(0, 0)]


def test_a_cue_over_a_pause_is_wrong_by_the_pause() -> None:
    cues = [Cue(1.0, 22.0, "a b")]

    assert errors_of(cues, PLACES) == [(0, 19), (19, 0)]
    assert covered_pauses(cues, PLACES) == 1
    assert covered_pauses([Cue(1.0, 19.0, "a"), Cue(20.0, 22.0, "b")], PLACES) == 0


def test_nothing_heard_is_infinitely_wrong() -> None:
    assert errors_of([], PLACES[:1]) == [(float("inf"), float("inf"))]


def test_people_who_speak_at_once_are_counted_once() -> None:
    assert overlap(Cue(0.0, 10.0, "a"), [(1.0, 4.0), (2.0, 3.0), (3.0, 6.0)]) == 5
    assert overlap(Cue(0.0, 10.0, "a"), [(1.0, 4.0)], margin=0.5) == 4
    assert overlap(Cue(4.5, 10.0, "a"), [(1.0, 4.0)]) == 0


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([5, 1, 2, 4, 3], 0.5) == 3
    assert percentile(list(range(1, 21)), 0.95) == 19
    assert percentile([7], 0.95) == 7


def test_subrip_is_read_with_its_times() -> None:
    text = "1\n00:00:01,500 --> 01:00:02,000\nOne\nline\n\n2\n01:00:03,000 --> 01:00:04,250\nTwo\n"

    assert from_srt(text) == [Cue(1.5, 3602.0, "One line"), Cue(3603.0, 3604.25, "Two")]
    assert from_srt("") == []


def test_a_voice_is_found_without_the_silence_around_it() -> None:
    tone = 0.5 * np.sin(np.arange(RATE) / 5)
    samples = np.concatenate([np.zeros(RATE // 2), tone, np.zeros(RATE // 4)])

    assert place_of(samples) == pytest.approx((0.5, 1.5), abs=0.011)


def test_an_answer_with_the_right_words_at_the_right_times_is_right() -> None:
    assert faults(CASE, Answer((Cue(1.2, 3.0, HEARD[:38]), Cue(3.0, 4.8, HEARD[38:])), "ru")) == []


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Answer(error="not_media"), "an error"),
        (Answer((Cue(1.0, 5.0, "Спасибо за просмотр"),)), "other words"),
        (Answer((Cue(1.5, 5.0, HEARD),)), "RU begins 0.5 s off"),
        (Answer((Cue(1.0, 15.0, HEARD),)), "RU ends 10.0 s off"),
        (Answer((Cue(1.0, 5.0, HEARD), Cue(8.0, 9.0, "да"))), "words in a pause"),
        (Answer((Cue(3.0, 5.0, HEARD), Cue(1.0, 2.0, ""))), "times go backward"),
        (Answer((Cue(1.0, 5.0, HEARD, words=((0.5, 1.5),)),)), "words outside their cue"),
        (Answer((Cue(1.0, 5.0, HEARD),), warnings=("input_truncated",)), "input_truncated"),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(answer: Answer, fault: str) -> None:
    assert fault in faults(CASE, answer)


def test_where_nobody_speaks_there_is_no_text_no_language_and_a_warning() -> None:
    case = Case("a kind", "file.ogg", (), warning="no_speech")

    assert faults(case, Answer((Cue(0, 2, "You"),), "en")) == ["text where nobody speaks", "a language", "no warning"]
    assert faults(case, Answer(warnings=("no_speech",))) == []


def test_each_channel_has_its_own_words() -> None:
    voices = (Voice("EN", (0.0, 4.0), channel=1), Voice("RU", (1.0, 5.0), channel=2))
    case = Case("a kind", "file.ogg", voices, "channels=separate")
    english = "I am sorry, that's not a valid extension. Please try again."

    assert faults(case, Answer((Cue(0, 4, english, channel=1), Cue(1, 5, HEARD, channel=2)))) == []
    assert "other words" in faults(case, Answer((Cue(0, 4, english), Cue(1, 5, HEARD))))


def test_a_name_in_any_bytes_and_no_name_are_sent_as_they_are() -> None:
    named = Request(b"sound", b"\xff", [("language", "ru")]).multipart("file")["content"]
    unnamed = Request(b"sound", None).multipart("file")["content"]

    assert b'name="file"; filename="\xff"\r\n\r\nsound\r\n' in named
    assert b'name="language"\r\n\r\nru\r\n' in named
    assert b'name="file"\r\n\r\nsound\r\n' in unnamed
