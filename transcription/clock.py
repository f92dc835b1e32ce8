"""The database's clock, by which leases and waits are reckoned: the clocks of two machines never agree."""

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
        """SQLite runs in this process, so its clock is this one; its own function knows milliseconds only."""
        return "%s", [str(connection.ops.adapt_datetimefield_value(timezone.now()))]


def now() -> DatabaseNow:
    """The time now."""
    return DatabaseNow()


def after(seconds: float) -> Combinable:
    """The time in `seconds`; the past where they are negative."""
    return DatabaseNow() + timedelta(seconds=seconds)
