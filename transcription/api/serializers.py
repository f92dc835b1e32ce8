"""What a door is asked, and what it tells of a job."""

import json
import math
from typing import Any, ClassVar, Self, cast

from django.core.files.uploadedfile import UploadedFile
from django.urls import reverse
from django.utils.datastructures import MultiValueDict
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import serializers

from transcription import catalogue, errors, exports, forecast, offers
from transcription.api.errors import sentence
from transcription.forecast import Turn
from transcription.jobs import Wishes
from transcription.models import Job, Recording
from transcription.parameters import ALIASES, BY_NAME, LONGEST_ECHO, PARAMETERS, Parameter, Refused

# Parameters of the contract that nothing honours yet: better refused than silently ignored.
NOT_YET = frozenset({"callback_url", "tags", "upgrade_transcribation", "upload"})


def finite(value: Any) -> Any:
    """The value with None for every NaN and infinity in it: JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def always(said: str | Promise) -> dict[str, Any]:
    """One sentence for whatever is wrong with a field: it says what is allowed."""
    return dict.fromkeys(
        ("required", "invalid", "invalid_choice", "null", "blank", "min_value", "max_value", "max_string_length"), said
    )


class ModelField(serializers.CharField):
    """A model by any of its names; gives the one in the catalogue."""

    def to_internal_value(self, data: Any) -> str:
        try:
            canonical: str = catalogue.canonical(super().to_internal_value(data))
        except errors.UnknownModel as error:
            raise serializers.ValidationError(sentence(error)) from error
        return canonical


class ParameterField(serializers.Field[Any, Any, Any, Any]):
    """A parameter of the table; takes the list of what was sent under its name."""

    def __init__(self, parameter: Parameter) -> None:
        super().__init__(required=False)
        self.parameter = parameter

    def to_internal_value(self, data: list[Any]) -> Any:
        try:
            return self.parameter.read(data)
        except Refused as refused:
            raise serializers.ValidationError(sentence(refused)) from refused


class RecordingField(serializers.UUIDField):
    """One of the caller's recordings, by its id."""

    default_error_messages = always(
        gettext_lazy("`recording` is the id of one of your recordings, and none of them has this one.")
    )

    def to_internal_value(self, data: Any) -> Recording:  # type: ignore[override]  # the row that the id names
        key = super().to_internal_value(data)
        found = Recording.objects.for_user(self.context["owner"]).defer("peaks").filter(pk=key).first()
        if found is None:
            self.fail("invalid")
        return found


def parameters(text: str | bytes) -> MultiValueDict[str, Any]:
    """What a JSON object asks for, as a form does. Raises ValueError if it is none."""
    try:
        values = json.loads(text)
        json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair would stop the answer that repeats it
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(values, dict):
        raise ValueError("it is no object")
    return MultiValueDict({name: [value] for name, value in values.items()})


class JobRequest(serializers.Serializer[Job]):
    """The parameters of one transcription, by the contract's names and their aliases; each is honoured or refused."""

    aliases: ClassVar[dict[str, str]] = {
        "audio_file": "file",
        "model_name": "model",
        "model_size": "model",
        **ALIASES,
    }
    takes_what_nobody_honours: ClassVar[bool] = False  # with a warning

    file = serializers.FileField(
        allow_empty_file=True,  # the job says what is wrong with it, like with any other file
        error_messages=always(gettext_lazy("There is no file. Send the recording as the form field `file`.")),
    )
    model = ModelField()

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return super().get_fields() | {parameter.name: ParameterField(parameter) for parameter in PARAMETERS}

    @classmethod
    def of(cls, *sources: MultiValueDict[str, Any], **context: Any) -> Self:
        """The request that a form, its files and a query string make together."""
        sent: MultiValueDict[str, Any] = MultiValueDict()
        for source in sources:
            sent.update(source)
        return cls(data=sent, context=context)

    def to_internal_value(self, data: MultiValueDict[str, Any]) -> dict[str, Any]:
        sent = self._by_name(data)
        problems: dict[str, Any] = {name: [said] for name in sent if (said := self._refusal(name, sent[name]))}
        known = {name: values for name, values in sent.items() if name not in problems}
        try:
            accepted: dict[str, Any] = super().to_internal_value(
                {"model": "auto"}  # looked up like any other: DEFAULT_MODEL may name one that is not there
                | {name: values if name in BY_NAME else values[0] for name, values in known.items()}
            )
        except serializers.ValidationError as error:
            problems = {**cast(dict[str, Any], error.detail), **problems}
        if problems:
            raise serializers.ValidationError(problems)
        return accepted

    def _by_name(self, data: MultiValueDict[str, Any]) -> dict[str, list[Any]]:
        """What was sent under each parameter's own name; what is empty was not sent."""
        sent: dict[str, list[Any]] = {}
        for name, values in data.lists():
            given = [value for value in values if value is not None and not _is_blank(value)]
            if given and name != "csrfmiddlewaretoken":
                sent.setdefault(self.aliases.get(name, name), []).extend(given)
        return sent

    def _refusal(self, name: str, values: list[Any]) -> str:
        if name in NOT_YET:
            return _("`%(name)s` is not available yet.") % {"name": name}
        if name not in self.fields:
            return _("There is no parameter `%(name)s`.") % {"name": name[:LONGEST_ECHO]}
        takes_several = name in BY_NAME and BY_NAME[name].kind.takes_several
        if not takes_several and any(value != values[0] for value in values):
            return _("`%(name)s` is given more than once.") % {"name": name}
        return ""

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        try:
            choice = offers.choose(attrs, model=attrs["model"])
        except Refused as refused:
            raise serializers.ValidationError({refused.name: [sentence(refused)]}) from refused
        if choice.refused and not self.takes_what_nobody_honours:
            raise serializers.ValidationError({name: [sentence(why)] for name, why in choice.refused.items()})
        return {**attrs, "choice": choice}

    @property
    def upload(self) -> UploadedFile:
        upload: UploadedFile = self.validated_data["file"]
        return upload

    @property
    def wishes(self) -> Wishes:
        """What `jobs.submit` takes beside the file and its owner, `jobs.again` beside the recording."""
        choice: offers.Choice = self.validated_data["choice"]
        wishes: Wishes = {
            "model": self.validated_data["model"],
            "options": choice.options,
            "engine": choice.engine,
            "device": choice.device,
            "warnings": [f"not_honoured:{name}" for name in choice.refused],
        }
        if "priority" in self.validated_data:
            wishes["priority"] = Job.Priority[self.validated_data["priority"].upper()]
        return wishes


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


class NewJobRequest(JobRequest):
    """A job's parameters, and what it is for: a file, or a recording that is here. Its context has the `owner`."""

    file = serializers.FileField(
        required=False,
        allow_empty_file=True,
        error_messages=always(gettext_lazy("`file` is a recording, sent as a form field.")),
    )
    recording = RecordingField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "file" in attrs and "recording" in attrs:
            raise serializers.ValidationError({"recording": [_("Send `file` or `recording`, not both.")]})
        if "file" not in attrs and "recording" not in attrs:
            said = _("There is no recording. Send a file as `file`, or the id of one of yours as `recording`.")
            raise serializers.ValidationError({"file": [said]})
        return super().validate(attrs)

    @property
    def recording_here(self) -> Recording | None:
        """The recording to transcribe once more; None when a file is sent."""
        found: Recording | None = self.validated_data.get("recording")
        return found


class RecordingFacts(serializers.ModelSerializer[Recording]):
    class Meta:
        model = Recording
        fields = (
            "id", "original_name", "bytes", "sha256", "container", "codec", "sample_rate", "channels", "has_video",
            "duration",
        )  # fmt: skip


class JobInList(serializers.ModelSerializer[Job]):
    """A job without its text, which may be a book."""

    duration = serializers.FloatField(source="recording.duration")
    recording = RecordingFacts()
    priority = serializers.SerializerMethodField()
    queue_position = serializers.SerializerMethodField()
    eta_seconds = serializers.SerializerMethodField()
    waiting_for = serializers.SerializerMethodField()
    error = serializers.SerializerMethodField()
    links = serializers.SerializerMethodField()

    class Meta:
        model = Job
        fields: tuple[str, ...] = (
            "id", "name", "status", "progress", "queue_position", "eta_seconds", "waiting_for",
            "model", "language", "language_probability", "options", "priority",
            "duration", "recording",
            "created_at", "preparing_at", "transcribing_at", "finishing_at", "finished_at", "processing_seconds",
            "engine", "device", "versions",
            "error", "warnings", "links",
        )  # fmt: skip

    def get_priority(self, job: Job) -> str:
        return Job.Priority(job.priority).name.lower()

    def get_queue_position(self, job: Job) -> int | None:
        """From 1; 0 for what has begun, null for what has ended or waits for something else than its turn."""
        turn = _turn(job)
        return None if turn is None else turn.position

    def get_eta_seconds(self, job: Job) -> float | None:
        """Seconds until it is done, or null when nobody can know."""
        turn = _turn(job)
        return None if turn is None or turn.seconds is None else round(turn.seconds, 1)

    def get_waiting_for(self, job: Job) -> dict[str, str] | None:
        return {"code": job.waiting_for, "message": job.waiting_message} if job.waiting_message else None

    def get_error(self, job: Job) -> dict[str, object] | None:
        if job.problem is None:
            return None
        return {"code": job.error_code, "message": job.error_message, "retryable": job.problem.retryable}

    def get_links(self, job: Job) -> dict[str, object]:
        return {
            "self": reverse("api:job", args=(job.pk,)),
            "audio": reverse("api:audio", args=(job.pk,)),
            "transcript": {
                format: reverse("api:transcript", args=(job.pk, format)) for format in (*exports.FORMATS, "json")
            },
        }

    def to_representation(self, instance: Job) -> dict[str, Any]:
        representation: dict[str, Any] = finite(super().to_representation(instance))
        return representation


def _turn(job: Job) -> Turn | None:
    return None if job.is_ended else forecast.latest().get(job.pk)


class JobSerializer(JobInList):
    class Meta(JobInList.Meta):
        fields = (*JobInList.Meta.fields, "text")
