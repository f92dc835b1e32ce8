"""An engine that cannot be trusted is set aside."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from django.conf import LazySettings

from transcription.management.commands import serve
from transcription.weights.catalogue import LocalModel
from transcription.whisper.engine import ENGINES, Capabilities
from transcription.workers import devices, enginecheck
from transcription.workers.enginecheck import SPOKEN, Verdict, wrong_words

GOOD = ENGINES["faster-whisper"]


def broken(name: str) -> Capabilities:
    """An engine of tests/engines, under the name of a package that is installed."""
    return replace(GOOD, name=name, module=f"tests.engines.{name}")


@pytest.fixture(autouse=True)
def own_folder(settings: LazySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder without verdicts, and a machine on which every engine finds weights of `base`."""
    settings.DATA_DIR, settings.ENGINE, settings.DEFAULT_MODEL = tmp_path, "auto", "base"
    engines = ["nonsense", "crashing", "faster-whisper"]
    here = [LocalModel("base", engine, tmp_path, 1, True) for engine in engines]
    monkeypatch.setattr(serve.catalogue, "local_models", lambda: here)
    monkeypatch.setattr(
        serve.pipeline.catalogue, "find", lambda name, engine: next(model for model in here if model.engine == engine)
    )


def offer(monkeypatch: pytest.MonkeyPatch, *engines: Capabilities) -> None:
    monkeypatch.setattr(devices, "candidates", lambda: list(engines))


@pytest.mark.parametrize("name", ["nonsense", "crashing"])
def test_a_broken_engine_is_set_aside_for_the_next_best(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    offer(monkeypatch, broken(name), GOOD)
    assert devices.engine().name == name
    told = io.StringIO()
    assert serve.Command(stdout=told).reject_engine("cpu")
    assert f"{name} is set aside" in told.getvalue()
    assert devices.engine() == GOOD
    verdict = enginecheck.verdict_on(broken(name))
    assert verdict is not None
    assert verdict.problem


def test_a_broken_engine_without_a_next_best_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, broken("nonsense"))
    assert not serve.Command(stdout=io.StringIO()).reject_engine("cpu")
    assert devices.engine().name == "nonsense"


def test_an_engine_that_somebody_named_is_theirs_to_judge(
    monkeypatch: pytest.MonkeyPatch, settings: LazySettings
) -> None:
    enginecheck.remember(Verdict(GOOD.name, enginecheck.installed_version(GOOD), "cpu", "base", 1.0, "nonsense"))
    offer(monkeypatch, GOOD, broken("crashing"))
    assert devices.engine().name == "crashing"
    settings.ENGINE = "faster-whisper"
    assert devices.engine() == GOOD


def test_each_version_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, broken("nonsense"), GOOD)
    assert serve.Command(stdout=io.StringIO()).reject_engine("cpu")
    assert enginecheck.is_checked(broken("nonsense"), "base")
    monkeypatch.setattr(enginecheck, "installed_version", lambda engine: "99")
    assert not enginecheck.is_checked(broken("nonsense"), "base")
    assert devices.engine().name == "nonsense"


def test_a_model_that_hears_little_judges_nobody() -> None:
    verdict = enginecheck.judge(GOOD, "cpu", "nano", language="en", text="Ten cats sleep.")
    assert (verdict.wrong > 0.9, verdict.problem) == (True, "")
    enginecheck.remember(verdict)
    assert enginecheck.is_checked(GOOD, "nano")
    assert not enginecheck.is_checked(GOOD, "base")


def test_a_file_of_verdicts_that_was_cut_off_is_no_verdict(settings: LazySettings) -> None:
    (settings.DATA_DIR / "engines.json").write_text('{"faster-whisper": {"vers')
    assert enginecheck.verdict_on(GOOD) is None


@pytest.mark.parametrize("language", SPOKEN)
def test_words_are_compared_without_case_and_punctuation(language: str) -> None:
    spoken = SPOKEN[language]
    assert wrong_words(spoken, spoken.upper().replace(".", "")) == 0
    assert wrong_words(spoken, "") == 1
    assert wrong_words(spoken, f"{spoken} {spoken} {spoken}") == 1
    half = " ".join(spoken.split()[: len(spoken.split()) // 2])
    assert 0.4 < wrong_words(spoken, half) < 0.6
