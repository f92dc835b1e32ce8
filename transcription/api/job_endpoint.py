"""Async endpoints of one job, for which DRF has no views: the bytes of its recording, and its events."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponseBase
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt

from transcription.api.authentication import NotAdmitted, user_by_key_or_session
from transcription.api.errors import refuse, turn_away, wrong_method
from transcription.models import Job

JobView = Callable[[HttpRequest, Job], Coroutine[Any, Any, HttpResponseBase]]
View = Callable[[HttpRequest, UUID], Coroutine[Any, Any, HttpResponseBase]]


def job_endpoint(allowed: str) -> Callable[[JobView], View]:
    """A view of one of the caller's jobs, for the `allowed` methods: `GET`, or `GET, HEAD`.

    Other methods get 405; a caller without a valid key or session 401; a job that is missing or another's 404.
    """

    def decorate(view: JobView) -> View:
        @csrf_exempt  # it changes nothing, and a POST with a key must get 405, not an error about a cookie
        @wraps(view)
        async def answer(request: HttpRequest, pk: UUID) -> HttpResponseBase:
            if request.method not in allowed.split(", "):
                return wrong_method(request.path_info, allowed)
            try:
                user = await user_by_key_or_session(request)
            except NotAdmitted as error:
                return turn_away(request.path_info, error)
            own = Job.objects.for_user(user).select_related("recording").defer("text", "searchable", "recording__peaks")
            job = await own.filter(pk=pk).afirst()
            if job is None:
                return refuse(request.path_info, 404, _("There is no such job."))
            return await view(request, job)

        return answer

    return decorate
