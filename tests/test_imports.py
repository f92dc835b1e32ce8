"""Imports point downward, from the pages and the API to what everything rests on, and stand at the top of a file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import ROOT

# From the bottom. A module imports its own part and lower floors; parts of one floor do not import each other.
FLOORS = (
    ("whisper",),
    ("clock", "errors", "logs", "parameters", "processes", "proxies", "web.languages"),
    ("disk",),
    ("outbound", "sentences", "sound", "weights"),
    ("models", "workers.enginecheck"),
    ("history", "keys", "shares", "uploads", "workers.devices"),
    ("text",),
    ("queue",),
    ("capabilities", "model_library", "watcher", "webhooks"),
    ("jobs",),
    ("users", "workers"),
    ("checks", "doctor", "tasks"),
    ("templatetags",),
    ("api",),
    ("api.compat", "api.v1"),
    ("admin", "admin_site", "management", "web"),
    ("apps",),
)
FLOOR_OF = {part: number for number, parts in enumerate(FLOORS) for part in parts}

APP = ROOT / "transcription"
FILES = sorted(path for path in APP.rglob("*.py") if path.parent != APP / "migrations" and path != APP / "__init__.py")


def name_of(path: Path) -> str:
    """A file's dotted name below `transcription`."""
    return ".".join(path.relative_to(APP).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path) for path in FILES}


def part_of(module: str) -> str:
    """The longest part in FLOORS that a module belongs to."""
    parts = [part for part in FLOOR_OF if f"{module}.".startswith(f"{part}.")]
    assert parts, f"{module} is on no floor"
    return max(parts, key=len)


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in {path}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_modules(path: Path) -> Iterator[str]:
    """The modules below `transcription` that a file imports."""
    for name in imported(path):
        package, _dot, below = name.partition(".")
        if package == "transcription":
            yield below if below in MODULES else below.rpartition(".")[0]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_module_imports_its_own_part_and_lower_floors(path: Path) -> None:
    part = part_of(name_of(path))
    allowed = {part, *(lower for lower, floor in FLOOR_OF.items() if floor < FLOOR_OF[part])}

    assert {module for module in own_modules(path) if part_of(module) not in allowed} == set()


def test_whisper_is_a_library_without_django() -> None:
    packages = {name.partition(".")[0] for path in (APP / "whisper").rglob("*.py") for name in imported(path)}

    assert packages.isdisjoint({"celery", "config", "django", "kombu", "rest_framework"})


@pytest.mark.parametrize("name", ["errors", "parameters"])
def test_what_the_settings_need_is_free_of_django(name: str) -> None:
    assert not any(module.startswith(("django", "celery")) for module in imported(APP / f"{name}.py"))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_function_imports(path: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    local = [
        node for function in functions for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)
    ]

    assert local == []
