"""The operations on models that all endpoints share: list, request and cancel a download, remove."""

from dataclasses import dataclass
from pathlib import Path

from transcription import errors
from transcription.models import Download, Job
from transcription.queue import downloads
from transcription.weights import catalogue, store
from transcription.weights.catalogue import LocalModel
from transcription.weights.published import Weights
from transcription.workers import devices


@dataclass(frozen=True)
class LibraryModel:
    """A model for an engine: on disk, being downloaded, or published and not here."""

    name: str
    engine: str
    local: LocalModel | None
    published: Weights | None
    download: Download | None
    is_default: bool

    @property
    def state(self) -> str:
        """`here`, `downloading`, `failed` (the download), `partial` (an interrupted download), or `missing`."""
        if self.local is not None:
            return "here"
        if self.download is not None:
            return "failed" if self.download.error_code else "downloading"
        return "partial" if self.progress else "missing"

    @property
    def size_bytes(self) -> int | None:
        """Its size on disk if it is here, else the size of the download; None if unknown."""
        if self.local is not None:
            return self.local.size_bytes
        return None if self.published is None else self.published.size_bytes

    @property
    def path(self) -> Path | None:
        return None if self.local is None else self.local.path

    @property
    def progress(self) -> float:
        """How much of it is on disk, 0-1."""
        if self.local is not None:
            return 1.0
        if self.download is not None and not self.download.error_code:
            return self.download.progress
        return min(1.0, store.bytes_begun(self.name, self.engine) / self.size_bytes) if self.size_bytes else 0.0


def models() -> list[LibraryModel]:
    """The models of this installation's engine in the catalogue's order, then the others in the models folder."""
    engine = devices.engine().name
    published = {model.name: model.weights_for(engine) for model in catalogue.MODELS.values()}
    local = {(model.name, model.engine): model for model in catalogue.local_models()}
    downloads = Download.objects.in_bulk()
    default = catalogue.default_if_known()

    def in_library(name: str, of_engine: str) -> LibraryModel:
        is_ours = of_engine == engine
        return LibraryModel(
            name=name,
            engine=of_engine,
            local=local.get((name, of_engine)),
            published=published.get(name) if is_ours else None,
            download=downloads.get(name) if is_ours else None,
            is_default=is_ours and name == default,
        )

    ours = [(name, engine) for name, weights_of in published.items() if weights_of or (name, engine) in local]
    return [in_library(*key) for key in dict.fromkeys([*ours, *local])]


def find(name: str) -> LibraryModel:
    """The model with a name or alias, for this installation's engine if possible. Raises UnknownModel."""
    canonical = catalogue.canonical(name)
    engine = devices.engine().name
    named = [model for model in models() if model.name == canonical]
    ours = [model for model in named if model.engine == engine]
    if not named:
        raise errors.UnknownModel(name=canonical, known=", ".join(model.name for model in models()))
    return (ours or named)[0]


def request_download(name: str) -> None:
    """Download a model in the background unless it is on disk. Raises UnknownModel, ModelMissing."""
    model, engine = find(name), devices.engine().name
    if catalogue.on_disk(model.name, engine) is not None:
        return
    if not store.can_fetch(model.name, engine):
        catalogue.find(model.name, engine)  # raises ModelMissing
    downloads.request_download(model.name)


def cancel_download(name: str) -> None:
    """Stop downloading a model unless jobs wait for it. Raises UnknownModel."""
    downloads.cancel_download(find(name).name)


def remove(name: str) -> list[LocalModel]:
    """Remove a model for every engine, and its partial download; return the models that were on disk.

    Raises UnknownModel, ModelMissing, ModelInUse.
    """
    model = find(name)
    removed = [local for local in catalogue.local_models() if local.name == model.name]
    needed = Job.objects.filter(model=model.name, status__in=Job.UNFINISHED).count()
    if needed:
        raise errors.ModelInUse(name=model.name, count=needed)
    if not removed and model.state == "missing":
        catalogue.find(model.name, model.engine)  # raises ModelMissing
    downloads.cancel_download(model.name)
    for local in removed:
        store.remove(local)
    store.forget_begun(model.name, model.engine)
    return removed
