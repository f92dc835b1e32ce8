"""The names of models: those on disk and those that are published.

A folder in the models folder that holds an engine's weights is a model of the folder's name. The published models add
the names people use, places to download from, and the checksums of weights.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from transcription import disk, errors
from transcription.weights import published
from transcription.weights.published import Model, Weights
from transcription.whisper.engine import ENGINES, Capabilities

MODELS: dict[str, Model] = published.models()

# The names that mean the default model, with those that clients of OpenAI's service send.
DEFAULT_NAMES = ("", "auto", "whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-transcribe")
# The default model is the first of these that is on disk. Larger ones are used only by name.
AUTO = ("turbo", "small", "base", "tiny")


@dataclass(frozen=True)
class LocalModel:
    """A model on disk. `is_catalogued` says that its name is published; `is_verified` compares the bytes."""

    name: str
    engine: str
    path: Path
    size_bytes: int
    is_catalogued: bool


def folder_for(name: str, engine: str) -> Path:
    """The folder for a model's weights for an engine; `name` is a canonical one."""
    return Path(settings.MODELS_DIR) / f"{ENGINES[engine].folder_prefix}{name}"


def canonical(name: str) -> str:
    """The canonical name of a model, from any of its names. Raises UnknownModel.

    `name` never becomes part of a path: it is only compared with known names.
    """
    name = name.strip()
    if name.lower() in DEFAULT_NAMES:
        return default()
    if (published_name := _published_name(name)) is not None:
        return published_name
    local_names = {local.name for local in local_models()}
    if name in local_names:
        return name
    raise errors.UnknownModel(name=name[:100], known=", ".join(sorted(local_names | MODELS.keys())))


def _published_name(name: str) -> str | None:
    """The published model that has this name or alias, in any case."""
    name = name.lower()
    return next((model.name for model in MODELS.values() if name in (model.name.lower(), *model.aliases)), None)


def default() -> str:
    """The model of a request that names none. Raises UnknownModel if there is no model of DEFAULT_MODEL's name."""
    if settings.DEFAULT_MODEL.strip().lower() not in DEFAULT_NAMES:
        return canonical(settings.DEFAULT_MODEL)
    local_names = {local.name for local in local_models()}
    return next((name for name in AUTO if name in local_names), "base")


def default_if_known() -> str:
    """The default model's name; empty if DEFAULT_MODEL names one that is not there, for what must work all the same."""
    try:
        return default()
    except errors.UnknownModel:
        return ""


def local_models() -> list[LocalModel]:
    """Every model in the models folder, sorted by name; one for each name and engine."""
    models: dict[tuple[str, str], LocalModel] = {}
    for folder in _folders():
        for capabilities in ENGINES.values():
            if capabilities.weights_in(folder) is not None:
                local = _local_model(folder, capabilities)
                models.setdefault((local.name, local.engine), local)
    return sorted(models.values(), key=lambda local: (local.name, local.engine))


def on_disk(name: str, engine: str) -> LocalModel | None:
    """The model `name` (a canonical one) for an engine, if it is on disk."""
    return next((local for local in local_models() if (local.name, local.engine) == (name, engine)), None)


def weights_for(name: str, engine: str) -> Weights | None:
    """The published weights of a model for an engine."""
    model = MODELS.get(name)
    return model.weights_for(engine) if model else None


def published_for(engine: str) -> list[Weights]:
    """All published weights for an engine, in the catalogue's order."""
    return [weights for model in MODELS.values() if (weights := model.weights_for(engine)) is not None]


def find(name: str, engine: str) -> LocalModel:
    """The model `name` (a canonical one) for an engine. Raises ModelMissing, which names the files and the folder."""
    if (local := on_disk(name, engine)) is not None:
        return local
    weights = weights_for(name, engine)
    raise errors.ModelMissing(
        name=name,
        files=weights.file_names if weights else ENGINES[engine].weights_file,
        folder=str(folder_for(name, engine)),
    )


def is_verified(local: LocalModel) -> bool:
    """Whether the weights are the published ones. Costs what `weights_sha256` costs."""
    expected = _published_sha256(local)
    return expected is not None and expected == weights_sha256(local)


def is_known_to_be_verified(local: LocalModel) -> bool | None:
    """The same without reading the weights; None if their sum has not been taken yet."""
    expected, known = _published_sha256(local), _known_sha256(_weights_path(local))
    if expected is None:
        return False
    return None if known is None else known == expected


def _published_sha256(local: LocalModel) -> str | None:
    weights, name = weights_for(local.name, local.engine), _weights_path(local).name
    return next((file.sha256 for file in weights.files if file.name == name), None) if weights else None


def _weights_path(local: LocalModel) -> Path:
    capabilities = ENGINES[local.engine]
    return capabilities.weights_in(local.path) or local.path / capabilities.weights_file


def weights_sha256(model: LocalModel) -> str:
    """The SHA-256 of the weights file: half a second a gigabyte the first time, remembered until the file changes."""
    path = _weights_path(model)
    known = _known_sha256(path)
    if known is not None:
        return known
    mark = _mark(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    remember_sha256(path, digest, mark)
    return digest


def remember_sha256(path: Path, sha256: str, mark: list[int] | None = None) -> None:
    """Remember the sum of a weights file for as long as the file does not change."""
    disk.remember("weights.json", str(path), {"mark": mark or _mark(path), "sha256": sha256})


def _known_sha256(path: Path) -> str | None:
    known = disk.remembered("weights.json").get(str(path), {})
    return str(known["sha256"]) if known.get("mark") == _mark(path) else None


def _mark(path: Path) -> list[int]:
    """What changes when a file does."""
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def _folders() -> list[Path]:
    """The folders that may hold a model. Those with an engine's prefix come first, so that they win over others."""
    if not settings.MODELS_DIR.is_dir():
        return []
    prefixes = tuple(capabilities.folder_prefix for capabilities in ENGINES.values())
    folders = [
        folder
        for folder in settings.MODELS_DIR.iterdir()
        if not folder.name.startswith(".") and os.access(folder / ".", os.R_OK | os.X_OK)
    ]
    return sorted(folders, key=lambda folder: (not folder.name.startswith(prefixes), folder.name))


def _local_model(folder: Path, capabilities: Capabilities) -> LocalModel:
    folder_name = folder.name.removeprefix(capabilities.folder_prefix) or folder.name
    name = _published_name(folder_name) or folder_name  # large-v3-turbo is an alias of turbo
    return LocalModel(
        name=name,
        engine=capabilities.name,
        path=folder,
        size_bytes=sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        is_catalogued=weights_for(name, capabilities.name) is not None,
    )
