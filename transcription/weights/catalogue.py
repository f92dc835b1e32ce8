"""Model names, where their weights come from, what is on disk.

A folder in the models folder that holds an engine's weights is a model by its name. The catalogue adds what is
published: the names people use, places to fetch from, and the sums by which weights are known.
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

# What clients of OpenAI's service send, and what means no choice.
DEFAULT_NAMES = ("", "auto", "whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-transcribe")
# The best of these that is here is taken; larger ones only when named.
AUTO = ("turbo", "small", "base", "tiny")


@dataclass(frozen=True)
class LocalModel:
    """A model that is on disk. `is_catalogued` goes by the name: whether the bytes are the published ones, see
    `is_verified`."""

    name: str
    engine: str
    path: Path
    size_bytes: int
    is_catalogued: bool


def folder_for(name: str, engine: str) -> Path:
    """Where a model's weights for an engine belong; `name` is a canonical one."""
    return Path(settings.MODELS_DIR) / f"{ENGINES[engine].folder_prefix}{name}"


def canonical(name: str) -> str:
    """The name of the model that somebody means. Raises UnknownModel.

    No path is ever made of `name`: it is looked for among names that are known.
    """
    wanted = name.strip()
    if wanted.lower() in DEFAULT_NAMES:
        return default()
    if (published_name := _published_name(wanted)) is not None:
        return published_name
    here = {local.name for local in local_models()}
    if wanted in here:
        return wanted
    raise errors.UnknownModel(name=wanted[:100], known=", ".join(sorted(here | MODELS.keys())))


def _published_name(name: str) -> str | None:
    """The name of the published model that is meant by a name or an alias in whatever case."""
    meant = name.lower()
    return next((model.name for model in MODELS.values() if meant in (model.name.lower(), *model.aliases)), None)


def default() -> str:
    """The model of whoever names none. Raises UnknownModel if DEFAULT_MODEL names one that is not there."""
    if settings.DEFAULT_MODEL.strip().lower() not in DEFAULT_NAMES:
        return canonical(settings.DEFAULT_MODEL)
    here = {local.name for local in local_models()}
    return next((name for name in AUTO if name in here), "base")


def default_if_known() -> str:
    """The default model's name; empty if DEFAULT_MODEL names one that is not there, for what must work all the same."""
    try:
        return default()
    except errors.UnknownModel:
        return ""


def local_models() -> list[LocalModel]:
    """Every model in the models folder, by name; one a name and an engine."""
    found: dict[tuple[str, str], LocalModel] = {}
    for folder in _folders():
        for capabilities in ENGINES.values():
            if capabilities.weights_in(folder) is not None:
                local = _local_model(folder, capabilities)
                found.setdefault((local.name, local.engine), local)
    return sorted(found.values(), key=lambda local: (local.name, local.engine))


def on_disk(name: str, engine: str) -> LocalModel | None:
    """The model `name` (a canonical one) for an engine, if it is on disk."""
    return next((here for here in local_models() if (here.name, here.engine) == (name, engine)), None)


def weights_for(name: str, engine: str) -> Weights | None:
    """What is published of a model for an engine."""
    model = MODELS.get(name)
    return model.weights_for(engine) if model else None


def published_for(engine: str) -> list[Weights]:
    """What is published for an engine, in the catalogue's order."""
    return [weights for model in MODELS.values() if (weights := model.weights_for(engine)) is not None]


def find(name: str, engine: str) -> LocalModel:
    """The model `name` (a canonical one) for an engine. Raises ModelMissing, which says what to put where."""
    if (here := on_disk(name, engine)) is not None:
        return here
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
    """The same at no cost; None where the sum was not taken since the weights are here."""
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
    """The folders that a model may be in; those that bear an engine's prefix first, as they say what they are."""
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
    bare = folder.name.removeprefix(capabilities.folder_prefix) or folder.name
    name = _published_name(bare) or bare  # large-v3-turbo, as some call it, is turbo
    return LocalModel(
        name=name,
        engine=capabilities.name,
        path=folder,
        size_bytes=sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        is_catalogued=weights_for(name, capabilities.name) is not None,
    )
