"""What a request for a transcription may hold, and what the API says of a job."""

import json
import math
import unicodedata
from typing import Any, ClassVar, Self, TypedDict, cast

from django.conf import settings
from django.urls import reverse
from django.utils import timezone
from django.utils.datastructures import MultiValueDict
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import serializers

from transcription import capabilities, errors, sentences, webhooks
from transcription.jobs import JobParameters, StoredFile
from transcription.models import Batch, Job, Recording, Upload
from transcription.parameters import ALIASES, BY_NAME, LONGEST_ECHO, PARAMETERS, InvalidParameter, Parameter
from transcription.queue import forecast
from transcription.queue.forecast import Forecast
from transcription.text import exports
from transcription.weights import catalogue

MOST_TAGS, LONGEST_TAG = 20, 50


def finite(value: Any) -> Any:
    """The value with None in place of every NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, or text of spaces."""
    return value is None or (isinstance(value, str) and not value.strip())


def always(sentence: str | Promise) -> dict[str, Any]:
    """A field's error messages: whatever is wrong with it, one sentence that says what is allowed."""
    return dict.fromkeys(
        ("required", "invalid", "invalid_choice", "null", "blank", "min_value", "max_value", "max_string_length"),
        sentence,
    )


class ModelField(serializers.CharField):
    """A model by any of its names; the value is its name in the catalogue."""

    def to_internal_value(self, data: Any) -> str:
        try:
            canonical: str = catalogue.canonical(super().to_internal_value(data))
        except errors.UnknownModel as error:
            raise serializers.ValidationError(sentences.describe(error)) from error
        return canonical


class ParameterField(serializers.Field[Any, Any, Any, Any]):
    """A parameter of the table; it reads the list of values that were sent under its name."""

    def __init__(self, parameter: Parameter) -> None:
        super().__init__(required=False)
        self.parameter = parameter

    def to_internal_value(self, data: list[Any]) -> Any:
        try:
            return self.parameter.read(data)
        except InvalidParameter as error:
            raise serializers.ValidationError(sentences.describe(error)) from error


class RecordingField(serializers.UUIDField):
    """One of the caller's recordings, by its id."""

    default_error_messages = always(
        gettext_lazy("`recording` is the id of one of your recordings, and none of them has this one.")
    )

    def to_internal_value(self, data: Any) -> Recording:  # type: ignore[override]  # the row that the id names
        key = super().to_internal_value(data)
        recording = Recording.objects.for_user(self.context["owner"]).defer("peaks").filter(pk=key).first()
        if recording is None:
            self.fail("invalid")
        return recording


class WebAddressField(serializers.CharField):
    """An address that this server may send messages to."""

    default_error_messages = always(gettext_lazy("Give a web address, such as https://example.org/hook."))

    def to_internal_value(self, data: Any) -> str:
        url = super().to_internal_value(data)
        try:
            webhooks.check(url, name=str(self.field_name))
        except InvalidParameter as error:
            raise serializers.ValidationError(sentences.describe(error)) from error
        return url


class UploadField(serializers.UUIDField):
    """One of the caller's uploads in chunks that is complete, by its id."""

    default_error_messages = always(
        gettext_lazy("`upload` is the id of one of your uploads that no job has yet, and none of them has this one.")
    )

    def to_internal_value(self, data: Any) -> Upload:  # type: ignore[override]  # the row that the id names
        key = super().to_internal_value(data)
        own = Upload.objects.for_user(self.context["owner"])
        upload = own.filter(pk=key, expires_at__gt=timezone.now()).first()
        if upload is None:
            self.fail("invalid")
        if not upload.is_complete:
            raise serializers.ValidationError(
                _("The upload is not complete: %(offset)s of its %(bytes)s bytes are here. Go on with it.")
                % {"offset": upload.offset, "bytes": upload.bytes}
            )
        return upload


class BatchField(serializers.UUIDField):
    """One of the caller's batches, by its id."""

    default_error_messages = always(gettext_lazy("`batch` is the id of one of your batches, and none has this one."))

    def to_internal_value(self, data: Any) -> Batch:  # type: ignore[override]  # the row that the id names
        batch = Batch.objects.for_user(self.context["owner"]).filter(pk=super().to_internal_value(data)).first()
        if batch is None:
            self.fail("invalid")
        return batch


class TagsField(serializers.Field[Any, Any, Any, Any]):
    """A job's tags: a list, or words with commas between them."""

    default_error_messages = always(
        gettext_lazy("`tags` are at most 20 words or phrases of at most 50 characters, with commas between them.")
    )

    def to_internal_value(self, data: Any) -> list[str]:
        values = data if isinstance(data, list) else [data]
        flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
        if not all(isinstance(item, str) for item in flat):
            self.fail("invalid")
        words = [" ".join(without_controls(word).split()) for item in flat for word in item.split(",")]
        tags = list(dict.fromkeys(word for word in words if word))
        if len(tags) > MOST_TAGS or any(len(tag) > LONGEST_TAG for tag in tags):
            self.fail("invalid")
        return tags


def without_controls(text: str) -> str:
    """A text without control characters, except line ends, and without lone surrogates."""
    return "".join(letter for letter in text if letter == "\n" or unicodedata.category(letter) not in ("Cc", "Cs"))


def parameters(text: str | bytes) -> MultiValueDict[str, Any]:
    """The values of a JSON object, as if they came in a form. Raises ValueError if it is no object."""
    try:
        values = json.loads(text)
        json.dumps(values, ensure_ascii=False).encode()  # a lone surrogate would break the answer that repeats it
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(values, dict):
        raise ValueError("it is no object")
    return MultiValueDict({name: [value] for name, value in values.items()})


class ParametersRequest(serializers.Serializer[Job]):
    """The parameters of a transcription, by their names and aliases; each is honoured or refused."""

    aliases: ClassVar[dict[str, str]] = {
        "audio_file": "file",
        "model_name": "model",
        "model_size": "model",
        **ALIASES,
    }
    ignores_unsupported: ClassVar[bool] = False  # what no engine here honours becomes a warning
    several: ClassVar[frozenset[str]] = frozenset()  # other fields that may be given more than once

    model = ModelField()
    callback_url = WebAddressField(required=False)

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return super().get_fields() | {parameter.name: ParameterField(parameter) for parameter in PARAMETERS}

    @classmethod
    def of(cls, *sources: MultiValueDict[str, Any], **context: Any) -> Self:
        """The request that a form, its files and a query string make together. `context` is DRF's."""
        sent: MultiValueDict[str, Any] = MultiValueDict()
        for source in sources:
            sent.update(source)
        return cls(data=sent, context=context)

    def to_internal_value(self, data: MultiValueDict[str, Any]) -> dict[str, Any]:
        sent = self._by_name(data)
        problems: dict[str, Any] = {name: [why] for name in sent if (why := self._refusal(name, sent[name]))}
        known = {name: values for name, values in sent.items() if name not in problems}
        try:
            accepted: dict[str, Any] = super().to_internal_value(
                {"model": "auto"}  # looked up like any other: DEFAULT_MODEL may name a model that does not exist
                | {name: values if name in {*BY_NAME, *self.several} else values[0] for name, values in known.items()}
            )
        except serializers.ValidationError as error:
            problems = {**cast(dict[str, Any], error.detail), **problems}
        if problems:
            raise serializers.ValidationError(problems)
        return accepted

    def _by_name(self, data: MultiValueDict[str, Any]) -> dict[str, list[Any]]:
        """The values that were sent, by each parameter's own name; an empty value counts as not sent.

        An empty value of a threshold turns it off.
        """
        sent: dict[str, list[Any]] = {}
        for written, values in data.lists():
            name = self.aliases.get(written, written)
            takes_nothing = name in BY_NAME and BY_NAME[name].kind.takes_nothing
            given = [value for value in values if takes_nothing or not is_empty(value)]
            if given and name != "csrfmiddlewaretoken":
                sent.setdefault(name, []).extend(given)
        return sent

    def _refusal(self, name: str, values: list[Any]) -> str:
        """Why a name is not accepted, or is not accepted several times; empty if it is."""
        if name not in self.fields:
            return _("There is no parameter `%(name)s`.") % {"name": name[:LONGEST_ECHO]}
        takes_several = name in self.several or (name in BY_NAME and BY_NAME[name].kind.takes_several)
        if not takes_several and any(value != values[0] for value in values):
            return _("`%(name)s` is given more than once.") % {"name": name}
        return ""

    def validate_upgrade_transcribation(self, value: bool) -> bool:
        if value and not settings.LLM_BASE_URL:
            message = _("There is no language model here. Leave `%(name)s` out, or ask the administrator for one.")
            raise serializers.ValidationError(message % {"name": "upgrade_transcribation"})
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        try:
            choice = capabilities.choose(attrs, model=attrs["model"])
        except InvalidParameter as error:
            raise serializers.ValidationError({error.name: [sentences.describe(error)]}) from error
        if choice.refused and not self.ignores_unsupported:
            raise serializers.ValidationError({name: [sentences.describe(why)] for name, why in choice.refused.items()})
        return {**attrs, "choice": choice}

    @property
    def job_parameters(self) -> JobParameters:
        """The arguments of `jobs.submit` and `jobs.again` beside the file, the recording and the owner."""
        values = self.validated_data
        choice: capabilities.Choice = values["choice"]
        job_parameters: JobParameters = {
            "model": values["model"],
            "options": choice.options,
            "engine": choice.engine,
            "device": choice.device,
            "warnings": [f"not_honoured:{name}" for name in choice.refused],
        }
        if "priority" in values:
            job_parameters["priority"] = Job.Priority[values["priority"].upper()]
        if "upgrade_transcribation" in values:
            job_parameters["improve"] = values["upgrade_transcribation"]
        if "tags" in values:
            job_parameters["tags"] = values["tags"]
        if "batch" in values:
            job_parameters["batch"] = values["batch"]
        if "callback_url" in values:
            job_parameters["callback_url"] = values["callback_url"]
        return job_parameters


class JobRequest(ParametersRequest):
    """A transcription's parameters, and its recording as a file."""

    file = serializers.FileField(
        allow_empty_file=True,  # the job says what is wrong with it, as with any other file
        error_messages=always(gettext_lazy("There is no file. Send the recording as the form field `file`.")),
    )

    @property
    def upload(self) -> StoredFile:
        upload: StoredFile = self.validated_data["file"]
        return upload


class NewJobRequest(JobRequest):
    """A job's parameters, and its sound: a file, an upload in chunks, or one of the owner's recordings.

    Its context has the `owner`.
    """

    file = serializers.FileField(
        required=False,
        allow_empty_file=True,
        error_messages=always(gettext_lazy("`file` is a recording, sent as a form field.")),
    )
    recording = RecordingField(required=False)
    tags = TagsField(required=False)
    batch = BatchField(required=False)
    several = frozenset({"tags"})

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return super().get_fields() | {"upload": UploadField(required=False)}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        given = [name for name in ("file", "upload", "recording") if name in attrs]
        if len(given) > 1:
            raise serializers.ValidationError({given[-1]: [_("Send one of `file`, `upload` and `recording`.")]})
        if not given:
            message = _(
                "There is no recording. Send a file as `file`, the id of an upload as `upload`, or the id of one of "
                "your recordings as `recording`."
            )
            raise serializers.ValidationError({"file": [message]})
        return super().validate(attrs)

    @property
    def upload(self) -> StoredFile:
        upload: StoredFile = self.validated_data.get("upload") or self.validated_data["file"]
        return upload

    @property
    def existing_recording(self) -> Recording | None:
        """The recording to transcribe once more; None if a file or an upload is sent."""
        recording: Recording | None = self.validated_data.get("recording")
        return recording


class JobChanges(serializers.Serializer[Any]):
    """What a job's owner may change; what is not sent stays as it is."""

    name = serializers.CharField(
        required=False,
        max_length=255,
        error_messages=always(gettext_lazy("`name` is a text of 1 to 255 characters.")),
    )
    notes = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=20_000,
        error_messages=always(gettext_lazy("`notes` are a text of at most 20,000 characters.")),
    )
    tags = TagsField(required=False)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise serializers.ValidationError({"detail": [_("Send a JSON object with what is to change.")]})
        for name in data:
            if name in ("speakers", "speaker_names"):
                message = _("Speakers are not told apart here yet, so they have no names.")
                raise serializers.ValidationError({name: [message]})
            if name not in self.fields:
                message = _("There is nothing named `%(name)s` to change.") % {"name": str(name)[:LONGEST_ECHO]}
                raise serializers.ValidationError({str(name)[:LONGEST_ECHO]: [message]})
        changes: dict[str, Any] = super().to_internal_value(data)
        return changes

    def validate_name(self, value: str) -> str:
        name = " ".join(without_controls(value).split())
        if not name:
            raise serializers.ValidationError(self.fields["name"].error_messages["blank"])
        return name

    def validate_notes(self, value: str) -> str:
        return without_controls(value)


class RecordingFacts(serializers.ModelSerializer[Recording]):
    class Meta:
        model = Recording
        fields: tuple[str, ...] = (
            "id", "original_name", "bytes", "sha256", "container", "codec", "sample_rate", "channels", "has_video",
            "tracks", "duration",
        )  # fmt: skip


class JobError(TypedDict):
    """Why a job failed: a code, a sentence, and whether another try can help."""

    code: str
    message: str
    retryable: bool


class WaitingFor(TypedDict):
    """What an unfinished job waits for."""

    code: str
    message: str


class JobLinks(TypedDict):
    self: str
    audio: str
    transcript: dict[str, str]  # by format


class JobInList(serializers.ModelSerializer[Job]):
    """A job without its text, which may be a book."""

    duration = serializers.FloatField(source="recording.duration", allow_null=True)
    recording = RecordingFacts()
    priority = serializers.SerializerMethodField()
    upgrade_transcribation = serializers.BooleanField(source="is_to_be_improved")
    queue_position = serializers.SerializerMethodField()
    eta_seconds = serializers.SerializerMethodField()
    waiting_for = serializers.SerializerMethodField()
    error = serializers.SerializerMethodField()
    tags = serializers.SerializerMethodField()
    links = serializers.SerializerMethodField()

    class Meta:
        model = Job
        fields: tuple[str, ...] = (
            "id", "name", "status", "progress", "queue_position", "eta_seconds", "waiting_for",
            "model", "track", "language", "language_probability", "options", "priority",
            "upgrade_transcribation",
            "duration", "recording",
            "created_at", "preparing_at", "transcribing_at", "finishing_at", "finished_at", "processing_seconds",
            "engine", "device", "versions",
            "error", "warnings", "tags", "batch", "links",
        )  # fmt: skip

    def get_priority(self, job: Job) -> str:
        return job.known_priority.name.lower()

    def get_queue_position(self, job: Job) -> int | None:
        """Its place from 1; 0 once it has begun, null if it has ended or waits for something else than its turn."""
        expected = _forecast(job)
        return None if expected is None else expected.position

    def get_eta_seconds(self, job: Job) -> float | None:
        """Seconds until it is done; null if unknown."""
        expected = _forecast(job)
        return None if expected is None or expected.seconds is None else round(expected.seconds, 1)

    def get_waiting_for(self, job: Job) -> WaitingFor | None:
        return {"code": job.waiting_for, "message": job.waiting_message} if job.waiting_message else None

    def get_error(self, job: Job) -> JobError | None:
        if job.problem is None:
            return None
        return {"code": job.error_code, "message": job.error_message, "retryable": job.problem.retryable}

    def get_tags(self, job: Job) -> list[str]:
        return [tag.name for tag in job.tags.all()]

    def get_links(self, job: Job) -> JobLinks:
        # Joined, because reversing each address would take a fifth of the time of a list.
        own = reverse("api:job", args=(job.pk,))
        transcripts = {format: f"{own}transcript.{format}" for format in (*exports.FORMATS, "json")}
        return {"self": own, "audio": f"{own}audio/", "transcript": transcripts}

    def to_representation(self, instance: Job) -> dict[str, Any]:
        representation: dict[str, Any] = finite(super().to_representation(instance))
        return representation


def _forecast(job: Job) -> Forecast | None:
    return None if job.is_ended else forecast.latest().get(job.pk)


class JobSerializer(JobInList):
    class Meta(JobInList.Meta):
        fields = (*JobInList.Meta.fields, "notes", "callback_url", "text")
