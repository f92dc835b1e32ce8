"""What a door is asked, and what it tells of a job."""

import json
import math
from collections.abc import Iterator
from typing import Any, ClassVar, Self, TypedDict, cast

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.urls import reverse
from django.utils.datastructures import MultiValueDict
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import serializers

from transcription import catalogue, errors, exports, forecast
from transcription.api.errors import sentence
from transcription.forecast import Turn
from transcription.models import Job, Recording
from transcription.whisper.options import TEMPERATURES, TranscriptionOptions, language_code

# Parameters of the contract that nothing honours yet: better refused than silently ignored.
NOT_YET = frozenset(
    """
    multilingual condition_on_previous_text carry_initial_prompt prefix hotwords best_of patience
    length_penalty top_p repetition_penalty no_repeat_ngram_size suppress_tokens suppress_blank max_length sample_len
    no_timestamps without_timestamps max_initial_timestamp compression_ratio_threshold logprob_threshold
    log_prob_threshold no_speech_threshold hallucination_silence_threshold prepend_punctuations append_punctuations
    clip_timestamps remove_silence silence_threshold silence_duration up_speed upgrade_transcribation engine
    compute_type fp16 seed device threads batch_size highlight verbose callback_url tags upload
    """.split()  # noqa: SIM905
)
MOST_TEMPERATURES = 16
# Of what somebody sent, in a sentence about it.
LONGEST_ECHO = 60


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


class LanguageField(serializers.CharField):
    """A language by its code or its name; None for `auto`, which asks for detection whatever the default is."""

    def to_internal_value(self, data: Any) -> Any:
        try:
            return language_code(super().to_internal_value(data))
        except ValueError as error:
            said = _("There is no language `%(name)s`. Write a code such as ru or en, or auto to detect it.")
            raise serializers.ValidationError(said % {"name": str(data)[:LONGEST_ECHO]}) from error


class TemperatureField(serializers.Field[tuple[float, ...], Any, Any, Any]):
    """A number, or several as a JSON list, with commas, or repeated. A 0 by itself is the whole ladder."""

    default_error_messages = always(
        gettext_lazy("`temperature` is a number from 0 to 1, or a list of at most 16 of them.")
    )

    def to_internal_value(self, data: list[Any]) -> tuple[float, ...]:
        try:
            values = [value for item in data for value in self._values(item)]
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise serializers.ValidationError(self.error_messages["invalid"]) from error
        # NaN is in no range, so it is refused here too.
        if not 0 < len(values) <= MOST_TEMPERATURES or not all(0 <= value <= 1 for value in values):
            self.fail("invalid")
        is_scalar = len(data) == 1 and not isinstance(data[0], list) and "[" not in str(data[0])
        return TEMPERATURES if is_scalar and values == [0] else tuple(values)

    def _values(self, item: Any) -> Iterator[float]:
        if isinstance(item, str):
            item = json.loads(item) if item.lstrip().startswith("[") else item.split(",")
        for value in item if isinstance(item, list) else [item]:
            if isinstance(value, bool):
                raise TypeError(value)
            yield float(value)


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


class Wishes(TypedDict):
    model: str
    options: TranscriptionOptions
    priority: Job.Priority


class JobRequest(serializers.Serializer[Job]):
    """The parameters of one transcription, by the contract's names and their aliases; each is honoured or refused."""

    aliases: ClassVar[dict[str, str]] = {
        "audio_file": "file",
        "model_name": "model",
        "model_size": "model",
        "prompt": "initial_prompt",
    }

    file = serializers.FileField(
        allow_empty_file=True,  # the job says what is wrong with it, like with any other file
        error_messages=always(gettext_lazy("There is no file. Send the recording as the form field `file`.")),
    )
    model = ModelField()
    language = LanguageField(required=False)
    task = serializers.ChoiceField(
        ("transcribe", "translate"),
        required=False,
        error_messages=always(gettext_lazy("`task` is transcribe or translate.")),
    )
    word_timestamps = serializers.BooleanField(
        required=False, error_messages=always(gettext_lazy("`word_timestamps` is true or false."))
    )
    initial_prompt = serializers.CharField(
        required=False, error_messages=always(gettext_lazy("`initial_prompt` is text."))
    )
    temperature = TemperatureField(required=False)
    beam_size = serializers.IntegerField(
        required=False,
        min_value=1,
        max_value=16,
        error_messages=always(gettext_lazy("`beam_size` is a whole number from 1 to 16.")),
    )

    vad_filter = serializers.BooleanField(
        required=False, error_messages=always(gettext_lazy("`vad_filter` is true or false."))
    )
    sections = serializers.IntegerField(
        required=False,
        min_value=1,
        max_value=999,
        error_messages=always(gettext_lazy("`sections` is a whole number from 1 to 999.")),
    )
    priority = serializers.ChoiceField(
        ("high", "normal", "low"),
        required=False,
        error_messages=always(gettext_lazy("`priority` is high, normal or low.")),
    )

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
                | {name: values if name == "temperature" else values[0] for name, values in known.items()}
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
            given = [value for value in values if value is not None and value != ""]
            if given and name != "csrfmiddlewaretoken":
                sent.setdefault(self.aliases.get(name, name), []).extend(given)
        return sent

    def _refusal(self, name: str, values: list[Any]) -> str:
        if name in NOT_YET:
            return _("`%(name)s` is not available yet.") % {"name": name}
        if name not in self.fields:
            return _("There is no parameter `%(name)s`.") % {"name": name[:LONGEST_ECHO]}
        if name != "temperature" and any(value != values[0] for value in values):
            return _("`%(name)s` is given more than once.") % {"name": name}
        return ""

    @property
    def upload(self) -> UploadedFile:
        upload: UploadedFile = self.validated_data["file"]
        return upload

    @property
    def options(self) -> TranscriptionOptions:
        """What is asked, with this installation's defaults where nothing is."""
        asked = self.validated_data
        return TranscriptionOptions(
            language=asked["language"] if "language" in asked else language_code(settings.DEFAULT_LANGUAGE),
            task=asked.get("task", settings.DEFAULT_TASK),
            word_timestamps=asked.get("word_timestamps", settings.DEFAULT_WORD_TIMESTAMPS),
            initial_prompt=asked.get("initial_prompt"),
            temperature=asked.get("temperature", TEMPERATURES),
            beam_size=asked.get("beam_size", settings.DEFAULT_BEAM_SIZE),
            vad_filter=asked.get("vad_filter", True),
            sections=asked.get("sections"),
        )

    @property
    def wishes(self) -> Wishes:
        """What `jobs.submit` takes beside the file and its owner, `jobs.again` beside the recording."""
        priority = Job.Priority[self.validated_data.get("priority", "normal").upper()]
        return {"model": self.validated_data["model"], "options": self.options, "priority": priority}


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
        return attrs

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
