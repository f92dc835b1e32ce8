"""The text of a job as its page shows it: a paragraph for each section, growing while it is recognised."""

from dataclasses import dataclass

from django.db.models import Count, Max

from transcription.models import Job, Section, Segment

LONGEST_NUMBER = 10  # digits; no section has so many segments


@dataclass(frozen=True)
class Part:
    """What a page lacks of one section's text; `is_whole` when it stands for all that the page has of it."""

    index: int
    segments: list[Segment]
    is_whole: bool


@dataclass(frozen=True)
class News:
    """What a page that has `Have` lacks, and what it has afterwards."""

    parts: list[Part]
    have: str
    newest: int  # the id of the last segment, from where the event stream goes on; 0 without any
    is_begun: bool  # whether the page has places for the sections already

    def __bool__(self) -> bool:
        return bool(self.parts)


def since(job: Job, have: str = "") -> News:
    """The segments that came after `have`, the numbers of segments that a page has of each section (`12.3.0`).

    Counted by section because several machines store theirs at once, and a section taken up again begins anew.
    """
    known = [int(number) for number in have.split(".") if number.isdecimal() and len(number) < LONGEST_NUMBER]
    counted = Section.objects.filter(job=job).annotate(stored=Count("segments"), newest=Max("segments"))
    sections = list(counted.order_by("index"))
    is_begun = len(known) == len(sections) > 0
    before = dict(zip((section.pk for section in sections), known if is_begun else [0] * len(sections), strict=True))
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
