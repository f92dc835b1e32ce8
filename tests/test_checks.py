"""What the program says of the machine it is started on."""

from pathlib import Path

import pytest
from django.conf import LazySettings

from transcription import checks, errors
from transcription.proxies import NEAR, Proxies
from transcription.sound import audio


def test_a_machine_that_has_everything_is_not_complained_of() -> None:
    every = (checks.check_ffmpeg, checks.check_engine, checks.check_weights, checks.check_proxies)
    assert [said for check in every for said in check()] == []


def test_a_missing_ffmpeg_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise errors.FFmpegMissing

    monkeypatch.setattr(audio, "ffmpeg_path", missing)
    assert "FFmpeg" in checks.check_ffmpeg()[0].msg


def test_a_missing_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    assert "faster-whisper" in checks.check_engine()[0].msg


def test_proxies_that_are_counted_are_to_be_named(settings: LazySettings) -> None:
    settings.TRUSTED_PROXIES = Proxies(NEAR, most=1)
    assert "TRUSTED_PROXIES" in (checks.check_proxies()[0].hint or "")


def test_missing_weights_are_named(settings: LazySettings, tmp_path: Path) -> None:
    settings.MODELS_DIR = tmp_path
    assert str(tmp_path) in (checks.check_weights()[0].hint or "")


def test_a_default_model_that_is_not_there_stops_the_start(settings: LazySettings) -> None:
    settings.DEFAULT_MODEL = "enormous"
    found = checks.check_default_model()[0]
    assert found.is_serious()
    assert "DEFAULT_MODEL: There is no model named enormous" in found.msg
