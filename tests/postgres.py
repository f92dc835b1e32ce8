"""Databases of the tests' servers on the PostgreSQL that DATABASE_URL names; nothing of it is used without one."""

import atexit
import os
import uuid
from typing import Any
from urllib.parse import urlsplit

END_CONNECTIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid != pg_backend_pid()
"""
IS_ASKED_FOR = os.environ.get("DATABASE_URL", "").startswith("postgres")
if IS_ASKED_FOR:
    import psycopg


def new_database() -> str:
    """Make a database, which goes when this process ends; return its address."""
    name = f"stenograf_{uuid.uuid4().hex[:12]}"
    _administer(f"CREATE DATABASE {name}")
    atexit.register(_administer, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()


def copy(source: str, target: str) -> None:
    """Make a database anew as another one is, which nobody is connected to."""
    name, template = urlsplit(target).path[1:], urlsplit(source).path[1:]
    _administer(f"DROP DATABASE {name} WITH (FORCE)")
    _administer(f"CREATE DATABASE {name} TEMPLATE {template}")


def _administer(statement: str) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(statement)


def end_connections(url: str) -> None:
    """End everybody's connection to a database, as a restart of its server does."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(END_CONNECTIONS)


def rows(url: str, query: str, *values: object) -> list[tuple[Any, ...]]:
    """What a query that is written for SQLite gives."""
    with psycopg.connect(url) as connection:
        found = connection.execute(query.replace("%", "%%").replace("?", "%s"), values)
        return [tuple(_as_in_sqlite(value) for value in row) for row in found]


def _as_in_sqlite(value: object) -> object:
    return value.hex if isinstance(value, uuid.UUID) else value
