"""The templates compile, keep their lines short, and have a fragment for each status of a job."""

import pytest
from django.template.loader import get_template

from tests.server import ROOT
from transcription.models import Job

FOLDER = ROOT / "templates"
TEMPLATES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.html"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_compiles(name: str) -> None:
    get_template(name)


def test_no_line_of_a_template_is_longer_than_160_characters() -> None:
    lines = ((name, line) for name in TEMPLATES for line in (FOLDER / name).read_text().splitlines())
    assert [(name, line) for name, line in lines if len(line) > 160] == []


def test_each_status_has_its_fragment() -> None:
    assert {f"job_state/_{status}.html" for status in Job.Status} <= set(TEMPLATES)
