"""The API's description: it is whole, it is true, and its page needs nothing from elsewhere."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from tests.server import NANO, Server
from transcription.api.v1.urls import urlpatterns
from transcription.parameters import PARAMETERS

SENTENCE = NANO / "nano" / "bears.wav"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# Streams, chunks of uploads and media are tested by themselves; a key that revokes itself would end the test.
LEFT_OUT = r"/events/|/audio/|/uploads/|/tokens/\{id\}/"


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    answer = Client().get("/api/schema/", headers={"Accept": "application/vnd.oai.openapi+json"})
    assert answer.status_code == 200
    schema: dict[str, Any] = json.loads(answer.content)
    return schema


def test_it_is_openapi_3_1_and_for_everybody(described: dict[str, Any]) -> None:
    assert described["openapi"] == "3.1.0"
    assert Client().get("/api/schema/").content.startswith(b"openapi: 3.1.0\n")


def test_every_address_is_described(described: dict[str, Any]) -> None:
    def form(address: str) -> str:
        return re.sub(r"<[^>]+>|\{[^}]+\}", "…", address)

    assert {form(path) for path in described["paths"]} == {form(f"/api/v1/{each.pattern}") for each in urlpatterns}


def test_every_call_says_what_it_does_and_how_it_refuses(described: dict[str, Any]) -> None:
    for path, calls in described["paths"].items():
        for method, call in calls.items():
            assert call.get("description") or method == "get" or method == "options", f"{method} {path}"
            assert "401" in call["responses"] or method == "options", f"{method} {path}"
            assert any(status.startswith("2") for status in call["responses"]), f"{method} {path}"


def test_a_new_job_takes_every_parameter_of_the_table(described: dict[str, Any]) -> None:
    taken = described["paths"]["/api/v1/jobs/"]["post"]["requestBody"]["content"]
    name = taken["multipart/form-data"]["schema"]["$ref"].rpartition("/")[2]
    properties = described["components"]["schemas"][name]["properties"]

    assert {parameter.name for parameter in PARAMETERS} <= properties.keys()
    assert {"file", "upload", "recording", "model", "tags", "batch", "callback_url"} <= properties.keys()
    assert properties["beam_size"] == {
        "type": "integer", "minimum": 1, "maximum": 16, "description": "texts that are followed at temperature 0",
    }  # fmt: skip


def test_there_are_examples(described: dict[str, Any]) -> None:
    job = described["paths"]["/api/v1/jobs/{id}/"]["get"]["responses"]["200"]["content"]["application/json"]
    assert next(iter(job["examples"].values()))["value"]["status"] == "transcribing"


def test_the_page_loads_nothing_from_elsewhere(db: None) -> None:
    page = Client().get("/api/docs/")

    assert page.status_code == 200
    content = page.content.decode()
    assert 'data-schema="/api/schema/"' in content
    assert not re.search(r'(?:src|href)="(?:https?:)?//', content)
    assert "unsafe-inline" not in page["Content-Security-Policy"]
    assert "<script>" not in content


@pytest.mark.parametrize("address", ["/api/schema/", "/api/docs/"])
def test_it_is_only_read(db: None, address: str) -> None:
    answer = Client().post(address, {"a": "b"})

    assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD")
    assert answer.json() == {"detail": "Only GET and HEAD work here."}
    assert Client().head(address).status_code == 200


# ---------------------------------------------------------------- what nobody foresaw


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its own, models too: what is sent to it changes much, and deletes what it finds."""
    folder = tmp_path_factory.mktemp("fuzzed")
    shutil.copytree(NANO / "faster-whisper-nano", folder / "models" / "faster-whisper-nano")
    shutil.copytree(NANO / "faster-whisper-nano", folder / "models" / "faster-whisper-kept")
    server = Server(folder / "data", folder / "models", DEFAULT_MODEL="auto")
    server.start()
    server.transcribe(SENTENCE, word_timestamps="true")
    yield server
    server.stop()


def fuzz(server: Server, key: str, examples: int, report: Path) -> dict[str, Any]:
    """Send calls that fit the description and calls that do not; return the report."""
    program = [
        str(Path(sys.executable).parent / "st"), "run", f"{server.url}/api/schema/", "--url", server.url,
        "--header", f"Authorization: Token {key}", "--checks", CHECKS, "--phases", "examples,coverage,fuzzing",
        "--max-examples", str(examples), "--generation-deterministic", "--exclude-path-regex", LEFT_OUT,
        "--suppress-health-check", "all", "--warnings", "off", "--no-color", "--continue-on-failure",
        "--report", "json", "--report-json-path", str(report),
    ]  # fmt: skip
    done = subprocess.run(program, cwd=report.parent, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "No issues found" in done.stdout
    told: dict[str, Any] = json.loads(report.read_text())
    return told


@pytest.mark.slow
def test_no_call_of_an_administrator_gets_a_500_or_an_undocumented_answer(server: Server, tmp_path: Path) -> None:
    fuzz(server, server.token, 4, tmp_path / "report.json")
    assert server.transcribe(SENTENCE)["status"] == "done", "the server works as before"


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["read", "write"])
def test_no_call_of_others_does(server: Server, tmp_path: Path, scope: str) -> None:
    key = server.manage("create_token", "admin", "--scope", scope).stdout.strip()
    assert key

    fuzz(server, key, 4, tmp_path / "report.json")
