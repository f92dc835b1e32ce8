"""A job's life as server-sent events: its state, its progress, and each segment as it is stored.

event: state       {"status": "transcribing", "progress": 0.41, "queue_position": 0, "eta_seconds": 120,
                    "language": "ru", "error": null}   when it changes; the seconds are rounded, so that they seldom do
event: segment     a segment as in transcript.json; its id is the stream's, for Last-Event-ID
event: end         {"status": "done"}; then the stream closes
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.utils import translation
from django.utils.translation import gettext as _

from transcription.api.authentication import CHALLENGE, no_key, unknown_key, user_asking
from transcription.api.errors import refuse
from transcription.api.serializers import finite
from transcription.models import Job, Segment
from transcription.text import edits
from transcription.watcher import Snapshot, watching

# A proxy closes a connection on which nothing comes; a comment is nothing to the client.
SILENCE_SECONDS = 15.0
STILL_HERE = ": still here\n\n"
AT_ONCE = 200  # segments that are read together


async def events(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """The events of a job, from its beginning or from after a segment, until it has ended.

    The segment is `Last-Event-ID`'s; a page, which cannot set a header, says `?after=`.
    """
    if request.method != "GET":
        refused = refuse(request.path, 405, _("Only %(method)s works here.") % {"method": "GET"})
        refused["Allow"] = "GET"
        return refused
    user = await user_asking(request)
    if user is None or not user.is_authenticated:
        refused = refuse(request.path, 401, unknown_key() if user is None else no_key())
        refused["WWW-Authenticate"] = CHALLENGE
        return refused
    if not await Job.objects.for_user(user).filter(pk=pk).aexists():
        return refuse(request.path, 404, _("There is no such job."))
    last = request.headers.get("Last-Event-ID") or request.GET.get("after", "")
    stream = _stream(pk, int(last) if last.isdecimal() and len(last) < 19 else 0, translation.get_language())
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", "X-Job-Id": str(pk)}
    return StreamingHttpResponse(stream, content_type="text/event-stream; charset=utf-8", headers=headers)


async def _stream(job_id: UUID, last: int, language: str | None) -> AsyncIterator[str]:
    body: dict[str, Any] = {}
    snapshot: Snapshot | None = None
    async with watching(job_id) as watched:
        while snapshot is None or not snapshot.is_over:
            before, snapshot = snapshot, await watched.after(snapshot, within=SILENCE_SECONDS)
            if snapshot is None or snapshot is before:
                yield STILL_HERE
                continue
            state = _state(snapshot, language)
            if state != body:
                body = state
                yield _event("state", state)
            while segments := await _after(last, snapshot, job_id):
                last = segments[-1].pk
                yield "".join(_event("segment", _segment(segment), segment.pk) for segment in segments)
    yield _event("end", {"status": body["status"]})


async def _after(last: int, snapshot: Snapshot, job_id: UUID) -> Sequence[Segment]:
    """Some of the segments that whoever has them up to `last` lacks; none when it lacks none."""
    if last >= snapshot.newest:
        return []
    if last >= snapshot.since:
        return [segment for segment in snapshot.segments if segment.pk > last]
    return await sync_to_async(_stored)(last, job_id)


def _stored(last: int, job_id: UUID) -> list[Segment]:
    try:
        stored = Segment.objects.filter(job_id=job_id, pk__gt=last).order_by("pk").defer("tokens")
        return list(stored[:AT_ONCE])
    finally:
        close_old_connections()  # who goes on to wait, it may be for hours, holds none


def _state(snapshot: Snapshot, language: str | None) -> dict[str, Any]:
    job, expected = snapshot.job, snapshot.forecast
    if job is None:
        return {"status": "deleted"}
    with translation.override(language):
        error = None if job.problem is None else {"code": job.error_code, "message": job.error_message}
    return {
        "status": job.status,
        "progress": round(job.progress, 3),
        "queue_position": None if expected is None else expected.position,
        "eta_seconds": None if expected is None else expected.about,
        "language": job.language or None,
        "error": error,
    }


def _segment(row: Segment) -> dict[str, Any]:
    body: dict[str, Any] = {"id": row.pk, "start": row.start, "end": row.end, "text": row.reads.strip()}
    words = edits.spoken(row)
    return body if words is None else {**body, "words": [asdict(word) for word in words]}


def _event(kind: str, data: dict[str, Any], identity: int | None = None) -> str:
    # json.dumps escapes every line end, so no text can end the event early.
    named = "" if identity is None else f"id: {identity}\n"
    return f"event: {kind}\n{named}data: {json.dumps(finite(data), ensure_ascii=False, allow_nan=False)}\n\n"
