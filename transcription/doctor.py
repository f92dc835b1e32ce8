"""What is wrong with an installation, and how to mend it: a list of questions, each with its findings.

Nothing is changed, and the server may run meanwhile. As everywhere, only a child imports an engine's library.
"""

import gettext
import hashlib
import http.client
import json
import os
import platform
import sqlite3
import struct
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from celery import current_app
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.finders import get_finders
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core import checks
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from kombu.exceptions import OperationalError

from transcription import disk, errors, keys, processes
from transcription.models import ApiToken, Job, Recording, Worker
from transcription.outbound import chat
from transcription.queue import wakeups
from transcription.sound import audio
from transcription.weights import catalogue
from transcription.workers import devices, enginecheck

OLDEST_PYTHON = (3, 11)
SAMPLE = Path(__file__).parent / "samples" / "sample-en.ogg"
PATIENCE = 10  # seconds, with what should answer at once
IMPORT_PATIENCE = 120


class State(StrEnum):
    WELL = "well"
    NOTE = "note"  # worth knowing, not wrong
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """How something is, in a sentence that says what to do when it is wrong."""

    state: State
    said: str


def well(said: str) -> Finding:
    return Finding(State.WELL, said)


def note(said: str) -> Finding:
    return Finding(State.NOTE, said)


def wrong(said: str) -> Finding:
    return Finding(State.WRONG, said)


def examine(names: Sequence[str] = ()) -> Iterator[tuple[str, Finding]]:
    """Ask the questions of these names, or all of them; each finding comes with the name, as soon as it is found."""
    has_rows = True
    for name in names or QUESTIONS:
        if name in ABOUT_ROWS and not has_rows:
            continue
        findings = _answers(name)
        if name == "database":
            has_rows = all(finding.state != State.WRONG for finding in findings)
        yield from ((name, finding) for finding in findings)


def _answers(name: str) -> list[Finding]:
    try:
        return list(QUESTIONS[name]())
    except Exception as error:  # noqa: BLE001  (a doctor that falls ill is no help)
        return [wrong(f"{name} could not be looked at: {type(error).__name__}: {error}")]


# ---------------------------------------------------------------- this machine


def _python() -> Iterator[Finding]:
    found = tuple(int(part) for part in platform.python_version_tuple()[:2])
    if found < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        yield wrong(
            f"Python {platform.python_version()} is too old: make the virtual environment with {wanted} or newer."
        )
    else:
        yield well(f"Python {platform.python_version()}")


def _settings() -> Iterator[Finding]:
    """What Django and ours find in the settings; a value that cannot be read stops every program before this."""
    found = [said for said in checks.run_checks() if said.is_serious() and not said.is_silenced()]
    yield from (wrong(f"{said.msg} {said.hint or ''}".strip()) for said in found)
    if not found:
        yield well("The settings agree with each other")


def _time_zone() -> Iterator[Finding]:
    now = f"{timezone.localtime():%H:%M}"
    if settings.TIME_ZONE in ("UTC", "Etc/UTC"):
        yield note(f"Times are written in UTC, where it is {now}: set TZ if that is not meant.")
    else:
        yield well(f"The time zone is {settings.TIME_ZONE}, where it is {now}")


def _ffmpeg() -> Iterator[Finding]:
    """Not its version: it decodes the bundled sample, behind the same walls as any recording."""
    try:
        with tempfile.TemporaryDirectory(prefix="stenograf-") as folder:
            seconds = audio.decode(
                SAMPLE,
                Path(folder) / "sound.pcm",
                name=SAMPLE.name,
                max_seconds=60,
                on_probe=_ignore,
                on_progress=_ignore,
                should_stop=_never,
            )
    except errors.FFmpegMissing:
        yield wrong("There is no FFmpeg that runs: install it (apt-get install ffmpeg, brew install ffmpeg).")
    except errors.Problem as problem:
        yield wrong(f"{audio.ffmpeg_path()} cannot read the bundled sample ({problem}): install FFmpeg anew.")
    else:
        yield well(f"{audio.ffmpeg_path()} read the bundled sample, {seconds:.1f} s")


def _ignore(_: object) -> None:
    """Nobody waits for the progress of the sample."""


def _never() -> bool:
    return False


def _engine() -> Iterator[Finding]:
    """The engine, and what finds speech, loaded in a child."""
    engine = devices.engine()
    program = f"import {engine.module}; from transcription.whisper import vad; vad.get_vad_model()"
    environment = {**os.environ, **processes.SILENT, "PYTHONPATH": str(settings.BASE_DIR)}
    child = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=IMPORT_PATIENCE,
        check=False,
    )
    if child.returncode:
        last_words = (child.stderr.strip().splitlines() or [f"it ended with {child.returncode}"])[-1]
        mend = f"{sys.executable} -m pip install --force-reinstall -r requirements.txt"
        yield wrong(f"The engine {engine.name} cannot be loaded ({last_words}). Install it anew: {mend}")
    else:
        yield well(f"The engine {engine.name} can be loaded")
    for candidate in devices.candidates():
        verdict = enginecheck.verdict_on(candidate)
        if verdict is not None and verdict.problem:
            said = f"The engine {verdict.engine} {verdict.version} is set aside ({verdict.device}: {verdict.problem})"
            yield wrong(
                f"{said}. Mend its driver, or install another version, which is checked anew at the next start."
            )


def _devices() -> Iterator[Finding]:
    try:
        yield well(f"Speech is recognised on {', '.join(devices.here())}")
    except errors.Problem as problem:
        yield wrong(str(problem))


def _models() -> Iterator[Finding]:
    here = catalogue.local_models()
    if not here:
        yield wrong(f"There are no models in {settings.MODELS_DIR}: start the server, which fetches base if it can.")
        return
    try:
        model = catalogue.find(catalogue.default(), devices.engine().name)
    except errors.UnknownModel as problem:
        yield wrong(f"DEFAULT_MODEL: {problem}")
        return
    except errors.ModelMissing as problem:
        yield wrong(str(problem))
        return
    broken = list(_not_as_published(model))
    mend = f"Remove {model.path} and start the server, which fetches it; if it is another model, give it another name."
    yield from (wrong(f"The model {model.name} is not whole: {said}. {mend}") for said in broken)
    if not broken:
        yield well(f"Models: {', '.join(local.name for local in here)}; {model.name} is the default, and whole")


def _not_as_published(model: catalogue.LocalModel) -> Iterator[str]:
    """What is missing or other than the catalogue has it; reads every byte."""
    weights = catalogue.weights_for(model.name, model.engine)
    for file in weights.files if weights else ():
        path = model.path / file.name
        if not path.is_file():
            yield f"{file.name} is missing"
        elif path.stat().st_size != file.size_bytes:
            yield f"{file.name} has {path.stat().st_size} bytes of {file.size_bytes}"
        elif _sha256(path) != file.sha256:
            yield f"{file.name} is not the published one"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- what is on disk


def _folders() -> Iterator[Finding]:
    if not settings.DATA_DIR.is_dir():
        yield wrong(f"There is no folder {settings.DATA_DIR}: start the server, which makes it, or correct DATA_DIR.")
        return
    inside = (settings.RECORDINGS_DIR, settings.UPLOADS_DIR, settings.TEMPORARY_DIR, settings.LOGS_DIR)
    ours = (settings.DATA_DIR, *inside, settings.BROKER_DIR)
    found = [wrong(said) for folder in ours if (said := _unusable(folder))]
    if settings.DATA_DIR.stat().st_mode & 0o077:
        found.append(wrong(f"Others on this machine may look into {settings.DATA_DIR}: chmod 700 {settings.DATA_DIR}"))
    yield from found or [well(f"{settings.DATA_DIR} can be written to, by nobody else")]


def _unusable(folder: Path) -> str:
    """Why a folder cannot be written to, or nothing. One that is not there will be made."""
    if not folder.exists():
        return ""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"?")
    except OSError as error:
        return f"{folder} cannot be written to ({error.strerror}): give it to the user that runs Stenograf."
    return ""


def _space() -> Iterator[Finding]:
    reserve = settings.FREE_SPACE_RESERVE_BYTES
    shared = (settings.RECORDINGS_DIR, settings.UPLOADS_DIR)
    for folder in (settings.DATA_DIR, *(path for path in shared if not path.is_relative_to(settings.DATA_DIR))):
        free = disk.free_bytes(folder)
        there = f"{filesizeformat(free)} free on the disk of {folder}"
        if free < reserve:
            mend = "Free some, or lower FREE_SPACE_RESERVE_BYTES."
            yield wrong(f"Only {there}: uploads are refused below {filesizeformat(reserve)}. {mend}")
        else:
            yield well(there)


def _database() -> Iterator[Finding]:
    said = _broken_sqlite(Path(settings.DATABASES["default"]["NAME"])) if connection.vendor == "sqlite" else ""
    if said:
        yield wrong(said)
        return
    try:
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        yield wrong(f"The database does not answer ({str(error).strip()}): start it, or correct DATABASE_URL.")
        return
    if plan:
        mend = "start the server, which applies them, or run manage.py migrate."
        yield wrong(f"Migrations that the database lacks: {len(plan)}; {mend}")
    else:
        name = f"{connection.display_name} {'.'.join(map(str, connection.get_database_version()))}"
        yield well(f"The database ({name}) answers, is whole and has every migration")


def _broken_sqlite(path: Path) -> str:
    """What is wrong with the database's file, or nothing."""
    if not path.exists():
        return f"There is no database at {path}: start the server, which makes it."
    address = f"file:{quote(str(path))}?mode=rw"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=PATIENCE, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")  # only this shows that it can be written to
            database.execute("ROLLBACK")
            said = ", ".join(words for (words,) in database.execute("PRAGMA quick_check(3)"))
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return f"{path} has been locked for {PATIENCE} s: find the program that holds it (lsof {path}) and end it."
        return f"{path} cannot be used ({error}): give it and its folder to the user that runs Stenograf."
    except sqlite3.DatabaseError as error:
        said = str(error)
    mend = f"stop the server, move away every file named {path.name}*, and put your last backup in its place."
    return "" if said == "ok" else f"{path} is damaged ({said}): {mend}"


def _static() -> Iterator[Finding]:
    """Whether each file that the pages need is collected, as it is now."""
    paths = [(path, Path(storage.path(path))) for finder in get_finders() for path, storage in finder.list([])]
    if stale := [path for path, source in paths if not _is_collected(path, source)]:
        mend = "start the server anew, which collects them, or run manage.py collectstatic --noinput --clear."
        yield wrong(f"Static files missing or old in {settings.STATIC_ROOT}: {len(stale)}, such as {stale[0]}; {mend}")
    else:
        yield well(f"All {len(paths)} static files are collected")


def _is_collected(path: str, source: Path) -> bool:
    collected = Path(settings.STATIC_ROOT) / path
    try:
        staticfiles_storage.url(path)
        return collected.read_bytes() == source.read_bytes()
    except (FileNotFoundError, ValueError):  # ValueError: it is not in the manifest
        return False


def _languages() -> Iterator[Finding]:
    folders = sorted(path.parent for folder in settings.LOCALE_PATHS for path in folder.glob("*/LC_MESSAGES/django.po"))
    for folder in folders:
        language = folder.parent.name
        try:
            with (folder / "django.mo").open("rb") as file:
                gettext.GNUTranslations(file)
        except (OSError, ValueError, struct.error) as error:  # it is missing, or cut off
            mend = f"git checkout {folder.parent}, or manage.py compilemessages where gettext is installed."
            yield wrong(f"The pages lack their sentences in {language} ({error}): {mend}")
        else:
            yield well(f"The pages have their sentences in {language}")


# ---------------------------------------------------------------- what runs


def _server() -> Iterator[Finding]:
    try:
        told = _ask_health()
    except ConnectionRefusedError:
        yield note(f"The server does not run at {_address()}: make run starts it.")
    except OSError as error:
        logs = settings.LOGS_DIR / "web.log"
        yield wrong(f"The server at {_address()} does not answer ({error}): look into {logs}, and start it anew.")
    except (ValueError, http.client.HTTPException):
        yield wrong(f"What answers at {_address()} is not Stenograf: stop it, or set PORT.")
    else:
        if told["ok"]:
            yield well(f"The server at {_address()} is healthy, with {told['workers']} workers and {told['model']}")
        else:
            yield wrong(f"The server at {_address()} says: {told['error']} The reason is in {settings.LOGS_DIR}.")


def _address() -> str:
    host = "localhost" if settings.HOST in ("127.0.0.1", "0.0.0.0", "::") else settings.HOST  # noqa: S104
    return f"http://[{host}]:{settings.PORT}" if ":" in host else f"http://{host}:{settings.PORT}"


def _ask_health() -> dict[str, Any]:
    """What /health says. Raises ConnectionRefusedError and other OSErrors, ValueError and HTTPException."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy is for the world outside
    try:
        with direct.open(f"{_address()}/health", timeout=PATIENCE) as answer:
            told = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            told = json.load(error)
    except urllib.error.URLError as error:
        raise (error.reason if isinstance(error.reason, OSError) else error) from error
    if not isinstance(told, dict) or "ok" not in told:
        raise ValueError
    return told


def _workers() -> Iterator[Finding]:
    alive = list(Worker.alive())
    yield well(f"Alive: {', '.join(map(str, alive))}") if alive else note("No worker is alive: the server starts them.")


def _jobs() -> Iterator[Finding]:
    unfinished = Job.objects.filter(status__in=Job.UNFINISHED)
    decoding = unfinished.filter(status=Job.Status.TRANSCRIBING)
    kinds = set(Worker.alive().values_list("kind", flat=True))
    stuck = {
        "default": 0 if Worker.Kind.DEFAULT in kinds else unfinished.exclude(status=Job.Status.TRANSCRIBING).count(),
        "device": 0 if Worker.Kind.DEVICE in kinds else decoding.count(),
    }
    for kind, count in stuck.items():
        if count:
            yield wrong(f"Jobs that wait while no {kind} worker is alive: {count}. Start the server, and they go on.")
    waiting = (
        unfinished.exclude(waiting_for="").values_list("waiting_for").annotate(Count("pk")).order_by("waiting_for")
    )
    for code, count in waiting:
        yield note(f"Jobs that wait: {count}. {errors.filled(errors.why_waiting(code), {'code': code})}")
    missing = sum(not recording.path.exists() for recording in Recording.objects.filter(jobs__in=unfinished)[:100])
    if missing:
        mend = "have RECORDINGS_DIR name the folder that all machines share, and see that its disk is mounted."
        yield wrong(f"Recordings that jobs wait for and {settings.RECORDINGS_DIR} lacks: {missing}; {mend}")
    if not any(stuck.values()) and not missing:
        yield well(f"Jobs under way: {unfinished.count()}")


def _broker() -> Iterator[Finding]:
    if not settings.CELERY_BROKER_URL.startswith("files:"):
        yield answer_of_the_broker()
        return
    bad = _listing(settings.BROKER_DIR / "bad")
    if bad:
        folder = settings.BROKER_DIR / "bad"
        yield wrong(f"Damaged messages set aside: {len(bad)}. See that the disk is well, then empty {folder}")
    alive = set(Worker.alive().values_list("queue", flat=True))
    names = _listing(settings.BROKER_DIR / "messages")
    untaken = {name for name in map(_queue_of, names) if _is_work(name) and name not in alive}
    for name in sorted(untaken):
        if alive:
            said = f"Wake-ups lie in {settings.BROKER_DIR / 'messages'} for {name}, which no worker serves"
            yield wrong(f"{said}: start its worker, or remove the files named *.{quote(name)}.msg.")
        else:
            yield note(f"Wake-ups wait for the worker of {name}, which takes them when it starts.")
    if not bad and not (untaken and alive):
        yield well(f"The broker in {settings.BROKER_DIR} is in order")


def _listing(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _queue_of(message: str) -> str:
    return unquote(message.partition(".")[2].removesuffix(".msg"))


def _is_work(name: str) -> bool:
    """Whether it is a queue of ours: pings and their answers have queues too."""
    return name == wakeups.DEFAULT_QUEUE or name.startswith(wakeups.DEVICE_QUEUE_PREFIX)


def answer_of_the_broker() -> Finding:
    """Whether the broker can be reached; a folder always can."""
    kind = settings.CELERY_BROKER_URL.partition(":")[0]  # no more of it: there is a password in it
    try:
        with current_app.connection_for_write(connect_timeout=PATIENCE) as broker:
            broker.ensure_connection(max_retries=1, interval_start=0)
    except (OperationalError, OSError) as error:
        return wrong(f"The broker ({kind}) does not answer ({error}): start it, or correct CELERY_BROKER_URL.")
    except (ImportError, AttributeError) as error:  # kombu meets a None where the package is missing
        return wrong(f"The package that speaks to a broker of the kind {kind} is missing ({error}): install it.")
    return well(f"The broker ({kind}) answers")


def _language_model() -> Iterator[Finding]:
    if not settings.LLM_BASE_URL:
        yield well("No language model improves texts: LLM_BASE_URL is empty")
        return
    mend = "start it, or correct LLM_BASE_URL and LLM_API_KEY."
    try:
        names = chat.configured(_no_beat, seconds=PATIENCE).models()
    except chat.Unanswered as problem:
        yield wrong(f"The language model at {settings.LLM_BASE_URL} does not answer ({problem}): {mend}")
        return
    if settings.LLM_MODEL and settings.LLM_MODEL not in names:
        yield note(f"The server at {settings.LLM_BASE_URL} does not list LLM_MODEL, {settings.LLM_MODEL}.")
    yield well(f"The language model at {settings.LLM_BASE_URL} answers")


def _no_beat() -> None:
    """No lease is to be kept."""


def _administrator() -> Iterator[Finding]:
    if get_user_model().objects.filter(is_superuser=True, is_active=True).exists():
        yield well("There is an administrator")
    else:
        yield wrong("There is no administrator: manage.py createsuperuser makes one.")


def _keys() -> Iterator[Finding]:
    path = settings.KEYS_FILE
    if not path.exists():
        yield note(f"There is no {path}: keys to the API are made in the dashboard alone, until the next start.")
        return
    found = keys.in_file()
    if keys.is_readable_by_others(path):
        yield wrong(f"Others on this machine may read the keys in {path}: chmod 600 {path}")
    if short := sum(len(key) < keys.LONG_ENOUGH for key in found):
        yield wrong(f"{short} of the keys in {path} could be guessed: put others there, of `openssl rand -hex 32`.")
    known = set(ApiToken.objects.values_list("digest", flat=True))
    unread = sum(ApiToken.digest_of(key) not in known for key in found)
    gone = ApiToken.objects.filter(is_from_file=True).exclude(digest__in=map(ApiToken.digest_of, found)).count()
    if unread or gone:
        yield note(f"{path} was changed since it was read: POST /keys/reload, or a start, reads it again.")
    yield well(f"Keys in {path}: {len(found)}")


def _retention() -> Iterator[Finding]:
    sound, rows = (_for(days) for days in (settings.RETENTION_DAYS_AUDIO, settings.RETENTION_DAYS_JOBS))
    yield well(f"After a job has ended its sound is kept {sound}, and its text {rows}")


def _for(days: int) -> str:
    return f"for {days} days" if days else "for good"


QUESTIONS: dict[str, Callable[[], Iterator[Finding]]] = {
    "python": _python,
    "settings": _settings,
    "time_zone": _time_zone,
    "retention": _retention,
    "ffmpeg": _ffmpeg,
    "engine": _engine,
    "devices": _devices,
    "models": _models,
    "folders": _folders,
    "space": _space,
    "static": _static,
    "languages": _languages,
    "database": _database,
    "administrator": _administrator,
    "keys": _keys,
    "server": _server,
    "workers": _workers,
    "jobs": _jobs,
    "broker": _broker,
    "language_model": _language_model,
}
ABOUT_ROWS = {"administrator", "keys", "workers", "jobs", "broker"}
