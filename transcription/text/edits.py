"""A transcript as it reads now: what people and language models changed, over what the engine heard.

Nothing of the engine's is overwritten: a segment keeps its `text` and `words`, and the words of the changed text get
their times from them each time they are asked for.
"""

import uuid
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from statistics import fmean

from django.db import transaction
from django.utils import timezone

from transcription import history
from transcription.models import Job, Segment
from transcription.text import search
from transcription.whisper.result import Word


def edit(segment: Segment, text: str | None) -> bool:
    """Have a segment of an ended job read as somebody says; None takes the edit back. Return False if it has not ended.

    A segment that is deleted meanwhile stays deleted.
    """
    with transaction.atomic():
        # The lock keeps two edits of a transcript from joining its text of what was there before the other.
        job = (
            Job.objects.select_for_update(no_key=True)
            .filter(pk=segment.job_id, status__in=Job.ENDED)
            .only("pk")
            .first()
        )
        if job is None:
            return False
        message = None if text is None else like(segment, text)
        Segment.objects.filter(pk=segment.pk).update(
            edited_text=message, edited_at=None if message is None else timezone.now()
        )
        rejoin(segment.job_id)
        history.note(segment.job_id, "edited", f"{segment.start:.2f}-{segment.end:.2f} s")
    return True


def rejoin(job_id: uuid.UUID) -> None:
    """Join a job's text anew of its segments as they read now; call it in the transaction that changed them."""
    segments = Segment.objects.filter(job_id=job_id).order_by("section__index", "index")
    text = joined(segments.only("text", "improved_text", "edited_text"))
    Job.objects.filter(pk=job_id).update(text=text)
    search.index(job_id)


def like(segment: Segment, text: str) -> str:
    """A text on one line, with the space before it that the segment's own has."""
    line = " ".join(text.split())
    return f" {line}" if line and segment.text[:1].isspace() else line


def joined(segments: Iterable[Segment]) -> str:
    """The text of segments in their order, as it reads now."""
    return "".join(segment.reads for segment in segments).strip()


def spoken(segment: Segment) -> tuple[Word, ...] | None:
    """The words of a segment as it reads now, with times; None when its engine gave none."""
    if segment.words is None:
        return None
    heard = tuple(Word.from_json(word) for word in segment.words)
    return heard if segment.reads == segment.text else carried(heard, segment.reads, segment.start, segment.end)


# ---------------------------------------------------------------- times carried over


def carried(heard: Sequence[Word], text: str, start: float, end: float) -> tuple[Word, ...]:
    """The words of a changed text with the times of the words that were heard between `start` and `end`.

    A word that is still there keeps its time and probability. Words that stand for others share their time by length,
    and have their mean probability; words that were put in share the pause they stand in, and are certain: a person
    says so.
    """
    message = _split(text, has_spaces=any(word.word.startswith(" ") for word in heard[1:]) or len(heard) < 2)
    matcher = SequenceMatcher(
        None, [_plain(word.word) for word in heard], [_plain(word) for word in message], autojunk=False
    )
    words: list[Word] = []
    for kind, first, last, begin, stop in matcher.get_opcodes():
        new = message[begin:stop]
        if kind == "equal":
            pairs = zip(heard[first:last], new, strict=True)
            words += [Word(word, old.start, old.end, old.probability) for old, word in pairs]
        elif kind == "replace":
            old = heard[first:last]
            certainty = fmean(word.probability for word in old)
            words += _shared(new, old[0].start, old[-1].end, certainty)
        elif kind == "insert":
            since = heard[first - 1].end if first else start
            until = heard[first].start if first < len(heard) else end
            words += _shared(new, since, max(since, until), 1.0)
    return tuple(words)


def _split(text: str, has_spaces: bool) -> list[str]:
    """The words of a text as Whisper writes them, each with the space before it; a script without spaces by letters."""
    return [f" {word}" for word in text.split()] if has_spaces else list("".join(text.split()))


def _plain(word: str) -> str:
    """What of a word is compared: changed case or punctuation does not make it another."""
    letters = "".join(character for character in search.folded(word) if character.isalnum())
    return letters or word.strip()


def _shared(words: Sequence[str], start: float, end: float, probability: float) -> list[Word]:
    """Words that share a stretch of time by their length."""
    whole = sum(len(word) for word in words)
    edges = [start]
    for word in words:
        edges.append(edges[-1] + (end - start) * len(word) / whole)
    times = zip(edges, edges[1:], strict=False)
    return [
        Word(word, round(begin, 3), round(stop, 3), probability)
        for word, (begin, stop) in zip(words, times, strict=True)
    ]
