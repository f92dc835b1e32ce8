"""What people change in a transcript, and what stays of what was heard."""

import pytest
from django.contrib.auth.models import User
from hypothesis import given
from hypothesis import strategies as st

from tests.api.rows import a_done_job, a_segment
from transcription.models import Job
from transcription.text import edits
from transcription.whisper.result import Word

HEARD = (
    Word(" The", 0.0, 0.2, 0.9),
    Word(" whether", 0.3, 0.8, 0.4),
    Word(" is", 1.0, 1.1, 0.95),
    Word(" fine.", 1.2, 1.6, 0.9),
)


def told(words: tuple[Word, ...]) -> list[tuple[str, float, float]]:
    return [(word.word, word.start, word.end) for word in words]


def test_a_word_that_is_corrected_takes_the_time_of_the_wrong_one() -> None:
    words = edits.carried(HEARD, "The weather is fine.", 0, 2)

    assert told(words) == [(" The", 0, 0.2), (" weather", 0.3, 0.8), (" is", 1.0, 1.1), (" fine.", 1.2, 1.6)]
    assert words[1].probability == 0.4


def test_case_and_punctuation_make_no_other_word() -> None:
    words = edits.carried(HEARD, "the, Whether IS fine!", 0, 2)

    assert [word.start for word in words] == [word.start for word in HEARD]
    assert [word.probability for word in words] == [word.probability for word in HEARD]
    assert words[-1].word == " fine!"


def test_two_words_for_one_share_its_time_by_their_length() -> None:
    words = edits.carried(HEARD, "The bad wether is fine.", 0, 2)

    assert told(words)[1:3] == [(" bad", 0.3, 0.482), (" wether", 0.482, 0.8)]


def test_a_word_that_is_put_in_stands_in_the_pause() -> None:
    words = edits.carried(HEARD, "The whether here is fine. Really.", 0, 2)

    assert told(words)[2] == (" here", 0.8, 1.0)
    assert told(words)[5] == (" Really.", 1.6, 2)
    assert words[2].probability == 1


def test_a_word_that_is_taken_out_leaves_the_others_where_they_were() -> None:
    assert told(edits.carried(HEARD, "The is fine.", 0, 2)) == [
        (" The", 0, 0.2),
        (" is", 1.0, 1.1),
        (" fine.", 1.2, 1.6),
    ]


def test_a_script_without_spaces_is_compared_by_letters() -> None:
    heard = (Word("今", 0, 0.2, 1), Word("天", 0.2, 0.4, 1), Word("汽", 0.4, 0.6, 0.3))

    assert told(edits.carried(heard, "今天气", 0, 1)) == [("今", 0, 0.2), ("天", 0.2, 0.4), ("气", 0.4, 0.6)]


@given(st.text(alphabet="аб cde.", max_size=40), st.data())
def test_times_never_run_backwards_and_no_word_is_lost(text: str, data: st.DataObject) -> None:
    edges = sorted(data.draw(st.lists(st.floats(0, 30), min_size=8, max_size=8)))
    heard = tuple(Word(f" {word}", *edges[2 * at : 2 * at + 2], 0.5) for at, word in enumerate(["аб", "c", "de", "c"]))

    words = edits.carried(heard, text, 0, 30)

    assert "".join(word.word for word in words).split() == text.split()
    times = [time for word in words for time in (word.start, word.end)]
    assert all(later >= earlier - 0.001 for earlier, later in zip(times, times[1:], strict=False))


def test_what_another_channel_says_begins_a_line() -> None:
    said = [(1, " Hello."), (1, " Who is it?"), (2, " Anna."), (2, " "), (1, " I know.")]

    assert edits.joined(said) == " Hello. Who is it?\nAnna. \nI know."
    assert edits.joined([(0, " One."), (0, " Two.")]) == " One. Two."
    assert edits.joined([]) == ""


@pytest.fixture
def done(db: None) -> Job:
    job = a_done_job(User.objects.create_user("anna"))
    a_segment(job, 1, " Bad day.")
    return job


def test_an_edit_changes_how_the_job_reads_and_keeps_what_was_heard(done: Job) -> None:
    segment = done.segments.get(index=0)

    assert edits.edit(segment, "  Good\nnight. ")

    segment.refresh_from_db()
    done.refresh_from_db()
    assert (segment.text, segment.reads, done.text) == (" Good day.", " Good night.", "Good night. Bad day.")
    assert segment.edited_at is not None
    assert "night" in done.searchable


def test_an_edit_is_taken_back(done: Job) -> None:
    segment = done.segments.get(index=0)
    edits.edit(segment, "Good night.")

    edits.edit(segment, None)

    segment.refresh_from_db()
    done.refresh_from_db()
    assert (segment.reads, segment.edited_at, done.text) == (" Good day.", None, "Good day. Bad day.")


def test_a_persons_edit_stands_above_an_improvement(done: Job) -> None:
    segment = done.segments.get(index=0)
    segment.improved_text = " Good day!"
    segment.save()
    assert segment.reads == " Good day!"

    edits.edit(segment, "")

    segment.refresh_from_db()
    assert segment.reads == ""


def test_a_job_that_runs_cannot_be_edited(done: Job) -> None:
    Job.objects.update(status=Job.Status.TRANSCRIBING)
    segment = done.segments.get(index=0)

    assert not edits.edit(segment, "Good night.")

    segment.refresh_from_db()
    assert segment.edited_text is None
