"""What a log line says of its job."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.server import ROOT
from transcription import logs

pytestmark = pytest.mark.heavy


def record(message: str, **extra: object) -> logging.LogRecord:
    return logging.getLogger("transcription.history").makeRecord(
        "transcription.history", logging.INFO, "history.py", 1, message, (), None, extra=extra
    )


def test_a_line_names_what_it_is_about() -> None:
    line = logs.Line("%(levelname)s %(name)s %(message)s")
    with logs.about(job="j1"), logs.about(section=7):
        assert line.format(record("done")) == "INFO transcription.history done job=j1 section=7"
    assert line.format(record("done", job="j2")) == "INFO transcription.history done job=j2"


def test_what_a_line_says_itself_counts_more_than_what_is_around_it() -> None:
    with logs.about(job="outer"):
        assert logs.subjects_of(record("done", job="own")) == {"job": "own"}
    assert logs.subjects_of(record("done")) == {}


def test_a_program_reads_one_object_a_line() -> None:
    told = json.loads(logs.Json().format(record("готово", job="j1")))
    assert told.pop("time").endswith("+00:00")
    assert told == {"level": "info", "logger": "transcription.history", "message": "готово", "job": "j1"}


def failing() -> None:
    raise ValueError("no\nway")


@pytest.mark.parametrize("fail", [failing])
def test_a_traceback_stays_in_its_object(fail: Callable[[], None]) -> None:
    try:
        fail()
    except ValueError:
        failed = record("a step failed")
        failed.exc_info = sys.exc_info()
    line = logs.Json().format(failed)
    assert "\n" not in line
    assert "ValueError" in json.loads(line)["traceback"]


def test_the_installation_chooses_the_form() -> None:
    program = "import logging; logging.getLogger('transcription').info('here', extra={'job': 'j1'})"
    command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", program]
    environment = {"LOG_FORMAT": "json", "PATH": "/usr/bin:/bin", "DJANGO_SETTINGS_MODULE": "tests.settings"}
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stderr
    told = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert {"message": "here", "job": "j1"}.items() <= told[-1].items()
