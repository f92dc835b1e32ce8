"""What the endpoints without DRF share: one method, a key, a form read as it comes, refusals in the shape of each.

A request that comes once more with its Idempotency-Key gets the job that it made, as everywhere (`idempotency.py`).
"""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar, cast
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponseBase
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt

from transcription import errors, jobs
from transcription.api import idempotency
from transcription.api.authentication import NotAdmitted, owner_of
from transcription.api.errors import refuse, retry_later, turn_away
from transcription.api.serializers import JobRequest, parameters
from transcription.models import Job

View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]
Form = TypeVar("Form", bound=JobRequest)


class EndpointError(Exception):
    """The request gets this sentence instead of an answer."""

    def __init__(self, status: int, message: str, **more: object) -> None:
        super().__init__(message)
        self.status, self.message, self.more = status, message, more


def endpoint(method: str, *, needs_key: bool = True) -> Callable[[View], View]:
    """A view for one method and a key, whose refusals have the shape that `errors.refuse` knows for its address."""

    def dressed(view: View) -> View:
        @csrf_exempt  # no cookie opens these endpoints
        @wraps(view)
        async def answer(request: HttpRequest, **named: str) -> HttpResponseBase:
            response: HttpResponseBase
            try:
                _check_method(request, method)
                if needs_key:
                    request.user = cast(Any, await sync_to_async(owner_of)(request))
                return await view(request, **named)
            except NotAdmitted as stranger:
                response = turn_away(request.path, stranger)
            except EndpointError as refused:
                response = refuse(request.path, refused.status, refused.message, **refused.more)
                if "job_id" in refused.more:
                    response["X-Job-Id"] = str(refused.more["job_id"])
            except jobs.KeyTaken:
                response = refuse(request.path, 422, idempotency.key_taken(), field=idempotency.HEADER)
            except errors.RetryLater as problem:
                response = retry_later(request.path, problem)
            if response.status_code == 405:
                response["Allow"] = method
            return response

        return answer

    return dressed


def _check_method(request: HttpRequest, method: str) -> None:
    sent = "GET" if request.method == "HEAD" else request.method
    if sent != method:
        raise EndpointError(405, _("Only %(method)s works here.") % {"method": method})


def find_job(request: HttpRequest, job_id: str) -> Job:
    """The caller's job of this id. Raises EndpointError when there is none, or it is another's."""
    try:
        return Job.objects.for_user(request.user).select_related("recording").defer("searchable").get(pk=UUID(job_id))
    except (Job.DoesNotExist, ValueError) as error:
        raise EndpointError(404, _("There is no such job.")) from error


async def finished(job_id: UUID) -> Job:
    """The job when it is done. Raises EndpointError when it failed (422 if the input is at fault) or was cancelled."""
    named = {"job_id": str(job_id)}
    try:
        job = await jobs.wait(job_id)
    except Job.DoesNotExist as error:
        raise EndpointError(404, _("The job was deleted before it ended."), **named) from error
    if job.status == Job.Status.CANCELLED:
        raise EndpointError(409, _("The job was cancelled."), **named)
    if job.problem is not None:
        # The job's id is what the log knows this by.
        body = {"code": job.error_code, "request_id": str(job_id), **named}
        raise EndpointError(422 if job.problem.is_input_at_fault else 500, job.error_message, **body)
    if job.unknown_status_message:
        raise EndpointError(409, job.unknown_status_message, **named)
    return job


def read_form(kind: type[Form], request: HttpRequest, *, no_file: int = 400) -> Form:
    """Read the form, whose fields may be in the query string too, or in one JSON field `params`.

    Raises EndpointError: with `no_file` when there is none, else with 422.
    """
    _take_multipart_as_multipart(request)
    form = request.POST.copy()
    params = form.pop("params", [])
    read = kind.of(form, request.FILES, request.GET, *(_parameters(text) for text in params))
    if not read.is_valid():
        field, message = next(iter(read.errors.items()))
        raise EndpointError(no_file if "file" in read.errors else 422, str(message[0]), field=field)
    return read


def request_key(request: HttpRequest) -> jobs.RequestKey | None:
    """By what this request, whose form was read, is known if it comes once more; None without an Idempotency-Key."""
    try:
        return idempotency.as_sent(request.path, request.headers, request.POST, request.FILES, request.GET)
    except idempotency.KeyTooLong as error:
        raise EndpointError(422, str(error), field=idempotency.HEADER) from error


def _take_multipart_as_multipart(request: HttpRequest) -> None:
    """The documents' curl commands say `application/json` beside `--form`; the boundary tells the truth."""
    boundary = (request.content_params or {}).get("boundary")
    if boundary and request.content_type != "multipart/form-data":
        request.content_type = "multipart/form-data"
        request.META["CONTENT_TYPE"] = f"multipart/form-data; boundary={boundary}"


def _parameters(text: str | UploadedFile) -> MultiValueDict[str, Any]:
    try:
        return parameters(str(text))
    except ValueError as error:
        raise EndpointError(422, _("`params` is a JSON object of parameters."), field="params") from error
