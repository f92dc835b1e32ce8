"""The endpoints of the compatibility API, at the root: post a recording, wait, get the text."""

import asyncio
import logging
import re
import tomllib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, cast
from uuid import UUID

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db import Error as DatabaseFailure
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import re_path
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import serializers

from transcription import jobs, keys
from transcription.api import media, own_address, transcript
from transcription.api.authentication import caller_of, key_of
from transcription.api.compat.endpoint import EndpointError, endpoint, find_job, finished, read_form, request_key
from transcription.api.responses import Json
from transcription.api.serializers import JobRequest, always
from transcription.models import Job, Worker
from transcription.weights import catalogue

log = logging.getLogger(__name__)

# ------------------------------------------------------------------ POST /transcribe


class TranscribeRequest(JobRequest):
    """A job's parameters, and the format of the response."""

    aliases = {**JobRequest.aliases, "response_format": "format"}
    ignores_unsupported = True  # the documents promise it

    format = serializers.ChoiceField(
        ("json", "simple", "text"),
        default="json",
        error_messages=always(gettext_lazy("`format` is json, simple or text.")),
    )


@endpoint("POST")
async def transcribe(request: HttpRequest) -> HttpResponse:
    """Transcribe and answer with the text. The job goes on if the client disconnects."""
    format, job_id = await sync_to_async(_submit)(request)
    job = await finished(job_id)
    answer = await sync_to_async(_transcribed)(job, format)
    answer["X-Job-Id"] = str(job_id)
    return answer


def _submit(request: HttpRequest) -> tuple[str, UUID]:
    form = read_form(TranscribeRequest, request)
    owner = cast(AbstractBaseUser, request.user)
    job = jobs.submit(owner, form.upload, request_key=request_key(request), **form.job_parameters)
    request.close()  # otherwise the body's copy of the recording would stay on the disk while we wait
    return form.validated_data["format"], job.pk


def _transcribed(job: Job, format: str) -> HttpResponse:
    body = transcript.body(job)
    if format == "text":
        return HttpResponse(body["text"], content_type="text/plain; charset=utf-8")
    return Json({"text": body["text"]} if format == "simple" else body)


# ------------------------------------------------------------------ GET /job/{id}, /models, /health


@endpoint("GET")
def job(request: HttpRequest, job_id: str) -> HttpResponse:
    job = find_job(request, job_id)
    body: dict[str, Any] = {"job_id": str(job.pk), "status": job.status, "progress": job.progress}
    if job.status == Job.Status.DONE:
        body |= transcript.body(job)
    elif job.problem is not None:
        body["error"] = job.error_message
    return Json(body)


# The names in the answers of `/transcribe` (transcript.file_names): labels, never paths.
FILE = re.compile(r"(?P<job_id>[0-9a-f-]{36})_.+\.(?P<kind>txt|wav)")


@endpoint("GET")
def file(request: HttpRequest, name: str) -> HttpResponseBase:
    """The text or the recording of a job, by the name in its `result_file` or `uploaded_file`."""
    match = FILE.fullmatch(name)
    job = find_job(request, match["job_id"]) if match else None
    if match is None or job is None or name not in transcript.file_names(job):
        raise EndpointError(404, _("There is no such file."))
    if match["kind"] == "wav":
        return media.respond(request, job.recording)
    if job.status != Job.Status.DONE:
        raise EndpointError(404, _("This job has no text yet."))
    return HttpResponse(job.text, content_type="text/plain; charset=utf-8")


@endpoint("GET")
def models(request: HttpRequest) -> HttpResponse:
    default = catalogue.default_if_known() or settings.DEFAULT_MODEL
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
    return Json({"models": here + elsewhere, "default": default})


# A database that does not answer may block a thread for half a minute: this one, with its own connection.
_health_thread = ThreadPoolExecutor(1, thread_name_prefix="health")
HEALTH_SECONDS = 5.0


@endpoint("GET", needs_key=False)
async def health(request: HttpRequest) -> HttpResponse:
    """Whether the server can work, within HEALTH_SECONDS even if the database does not answer."""
    query = asyncio.get_running_loop().run_in_executor(_health_thread, _living_workers)
    try:
        alive = await asyncio.wait_for(query, HEALTH_SECONDS)
    except (DatabaseFailure, TimeoutError):
        body = _unhealthy(_("The database does not answer."))
    else:
        body = await sync_to_async(_health)(alive)
    if (seen := own_address.seen(request)) is not None:
        body["seen"] = seen
    return Json(body, status=200 if body["ok"] else 503)


def _living_workers() -> list[Worker]:
    try:
        return list(Worker.alive())
    finally:
        connection.close()  # a new connection each time, because the database may have restarted


def _health(alive: list[Worker]) -> dict[str, Any]:
    loaded = next((worker.model_loaded for worker in alive if worker.model_loaded), "")
    name = loaded or catalogue.default_if_known() or settings.DEFAULT_MODEL
    kinds = {worker.kind for worker in alive}
    body = {
        "model_loaded": bool(loaded),
        "model_name": name,
        "model": f"whisper-{name}",
        "workers": len(alive),
        "workers_missing": [kind for kind in Worker.Kind.values if kind not in kinds],
        "version": _version(),
    }
    if not kinds:
        reason = _("Nobody can transcribe now: no worker is in touch.")
    elif Worker.Kind.DEFAULT not in kinds:
        reason = _("Recordings wait now: the worker that prepares them is not in touch.")
    elif Worker.Kind.DEVICE not in kinds:
        reason = _("Recordings wait now: no worker that recognises speech is in touch.")
    else:
        return {"status": "healthy", "ok": True, **body}
    return {**_unhealthy(reason), **body}


@cache
def _version() -> str:
    project = tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def _unhealthy(reason: str) -> dict[str, Any]:
    return {"status": "unhealthy", "ok": False, "error": reason}


# ------------------------------------------------------------------ POST /keys/reload


@endpoint("POST", needs_key=False)
def reload_keys(request: HttpRequest) -> HttpResponse:
    """Read KEYS_FILE again, for a caller with one of its keys (also one not read yet) or an administrator's key."""
    try:
        key = key_of(request)
        if key is None or not keys.is_in_file(key):
            caller = caller_of(request)
            has_key_of_file = caller.token is not None and caller.token.is_from_file
            if not (has_key_of_file or getattr(caller.user, "is_staff", False)):
                raise EndpointError(403, _("Send a key of the file, or an administrator's that may do everything."))
        return Json({"reloaded": keys.reload()})
    except keys.FileMissing as error:
        raise EndpointError(409, str(error)) from error
    except OSError as error:
        log.exception("the file of keys could not be read")
        message = _("%(file)s cannot be read: %(reason)s. The keys stay as they were.")
        raise EndpointError(500, message % {"file": settings.KEYS_FILE.name, "reason": error.strerror}) from error


# With and without a slash at the end: a client would not follow a redirect with a POST.
urlpatterns = [
    re_path(r"^transcribe/?$", transcribe),
    re_path(r"^job/(?P<job_id>[^/]+)/?$", job),
    re_path(r"^files/(?P<name>[^/]+)/?$", file),
    re_path(r"^models/?$", models),
    re_path(r"^health/?$", health),
    re_path(r"^keys/reload/?$", reload_keys),
]
