"""The current text of a transcript, with the changes of people and language models.

The engine's result is never overwritten: a segment keeps its `text` and `words`. The words of a changed text get their
times from these whenever they are read.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from statistics import fmean

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from transcription import history
from transcription.models import BY_TIME, Job, Segment
from transcription.text import search
from transcription.whisper.result import Word


def edit(segment: Segment, text: str | None) -> bool:
    """Store a person's text of a segment; None removes it. Return False if the job has not ended.

    A segment that is deleted meanwhile stays deleted.
    """
    with transaction.atomic():
        # With the lock, of two edits at once the second joins the job's text after the first is stored.
        ended = Job.objects.select_for_update(no_key=True).filter(pk=segment.job_id, status__in=Job.ENDED)
        if ended.only("pk").first() is None:
            return False
        Segment.objects.filter(pk=segment.pk).update(
            edited_text=None if text is None else like(segment, text),
            edited_at=None if text is None else timezone.now(),
        )
        rejoin(segment.job_id)
        history.note(segment.job_id, "edited", f"{segment.start:.2f}-{segment.end:.2f} s")
    return True


def rejoin(job_id: uuid.UUID) -> None:
    """Update a job's text from its segments. Call it in the transaction that changed them."""
    text = joined(read(Segment.objects.filter(job_id=job_id).order_by(*BY_TIME))).strip()
    Job.objects.filter(pk=job_id).update(text=text)
    search.index(job_id)


def like(segment: Segment, text: str) -> str:
    """A text on one line. It begins with a space if the engine's text does."""
    line = " ".join(text.split())
    return f" {line}" if line and segment.text[:1].isspace() else line


def read(segments: QuerySet[Segment]) -> Iterator[tuple[int, str]]:
    """The channels and the current texts of segments, in the order given."""
    columns = ("text", "improved_text", "edited_text", "section__channel")
    for segment in segments.select_related("section").only(*columns):
        yield segment.section.channel, segment.reads


def joined(texts: Iterable[tuple[int, str]]) -> str:
    """The texts of segments, joined; what follows another channel begins a line. Each comes with its channel."""
    parts: list[str] = []
    before: int | None = None
    for channel, text in texts:
        parts.append(following(before, channel, text))
        before = channel if text.strip() else before
    return "".join(parts)


def following(before: int | None, channel: int, text: str) -> str:
    """A segment's text as it follows one of the channel `before`; None if it is the first."""
    return text if before in (None, channel) or not text.strip() else f"\n{text.lstrip()}"


def spoken(segment: Segment) -> tuple[Word, ...] | None:
    """The words of a segment's current text, with times; None when the engine gave no words."""
    if segment.words is None:
        return None
    heard = tuple(Word.from_json(word) for word in segment.words)
    return heard if segment.reads == segment.text else carried(heard, segment.reads, segment.start, segment.end)


# ---------------------------------------------------------------- the times of changed words


def carried(heard: Sequence[Word], text: str, start: float, end: float) -> tuple[Word, ...]:
    """The words of a changed text, with times from the words that the engine heard between `start` and `end`.

    An unchanged word keeps its time and probability. Words that replace others share the time of these by length, and
    have their mean probability. Inserted words share the pause that they are in, and have probability 1, because a
    person wrote them.
    """
    has_spaces = any(word.word.startswith(" ") for word in heard[1:]) or len(heard) < 2
    # As Whisper writes them: each word with the space before it, or letters in a script without spaces.
    changed = [f" {word}" for word in text.split()] if has_spaces else list("".join(text.split()))
    matcher = SequenceMatcher(
        None, [_comparable(word.word) for word in heard], [_comparable(word) for word in changed], autojunk=False
    )
    words: list[Word] = []
    for kind, first, last, begin, stop in matcher.get_opcodes():
        new = changed[begin:stop]
        if kind == "equal":
            pairs = zip(heard[first:last], new, strict=True)
            words += [Word(word, old.start, old.end, old.probability) for old, word in pairs]
        elif kind == "replace":
            old = heard[first:last]
            words += _spread(new, old[0].start, old[-1].end, fmean(word.probability for word in old))
        elif kind == "insert":
            since = heard[first - 1].end if first else start
            until = heard[first].start if first < len(heard) else end
            words += _spread(new, since, max(since, until), 1.0)
    return tuple(words)


def _comparable(word: str) -> str:
    """A word without case and punctuation, which do not make it another word."""
    letters = "".join(character for character in search.folded(word) if character.isalnum())
    return letters or word.strip()


def _spread(words: Sequence[str], start: float, end: float, probability: float) -> list[Word]:
    """Words that share a stretch of time by their length."""
    whole = sum(len(word) for word in words)
    edges = [start]
    for word in words:
        edges.append(edges[-1] + (end - start) * len(word) / whole)
    return [
        Word(word, round(begin, 3), round(stop, 3), probability)
        for word, (begin, stop) in zip(words, pairwise(edges), strict=True)
    ]
