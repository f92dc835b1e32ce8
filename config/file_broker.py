"""The embedded broker: Celery's messages are files in a folder, and a process that dies loses or corrupts none.

kombu's own filesystem transport lets readers see half-written files, ends the worker at a file that it cannot parse,
and keeps fetched messages only in memory. Here, below the folder that the transport option `folder` names:

    messages/   <time>-<count>-<uuid>.<queue>.msg, a message each; their names sort in the order of publishing
    claimed/    <pid>-<random>/, the messages that one consumer has fetched and not yet acknowledged
    control/    <exchange>.bindings/, a file for each queue that is bound to the exchange
    bells/      <pid>-<random>, a named pipe of each waiting consumer; a publisher writes a byte into every one
    bad/        <name>.bad, files that could not be read, for a person to look at

A consumer holds its claimed folder locked. The kernel drops the lock when the process ends, however it ends, and every
consumer puts back the messages in folders that are not locked, so no message waits for a timeout. A bell only wakes a
consumer before it would look at the folder anyway. All of this may be removed while processes run; it is made again.

For one machine and a local disk: NFS supports neither such locks nor such renames. A forked child would hold its
parent's locks too, so workers run with `--pool=threads` or `solo`; a child that is started by exec does not.
"""

import base64
import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import logging
import math
import os
import selectors
import stat
import time
import uuid
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from typing import Any
from urllib.parse import quote

from kombu.transport import filesystem, virtual
from kombu.transport.filesystem import exchange_queue_t

log = logging.getLogger(__name__)

TIDY_SECONDS = 5
CONTROL_SECONDS = 3600  # nobody waits any longer for a ping, or the reply to one, that is older
COMPLAINT_SECONDS = 60
LOOK_SECONDS = 0.25  # how often a consumer looks at the folder even if its bell does not ring
LARGEST_MESSAGE = 16 * 1024**2  # bytes; ours have about 1,000, a recording in this folder by mistake may have 5 GB


class Channel(filesystem.Channel):
    """Publishes to and consumes from the folder. A channel that only publishes claims nothing and holds no lock."""

    do_restore = False  # kombu would publish the messages again; close() moves the files back instead

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.folder = Path(self.transport_options["folder"])
        self.messages = self.folder / "messages"
        self.claimed = self.folder / "claimed"
        self.bindings = self.folder / "control"
        self.bad = self.folder / "bad"
        self.bells = self.folder / "bells"
        self._count = itertools.count()
        self._waiting: defaultdict[str, deque[str]] = defaultdict(deque)  # by queue: the names as last listed
        self._own: ClaimedFolder | None = None
        self._next_tidying = 0.0
        self._next_complaint = 0.0

    # ---------------------------------------------------------------- publish

    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override]
        """Publish a message. Raises OSError if it cannot be written, and then leaves no file behind."""
        name = f"{time.time_ns():020d}-{next(self._count) % 10**6:06d}-{uuid.uuid4().hex}.{_ending(queue)}"
        self._make(self.messages)
        _write(self.messages / name, payload)
        self._ring()

    def _ring(self) -> None:
        """Wake every waiting consumer, whatever its queues; one that misses it looks at the folder anyway."""
        for name in _listing(self.bells):
            try:
                _ring(self.bells / name)
            except OSError as error:
                self._complain(error)

    # ---------------------------------------------------------------- fetch

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        """Claim the oldest message of a queue. Raises Empty, also if the folder cannot be used at the moment."""
        waiting = self._waiting[queue]
        try:
            if not waiting:
                self._tidy_now_and_then()
                waiting.extend(self._names(queue))
            while waiting:
                message = self._claim(waiting.popleft())
                if message is not None:
                    return message
        except OSError as error:  # such as a full disk; the exception would end the worker
            self._complain(error)
        raise Empty

    def _names(self, queue: str) -> list[str]:
        """The queue's waiting messages, the oldest first."""
        ending = _ending(queue)
        return sorted(name for name in _listing(self.messages) if name.partition(".")[2] == ending)

    def _claim(self, name: str) -> dict[str, Any] | None:
        """Move a message into our claimed folder; None if another consumer was first, or it is not a message."""
        own = self._own_folder()
        claimed = own / name
        try:
            (self.messages / name).rename(claimed)
        except FileNotFoundError:
            return None
        try:
            message = _message(_read(claimed))
        except (OSError, ValueError) as error:
            self._set_aside(claimed, error)
            return None
        # The publisher's own tag is not unique if a file was copied; this one is the message's path.
        message["properties"]["delivery_tag"] = f"{own.name}/{name}"
        return message

    def _own_folder(self) -> Path:
        if self._own is None or not self._own.path.is_dir():
            self._make(self.claimed)
            self._own = ClaimedFolder(self.claimed)
        return self._own.path

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str | None, **kwargs: Any) -> Any:
        def deliver(message: Any) -> None:
            if no_ack:
                self._drop(message.delivery_tag)  # before the callback: the command may be to shut down
                callback(message)
            else:
                self._deliver(message, callback)

        return super().basic_consume(queue, no_ack, deliver, consumer_tag, **kwargs)

    def _deliver(self, message: Any, callback: Callable[..., Any]) -> None:
        """Hand a message to Celery; set it aside if Celery cannot read its headers, which would end every worker."""
        try:
            callback(message)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            self.qos.ack(message.delivery_tag)
            self._set_aside(self.claimed / message.delivery_tag, error)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        message: Any = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if message is not None and no_ack:
            self._drop(message.delivery_tag)
        return message

    # ---------------------------------------------------------------- acknowledge, or give back

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        super().basic_ack(delivery_tag, multiple=multiple)
        self._drop(delivery_tag)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        super().basic_reject(delivery_tag, requeue=requeue)
        if not requeue:
            self._drop(delivery_tag)

    def _drop(self, delivery_tag: str) -> None:
        try:
            (self.claimed / delivery_tag).unlink(missing_ok=True)
        except OSError as error:  # the message will be delivered again, which is harmless; this may be any thread
            self._complain(error)

    def _restore(self, message: Any) -> None:
        """Put one message back, to its old place in the order."""
        claimed = self.claimed / message.delivery_tag
        with contextlib.suppress(FileNotFoundError):
            claimed.rename(self.messages / claimed.name)
            self._waiting.clear()  # it is older than the names listed there
            self._ring()

    def close(self) -> None:
        super().close()
        own, self._own = self._own, None
        if own is not None:
            try:
                self._give_back(own.path)
            except OSError as error:
                self._complain(error)
            finally:
                own.unlock()

    # ---------------------------------------------------------------- every few seconds

    def _tidy_now_and_then(self) -> None:
        if time.monotonic() >= self._next_tidying:
            self._next_tidying = time.monotonic() + TIDY_SECONDS
            self._give_back_for_dead_consumers()
            self._keep_bindings()
            self._remove_old_control_files()
            self._set_foreign_files_aside()

    def _give_back_for_dead_consumers(self) -> None:
        for name in _listing(self.claimed):
            lock = _lock(self.claimed / name)
            if lock is not None:
                try:
                    returned = self._give_back(self.claimed / name)
                finally:
                    os.close(lock)
                if returned:
                    log.warning("the consumer %s is gone: gave back %d messages", name, returned)

    def _give_back(self, folder: Path) -> int:
        """Put the messages in a claimed folder back, and remove the folder; the caller holds its lock."""
        names = _listing(folder)
        self._make(self.messages)
        for name in names:
            (folder / name).rename(self.messages / name)
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()
        if names:
            self._ring()
        return len(names)

    def _keep_bindings(self) -> None:
        """Bind our queues again if a binding was lost, and update the time of each, which shows that it is in use."""
        for queue in self._active_queues:
            for exchange, key, arguments in list(self.state.queue_bindings(queue)):
                routing_key, pattern = self.typeof(exchange).prepare_bind(queue, exchange, key, arguments)[:2]
                self._queue_bind(exchange, routing_key, pattern, queue)

    def _remove_old_control_files(self) -> None:
        """Remove the control messages, bindings and drafts of processes that died."""
        folders = [self.messages, *(self.bindings / name for name in _listing(self.bindings))]
        for path in (folder / name for folder in folders for name in _listing(folder)):
            if path.name.endswith((".pidbox.msg", ".pidbox.binding", ".tmp")):
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime < time.time() - CONTROL_SECONDS:
                        path.unlink()

    def _set_foreign_files_aside(self) -> None:
        """Set aside the files that no queue could ever fetch, except hidden ones: drafts, or the Finder's."""
        for name in _listing(self.messages):
            if not name.startswith(".") and not name.partition(".")[2].endswith(".msg"):
                self._set_aside(self.messages / name, ValueError("the name is not <number>.<queue>.msg"))

    # ---------------------------------------------------------------- queues and exchanges

    def _size(self, queue: str) -> int:
        return len(self._names(queue))

    def _purge(self, queue: str) -> int:
        names = self._names(queue)
        for name in names:
            (self.messages / name).unlink(missing_ok=True)
        return len(names)

    def _delete(self, queue: str, exchange: str, routing_key: str, pattern: str | None, *_: Any, **__: Any) -> None:
        self._purge(queue)
        self._binding(exchange, (routing_key or "", pattern or "", queue)).unlink(missing_ok=True)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str | None, queue: str) -> None:
        """Bind a queue. Each binding has a file: in a common file, two processes would undo each other's change."""
        binding = (routing_key or "", pattern or "", queue)
        path = self._binding(exchange, binding)
        try:
            try:
                os.utime(path)
            except FileNotFoundError:
                self._make(self.bindings)
                self._make(path.parent)
                _write(path, binding)
        except OSError as error:  # only pings have to wait until the next tidying
            self._complain(error)

    def get_table(self, exchange: str) -> list[exchange_queue_t]:  # type: ignore[override]
        """All bindings of an exchange, of all processes."""
        table = []
        folder = self._exchange(exchange)
        for path in (folder / name for name in _listing(folder) if name.endswith(".binding")):
            try:
                table.append(_exchange_queue(_read(path)))
            except FileNotFoundError:
                continue  # the queue was unbound meanwhile
            except (OSError, ValueError) as error:
                self._set_aside(path, error)
        return table

    def _binding(self, exchange: str, binding: tuple[str, str, str]) -> Path:
        digest = hashlib.sha256(json.dumps(binding).encode()).hexdigest()[:16]
        return self._exchange(exchange) / f"{digest}.{_quoted(binding[2])}.binding"

    def _exchange(self, exchange: str) -> Path:
        return self.bindings / f"{_quoted(exchange)}.bindings"

    # ---------------------------------------------------------------- errors

    def _set_aside(self, path: Path, reason: Exception) -> None:
        """Move an unreadable file out of the way; otherwise it would be read again and again."""
        log.warning("set aside in %s: %r: %s: %s", self.bad, path.name, type(reason).__name__, reason)
        try:
            self._make(self.bad)
            path.rename(self.bad / f"{path.name}.bad")
        except FileNotFoundError:  # the whole folder was removed
            pass
        except OSError as error:
            self._complain(error)

    def _make(self, folder: Path) -> None:
        """Make a folder that only its owner may use: whoever can write here controls the workers."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)

    def _complain(self, error: OSError) -> None:
        """Log an error, but not forty times a second."""
        if time.monotonic() >= self._next_complaint:
            self._next_complaint = time.monotonic() + COMPLAINT_SECONDS
            log.warning("the broker's folder: %s", error)


class Transport(filesystem.Transport):
    Channel = Channel
    driver_type = "files"
    driver_name = "files"

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.state = virtual.BrokerState()  # kombu shares one among all connections, whatever their folders
        self._bells = Path(client.transport_options["folder"]) / "bells"
        self._bell: Bell | None = None

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:  # type: ignore[override]
        """Deliver the next message, waiting for it. Raises TimeoutError when none comes in time."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            # Before looking at the folder, so that a message that comes later rings it.
            self._bell = Bell.hung(self._bell, self._bells)
            try:
                self.cycle.get(self._deliver, timeout=timeout)  # type: ignore[union-attr]
            except Empty:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError from None
                self._wait(left)
            else:
                return

    def _wait(self, longest: float) -> None:
        if self._bell is None:
            time.sleep(min(longest, float(self.polling_interval or LOOK_SECONDS)))
        else:
            self._bell.wait(min(longest, LOOK_SECONDS))

    def close_connection(self, connection: Any) -> None:
        super().close_connection(connection)
        if self._bell is not None:
            self._bell.take_down()


class Bell:
    """A named pipe that only this process reads, until `take_down` or the process's end."""

    def __init__(self, folder: Path) -> None:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        self.path = folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        os.mkfifo(self.path, mode=0o600)
        # Opened for writing too: a pipe without a writer is at its end, and select would return at once.
        descriptor = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        self._descriptor = descriptor
        self._selector = selectors.DefaultSelector()
        self._selector.register(descriptor, selectors.EVENT_READ)
        self.take_down = weakref.finalize(self, _take_down, self.path, descriptor, self._selector)

    @classmethod
    def hung(cls, bell: "Bell | None", folder: Path) -> "Bell | None":
        """The bell if its pipe still exists, else a new one; None if there can be none."""
        if bell is not None and bell.path.exists():
            return bell
        if bell is not None:
            bell.take_down()
        try:
            return cls(folder)
        except OSError:  # a full disk, or a file system without pipes
            return None

    def wait(self, seconds: float) -> None:
        """Return when it rings, if it has rung since the last wait, or after so many seconds."""
        if self._selector.select(seconds):
            os.read(self._descriptor, 65536)


def _take_down(path: Path, descriptor: int, selector: selectors.BaseSelector) -> None:
    selector.close()
    os.close(descriptor)
    with contextlib.suppress(OSError):
        path.unlink()


def _ring(path: Path) -> None:
    """Ring a bell, and remove it if no process reads it any more."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        path.unlink(missing_ok=True)
        return
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.write(descriptor, b"!")
    except BlockingIOError:  # the pipe is full, so the bell has rung
        pass
    finally:
        os.close(descriptor)


class ClaimedFolder:
    """A new folder that this process keeps locked until `unlock`, or until it ends."""

    def __init__(self, parent: Path) -> None:
        lock = None
        while lock is None:  # another consumer that tidies may remove the folder before we lock it
            self.path = parent / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
            self.path.mkdir(mode=0o700)
            lock = _lock(self.path)
        self.unlock = weakref.finalize(self, os.close, lock)


def _lock(folder: Path) -> int | None:
    """A descriptor that keeps the folder locked while it is open; None if another has it, or it is no folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder.stat()  # fails if the folder was removed before we had the lock
    except OSError as error:
        os.close(descriptor)
        if not isinstance(error, BlockingIOError | FileNotFoundError):
            raise
        return None
    return descriptor


def _listing(folder: Path) -> list[str]:
    """The names in a folder; none if it is missing."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _write(path: Path, content: object) -> None:
    """Write a file that appears complete or not at all."""
    draft = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with draft.open("xb") as file:
            file.write(json.dumps(content).encode())
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut may leave an empty file
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _read(path: Path) -> object:
    """The JSON in a file. Raises OSError or ValueError for anything else, and never waits for a pipe."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST_MESSAGE:
            raise ValueError("not a file of a message's size")
        try:
            return json.loads(file.read())
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def _message(content: Any) -> dict[str, Any]:
    """The content if it has the shape of a kombu message. Raises ValueError."""
    match content:
        case {  # what every publisher writes; Celery checks the meaning
            "body": str(body),
            "headers": dict(),
            "content-type": str(),
            "content-encoding": str(),
            "properties": {"body_encoding": "base64", "delivery_info": dict()},
        }:
            base64.b64decode(body, validate=True)
            message: dict[str, Any] = content
            return message
    raise ValueError("JSON, but no message")


def _exchange_queue(content: object) -> exchange_queue_t:
    match content:
        case [str(routing_key), str(pattern), str(queue)]:
            return exchange_queue_t(routing_key, pattern, queue)
    raise ValueError("JSON, but no binding")


def _ending(queue: str) -> str:
    return f"{_quoted(queue)}.msg"


def _quoted(name: str) -> str:
    return quote(name, safe="@:")
