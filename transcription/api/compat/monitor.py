"""The compatibility API's endpoints under /api/: queue a recording, and watch it, the devices and the log.

POST /api/transcribe         a form as at /transcribe; {"task_id"} at once
GET  /api/status/{task_id}   its state (queued processing done error), and the text when it is done
GET  /api/queue              the newest tasks in each state
GET  /api/gpus               the devices: name, memory, load; a task's `gpu_id` is the `id` of one
GET  /api/model_status       the models in each device's memory: {"0": {"base": "loaded"}}
GET  /api/logs               the latest events, the newest at the end

Users see their own tasks, staff see all. Times are in UTC.
"""

from datetime import UTC, datetime
from typing import Any, cast

from django.contrib.auth.models import AbstractBaseUser
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import re_path
from django.utils.translation import gettext as _

from transcription import jobs
from transcription.api.compat.endpoint import endpoint, find_job, read_form, request_key
from transcription.api.responses import Json
from transcription.api.serializers import JobRequest, finite
from transcription.models import Event, Job, Section, Worker
from transcription.queue import forecast

NEWEST_JOBS = 100  # of each state
NEWEST_EVENTS = 200

Status = Job.Status
# The names that this API has for our statuses.
WORDS = {
    "queued": (Status.QUEUED,),
    "processing": (Status.DOWNLOADING, Status.PREPARING, Status.TRANSCRIBING, Status.FINISHING),
    "done": (Status.DONE,),
    "error": (Status.FAILED, Status.CANCELLED),
}


# ------------------------------------------------------------------ a task


class QueueRequest(JobRequest):
    ignores_unsupported = True  # the documents promise it


@endpoint("POST")
def transcribe(request: HttpRequest) -> HttpResponse:
    """Queue a recording and answer at once."""
    form = read_form(QueueRequest, request)
    owner = cast(AbstractBaseUser, request.user)
    job = jobs.submit(owner, form.upload, request_key=request_key(request), **form.job_parameters)
    return Json({"task_id": str(job.pk)}, headers={"X-Job-Id": str(job.pk)})


@endpoint("GET")
def status(request: HttpRequest, task_id: str) -> HttpResponse:
    job = find_job(request, task_id)
    expected = None if job.is_ended else forecast.latest().get(job.pk)
    body = finite(
        {
            "task_id": str(job.pk),
            "status": next((word for word, statuses in WORDS.items() if job.status in statuses), "error"),
            "result": job.text if job.status == Status.DONE else None,
            "error": _error(job) or None,
            "filename": job.recording.original_name,
            "model": job.model,
            "language": job.answered_language,
            "progress": job.progress,
            "queue_position": None if expected is None else expected.position,
            "eta_seconds": None if expected is None else expected.seconds,
            "device": job.device or None,
            "gpu_id": _devices_of([job]).get(job.pk),
            "engine": job.engine or None,
            "created_at": _time(job.created_at),
            "started_at": _time(job.preparing_at),
            "completed_at": _time(job.finished_at),
            "duration": job.recording.duration,
            "processing_seconds": job.processing_seconds,
            "warnings": job.warnings,
        }
    )
    return Json(body)


def _error(job: Job) -> str:
    """Why there will be no text, as a sentence; empty if there is or may be one."""
    if job.status == Status.CANCELLED:
        return _("The job was cancelled.")
    return job.error_message or job.unknown_status_message


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


# ------------------------------------------------------------------ all tasks


@endpoint("GET")
def queue(request: HttpRequest) -> HttpResponse:
    seen = Job.objects.all() if _is_staff(request) else Job.objects.for_user(request.user)
    waiting, running, done = (_newest(seen.filter(status__in=WORDS[word])) for word in ("queued", "processing", "done"))
    failed = _newest(seen.exclude(status__in=(*Job.UNFINISHED, Status.DONE)))
    devices = _devices_of(running)
    body = {
        "queue": [{**_names(job), "created_at": _time(job.created_at)} for job in waiting],
        "processing": [{**_names(job), "gpu_id": devices.get(job.pk)} for job in running],
        "completed": [{**_names(job), "completed_at": _time(job.finished_at)} for job in done],
        "failed": [{**_names(job), "error": _error(job)} for job in failed],
    }
    return Json(body)


def _is_staff(request: HttpRequest) -> bool:
    return bool(getattr(request.user, "is_staff", False))


def _newest(tasks: QuerySet[Job]) -> list[Job]:
    light = tasks.select_related("recording").defer("text", "searchable", "recording__peaks")
    return list(light.order_by("-created_at", "-id")[:NEWEST_JOBS])


def _names(job: Job) -> dict[str, str]:
    return {"id": str(job.pk), "filename": job.recording.original_name}


def _devices_of(tasks: list[Job]) -> dict[Any, int]:
    """The `id` of a device that works on each task now; a task that waits is missing."""
    ids = {worker.pk: index for index, worker in enumerate(_devices())}
    held = Section.objects.filter(job__in=tasks, status=Section.Status.TRANSCRIBING, worker__in=ids)
    return {job: ids[worker] for job, worker in held.values_list("job_id", "worker_id")}


# ------------------------------------------------------------------ devices


def _devices() -> list[Worker]:
    """The living device workers, in an order that a restart keeps; a device's `id` is its index."""
    return list(Worker.alive().filter(kind=Worker.Kind.DEVICE).order_by("hostname", "device", "started_at", "pk"))


@endpoint("GET")
def gpus(request: HttpRequest) -> HttpResponse:
    body = [
        {
            "id": index,
            "name": worker.device_name or worker.device,
            "memory_total_mb": worker.memory_total_mb,
            "memory_used_mb": worker.memory_used_mb,
            "utilization_gpu": worker.utilization,
            "device": worker.device,
        }
        for index, worker in enumerate(_devices())
    ]
    return Json(body, safe=False)


@endpoint("GET")
def model_status(request: HttpRequest) -> HttpResponse:
    return Json({str(index): worker.model_states for index, worker in enumerate(_devices())})


# ------------------------------------------------------------------ the log


@endpoint("GET")
def logs(request: HttpRequest) -> HttpResponse:
    known = Event.objects.all() if _is_staff(request) else Event.objects.filter(job__owner_id=request.user.pk)
    with_names = known.select_related("job__recording")
    light = with_names.defer("job__text", "job__searchable", "job__recording__peaks")
    newest = list(light.order_by("-id")[:NEWEST_EVENTS])
    body = [{"time": _time(event.at), "msg": _message(event)} for event in reversed(newest)]
    return Json(body, safe=False)


def _message(event: Event) -> str:
    """The event in a line, in English like the log."""
    return str(event) if event.job is None else f"Task {event.job_id} ({event.job.recording.original_name}) {event}"


# With and without a slash at the end: a client would not follow a redirect with a POST.
urlpatterns = [
    re_path(r"^transcribe/?$", transcribe),
    re_path(r"^status/(?P<task_id>[^/]+)/?$", status),
    re_path(r"^queue/?$", queue),
    re_path(r"^gpus/?$", gpus),
    re_path(r"^model_status/?$", model_status),
    re_path(r"^logs/?$", logs),
]
