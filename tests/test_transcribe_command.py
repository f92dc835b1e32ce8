"""`manage.py transcribe`, as a person types it: what its flags ask for. Nothing here has a database."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.parameter_values import BAD, GOOD
from tests.server import NANO
from transcription.parameters import ALIASES
from transcription.whisper.options import TranscriptionOptions
from transcription.workers import devices, pipeline

RECORDING = str(NANO / "nano" / "bears.wav")


class Asked:
    """What the pipeline is asked for, of which it makes nothing."""

    options: TranscriptionOptions
    runner: devices.Runner


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()

    def nothing(*_args: Any, options: TranscriptionOptions, runner: devices.Runner, **_named: Any) -> Iterator[Any]:
        asked.options, asked.runner = options, runner
        return iter(())

    monkeypatch.setattr(pipeline, "transcribe_file", nothing)
    return asked


def run(*flags: str) -> None:
    call_command("transcribe", RECORDING, *flags, stdout=StringIO(), stderr=StringIO())


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@pytest.mark.parametrize(("name", "text", "option"), [(name, text, option) for name, text, _, option in GOOD])
def test_each_option_has_a_flag(asked: Asked, name: str, text: str, option: Any) -> None:
    if option is True:
        run(flag(name))
    elif option is False:
        run(flag(f"no-{name}"))
    else:
        run(f"{flag(name)}={text}")
    assert asked.options == replace(TranscriptionOptions(), **{name: option})


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_an_alias_is_a_flag_too(asked: Asked, alias: str, name: str) -> None:
    text, option = next((text, option) for known, text, _, option in GOOD if known == name)
    run(*([flag(alias)] if option is True else [f"{flag(alias)}={text}"]))
    assert getattr(asked.options, name) == option


WRITTEN = [(name, value) for name, values in BAD.items() for value in values if isinstance(value, str)]


# Whether mlx-whisper can be asked for depends on the machine.
@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, text in WRITTEN if name != "priority" and text != "mlx-whisper"]
)
def test_another_value_is_refused_with_the_flags_name(asked: Asked, name: str, text: str) -> None:
    with pytest.raises(CommandError) as refused:
        run(f"{flag(name)}={text}")
    assert name in str(refused.value) or flag(name) in str(refused.value)


@pytest.mark.parametrize("nothing", ["", "none"])
def test_nothing_turns_a_threshold_off(asked: Asked, nothing: str) -> None:
    run("--no-speech-threshold", nothing, f"--log-prob-threshold={nothing}")
    assert asked.options == replace(TranscriptionOptions(), no_speech_threshold=None, logprob_threshold=None)


def test_what_the_engine_cannot_do_is_refused(asked: Asked) -> None:
    with pytest.raises(CommandError, match="`top_p` is nothing that faster-whisper can do"):
        run("--top-p", "0.5")


def test_an_engine_and_a_device_can_be_named(asked: Asked, settings: LazySettings) -> None:
    settings.MODEL_DEVICE = "cpu"
    run("--engine", "faster-whisper", "--device", "cpu", "--fp16")
    assert (asked.runner.capabilities.name, asked.runner.device) == ("faster-whisper", "cpu")
    assert asked.options.compute_type == "float16"
    with pytest.raises(CommandError, match="`device` is one of: cpu."):
        run("--device", "cuda")


def test_the_installations_defaults_hold_here_too(asked: Asked, settings: LazySettings) -> None:
    settings.DEFAULTS = {"word_timestamps": True, "beam_size": 2}
    run("--no-word-timestamps")
    assert asked.options == TranscriptionOptions(word_timestamps=False, beam_size=2)


# ---------------------------------------------------------------- where its sound lies meanwhile


@pytest.fixture
def temporary(settings: LazySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder on the data disk; the system's is not there."""
    settings.TEMPORARY_DIR = tmp_path / "temporary"
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    return tmp_path / "temporary"


def test_the_decoded_sound_lies_on_the_data_disk_and_goes(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = []
    cut = pipeline._cut

    def look(pcm: Path, *arguments: Any) -> Any:
        where.append(pcm.parent.parent)
        assert pcm.stat().st_size > 32000
        return cut(pcm, *arguments)

    monkeypatch.setattr(pipeline, "_cut", look)
    run("--model", "nano")
    assert where == [temporary]
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("room", [-1, 32000], ids=["none", "for one second"])
def test_without_room_for_it_the_command_says_so(
    temporary: Path, settings: LazySettings, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    usage = SimpleNamespace(free=settings.FREE_SPACE_RESERVE_BYTES + room)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(CommandError, match="This machine's disk lacks space. Free some and try again.") as refused:
        run("--model", "nano")
    assert refused.value.returncode == 1
    assert list(temporary.iterdir()) == []
