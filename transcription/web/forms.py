"""What the pages ask."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth.forms import AuthenticationForm
from django.utils.translation import gettext_lazy as _

from transcription import catalogue, errors
from transcription.web import languages
from transcription.whisper.options import TEMPERATURES, TranscriptionOptions, language_code

INPUT = {"class": "input"}
SELECT = forms.Select({"class": "select"})


class SignInForm(AuthenticationForm):
    """Name and password, and whether to be known when the browser is opened again."""

    remember = forms.BooleanField(required=False, initial=True)

    error_messages = {
        **AuthenticationForm.error_messages,
        "invalid_login": _("The name and the password do not match. Check the keyboard layout and Caps Lock."),
    }


def _languages() -> list[tuple[str, object]]:
    return [("auto", _("Detect")), *languages.choices()]


def _default_model() -> str:
    """The default's name; empty when DEFAULT_MODEL names none, which must not take the page away."""
    try:
        return catalogue.default()
    except errors.UnknownModel:
        return ""


def _models() -> list[tuple[str, object]]:
    """What is on disk, and the default even when it is not."""
    default = _default_model()
    here = list(dict.fromkeys(model.name for model in catalogue.local_models()))
    missing = [] if default in ("", *here) else [(default, _("%(name)s · not here yet") % {"name": default})]
    return [*missing, *((name, _("%(name)s · ready") % {"name": name}) for name in here)]


class IntakeForm(forms.Form):
    """How to transcribe the files that come with it; the fields are named as in the API."""

    language = forms.ChoiceField(choices=_languages, widget=SELECT)
    model = forms.ChoiceField(choices=_models, widget=SELECT)
    task = forms.ChoiceField(choices=[("transcribe", _("Transcribe")), ("translate", _("Translate to English"))])
    word_timestamps = forms.BooleanField(required=False)
    initial_prompt = forms.CharField(required=False, widget=forms.TextInput(INPUT))
    beam_size = forms.IntegerField(min_value=1, max_value=16, widget=forms.NumberInput(INPUT))
    temperature = forms.FloatField(
        required=False, min_value=0, max_value=1, step_size=0.1, widget=forms.NumberInput(INPUT | {"placeholder": "0"})
    )

    def options(self) -> TranscriptionOptions:
        """Only after `is_valid()`."""
        asked = self.cleaned_data
        return TranscriptionOptions(
            language=language_code(asked["language"]),
            task=asked["task"],
            word_timestamps=asked["word_timestamps"],
            initial_prompt=asked["initial_prompt"] or None,
            temperature=(asked["temperature"],) if asked["temperature"] else TEMPERATURES,
            beam_size=asked["beam_size"],
        )


def defaults() -> dict[str, Any]:
    """What the form shows before somebody chooses."""
    return {
        "language": settings.DEFAULT_LANGUAGE or "auto",
        "model": _default_model(),
        "task": settings.DEFAULT_TASK,
        "word_timestamps": settings.DEFAULT_WORD_TIMESTAMPS,
        "beam_size": settings.DEFAULT_BEAM_SIZE,
    }
