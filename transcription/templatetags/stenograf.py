"""Template filters for times, sizes, names and words with their times."""

import re
from datetime import date

from django import template
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from transcription.models import Segment
from transcription.text import edits, exports
from transcription.web import languages
from transcription.whisper.result import Word

register = template.Library()

# Words with a lower probability than these are marked.
DOUBTFUL, VERY_DOUBTFUL = 0.6, 0.35
WAVE_BARS = 120
WITHOUT_TEXT = "speech_without_text:"  # the warning whose places follow


@register.simple_tag
def icon(name: str) -> SafeString:
    return format_html('<svg class="icon" aria-hidden="true"><use href="#{}"/></svg>', name)


@register.filter
def clock(seconds: float | None) -> str:
    """`1:32:07`, `0:41`; empty for None."""
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@register.filter
def places_without_text(warnings: list[str]) -> str:
    """`0:14–0:19, 1:02–1:04`: where a job's warnings say that speech has no text; empty if nowhere."""
    places = "".join(warning.removeprefix(WITHOUT_TEXT) for warning in warnings if warning.startswith(WITHOUT_TEXT))
    return ", ".join("–".join(clock(float(end)) for end in place.split("-")) for place in places.split(",") if place)


@register.filter
def took(seconds: float) -> str:
    """`6 min 8 s`, `1 h 4 min`."""
    whole = max(1, round(seconds))
    if whole < 60:
        return gettext("%(seconds)s s") % {"seconds": whole}
    if whole < 3600:
        return gettext("%(minutes)s min %(seconds)s s") % {"minutes": whole // 60, "seconds": whole % 60}
    return gettext("%(hours)s h %(minutes)s min") % {"hours": whole // 3600, "minutes": whole % 3600 // 60}


@register.filter
def left(seconds: int) -> str:
    """`≈ 3 min left`."""
    if seconds < 60:
        return gettext("≈ %(seconds)s s left") % {"seconds": seconds}
    minutes = seconds // 60
    if minutes < 60:
        return gettext("≈ %(minutes)s min left") % {"minutes": minutes}
    if minutes % 60 == 0:
        return gettext("≈ %(hours)s h left") % {"hours": minutes // 60}
    return gettext("≈ %(hours)s h %(minutes)s min left") % {"hours": minutes // 60, "minutes": minutes % 60}


@register.filter
def size(count: int) -> str:
    """`44 MB`, `4.2 GB`."""
    return re.sub(r"[.,]0(?=\s)", "", filesizeformat(count))


@register.filter
def breakable(name: str) -> SafeString:
    """A file name that may break after each underscore."""
    first, *rest = name.split("_")
    return format_html("{}{}", first, format_html_join("", "_<wbr>{}", ((part,) for part in rest)))


@register.filter
def language_name(code: str) -> str:
    return languages.name(code) if code else ""


@register.filter
def days_ago(day: date) -> int:
    return (timezone.localdate() - day).days


@register.filter(expects_localtime=True)
def day_and_month(moment: date) -> str:
    """`14 November`, with the year unless it is this one."""
    return date_format(moment, "j E" if moment.year == timezone.localdate().year else "j E Y")


@register.filter
def seconds(value: float) -> str:
    """Seconds for a script: with a decimal point in every language."""
    return f"{value:.2f}"


@register.filter
def words(segment: Segment) -> SafeString:
    """The text of a segment; if it has word times, each word in a <span>, so that the player can highlight it."""
    spoken = edits.spoken(segment)
    if not spoken:
        return escape(segment.reads.strip())
    return format_html_join("", "{}{}", ((" " if word.word.startswith(" ") else "", _word(word)) for word in spoken))


@register.filter
def channel_name(channel: int) -> SafeString:
    """The name of a recording's channel, before what is said in it."""
    return format_html('<span class="segment-channel">{}</span>', exports.channel_name(channel))


def _word(word: Word) -> SafeString:
    classes = ["word"]
    if word.probability < DOUBTFUL:
        classes.append("is-doubtful")
    if word.probability < VERY_DOUBTFUL:
        classes.append("is-very-doubtful")
    start, text = seconds(word.start), word.word.strip()
    return format_html('<span class="{}" data-start="{}">{}</span>', " ".join(classes), start, text)


@register.filter
def wave(peaks: list[int] | None) -> str:
    """The loudest peak of each 120th of the recording, 0-100, separated by commas; empty while unknown."""
    if not peaks:
        return ""
    edges = [at * len(peaks) // WAVE_BARS for at in range(WAVE_BARS + 1)]
    bars = (max(peaks[a : max(b, a + 1)]) for a, b in zip(edges, edges[1:], strict=False))
    return ",".join(str(round(bar)) for bar in bars)
