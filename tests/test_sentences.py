"""An error is a sentence in the language of the person who reads it."""

from django.utils import translation

from transcription import errors, sentences
from transcription.parameters import Integer, InvalidParameter


def test_a_problem_and_a_refused_parameter_are_read_in_the_readers_language() -> None:
    refused = InvalidParameter(Integer.sentence, name="beam_size", low=1, high=16)

    assert sentences.describe(refused) == "`beam_size` is a whole number from 1 to 16."
    with translation.override("ru"):
        assert sentences.describe(refused).startswith("`beam_size` — целое число")
        assert "24" in sentences.describe(errors.TooLong(hours=24))
        assert sentences.describe(errors.TooLong(hours=24)) != str(errors.TooLong(hours=24))


def test_a_value_that_was_not_stored_leaves_a_question_mark() -> None:
    assert "? hours" in sentences.translate(errors.TooLong.sentence, None)


def test_what_a_job_waits_for_is_named_even_if_this_version_does_not_know_it() -> None:
    assert sentences.describe_waiting("disk_full") == errors.DiskFull.waiting_sentence
    assert "`from_tomorrow`" in sentences.describe_waiting("from_tomorrow")
