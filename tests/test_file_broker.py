"""The embedded broker, with real processes where a process's death is what matters."""

import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from celery import Celery
from django.conf import settings
from kombu import Connection

from config import file_broker
from tests.broker import POLLING, connect, consume, produce, publish
from tests.server import ROOT, wait_until
from transcription.queue import wakeups

pytestmark = pytest.mark.heavy


def receive(connection: Connection, count: int, seconds: float = 5.0) -> list[Any]:
    """The next messages of the queue, acknowledged."""
    with connection.SimpleQueue("q") as queue:
        bodies = []
        for _ in range(count):
            message = queue.get(timeout=seconds)
            message.ack()
            bodies.append(message.payload)
    return bodies


def is_empty(connection: Connection) -> bool:
    with connection.SimpleQueue("q") as queue, pytest.raises(Empty):
        queue.get(timeout=5 * POLLING)
    return True


def files(folder: Path) -> list[Path]:
    """All messages, wherever they are: waiting, claimed, half written."""
    return [path for part in ("messages", "claimed") for path in (folder / part).rglob("*") if not path.is_dir()]


def bad(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "bad").glob("*"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "broker"


@pytest.fixture
def connection(folder: Path) -> Iterator[Connection]:
    with connect(folder) as connection:
        yield connection


@pytest.fixture
def ever_tidy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tidy at each look at the folder, so that nobody has to wait for it."""
    monkeypatch.setattr(file_broker, "TIDY_SECONDS", 0)


# ---------------------------------------------------------------- order


def test_messages_come_in_the_order_of_publishing(folder: Path, connection: Connection) -> None:
    with connect(folder) as another:
        for number in range(0, 100, 2):
            publish(connection, number)
            publish(another, number + 1)
    assert receive(connection, 100) == list(range(100))
    assert files(folder) == []


def test_the_order_holds_where_the_clock_gets_another_digit(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as clock:
        clock.setattr(time, "time_ns", iter([99, 100, 100, 1000]).__next__)
        publish(connection, "a", "b", "c", "d")
    assert receive(connection, 4) == ["a", "b", "c", "d"]


def test_a_message_given_back_keeps_its_place(folder: Path, connection: Connection) -> None:
    publish(connection, "first", "second")
    with connection.SimpleQueue("q") as queue:
        queue.get(timeout=5).requeue()
    assert receive(connection, 2) == ["first", "second"]


def test_a_consumer_that_closes_gives_back_what_it_did_not_acknowledge(folder: Path, connection: Connection) -> None:
    publish(connection, *range(5))
    with connect(folder) as another, another.SimpleQueue("q") as queue:
        assert [queue.get(timeout=5).payload for _ in range(3)] == [0, 1, 2]
    assert list((folder / "claimed").iterdir()) == []
    assert receive(connection, 5) == list(range(5))


# ---------------------------------------------------------------- many processes


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., BaseProcess]]:
    """Start a function in a process of its own; all are killed in the end."""
    started: list[BaseProcess] = []

    def start(function: Callable[..., None], *arguments: object) -> BaseProcess:
        process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()
        process.close()


def noted(*notes: Path) -> list[int]:
    return [int(line) for path in notes if path.exists() for line in path.read_text().splitlines()]


def test_two_producers_and_three_consumers_lose_nothing_and_get_nothing_twice(
    folder: Path, tmp_path: Path, start: Callable[..., BaseProcess]
) -> None:
    notes = [tmp_path / f"consumer-{number}" for number in range(3)]
    for path in notes:
        start(consume, folder, path, True)
    for numbers in (range(1000), range(1000, 2000)):
        start(produce, folder, numbers)
    wait_until(lambda: len(noted(*notes)) >= 2000)
    wait_until(lambda: not files(folder))
    assert sorted(noted(*notes)) == list(range(2000))
    assert bad(folder) == []


def test_what_a_killed_consumer_held_comes_to_a_living_one(
    folder: Path, tmp_path: Path, connection: Connection, start: Callable[..., BaseProcess]
) -> None:
    publish(connection, *range(5))
    holder = start(consume, folder, tmp_path / "held", False)
    wait_until(lambda: len(noted(tmp_path / "held")) == 5)
    with connection.SimpleQueue("q") as queue:
        with pytest.raises(Empty):
            queue.get(timeout=5 * POLLING)  # from here on we are its living peer
        holder.kill()
        died = time.monotonic()
        returned = [queue.get(timeout=10) for _ in range(5)]
        assert time.monotonic() - died < 10
        assert sorted(message.payload for message in returned) == list(range(5))
        for message in returned:
            message.ack()
    assert files(folder) == []
    assert len(list((folder / "claimed").iterdir())) == 1  # ours


def test_what_a_living_consumer_holds_stays_with_it(folder: Path, connection: Connection, ever_tidy: None) -> None:
    publish(connection, "held")
    with connect(folder) as another, another.SimpleQueue("q") as queue:
        message = queue.get(timeout=5)
        assert is_empty(connection)
        message.ack()
    assert is_empty(connection)


# ---------------------------------------------------------------- files that are no messages


def a_message(connection: Connection, folder: Path) -> bytes:
    """What a message looks like on disk; it is taken out again."""
    publish(connection, "whole")
    (path,) = (folder / "messages").iterdir()
    content = path.read_bytes()
    path.unlink()
    return content


def link(path: Path, whole: bytes) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    elsewhere.write_bytes(whole)
    path.symlink_to(elsewhere)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path, whole: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path, whole: path.write_bytes(whole[: len(whole) // 2]), id="truncated"),
        pytest.param(lambda path, whole: path.write_bytes(os.urandom(500)), id="not JSON"),
        pytest.param(lambda path, whole: path.write_bytes(b"[" * 100_000), id="nested without end"),
        pytest.param(lambda path, whole: path.write_text("[1, 2]"), id="JSON that is no message"),
        pytest.param(lambda path, whole: path.write_bytes(whole.replace(b'"body":', b'"bodi":')), id="no body"),
        pytest.param(lambda path, whole: path.write_bytes(whole.replace(b'"body": "', b'"body": "?')), id="no base64"),
        pytest.param(lambda path, whole: path.mkdir(), id="a folder"),
        pytest.param(lambda path, whole: os.mkfifo(path), id="a pipe"),
        pytest.param(lambda path, whole: path.symlink_to(path), id="unreadable"),
        pytest.param(lambda path, whole: path.write_bytes(whole + b" " * file_broker.LARGEST_MESSAGE), id="huge"),
        pytest.param(link, id="a link to somewhere else"),
    ],
)
def test_a_file_that_is_no_message_is_set_aside_and_the_next_one_comes(
    folder: Path, connection: Connection, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path, bytes], None]
) -> None:
    spoil(folder / "messages" / "0.q.msg", a_message(connection, folder))
    publish(connection, "good")
    assert receive(connection, 1) == ["good"]
    assert bad(folder) == ["0.q.msg.bad"]
    assert "'0.q.msg'" in caplog.text
    assert files(folder) == []


def test_a_name_that_no_queue_asks_for_is_set_aside(folder: Path, connection: Connection) -> None:
    publish(connection, "good")
    (folder / "messages" / "holiday.jpg").write_bytes(b"\xff\xd8")
    (folder / "messages" / ".DS_Store").write_bytes(b"the Finder's")
    assert receive(connection, 1) == ["good"]
    assert bad(folder) == ["holiday.jpg.bad"]


def test_a_doubled_message_comes_twice_and_leaves_nothing(folder: Path, connection: Connection) -> None:
    whole = a_message(connection, folder)
    for name in ("1.q.msg", "2.q.msg"):
        (folder / "messages" / name).write_bytes(whole)
    assert receive(connection, 2) == ["whole", "whole"]
    assert files(folder) == []


def test_a_message_that_its_consumer_stumbles_over_is_set_aside(folder: Path, connection: Connection) -> None:
    publish(connection, {"task": []}, {"task": "known"})
    received = []

    def look_up(body: dict[str, Any], message: Any) -> None:
        received.append({"known": 1}[body["task"]])  # as Celery does: a list cannot be looked up
        message.ack()

    with connection.Consumer([connection.SimpleQueue("q").queue], callbacks=[look_up]):
        connection.drain_events(timeout=5)
        connection.drain_events(timeout=5)
    assert received == [1]
    assert len(bad(folder)) == 1
    assert files(folder) == []


# ---------------------------------------------------------------- folders and disks


def test_folders_are_for_their_owner_alone(folder: Path, connection: Connection) -> None:
    publish(connection, "a")
    receive(connection, 1)
    made = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    assert len(made) >= 4
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}


def test_a_folder_removed_while_we_run_is_made_again(folder: Path, connection: Connection, ever_tidy: None) -> None:
    publish(connection, "lost")
    with connection.SimpleQueue("q") as queue:
        held = queue.get(timeout=5)
        shutil.rmtree(folder)
        with pytest.raises(Empty):
            queue.get(timeout=5 * POLLING)
        held.ack()
        publish(connection, "new")
        queue.put("newer")  # by way of an exchange, whose bindings were removed too
        assert [queue.get(timeout=5).payload for _ in range(2)] == ["new", "newer"]


def test_publishing_on_a_full_disk_raises_and_leaves_nothing(folder: Path, connection: Connection) -> None:
    publish(connection, "before")
    before = files(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # bytes: a message gets that far
    try:
        with pytest.raises(OSError, match="File too large"):
            publish(connection, "too much")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(folder) == before


def test_ringing_on_a_full_disk_costs_a_log_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    wakeups.ring(wakeups.DEFAULT_QUEUE)
    assert "No space left on device" in caplog.text
    assert not [path for path in files(settings.BROKER_DIR) if path.name.endswith(".tmp")]


def test_a_consumer_waits_while_the_disk_is_unwell(
    folder: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    publish(connection, "patient")
    with monkeypatch.context() as disk:
        disk.setattr(Path, "rename", fails)
        assert is_empty(connection)
    assert receive(connection, 1) == ["patient"]
    assert caplog.text.count("Input/output error") == 1


# ---------------------------------------------------------------- bells


def publish_soon(folder: Path) -> threading.Thread:
    def act() -> None:
        time.sleep(0.3)
        with connect(folder) as connection:
            publish(connection, "news")

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_consumer_that_waits_is_woken(folder: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_broker, "LOOK_SECONDS", 20)
    publisher = publish_soon(folder)
    began = time.monotonic()
    assert receive(connection, 1, seconds=20) == ["news"]
    assert time.monotonic() - began < 10
    publisher.join()


def test_where_no_pipe_can_be_made_a_consumer_looks_often(
    folder: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "mkfifo", cannot)
    monkeypatch.setattr(file_broker, "LOOK_SECONDS", 20)
    publisher = publish_soon(folder)
    began = time.monotonic()
    assert receive(connection, 1, seconds=20) == ["news"]
    assert time.monotonic() - began < 10
    publisher.join()


def test_bells_of_the_dead_are_removed_and_no_stray_file_is_written(folder: Path, connection: Connection) -> None:
    bells = folder / "bells"
    bells.mkdir(parents=True)
    os.mkfifo(bells / "1-dead")
    (bells / "notes.txt").write_text("mine")
    publish(connection, "a")
    assert [path.name for path in bells.iterdir()] == ["notes.txt"]
    assert (bells / "notes.txt").read_text() == "mine"
    assert receive(connection, 1) == ["a"]


def test_a_bell_is_gone_with_its_consumer(folder: Path) -> None:
    with connect(folder) as connection:
        assert is_empty(connection)
        assert len(list((folder / "bells").iterdir())) == 1
    assert list((folder / "bells").iterdir()) == []


# ---------------------------------------------------------------- control messages


def bindings(folder: Path) -> list[Path]:
    return sorted((folder / "control").rglob("*.binding"))


def test_control_messages_of_the_dead_are_removed_after_an_hour(
    folder: Path, connection: Connection, ever_tidy: None
) -> None:
    dead = connection.SimpleQueue("dead@host.celery.pidbox")
    young = connection.SimpleQueue("young@host.celery.pidbox")
    for queue in (dead, young):
        queue.put("ping")
    publish(connection, "work")
    for path in [*files(folder), *bindings(folder)]:
        if "young" not in path.name:
            os.utime(path, (time.time() - 3601,) * 2)
    assert receive(connection, 1) == ["work"]  # work waits for however long it takes
    (left,) = files(folder)
    assert "young" in left.name
    assert not [path for path in bindings(folder) if "dead" in path.name]


def test_a_corrupt_binding_is_set_aside_and_made_again(folder: Path, connection: Connection, ever_tidy: None) -> None:
    with connection.SimpleQueue("q") as queue:
        queue.put("a")
        assert queue.get(timeout=5).payload == "a"
        (binding,) = bindings(folder)
        binding.write_text("[[")
        queue.put("lost: nothing is bound")
        with pytest.raises(Empty):
            queue.get(timeout=5 * POLLING)
        assert bad(folder) == [f"{binding.name}.bad"]
        queue.put("b")
        assert queue.get(timeout=5).payload == "b"


# ---------------------------------------------------------------- a real worker


class CeleryWorker:
    """`celery -A config worker` of the default queue over a data folder of its own."""

    def __init__(self, data: Path) -> None:
        self.folder = data / "broker"
        environment = {**os.environ, "DATA_DIR": str(data), "DJANGO_SETTINGS_MODULE": "config.settings"}
        subprocess.run([sys.executable, "manage.py", "migrate", "-v", "0"], cwd=ROOT, env=environment, check=True)
        program = [sys.executable, "-m", "celery", "-A", "config", "worker", "-Q", "default", "--pool", "threads"]
        quiet = ["--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        with (data / "worker.log").open("wb") as log:
            self.process = subprocess.Popen([*program, *quiet], cwd=ROOT, env=environment, stdout=log, stderr=log)
        self.app = Celery("peer", broker="files://", set_as_current=False)
        self.app.conf.broker_transport_options = {"folder": str(self.folder), "polling_interval": POLLING}
        self.log = data / "worker.log"

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return bool(self.app.control.ping(timeout=1.0, limit=1))

    def ring(self) -> None:
        self.app.send_task(wakeups.DEFAULT_TASK, queue="default")

    def is_done(self) -> bool:
        """Whether every message was fetched and acknowledged."""
        return not files(self.folder)

    def stop(self) -> None:
        self.app.close()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CeleryWorker]:
    worker = CeleryWorker(tmp_path_factory.mktemp("data"))
    wait_until(worker.answers, 60)
    yield worker
    worker.stop()


def test_a_worker_works_and_answers_pings(worker: CeleryWorker) -> None:
    worker.ring()
    wait_until(worker.is_done, 5)
    assert worker.answers()


def test_a_worker_lives_with_every_kind_of_bad_file(worker: CeleryWorker) -> None:
    messages = worker.folder / "messages"
    set_aside = len(bad(worker.folder))
    (messages / "1.default.msg").write_bytes(b"")
    (messages / "2.default.msg").write_bytes(b'{"body": "W1td')
    (messages / "3.default.msg").mkdir()
    headers = {"task": ["unhashable"]}
    properties = {"body_encoding": "base64", "delivery_info": {}}
    message = {"body": "", "content-type": "application/json", "content-encoding": "utf-8"}
    (messages / "4.default.msg").write_text(json.dumps(message | {"headers": headers, "properties": properties}))
    worker.ring()
    wait_until(worker.is_done, 5)
    assert len(bad(worker.folder)) == set_aside + 4
    assert worker.answers()


def test_a_worker_takes_up_what_a_dead_one_held(worker: CeleryWorker) -> None:
    worker.process.send_signal(signal.SIGSTOP)
    worker.ring()
    (waiting,) = (worker.folder / "messages").glob("*.default.msg")
    dead = worker.folder / "claimed" / "1-dead"
    dead.mkdir()
    waiting.rename(dead / waiting.name)
    worker.process.send_signal(signal.SIGCONT)
    wait_until(worker.is_done, 10)
    wait_until(lambda: not dead.exists(), 1)


def test_a_worker_goes_on_after_its_folder_was_removed(worker: CeleryWorker) -> None:
    shutil.rmtree(worker.folder)
    worker.ring()
    wait_until(worker.is_done, 5)
    wait_until(worker.answers, 15)
