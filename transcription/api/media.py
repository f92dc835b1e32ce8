"""A recording's bytes, whole or a range of them, so that a player can jump."""

import asyncio
import re
import struct
from collections.abc import AsyncIterator
from pathlib import Path

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _

from transcription import errors, sentences
from transcription.api.errors import refuse
from transcription.api.file_names import clean_name
from transcription.api.job_endpoint import job_endpoint
from transcription.models import Job, Recording
from transcription.sound.audio import RAW
from transcription.whisper.pcm import BYTES_A_SAMPLE, BYTES_A_SECOND, SAMPLE_RATE

BLOCK = 256 * 1024

# FFmpeg's name of a container: its content type without and with video. No other type is ever sent, so that a browser
# does not show a file that is really a page.
TYPES = {
    "wav": ("audio/wav", "audio/wav"),
    "mp3": ("audio/mpeg", "audio/mpeg"),
    "flac": ("audio/flac", "audio/flac"),
    "aac": ("audio/aac", "audio/aac"),
    "ogg": ("audio/ogg", "video/ogg"),
    "mp4": ("audio/mp4", "video/mp4"),
    "mov": ("audio/mp4", "video/mp4"),
    "webm": ("audio/webm", "video/webm"),
    "matroska": ("audio/webm", "video/webm"),
    "asf": ("audio/x-ms-wma", "video/x-ms-asf"),
    "avi": ("audio/x-msvideo", "video/x-msvideo"),
    "mpeg": ("audio/mpeg", "video/mpeg"),
    "mpegts": ("video/mp2t", "video/mp2t"),
    "amr": ("audio/amr", "audio/amr"),
    RAW: ("audio/wav", "audio/wav"),
}


class Unsatisfiable(Exception):
    """The range begins after the end."""


def content_type(recording: Recording) -> str:
    """The content type of what our own probe found, never what the client said."""
    for container in recording.container.split(","):
        if container in TYPES:
            return TYPES[container][recording.has_video]
    return "application/octet-stream"


def bytes_wanted(header: str, size: int) -> range | None:
    """The bytes that a Range header asks for; None is all of them. Raises Unsatisfiable.

    Several ranges and malformed ones are answered with the whole file, which RFC 9110, section 14.2, allows.
    """
    match = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", header.strip(), re.IGNORECASE)
    if match is None or match[0].endswith("=-"):
        return None
    first, last = match.groups()
    if not first:
        wanted = range(max(0, size - int(last)), size)
    elif last and int(last) < int(first):
        return None
    else:
        wanted = range(int(first), min(int(last) + 1 if last else size, size))
    if not wanted:
        raise Unsatisfiable
    return wanted


def respond(request: HttpRequest, recording: Recording) -> HttpResponseBase:
    """The recording's bytes, or the range of them that the request asks for. The caller checks whether it may."""
    if recording.removed_at is not None:
        message = _("The sound is removed, as this server keeps it for a limited time; the text is kept.")
        return refuse(request.path_info, 410, message)
    try:
        head = _head(recording)
        size = len(head) + recording.path.stat().st_size
    except FileNotFoundError:
        return refuse(request.path_info, 404, sentences.describe(errors.RecordingMissing()))
    etag = f'"{recording.sha256}"'
    try:
        part = _part(request, size, etag)
    except Unsatisfiable:
        answer: HttpResponseBase = HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    else:
        answer = _answer(request, recording, head, part, size)
    answer["Accept-Ranges"] = "bytes"
    answer["ETag"] = etag
    answer["Cache-Control"] = "private"
    answer["X-Content-Type-Options"] = "nosniff"
    answer["Content-Security-Policy"] = "sandbox"
    return answer


def _part(request: HttpRequest, size: int, etag: str) -> range | None:
    """The range to answer with; None is the whole."""
    # Only a GET has ranges, and with If-Range only if the client has a part of this very file.
    if request.method != "GET" or request.headers.get("If-Range", etag).strip() != etag:
        return None
    return bytes_wanted(request.headers.get("Range", ""), size)


def _head(recording: Recording) -> bytes:
    """The header to send before a recording's own bytes: a WAV's before raw samples, which no player can read."""
    if recording.container != RAW:
        return b""
    sound = min(recording.path.stat().st_size, 2**32 - 1 - 36)  # a WAV cannot say more
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, BYTES_A_SECOND, BYTES_A_SAMPLE, 16)
    return struct.pack("<4sI4s", b"RIFF", 36 + sound, b"WAVE") + form + struct.pack("<4sI", b"data", sound)


def _answer(request: HttpRequest, recording: Recording, head: bytes, part: range | None, size: int) -> HttpResponseBase:
    sent = range(size) if part is None else part
    is_head = request.method == "HEAD"
    answer = HttpResponse() if is_head else StreamingHttpResponse(_blocks(recording.path, sent, head))
    answer["Content-Type"] = content_type(recording)
    answer["Content-Length"] = str(len(sent))
    answer["Content-Disposition"] = content_disposition_header(False, clean_name(recording.original_name)) or "inline"
    if part is not None:
        answer.status_code = 206
        answer["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    return answer


async def _blocks(path: Path, wanted: range, head: bytes) -> AsyncIterator[bytes]:
    """The wanted bytes of a head and the file after it."""
    # An async iterator: Django would collect a synchronous one into memory first.
    if wanted.start < len(head):
        yield head[wanted.start : wanted.stop]
    with path.open("rb") as file:
        file.seek(max(0, wanted.start - len(head)))
        left = wanted.stop - max(wanted.start, len(head))
        while left > 0 and (block := await asyncio.to_thread(file.read, min(BLOCK, left))):
            left -= len(block)
            yield block


@job_endpoint("GET, HEAD")
async def audio(request: HttpRequest, job: Job) -> HttpResponseBase:
    """The recording of a job, for its owner."""
    return respond(request, job.recording)
