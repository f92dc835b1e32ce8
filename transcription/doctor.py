"""What is wrong with an installation, and how to mend it: one function for each question, each with its findings.

Nothing is changed, and the server may run meanwhile. Only a child process imports an engine's library.
"""

import gettext
import hashlib
import http.client
import json
import os
import platform
import socket
import sqlite3
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from celery import current_app
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.finders import get_finders
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core import checks, signing
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from kombu.exceptions import OperationalError

from transcription import disk, errors, keys, processes, proxies, sentences
from transcription.models import ApiToken, Job, Recording, Worker
from transcription.outbound import addresses, chat
from transcription.outbound.addresses import Address
from transcription.outbound.connection import request
from transcription.queue import wakeups
from transcription.sound import audio
from transcription.weights import catalogue
from transcription.workers import devices, enginecheck

OLDEST_PYTHON = (3, 11)
ANSWER_SECONDS = 10  # the timeout for what should answer at once
MOST_OF_AN_ANSWER = 64 * 1024  # bytes of an answer that is a page of somebody else's
IMPORT_SECONDS = 120


class State(StrEnum):
    WELL = "well"
    NOTE = "note"  # worth knowing, not wrong
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """The state of one thing; the sentence also says what to do when it is wrong."""

    state: State
    sentence: str


def well(sentence: str) -> Finding:
    return Finding(State.WELL, sentence)


def note(sentence: str) -> Finding:
    return Finding(State.NOTE, sentence)


def wrong(sentence: str) -> Finding:
    return Finding(State.WRONG, sentence)


def examine(names: Sequence[str] = ()) -> Iterator[tuple[str, Finding]]:
    """Ask the named questions, or all; yield each finding with its question's name, one question at a time."""
    is_database_usable = True
    for name in names or QUESTIONS:
        if name in READS_ROWS and not is_database_usable:
            continue
        try:
            findings = list(QUESTIONS[name]())
        except Exception as error:  # noqa: BLE001  (the other questions still need an answer)
            findings = [wrong(f"{name} could not be looked at: {type(error).__name__}: {error}")]
        if name == "database":
            is_database_usable = all(finding.state != State.WRONG for finding in findings)
        for finding in findings:
            yield name, finding


# ---------------------------------------------------------------- this machine


def check_python() -> Iterator[Finding]:
    version = platform.python_version()
    if tuple(int(part) for part in platform.python_version_tuple()[:2]) < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        yield wrong(f"Python {version} is too old: make the virtual environment with {wanted} or newer.")
    else:
        yield well(f"Python {version}")


def check_settings() -> Iterator[Finding]:
    """What the system checks find. A value that cannot be read stops every program before it comes to this."""
    serious = [message for message in checks.run_checks() if message.is_serious() and not message.is_silenced()]
    for message in serious:
        yield wrong(f"{message.msg} {message.hint or ''}".strip())
    if not serious:
        yield well("The settings agree with each other")


def check_time_zone() -> Iterator[Finding]:
    now = f"{timezone.localtime():%H:%M}"
    if settings.TIME_ZONE in ("UTC", "Etc/UTC"):
        yield note(f"Times are written in UTC, where it is {now}: set TZ if that is not meant.")
    else:
        yield well(f"The time zone is {settings.TIME_ZONE}, where it is {now}")


def check_ffmpeg() -> Iterator[Finding]:
    """Whether it decodes the bundled sample, under the same limits as any recording; its version says less."""
    sample = settings.SAMPLES_DIR / "sample-en.ogg"
    try:
        with tempfile.TemporaryDirectory(prefix="stenograf-") as folder:
            decoded = audio.decode(
                sample,
                Path(folder) / "sound.pcm",
                name=sample.name,
                max_seconds=60,
                on_probe=lambda _: None,
                on_progress=lambda _: None,
                should_stop=lambda: False,
            )
    except errors.FFmpegMissing:
        yield wrong("There is no FFmpeg that runs: install it (apt-get install ffmpeg, brew install ffmpeg).")
    except errors.Problem as problem:
        yield wrong(f"{audio.ffmpeg_path()} cannot read the bundled sample ({problem}): install FFmpeg anew.")
    else:
        yield well(f"{audio.ffmpeg_path()} read the bundled sample, {decoded.duration:.1f} s")


def check_engine() -> Iterator[Finding]:
    """Whether a child can load the engine and the speech detector, and which engines failed on the sample."""
    engine = devices.engine()
    program = f"import {engine.module}; from transcription.whisper import vad; vad.get_vad_model()"
    environment = {**os.environ, **processes.SILENT, "PYTHONPATH": str(settings.BASE_DIR)}
    child = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=IMPORT_SECONDS,
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
            failed = f"The engine {verdict.engine} {verdict.version} is set aside ({verdict.device}: {verdict.problem})"
            mend = "Mend its driver, or install another version, which is checked anew at the next start."
            yield wrong(f"{failed}. {mend}")


def check_devices() -> Iterator[Finding]:
    try:
        yield well(f"Speech is recognised on {', '.join(devices.here())}")
    except errors.Problem as problem:
        yield wrong(str(problem))


def check_models() -> Iterator[Finding]:
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
    differences = list(_differences_from_published(model))
    mend = f"Remove {model.path} and start the server, which fetches it; if it is another model, give it another name."
    for difference in differences:
        yield wrong(f"The model {model.name} is not whole: {difference}. {mend}")
    if not differences:
        yield well(f"Models: {', '.join(local.name for local in here)}; {model.name} is the default, and whole")


def _differences_from_published(model: catalogue.LocalModel) -> Iterator[str]:
    """The files that are missing or not as the catalogue has them. Reads every byte."""
    weights = catalogue.weights_for(model.name, model.engine)
    for file in weights.files if weights else ():
        path = model.path / file.name
        if not path.is_file():
            yield f"{file.name} is missing"
        elif path.stat().st_size != file.size_bytes:
            yield f"{file.name} has {path.stat().st_size} bytes of {file.size_bytes}"
        else:
            with path.open("rb") as stored:
                sha256 = hashlib.file_digest(stored, "sha256").hexdigest()
            if sha256 != file.sha256:
                yield f"{file.name} is not the published one"


# ---------------------------------------------------------------- what is on disk


def check_folders() -> Iterator[Finding]:
    if not settings.DATA_DIR.is_dir():
        yield wrong(f"There is no folder {settings.DATA_DIR}: start the server, which makes it, or correct DATA_DIR.")
        return
    inside = (settings.RECORDINGS_DIR, settings.UPLOADS_DIR, settings.TEMPORARY_DIR, settings.LOGS_DIR)
    problems = []
    for folder in (settings.DATA_DIR, *inside, settings.BROKER_DIR):
        if not folder.exists():  # the server makes it
            continue
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"?")
        except OSError as error:
            mend = "give it to the user that runs Stenograf."
            problems.append(wrong(f"{folder} cannot be written to ({error.strerror}): {mend}"))
    if settings.DATA_DIR.stat().st_mode & 0o077:
        mend = f"chmod 700 {settings.DATA_DIR}"
        problems.append(wrong(f"Others on this machine may look into {settings.DATA_DIR}: {mend}"))
    yield from problems or [well(f"{settings.DATA_DIR} can be written to, by nobody else")]


def check_space() -> Iterator[Finding]:
    reserve = settings.FREE_SPACE_RESERVE_BYTES
    files = (settings.RECORDINGS_DIR, settings.UPLOADS_DIR)
    elsewhere = [folder for folder in files if not folder.is_relative_to(settings.DATA_DIR)]
    for folder in (settings.DATA_DIR, *elsewhere):
        free = disk.free_bytes(folder)
        sentence = f"{filesizeformat(free)} free on the disk of {folder}"
        if free < reserve:
            mend = "Free some, or lower FREE_SPACE_RESERVE_BYTES."
            yield wrong(f"Only {sentence}: uploads are refused below {filesizeformat(reserve)}. {mend}")
        else:
            yield well(sentence)


def check_database() -> Iterator[Finding]:
    if connection.vendor == "sqlite" and (problem := _problem_of_sqlite(Path(settings.DATABASES["default"]["NAME"]))):
        yield wrong(problem)
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


def _problem_of_sqlite(path: Path) -> str:
    """What is wrong with the database's file; empty if nothing is."""
    if not path.exists():
        return f"There is no database at {path}: start the server, which makes it."
    address = f"file:{quote(str(path))}?mode=rw"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=ANSWER_SECONDS, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")  # fails if the file cannot be written to
            database.execute("ROLLBACK")
            result = ", ".join(row for (row,) in database.execute("PRAGMA quick_check(3)"))
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            mend = f"find the program that holds it (lsof {path}) and end it."
            return f"{path} has been locked for {ANSWER_SECONDS} s: {mend}"
        return f"{path} cannot be used ({error}): give it and its folder to the user that runs Stenograf."
    except sqlite3.DatabaseError as error:
        result = str(error)
    mend = f"stop the server, move away every file named {path.name}*, and put your last backup in its place."
    return "" if result == "ok" else f"{path} is damaged ({result}): {mend}"


def check_static() -> Iterator[Finding]:
    """Whether each file that the pages need is collected and up to date."""
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
    except (FileNotFoundError, ValueError):  # ValueError: the manifest does not list it
        return False


def check_languages() -> Iterator[Finding]:
    folders = sorted(path.parent for folder in settings.LOCALE_PATHS for path in folder.glob("*/LC_MESSAGES/django.po"))
    for folder in folders:
        language = folder.parent.name
        try:
            with (folder / "django.mo").open("rb") as file:
                gettext.GNUTranslations(file)
        except (OSError, ValueError, struct.error) as error:  # the file is missing or truncated
            mend = f"git checkout {folder.parent}, or manage.py compilemessages where gettext is installed."
            yield wrong(f"The pages lack their sentences in {language} ({error}): {mend}")
        else:
            yield well(f"The pages have their sentences in {language}")


# ---------------------------------------------------------------- what runs


def check_server() -> Iterator[Finding]:
    address = server_address()
    try:
        health = _get_health()
    except ConnectionRefusedError:
        yield note(f"The server does not run at {address}: make run starts it.")
    except OSError as error:
        logs = settings.LOGS_DIR / "web.log"
        yield wrong(f"The server at {address} does not answer ({error}): look into {logs}, and start it anew.")
    except (ValueError, http.client.HTTPException):
        yield wrong(f"What answers at {address} is not Stenograf: stop it, or set PORT.")
    else:
        if health["ok"]:
            yield well(f"The server at {address} is healthy, with {health['workers']} workers and {health['model']}")
        else:
            yield wrong(f"The server at {address} says: {health['error']} The reason is in {settings.LOGS_DIR}.")


def server_address() -> str:
    """The address of this installation's server, as a browser on this machine opens it."""
    host = "localhost" if settings.HOST == "127.0.0.1" else settings.HOST
    return addresses.server_url(host, settings.PORT, everywhere="localhost")


def request_health(timeout: float) -> http.client.HTTPResponse:
    """Ask this installation's server how it is. Raises HTTPError for an answer that is not 2xx."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy is for other machines
    response: http.client.HTTPResponse = direct.open(f"{server_address()}/health", timeout=timeout)
    return response


def _get_health() -> dict[str, Any]:
    """The body of /health. Raises ConnectionRefusedError and other OSErrors, ValueError and HTTPException."""
    try:
        with request_health(ANSWER_SECONDS) as response:
            body = json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            body = json.load(error)
    except urllib.error.URLError as error:
        raise (error.reason if isinstance(error.reason, OSError) else error) from error
    if not isinstance(body, dict) or "ok" not in body:
        raise ValueError
    return body


def check_public_address() -> Iterator[Finding]:
    """Whether this server is reached by PUBLIC_URL, and what a proxy on the way leaves out or changes."""
    public = settings.PUBLIC_ADDRESS
    if public is None:
        yield well(f"Others know this server as {settings.PUBLIC_URL}: PUBLIC_URL is not set")
        return
    try:
        _get_health()
    except (OSError, ValueError, http.client.HTTPException):
        yield note(f"Nothing was asked by way of {public.url}: the server does not run, or is not healthy.")
        return
    try:
        status, body = _ask_publicly(public)
    except TimeoutError:
        mend = "See that the proxy runs and that a firewall lets this machine through to it."
        yield wrong(f"{public.url} has not answered within {ANSWER_SECONDS} s. {mend}")
    except socket.gaierror as error:
        mend = "Correct PUBLIC_URL, or have this machine know the name."
        yield wrong(f"The name in {public.url} leads nowhere ({error.strerror}). {mend}")
    except ssl.SSLCertVerificationError as error:
        mend = "Renew it or correct PUBLIC_URL; SSL_CERT_FILE names the certificate of an authority of your own."
        yield wrong(f"The certificate at {public.url} is not good ({error.verify_message}). {mend}")
    except (ssl.SSLError, http.client.HTTPException) as error:
        spoken = "HTTPS" if public.scheme == "https" else "HTTP"
        yield wrong(f"What answers at {public.url} does not speak {spoken} ({error}): correct PUBLIC_URL or the proxy.")
    except OSError as error:
        reason = error.strerror or error
        yield wrong(f"{public.url} cannot be reached ({reason}): start the proxy, or correct PUBLIC_URL.")
    else:
        yield from _findings_on_the_way(public, status, body)


def _ask_publicly(public: Address) -> tuple[int, dict[str, Any]]:
    """The status and the JSON of /health at the public address; a redirect is in it as `location`.

    All within ANSWER_SECONDS. Raises TimeoutError and other OSErrors, and HTTPException.
    """
    deadline = time.monotonic() + ANSWER_SECONDS

    def left() -> float:
        if (remaining := deadline - time.monotonic()) <= 0:
            raise TimeoutError
        return remaining

    word = {proxies.DOCTOR: signing.dumps("", salt=proxies.DOCTOR)}
    places = socket.getaddrinfo(public.host, public.port, type=socket.SOCK_STREAM)
    health = replace(public, path=f"{public.path}/health")
    with request("GET", health, None, word, places=places, left=left) as response:
        try:
            body = json.loads(response.read(MOST_OF_AN_ANSWER))
        except ValueError:
            body = None
        location = {"location": response.headers["Location"]} if "Location" in response.headers else {}
        return response.status, {**(body if isinstance(body, dict) else {}), **location}


def _findings_on_the_way(public: Address, status: int, body: dict[str, Any]) -> Iterator[Finding]:
    """What the public address answered, compared with what was sent."""
    own = f"http://{settings.HOST}:{settings.PORT}"
    seen = body.get("seen")
    if "location" in body:
        yield wrong(f"{public.url} leads on to {body['location']}: set PUBLIC_URL to the address that it ends at.")
    elif status in (502, 503, 504) and seen is None:
        mend = f"Have it pass requests on to {own}, and set HOST=0.0.0.0 if it is on another machine or in a container."
        yield wrong(f"The proxy at {public.url} does not reach this server (status {status}). {mend}")
    elif status == 400 and "PUBLIC_URL" in str(body.get("error")):
        yield wrong(f"The proxy does not pass on the name {public.authority}: have it send the header Host as it came.")
    elif "ok" in body and seen is None:
        mend = "Correct PUBLIC_URL or the proxy; after a change of the settings or an upgrade start the server anew."
        yield wrong(f"Another Stenograf answers at {public.url}. {mend}")
    elif seen is None:
        mend = f"Correct PUBLIC_URL, or have the proxy pass {public.path or '/'} on to {own}."
        yield wrong(f"What answers at {public.url} is not Stenograf (status {status}). {mend}")
    else:
        yield from findings_in_request(public, seen)


def findings_in_request(public: Address, seen: dict[str, Any]) -> Iterator[Finding]:
    """What the server says of the request that came by its public address."""
    problems = []
    if seen["host"] not in (public.authority, public.host):
        mend = "Have the proxy send the header Host as it came (nginx: proxy_set_header Host $http_host)."
        problems.append(wrong(f"The server is asked as {seen['host']} instead of {public.authority}. {mend}"))
    elif seen["scheme"] != public.scheme:
        mend = "Set PUBLIC_URL to the address that people open, or correct the proxy's X-Forwarded-Proto."
        problems.append(wrong(f"{public.url} was asked, and the proxy says that it was {seen['scheme']}. {mend}"))
    is_direct = (public.scheme, public.port) == ("http", settings.PORT)
    proxy = seen["proxy"]
    if seen["has_passed_a_proxy"] and not seen["is_proxy_known"]:
        mend = f"Until TRUSTED_PROXIES has {proxy}, everybody's address is that one."
        problems.append(wrong(f"The proxy's address, {proxy}, is not in TRUSTED_PROXIES. {mend}"))
    elif not is_direct and seen["client"] == proxy and not seen["is_proxy_known"]:
        mend = f"Have it send X-Forwarded-For, and add {proxy} to TRUSTED_PROXIES: everybody's address is that one."
        problems.append(wrong(f"The proxy at {proxy} does not say who asks. {mend}"))
    elif not is_direct and not seen["has_passed_a_proxy"]:
        mend = "Have it send X-Forwarded-For: everybody's address is the proxy's."
        problems.append(wrong(f"The proxy at {proxy} does not say who asks. {mend}"))
    yield from problems or [well(f"{public.url} leads here, and this machine is {seen['client']} there")]


def check_workers() -> Iterator[Finding]:
    alive = list(Worker.alive())
    yield well(f"Alive: {', '.join(map(str, alive))}") if alive else note("No worker is alive: the server starts them.")


def check_jobs() -> Iterator[Finding]:
    unfinished = Job.objects.filter(status__in=Job.UNFINISHED)
    jobs_of_kind = {
        "default": unfinished.exclude(status=Job.Status.TRANSCRIBING),
        "device": unfinished.filter(status=Job.Status.TRANSCRIBING),
    }
    alive_kinds = set(Worker.alive().values_list("kind", flat=True))
    stuck = {kind: jobs.count() for kind, jobs in jobs_of_kind.items() if kind not in alive_kinds}
    for kind, count in stuck.items():
        if count:
            yield wrong(f"Jobs that wait while no {kind} worker is alive: {count}. Start the server, and they go on.")
    waiting = unfinished.exclude(waiting_for="").values_list("waiting_for").annotate(Count("pk"))
    for code, count in waiting.order_by("waiting_for"):
        yield note(f"Jobs that wait: {count}. {sentences.describe_waiting(code)}")
    missing = sum(not recording.path.exists() for recording in Recording.objects.filter(jobs__in=unfinished)[:100])
    if missing:
        mend = "have RECORDINGS_DIR name the folder that all machines share, and see that its disk is mounted."
        yield wrong(f"Recordings that jobs wait for and {settings.RECORDINGS_DIR} lacks: {missing}; {mend}")
    if not any(stuck.values()) and not missing:
        yield well(f"Jobs under way: {unfinished.count()}")


def check_broker() -> Iterator[Finding]:
    if not settings.CELERY_BROKER_URL.startswith("files:"):
        yield check_broker_connection()
        return
    messages, damaged = settings.BROKER_DIR / "messages", settings.BROKER_DIR / "bad"
    damaged_count = sum(1 for _ in damaged.iterdir()) if damaged.is_dir() else 0
    if damaged_count:
        yield wrong(f"Damaged messages set aside: {damaged_count}. See that the disk is well, then empty {damaged}")
    alive = set(Worker.alive().values_list("queue", flat=True))
    unserved = _queues_with_messages(messages) - alive
    for queue in sorted(unserved):
        if alive:
            problem = f"Wake-ups lie in {messages} for {queue}, which no worker serves"
            yield wrong(f"{problem}: start its worker, or remove the files named *.{quote(queue)}.msg.")
        else:
            yield note(f"Wake-ups wait for the worker of {queue}, which takes them when it starts.")
    if not damaged_count and not (unserved and alive):
        yield well(f"The broker in {settings.BROKER_DIR} is in order")


def _queues_with_messages(folder: Path) -> set[str]:
    """Our workers' queues that the file names in the broker's folder mention; Celery's own have messages too."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    queues = {unquote(name.partition(".")[2].removesuffix(".msg")) for name in names}
    return {name for name in queues if name == wakeups.DEFAULT_QUEUE or name.startswith(wakeups.DEVICE_QUEUE_PREFIX)}


def check_broker_connection() -> Finding:
    """Whether the broker can be reached; a folder always can."""
    kind = settings.CELERY_BROKER_URL.partition(":")[0]  # the rest of the URL may hold a password
    try:
        with current_app.connection_for_write(connect_timeout=ANSWER_SECONDS) as broker:
            broker.ensure_connection(max_retries=1, interval_start=0)
    except (OperationalError, OSError) as error:
        return wrong(f"The broker ({kind}) does not answer ({error}): start it, or correct CELERY_BROKER_URL.")
    except (ImportError, AttributeError) as error:  # AttributeError: kombu has None in place of a missing package
        return wrong(f"The package that speaks to a broker of the kind {kind} is missing ({error}): install it.")
    return well(f"The broker ({kind}) answers")


def check_language_model() -> Iterator[Finding]:
    if not settings.LLM_BASE_URL:
        yield well("No language model improves texts: LLM_BASE_URL is empty")
        return
    mend = "start it, or correct LLM_BASE_URL and LLM_API_KEY."
    try:
        names = chat.configured(lambda: None, seconds=ANSWER_SECONDS).models()
    except chat.Unanswered as problem:
        yield wrong(f"The language model at {settings.LLM_BASE_URL} does not answer ({problem}): {mend}")
        return
    if settings.LLM_MODEL and settings.LLM_MODEL not in names:
        yield note(f"The server at {settings.LLM_BASE_URL} does not list LLM_MODEL, {settings.LLM_MODEL}.")
    yield well(f"The language model at {settings.LLM_BASE_URL} answers")


def check_administrator() -> Iterator[Finding]:
    if get_user_model().objects.filter(is_superuser=True, is_active=True).exists():
        yield well("There is an administrator")
    else:
        yield wrong("There is no administrator: manage.py createsuperuser makes one.")


def check_keys() -> Iterator[Finding]:
    path = settings.KEYS_FILE
    if not path.exists():
        yield note(f"There is no {path}: keys to the API are made in the dashboard alone, until the next start.")
        return
    in_file = keys.in_file()
    if keys.is_readable_by_others(path):
        yield wrong(f"Others on this machine may read the keys in {path}: chmod 600 {path}")
    if short := sum(len(key) < keys.LONG_ENOUGH for key in in_file):
        yield wrong(f"{short} of the keys in {path} could be guessed: put others there, of `openssl rand -hex 32`.")
    digests = {ApiToken.digest_of(key) for key in in_file}
    is_new = not digests <= set(ApiToken.objects.values_list("digest", flat=True))
    is_gone = ApiToken.objects.filter(is_from_file=True).exclude(digest__in=digests).exists()
    if is_new or is_gone:
        yield note(f"{path} was changed since it was read: POST /keys/reload, or a start, reads it again.")
    yield well(f"Keys in {path}: {len(in_file)}")


def check_retention() -> Iterator[Finding]:
    days = (settings.RETENTION_DAYS_AUDIO, settings.RETENTION_DAYS_JOBS)
    sound, text = (f"for {count} days" if count else "for good" for count in days)
    yield well(f"After a job has ended its sound is kept {sound}, and its text {text}")


QUESTIONS: dict[str, Callable[[], Iterator[Finding]]] = {
    "python": check_python,
    "settings": check_settings,
    "time_zone": check_time_zone,
    "retention": check_retention,
    "ffmpeg": check_ffmpeg,
    "engine": check_engine,
    "devices": check_devices,
    "models": check_models,
    "folders": check_folders,
    "space": check_space,
    "static": check_static,
    "languages": check_languages,
    "database": check_database,
    "administrator": check_administrator,
    "keys": check_keys,
    "server": check_server,
    "public_address": check_public_address,
    "workers": check_workers,
    "jobs": check_jobs,
    "broker": check_broker,
    "language_model": check_language_model,
}
READS_ROWS = {"administrator", "keys", "workers", "jobs", "broker"}
