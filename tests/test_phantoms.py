"""Words that nobody said. The measures are those that real `base` gave, of noise and of voices."""

from dataclasses import replace

import pytest

from transcription.whisper import phantoms
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.result import Segment, Word

NAMES = "Иванов, Петрова, Кузнецов, Stenograf, Смирнова"
DEFAULTS = TranscriptionOptions()
TOLD = TranscriptionOptions(initial_prompt=NAMES)
NO_THRESHOLDS = TranscriptionOptions(
    compression_ratio_threshold=None, logprob_threshold=None, no_speech_threshold=None, initial_prompt=NAMES
)


def a_segment(
    text: str, logprob: float, no_speech: float, compression: float = 1.0, *, start: float = 0.0, end: float = 3.0
) -> Segment:
    return Segment(
        start=start, end=end, text=text, seek=0, tokens=(), temperature=0.0, avg_logprob=logprob,
        compression_ratio=compression, no_speech_prob=no_speech,
    )  # fmt: skip


# What came of noise, hum, music, breath and silence, without a prompt and with one.
PHANTOMS = [
    (DEFAULTS, a_segment(" Редактор субтитров А.Синецкая Корректор В.Сухиашвили", -0.54, 0.75, 1.13)),
    (DEFAULTS, a_segment(" Редактор субтитров О. Голубкина", -0.76, 0.77, 0.91)),
    (DEFAULTS, a_segment(" Редактор субтитров А.Синецкая Корректор А.Егорова", -0.5, 0.4, 1.12)),
    (DEFAULTS, a_segment(" СПОКОЙНАЯ МУЗЫКА", -0.84, 0.42, 0.79)),
    (DEFAULTS, a_segment(" You", -0.8, 0.74, 0.27)),
    (DEFAULTS, a_segment(" .", -0.75, 0.5, 0.58)),
    (DEFAULTS, a_segment("...", -0.4, 0.3, 0.6)),
    (DEFAULTS, a_segment(" a", -0.43, 0.5, 2.5)),
    (DEFAULTS, a_segment(" Oh, yeah.", -1.28, 0.59, 0.53)),
    (TOLD, a_segment(" Иванов, Петрова, Кузнецов, Смирнова", -0.31, 0.48, 1.05)),
    (TOLD, a_segment(" Смирнова, Кузнецов, Stenograf, Смирнова", -0.44, 0.43, 1.12)),
    (TOLD, a_segment(" Петрова, Кузне", -0.35, 0.25, 0.92)),
]

# What came of voices: quiet, far, clipped, on a bad line.
VOICES = [
    a_segment(" Набранный вами номер отклечен, проверьте номер и повторите", -0.37, 0.03, 1.27),
    a_segment(" Усечение аудиосигнала.", -0.47, 0.38, 0.84),
    a_segment(" Конференция завершена.", -0.67, 0.10, 0.89),
    a_segment(" press star for health or pound to exit", -0.50, 0.15, 0.86),
    a_segment(" Сообщение восстановлено.", -0.55, 0.26, 0.96),
    a_segment(" Сегодня.", -0.65, 0.16, 0.62),
]


def left_out(segment: Segment, options: TranscriptionOptions = DEFAULTS, **place: object) -> str | None:
    return phantoms.fault(segment, options, **{"is_heard": False, "loudness": -30.0, **place})


@pytest.mark.parametrize(("options", "segment"), PHANTOMS)
def test_what_comes_of_noise_is_left_out(options: TranscriptionOptions, segment: Segment) -> None:
    assert left_out(segment, options) is not None


@pytest.mark.parametrize("segment", VOICES)
def test_what_comes_of_a_voice_is_kept_even_if_speech_is_in_doubt(segment: Segment) -> None:
    assert left_out(segment) is None
    assert left_out(segment, TOLD) is None


@pytest.mark.parametrize(("text", "logprob", "no_speech"), [
    (" Thank you.", -0.72, 0.55), (" Спасибо за внимание!", -0.5, 0.3), (" О!", -0.53, 0.35), (" Yes.", -1.3, 0.7),
    (" Петрова, Кузнецов.", -0.4, 0.2), (" Иванов!", -0.9, 0.5),
])  # fmt: skip
def test_where_speech_was_heard_words_are_words(text: str, logprob: float, no_speech: float) -> None:
    """People thank each other, and say the names that the prompt has."""
    assert left_out(a_segment(text, logprob, no_speech), TOLD, is_heard=True) is None


def test_where_speech_was_heard_subtitlers_are_not_believed_if_the_engine_hears_none() -> None:
    credit = a_segment(" Субтитры сделал DimaTorzok", -0.7, 0.8)
    assert left_out(credit, is_heard=True) == "subtitlers' words"
    assert left_out(replace(credit, no_speech_prob=0.2), is_heard=True) is None


@pytest.mark.parametrize("phrase", [
    "Продолжение следует...", "Untertitel der Amara.org-Community", "ご視聴ありがとうございました",
    "Thanks for watching!",
    "Thank you. Thank you. Thank you.", "Sous-titres réalisés par la communauté d'Amara.org", "[Music]", "♪♪♪",
    "Subtítulos realizados por la comunidad de Amara.org", "请不吝点赞 订阅 转发 打赏支持明镜与点点栏目",
    "Дякую за перегляд!",
    "시청해주셔서 감사합니다.", "Altyazı M.K.", "Diolch yn fawr iawn.", "Napisy stworzone przez społeczność Amara.org",
])  # fmt: skip
def test_the_last_words_of_subtitles_are_left_out_where_nobody_was_heard(phrase: str) -> None:
    """However sure the engine is."""
    assert left_out(a_segment(phrase, -0.2, 0.1)) is not None
    assert left_out(a_segment(phrase + " Meanwhile in the other room it rained.", -0.2, 0.1), is_heard=True) is None


def test_a_sentence_said_again_where_nobody_was_heard_is_left_out() -> None:
    segment = a_segment(" The train is leaving now.", -0.3, 0.2)
    assert left_out(segment, before=" The train is leaving now.") is not None
    assert left_out(segment, before=" Hurry up.") is None


def test_the_sentence_before_said_again_faster_than_anybody_speaks_is_left_out_beside_speech_too() -> None:
    sentence = " Twelve bears live in the forest."
    again = a_segment(sentence, -0.1, 0.0, end=0.5)
    assert phantoms.fault(again, DEFAULTS, is_heard=True, loudness=-20.0, before=sentence) is not None
    assert phantoms.fault(again, DEFAULTS, is_heard=True, loudness=-20.0, before=" Hurry up.") is None
    slower = a_segment(sentence, -0.1, 0.0, end=1.5)
    assert phantoms.fault(slower, DEFAULTS, is_heard=True, loudness=-20.0, before=sentence) is None


def test_too_many_words_for_their_time_are_left_out() -> None:
    text = " It was the best of times, it was the worst of times, it was the age of wisdom."
    assert left_out(a_segment(text, -0.3, 0.2, end=1.0)) == "too many words"
    assert left_out(a_segment(text, -0.3, 0.2, end=5.0)) is None


def test_words_of_silence_are_left_out() -> None:
    assert left_out(a_segment(" Hello there.", -0.3, 0.1), is_heard=True, loudness=-85.0) == "silence"
    assert left_out(a_segment(" Hello there.", -0.3, 0.1), loudness=-70.0) is None


@pytest.mark.parametrize(("options", "segment"), PHANTOMS)
def test_without_thresholds_everything_is_kept(options: TranscriptionOptions, segment: Segment) -> None:
    assert left_out(segment, NO_THRESHOLDS, loudness=-90.0, before=segment.text) is None


def test_each_threshold_that_is_none_is_not_looked_at() -> None:
    unsure, repeated = a_segment(" Rain, perhaps.", -1.5, 0.2), a_segment(" Rain rain rain rain", -0.3, 0.2, 3.0)
    unheard = a_segment(" Rain, perhaps.", -0.3, 0.9)
    for segment, name in (
        (unsure, "logprob_threshold"), (repeated, "compression_ratio_threshold"), (unheard, "no_speech_threshold"),
    ):  # fmt: skip
        assert left_out(segment) is not None
        assert left_out(segment, replace(DEFAULTS, **{name: None})) is None


def test_a_segment_has_speech_if_enough_of_it_lies_there() -> None:
    speech = [(1.0, 3.9), (10.0, 12.0)]
    assert phantoms.has_speech(a_segment("", 0, 0, start=0.0, end=4.0), speech)
    assert phantoms.has_speech(a_segment("", 0, 0, start=9.0, end=10.1), speech)
    assert not phantoms.has_speech(a_segment("", 0, 0, start=4.0, end=6.0), speech)
    assert not phantoms.has_speech(a_segment("", 0, 0, start=0.0, end=4.0), [])


def test_words_tell_where_a_segment_lies_better_than_its_own_times() -> None:
    """Whisper lets a segment begin where the one before it ended."""
    late = replace(a_segment("", 0, 0, start=3.0, end=6.0), words=(Word(" you", 5.0, 5.6, 0.3),))
    assert not phantoms.has_speech(late, [(1.0, 3.9)])
    assert phantoms.has_speech(late, [(5.2, 5.5)])
