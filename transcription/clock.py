"""The database's clock, which leases and waits use: the clocks of two machines never agree."""

from datetime import timedelta
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import Combinable
from django.db.models.functions import Now
from django.db.models.sql.compiler import SQLCompiler
from django.utils import timezone


class DatabaseNow(Now):
    """The database's time at the start of the statement."""

    def as_sqlite(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> tuple[str, list[str | int]]:
        """This process's clock, in microseconds: SQLite runs in it, and SQLite's own function gives milliseconds."""
        return "%s", [str(connection.ops.adapt_datetimefield_value(timezone.now()))]


def now() -> DatabaseNow:
    """The time now."""
    return DatabaseNow()


def after(seconds: float) -> Combinable:
    """The time in `seconds` from now, or before now if they are negative."""
    return DatabaseNow() + timedelta(seconds=seconds)
