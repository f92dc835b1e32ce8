"""A job's text on its page: a paragraph for each section, which grows while it is transcribed."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Max

from transcription.models import BY_TIME, Job, Section, Segment

LONGEST_NUMBER = 10  # digits; no section has so many segments


@dataclass(frozen=True)
class Part:
    """New segments of one section."""

    index: int
    segments: list[Segment]
    is_whole: bool  # whether they replace what the page has of the section; else they come after it
    has_channels: bool = False  # whether they are of several channels, which are named


@dataclass(frozen=True)
class News:
    """What a page lacks of a job's text."""

    parts: list[Part]
    have: str  # what the page has with it, see `since`
    newest: int  # the id of the last segment, after which the event stream continues; 0 if there is none
    is_begun: bool  # whether the page has an element for each section already

    def __bool__(self) -> bool:
        return bool(self.parts)


def since(job: Job, have: str = "") -> News:
    """The segments that a page lacks. `have` is how many segments it has of each section, such as `12.3.0`.

    They are counted by section because several workers store segments at once, and a retried section may begin again.
    """
    counts = [int(number) for number in have.split(".") if number.isdecimal() and len(number) < LONGEST_NUMBER]
    counted = Section.objects.filter(job=job).annotate(stored=Count("segments"), newest=Max("segments"))
    sections = list(counted.order_by("index"))
    if len({section.channel for section in sections}) > 1:
        return _since_of_channels(job, sections, have)
    is_begun = len(counts) == len(sections) > 0
    before = dict(zip((section.pk for section in sections), counts if is_begun else [0] * len(sections), strict=True))
    changed = [section for section in sections if not is_begun or section.stored != before[section.pk]]
    segments: dict[int, list[Segment]] = {section.pk: [] for section in changed}
    for segment in Segment.objects.filter(section__in=changed).order_by("index").defer("tokens"):
        segments[segment.section_id].append(segment)
    parts = [_part(section, segments[section.pk], before[section.pk]) for section in changed]
    now = [len(segments[section.pk]) if section.pk in segments else before[section.pk] for section in sections]
    newest = max((section.newest or 0 for section in sections), default=0)
    return News(parts, ".".join(map(str, now)), newest, is_begun)


def _since_of_channels(job: Job, sections: list[Any], have: str) -> News:
    """The same where several channels speak in turns: one part in the order of time, all of it anew if it has grown."""
    stored = sum(section.stored for section in sections)
    newest = max(section.newest or 0 for section in sections)
    is_begun = have.isdecimal()
    if is_begun and have == str(stored):
        return News([], have, newest, is_begun)
    segments = Segment.objects.filter(job=job).select_related("section").order_by(*BY_TIME).defer("tokens")
    return News([Part(0, list(segments), True, has_channels=True)], str(stored), newest, is_begun)


def _part(section: Section, segments: list[Segment], have: int) -> Part:
    """The segments of a section that come after those that a page has, or all if a new one belongs between them."""
    known, new = segments[:have], segments[have:]
    is_between = any(segment.start < before.start for segment in new for before in known)
    is_whole = not 0 < have <= len(segments) or is_between
    return Part(section.index, sorted(segments if is_whole else new, key=lambda each: (each.start, each.end)), is_whole)
