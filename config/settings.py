"""Every setting, and every environment variable that is read.

A variable comes from the environment or from `.env` beside manage.py. Each has a default that works on a laptop; a
wrong value stops the program with the name of the variable.
"""

import os
import re
import secrets
import socket
import warnings
from dataclasses import replace
from importlib.util import find_spec
from logging import LogRecord
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import environ
from django.core.exceptions import ImproperlyConfigured
from django.utils.log import CallbackFilter
from tzlocal import get_localzone_name

from transcription.outbound.addresses import Address, Allowed, server_url
from transcription.parameters import OPTIONS, InvalidParameter, Parameter
from transcription.proxies import NEAR, ON_THIS_MACHINE, Proxies

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
environ.Env.read_env(BASE_DIR / ".env")


def _path(name: str, default: str) -> Path:
    """A folder or file from the environment; a relative one counts from the project's root."""
    return BASE_DIR / Path(str(env.str(name, default=default)))


def _integer(name: str, default: int, lowest: int = 0, highest: int | None = None) -> int:
    value = env.str(name, default=str(default))
    if not value.isdecimal() or int(value) < lowest or (highest is not None and int(value) > highest):
        allowed = f"{lowest} or more" if highest is None else f"{lowest} to {highest}"
        raise ImproperlyConfigured(f"{name} is {value!r}: write a whole number, {allowed}.")
    return int(value)


def _boolean(name: str, default: bool) -> bool:
    value = env.str(name, default=str(default)).lower()
    if value not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        raise ImproperlyConfigured(f"{name} is {value!r}: write true or false.")
    return value in ("true", "1", "yes", "on")


PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


def _rate(name: str) -> tuple[int, int]:
    """A number and the seconds that it is for, from `60/hour`; a number without a period is for an hour."""
    value = str(env.str(name, default="0")).lower()
    count, slash, period = value.partition("/")
    if not count.strip().isdecimal() or (slash and period.strip() not in PERIODS):
        raise ImproperlyConfigured(f"{name} is {value!r}: write a number and a time, such as 60/hour, or 0.")
    return int(count), PERIODS[period.strip() or "hour"]


def _choice(name: str, default: str, allowed: tuple[str, ...]) -> str:
    value = str(env.str(name, default=default)).lower()
    if value not in allowed:
        raise ImproperlyConfigured(f"{name} is {value!r}: write one of {', '.join(allowed)}.")
    return value


def _defaults(parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    return {
        parameter.name: _read(parameter, variable, value.strip())
        for parameter in parameters
        for variable in (*parameter.variables, f"DEFAULT_{parameter.name.upper()}")
        if variable in os.environ and ((value := env.str(variable)).strip() or parameter.kind.takes_nothing)
    }


def _read(parameter: Parameter, variable: str, value: str) -> Any:
    try:
        return parameter.read([value])
    except InvalidParameter as refused:
        raise ImproperlyConfigured(f"{variable} is {value!r}: {refused}") from refused


def _public_address(name: str) -> Address | None:
    """The address that others know this server by, or None; its path is the prefix that a proxy serves it under."""
    url = str(env.str(name, default="")).strip()
    if not url:
        return None
    try:
        address = Address.read(url)
    except InvalidParameter as error:
        raise ImproperlyConfigured(
            f"{name} is {url!r}: write an address such as https://stenograf.example.org."
        ) from error
    prefix = address.path.rstrip("/")
    if not re.fullmatch(r"(/\w[\w.~-]*)*", prefix, re.ASCII):
        raise ImproperlyConfigured(f"{name} is {url!r}: write its path in letters, digits and hyphens, such as /stt/.")
    if prefix.split("/")[1:2] and prefix.split("/")[1] in OWN_PATHS:
        raise ImproperlyConfigured(f"{name} is {url!r}: its path is one of Stenograf's own. Choose another.")
    return replace(address, path=prefix)


# What addresses of this server begin with. Where a proxy may remove a prefix or not, it is none of these.
OWN_PATHS = (
    "admin", "api", "asr", "detect-language", "files", "health", "i18n", "job", "jobs", "keys", "login", "logout",
    "models", "offer", "s", "sample", "static", "theme", "transcribe", "v1", "webhook",
)  # fmt: skip


def _proxies(name: str, count: int) -> Proxies:
    """The proxies at the addresses in a variable; without it, `count` of them in the private network."""
    entries = [entry.strip() for entry in env.list(name, default=[]) if entry.strip()]
    try:
        if entries:
            return Proxies.read(entries)
    except ValueError as error:
        mend = "write addresses or networks with commas, such as 192.168.1.2,172.18.0.0/16."
        raise ImproperlyConfigured(f"{name} is {','.join(entries)!r}: {mend}") from error
    return Proxies(NEAR, most=count) if count else ON_THIS_MACHINE


def _allowed_hosts(name: str) -> tuple[Allowed, ...]:
    entries = [entry.strip() for entry in env.list(name, default=[]) if entry.strip()]
    try:
        return tuple(Allowed.read(entry) for entry in entries)
    except ValueError as error:
        mend = "write host names, addresses or networks with commas, such as nas.local:8080,192.168.1.0/24."
        raise ImproperlyConfigured(f"{name} is {','.join(entries)!r}: {mend}") from error


def _chat_address(name: str) -> str:
    """The address of a chat endpoint. An error does not repeat it: there may be a password in it."""
    url = str(env.str(name, default="")).strip().rstrip("/")
    try:
        if url and "?" in Address.read(url).path:
            raise ValueError(url)
    except ValueError as error:  # InvalidParameter is one
        mend = "write one such as http://localhost:11434/v1, without a password; LLM_API_KEY is for that."
        raise ImproperlyConfigured(f"{name} is no address of a chat endpoint: {mend}") from error
    return url


def _origins(name: str) -> list[str]:
    """Origins of pages, such as https://notes.example.org or app://obsidian.md; `*` is every one."""
    origins = [origin.strip().rstrip("/").lower() for origin in env.list(name, default=[]) if origin.strip()]
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#@*,]+", origin):
            mend = "write origins with commas, such as https://notes.example.org,app://obsidian.md, or *."
            raise ImproperlyConfigured(f"{name} is {','.join(origins)!r}: {mend}")
    return origins


def _key(name: str) -> str:
    key = str(env.str(name, default="")).strip()
    if not (key.isascii() and key.isprintable()):
        raise ImproperlyConfigured(f"{name} holds what no key holds: write it on one line, in ASCII.")
    return key


MONTH = 30 * 24 * 3600


def _moments(name: str, default: str) -> list[int]:
    value = str(env.str(name, default=default))
    moments = [int(moment) for moment in value.split(",") if moment.strip().isdecimal()]
    if len(moments) != len(value.split(",")) or moments != sorted(moments) or len(moments) > 20 or moments[-1] > MONTH:
        form = f"write at most 20 growing numbers of seconds with commas, none over {MONTH} (30 days)."
        raise ImproperlyConfigured(f"{name} is {value!r}: {form}")
    return moments


def _machines_time_zone() -> str:
    try:
        return get_localzone_name() or "UTC"
    except (LookupError, ValueError, OSError):  # the system's two settings disagree, or name no existing zone
        return "UTC"


def _time_zone() -> str:
    name = str(env.str("TZ", default="")) or _machines_time_zone()
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ImproperlyConfigured(f"TZ is {name!r}: write a name such as Europe/Moscow, or nothing.") from error
    return name


def _secret(path: Path) -> str:
    """The secret of this installation, made once and readable only by its owner."""
    try:
        if not path.exists():
            _make_secret(path)
        return path.read_text().strip()
    except OSError as error:
        mend = "Give it to the user that runs Stenograf, or name another folder."
        raise ImproperlyConfigured(f"DATA_DIR is {str(path.parent)!r}: {error.strerror}. {mend}") from error


def _make_secret(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")  # not the PID: containers may share the folder
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_urlsafe(48))
    try:
        os.link(draft, path)  # fails if another process that starts now was first, so both use one secret
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _require(package: str, name: str) -> None:
    if find_spec(package) is None:
        raise ImproperlyConfigured(f"{name} needs {package}: pip install -r requirements-scale.txt, or use make run.")


def _database(name: str) -> dict[str, Any]:
    """The database at an address; without an address, a file in DATA_DIR. An error does not repeat the address."""
    if not env.str(name, default=""):
        # Not by an address: a folder's name may contain # or ?.
        return {"ENGINE": SQLITE, "NAME": str(DATA_DIR / "stenograf.sqlite3")}
    try:
        with warnings.catch_warnings(action="ignore"):  # environ's warning repeats a part of the address
            database: dict[str, Any] = env.db(name)
    except (ImproperlyConfigured, ValueError):
        database = {}
    if database.get("ENGINE") not in (SQLITE, POSTGRESQL) or not database["NAME"]:
        raise ImproperlyConfigured(
            f"{name} is no address of a PostgreSQL or SQLite database: write postgres://user:password@host:5432/name."
        )
    return database


SQLITE, POSTGRESQL = "django.db.backends.sqlite3", "django.db.backends.postgresql"

# ------------------------------------------------------------------ where things are

DATA_DIR = _path("DATA_DIR", "data")
# Machines that work on one queue share these two folders and no others.
RECORDINGS_DIR = _path("RECORDINGS_DIR", str(DATA_DIR / "recordings"))
UPLOADS_DIR = _path("UPLOADS_DIR", str(DATA_DIR / "uploads"))
if RECORDINGS_DIR == UPLOADS_DIR:
    raise ImproperlyConfigured(f"RECORDINGS_DIR is {str(RECORDINGS_DIR)!r}, as UPLOADS_DIR is: name two folders.")
TEMPORARY_DIR = DATA_DIR / "temporary"  # for archives, and for decoded sound while FFmpeg writes it
BROKER_DIR = DATA_DIR / "broker"
LOGS_DIR = DATA_DIR / "logs"
MODELS_DIR = _path("MODEL_DOWNLOAD_ROOT", "models")
SAMPLES_DIR = BASE_DIR / "transcription" / "samples"

# ------------------------------------------------------------------ access

DEBUG = _boolean("DEBUG", False)
SECRET_KEY = env.str("SECRET_KEY", default="") or _secret(DATA_DIR / "secret_key")
HOST = env.str("HOST", default="127.0.0.1")
PORT = _integer("PORT", 8801, lowest=1, highest=65535)
# The gate (config/gate.py) checks the Host header before Django sees a request: it also accepts the address that the
# request came in by, which settings cannot know.
ALLOWED_HOSTS = ["*"]
MACHINE_NAMES = ["localhost", "127.0.0.1", "[::1]", socket.gethostname(), f"{socket.gethostname().split('.')[0]}.local"]
# The address at which others reach this server: the links in a webhook's message begin with it, its name is served,
# forms from it are accepted, and its path stands before every address. None if it is not set.
PUBLIC_ADDRESS = _public_address("PUBLIC_URL")
PUBLIC_URL = PUBLIC_ADDRESS.url if PUBLIC_ADDRESS else server_url(HOST, PORT, everywhere=socket.gethostname())
NAMES_SERVED = [*MACHINE_NAMES, *env.list("ALLOWED_HOSTS", default=[])]
if PUBLIC_ADDRESS:
    NAMES_SERVED.append(f"[{PUBLIC_ADDRESS.host}]" if ":" in PUBLIC_ADDRESS.host else PUBLIC_ADDRESS.host)
CSRF_TRUSTED_ORIGINS = [PUBLIC_ADDRESS.origin] if PUBLIC_ADDRESS else []
FORCE_SCRIPT_NAME = PUBLIC_ADDRESS.path if PUBLIC_ADDRESS else ""
# The reverse proxies whose headers are believed. NUM_PROXIES is the older way to say it, and counts them.
TRUSTED_PROXIES = _proxies("TRUSTED_PROXIES", _integer("NUM_PROXIES", 0))

if DEBUG and HOST not in ("127.0.0.1", "localhost", "::1"):
    raise ImproperlyConfigured("DEBUG shows settings to visitors: turn it off, or set HOST=127.0.0.1.")

# The first administrator, made at the first start; if no password is set, one is generated and shown once.
SUPERUSER_USERNAME = env.str("DJANGO_SUPERUSER_USERNAME", default="admin")
SUPERUSER_PASSWORD = env.str("DJANGO_SUPERUSER_PASSWORD", default="")

# A file of API keys, one a line; they belong to the first administrator.
KEYS_FILE = _path("KEYS_FILE", "") if env.str("KEYS_FILE", default="") else DATA_DIR / "keys.txt"
# The endpoints of the compatibility API and /asr are open without a key to this machine and its private network.
LEGACY_ANONYMOUS = _boolean("LEGACY_ANONYMOUS", False)

# The origins whose pages may read the answers of the endpoints that ask for a key each time (django-cors-headers). No
# address that a session opens is among them, nor one that needs no key: /health and /keys/reload.
_allowed_origins = _origins("CORS_ALLOWED_ORIGINS")
CORS_ALLOW_ALL_ORIGINS = "*" in _allowed_origins
CORS_ALLOWED_ORIGINS = [origin for origin in _allowed_origins if origin != "*"]
CORS_URLS_REGEX = (
    r"/(v1/.*|asr|detect-language|transcribe|models|(job|files)/.*"
    r"|api/(transcribe|queue|gpus|model_status|logs|status/.*))/?\Z"
)
CORS_ALLOW_HEADERS = ["*", "authorization"]  # the wildcard does not stand for this one
CORS_EXPOSE_HEADERS = ["X-Job-Id", "X-Request-Id", "Retry-After", "Content-Disposition", "Asr-Engine"]
CORS_ALLOW_PRIVATE_NETWORK = True  # where such a server is

# ------------------------------------------------------------------ uploads and transcription

MAX_UPLOAD_BYTES = _integer("MAX_UPLOAD_BYTES", 5 * 1024**3, lowest=1)
MAX_DURATION_SECONDS = _integer("MAX_DURATION_SECONDS", 86_400, lowest=1)
# Simultaneous uploads in one web process; connections are not limited.
MAX_UPLOADS_AT_ONCE = _integer("MAX_UPLOADS_AT_ONCE", 64, lowest=1)
# Hours after its last chunk until an upload in chunks is removed, unless a job uses it.
UPLOAD_EXPIRES_HOURS = _integer("UPLOAD_EXPIRES_HOURS", 24, lowest=1, highest=8760)
UPLOAD_CHUNK_BYTES = 8 * 1024**2
# Limits for each user: unfinished jobs, and recordings in a period, such as 60/hour; 0 is no limit.
MAX_QUEUED_JOBS = _integer("MAX_QUEUED_JOBS", 0)
THROTTLE_UPLOADS = _rate("THROTTLE_UPLOADS")
# Bytes that stay free on the data disk when an upload is accepted: its decoded sound needs space too.
FREE_SPACE_RESERVE_BYTES = _integer("FREE_SPACE_RESERVE_BYTES", 512 * 1024**2)

# Days after the end of a recording's last job until its sound is removed, and of a job until it is removed; 0 is never.
RETENTION_DAYS_AUDIO = _integer("RETENTION_DAYS_AUDIO", 0, highest=36_500)
RETENTION_DAYS_JOBS = _integer("RETENTION_DAYS_JOBS", 0, highest=36_500)

# Smaller files are prepared in a moment, so one thread of the default worker is reserved for them.
SMALL_FILE_BYTES = 16 * 1024**2

ENGINE = _choice("ENGINE", "auto", ("auto", "mlx-whisper", "faster-whisper"))
MODEL_DEVICE = (env.str("MODEL_DEVICE", default="") or env.str("WHISPER_DEVICE", default="auto")).lower()
DEFAULT_MODEL = env.str("DEFAULT_MODEL", default="auto")
# A file that describes further models, in the form of transcription/weights/published.toml.
MODEL_CATALOGUE = _path("MODEL_CATALOGUE", "") if env.str("MODEL_CATALOGUE", default="") else None
# Defaults of the parameters that a request leaves out, from the variables DEFAULT_<PARAMETER>.
DEFAULTS = _defaults(OPTIONS)
DEFAULT_PRIORITY = _choice("DEFAULT_PRIORITY", "normal", ("high", "normal", "low"))

# A language model that improves texts, at any OpenAI-compatible chat endpoint; empty if there is none.
LLM_BASE_URL = _chat_address("LLM_BASE_URL")
LLM_API_KEY = _key("LLM_API_KEY")
LLM_MODEL = env.str("LLM_MODEL", default="").strip()
# The most seconds for one answer, which is about one piece of a transcript.
LLM_TIMEOUT_SECONDS = _integer("LLM_TIMEOUT_SECONDS", 120, lowest=1, highest=3600)
DEFAULT_UPGRADE_TRANSCRIBATION = _boolean("DEFAULT_UPGRADE_TRANSCRIBATION", False)
if DEFAULT_UPGRADE_TRANSCRIBATION and not LLM_BASE_URL:
    raise ImproperlyConfigured("DEFAULT_UPGRADE_TRANSCRIBATION is true: set LLM_BASE_URL too, or leave it out.")

# ------------------------------------------------------------------ the database

DATABASES: dict[str, dict[str, Any]] = {"default": _database("DATABASE_URL")}
_default = DATABASES["default"]
if _default["ENGINE"] == SQLITE:
    # With WAL alone a transaction that reads before it writes may fail; IMMEDIATE waits for the write lock first.
    _default["OPTIONS"] = {
        "timeout": 30,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA journal_size_limit=67108864;",
    }
else:
    _require("psycopg", "DATABASE_URL")
    # A connection lasts for one request or task (CONN_MAX_AGE is 0): under ASGI each request has a thread of its own,
    # after whose end nothing could use the connection.
    _default["OPTIONS"] = {
        "connect_timeout": 10,
        # A longer wait for a row means that another process hangs, as with SQLite's timeout; a process that stops in
        # the middle of a transaction loses its locks.
        "options": "-c lock_timeout=30s -c idle_in_transaction_session_timeout=60s",
        **_default.get("OPTIONS", {}),
    }

# ------------------------------------------------------------------ the queue

# A claim lasts for a lease unless it is renewed; a dead worker is noticed within a lease and a sweep.
HEARTBEAT_SECONDS = 5
LEASE_SECONDS = _integer("LEASE_SECONDS", 60, lowest=3 * HEARTBEAT_SECONDS)
SWEEP_SECONDS = _integer("SWEEP_SECONDS", 15, lowest=1)
MAX_ATTEMPTS = _integer("MAX_ATTEMPTS", 3, lowest=1)
# A runner that sends nothing for so long is stopped; the slowest machine needs far less for a window of 30 s, or to
# load a model.
STALL_SECONDS = _integer("STALL_SECONDS", 600, lowest=2)
# Webhooks may go to the public internet, and to these hosts, host:port pairs, or networks such as 192.168.1.0/24.
WEBHOOK_ALLOWED_HOSTS = _allowed_hosts("WEBHOOK_ALLOWED_HOSTS")
# When the sending of a message is tried, in seconds since its job's end, and how long one try may take.
WEBHOOK_TRIES_SECONDS = _moments("WEBHOOK_TRIES_SECONDS", "0,30,120,600,3600")
WEBHOOK_TIMEOUT_SECONDS = _integer("WEBHOOK_TIMEOUT_SECONDS", 10, lowest=1, highest=30)
# Set by `manage.py serve` for its child processes, so that none outlives it.
SUPERVISOR_PID = _integer("SUPERVISOR_PID", 0)

CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", default="files://")
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, object] = {}
if CELERY_BROKER_URL.startswith("files:"):
    # A worker sleeps until its bell rings: idle it uses 0.2 % of a core, heartbeat and sweeps included (6 ticks of
    # 10 ms in 30 s, on two shared AMD EPYC cores). The interval is for a file system without pipes: looking every
    # 25 ms uses 1.1 %.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"folder": str(BROKER_DIR), "polling_interval": 0.025}
elif CELERY_BROKER_URL.startswith(("redis:", "rediss:")):
    _require("redis", "CELERY_BROKER_URL")
    # Processes with one database share their wake-ups; other programs, or another Stenograf, may use the same Redis.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"global_keyprefix": f"stenograf.{_default['NAME']}."}
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False  # a message is only a wake-up: the row is the truth
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 2, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.2}
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_ACCEPT_CONTENT = ["json"]

# ------------------------------------------------------------------ Django

INSTALLED_APPS = [
    "config.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "axes",
    "corsheaders",
    "csp",
    "django_htmx",
    "transcription",
]

# All of these are async-capable: a middleware that is not would make every waiting request hold a thread.
MIDDLEWARE = [
    "corsheaders.middleware.CorsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "config.characters.refuse_nul",
    "config.cookies.keep_to_our_address",
    "config.static.StaticFilesMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
APPEND_SLASH = False  # no endpoint answers with a redirect

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "transcription.web.context.page",
            ],
        },
    },
]

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
CSRF_FAILURE_VIEW = "transcription.api.errors.form_refused"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "dashboard"
LOGOUT_REDIRECT_URL = "login"
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 60 * 60 * 24 * 30

AXES_CLIENT_IP_CALLABLE = "transcription.api.client_address.address_of"
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "locked_out.html"
AXES_VERBOSE = False
AXES_DISABLE_ACCESS_LOG = True

X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "media-src": ["'self'", "blob:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    },
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "transcription.api.authentication.TokenAuthentication",
        "transcription.api.authentication.SessionAuthentication",
    ],
    "DEFAULT_METADATA_CLASS": None,  # /api/schema/ has the same and more
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser", "rest_framework.parsers.MultiPartParser"],
    "URL_FORMAT_OVERRIDE": None,  # `format` is a parameter of our own
    "STRICT_JSON": True,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Stenograf",
    "DESCRIPTION": "Speech to text on your own machine. Nothing leaves it.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": [f"transcription.api.v1.schema.{name}" for name in ("add_address", "add_streams")],
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "DISABLE_ERRORS_AND_WARNINGS": False,
}

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("ru", "Русский")]
LANGUAGE_COOKIE_AGE = 60 * 60 * 24 * 365
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = _time_zone()
USE_TZ = True

STATIC_URL = f"{FORCE_SCRIPT_NAME}/static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

# Uploads are written to the disk of the recordings, so that keeping one is a hard link and not a copy.
FILE_UPLOAD_HANDLERS = ["transcription.api.upload_handler.HashingUploadHandler"]
FILE_UPLOAD_TEMP_DIR = str(UPLOADS_DIR)
FILE_UPLOAD_PERMISSIONS = 0o640
FILE_UPLOAD_MAX_MEMORY_SIZE = UPLOAD_CHUNK_BYTES  # a chunk is held in memory, so it is written to the disk only once
SILENCED_SYSTEM_CHECKS = ["files.E001"]  # the upload handler makes that folder
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024**2


def _is_worth_a_line(record: LogRecord) -> bool:
    return "/health" not in record.getMessage()


LOG_LEVEL = _choice("LOG_LEVEL", "info", ("debug", "info", "warning", "error", "critical"))
LOG_FORMAT = _choice("LOG_FORMAT", "line", ("line", "json"))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"()": "transcription.logs.Line", "format": "%(asctime)s %(levelname)s %(name)s %(message)s"},
        "json": {"()": "transcription.logs.Json"},
    },
    # A 503 of /health is not an error; with a monitor that asks every second it would fill the log.
    "filters": {"no_health": {"()": CallbackFilter, "callback": _is_worth_a_line}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT, "filters": ["no_health"]}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "transcription": {"level": LOG_LEVEL.upper()},
        "celery": {"level": "WARNING"},
        "axes": {"level": "ERROR"},
        "kombu.connection": {"level": "ERROR"},  # it would warn at each start that a folder has no host name
    },
}
