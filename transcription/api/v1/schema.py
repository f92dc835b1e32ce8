"""The native API as OpenAPI 3.1: the requests and responses of each call, with examples.

It lists every response that a call can give; a test sends generated requests and checks each response against it. The
parameters of a transcription come from their table (`parameters.py`), the bodies of responses from the serializers.
"""

from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings
from django.urls import reverse
from drf_spectacular.extensions import (
    OpenApiAuthenticationExtension,
    OpenApiSerializerExtension,
    OpenApiSerializerFieldExtension,
)
from drf_spectacular.helpers import forced_singular_serializer
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    inline_serializer,
)
from rest_framework import serializers

from transcription import parameters
from transcription.api.serializers import LONGEST_TAG, MOST_TAGS, JobChanges, JobInList, JobSerializer, NewJobRequest
from transcription.api.v1 import (
    batches,
    jobs,
    models,
    overview,
    recordings,
    segments,
    shares,
    tokens,
    uploads,
    webhooks,
)
from transcription.api.v1.base import PageQuestion
from transcription.text import exports

Schema = dict[str, Any]

# ------------------------------------------------------------------ refusals

REFUSAL: Schema = {
    "type": "object",
    "properties": {"detail": {"type": "string", "description": "A sentence that says what to do."}},
    "required": ["detail"],
}
REFUSAL_BY_FIELD: Schema = {
    "type": "object",
    "description": "By the name of each field at fault, what is allowed there; `detail` for the request as a whole.",
    "additionalProperties": True,
}


def _refusal(message: str, example: str, schema: Schema | None = None) -> OpenApiResponse:
    value: object = {"detail": example}
    return OpenApiResponse(schema or REFUSAL, message, examples=[OpenApiExample("sentence", value)])


BAD = OpenApiResponse(
    REFUSAL_BY_FIELD,
    "Something in the request is not as it must be.",
    examples=[OpenApiExample("sentence", {"beam_size": ["`beam_size` is a whole number from 1 to 16."]})],
)
EVERYWHERE = {
    401: _refusal("No key, or one that does not work.", "Send your key in the header X-API-Key."),
    403: _refusal("The key or its user may not do this.", "This key may only read."),
    406: _refusal("The answer cannot have the form that `Accept` asks for.", "Could not satisfy the request."),
    429: _refusal("Too many wrong keys, jobs or uploads: `Retry-After` says when to come again.", "Try again later."),
}
MISSING = _refusal("There is no such thing, or it belongs to another.", "There is no such job.")
CONFLICT = _refusal("Not as things stand now; the sentence says why.", "The job has ended: there is nothing to cancel.")
UNREADABLE = _refusal("The body is of a type that is not read here.", 'Unsupported media type "text/plain".')
TOO_LARGE = _refusal("The body is too large.", "This address takes at most 1.0 MB.")
UPLOADING = {
    408: _refusal("Nothing came for a minute.", "Nothing came for 60 seconds, so the upload was ended. Send it again."),
    413: _refusal("The file is too large.", "The file is over 5.0 GB. Split it."),
    503: _refusal("Too many uploads are under way.", "Try again in 10 seconds."),
    507: _refusal("The disk is full.", "This machine's disk lacks space. Free some and try again."),
}


# ------------------------------------------------------------------ the parameters of a transcription


def of_kind(kind: parameters.ParameterType) -> Schema:
    """The JSON Schema of a kind of parameter."""
    match kind:
        case parameters.Boolean():
            return {"type": "boolean"}
        case parameters.Choice(names=names):
            return {"type": "string", "enum": list(names)}
        case parameters.Text(longest=longest):
            return {"type": "string", "minLength": 1, "maxLength": longest}
        case parameters.NumberOrOff(low=low, high=high):
            return {"type": ["number", "null"], "minimum": low, "maximum": high}
        case parameters.Number(low=low, high=high):
            return {"type": "number", "minimum": low, "maximum": high}
        case parameters.NumberAbove(low=low, high=high):
            return {"type": "number", "exclusiveMinimum": low, "maximum": high}
        case parameters.Integer(low=low, high=high):
            return {"type": "integer", "minimum": low, "maximum": high}
        case parameters.AnyNumberOrOff():
            return {"type": ["number", "null"]}
        case parameters.TrackChoice(most=most):
            return {"oneOf": [{"type": "integer", "minimum": 1, "maximum": most}, {"type": "string"}]}
        case parameters.ChannelChoice(most=most):
            number = {"type": "integer", "minimum": 1, "maximum": most}
            return {"oneOf": [number, {"type": "string", "enum": ["mix", "separate"]}]}
        case parameters.Temperatures(most=most):
            one = {"type": "number", "minimum": 0, "maximum": 1}
            return {"oneOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": most}]}
        case _:  # languages, clips, tokens: each is a text with a form of its own
            return {"type": "string"}


class ParametersExtension(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """The schema of a request that has the parameters of the table beside its own fields."""

    target_class = "transcription.api.serializers.ParametersRequest"
    match_subclasses = True

    def map_serializer(self, auto_schema: AutoSchema, direction: str) -> Schema:
        named = {parameter.name: parameter for parameter in parameters.PARAMETERS}
        properties: Schema = {}
        for name, field in self.target.fields.items():
            if name in named:
                properties[name] = {**of_kind(named[name].kind), "description": named[name].help}
            else:
                own = OWN_FIELDS.get(name)
                properties[name] = own or auto_schema._map_serializer_field(field, direction)  # type: ignore[no-untyped-call]
        return {"type": "object", "properties": properties}


class TagsExtension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    target_class = "transcription.api.serializers.TagsField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: str) -> Schema:
        return {"type": "array", "items": {"type": "string", "maxLength": LONGEST_TAG}, "maxItems": MOST_TAGS}


BINARY: Schema = {"type": "string", "format": "binary"}
UUID: Schema = {"type": "string", "format": "uuid"}
OWN_FIELDS: dict[str, Schema] = {
    "file": {**BINARY, "description": "The recording. One of `file`, `upload` and `recording`."},
    "upload": {**UUID, "description": "The id of a complete upload in chunks."},
    "recording": {**UUID, "description": "The id of a recording that is here: a new transcript beside the others."},
    "batch": {**UUID, "description": "The id of a batch to put the job into."},
    "model": {"type": "string", "default": "auto", "description": "A model by any of its names; `auto`: the default."},
    "tags": {"type": "string", "description": "Words to sort by, with commas between them; in JSON also a list."},
    "callback_url": {"type": "string", "description": "An address to tell of the job's end."},
}


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "transcription.api.authentication.TokenAuthentication"
    name = ("bearer", "X-API-Key")  # type: ignore[assignment]

    def get_security_definition(self, auto_schema: AutoSchema) -> Any:
        return [
            {"type": "http", "scheme": "bearer", "description": "Also as `Authorization: Token …`."},
            {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        ]


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "transcription.api.authentication.SessionAuthentication"
    name = "cookieAuth"

    def get_security_definition(self, auto_schema: AutoSchema) -> Any:
        return {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME}


# ------------------------------------------------------------------ examples

A_JOB_ID = "5f0c1b5e-6c1c-4b0c-9a53-6d1d2f5c9f11"
A_JOB: dict[str, Any] = {
    "id": A_JOB_ID,
    "name": "lecture.mp3",
    "status": "transcribing",
    "progress": 0.42,
    "queue_position": 0,
    "eta_seconds": 95.0,
    "waiting_for": None,
    "model": "large-v3-turbo",
    "track": 1,
    "language": "ru",
    "language_probability": 0.99,
    "priority": "normal",
    "duration": 5400.3,
    "created_at": "2026-11-21T09:30:00Z",
    "processing_seconds": 61.5,
    "engine": "faster-whisper",
    "device": "cuda:0",
    "error": None,
    "warnings": [],
    "tags": ["maths"],
    "batch": None,
}
JOB = OpenApiResponse(JobSerializer, "The job.", examples=[OpenApiExample("half done", A_JOB)])
ACCEPTED = OpenApiResponse(
    JobSerializer,
    "The job is stored and waits for its turn; `Location` and `X-Job-Id` name it.",
    examples=[OpenApiExample("queued", {**A_JOB, "status": "queued", "progress": 0, "queue_position": 3})],
)
GONE = OpenApiResponse(None, "Done; there is nothing to say.")
KEY_HEADER = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="A request that comes once more with its key within 24 hours gets the job that it got the first time.",
)
EXTENSIONS = [*exports.FORMATS, "json"]
KINDS = [export.content_type.partition(";")[0] for export in exports.FORMATS.values()]


def _query(question: type[serializers.Serializer[Any]]) -> list[OpenApiParameter]:
    """The parameters of a query string, as its serializer defines them."""
    described = []
    for name, field in question().fields.items():
        kind: Any = str
        if isinstance(field, serializers.IntegerField):
            bounds = {"minimum": field.min_value, "maximum": field.max_value}
            kind = {"type": "integer", **{bound: value for bound, value in bounds.items() if value is not None}}
        elif isinstance(field, serializers.UUIDField):
            kind = OpenApiTypes.UUID
        elif isinstance(field, serializers.BooleanField):
            kind = bool
        enum = list(field.choices) if isinstance(field, serializers.ChoiceField) else None
        described.append(OpenApiParameter(name, kind, enum=enum, description=ABOUT.get(name, "")))
    return described


ABOUT = {
    "status": "A status, or several with commas.",
    "model": "A model by any of its names.",
    "language": "A language by its code or name.",
    "search": "Words that the name, the notes or the text have, each of them.",
    "tag": "A tag; several times for jobs that have all of them.",
    "batch": "The jobs of a batch.",
    "recording": "The jobs of a recording.",
    "created_after": "A day or a moment, from which on.",
    "created_before": "A day or a moment, until before which.",
    "ordering": "The order; a minus turns it round.",
    "page_size": "How many at most.",
    "cursor": "Where the page begins: from `next` or `previous` of another.",
    "offset": "How many to leave out at the beginning.",
    "formats": "Formats with commas.",
    "partial": "What there is so far of a job that still runs.",
}


def _call(
    request: Any = None, responses: Mapping[Any, Any] | None = None, *, may_be_bad: bool = False, **more: Any
) -> Any:
    """The description of a call. Errors that every call may give, or every call with a body, are added here."""
    errors = {400: BAD, 413: TOO_LARGE, 415: UNREADABLE} if request is not None else {400: BAD} if may_be_bad else {}
    return extend_schema(request=request, responses={**EVERYWHERE, **errors, **(responses or {})}, **more)


def _on(view: type[Any], **calls: Callable[[Any], Any]) -> None:
    """Attach the descriptions of a view's calls to its methods."""
    for name, describe_call in calls.items():
        setattr(view, name, describe_call(getattr(view, name)))


def _as_json(serializer: Any) -> dict[str, Any]:
    return {"application/json": serializer}


def _object(component: str, /, **fields: Any) -> Any:
    """A response that is one object, also where the method is named `list`."""
    return forced_singular_serializer(type(inline_serializer(component, fields)))()  # type: ignore[no-untyped-call]


def _header(name: str, schema: Schema) -> OpenApiParameter:
    return OpenApiParameter(name, schema, OpenApiParameter.HEADER, required=True)


def _file(message: str) -> OpenApiResponse:
    return OpenApiResponse(BINARY, message)


FOUND = {404: MISSING}
NUMBERS = serializers.DictField(child=serializers.IntegerField())
FIGURES = _object(
    "Figures",
    jobs=NUMBERS,
    models=NUMBERS,
    languages=NUMBERS,
    recorded_seconds=serializers.FloatField(),
    processing_seconds=serializers.FloatField(),
)
MODEL = _object(
    "Model",
    name=serializers.CharField(),
    aliases=serializers.ListField(child=serializers.CharField()),
    engine=serializers.CharField(allow_null=True),
    state=serializers.CharField(),
    progress=serializers.FloatField(),
    size_bytes=serializers.IntegerField(allow_null=True),
    default=serializers.BooleanField(),
    verified=serializers.BooleanField(allow_null=True),
    error=serializers.DictField(allow_null=True),
)
WEBHOOK = _object("Webhook", url=serializers.CharField(allow_null=True), secret=serializers.CharField(allow_null=True))
NEW_SHARE = _object("NewlyMadeShare", **shares.ShareSerializer().fields, url=serializers.URLField())
NEW_KEY = _object("NewlyMadeToken", **tokens.TokenSerializer().fields, key=serializers.CharField())


def describe() -> None:
    """Attach a description to each call of each view."""
    in_form = {"multipart/form-data": NewJobRequest, "application/json": NewJobRequest}
    many = {"multipart/form-data": batches.BatchRequest, "application/json": batches.BatchRequest}
    page = _query(PageQuestion)
    _on(
        jobs.JobViewSet,
        list=_call(None, {200: JobInList(many=True), **FOUND}, may_be_bad=True, parameters=_query(jobs.JobsQuestion)),
        create=_call(in_form, {202: ACCEPTED, 409: CONFLICT, 422: REUSED, **UPLOADING}, parameters=[KEY_HEADER]),
        retrieve=_call(None, {200: JOB, **FOUND}),
        partial_update=_call(_as_json(JobChanges), {200: JOB, **FOUND}),
        destroy=_call(None, {204: GONE, **FOUND}),
        cancel=_call(None, {200: JOB, 409: CONFLICT, **FOUND}),
        retry=_call(None, {200: JOB, 409: CONFLICT, **FOUND}),
        peaks=_call(None, {200: PEAKS, 409: CONFLICT, **FOUND}),
        transcript=_call(
            None,
            {
                **{(200, kind): _file("The transcript in the format.") for kind in KINDS},
                (200, "application/json"): {"type": "object", "additionalProperties": True},
                409: CONFLICT,
                **FOUND,
            },
            operation_id="jobs_transcript",
            parameters=[
                OpenApiParameter("extension", str, OpenApiParameter.PATH, enum=EXTENSIONS),
                OpenApiParameter("partial", bool, description=ABOUT["partial"]),
            ],
        ),
    )
    _on(
        segments.SegmentViewSet,
        list=_call(
            None,
            {200: SEGMENTS, **FOUND},
            may_be_bad=True,
            parameters=_query(segments.SegmentsQuestion),
        ),
        partial_update=_call(_as_json(segments.Edit), {200: segments.SegmentSerializer, 409: CONFLICT, **FOUND}),
    )
    _on(
        shares.ShareViewSet,
        list=_call(None, {200: _object("Shares", results=shares.ShareSerializer(many=True)), **FOUND}),
        create=_call(_as_json(shares.NewShare), {201: NEW_SHARE, **FOUND}),
        destroy=_call(None, {204: GONE, **FOUND}),
    )
    _on(
        batches.BatchViewSet,
        list=_call(None, {200: batches.BatchSerializer(many=True), **FOUND}, may_be_bad=True, parameters=page),
        create=_call(many, {201: batches.BatchSerializer, 202: batches.BatchSerializer, **UPLOADING}),
        retrieve=_call(None, {200: batches.BatchSerializer, **FOUND}),
        archive=_call(
            None,
            {(200, "application/zip"): _file("The transcripts, a file a job and format."), 409: CONFLICT, **FOUND},
            may_be_bad=True,
            parameters=_query(batches.ArchiveQuestion),
        ),
    )
    _on(
        recordings.RecordingViewSet,
        list=_call(None, {200: recordings.RecordingSerializer(many=True), **FOUND}, may_be_bad=True, parameters=page),
        retrieve=_call(None, {200: recordings.RecordingSerializer, **FOUND}),
        destroy=_call(None, {204: GONE, **FOUND}),
    )
    _on(
        overview.WorkerViewSet,
        list=_call(None, {200: _object("Workers", results=overview.WorkerSerializer(many=True))}),
    )
    _on(
        overview.QueueViewSet,
        retrieve=_call(
            None, {200: _object("Queue", everybody=NUMBERS, own=serializers.IntegerField(), jobs=JobInList(many=True))}
        ),
    )
    _on(
        overview.StatsViewSet,
        retrieve=_call(None, {200: _object("Stats", all=FIGURES, last_30_days=FIGURES, recordings=NUMBERS)}),
    )
    _on(
        models.ModelViewSet,
        list=_call(None, {200: _object("Models", results=serializers.ListField(child=MODEL))}),
        download=_call(None, {200: MODEL, 202: MODEL, 409: CONFLICT, **FOUND}),
        destroy=_call(None, {204: GONE, 409: CONFLICT, **FOUND}),
    )
    _on(
        tokens.TokenViewSet,
        list=_call(None, {200: _object("Tokens", results=tokens.TokenSerializer(many=True))}),
        create=_call(_as_json(tokens.NewToken), {201: NEW_KEY}),
        destroy=_call(None, {204: GONE, 409: CONFLICT, **FOUND}),
    )
    _on(
        webhooks.WebhookViewSet,
        retrieve=_call(None, {200: WEBHOOK}),
        update=_call(_as_json(webhooks.WebhookRequest), {200: WEBHOOK}),
        destroy=_call(None, {204: GONE}),
        secret=_call(None, {200: WEBHOOK}),
        test=_call(None, {202: webhooks.DeliveryFacts, 409: CONFLICT}),
    )
    _on(
        webhooks.DeliveryViewSet,
        list=_call(None, {200: webhooks.DeliveryFacts(many=True), **FOUND}, may_be_bad=True, parameters=page),
        retrieve=_call(None, {200: webhooks.DeliveryFacts, **FOUND}),
        replay=_call(None, {202: webhooks.DeliveryFacts, 409: CONFLICT, **FOUND}),
    )
    length, offset = (_header(name, {"type": "integer", "minimum": 0}) for name in ("Upload-Length", "Upload-Offset"))
    resumable = _header("Tus-Resumable", {"type": "string", "enum": [uploads.VERSION]})
    wrong_version = {412: _refusal("Not in the words of tus 1.0.", "Send the header Tus-Resumable: 1.0.0.")}
    of_one = {410: _refusal("The upload has expired.", "This upload has expired. Begin it anew."), **FOUND}
    chunk = {uploads.CHUNK_TYPE: BINARY}
    _on(
        uploads.UploadViewSet,
        create=_call(
            chunk,
            {201: uploads.UploadSerializer, 409: CONFLICT, 460: WRONG_SUM, **wrong_version, **UPLOADING},
            parameters=[length, resumable],
        ),
        retrieve=_call(None, {200: uploads.UploadSerializer, **of_one}),
        add=_call(
            chunk,
            {204: GONE, 409: CONFLICT, 423: CONFLICT, 460: WRONG_SUM, **wrong_version, **of_one, **UPLOADING},
            parameters=[offset, resumable],
        ),
        destroy=_call(None, {204: GONE, **wrong_version, **of_one}, parameters=[resumable]),
    )


SEGMENTS = _object("Segments", count=serializers.IntegerField(), results=segments.SegmentSerializer(many=True))
PEAKS = _object(
    "Peaks",
    duration=serializers.FloatField(allow_null=True),
    peaks=serializers.ListField(child=serializers.FloatField()),
)
REUSED = _refusal("The Idempotency-Key is another request's.", "Send a new one.")
WRONG_SUM = _refusal("The chunk is not what its Upload-Checksum says; the offset is as it was.", "Send it again.")


def add_address(result: Schema, generator: Any, request: Any, public: bool) -> Schema:
    """A hook of drf-spectacular, which adds where this server is: the paths have no prefix."""
    if request is not None:
        # As the request came, so that a page in the private network may try the calls out.
        result["servers"] = [{"url": request.build_absolute_uri(reverse("dashboard")).rstrip("/")}]
    return result


def add_streams(result: Schema, generator: Any, request: Any, public: bool) -> Schema:
    """A hook of drf-spectacular, which adds the calls that are not DRF views."""
    job = {"name": "id", "in": "path", "required": True, "schema": UUID}
    refusal = {"description": "A refusal with a sentence.", "content": {"application/json": {"schema": REFUSAL}}}
    common = {"tags": ["jobs"], "security": [{"bearer": []}, {"X-API-Key": []}], "parameters": [job]}
    events = {"type": "string", "description": "Events `state`, `segment` (with an id) and `end`."}
    result["paths"]["/api/v1/jobs/{id}/events/"] = {
        "get": {
            **common,
            "operationId": "jobs_events",
            "description": "Server-sent events: the job's state and each segment as stored. `Last-Event-ID` goes on.",
            "responses": {
                "200": {"description": "The stream.", "content": {"text/event-stream": {"schema": events}}},
                **dict.fromkeys(("401", "403", "404"), refusal),
            },
        }
    }
    sound = {"description": "The recording's bytes.", "content": {"application/octet-stream": {"schema": BINARY}}}
    result["paths"]["/api/v1/jobs/{id}/audio/"] = {
        "get": {
            **common,
            "operationId": "jobs_audio",
            "description": "The recording, whole or the part that `Range` asks for.",
            "responses": {
                "200": sound,
                "206": sound,
                "416": {"description": "There are no such bytes."},
                **dict.fromkeys(("401", "403", "404", "410"), refusal),
            },
        }
    }
    result["paths"] = dict(sorted(result["paths"].items()))
    return result
