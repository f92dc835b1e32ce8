"""What the settings promise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.utils.module_loading import import_string

from tests.server import ROOT


@pytest.mark.parametrize("name", settings.MIDDLEWARE)
def test_no_middleware_makes_a_waiting_request_hold_a_thread(name: str) -> None:
    assert import_string(name).async_capable


def read(setting: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a process with this environment takes a setting to be."""
    program = [sys.executable, "-c", f"from config import settings; print({setting})"]
    env = {**os.environ, **environment}
    return subprocess.run(program, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["C# projects", "what?", "100%25", "two words"])
def test_the_data_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    answer = read("settings.DATABASES['default']['NAME']", DATA_DIR=str(tmp_path / name), DATABASE_URL="")
    assert answer.stdout.strip() == str(tmp_path / name / "stenograf.sqlite3")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "99999"),
        ("LEASE_SECONDS", "5"),
        ("TZ", ":/etc/localtime"),
        ("DATA_DIR", "/dev/null/data"),
        ("RETENTION_DAYS_AUDIO", "a month"),
        ("RETENTION_DAYS_JOBS", "99999"),
    ],
)
def test_a_wrong_value_stops_the_program_with_its_name(name: str, value: str) -> None:
    answer = read("settings", **{name: value})
    assert answer.returncode
    assert answer.stderr.splitlines()[-1].startswith(
        f"django.core.exceptions.ImproperlyConfigured: {name} is {value!r}"
    )
