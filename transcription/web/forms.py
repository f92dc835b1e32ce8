"""What the pages ask."""

from dataclasses import replace
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth.forms import AuthenticationForm
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from transcription import capabilities, errors
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


class SignInForm(AuthenticationForm):
    """Name and password, and whether to be known when the browser is opened again."""

    remember = forms.BooleanField(required=False, initial=True)

    error_messages = {
        **AuthenticationForm.error_messages,
        "invalid_login": _("The name and the password do not match. Check the keyboard layout and Caps Lock."),
    }


def _languages() -> list[tuple[str, object]]:
    return [("auto", _("Detect")), *languages.choices()]


def _models(also: str = "") -> list[tuple[str, object]]:
    """What is on disk, and what can be fetched; the default and another model even when they are neither."""
    here = list(dict.fromkeys(model.name for model in catalogue.local_models()))
    sizes = {weights.model: weights.size_bytes for weights in catalogue.published_for(devices.engine().name)}
    missing = [name for name in dict.fromkeys((catalogue.default_if_known(), also)) if name not in ("", *here)]
    others = [name for name in sizes if name not in (*here, *missing)]
    return [
        *((name, _missing(name, sizes.get(name))) for name in missing),
        *((name, _("%(name)s · ready") % {"name": name}) for name in here),
        *((name, _missing(name, sizes.get(name))) for name in others),
    ]


def _missing(name: str, size_bytes: int | None) -> object:
    """How a model is named that is not here; its size when it can be fetched."""
    if size_bytes is None:
        return _("%(name)s · not here yet") % {"name": name}
    return _("%(name)s · fetched first, %(size)s") % {"name": name, "size": size(size_bytes)}


def _if_known(model: str) -> str:
    """The model's name; empty when it was a folder that is gone."""
    try:
        return catalogue.canonical(model)
    except errors.UnknownModel:
        return ""


class IntakeForm(forms.Form):
    """How to transcribe the files that come with it; the fields are named as in the API."""

    language = forms.ChoiceField(choices=_languages, widget=SELECT)
    model = forms.ChoiceField(choices=_models, widget=SELECT)
    task = forms.ChoiceField(choices=[("transcribe", _("Transcribe")), ("translate", _("Translate to English"))])
    word_timestamps = forms.BooleanField(required=False)
    upgrade_transcribation = forms.BooleanField(required=False)
    initial_prompt = forms.CharField(required=False, widget=forms.TextInput(INPUT))
    beam_size = forms.IntegerField(min_value=1, max_value=16, widget=forms.NumberInput(INPUT))
    temperature = forms.FloatField(required=False, min_value=0, max_value=1, step_size=0.1, widget=TEMPERATURE)

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        if not capabilities.can_be_honoured("beam_size", 2):
            # A browser does not send what is disabled: the API would refuse another.
            self.fields["beam_size"].disabled = True
            self.initial["beam_size"] = 1
        if not settings.LLM_BASE_URL:
            del self.fields["upgrade_transcribation"]

    def clean(self) -> dict[str, Any]:
        """Raises ValidationError for a language that the model does not know."""
        asked: dict[str, Any] = self.cleaned_data
        if {"language", "model"} <= asked.keys():
            try:
                capabilities.check_language(language_code(asked["language"]), asked["model"])
            except InvalidParameter as refused:
                self.add_error("language", gettext(refused.sentence) % refused.values)
        return asked

    def options(self) -> TranscriptionOptions:
        """Only after `is_valid()`."""
        return capabilities.choose(self._asked(), model=self.cleaned_data["model"]).options

    @property
    def improve(self) -> bool:
        """Whether a language model is to improve the text; only after `is_valid()`."""
        return bool(self.cleaned_data.get("upgrade_transcribation"))

    def _asked(self) -> dict[str, Any]:
        """By the parameters' names; what is left empty is not asked for."""
        asked = self.cleaned_data
        shown = {
            "language": language_code(asked["language"]),
            "task": asked["task"],
            "word_timestamps": asked["word_timestamps"],
            "beam_size": asked["beam_size"],
        }
        if asked["initial_prompt"]:
            shown["initial_prompt"] = asked["initial_prompt"]
        if asked["temperature"] is not None:
            shown["temperature"] = (asked["temperature"],) if asked["temperature"] else TEMPERATURES
        return shown


class AgainForm(IntakeForm):
    """How to transcribe a recording once more: as an earlier job was asked for, but for what is changed here."""

    # Without steps: the API takes 0.25 too.
    temperature = forms.FloatField(required=False, min_value=0, max_value=1, widget=TEMPERATURE)

    def __init__(self, job: Job, data: Any = None) -> None:
        self.before = job.transcription_options
        model = _if_known(job.model)
        shown = _shown(self.before, job.is_to_be_improved)
        super().__init__(data, initial=shown | {"model": model or catalogue.default_if_known()})
        self.fields["model"] = forms.ChoiceField(choices=_models(model), widget=SELECT)

    def options(self) -> TranscriptionOptions:
        """Only after `is_valid()`."""
        asked: dict[str, Any] = {"initial_prompt": None, "temperature": TEMPERATURES} | self._asked()
        if "temperature" not in self.changed_data:  # the field shows one, and there may be several
            asked["temperature"] = self.before.temperature
        return replace(self.before, **asked)


def _shown(options: TranscriptionOptions, is_to_be_improved: bool) -> dict[str, Any]:
    """What the form shows of what was asked for."""
    return {
        "language": options.language or "auto",
        "task": options.task,
        "word_timestamps": options.word_timestamps,
        "upgrade_transcribation": is_to_be_improved,
        "initial_prompt": options.initial_prompt,
        "temperature": None if options.temperature == TEMPERATURES else next(iter(options.temperature), None),
        "beam_size": options.beam_size,
    }


def defaults() -> dict[str, Any]:
    """What the form shows before somebody chooses."""
    options = TranscriptionOptions(**settings.DEFAULTS)
    return _shown(options, settings.DEFAULT_UPGRADE_TRANSCRIBATION) | {"model": catalogue.default_if_known()}
