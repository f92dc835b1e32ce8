"""Log lines that say which job they are about: `key=value` for people, JSON for programs (LOG_FORMAT)."""

import functools
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import ParamSpec, TypeVar

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_about: ContextVar[dict[str, str] | None] = ContextVar("about", default=None)

# What a line may be about. Any of these may also be given for one line, in `extra`.
SUBJECTS = ("job", "section", "recording", "user")


@contextmanager
def about(**subjects: object) -> Iterator[None]:
    """Add subjects to all lines logged within, in this thread or task: `with logs.about(job=job.pk):`."""
    token = _about.set({**(_about.get() or {}), **{name: str(value) for name, value in subjects.items()}})
    try:
        yield
    finally:
        _about.reset(token)


def subjects_of(record: logging.LogRecord) -> dict[str, str]:
    """What a line is about, by its own `extra` or by `about`."""
    own = {name: str(vars(record)[name]) for name in SUBJECTS if name in vars(record)}
    return {**(_about.get() or {}), **own}


class Line(logging.Formatter):
    """`2026-11-21 10:00:00,123 INFO transcription.history done job=2f0c…`."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        subjects = "".join(f" {name}={value}" for name, value in subjects_of(record).items())
        return super().formatMessage(record) + subjects


class Json(logging.Formatter):
    """One object a line: time (UTC, ISO 8601), level, logger, message, what it is about, and the traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **subjects_of(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def timed(step: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Log how long each call of the decorated function took, also if it raised."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            began = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                log_time(step, time.monotonic() - began)

        return wrapper

    return decorate


def log_time(step: str, seconds: float) -> None:
    """Log how long a step took."""
    log.debug("%s took %.4f s", step, seconds)
