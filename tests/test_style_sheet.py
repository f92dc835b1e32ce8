"""Each class of the style sheet is in use."""

import ast
import re

from tests.server import ROOT

# The classes that htmx and Swagger UI put on elements.
THIRD_PARTY = {"htmx-request", "swagger-ui", "info", "wrapper", "scheme-container"}


def test_each_class_of_the_style_sheet_is_in_use() -> None:
    styled = in_style_sheet()
    assert {"job", "is-done", "htmx-request"} <= styled
    assert sorted(styled - in_templates() - in_scripts() - in_python() - THIRD_PARTY) == []


def in_style_sheet() -> set[str]:
    """The classes that its selectors name."""
    text = (ROOT / "static" / "stenograf.css").read_text()
    rules = re.sub(r'/\*.*?\*/|"[^"]*"', "", text, flags=re.DOTALL)
    selectors = re.findall(r"([^{};]+)\{", rules)
    return {name for selector in selectors for name in re.findall(r"\.([a-z][\w-]*)", selector)}


def in_templates() -> set[str]:
    """The words of class attributes, and those that a page adds to its <main> by a block."""
    text = "\n".join(path.read_text() for path in (ROOT / "templates").rglob("*.html"))
    values = re.findall(r'class="([^"]*)"', text) + re.findall(r"{% block main_class %}([^{]*)", text)
    return {word for value in values for word in re.findall(r"[\w-]+", value)}


def in_scripts() -> set[str]:
    """The words of the scripts' strings, which are selectors and class names among other things."""
    text = "\n".join(path.read_text() for path in (ROOT / "static").glob("*.js"))
    return {word for string in re.findall(r'"[^"\n]*"|`[^`\n]*`', text) for word in re.findall(r"[\w-]+", string)}


def in_python() -> set[str]:
    """The words of class attributes in the strings of the code that renders markup, and the strings of one word."""
    folder = ROOT / "transcription"
    files = [*(folder / "web").glob("*.py"), *(folder / "templatetags").glob("*.py")]
    nodes = (node for path in files for node in ast.walk(ast.parse(path.read_text())))
    strings = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    attributes = " ".join(value for string in strings for value in re.findall(r'class="([^"]*)"', string))
    return {string for string in strings if re.fullmatch(r"[a-z-]+", string)} | set(attributes.split())
