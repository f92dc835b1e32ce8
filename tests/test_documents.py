"""The documents are true: their links lead somewhere, and their tables have what the code has."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands
from django.urls import URLPattern, URLResolver, get_resolver

from tests.server import ROOT, Server
from transcription.parameters import PARAMETERS, Parameter
from transcription.whisper.engine import ENGINES
from transcription.whisper.options import TranscriptionOptions

DOCS = ROOT / "docs"
FOLDERS = (ROOT, DOCS, DOCS / "howto", ROOT / "models", ROOT / "benchmarks")
DOCUMENTS = [path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in sorted(folder.glob("*.md"))]


def table_rows(page: str, heading: str = "") -> Iterator[list[str]]:
    """The cells of a page's tables, or of those under one heading, without their heads."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0] if heading else page
    for table in re.findall(r"(?:^\|.*\n)+", section + "\n", re.MULTILINE):
        for line in table.splitlines()[2:]:
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def read(path: str) -> str:
    return (ROOT / path).read_text()


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# ------------------------------------------------------------------ links and paths


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _hash, heading = target.partition("#")
        if path.startswith(("https://", "http://")):
            continue
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), target
        headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE) if heading else []
        slugs = [re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings]
        assert not heading or heading in slugs, target


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name.startswith("docs/") and "howto" not in name])
def test_the_readme_leads_to_every_document(document: str) -> None:
    assert f"({document})" in (ROOT / "README.md").read_text()


GUIDES = ("CONTRIBUTING.md", "docs/design.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_exists(document: str) -> None:
    folders = "config|transcription|templates|static|tests|docs|benchmarks|locale"
    named = re.findall(rf"`((?:{folders})/[^`\s]*)`", read(document))
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert len(named) > 20 or document not in GUIDES


@pytest.mark.parametrize("guide", GUIDES)
def test_every_name_that_a_guide_finds_in_a_file_is_there(guide: str) -> None:
    named = re.findall(r"`(\w+)`(?: \w+)? in\s+`([\w/]+\.py)`", read(guide))
    assert named
    assert [(name, path) for name, path in named if not re.search(rf"\b{name}\b", read(path))] == []


def test_the_tour_of_the_house_has_every_module_in_its_place() -> None:
    toured = {
        codes(folder)[0]: [name for name in codes(modules) if re.fullmatch("[a-z_0-9]+", name)]
        for folder, _, modules in table_rows(read("docs/design.md"), "The wings")
    }
    without = {"migrations", "management", "templatetags", "samples"}
    folders = {path.parent for path in ROOT.glob("transcription/**/__init__.py")} | {ROOT / "config"}
    house = {
        f"{folder.relative_to(ROOT)}/": sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
        for folder in folders
        if not without & set(folder.relative_to(ROOT).parts)
    }
    assert {folder: sorted(modules) for folder, modules in toured.items()} == house


# ------------------------------------------------------------------ the first request


def test_the_first_request_works_as_printed(nano_server: Server) -> None:
    (block,) = [
        block
        for block in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        if "curl" in block
    ]
    # The tests' server has an address and a Python of its own.
    script = block.replace("http://localhost:8801", nano_server.url).replace(".venv/bin/python", sys.executable)

    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=nano_server.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    transcript = json.loads(run.stdout)
    assert transcript["text"]
    assert transcript["segments"]
    assert transcript["language"]


# ------------------------------------------------------------------ docs/settings.md

SETTINGS_PAGE = (DOCS / "settings.md").read_text()
DOCUMENTED = {name: (default, meaning) for cell, default, meaning in table_rows(SETTINGS_PAGE) for name in codes(cell)}
# Such a default is the variable's value; any other is told in words.
WITH_VALUES = {name: codes(default)[0] for name, (default, _) in DOCUMENTED.items() if re.fullmatch("`[^`]+`", default)}


def variables_read() -> set[str]:
    """The names that config/settings.py gives to `env` and to its own functions that read one variable."""
    tree = ast.parse((ROOT / "config" / "settings.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    reads = [call for call in calls if re.match(r"env\.|_[a-z_]+$", ast.unparse(call.func))]
    names = [call.args[0].value for call in reads if isinstance(call.args[0], ast.Constant)]
    own = {variable for parameter in PARAMETERS for variable in parameter.variables}
    return {name for name in names if isinstance(name, str) and re.fullmatch("[A-Z][A-Z_]+", name)} | own


def test_every_variable_that_is_read_is_documented_and_no_other() -> None:
    assert set(DOCUMENTED) - {"DEFAULT_<PARAMETER>"} == variables_read()


def settings_with(**environment: str) -> dict[str, Any]:
    program = (
        "from config import settings; import json;"
        "values = {name: repr(value) for name, value in vars(settings).items() if name.isupper()};"
        "print(json.dumps(values))"
    )
    kept = {name: value for name, value in os.environ.items() if name not in DOCUMENTED}
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**kept, "SECRET_KEY": "x", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    settings: dict[str, Any] = json.loads(re.sub(r" at 0x[0-9a-f]+", "", run.stdout))  # where functions lie
    return settings


def test_the_documented_defaults_are_the_true_ones() -> None:
    values = {name: value for name, value in WITH_VALUES.items() if name != "PUBLIC_URL"}
    assert len(values) > 30
    assert settings_with(**values) == settings_with()


# What an example of a shell or of make calls its own. The how-tos set other programs' variables too.
NO_SETTINGS = {"AT", "KEY", "OFFSET", "PYTHON", "RECORDING", "SIZE", "SLOW", "URL"}


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if "howto" not in name])
def test_every_setting_that_a_document_sets_exists(document: str) -> None:
    named = set(re.findall(r"\b([A-Z][A-Z_]+)=", read(document))) - NO_SETTINGS
    assert named <= {*DOCUMENTED, *(f"DEFAULT_{parameter.name.upper()}" for parameter in PARAMETERS)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_that_a_document_gives_exists(document: str) -> None:
    assert set(re.findall(r"manage\.py ([a-z_]+)", read(document))) <= get_commands().keys()


# ------------------------------------------------------------------ docs/parameters.md

PARAMETERS_PAGE = (DOCS / "parameters.md").read_text()


def taken_by(parameter: Parameter) -> str:
    """What a parameter takes, in the words of its refusal."""
    if parameter.name == "language":
        return "a code such as ru, a name such as Russian, or auto"
    sentence = parameter.kind.sentence % {"name": parameter.name, **parameter.kind.placeholders}
    return sentence.partition("` is ")[2].rstrip(".")


def default_of(parameter: Parameter) -> str:
    match getattr(TranscriptionOptions(), parameter.name, None):
        case None | ():
            return "–"
        case bool(value):
            return f"`{str(value).lower()}`"
        case float(value):
            return f"`{value:g}`"
        case tuple(values):
            return f"`{','.join(f'{value:g}' for value in values)}`"
        case value:
            return f"`{value}`"


def test_every_parameter_is_documented_as_it_is() -> None:
    documented = [
        (codes(name), takes, default) for name, takes, default, _ in table_rows(PARAMETERS_PAGE, "The transcription")
    ]
    assert documented == [
        ([parameter.name, *parameter.aliases], taken_by(parameter), default_of(parameter)) for parameter in PARAMETERS
    ]


def test_what_an_engine_cannot_do_is_documented() -> None:
    documented = {
        codes(engine)[0]: codes(cell) for engine, cell in table_rows(PARAMETERS_PAGE, "What an engine cannot do")
    }
    assert documented == {name: sorted(engine.unsupported) for name, engine in ENGINES.items()}


# ------------------------------------------------------------------ docs/api.md

METHODS = {"GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "DELETE"}


def addresses(resolver: URLResolver, before: str = "") -> Iterator[tuple[str, Any]]:
    for entry in resolver.url_patterns:
        if isinstance(entry, URLResolver):
            of = getattr(entry.urlconf_name, "__name__", "")
            if of.startswith("transcription.api"):
                yield from addresses(entry, before + str(entry.pattern))
        elif isinstance(entry, URLPattern) and before + str(entry.pattern) not in (r"^api(?:/|$)", r"^v1(?:/|$)"):
            yield before + str(entry.pattern), entry.callback


def as_documented(route: str) -> str:
    """A route as the page writes it, with the same place for whatever a part is called."""
    return "/" + re.sub(r"<[^>]*>|\(\?P<\w+>[^)]*\)", "{}", re.sub(r"(/\?)?\$|\^", "", route))


def test_every_endpoint_of_the_api_is_documented_and_no_other() -> None:
    rows = [row for row in table_rows((DOCS / "api.md").read_text()) if codes(row[0]) and codes(row[0])[0] in METHODS]
    documented: dict[str, set[str]] = {}
    for row in rows:
        *methods, address = codes(row[0])
        documented.setdefault(re.sub(r"\{\w+\}", "{}", address), set()).update(methods)
    served: dict[str, set[str]] = {}
    for route, view in addresses(get_resolver()):
        served.setdefault(as_documented(route), set()).update(map(str.upper, getattr(view, "actions", None) or ()))

    assert documented.keys() == served.keys()
    for address, actions in served.items():
        assert not actions or documented[address] | {"HEAD"} == actions | {"HEAD"}, address


# ------------------------------------------------------------------ .pre-commit-config.yaml


def test_the_checks_before_a_commit_need_no_network() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook for repository in repositories for hook in repository["hooks"]]

    assert [repository["repo"] for repository in repositories] == ["local"]
    assert {hook["language"] for hook in hooks} == {"system"}
    for hook in hooks:
        program = hook["entry"].split()[0]
        assert program.startswith(".venv/bin/")
        assert Path(sys.executable).with_name(Path(program).name).exists(), program
