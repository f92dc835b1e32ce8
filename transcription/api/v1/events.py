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

from transcription.api.job_endpoint import job_endpoint
from transcription.api.serializers import finite
from transcription.models import Job, Segment
from transcription.text import edits
from transcription.watcher import Snapshot, watching

# A proxy closes an idle connection; clients ignore a comment.
SILENCE_SECONDS = 15.0
STILL_HERE = ": still here\n\n"
AT_ONCE = 200  # segments that are read with one query


@job_endpoint("GET")
async def events(request: HttpRequest, job: Job) -> HttpResponseBase:
    """The events of a job, until it has ended: from its beginning, or from after a segment.

    A client names the segment in the header `Last-Event-ID`; a page, which cannot set a header, in `?after=`.
    """
    last = request.headers.get("Last-Event-ID") or request.GET.get("after", "")
    stream = _stream(job.pk, int(last) if last.isdecimal() and len(last) < 19 else 0, translation.get_language())
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", "X-Job-Id": str(job.pk)}
    return StreamingHttpResponse(stream, content_type="text/event-stream; charset=utf-8", headers=headers)


async def _stream(job_id: UUID, last: int, language: str | None) -> AsyncIterator[str]:
    last_state: dict[str, Any] = {}
    snapshot: Snapshot | None = None
    async with watching(job_id) as watched:
        while snapshot is None or not snapshot.is_over:
            before, snapshot = snapshot, await watched.after(snapshot, within=SILENCE_SECONDS)
            if snapshot is None or snapshot is before:
                yield STILL_HERE
                continue
            state = _state(snapshot, language)
            changed = "" if state == last_state else _event("state", state)
            last_state = state
            is_decoded = snapshot.is_over or state["status"] == Job.Status.FINISHING
            if changed and not is_decoded:
                yield changed
            while segments := await _after(last, snapshot, job_id):
                last = segments[-1].pk
                language = snapshot.job.language if snapshot.job else ""
                yield "".join(_event("segment", _segment(row, language), row.pk) for row in segments)
            if changed and is_decoded:  # every segment was stored before it
                yield changed
    yield _event("end", {"status": last_state["status"]})


async def _after(last: int, snapshot: Snapshot, job_id: UUID) -> Sequence[Segment]:
    """The next segments after the one with the id `last`, at most AT_ONCE; none if there are no more."""
    if last >= snapshot.newest:
        return []
    if last >= snapshot.since:
        return [segment for segment in snapshot.segments if segment.pk > last]
    return await sync_to_async(_stored)(last, job_id)


def _stored(last: int, job_id: UUID) -> list[Segment]:
    try:
        stored = (
            Segment.objects.filter(job_id=job_id, pk__gt=last).select_related("section").order_by("pk").defer("tokens")
        )
        return list(stored[:AT_ONCE])
    finally:
        close_old_connections()  # the stream goes on to wait, possibly for hours, and must hold no connection


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


def _segment(row: Segment, language: str) -> dict[str, Any]:
    """A segment, and its language or else the job's."""
    body: dict[str, Any] = {"id": row.pk, "start": row.start, "end": row.end, "text": row.reads.strip()}
    if row.section.channel:
        body["channel"] = row.section.channel
    body["language"] = row.language or language or None
    words = edits.spoken(row)
    return body if words is None else {**body, "words": [asdict(word) for word in words]}


def _event(kind: str, data: dict[str, Any], identity: int | None = None) -> str:
    # json.dumps escapes every line end, so no text can end the event early.
    named = "" if identity is None else f"id: {identity}\n"
    return f"event: {kind}\n{named}data: {json.dumps(finite(data), ensure_ascii=False, allow_nan=False)}\n\n"
