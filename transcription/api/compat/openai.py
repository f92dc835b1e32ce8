"""OpenAI's endpoint, under /v1/: a client of that service's speaks with us when it is given our address.

POST /v1/audio/transcriptions    a form: file, model, language or languages[], prompt, keywords[], temperature, stream,
                                 response_format (json text srt vtt verbose_json), timestamp_granularities[] (segment
                                 word); our own parameters too; what nobody knows is ignored
POST /v1/audio/translations      the same, into English
GET  /v1/models, /v1/models/ID   the models here, and the names of OpenAI's that stand for the default one

Both posts wait for the job, or with `stream=true` tell its text as it comes. A request that is sent once more joins the
job that it made (`jobs.RequestKey`), and X-Job-Id names it. An error is {"error": {"message", "type", "param",
"code"}}.
"""

import json
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from functools import wraps
from typing import Any, ClassVar, cast
from uuid import UUID

from asgiref.sync import sync_to_async
from django.contrib.auth.models import AbstractBaseUser
from django.db import close_old_connections
from django.db.models import Count, Min, Q
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import path, re_path
from django.utils import translation
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.csrf import csrf_exempt
from rest_framework import serializers

from transcription import errors, jobs, sentences
from transcription.api import idempotency, transcript
from transcription.api.authentication import key_in
from transcription.api.compat.endpoint import EndpointError, endpoint
from transcription.api.errors import openai_body
from transcription.api.responses import Json
from transcription.api.serializers import JobRequest, ModelField, always, finite
from transcription.jobs import JobParameters
from transcription.models import ApiToken, Job, Section
from transcription.models import Segment as Row
from transcription.parameters import BY_NAME, InvalidParameter
from transcription.text import exports
from transcription.watcher import Snapshot, watching
from transcription.weights import catalogue
from transcription.whisper.options import LANGUAGES
from transcription.whisper.result import Segment

View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]

MODEL_NOT_FOUND = "model_not_found"
OWNED_BY = "stenograf"
SPEAKERS = ("known_speaker_names", "known_speaker_references")
SUBTITLES = ("srt", "vtt")
PLAIN = "text/plain; charset=utf-8"
# A proxy closes a connection on which nothing comes; a comment is nothing to the client.
SILENCE_SECONDS = 15.0
PING = ": ping\n\n"

log = logging.getLogger(__name__)


class OpenAIError(EndpointError):
    """The request gets this sentence instead of an answer. `is_final`: sent once more it would get the same."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, is_final: bool = False
    ) -> None:
        super().__init__(status, message, param=param, code=code)
        self.is_final = is_final

    @property
    def body(self) -> dict[str, object]:
        return openai_body(self.status, self.message, **self.more)

    @property
    def answer(self) -> HttpResponse:
        answer = Json(self.body, status=self.status)
        if self.is_final:
            answer["X-Should-Retry"] = "false"  # the clients would, after a 409 and a 500
        return answer


def openai_endpoint(method: str) -> Callable[[View], View]:
    """A view for one method and a key, whose refusals have OpenAI's shape and whose answers have an id."""

    def dressed(view: View) -> View:
        checked = endpoint(method)(view)

        @csrf_exempt  # no cookie opens this endpoint
        @wraps(view)
        async def answer(request: HttpRequest, **named: str) -> HttpResponseBase:
            response = await checked(request, **named)
            # The job's id is what the log knows a request by.
            response["X-Request-Id"] = response.get("X-Job-Id") or uuid.uuid4().hex
            return response

        return answer

    return dressed


# ------------------------------------------------------------------ what is asked


class NamedModelField(ModelField):
    """A model by any of its names; one that is not known is told from other refusals."""

    def to_internal_value(self, data: Any) -> str:
        try:
            return super().to_internal_value(data)
        except serializers.ValidationError as error:
            message = [str(detail) for detail in cast(list[str], error.detail)]  # which bear a code of their own
            raise serializers.ValidationError(message, code=MODEL_NOT_FOUND) from error


class TranscriptionRequest(JobRequest):
    """OpenAI's fields put into our parameters, and the form of the answer."""

    task: ClassVar[str] = ""  # that the address stands for; empty: as asked

    model = NamedModelField()
    response_format = serializers.ChoiceField(
        ("json", "text", "srt", "verbose_json", "vtt"),
        default="json",
        error_messages=always(gettext_lazy("`response_format` is json, text, srt, vtt or verbose_json.")),
    )
    stream = serializers.BooleanField(default=False, error_messages=always(gettext_lazy("`stream` is true or false.")))
    timestamp_granularities = serializers.MultipleChoiceField(
        choices=("segment", "word"),
        required=False,
        error_messages=always(gettext_lazy("`timestamp_granularities[]` is segment, word, or both of them.")),
    )

    languages = serializers.ListField(child=serializers.CharField(), required=False)

    def _by_name(self, data: MultiValueDict[str, Any]) -> dict[str, list[Any]]:
        """What was sent under our names: a list's name comes with brackets or bare, and unknown names are left out."""
        sent: dict[str, list[Any]] = {}
        for name, values in super()._by_name(data).items():
            bare = name.removesuffix("[]")
            sent.setdefault(self.aliases.get(bare, bare), []).extend(values)
        if keywords := sent.pop("keywords", []):
            sent.setdefault("hotwords", [", ".join(map(str, keywords))])
        if languages := sent.pop("languages", []):
            sent["languages"] = [languages]
        self._put_granularities(sent)
        if self.task:
            sent["task"] = [self.task]
        known = {*self.fields, *SPEAKERS}
        return {name: values for name, values in sent.items() if name in known}

    def _put_granularities(self, sent: dict[str, list[Any]]) -> None:
        if granularities := sent.pop("timestamp_granularities", []):
            sent["timestamp_granularities"] = [granularities]
        if "word" in granularities:
            sent["word_timestamps"] = ["true"]

    def _refusal(self, name: str, values: list[Any]) -> str:
        value = str(values[0]).strip().lower()
        is_of_speakers = value == "diarized_json" or (name == "model" and value.endswith("-diarize"))
        if name in SPEAKERS or is_of_speakers:
            return _("Speakers are not told apart here yet. Ask for another model and format.")
        return super()._refusal(name, values)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "word" in attrs.get("timestamp_granularities", ()) and attrs["response_format"] != "verbose_json":
            message = _("The times of words come with `response_format` verbose_json alone.")
            raise serializers.ValidationError({"timestamp_granularities": [message]})
        return super().validate(attrs)

    def validate_languages(self, value: list[str]) -> list[str]:
        """Their codes, each once."""
        languages = BY_NAME["language"]
        try:
            return list(dict.fromkeys(code for name in value if (code := languages.read([name])) is not None))
        except InvalidParameter as refused:
            raise serializers.ValidationError(sentences.describe(refused)) from refused

    @property
    def job_parameters(self) -> JobParameters:
        """Among several languages the one that is spoken is found; one by itself is not looked for."""
        job_parameters = super().job_parameters
        languages = self.validated_data.get("languages", [])
        if self.validated_data.get("language") is None and languages:
            chosen = {"language": languages[0]} if len(languages) == 1 else {"languages": tuple(languages)}
            job_parameters["options"] = replace(job_parameters["options"], **chosen)
        return job_parameters

    @property
    def granularities(self) -> set[str]:
        words = {"word"} if self.validated_data.get("word_timestamps") else set()
        return set(self.validated_data.get("timestamp_granularities") or {"segment", *words})


class TranslationRequest(TranscriptionRequest):
    task = "translate"

    def _put_granularities(self, sent: dict[str, list[Any]]) -> None:
        sent.pop("timestamp_granularities", None)  # no field of this address


def _read_form(request: HttpRequest, kind: type[TranscriptionRequest]) -> TranscriptionRequest:
    form = kind.of(request.POST, request.FILES)
    if not form.is_valid():
        param, message = next(iter(form.errors.items()))
        is_unknown_model = message[0].code == MODEL_NOT_FOUND
        code = MODEL_NOT_FOUND if is_unknown_model else None
        raise OpenAIError(404 if is_unknown_model else 400, str(message[0]), param=param, code=code)
    return form


def _submit(request: HttpRequest, kind: type[TranscriptionRequest]) -> tuple[TranscriptionRequest, UUID]:
    form = _read_form(request, kind)
    owner = cast(AbstractBaseUser, request.user)
    try:
        job = jobs.submit(owner, form.upload, request_key=_request_key(request, form), **form.job_parameters)
    except jobs.KeyTaken as error:
        raise OpenAIError(422, idempotency.key_taken(), code="idempotency_key_reused") from error
    except idempotency.KeyTooLong as error:
        raise OpenAIError(400, str(error)) from error
    retries = request.headers.get("X-Stainless-Retry-Count", "")
    if retries.isdecimal() and retries != "0":
        log.info("job %s: its client asks for it again, for the %s. time", job.pk, retries[:10])
    request.close()  # The body's own copy of the recording would lie on the disk for as long as we wait.
    return form, job.pk


def _request_key(request: HttpRequest, form: TranscriptionRequest) -> jobs.RequestKey:
    """By what this request is known if it comes once more: its sound, and all that the text depends on."""
    asking: dict[str, Any] = {**form.job_parameters, "options": form.job_parameters["options"].to_json()}
    token = ApiToken.digest_of(key_in(request.headers) or "")
    return idempotency.as_meant(request.headers, **asking, sound=form.upload.sha256, token=token)


# ------------------------------------------------------------------ POST /v1/audio/…


@openai_endpoint("POST")
async def transcriptions(request: HttpRequest) -> HttpResponseBase:
    return await _answer(request, TranscriptionRequest)


@openai_endpoint("POST")
async def translations(request: HttpRequest) -> HttpResponseBase:
    return await _answer(request, TranslationRequest)


async def _answer(request: HttpRequest, kind: type[TranscriptionRequest]) -> HttpResponseBase:
    """Answer with the text, at once or as it comes; a client that hangs up leaves the job running."""
    form, job_id = await sync_to_async(_submit)(request, kind)
    answer: HttpResponseBase
    if form.validated_data["stream"]:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        stream = _stream(job_id, translation.get_language(), is_told_at_once=not form.job_parameters.get("improve"))
        answer = StreamingHttpResponse(stream, content_type="text/event-stream; charset=utf-8", headers=headers)
    else:
        answer = await _waited(job_id, form)
    answer["X-Job-Id"] = str(job_id)
    return answer


async def _waited(job_id: UUID, form: TranscriptionRequest) -> HttpResponse:
    try:
        job = await jobs.wait(job_id)
    except Job.DoesNotExist:
        job = None
    if (failure := _failure(job)) is not None:
        return failure.answer
    return await sync_to_async(_answer_body)(cast(Job, job), form)


def _failure(job: Job | None) -> OpenAIError | None:
    """What is said of a job that has ended without its text; None for one that is done."""
    if job is None:
        return OpenAIError(404, _("The job was deleted before it ended."), code="job_deleted")
    if job.status == Job.Status.CANCELLED:
        return OpenAIError(409, _("The job was cancelled."), code="job_cancelled", is_final=True)
    if job.unknown_status_message:
        return OpenAIError(409, job.unknown_status_message, code="status_unknown", is_final=True)
    if job.problem is None:
        return None
    if job.problem.is_input_at_fault:
        return OpenAIError(400, job.error_message, param="file", code=job.error_code)
    # Final: what may pass was tried again by the queue.
    return OpenAIError(500, job.error_message, code=job.error_code, is_final=True)


def _answer_body(job: Job, form: TranscriptionRequest) -> HttpResponse:
    format = form.validated_data["response_format"]
    if format == "text":
        return HttpResponse(f"{job.text}\n", content_type=PLAIN)
    if format in SUBTITLES:
        file = exports.FORMATS[format].render(transcript.segments(job), job.transcription_options.highlight)
        return HttpResponse(file, content_type=PLAIN)
    if format == "verbose_json":
        return Json(_verbose(job, form.granularities))
    return Json({"text": job.text, "usage": _usage(job)})


def _verbose(job: Job, granularities: set[str]) -> dict[str, Any]:
    segments = transcript.segments(job)
    options = job.transcription_options
    language = job.language or options.language or ""
    body: dict[str, Any] = {
        "task": options.task,
        "language": "english" if options.task == "translate" else LANGUAGES.get(language, language),
        "duration": job.recording.duration or 0.0,
        "text": job.text,
        "usage": _usage(job),
    }
    if "segment" in granularities:
        body["segments"] = [_segment(index, segment) for index, segment in enumerate(segments)]
    if "word" in granularities:
        words = [word for segment in segments for word in segment.words or ()]
        body["words"] = [{"word": word.word, "start": word.start, "end": word.end} for word in words]
    return cast(dict[str, Any], finite(body))


def _segment(index: int, segment: Segment) -> dict[str, Any]:
    body = {"id": index, **segment.to_json()}
    del body["words"]  # they have their own list
    return body


def _usage(job: Job) -> dict[str, Any]:
    return {"type": "duration", "seconds": job.recording.duration or 0.0}


# ------------------------------------------------------------------ stream=true


class Increments:
    """A text that comes in parts: its increments, one after the other, are the text without the space around it."""

    def __init__(self) -> None:
        self.whole = ""
        self._held = ""  # the space at the end, which is only told if something follows

    def of(self, part: str) -> str:
        """What a part adds to what was told; it may be empty."""
        part = self._held + part if self.whole else part.lstrip()
        added = part.rstrip()
        self._held = part[len(added) :]
        self.whole += added
        return added


Place = tuple[int, int]  # of a segment: its section, and its number there


async def _stream(job_id: UUID, language: str | None, *, is_told_at_once: bool = True) -> AsyncIterator[str]:
    """The text of a job in the order of the recording: as it is stored, or when the job has ended."""
    text, place, snapshot = Increments(), (-1, -1), cast(Snapshot | None, None)
    async with watching(job_id) as watched:
        while snapshot is None or not snapshot.is_over:
            before, snapshot = snapshot, await watched.after(snapshot, within=SILENCE_SECONDS)
            if snapshot is None or snapshot is before:
                yield PING
                continue
            if not (is_told_at_once or snapshot.is_over):
                continue  # a language model will change it
            for at, piece in await sync_to_async(_after)(place, job_id):
                place = at
                if delta := text.of(piece):
                    yield _event({"type": "transcript.text.delta", "delta": delta})
    with translation.override(language):
        failure = _failure(snapshot.job)
    yield _event(failure.body if failure else {"type": "transcript.text.done", "text": text.whole})


def _after(place: Place, job_id: UUID) -> list[tuple[Place, str]]:
    """The segments after a place that no other can come between: up to the first section that is not done."""
    try:
        sections = Section.objects.filter(job_id=job_id)
        unfinished = ~Q(status=Section.Status.DONE)
        # The sections first, then their segments: of those that are done none is missing.
        seen = sections.aggregate(count=Count("pk"), first=Min("index", filter=unfinished))
        if not seen["count"]:
            return []
        later = Q(section__index=place[0], index__gt=place[1]) | Q(section__index__gt=place[0])
        if seen["first"] is not None:
            later &= Q(section__index__lte=seen["first"])
        stored = Row.objects.filter(later, job_id=job_id).order_by("section__index", "index")
        reads = Coalesce("edited_text", "improved_text", "text")
        rows = stored.values_list("section__index", "index", reads)
        return [((section, index), text) for section, index, text in rows]
    finally:
        close_old_connections()  # who goes on to wait, it may be for hours, holds none


def _event(content: dict[str, Any]) -> str:
    # json.dumps escapes every line end, so no text can end the event early.
    return f"data: {json.dumps(finite(content), ensure_ascii=False, allow_nan=False)}\n\n"


# ------------------------------------------------------------------ GET /v1/models


@openai_endpoint("GET")
async def models(request: HttpRequest) -> HttpResponse:
    return Json({"object": "list", "data": await sync_to_async(_models)()})


@openai_endpoint("GET")
async def model(request: HttpRequest, name: str) -> HttpResponse:
    return Json(await sync_to_async(_model)(name))


def _models() -> list[dict[str, Any]]:
    here = {local.name: int(local.path.stat().st_mtime) for local in catalogue.local_models()}
    return [_named(name, here.get(name, 0)) for name in (*here, *filter(None, catalogue.DEFAULT_NAMES))]


def _model(name: str) -> dict[str, Any]:
    """Any that can be asked for, also one that would be fetched first."""
    try:
        catalogue.canonical(name)
    except errors.UnknownModel as error:
        raise OpenAIError(404, sentences.describe(error), param="model", code=MODEL_NOT_FOUND) from error
    return next((known for known in _models() if known["id"] == name), _named(name, 0))


def _named(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": OWNED_BY}


# No slash at the end, as OpenAI has it, and no redirect to anywhere.
urlpatterns = [
    path("audio/transcriptions", transcriptions),
    path("audio/translations", translations),
    path("models", models),
    re_path(r"^models/(?P<name>.+)$", model),
]
