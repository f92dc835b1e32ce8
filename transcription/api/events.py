"""A job's life as server-sent events: its state, its progress, and each segment as it is stored.

event: state       {"status": "transcribing", "progress": 0.41, "language": "ru", "error": null}   when it changes
event: segment     a segment as in transcript.json; its id is the stream's, for Last-Event-ID
event: end         {"status": "done"}; then the stream closes
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.utils import translation
from django.utils.translation import gettext as _

from transcription.api.authentication import CHALLENGE, no_key, unknown_key, user_asking
from transcription.api.errors import refuse
from transcription.api.serializers import finite
from transcription.models import Job, Segment

LOOK_SECONDS = 0.25
# A proxy closes a connection on which nothing comes; a comment is nothing to the client.
SILENCE_SECONDS = 15.0


async def events(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """The events of a job, from its beginning or from after `Last-Event-ID`, until it has ended."""
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
    last = request.headers.get("Last-Event-ID", "")
    stream = _stream(pk, int(last) if last.isdecimal() and len(last) < 19 else 0, translation.get_language())
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", "X-Job-Id": str(pk)}
    return StreamingHttpResponse(stream, content_type="text/event-stream; charset=utf-8", headers=headers)


async def _stream(job_id: UUID, last: int, language: str | None) -> AsyncIterator[str]:
    seen: dict[str, Any] = {}
    silent = 0.0
    while True:
        job = await Job.objects.filter(pk=job_id).defer("text", "notes").afirst()
        said = []
        # The row first, then its segments: when it says that it has ended, none is missing.
        async for segment in Segment.objects.filter(job_id=job_id, pk__gt=last).order_by("pk"):
            last = segment.pk
            said.append(_event("segment", _segment(segment), last))
        state = _state(job, language)
        if state != seen:
            said.insert(0, _event("state", state))
            seen = state
        if job is None or job.is_ended:
            said.append(_event("end", {"status": state["status"]}))
        silent = 0.0 if said else silent + LOOK_SECONDS
        if silent >= SILENCE_SECONDS:
            silent = 0.0
            said.append(": still here\n\n")
        for event in said:
            yield event
        if job is None or job.is_ended:
            return
        await asyncio.sleep(LOOK_SECONDS)


def _state(job: Job | None, language: str | None) -> dict[str, Any]:
    if job is None:
        return {"status": "deleted"}
    with translation.override(language):
        error = None if job.problem is None else {"code": job.error_code, "message": job.error_message}
    progress = round(job.progress, 3)
    return {"status": job.status, "progress": progress, "language": job.language or None, "error": error}


def _segment(row: Segment) -> dict[str, Any]:
    told: dict[str, Any] = {"id": row.pk, "start": row.start, "end": row.end, "text": row.text.strip()}
    return told if row.words is None else {**told, "words": row.words}


def _event(kind: str, data: dict[str, Any], identity: int | None = None) -> str:
    # json.dumps escapes every line end, so no text can end the event early.
    named = "" if identity is None else f"id: {identity}\n"
    return f"event: {kind}\n{named}data: {json.dumps(finite(data), ensure_ascii=False, allow_nan=False)}\n\n"
