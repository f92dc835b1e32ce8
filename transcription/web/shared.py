"""The pages behind a link to a transcript: the text and, if its owner allows it, the recording."""

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


def _get_share_or_404(secret: str) -> Share:
    share = shares.find(secret)
    if share is None:
        raise Http404
    return share


def _unlisted(response: HttpResponseBase) -> HttpResponseBase:
    """Keep a response out of search engines and caches, and its secret address out of Referer headers."""
    response["X-Robots-Tag"] = "noindex, nofollow"
    response["Referrer-Policy"] = "no-referrer"
    response["Cache-Control"] = "private, no-store"
    return response


@require_safe
@in_local_time
def page(request: HttpRequest, secret: str) -> HttpResponseBase:
    share = _get_share_or_404(secret)
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
    share = _get_share_or_404(secret)
    if not share.has_audio:
        raise Http404
    return _unlisted(media.respond(request, share.job.recording))


@require_safe
def text(request: HttpRequest, secret: str, extension: str) -> HttpResponseBase:
    job = _get_share_or_404(secret).job
    if extension not in FORMATS:
        raise Http404
    export = exports.FORMATS[extension]
    file = export.render(whole.segments(job), job.transcription_options.highlight, title=job.name)
    response = HttpResponse(file, content_type=export.content_type)
    response["Content-Disposition"] = content_disposition_header(True, f"{stem(job)}.{extension}") or "attachment"
    return _unlisted(response)
