"""A job's text on its page: a paragraph for each section, which grows while it is transcribed."""

from dataclasses import dataclass

from django.db.models import Count, Max

from transcription.models import Job, Section, Segment

LONGEST_NUMBER = 10  # digits; no section has so many segments


@dataclass(frozen=True)
class Part:
    """New segments of one section."""

    index: int
    segments: list[Segment]
    is_whole: bool  # whether they replace what the page has of the section; else they come after it


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


def _part(section: Section, segments: list[Segment], have: int) -> Part:
    is_whole = not 0 < have <= len(segments)
    return Part(section.index, segments if is_whole else segments[have:], is_whole)
