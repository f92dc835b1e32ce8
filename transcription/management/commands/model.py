"""`manage.py model list|download|remove|convert`: the models of this machine."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from transcription import errors, model_library
from transcription.management.progress import Progress
from transcription.model_library import LibraryModel
from transcription.weights import catalogue, store
from transcription.workers import devices

FORMATS = {"mlx": "mlx-whisper"}


class Command(BaseCommand):
    help = "Show, fetch, remove and convert models."

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True, metavar="list|download|remove|convert")
        commands.add_parser("list", help="what is published, what is here, what of it is verified")
        download = commands.add_parser("download", help="fetch a model; one that was broken off goes on where it was")
        download.add_argument("name")
        remove = commands.add_parser("remove", help="delete a model from this machine")
        remove.add_argument("name")
        remove.add_argument("--yes", action="store_true", help="do not ask")
        convert = commands.add_parser("convert", help="make a model for another engine of one that is here")
        convert.add_argument("name")
        convert.add_argument("--to", choices=FORMATS, default="mlx")

    def handle(self, *args: Any, command: str, **arguments: Any) -> None:
        try:
            getattr(self, command)(**{name: arguments[name] for name in ("name", "yes", "to") if name in arguments})
        except errors.Problem as problem:
            raise CommandError(str(problem)) from problem

    def list(self) -> None:
        for model in model_library.models():
            notes = [_state(model), *(["default"] if model.is_default else [])]
            self.stdout.write(f"{model.name:<16} {model.engine:<16} {_size(model.size_bytes):>9}  {', '.join(notes)}")
        self.stdout.write(f"Models lie in {settings.MODELS_DIR}.")

    def download(self, name: str) -> None:
        model, engine = catalogue.canonical(name), devices.engine().name
        here, progress = catalogue.on_disk(model, engine), Progress(self.stdout)
        if here is not None and here.path != catalogue.folder_for(model, engine):
            self.stdout.write(f"{model} is in {here.path} already.")
            return
        self.stdout.write(f"Fetching {model} for {engine}:")
        try:
            folder = store.fetch(model, engine, on_progress=progress)
        finally:
            progress.end()
        self.stdout.write(f"{model} is in {folder}.")

    def remove(self, name: str, yes: bool) -> None:
        model = model_library.find(name)
        question = f"Remove {model.name}, {_size(model.size_bytes)}, from {settings.MODELS_DIR}? [y/N] "
        if not yes and input(question).strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was removed.")
        for local in model_library.remove(model.name):
            self.stdout.write(f"Removed {local.path}.")

    def convert(self, name: str, to: str) -> None:
        model, progress = catalogue.canonical(name), Progress(self.stdout)
        try:
            folder = store.convert(model, FORMATS[to], on_progress=progress)
        finally:
            progress.end()
        self.stdout.write(f"{model} is in {folder}.")


def _state(model: LibraryModel) -> str:
    if model.local is not None:
        return "here, verified" if catalogue.is_verified(model.local) else "here, unverified"
    if model.state == "missing":
        return "not here"
    return f"{model.state}, {model.progress:.0%}"


def _size(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / 1024**2:.0f} MB"
