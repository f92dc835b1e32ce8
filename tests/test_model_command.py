"""`manage.py model`, as a person types it."""

import hashlib
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.hub import COMMIT, Hub
from tests.server import NANO
from transcription.models import Download, Job
from transcription.weights import catalogue, published

pytestmark = [pytest.mark.django_db, pytest.mark.heavy]
WEIGHTS = bytes(range(256)) * 2000


@pytest.fixture(autouse=True)
def models(settings: LazySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder with the model nano in it."""
    settings.MODELS_DIR = tmp_path / "models"
    settings.MODELS_DIR.mkdir()
    (settings.MODELS_DIR / "faster-whisper-nano").symlink_to(NANO / "faster-whisper-nano")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "models"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that has the model pocket, which the catalogue knows."""
    file = published.WeightsFile("model.bin", len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    pocket = published.Weights("pocket", "faster-whisper", "someone/pocket", COMMIT, (file,))
    monkeypatch.setitem(catalogue.MODELS, "pocket", published.Model("pocket", (pocket,)))
    hub = Hub()
    hub.put("someone/pocket", {"model.bin": WEIGHTS})
    with hub.serving() as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield hub


def manage(*arguments: str) -> list[str]:
    """The lines that `manage.py model` prints, their runs of blanks as one."""
    out = StringIO()
    call_command("model", *arguments, stdout=out)
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def test_the_list_tells_what_is_here_and_what_is_not() -> None:
    lines = manage("list")
    assert lines[0] == "tiny faster-whisper 75 MB not here"
    assert lines[6] == "turbo faster-whisper 1547 MB not here"
    assert lines[7] == "nano faster-whisper 18 MB here, unverified, default"


def test_a_download_is_shown_and_then_listed_as_verified(hub: Hub, models: Path) -> None:
    lines = manage("download", "pocket")
    assert lines[0] == "Fetching pocket for faster-whisper:"
    assert lines[-2:] == ["100 % of 0 MB", f"pocket is in {models / 'faster-whisper-pocket'}."]
    assert "pocket faster-whisper 0 MB here, verified" in manage("list")


def test_a_download_that_was_broken_off_is_listed_with_its_share(hub: Hub, models: Path) -> None:
    begun = models / ".faster-whisper-pocket.download"
    begun.mkdir()
    (begun / "model.bin.part").write_bytes(WEIGHTS[: len(WEIGHTS) // 4])
    assert "pocket faster-whisper 0 MB partial, 25%" in manage("list")
    manage("remove", "pocket", "--yes")
    assert not begun.exists()


def test_a_model_that_nobody_gives_ends_with_a_sentence() -> None:
    with pytest.raises(CommandError, match=r"The weights of tiny could not be fetched: the hub said: .*by hand\."):
        manage("download", "tiny")
    with pytest.raises(CommandError, match="There is no model named huge"):
        manage("download", "huge")


def test_removing_asks_first(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda question: "no")
    with pytest.raises(CommandError, match="Nothing was removed"):
        manage("remove", "nano")
    assert (models / "faster-whisper-nano").exists()
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert manage("remove", "nano") == [f"Removed {models / 'faster-whisper-nano'}."]
    assert not (models / "faster-whisper-nano").exists()
    assert (NANO / "faster-whisper-nano" / "model.bin").exists()


def test_what_unfinished_jobs_need_is_not_removed(job: Job, models: Path) -> None:
    with pytest.raises(CommandError, match=r"The model nano is needed by unfinished jobs \(1\)"):
        manage("remove", "nano", "--yes")
    Job.objects.update(status="done")
    manage("remove", "nano", "--yes")


def test_removing_cancels_what_is_being_fetched(hub: Hub) -> None:
    Download.objects.create(model="pocket", is_asked_for=True, progress=0.5)
    assert "pocket faster-whisper 0 MB downloading, 50%" in manage("list")
    manage("remove", "pocket", "--yes")
    assert not Download.objects.exists()


def test_what_is_not_here_cannot_be_removed_or_converted() -> None:
    with pytest.raises(CommandError, match="The model tiny is not on this machine"):
        manage("remove", "tiny", "--yes")
    with pytest.raises(CommandError, match="The model tiny is not on this machine"):
        manage("convert", "tiny", "--to", "mlx")


def test_a_model_is_converted_for_mlx(models: Path) -> None:
    assert manage("convert", "nano", "--to", "mlx")[-1] == f"nano is in {models / 'whisper-nano'}."
    assert "nano mlx-whisper 15 MB here, unverified" in manage("list")
