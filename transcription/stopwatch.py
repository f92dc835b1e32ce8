"""How long the steps of a job take, as debug lines: with LOG_LEVEL=debug the logs say where the time goes."""

import functools
import logging
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


def timed(step: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Say of each call how long it took, however it ended."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            began = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                say(step, time.monotonic() - began)

        return wrapper

    return decorate


def say(step: str, seconds: float) -> None:
    """Say how long a step took."""
    log.debug("%s took %.4f s", step, seconds)
