"""Django's system checks: FFmpeg, an engine and weights are on this machine, and the default model is known."""

from importlib.util import find_spec
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from transcription import errors
from transcription.sound import audio
from transcription.weights import catalogue
from transcription.workers import devices


@register
def check_ffmpeg(**_: Any) -> list[CheckMessage]:
    try:
        audio.ffmpeg_path()
    except errors.FFmpegMissing:
        hint = "Install it (apt-get install ffmpeg, brew install ffmpeg) or install requirements.txt again."
        return [Warning("There is no FFmpeg on this machine.", hint=hint, id="transcription.W001")]
    return []


@register
def check_engine(**_: Any) -> list[CheckMessage]:
    package = devices.engine().package
    if find_spec(package.replace("-", "_")):
        return []
    hint = "Install requirements.txt again."
    return [Warning(f"The engine {package} is not installed.", hint=hint, id="transcription.W002")]


@register
def check_weights(**_: Any) -> list[CheckMessage]:
    if catalogue.local_models():
        return []
    hint = f"Start with make run, which fetches them, or see README.md in {settings.MODELS_DIR}."
    return [Warning("There are no weights on this machine.", hint=hint, id="transcription.W003")]


@register
def check_proxies(**_: Any) -> list[CheckMessage]:
    if settings.TRUSTED_PROXIES.most is None:
        return []
    problem = "NUM_PROXIES says how many proxies there are, not which, and will go."
    hint = "Name their addresses in TRUSTED_PROXIES, and remove it."
    return [Warning(problem, hint=hint, id="transcription.W004")]


@register
def check_default_model(**_: Any) -> list[CheckMessage]:
    try:
        catalogue.default()
    except errors.UnknownModel as problem:
        return [Error(f"DEFAULT_MODEL: {problem}", id="transcription.E001")]
    return []
