"""What the compatibility endpoints share: one method, a key, a lenient form, refusals in the shape of each.

A request that is repeated with its Idempotency-Key gets the job that it made, as everywhere (`idempotency.py`).
"""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar, cast
from uuid import UUID

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponseBase
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt

from transcription import errors, jobs
from transcription.api import idempotency
from transcription.api.authentication import NotAdmitted, caller_of
from transcription.api.errors import refuse, retry_later, turn_away, wrong_method
from transcription.api.serializers import JobRequest, parameters
from transcription.models import Job

View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]
SyncView = Callable[..., HttpResponseBase]
Form = TypeVar("Form", bound=JobRequest)


class EndpointError(Exception):
    """A refusal: the status, the sentence, and what else its body holds."""

    def __init__(self, status: int, message: str, **more: object) -> None:
        super().__init__(message)
        self.status, self.message, self.more = status, message, more


def endpoint(method: str, *, needs_key: bool = True) -> Callable[[View | SyncView], View]:
    """A view for one method and a key, whose refusals have the shape that `errors.refuse` knows for its address.

    A synchronous view runs in the request's thread.
    """

    def decorate(view: View | SyncView) -> View:
        async_view = cast(View, view if iscoroutinefunction(view) else sync_to_async(view))

        @csrf_exempt  # no cookie opens these endpoints
        @wraps(view)
        async def answer(request: HttpRequest, **arguments: str) -> HttpResponseBase:
            if method != ("GET" if request.method == "HEAD" else request.method):
                return wrong_method(request.path_info, method)
            try:
                if needs_key:
                    caller = await sync_to_async(caller_of)(request)
                    request.user = cast(Any, caller.user)
                return await async_view(request, **arguments)
            except NotAdmitted as error:
                return turn_away(request.path_info, error)
            except EndpointError as error:
                refusal = refuse(request.path_info, error.status, error.message, **error.more)
                if "job_id" in error.more:
                    refusal["X-Job-Id"] = str(error.more["job_id"])
                return refusal
            except jobs.KeyTaken:
                return refuse(request.path_info, 422, idempotency.key_taken(), field=idempotency.HEADER)
            except errors.RetryLater as problem:
                return retry_later(request.path_info, problem)

        return answer

    return decorate


def find_job(request: HttpRequest, job_id: str) -> Job:
    """The caller's job with this id. Raises EndpointError if there is none, or it is another's."""
    try:
        return Job.objects.for_user(request.user).select_related("recording").defer("searchable").get(pk=UUID(job_id))
    except (Job.DoesNotExist, ValueError) as error:
        raise EndpointError(404, _("There is no such job.")) from error


async def finished(job_id: UUID) -> Job:
    """The job when it is done. Raises EndpointError when it failed (422 if the input is at fault) or was cancelled."""
    with_id = {"job_id": str(job_id)}
    try:
        job = await jobs.wait(job_id)
    except Job.DoesNotExist as error:
        raise EndpointError(404, _("The job was deleted before it ended."), **with_id) from error
    if job.status == Job.Status.CANCELLED:
        raise EndpointError(409, _("The job was cancelled."), **with_id)
    if job.problem is not None:
        # The log names a request by its job's id.
        body = {"code": job.error_code, "request_id": str(job_id), **with_id}
        raise EndpointError(422 if job.problem.is_input_at_fault else 500, job.error_message, **body)
    if job.unknown_status_message:
        raise EndpointError(409, job.unknown_status_message, **with_id)
    return job


def read_form(kind: type[Form], request: HttpRequest, *, no_file: int = 400) -> Form:
    """Read the form, whose fields may be in the query string too, or in one JSON field `params`.

    Raises EndpointError: with `no_file` when there is none, else with 422.
    """
    take_multipart_as_multipart(request)
    form = request.POST.copy()
    params = form.pop("params", [])
    job_request = kind.of(form, request.FILES, request.GET, *(_parameters(text) for text in params))
    if not job_request.is_valid():
        field, messages = next(iter(job_request.errors.items()))
        raise EndpointError(no_file if "file" in job_request.errors else 422, str(messages[0]), field=field)
    return job_request


def request_key(request: HttpRequest) -> jobs.RequestKey | None:
    """What recognises this request, whose form was read, when it is repeated; None without an Idempotency-Key."""
    try:
        return idempotency.as_sent(request.path_info, request.headers, request.POST, request.FILES, request.GET)
    except idempotency.KeyTooLong as error:
        raise EndpointError(422, str(error), field=idempotency.HEADER) from error


def take_multipart_as_multipart(request: HttpRequest) -> None:
    """Read the body by its boundary: the documented curl commands send `application/json` beside `--form`."""
    boundary = (request.content_params or {}).get("boundary")
    if boundary and request.content_type != "multipart/form-data":
        request.content_type = "multipart/form-data"
        request.META["CONTENT_TYPE"] = f"multipart/form-data; boundary={boundary}"


def _parameters(text: str | UploadedFile) -> MultiValueDict[str, Any]:
    try:
        return parameters(str(text))
    except ValueError as error:
        raise EndpointError(422, _("`params` is a JSON object of parameters."), field="params") from error
