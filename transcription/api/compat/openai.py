"""OpenAI's endpoints, under /v1/, for clients of that service, which only need our address.

POST /v1/audio/transcriptions    a form: file, model, language or languages[], prompt, keywords[], temperature, stream,
                                 response_format (json text srt vtt verbose_json), timestamp_granularities[] (segment
                                 word); our own parameters too; unknown names are ignored
                                 or JSON, with the recording as `input_audio` in Base64 (`input_audio.py`)
POST /v1/audio/translations      the same, into English
GET  /v1/models, /v1/models/ID   the models here, and OpenAI's names that stand for the default one

Both posts wait for the job, or with `stream=true` send its text as it is decoded. A request that is repeated joins the
job that it made (`jobs.RequestKey`), and X-Job-Id names it. An error is {"error": {"message", "type", "param",
"code"}}.
"""

import json
import logging
import re
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, cast
from uuid import UUID

from asgiref.sync import sync_to_async
from django.contrib.auth.models import AbstractBaseUser
from django.db import close_old_connections
from django.db.models import Min, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import path, re_path
from django.utils import translation
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.csrf import csrf_exempt
from rest_framework import serializers

from transcription import disk, errors, jobs, sentences
from transcription.api import idempotency, transcript
from transcription.api.authentication import key_in
from transcription.api.compat import input_audio
from transcription.api.compat.endpoint import EndpointError, SyncView, View, endpoint, take_multipart_as_multipart
from transcription.api.errors import openai_body
from transcription.api.responses import Json
from transcription.api.serializers import JobRequest, ModelField, always, finite, is_empty
from transcription.jobs import JobParameters, StoredFile
from transcription.models import BY_TIME, ApiToken, Job, Section, Segment
from transcription.parameters import BY_NAME, InvalidParameter, items
from transcription.sound import audio
from transcription.text import edits, exports
from transcription.watcher import Snapshot, watching
from transcription.weights import catalogue
from transcription.whisper.options import LANGUAGES

MODEL_NOT_FOUND = "model_not_found"
OWNED_BY = "stenograf"
SPEAKERS = ("known_speaker_names", "known_speaker_references")
SUBTITLES = ("srt", "vtt")
PLAIN = "text/plain; charset=utf-8"
BRACKETS = re.compile(r"\[\d*\]$")
A_MOMENT = 1  # seconds of sound that show that a file can be decoded
# A proxy closes an idle connection; clients ignore a comment.
SILENCE_SECONDS = 15.0
PING = ": ping\n\n"

log = logging.getLogger(__name__)


class OpenAIError(EndpointError):
    """A refusal in OpenAI's shape. `is_final`: a repeated request would get the same one."""

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
            answer["X-Should-Retry"] = "false"  # otherwise OpenAI's clients retry after a 409 and a 500
        return answer


def openai_endpoint(method: str) -> Callable[[View | SyncView], View]:
    """A view for one method and a key, whose errors have OpenAI's shape and whose responses have an id."""

    def decorate(view: View | SyncView) -> View:
        checked = endpoint(method)(view)

        @csrf_exempt  # no cookie opens this endpoint
        @wraps(view)
        async def answer(request: HttpRequest, **arguments: str) -> HttpResponseBase:
            response = await checked(request, **arguments)
            # The log names a request by its job's id.
            response["X-Request-Id"] = response.get("X-Job-Id") or uuid.uuid4().hex
            return response

        return answer

    return decorate


# ------------------------------------------------------------------ the request


class NamedModelField(ModelField):
    """A model by any of its names; an unknown one is an error with a code of its own."""

    def to_internal_value(self, data: Any) -> str:
        try:
            return super().to_internal_value(data)
        except serializers.ValidationError as error:
            message = [str(detail) for detail in cast(list[str], error.detail)]  # plain, without the details' own codes
            raise serializers.ValidationError(message, code=MODEL_NOT_FOUND) from error


class TranscriptionRequest(JobRequest):
    """OpenAI's fields translated to our parameters, and the format of the response."""

    task: ClassVar[str] = ""  # the task of the address; empty if the request may choose it

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
        """The values that were sent, by our names; unknown names are left out.

        The name of a list may have brackets, also with a number in them.
        """
        bare: MultiValueDict[str, Any] = MultiValueDict()
        for name, values in data.lists():
            bare.setlist(plain := BRACKETS.sub("", name), [*bare.getlist(plain), *values])
        sent = super()._by_name(bare)
        if keywords := _single(sent.pop("keywords", [])):
            sent.setdefault("hotwords", [", ".join(map(str, keywords))])
        if languages := _single(sent.pop("languages", [])):
            sent["languages"] = [languages]
        self._put_granularities(sent)
        if self.task:
            sent["task"] = [self.task]
        known = {*self.fields, *SPEAKERS}
        return {name: values for name, values in sent.items() if name in known}

    def _put_granularities(self, sent: dict[str, list[Any]]) -> None:
        """Make one list of the granularities in `sent`, and ask for word times if words are among them."""
        if granularities := _single(sent.pop("timestamp_granularities", [])):
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
        """The languages' codes without repetition."""
        languages = BY_NAME["language"]
        try:
            return list(dict.fromkeys(code for name in value if (code := languages.read([name])) is not None))
        except InvalidParameter as error:
            raise serializers.ValidationError(sentences.describe(error)) from error

    @property
    def job_parameters(self) -> JobParameters:
        """As everywhere, with `languages`: among several the spoken one is detected, a single one is taken as it is."""
        job_parameters = super().job_parameters
        languages = self.validated_data.get("languages", [])
        if self.validated_data.get("language") is None and languages:
            options = {"language": languages[0]} if len(languages) == 1 else {"languages": tuple(languages)}
            job_parameters["options"] = replace(job_parameters["options"], **options)
        return job_parameters

    @property
    def granularities(self) -> set[str]:
        words = {"word"} if self.validated_data.get("word_timestamps") else set()
        return set(self.validated_data.get("timestamp_granularities") or {"segment", *words})


def _single(sent: list[Any]) -> list[Any]:
    """The items of fields of one name, each of which may be a list in JSON or with commas."""
    try:
        flat = list(items(sent))
    except (ValueError, RecursionError):
        flat = sent  # no list in JSON: the field says what is allowed
    return [item.strip() if isinstance(item, str) else item for item in flat if not is_empty(item)]


class TranslationRequest(TranscriptionRequest):
    task = "translate"

    def _put_granularities(self, sent: dict[str, list[Any]]) -> None:
        sent.pop("timestamp_granularities", None)  # this endpoint has no such field


Sent = tuple[MultiValueDict[str, Any], MultiValueDict[str, Any]]  # fields, files


def _sent(request: HttpRequest) -> Sent:
    """The fields and the files of a request in a form, or in JSON. Raises OpenAIError."""
    if not input_audio.is_json(request):
        take_multipart_as_multipart(request)
        return request.POST, request.FILES
    try:
        fields, upload = input_audio.read(request)
    except input_audio.Unreadable as error:
        raise OpenAIError(error.status, str(error), param=error.field) from error
    return fields, MultiValueDict({"file": [upload]})


def _checked(kind: type[TranscriptionRequest], sent: Sent) -> TranscriptionRequest:
    """The request that was sent, if all is right with it. Raises OpenAIError."""
    form = kind.of(*sent)
    if form.is_valid():
        return form
    problems = form.errors
    param = "file" if "file" in problems else next(iter(problems))
    message = problems[param][0]
    if message.code != MODEL_NOT_FOUND:
        raise OpenAIError(400, str(message), param=param)
    _check_sound(cast(StoredFile, form.initial_data.get("file") or form.initial_data["audio_file"]))
    raise OpenAIError(404, str(message), param=param, code=MODEL_NOT_FOUND)


def _check_sound(upload: StoredFile) -> None:
    """Raises OpenAIError if the file cannot be decoded.

    For a model that does not exist alone: Nextcloud sends a bad file with such a model, and where that is answered with
    404 it takes transcription for missing. Otherwise the job finds out.
    """
    try:
        with disk.temporary_folder() as folder:
            audio.decode(
                Path(upload.temporary_file_path()),
                folder / "pcm",
                name=upload.name or "",
                max_seconds=A_MOMENT,
                on_probe=lambda _: None,
                on_progress=lambda _: None,
                should_stop=lambda: False,
            )
    except errors.TooLong:
        pass  # so it can be decoded
    except errors.Problem as problem:
        if problem.is_input_at_fault:
            raise OpenAIError(400, sentences.describe(problem), param="file", code=problem.code) from problem


def _submit(request: HttpRequest, kind: type[TranscriptionRequest]) -> tuple[TranscriptionRequest, UUID]:
    sent = _sent(request)
    try:
        form = _checked(kind, sent)
        return form, _queue(request, form)
    finally:
        request.close()  # otherwise the body's copy of the recording would stay on the disk while we wait
        for _field, uploads in sent[1].lists():
            for upload in uploads:
                upload.close()


def _queue(request: HttpRequest, form: TranscriptionRequest) -> UUID:
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
    return job.pk


def _request_key(request: HttpRequest, form: TranscriptionRequest) -> jobs.RequestKey:
    """What recognises this request when it is repeated: the sound, and all that the text depends on."""
    job_parameters: dict[str, Any] = {**form.job_parameters, "options": form.job_parameters["options"].to_json()}
    token = ApiToken.digest_of(key_in(request.headers) or "")
    return idempotency.as_meant(request.headers, **job_parameters, sound=form.upload.sha256, token=token)


# ------------------------------------------------------------------ POST /v1/audio/…


@openai_endpoint("POST")
async def transcriptions(request: HttpRequest) -> HttpResponseBase:
    return await _answer(request, TranscriptionRequest)


@openai_endpoint("POST")
async def translations(request: HttpRequest) -> HttpResponseBase:
    return await _answer(request, TranslationRequest)


async def _answer(request: HttpRequest, kind: type[TranscriptionRequest]) -> HttpResponseBase:
    """Answer with the text, when it is done or as it is decoded. The job goes on if the client disconnects."""
    form, job_id = await sync_to_async(_submit)(request, kind)
    answer: HttpResponseBase
    if form.validated_data["stream"]:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        stream = _stream(job_id, translation.get_language(), is_sent_early=not form.job_parameters.get("improve"))
        answer = StreamingHttpResponse(stream, content_type="text/event-stream; charset=utf-8", headers=headers)
    else:
        answer = await _wait(job_id, form)
    answer["X-Job-Id"] = str(job_id)
    return answer


async def _wait(job_id: UUID, form: TranscriptionRequest) -> HttpResponse:
    try:
        job = await jobs.wait(job_id)
    except Job.DoesNotExist:
        job = None
    if (failure := _failure(job)) is not None:
        return failure.answer
    return await sync_to_async(_transcribed)(cast(Job, job), form)


def _failure(job: Job | None) -> OpenAIError | None:
    """The error for a job that has ended without its text; None for one that is done."""
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
    # Final, because the queue has already retried what may pass by itself.
    return OpenAIError(500, job.error_message, code=job.error_code, is_final=True)


def _transcribed(job: Job, form: TranscriptionRequest) -> HttpResponse:
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
    language = job.answered_language or ""
    body: dict[str, Any] = {
        "task": options.task,
        "language": "english" if options.task == "translate" and language else LANGUAGES.get(language, language),
        "duration": job.recording.duration or 0.0,
        "text": job.text,
        "usage": _usage(job),
    }
    if "segment" in granularities:
        body["segments"] = [{"id": index, **segment.to_json()} for index, segment in enumerate(segments)]
        for segment_body in body["segments"]:
            del segment_body["words"]  # they have their own list
            if not options.multilingual:  # otherwise OpenAI's fields alone
                del segment_body["language"]
    if "word" in granularities:
        words = [word for segment in segments for word in segment.words or ()]
        body["words"] = [{"word": word.word.strip(), "start": word.start, "end": word.end} for word in words]
    return cast(dict[str, Any], finite(body))


def _usage(job: Job) -> dict[str, Any]:
    return {"type": "duration", "seconds": job.recording.duration or 0.0}


# ------------------------------------------------------------------ stream=true


class Increments:
    """Splits a text that comes in parts into increments, which joined are the stripped text."""

    def __init__(self) -> None:
        self.whole = ""
        self._trailing_space = ""  # sent only if more text follows

    def of(self, part: str) -> str:
        """The increment that a part adds; it may be empty."""
        part = self._trailing_space + part if self.whole else part.lstrip()
        added = part.rstrip()
        self._trailing_space = part[len(added) :]
        self.whole += added
        return added


class SentSegments:
    """Which of a job's segments a stream has sent."""

    def __init__(self) -> None:
        self.segments: set[int] = set()
        self.since = 0.0  # the start of the last one, before which none is looked for until all are stored
        self._channel: int | None = None

    def note(self, segment: int, start: float) -> None:
        self.segments.add(segment)
        self.since = start

    def follow(self, channel: int, text: str) -> str:
        """A segment's text as it follows what was sent."""
        before, self._channel = self._channel, channel if text.strip() else self._channel
        return edits.following(before, channel, text)


async def _stream(job_id: UUID, language: str | None, *, is_sent_early: bool = True) -> AsyncIterator[str]:
    """The text of a job in the order of the recording: as it is stored, or once the job has ended."""
    text, sent, snapshot = Increments(), SentSegments(), cast(Snapshot | None, None)
    async with watching(job_id) as watched:
        while snapshot is None or not snapshot.is_over:
            before, snapshot = snapshot, await watched.after(snapshot, within=SILENCE_SECONDS)
            if snapshot is None or snapshot is before:
                yield PING
                continue
            if not (is_sent_early or snapshot.is_over):
                continue  # a language model will change the text
            for channel, segment_text in await sync_to_async(_after)(sent, job_id):
                if delta := text.of(sent.follow(channel, segment_text)):
                    yield _event({"type": "transcript.text.delta", "delta": delta})
    with translation.override(language):
        failure = _failure(snapshot.job)
    # A passage that was decoded again came after later ones; here it is in its place.
    whole = text.whole if failure else await sync_to_async(_text)(job_id)
    yield _event(failure.body if failure else {"type": "transcript.text.done", "text": whole})


def _text(job_id: UUID) -> str:
    try:
        return Job.objects.filter(pk=job_id).values_list("text", flat=True).first() or ""
    finally:
        close_old_connections()


def _after(sent: SentSegments, job_id: UUID) -> list[tuple[int, str]]:
    """The channels and the texts of more segments that are final in order, and note them as sent.

    These are the segments that begin before anything that may still come: before the sections that nobody has begun,
    and before the newest segments of the others. In two channels sections overlap.
    """
    try:
        # The sections are read before their segments, so that no segment of a done section is missing.
        sections = Section.objects.filter(job_id=job_id)
        last_start = Segment.objects.filter(section=OuterRef("pk")).order_by("-start").values("start")[:1]
        unfinished = sections.exclude(status=Section.Status.DONE)
        reached = unfinished.annotate(reached=Coalesce(Subquery(last_start), "start")).aggregate(first=Min("reached"))
        stored = Segment.objects.filter(job_id=job_id).order_by(*BY_TIME)
        if reached["first"] is not None:
            stored = stored.filter(start__gte=sent.since, start__lte=reached["first"])
        elif not sections.exists():
            return []
        reads = Coalesce("edited_text", "improved_text", "text")
        rows = stored.values_list("pk", "start", "section__channel", reads)
        new = [(pk, start, channel, text) for pk, start, channel, text in rows if pk not in sent.segments]
        for pk, start, _channel, _text in new:
            sent.note(pk, start)
        return [(channel, text) for _pk, _start, channel, text in new]
    finally:
        close_old_connections()  # the stream goes on to wait, possibly for hours, and must hold no connection


def _event(content: dict[str, Any]) -> str:
    # json.dumps escapes every line end, so no text can end the event early.
    return f"data: {json.dumps(finite(content), ensure_ascii=False, allow_nan=False)}\n\n"


# ------------------------------------------------------------------ GET /v1/models


@openai_endpoint("GET")
def models(request: HttpRequest) -> HttpResponse:
    return Json({"object": "list", "data": _models()})


@openai_endpoint("GET")
def model(request: HttpRequest, name: str) -> HttpResponse:
    """Any model that a request may name, also one that would have to be fetched first."""
    try:
        catalogue.canonical(name)
    except errors.UnknownModel as error:
        raise OpenAIError(404, sentences.describe(error), param="model", code=MODEL_NOT_FOUND) from error
    return Json(next((known for known in _models() if known["id"] == name), _model_body(name, 0)))


def _models() -> list[dict[str, Any]]:
    here = {local.name: int(local.path.stat().st_mtime) for local in catalogue.local_models()}
    return [_model_body(name, here.get(name, 0)) for name in (*here, *filter(None, catalogue.DEFAULT_NAMES))]


def _model_body(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": OWNED_BY}


# Without a slash at the end, as at OpenAI, and without redirects.
urlpatterns = [
    path("audio/transcriptions", transcriptions),
    path("audio/translations", translations),
    path("models", models),
    re_path(r"^models/(?P<name>.+)$", model),
]
