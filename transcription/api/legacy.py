"""The founding documents' doors, at the root: post a recording, wait, get the text."""

import asyncio
import tomllib
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import cache, wraps
from typing import Any, cast
from uuid import UUID

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.core.files.uploadedfile import UploadedFile
from django.db import Error as DatabaseFailure
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import re_path
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.csrf import csrf_exempt
from rest_framework import serializers

from transcription import catalogue, errors, jobs
from transcription.api import transcript
from transcription.api.answers import Json
from transcription.api.authentication import CHALLENGE, key_in, no_key, unknown_key, user_of
from transcription.api.errors import sentence
from transcription.api.serializers import JobRequest, always, parameters
from transcription.models import Job, Worker

View = Callable[..., Coroutine[Any, Any, HttpResponse]]


class Refused(Exception):
    """The request gets this sentence instead of an answer."""

    def __init__(self, status: int, said: str, **more: object) -> None:
        super().__init__(said)
        self.status = status
        self.body = {"error": said, **more}


def door(method: str, *, needs_key: bool = True) -> Callable[[View], View]:
    """A view for one method and a key, whose refusals are `{"error": sentence}`."""

    def dressed(view: View) -> View:
        @csrf_exempt  # no cookie opens these doors
        @wraps(view)
        async def answer(request: HttpRequest, **named: str) -> HttpResponse:
            try:
                _check_method(request, method)
                if needs_key:
                    request.user = await sync_to_async(_owner)(request)
                return await view(request, **named)
            except Refused as refused:
                response = Json(refused.body, status=refused.status)
            except errors.DiskFull as error:
                response = Json({"error": sentence(error)}, status=507)
            if response.status_code == 405:
                response["Allow"] = method
            if response.status_code == 401:
                response["WWW-Authenticate"] = CHALLENGE
            return response

        return answer

    return dressed


def _check_method(request: HttpRequest, method: str) -> None:
    asked = "GET" if request.method == "HEAD" else request.method
    if asked != method:
        raise Refused(405, _("Only %(method)s works here.") % {"method": method})


def _owner(request: HttpRequest) -> Any:
    key = key_in(request.headers)
    if key is None:
        raise Refused(401, no_key())
    user = user_of(key)
    if user is None:
        raise Refused(403, unknown_key())
    return user


# ------------------------------------------------------------------ POST /transcribe


class TranscribeRequest(JobRequest):
    """A job's parameters, and the form of the answer."""

    aliases = {**JobRequest.aliases, "response_format": "format"}
    takes_what_nobody_honours = True  # the documents promise it

    format = serializers.ChoiceField(
        ("json", "simple", "text"),
        default="json",
        error_messages=always(gettext_lazy("`format` is json, simple or text.")),
    )


@door("POST")
async def transcribe(request: HttpRequest) -> HttpResponse:
    """Transcribe and answer with the text; a client that hangs up leaves the job running."""
    format, job_id = await sync_to_async(_submit)(request)
    try:
        job = await jobs.wait(job_id)
    except Job.DoesNotExist as error:
        raise Refused(404, _("The job was deleted before it ended."), job_id=str(job_id)) from error
    answer = await sync_to_async(_transcribed)(job, format)
    answer["X-Job-Id"] = str(job_id)
    return answer


def _submit(request: HttpRequest) -> tuple[str, UUID]:
    asked = _asked(request)
    owner = cast(AbstractBaseUser, request.user)
    job = jobs.submit(owner, asked.upload, **asked.wishes)
    request.close()  # The body's own copy of the recording would lie on the disk for as long as we wait.
    return asked.validated_data["format"], job.pk


def _asked(request: HttpRequest) -> TranscribeRequest:
    """Read the form, whose fields may be in the query string too, or in one JSON field `params`."""
    _take_multipart_as_multipart(request)
    form = request.POST.copy()
    params = form.pop("params", [])
    asked = TranscribeRequest.of(form, request.FILES, request.GET, *(_parameters(text) for text in params))
    if not asked.is_valid():
        # No file is 400 in the documents, a bad parameter 422.
        status = 400 if "file" in asked.errors else 422
        field, said = next(iter(asked.errors.items()))
        raise Refused(status, str(said[0]), field=field)
    return asked


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
        raise Refused(422, _("`params` is a JSON object of parameters."), field="params") from error


def _transcribed(job: Job, format: str) -> HttpResponse:
    if job.status == Job.Status.CANCELLED:
        return Json({"error": _("The job was cancelled."), "job_id": str(job.pk)}, status=409)
    if job.problem is not None:
        # The job's id is what the log knows this by.
        told = {"error": job.error_message, "code": job.error_code, "job_id": str(job.pk), "request_id": str(job.pk)}
        return Json(told, status=422 if job.problem.is_input_at_fault else 500)
    body = transcript.body(job)
    if format == "text":
        return HttpResponse(body["text"], content_type="text/plain; charset=utf-8")
    return Json({"text": body["text"]} if format == "simple" else body)


# ------------------------------------------------------------------ GET /job/{id}, /models, /health


@door("GET")
async def job(request: HttpRequest, job_id: str) -> HttpResponse:
    return await sync_to_async(_job)(request, job_id)


def _job(request: HttpRequest, job_id: str) -> HttpResponse:
    found = _find(request, job_id)
    told: dict[str, Any] = {"job_id": str(found.pk), "status": found.status, "progress": found.progress}
    if found.status == Job.Status.DONE:
        told |= transcript.body(found)
    elif found.problem is not None:
        told["error"] = found.error_message
    return Json(told)


def _find(request: HttpRequest, job_id: str) -> Job:
    try:
        return Job.objects.for_user(request.user).select_related("recording").get(pk=UUID(job_id))
    except (Job.DoesNotExist, ValueError) as error:
        raise Refused(404, _("There is no such job.")) from error


@door("GET")
async def models(request: HttpRequest) -> HttpResponse:
    return Json(await sync_to_async(_models)())


def _models() -> dict[str, Any]:
    default = _default_model()
    here = [
        {
            "name": model.name,
            "size_bytes": model.size_bytes,
            "path": str(model.path),
            "available": True,
            "default": model.name == default,
        }
        for model in catalogue.local_models()
    ]
    names = {model["name"] for model in here}
    elsewhere = [
        {"name": model.name, "size_bytes": None, "path": None, "available": False, "default": model.name == default}
        for model in catalogue.MODELS.values()
        if model.name not in names
    ]
    return {"models": here + elsewhere, "default": default}


def _default_model() -> str:
    """The default model's name, also when DEFAULT_MODEL names none that is there: these doors only report."""
    try:
        return catalogue.default()
    except errors.UnknownModel:
        return str(settings.DEFAULT_MODEL)


# A database that does not answer may keep a thread for half a minute: this one, which has a connection of its own.
_asking = ThreadPoolExecutor(1, thread_name_prefix="health")
HEALTH_SECONDS = 5.0


@door("GET", needs_key=False)
async def health(request: HttpRequest) -> HttpResponse:
    """Whether the server can work, said in a few seconds whatever the database does."""
    asked = asyncio.get_running_loop().run_in_executor(_asking, _alive)
    try:
        alive = await asyncio.wait_for(asked, HEALTH_SECONDS)
    except (DatabaseFailure, TimeoutError):
        told = _unhealthy(_("The database does not answer."))
    else:
        told = await sync_to_async(_health)(alive)
    return Json(told, status=200 if told["ok"] else 503)


def _alive() -> list[Worker]:
    try:
        return list(Worker.alive())
    finally:
        connection.close()  # the next one is to the database that is there then


def _health(alive: list[Worker]) -> dict[str, Any]:
    loaded = next((worker.model_loaded for worker in alive if worker.model_loaded), "")
    name = loaded or _default_model()
    kinds = {worker.kind for worker in alive}
    told = {
        "model_loaded": bool(loaded),
        "model_name": name,
        "model": f"whisper-{name}",
        "workers": len(alive),
        "workers_missing": [kind for kind in Worker.Kind.values if kind not in kinds],
        "version": _version(),
    }
    reason = _missing(kinds)
    return {**_unhealthy(reason), **told} if reason else {"status": "healthy", "ok": True, **told}


def _missing(alive: set[str]) -> str:
    """Why nothing can be transcribed by these kinds of workers; empty when it can."""
    if not alive:
        return _("Nobody can transcribe now: no worker is in touch.")
    if Worker.Kind.DEFAULT not in alive:
        return _("Recordings wait now: the worker that prepares them is not in touch.")
    if Worker.Kind.DEVICE not in alive:
        return _("Recordings wait now: no worker that recognises speech is in touch.")
    return ""


@cache
def _version() -> str:
    project = tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def _unhealthy(reason: str) -> dict[str, Any]:
    return {"status": "unhealthy", "ok": False, "error": reason}


# With and without a slash at the end: a client that posts would not follow a redirect.
urlpatterns = [
    re_path(r"^transcribe/?$", transcribe),
    re_path(r"^job/(?P<job_id>[^/]+)/?$", job),
    re_path(r"^models/?$", models),
    re_path(r"^health/?$", health),
]
