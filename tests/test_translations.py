"""Every sentence is there in Russian, says the same things, and is the one that is served."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polib  # type: ignore[import-untyped]
import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "locale" / "ru" / "LC_MESSAGES"
SOURCES = ("config", "transcription", "templates", "locale", "manage.py")


@pytest.fixture(scope="module")
def russian() -> polib.POFile:
    return polib.pofile(str(FOLDER / "django.po"))


def places(text: str) -> list[str]:
    return sorted(re.findall(r"%\(\w+\)s|\{\w+\}|`[^`]+`", text))


def translations(entry: polib.POEntry) -> list[str]:
    """The Russian sentence; for one that counts, each of its forms."""
    return [entry.msgstr_plural[form] for form in sorted(entry.msgstr_plural)] if entry.msgid_plural else [entry.msgstr]


def test_every_sentence_has_a_translation(russian: polib.POFile) -> None:
    assert [entry.msgid for entry in russian if not entry.translated()] == []


def test_no_translation_is_a_guess(russian: polib.POFile) -> None:
    assert [entry.msgid for entry in russian if entry.fuzzy or entry.obsolete] == []


def test_a_translation_has_the_places_of_the_sentence(russian: polib.POFile) -> None:
    wrong = [
        entry.msgid
        for entry in russian
        for translation in translations(entry)
        if places(entry.msgid_plural or entry.msgid) != places(translation)
    ]
    assert wrong == []


def test_a_plural_has_each_of_the_russian_forms(russian: polib.POFile) -> None:
    assert {len(entry.msgstr_plural) for entry in russian if entry.msgid_plural} <= {4}


def test_no_unit_and_no_percent_sign_begins_a_line(russian: polib.POFile) -> None:
    unbound = re.compile(r"[)}\d] (%%|МБ|ГБ|с\b|ч\b|мин\b)")
    assert [text for entry in russian for text in translations(entry) if unbound.search(text)] == []


def test_what_is_served_is_what_is_written(russian: polib.POFile) -> None:
    served = {(entry.msgctxt, entry.msgid): translations(entry) for entry in polib.mofile(str(FOLDER / "django.mo"))}
    assert served == {(entry.msgctxt, entry.msgid): translations(entry) for entry in russian}


@pytest.mark.needs("xgettext")
def test_no_sentence_of_the_program_is_missing(russian: polib.POFile, tmp_path: Path) -> None:
    for name in SOURCES:
        source = ROOT / name
        shutil.copytree(source, tmp_path / name) if source.is_dir() else shutil.copy(source, tmp_path / name)
    command = [sys.executable, "manage.py", "makemessages", "-l", "ru", "--no-wrap", "--no-obsolete"]
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "config.settings"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=60)
    found = polib.pofile(str(tmp_path / "locale" / "ru" / "LC_MESSAGES" / "django.po"))
    assert {(e.msgctxt, e.msgid) for e in found} == {(e.msgctxt, e.msgid) for e in russian}
