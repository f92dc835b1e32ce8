"""What the settings promise."""

import os
import re
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.urls import get_resolver
from django.utils.module_loading import import_string

from tests.parameter_values import GOOD
from tests.server import ROOT
from transcription.parameters import OPTIONS, Text
from transcription.proxies import NEAR, ON_THIS_MACHINE, Proxies


@pytest.mark.parametrize("name", settings.MIDDLEWARE)
def test_no_middleware_makes_a_waiting_request_hold_a_thread(name: str) -> None:
    assert import_string(name).async_capable


def read(**environment: str) -> dict[str, Any]:
    """The settings of a process with this environment."""
    with mock.patch.dict(os.environ, environment):
        return runpy.run_path(str(ROOT / "config" / "settings.py"))


@pytest.mark.parametrize("name", ["C# projects", "what?", "100%25", "two words"])
def test_the_data_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    found = read(DATA_DIR=str(tmp_path / name), DATABASE_URL="")
    assert found["DATABASES"]["default"]["NAME"] == str(tmp_path / name / "stenograf.sqlite3")


def test_a_secret_is_made_beside_the_draft_of_a_process_with_our_pid_in_another_container(tmp_path: Path) -> None:
    draft = tmp_path / f".secret_key.{os.getpid()}"
    draft.write_text("theirs")
    found = read(DATA_DIR=str(tmp_path), DATABASE_URL="", SECRET_KEY="")
    assert found["SECRET_KEY"] == (tmp_path / "secret_key").read_text() != "theirs"
    assert draft.read_text() == "theirs"


def test_recordings_and_uploads_lie_in_the_data_folder_or_where_they_are_put(tmp_path: Path) -> None:
    found = read(DATA_DIR=str(tmp_path), RECORDINGS_DIR=str(tmp_path / "elsewhere"))
    assert (found["RECORDINGS_DIR"], found["UPLOADS_DIR"]) == (tmp_path / "elsewhere", tmp_path / "uploads")


def test_recordings_and_uploads_lie_in_two_folders(tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="as UPLOADS_DIR is: name two folders"):
        read(RECORDINGS_DIR=str(tmp_path), UPLOADS_DIR=str(tmp_path))


@pytest.mark.parametrize(
    "address", ["mysql://me:sesame@localhost/stenograf", "sesame", "postgres://me:sesame@localhost", "postgres://[::1"]
)
def test_an_address_of_no_database_stops_the_program_without_its_secret(address: str) -> None:
    with pytest.raises(
        ImproperlyConfigured, match="DATABASE_URL is no address of a PostgreSQL or SQLite database"
    ) as refused:
        read(DATABASE_URL=address)
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize(
    ("package", "name", "address"),
    [
        ("psycopg", "DATABASE_URL", "postgresql://me:sesame@localhost/stenograf"),
        ("redis", "CELERY_BROKER_URL", "rediss://:sesame@localhost/0"),
    ],
)
def test_a_package_that_an_address_needs_is_named(package: str, name: str, address: str) -> None:
    """With an import system that finds no such package, as on a machine that has it not."""
    hide = f"import importlib.util as i; f = i.find_spec; i.find_spec = lambda n: None if n == {package!r} else f(n)"
    program = [sys.executable, "-c", f"{hide}; from config import settings"]
    environment = {**os.environ, "DATABASE_URL": "", "CELERY_BROKER_URL": "files://", name: address}
    answer = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    last_words = answer.stderr.splitlines()[-1]
    assert f"{name} needs {package}: pip install -r requirements-scale.txt" in last_words
    assert "sesame" not in answer.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "99999"),
        ("LEASE_SECONDS", "5"),
        ("TZ", ":/etc/localtime"),
        ("DATA_DIR", "/dev/null/data"),
        ("RETENTION_DAYS_AUDIO", "a month"),
        ("RETENTION_DAYS_JOBS", "99999"),
        ("DEFAULT_LANGUAGE", "elvish"),
        ("DEFAULT_PRIORITY", "urgent"),
        ("AUDIO_SPEEDUP", "9"),
        ("WEBHOOK_ALLOWED_HOSTS", "http://nas.local"),
        ("WEBHOOK_ALLOWED_HOSTS", "10.0.0.0/8,*"),
        ("WEBHOOK_TRIES_SECONDS", "0,soon"),
        ("WEBHOOK_TRIES_SECONDS", "60,30"),
        ("WEBHOOK_TRIES_SECONDS", "0,99999999999999"),
        ("WEBHOOK_TRIES_SECONDS", ""),
        ("WEBHOOK_TIMEOUT_SECONDS", "31"),
        ("PUBLIC_URL", "stenograf.example.org"),
        ("PUBLIC_URL", "https://example.org/?a=1"),
        ("PUBLIC_URL", "https://example.org/два/"),
        ("PUBLIC_URL", "https://example.org//stt"),
        ("PUBLIC_URL", "https://example.org/../stt"),
        ("PUBLIC_URL", "https://example.org/api"),
        ("PUBLIC_URL", "https://me:sesame@example.org"),
        ("TRUSTED_PROXIES", "traefik"),
        ("TRUSTED_PROXIES", "10.0.0.2,*"),
        ("NUM_PROXIES", "many"),
        ("LLM_TIMEOUT_SECONDS", "0"),
        ("DEFAULT_UPGRADE_TRANSCRIBATION", "perhaps"),
        *((f"DEFAULT_{parameter.name.upper()}", "∅") for parameter in OPTIONS if not isinstance(parameter.kind, Text)),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(name: str, value: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"^{re.escape(f'{name} is {value!r}')}"):
        read(**{name: value})


def test_a_wrong_value_stops_the_program() -> None:
    environment = {**os.environ, "PORT": "99999"}
    program = [sys.executable, "manage.py", "migrate"]
    ran = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode
    assert "PORT is '99999'" in ran.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"LLM_BASE_URL": "localhost:11434/v1"}, "LLM_BASE_URL"),
        ({"LLM_BASE_URL": "http://me:sesame@localhost/v1"}, "LLM_BASE_URL"),
        ({"LLM_BASE_URL": "http://localhost/v1?key=sesame"}, "LLM_BASE_URL"),
        ({"LLM_API_KEY": "open\nsesame"}, "LLM_API_KEY"),
        ({"DEFAULT_UPGRADE_TRANSCRIBATION": "true"}, "DEFAULT_UPGRADE_TRANSCRIBATION"),
    ],
)
def test_a_language_model_that_cannot_be_asked_stops_the_program_without_its_secret(
    environment: dict[str, str], name: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"^{name} ") as stopped:
        read(**environment)
    assert "sesame" not in str(stopped.value)


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({"PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"HOST": "0.0.0.0"}, f"http://{socket.gethostname()}:8801"),
        ({"HOST": "::1"}, "http://[::1]:8801"),
        ({"PUBLIC_URL": "https://example.org/stenograf/"}, "https://example.org/stenograf"),
    ],
)
def test_others_reach_this_server_where_it_listens_unless_told_otherwise(
    environment: dict[str, str], address: str
) -> None:
    found = read(**environment)
    assert found["PUBLIC_URL"] == address


@pytest.mark.parametrize(
    ("url", "name", "origin", "prefix"),
    [
        ("https://example.org", "example.org", "https://example.org", ""),
        ("https://Example.org:443/stt/", "example.org", "https://example.org", "/stt"),
        ("http://example.org:8080/a/b-c.d", "example.org", "http://example.org:8080", "/a/b-c.d"),
        ("https://стенограф.рф/", "xn--80aff6afnciy.xn--p1ai", "https://xn--80aff6afnciy.xn--p1ai", ""),
        ("https://[2001:db8::1]:8443/", "[2001:db8::1]", "https://[2001:db8::1]:8443", ""),
    ],
)
def test_the_public_address_is_served_trusted_and_before_every_path(
    url: str, name: str, origin: str, prefix: str
) -> None:
    found = read(PUBLIC_URL=url)
    assert name in found["NAMES_SERVED"]
    assert found["CSRF_TRUSTED_ORIGINS"] == [origin]
    assert (found["FORCE_SCRIPT_NAME"], found["STATIC_URL"]) == (prefix, f"{prefix}/static/")
    assert found["PUBLIC_URL"] == origin + prefix


def test_no_path_before_the_addresses_may_be_one_of_our_own() -> None:
    """A request for it could be one whose path the proxy has removed."""
    entries = get_resolver().url_patterns
    entries += [page for entry in entries if not str(entry.pattern) for page in getattr(entry, "url_patterns", ())]
    begin = {match[1] for entry in entries if (match := re.match(r"\^?([\w-]+)", str(entry.pattern)))}
    assert {*read()["OWN_PATHS"]} == begin | {"static"}


def test_proxies_are_named_or_counted_and_those_of_this_machine_are_believed_anyway() -> None:
    assert read()["TRUSTED_PROXIES"] == ON_THIS_MACHINE
    assert read(TRUSTED_PROXIES="10.0.0.2, 172.18.0.0/16")["TRUSTED_PROXIES"] == Proxies.read(
        ["10.0.0.2", "172.18.0.0/16"]
    )
    assert read(NUM_PROXIES="2")["TRUSTED_PROXIES"] == Proxies(NEAR, most=2)
    assert read(NUM_PROXIES="2", TRUSTED_PROXIES="10.0.0.2")["TRUSTED_PROXIES"] == Proxies.read(["10.0.0.2"])


def test_every_parameter_has_a_default_of_the_installations() -> None:
    found = read(**{f"DEFAULT_{name.upper()}": text for name, text, _, _ in GOOD})
    assert found["DEFAULTS"] == {name: option for name, _, _, option in GOOD}


@pytest.mark.parametrize(
    ("environment", "defaults"),
    [
        ({}, {}),
        ({"DEFAULT_SEED": " ", "DEFAULT_LANGUAGE": ""}, {}),
        ({"DEFAULT_LANGUAGE": "auto"}, {"language": None}),
        ({"DEFAULT_NO_SPEECH_THRESHOLD": ""}, {"no_speech_threshold": None}),
        ({"DEFAULT_LOGPROB_THRESHOLD": "none"}, {"logprob_threshold": None}),
        ({"AUDIO_SPEEDUP": "1.2"}, {"up_speed": 1.2}),
        ({"AUDIO_SPEEDUP": "1.2", "DEFAULT_UP_SPEED": "1.5"}, {"up_speed": 1.5}),
    ],
)
def test_what_is_not_set_is_no_default(environment: dict[str, str], defaults: dict[str, object]) -> None:
    found = read(**environment)
    assert found["DEFAULTS"] == defaults
