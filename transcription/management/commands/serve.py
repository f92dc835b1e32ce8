"""`manage.py serve`: set up what a first start needs, then run the web server and the workers in one process tree."""

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection

from transcription import doctor, errors, keys
from transcription.management.progress import Progress
from transcription.models import ApiToken
from transcription.weights import catalogue, store
from transcription.whisper.engine import Capabilities
from transcription.whisper.options import TranscriptionOptions
from transcription.workers import devices, enginecheck, pipeline
from transcription.workers.supervisor import Supervisor, is_port_free

SETUP_LOCK = 7_372_846_911  # the number of a PostgreSQL advisory lock; arbitrary


class Command(BaseCommand):
    help = "Set up what is missing, then serve the dashboard and the API, with the workers."
    requires_system_checks: list[str] = []  # handle() runs them after it has set up what is missing

    def handle(self, *args: Any, **options: Any) -> None:
        _make_folders()
        lock = _lock_data_dir()
        if not is_port_free(settings.HOST, settings.PORT):
            raise CommandError(f"Port {settings.PORT} of {settings.HOST} is taken. Stop what uses it, or set PORT.")
        available = _find_devices()
        with _setting_up_the_database():
            call_command("migrate", verbosity=0)
        self.fetch_weights()
        self.check()
        self.check_broker()
        with _setting_up_the_database():
            self.make_administrator()
            self.read_keys()
        self.collect_static_files()
        while self.reject_engine(available[0]):
            available = _find_devices()
            self.fetch_weights()
        threading.Thread(target=self.say_when_ready, daemon=True).start()
        Supervisor(available).run()
        lock.close()

    def fetch_weights(self) -> None:
        """Download the default model's weights if they are missing; if that fails, print what to put where."""
        name, engine = catalogue.default_if_known(), devices.engine().name
        if not name:
            return  # the system checks, which come next, report it
        if catalogue.on_disk(name, engine) is not None or not store.can_fetch(name, engine):
            return
        self.stdout.write(f"Fetching the weights of {name}, once:")
        try:
            store.fetch(name, engine, on_progress=Progress(self.stdout))
        except errors.Problem as problem:
            self.stdout.write(f"\n{problem}\nEverything else works meanwhile.")
        else:
            self.stdout.write("")

    def make_administrator(self) -> None:
        """Make the first administrator and print the password if it was generated."""
        users = get_user_model().objects
        if users.filter(is_superuser=True).exists():
            return
        name, password, shown = settings.SUPERUSER_USERNAME, settings.SUPERUSER_PASSWORD, "the one you set"
        if not password:
            password = shown = secrets.token_urlsafe(12)
        users.create_superuser(name, password=password)
        self.stdout.write(f"The first administrator: {name}, password: {shown}")

    def check_broker(self) -> None:
        """Print a message if the broker does not answer; the workers connect when it does."""
        finding = doctor.check_broker_connection()
        if finding.state == doctor.State.WRONG:
            self.stdout.write(f"{finding.sentence} Until then no work begins at once.")

    def read_keys(self) -> None:
        """Read KEYS_FILE; the first start creates it with one key.

        If it is missing on this machine, the keys from another machine's file stay.
        """
        if not settings.KEYS_FILE.exists() and ApiToken.objects.filter(is_from_file=True).exists():
            self.stdout.write(f"There is no {settings.KEYS_FILE}: the keys of another machine's file go on working.")
            return
        try:
            if keys.make_file():
                self.stdout.write(f"A key to the API is in {settings.KEYS_FILE}, one a line.")
            keys.reload()
        except OSError as error:
            self.stdout.write(f"The keys of {settings.KEYS_FILE} stay as they were: {error.strerror}.")

    def collect_static_files(self) -> None:
        """Collect and compress static files when one has changed since the last start."""
        stamp, fingerprint = settings.STATIC_ROOT / ".stamp", _static_fingerprint()
        if not stamp.exists() or stamp.read_text() != fingerprint:
            call_command("collectstatic", interactive=False, clear=True, verbosity=0)
            stamp.write_text(fingerprint)

    def reject_engine(self, device: str) -> bool:
        """Check the engine with the sample unless that was done before; return whether another engine replaces it."""
        engine = devices.engine()
        model = catalogue.default()
        is_here = any((local.engine, local.name) == (engine.name, model) for local in catalogue.local_models())
        if not is_here or enginecheck.is_checked(engine, model):
            return False
        verdict = self.transcribe_sample(engine, device, model)
        if verdict is None:
            return False
        enginecheck.remember(verdict)
        if verdict.problem:
            self.stdout.write(f"  {engine.name} is set aside: {verdict.problem}.")
        return devices.engine() != engine

    def transcribe_sample(self, engine: Capabilities, device: str, model: str) -> enginecheck.Verdict | None:
        """Print an engine's transcript of the sample; return the verdict on it, or None if it could not be tried."""
        language = "ru" if os.environ.get("LANG", "").startswith("ru") else "en"
        self.stdout.write(f"Transcribing the bundled sample with {model} on {device}:")
        runner = devices.Runner(device, engine)
        started, text, duration = time.monotonic(), "", 0.0
        sample = settings.SAMPLES_DIR / f"sample-{language}.ogg"
        try:
            runner.start()
            for event in pipeline.transcribe_file(sample, model=model, options=TranscriptionOptions(), runner=runner):
                match event:
                    case {"event": "sound", "duration": duration}:
                        pass
                    case {"event": "segment", "segment": {"text": segment_text}}:
                        text += segment_text
        except (errors.RunnerDied, errors.EngineFailed) as problem:
            return enginecheck.crashed(engine, device, model, problem=str(problem))
        except errors.Problem as problem:
            self.stdout.write(f"  {problem}")
            return None
        finally:
            runner.stop()
        seconds = time.monotonic() - started
        self.stdout.write(f"  {text.strip()}")
        self.stdout.write(f"  {duration:.0f} s of speech in {seconds:.1f} s, {duration / seconds:.1f} times real time.")
        return enginecheck.judge(engine, device, model, language=language, text=text)

    def say_when_ready(self) -> None:
        while not is_server_ready():
            time.sleep(0.2)
        self.stdout.write(f"Stenograf is at {doctor.server_address()}/ (Ctrl-C stops it).")
        self.stdout.flush()


def _find_devices() -> list[str]:
    try:
        return devices.here()
    except errors.Problem as problem:
        raise CommandError(str(problem)) from problem


def _make_folders() -> None:
    settings.LOGS_DIR.mkdir(parents=True, exist_ok=True)
    for name in ("RECORDINGS_DIR", "UPLOADS_DIR"):
        folder: Path = getattr(settings, name)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)  # no parents: an unmounted share would look empty
        except OSError as error:
            mend = "Mount the disk, or make the folder for the user that runs Stenograf."
            raise CommandError(f"{name} is {folder}: {error.strerror}. {mend}") from error
    settings.DATA_DIR.chmod(0o700)
    settings.MODELS_DIR.mkdir(parents=True, exist_ok=True)


@contextmanager
def _setting_up_the_database() -> Iterator[None]:
    """Keep other servers from setting up the same database. An SQLite file has one server: DATA_DIR is locked."""
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        mend = "Start it, or correct DATABASE_URL."
        raise CommandError(f"The database does not answer ({str(error).strip()}). {mend}") from error
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        while True:  # pg_advisory_lock would fail after lock_timeout
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [SETUP_LOCK])
            if cursor.fetchone() == (True,):
                break
            time.sleep(0.2)
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [SETUP_LOCK])


def _lock_data_dir() -> IO[str]:
    """Lock DATA_DIR for this process: two servers with one folder would restart each other's workers."""
    lock = (settings.DATA_DIR / "serve.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise CommandError(f"Stenograf already runs over {settings.DATA_DIR}. Stop it, or set DATA_DIR.") from error
    return lock


def _static_fingerprint() -> str:
    digest = sha256()
    for finder in get_finders():
        for path, storage in finder.list([]):
            status = Path(storage.path(path)).stat()
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def is_server_ready() -> bool:
    try:
        with doctor.request_health(timeout=2):
            return True
    except OSError:  # URLError is one
        return False
