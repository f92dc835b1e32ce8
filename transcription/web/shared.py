"""What a link to a transcript shows to whoever has it: the text and, if its owner wants so, the sound."""

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_safe

from transcription import shares
from transcription.api import media
from transcription.api import transcript as whole
from transcription.api.v1.jobs import stem
from transcription.models import Share
from transcription.text import exports
from transcription.web import transcript
from transcription.web.views import in_local_time, speeds

FORMATS = ("txt", "srt", "docx")


def _find(secret: str) -> Share:
    share = shares.find(secret)
    if share is None:
        raise Http404
    return share


def _unlisted(answer: HttpResponseBase) -> HttpResponseBase:
    """No search engine keeps it, and no page that it leads to is told of its secret address."""
    answer["X-Robots-Tag"] = "noindex, nofollow"
    answer["Referrer-Policy"] = "no-referrer"
    answer["Cache-Control"] = "private, no-store"
    return answer


@require_safe
@in_local_time
def page(request: HttpRequest, secret: str) -> HttpResponseBase:
    share = _find(secret)
    has_audio = share.has_audio and share.job.recording.removed_at is None
    context = {
        "job": share.job,
        "share": share,
        "audio": reverse("shared-audio", args=(secret,)) if has_audio else "",
        "news": transcript.since(share.job),
        "formats": [(format, reverse("shared-transcript", args=(secret, format))) for format in FORMATS],
        "speeds": speeds(),
    }
    return _unlisted(render(request, "shared.html", context))


@require_safe
def audio(request: HttpRequest, secret: str) -> HttpResponseBase:
    share = _find(secret)
    if not share.has_audio:
        raise Http404
    return _unlisted(media.respond(request, share.job.recording))


@require_safe
def text(request: HttpRequest, secret: str, extension: str) -> HttpResponseBase:
    job = _find(secret).job
    if extension not in FORMATS:
        raise Http404
    export = exports.FORMATS[extension]
    file = export.render(whole.segments(job), job.transcription_options.highlight, title=job.name)
    answer = HttpResponse(file, content_type=export.content_type)
    answer["Content-Disposition"] = content_disposition_header(True, f"{stem(job)}.{extension}") or "attachment"
    return _unlisted(answer)
