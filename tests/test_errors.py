"""docs/errors.md tells of each problem what the code does with it, and of no other."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone, translation
from django.utils.translation import gettext
from pytest_django import Settings

from tests.server import ROOT
from transcription import errors, jobs
from transcription.models import ApiToken, Job
from transcription.sound.decoding import SOUND_WARNINGS

PAGE = (ROOT / "docs" / "errors.md").read_text()
each_problem = pytest.mark.parametrize("problem", errors.BY_CODE.values(), ids=errors.BY_CODE)


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


JOBS = {row[0].strip("`"): row[1:] for row in rows("What a job may fail with")}


def test_the_page_lists_every_code_once_and_no_other() -> None:
    assert sorted(row[0] for row in rows("What a job may fail with")) == sorted(f"`{code}`" for code in errors.BY_CODE)


def test_a_code_is_a_word_and_belongs_to_one_problem() -> None:
    def kinds(problem: type[errors.Problem]) -> list[type[errors.Problem]]:
        return [problem, *(found for child in problem.__subclasses__() for found in kinds(child))]

    own = [kind for kind in kinds(errors.Problem) if "code" in vars(kind) and kind.may_end_job]
    assert {kind.code: kind for kind in own} == errors.BY_CODE
    assert len(own) == len(errors.BY_CODE)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in errors.BY_CODE)


def test_what_nobody_foresaw_is_our_fault() -> None:
    assert errors.BY_CODE["internal"] is errors.Problem


@each_problem
def test_the_page_has_its_english_sentence(problem: type[errors.Problem]) -> None:
    assert JOBS[problem.code][0] == problem.sentence


@each_problem
def test_the_page_has_its_russian_sentence(problem: type[errors.Problem]) -> None:
    with translation.override("ru"):
        russian = gettext(problem.sentence)

    assert re.search("[а-яё]", russian)
    assert JOBS[problem.code][1] == russian.replace("\xa0", " ")


@each_problem
def test_the_page_says_whose_fault_it_is_and_whether_trying_again_helps(problem: type[errors.Problem]) -> None:
    fault, again, by_itself, _ = JOBS[problem.code][2:]
    whose = {"recording", "request"} if problem.is_input_at_fault else {"machine", "settings"}
    assert fault in whose
    assert again == ("helps" if problem.retryable else "does not help")
    assert by_itself == ("waits" if problem.waiting_sentence else "yes" if problem.is_transient else "no")


def test_what_waits_is_told_with_what_it_says_meanwhile() -> None:
    with translation.override("ru"):
        waiting = [
            [f"`{problem.code}`", problem.waiting_sentence, gettext(problem.waiting_sentence)]
            for problem in errors.BY_CODE.values()
            if problem.waiting_sentence
        ]
    assert rows("What a job may wait for") == waiting


@pytest.fixture
def client(db: None, settings: Settings, tmp_path: Any) -> Client:
    settings.DATA_DIR, settings.RECORDINGS_DIR, settings.UPLOADS_DIR = tmp_path, tmp_path / "r", tmp_path / "u"
    owner = User.objects.create_user("anna", password="a long password")
    return Client(headers={"Authorization": f"Token {ApiToken.make(owner)}"})


@each_problem
def test_the_endpoints_that_wait_answer_with_the_status_of_the_page(
    client: Client, monkeypatch: pytest.MonkeyPatch, problem: type[errors.Problem]
) -> None:
    values = dict.fromkeys(re.findall(r"%\((\w+)\)s", problem.sentence), "something")
    failed = {"status": "failed", "error_code": problem.code, "error_values": values, "finished_at": timezone.now()}
    submit = jobs.submit

    def submit_and_fail(*arguments: Any, **named: Any) -> Job:
        job = submit(*arguments, **named)
        Job.objects.filter(pk=job.pk).update(**failed)
        return job

    monkeypatch.setattr(jobs, "submit", submit_and_fail)
    statuses = []
    for endpoint in ("/transcribe", "/v1/audio/transcriptions"):
        answer = client.post(endpoint, {"file": SimpleUploadedFile("a.mp3", b"sound"), "model": "nano"})
        statuses.append(str(answer.status_code))
        assert problem.sentence % values in answer.content.decode()
    assert ", ".join(statuses) == JOBS[problem.code][5]


def test_the_page_lists_the_warnings_that_the_code_gives() -> None:
    given = {
        *SOUND_WARNINGS, "input_truncated", "timestamps_implausible", "no_speech", "doubtful_words", "not_improved",
        "not_honoured:<parameter>",
        "option_unknown:<option>", "speech_without_text:<places>",
    }  # fmt: skip
    assert {row[0].strip("`") for row in rows("What a done job may warn of")} == given
    for name in given:
        word = name.partition("<")[0]
        assert any(f'"{word}' in path.read_text() for path in (ROOT / "transcription").rglob("*.py"))
