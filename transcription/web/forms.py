"""Forms to sign in and to start a job."""

from dataclasses import replace
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth.forms import AuthenticationForm
from django.utils.translation import gettext_lazy as _

from transcription import capabilities, errors, sentences
from transcription.models import Job
from transcription.parameters import InvalidParameter
from transcription.templatetags.stenograf import size
from transcription.web import languages
from transcription.weights import catalogue
from transcription.whisper.options import TEMPERATURES, TranscriptionOptions, language_code
from transcription.workers import devices

INPUT = {"class": "input"}
SELECT = forms.Select({"class": "select"})
TEMPERATURE = forms.NumberInput(INPUT | {"placeholder": "0"})

CHANNELS = [("mix", _("Together")), ("separate", _("Each apart"))]


class SignInForm(AuthenticationForm):
    """Name, password, and whether the session outlives the browser."""

    remember = forms.BooleanField(required=False, initial=True)

    error_messages = {
        **AuthenticationForm.error_messages,
        "invalid_login": _("The name and the password do not match. Check the keyboard layout and Caps Lock."),
    }


def _language_choices() -> list[tuple[str, object]]:
    return [("auto", _("Detect")), *languages.choices()]


def _model_choices(also: str = "") -> list[tuple[str, object]]:
    """The models on disk, and those that can be downloaded. The default and `also` are among them in any case."""
    here = list(dict.fromkeys(model.name for model in catalogue.local_models()))
    sizes = {weights.model: weights.size_bytes for weights in catalogue.published_for(devices.engine().name)}
    first = [name for name in dict.fromkeys((catalogue.default_if_known(), also)) if name not in ("", *here)]
    last = [name for name in sizes if name not in (*here, *first)]

    def label(name: str) -> object:
        if name in here:
            return _("%(name)s · ready") % {"name": name}
        if name not in sizes:
            return _("%(name)s · not here yet") % {"name": name}
        return _("%(name)s · fetched first, %(size)s") % {"name": name, "size": size(sizes[name])}

    return [(name, label(name)) for name in (*first, *here, *last)]


class IntakeForm(forms.Form):
    """How to transcribe the files that come with it. The fields have the names of the API's parameters."""

    language = forms.ChoiceField(choices=_language_choices, widget=SELECT)
    model = forms.ChoiceField(choices=_model_choices, widget=SELECT)
    task = forms.ChoiceField(choices=[("transcribe", _("Transcribe")), ("translate", _("Translate to English"))])
    channels = forms.ChoiceField(required=False, choices=CHANNELS, widget=SELECT)
    word_timestamps = forms.BooleanField(required=False)
    upgrade_transcribation = forms.BooleanField(required=False)
    initial_prompt = forms.CharField(required=False, widget=forms.TextInput(INPUT))
    beam_size = forms.IntegerField(min_value=1, max_value=16, widget=forms.NumberInput(INPUT))
    temperature = forms.FloatField(required=False, min_value=0, max_value=1, step_size=0.1, widget=TEMPERATURE)

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        if not capabilities.can_be_honoured("beam_size", 2):
            # A browser does not send a disabled field; the API would refuse another value.
            self.fields["beam_size"].disabled = True
            self.initial["beam_size"] = 1
        if not settings.LLM_BASE_URL:
            del self.fields["upgrade_transcribation"]

    def clean(self) -> dict[str, Any]:
        """Adds an error for a language that the model does not know."""
        cleaned: dict[str, Any] = self.cleaned_data
        if {"language", "model"} <= cleaned.keys():
            try:
                capabilities.check_language(language_code(cleaned["language"]), cleaned["model"])
            except InvalidParameter as error:
                self.add_error("language", sentences.describe(error))
        return cleaned

    def options(self) -> TranscriptionOptions:
        """Only after `is_valid()`."""
        return capabilities.choose(self._parameters(), model=self.cleaned_data["model"]).options

    @property
    def improve(self) -> bool:
        """Whether a language model shall improve the text; only after `is_valid()`."""
        return bool(self.cleaned_data.get("upgrade_transcribation"))

    def _parameters(self) -> dict[str, Any]:
        """The parameters' values by their names, without empty fields."""
        cleaned = self.cleaned_data
        parameters = {
            "language": language_code(cleaned["language"]),
            "task": cleaned["task"],
            "word_timestamps": cleaned["word_timestamps"],
            "beam_size": cleaned["beam_size"],
        }
        if (
            cleaned["channels"] and "channels" in self.changed_data
        ):  # else it stays open, and two voices in two channels are told of
            parameters["channels"] = cleaned["channels"]
        if cleaned["initial_prompt"]:
            parameters["initial_prompt"] = cleaned["initial_prompt"]
        if cleaned["temperature"] is not None:
            parameters["temperature"] = (cleaned["temperature"],) if cleaned["temperature"] else TEMPERATURES
        return parameters


class AgainForm(IntakeForm):
    """How to transcribe a recording again: with an earlier job's options, except what is changed here."""

    # No step, because the earlier job may have a value between two steps.
    temperature = forms.FloatField(required=False, min_value=0, max_value=1, widget=TEMPERATURE)

    def __init__(self, job: Job, data: Any = None) -> None:
        self.before = job.transcription_options
        try:
            model = catalogue.canonical(job.model)
        except errors.UnknownModel:  # it was a folder that is gone
            model = ""
        initial = _initial(self.before, job.is_to_be_improved)
        super().__init__(data, initial=initial | {"model": model or catalogue.default_if_known()})
        self.fields["model"] = forms.ChoiceField(choices=_model_choices(model), widget=SELECT)
        if isinstance(self.before.channels, int):
            number = (str(self.before.channels), str(self.before.channels))
            self.fields["channels"] = forms.ChoiceField(required=False, choices=[*CHANNELS, number], widget=SELECT)
        if (job.recording.tracks or 0) > 1:
            self.fields["track"] = _track_field(job)
            self.initial["track"] = str(job.track or "")

    def options(self) -> TranscriptionOptions:
        """Only after `is_valid()`."""
        changes: dict[str, Any] = {"initial_prompt": None, "temperature": TEMPERATURES} | self._parameters()
        if changes.get("channels", "").isdecimal():
            changes["channels"] = self.before.channels
        if self.cleaned_data.get("track") and "track" in self.changed_data:
            changes["track"] = int(self.cleaned_data["track"])
        if "temperature" not in self.changed_data:  # the field shows only the first of several
            changes["temperature"] = self.before.temperature
        return replace(self.before, **changes)


def _track_field(job: Job) -> forms.ChoiceField:
    return forms.ChoiceField(
        choices=[(str(number), number) for number in range(1, (job.recording.tracks or 0) + 1)], widget=SELECT
    )


def _initial(options: TranscriptionOptions, is_to_be_improved: bool) -> dict[str, Any]:
    """The fields' initial values for options."""
    return {
        "language": options.language or "auto",
        "task": "translate" if options.task == "translate" else "transcribe",
        "channels": str(options.channels or "mix"),
        "word_timestamps": options.word_timestamps,
        "upgrade_transcribation": is_to_be_improved,
        "initial_prompt": options.initial_prompt,
        "temperature": None if options.temperature == TEMPERATURES else next(iter(options.temperature), None),
        "beam_size": options.beam_size,
    }


def defaults() -> dict[str, Any]:
    """The initial values of IntakeForm."""
    options = TranscriptionOptions(**settings.DEFAULTS)
    return _initial(options, settings.DEFAULT_UPGRADE_TRANSCRIBATION) | {"model": catalogue.default_if_known()}
