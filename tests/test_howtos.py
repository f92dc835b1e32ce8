"""The how-tos and the API's pages are true: each block of theirs is run as it stands there, against a real server.

What a block must put out stands below it, in a block of `text`; `…` there is whatever it is this time.
"""

import json
import os
import re
import subprocess
import sys
import wave
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from tests.receiver import Receiver
from tests.server import NANO, ROOT, Server, wait_until
from tests.telegram import TOKEN, Telegram
from transcription.api.compat import input_audio

HOWTOS = ROOT / "docs" / "howto"
DOCUMENTS = sorted(path.name for path in HOWTOS.glob("*.md"))
REFERENCES = ["../api.md", "../keys.md", "../uploads.md"]  # whose blocks are run too
BEARS = NANO / "nano" / "bears.wav"
SENTENCE = "Twelve bears live in the forest."
RUN = ("bash", "python")
# What the documents call the server; a test calls it by its own address.
WRITTEN = ("http://localhost:8801", "http://host.docker.internal:8801", "http://192.168.1.5:8801")


@dataclass(frozen=True)
class Block:
    document: str
    line: int
    language: str
    content: str
    output: str | None = None  # what the document says comes out

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(document: str) -> list[Block]:
    """The fenced blocks of a document; a block of text belongs to the one right above it."""
    text = (HOWTOS / document).read_text()
    fences = list(re.finditer(r"^```(\w*)\n(.*?)^```$\n?", text, re.MULTILINE | re.DOTALL))
    assert text.count("```") == 2 * len(fences), f"{document} has a block that is not read here"
    found: list[Block] = []
    end = 0
    for fence in fences:
        language, content = fence.groups()
        if language == "text":
            above = found.pop()
            assert (fence.start(), above.output) == (end, None), f"{above}: this text is nobody's output"
            found.append(Block(document, above.line, above.language, above.content, content))
        else:
            found.append(Block(document, text[: fence.start()].count("\n") + 1, language, content))
        end = fence.end()
    return found


def has_the_form(output: str, expected: str) -> bool:
    pattern = re.escape(expected.strip()).replace("…", ".*?")
    return re.fullmatch(pattern, output.strip(), re.DOTALL) is not None


# ------------------------------------------------------------------ the documents


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def hook(receiver: Receiver) -> Iterator[str]:
    with receiver.serving() as address:
        yield address


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """The reader's folder: the files that the examples name, whose kind is known by what is in them."""
    for name in ("talk.m4a", "lecture.ogg", "film.mkv"):
        (tmp_path / name).write_bytes(BEARS.read_bytes())
    (tmp_path / "notes.txt").write_text("no sound at all")
    return tmp_path


def test_every_document_is_in_the_index() -> None:
    index = (HOWTOS / "README.md").read_text()
    assert {name for name in DOCUMENTS if f"]({name})" in index} == {*DOCUMENTS} - {"README.md"}
    assert "docs/howto/README.md" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("document", [*DOCUMENTS, *REFERENCES])
def test_no_block_is_untested(document: str) -> None:
    for block in blocks(document):
        if block.language in RUN:
            assert block.output, f"{block}: what comes out?"
        else:
            assert (block.document, first_name(block)) in SETTINGS, f"{block}: nobody looks at it"
    named = {(block.document, first_name(block)) for name in DOCUMENTS for block in blocks(name)}
    assert set(SETTINGS) <= named


@pytest.mark.parametrize(
    "document", [name for name in [*DOCUMENTS, *REFERENCES] if any(block.language in RUN for block in blocks(name))]
)
def test_what_a_document_says_comes_out(document: str, nano_server: Server, desk: Path, hook: str) -> None:
    """One reader goes through it from top to bottom, in one shell."""
    environment = {**os.environ, "URL": nano_server.url, "KEY": nano_server.token, "HOOK": hook, "LANG": "C.UTF-8"}
    run = [block for block in blocks(document) if block.language in RUN]
    for number, block in enumerate(run):
        (desk / f"block{number}").write_text(block.content)
    # The shell's variables last from block to block, as a reader's do.
    runners = {"bash": "source block{}", "python": f"'{sys.executable}' block{{}}"}
    lines = [f"{runners[block.language].format(n)} > out{n} 2> err{n}" for n, block in enumerate(run)]
    shell = subprocess.run(
        ["bash", "-u", "-o", "pipefail", "-c", "\n".join(lines)], cwd=desk, env=environment, timeout=300, check=False
    )

    for number, block in enumerate(run):
        output, problems = (desk / f"out{number}").read_text(), (desk / f"err{number}").read_text()
        said = f"{block} puts out\n{output}\n{problems}"
        assert has_the_form(output, block.output or ""), said
    assert shell.returncode == 0


def test_the_message_that_was_asked_for_comes(nano_server: Server, desk: Path, hook: str, receiver: Receiver) -> None:
    (block,) = [block for block in blocks("curl.md") if "callback_url" in block.content]
    environment = {**os.environ, "URL": nano_server.url, "KEY": nano_server.token, "HOOK": hook}
    subprocess.run(["bash", "-c", block.content], cwd=desk, env=environment, capture_output=True, check=True)

    wait_until(lambda: receiver.got)
    assert receiver.got[0].told["data"]["text"] == SENTENCE


# ------------------------------------------------------------------ blocks of settings


def settings_of(block: Block) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.content.splitlines())


def first_name(block: Block) -> str:
    return block.content.partition("=")[0]


def are_ours(block: Block) -> None:
    """docs/settings.md has these settings, and they do what they are for."""
    told = (ROOT / "docs" / "settings.md").read_text()
    for name in settings_of(block):
        assert f"`{name}`" in told, name
    environment = {**os.environ, **settings_of(block)}
    program = "from config import settings; print(settings.NAMES_SERVED, settings.LEGACY_ANONYMOUS)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not settings_of(block).get("ALLOWED_HOSTS") or settings_of(block)["ALLOWED_HOSTS"] in done.stdout
    assert "LEGACY_ANONYMOUS" not in settings_of(block) or done.stdout.endswith("True\n")


def are_open_webuis(block: Block) -> None:
    """https://docs.openwebui.com/features/audio/speech-to-text/env-variables has these names."""
    assert list(settings_of(block)) == [
        "AUDIO_STT_ENGINE",
        "AUDIO_STT_OPENAI_API_BASE_URL",
        "AUDIO_STT_OPENAI_API_KEY",
        "AUDIO_STT_MODEL",
    ]
    assert settings_of(block)["AUDIO_STT_ENGINE"] == "openai"


# By a block's document and the first name in it.
SETTINGS: dict[tuple[str, str], Callable[[Block], None]] = {
    ("open-webui.md", "AUDIO_STT_ENGINE"): are_open_webuis,
    ("open-webui.md", "HOST"): are_ours,
    ("asr-clients.md", "LEGACY_ANONYMOUS"): are_ours,
    ("asr-clients.md", "CORS_ALLOWED_ORIGINS"): are_ours,
}


@pytest.mark.parametrize(("document", "name"), SETTINGS)
def test_settings_are_what_they_say(document: str, name: str) -> None:
    (block,) = [block for block in blocks(document) if first_name(block) == name]
    SETTINGS[document, name](block)


def cell(document: str, field: str) -> str:
    """What a document's table says to write into a field: the first code in its second column."""
    row = re.search(rf"^\| {re.escape(field)} \| (.*) \|$", (HOWTOS / document).read_text(), re.MULTILINE)
    assert row, field
    code = re.search(r"`([^`]+)`", row[1])
    return code[1] if code else row[1]


def here(address: str, server: Server) -> str:
    """An address out of a document, at the test's server."""
    for written in WRITTEN:
        if address.startswith(written):
            return server.url + address.removeprefix(written)
    raise AssertionError(address)


# ------------------------------------------------------------------ Open WebUI


@pytest.mark.parametrize("language", [None, "en"])
def test_open_webui_transcribes(nano_server: Server, language: str | None) -> None:
    """As `transcribe` in its backend/open_webui/routers/audio.py posts: file, model, and a language if one is set.

    https://github.com/open-webui/open-webui/blob/main/backend/open_webui/routers/audio.py
    """
    base = here(cell("open-webui.md", "API Base URL"), nano_server)
    (block,) = [block for block in blocks("open-webui.md") if first_name(block) == "AUDIO_STT_ENGINE"]
    assert here(settings_of(block)["AUDIO_STT_OPENAI_API_BASE_URL"], nano_server) == base
    form = {"model": settings_of(block)["AUDIO_STT_MODEL"], **({"language": language} if language else {})}

    answer = requests.post(
        url=f"{base}/audio/transcriptions",
        headers={"Authorization": f"Bearer {nano_server.token}"},
        files={"file": ("8f14e45f-ceea-467f-a0e6-1d6f3a3a3b8c.wav", BEARS.read_bytes())},
        data=form,
        timeout=120,
    )

    assert answer.status_code == 200, answer.text
    assert answer.json()["text"] == SENTENCE


def test_open_webuis_other_format_works_up_to_the_size_that_the_document_has(nano_server: Server) -> None:
    sound = b64encode((NANO / "nano" / "bears.wav").read_bytes()).decode()
    body = {"model": "whisper-1", "input_audio": {"data": sound, "format": "wav"}}
    with nano_server.client() as client:
        answer = client.post("/v1/audio/transcriptions", json=body)

    assert answer.json()["text"] == SENTENCE
    said = "The Base64 of a recording has at most 64 MB."
    assert input_audio.too_long().replace("\xa0", " ").startswith(said)
    assert said in (HOWTOS / "open-webui.md").read_text()


def test_a_name_that_the_server_does_not_know_is_refused_as_the_documents_say(nano_server: Server) -> None:
    answer = httpx.get(f"{nano_server.url}/health", headers={"Host": "host.docker.internal:8801"})

    assert answer.status_code == 400
    said = "This server does not know itself by this name."
    assert answer.json()["error"].startswith(said)
    assert all(said in (HOWTOS / name).read_text() for name in ("README.md", "open-webui.md"))


# ------------------------------------------------------------------ whisper-asr-webservice's clients


def pcm() -> bytes:
    with wave.open(str(BEARS)) as bears:
        return bytes(bears.readframes(bears.getnframes()))


def test_bazarr_asks_for_the_language_and_the_subtitles(compat_server: Server) -> None:
    """As its provider does.

    https://github.com/morpheus65535/bazarr/blob/master/custom_libs/subliminal_patch/providers/whisperai.py
    """
    endpoint = here(cell("asr-clients.md", "Whisper ASR Docker Endpoint"), compat_server).rstrip("/")
    response = int(cell("asr-clients.md", "Connection/response timeout in seconds"))
    timeout = int(cell("asr-clients.md", "Transcription/translation timeout in seconds"))
    with requests.Session() as session:
        session.headers["User-Agent"] = "Subliminal/2.1"
        detected = session.post(
            f"{endpoint}/detect-language",
            params={"encode": "false"},
            files={"audio_file": pcm()},
            timeout=(response, timeout),
        ).json()
        subtitles = session.post(
            f"{endpoint}/asr",
            params={"task": "transcribe", "language": "en", "output": "srt", "encode": "false"},
            files={"audio_file": pcm()},
            timeout=(response, timeout),
        )

    assert (detected["detected_language"], detected["language_code"]) == ("english", "en")
    assert re.fullmatch(rf"1\n00:00:0[\d:,]+ --> 00:00:0[\d:,]+\n{re.escape(SENTENCE)}\n\n", subtitles.text)


def test_bazarrs_test_button_says_what_the_document_says(nano_server: Server) -> None:
    """It shows that sentence when `/status` is not there.

    https://github.com/morpheus65535/bazarr/blob/master/frontend/src/components/index.tsx (ProviderTestButton)
    """
    assert httpx.get(f"{nano_server.url}/status").status_code == 404
    assert "Connected but no version found (possibly whisper-asr?)" in (HOWTOS / "asr-clients.md").read_text()


@pytest.mark.parametrize("kind", ["Whisper ASR URLs", "without a key"])
def test_obsidians_transcription_plugin_gets_its_json(nano_server: Server, compat_server: Server, kind: str) -> None:
    """As `getTranscriptionWhisperASR` asks.

    https://github.com/djmango/obsidian-transcription/blob/master/src/transcribe.ts
    """
    if kind == "without a key":
        base = compat_server.url
    else:
        base = here(cell("asr-clients.md", kind), nano_server).replace("st_…", nano_server.token)

    answer = requests.post(
        f"{base}/asr?output=json&word_timestamps=true&language=en",
        files={"audio_file": ("blob", BEARS.read_bytes(), "application/octet-stream")},
        timeout=120,
    )

    assert answer.status_code == 200, answer.text
    assert [segment["text"].strip() for segment in answer.json()["segments"]] == [SENTENCE]


def test_a_page_in_a_browser_gets_no_leave(nano_server: Server) -> None:
    headers = {"Origin": "app://obsidian.md", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{nano_server.url}/v1/audio/transcriptions", headers=headers)

    assert "Access-Control-Allow-Origin" not in answer.headers


# ------------------------------------------------------------------ n8n


class N8n:
    """Does what a workflow's HTTP Request nodes say, as n8n does it.

    https://github.com/n8n-io/n8n/tree/master/packages/nodes-base/nodes/HttpRequest/V3
    """

    def __init__(self, file: str, server: Server, **values: str) -> None:
        self.workflow: dict[str, Any] = json.loads((HOWTOS / file).read_text())
        self.server = server
        self.values = values  # of the expressions that it uses

    def node(self, name: str) -> dict[str, Any]:
        (found,) = [node for node in self.workflow["nodes"] if node["name"] == name]
        return dict(found)

    def order(self) -> list[str]:
        """The nodes from the first on, along their connections."""
        following = {
            name: [link["node"] for output in outputs["main"] for link in output]
            for name, outputs in self.workflow["connections"].items()
        }
        (name,) = {node["name"] for node in self.workflow["nodes"]} - {n for names in following.values() for n in names}
        names = [name]
        while names[-1] in following:
            names += following[names[-1]]
        return names

    def read(self, value: str) -> str:
        """A parameter's value; one that begins with `=` holds expressions in double braces."""
        if not value.startswith("="):
            return value
        return re.sub(r"\{\{ (.+?) \}\}", lambda expression: self.values[expression[1]], value[1:])

    def request(self, name: str, binary: dict[str, tuple[str, bytes]]) -> httpx.Response:
        node = self.node(name)
        assert (node["type"], node["typeVersion"]) == ("n8n-nodes-base.httpRequest", 4.2)
        asked = node["parameters"]
        assert (asked["authentication"], asked["genericAuthType"]) == ("genericCredentialType", "httpHeaderAuth")
        assert node["credentials"]["httpHeaderAuth"]["name"] == "Stenograf"
        headers = {cell("n8n.md", "Name"): self.server.token}
        if asked.get("sendHeaders"):
            sent = asked["headerParameters"]["parameters"]
            headers |= {header["name"]: self.read(header["value"]) for header in sent}
        form: dict[str, str] = {}
        files: dict[str, tuple[str, bytes]] = {}
        if asked.get("sendBody"):
            assert asked["contentType"] == "multipart-form-data"
            for field in asked["bodyParameters"]["parameters"]:
                if field["parameterType"] == "formBinaryData":
                    files[field["name"]] = binary[field["inputDataFieldName"]]
                else:
                    form[field["name"]] = self.read(field["value"])
        address = here(self.read(asked["url"]), self.server)
        timeout = asked["options"].get("timeout", 300_000) / 1000
        return httpx.request(
            asked["method"], address, headers=headers, data=form or None, files=files or None, timeout=timeout
        )


def from_the_form(workflow: N8n) -> dict[str, tuple[str, bytes]]:
    """The item that the form gives: a file under the name of its field, with `_` for what is no letter."""
    trigger = workflow.node("Recording")
    assert trigger["type"] == "n8n-nodes-base.formTrigger"
    (field,) = trigger["parameters"]["formFields"]["values"]
    assert (field["fieldType"], field["multipleFiles"]) == ("file", False)
    return {re.sub(r"\W", "_", field["fieldLabel"]): ("talk.m4a", BEARS.read_bytes())}


def test_n8n_waits_for_the_text(nano_server: Server) -> None:
    n8n = N8n("n8n-waiting.json", nano_server)
    assert n8n.order() == ["Recording", "Transcribe"]

    answer = n8n.request("Transcribe", from_the_form(n8n))

    assert answer.status_code == 200, answer.text
    assert answer.json() == {"text": SENTENCE}


def test_the_table_of_n8ns_node_is_that_of_the_file(nano_server: Server) -> None:
    asked = N8n("n8n-waiting.json", nano_server).node("Transcribe")["parameters"]

    assert cell("n8n.md", "Method") == asked["method"]
    assert cell("n8n.md", "URL") == asked["url"]
    assert cell("n8n.md", "Options: Timeout") == str(asked["options"]["timeout"])
    file, form = asked["bodyParameters"]["parameters"]
    document = (HOWTOS / "n8n.md").read_text()
    assert f"Name `{file['name']}`, Input Data Field Name `{file['inputDataFieldName']}`" in document
    assert f"Name `{form['name']}`, Value `{form['value']}`" in document


@pytest.mark.parametrize("content", ["a recording", "something else"])
def test_n8n_is_woken_up(nano_server: Server, receiver: Receiver, hook: str, content: str) -> None:
    n8n = N8n("n8n-webhook.json", nano_server)
    n8n.values |= {"$execution.resumeUrl": f"{hook}-waiting/42?signature=1", "$execution.id": f"42 {content}"}
    assert n8n.order() == ["Recording", "Queue", "Until it has ended", "Job"]
    wait = n8n.node("Until it has ended")
    assert (wait["type"], wait["parameters"]["resume"]) == ("n8n-nodes-base.wait", "webhook")
    item = from_the_form(n8n) if content == "a recording" else {"recording": ("notes.txt", b"no sound at all")}

    queued = n8n.request("Queue", item)
    tried_again = n8n.request("Queue", item)
    n8n.values["$('Queue').first().json.id"] = queued.json()["id"]
    wait_until(lambda: receiver.got)
    job = n8n.request("Job", {}).json()

    assert queued.status_code == 202
    assert receiver.got[0].path == "/hook-waiting/42?signature=1"
    assert wait["parameters"]["httpMethod"] == "POST"
    if content == "a recording":
        assert tried_again.json()["id"] == queued.json()["id"]
        assert (job["status"], job["text"]) == ("done", SENTENCE)
    else:
        assert (job["status"], job["error"]["code"]) == ("failed", "not_media")
    assert all(f"$json.{name}" in (HOWTOS / "n8n.md").read_text() for name in ("status", "text", "error.message"))


# ------------------------------------------------------------------ Telegram


class Bot:
    """The how-to's own file, running."""

    def __init__(self, telegram: str, server: Server, tmp_path: Path, **environment: str) -> None:
        self.log = tmp_path / "bot.log"
        self.program = [sys.executable, str(HOWTOS / "telegram_bot.py")]
        self.environment = {
            **os.environ,
            **{"TELEGRAM_API": telegram, "TELEGRAM_TOKEN": TOKEN, "CHATS": "10,4711"},
            **{"URL": server.url, "KEY": server.token},
            **environment,
        }

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.program, env=self.environment, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def telegram() -> Telegram:
    return Telegram()


@pytest.fixture
def bot(telegram: Telegram, nano_server: Server, tmp_path: Path) -> Iterator[Bot]:
    with telegram.serving() as address:
        bot = Bot(address, nano_server, tmp_path)
        bot.start()
        yield bot
        bot.kill()
    assert TOKEN not in bot.log.read_text()


def test_a_voice_message_is_answered_with_its_text(telegram: Telegram, bot: Bot) -> None:
    telegram.say(4711, voice=telegram.upload("file_1.oga", (NANO / "nano" / "books.ogg").read_bytes()))
    telegram.say(10, document={**telegram.upload("file_2", BEARS.read_bytes()), "file_name": "talk.wav"})

    wait_until(lambda: len(telegram.sent) == 2)
    assert telegram.sent == [(4711, "Елена купила пять книг на рынке."), (10, SENTENCE)]


def test_a_failed_recording_gets_the_servers_sentence(telegram: Telegram, bot: Bot) -> None:
    telegram.say(4711, document={**telegram.upload("file_1.txt", b"no sound at all"), "file_name": "notes.txt"})

    wait_until(lambda: telegram.sent)
    said = "This is neither audio nor video, although it is named notes.txt. Another file will help."
    assert telegram.sent == [(4711, said)]


def test_a_file_that_telegram_does_not_give_is_answered(telegram: Telegram, bot: Bot) -> None:
    telegram.say(4711, video=telegram.upload("file_1.mp4", bytes(20 * 1024**2 + 1)))

    wait_until(lambda: telegram.sent)
    ((_chat, said),) = telegram.sent
    assert said.startswith("Telegram gives bots files of up to 20 MB.")
    assert "file is too big" in said


def test_a_stranger_and_a_word_are_answered_and_nothing_else_hurts(telegram: Telegram, bot: Bot) -> None:
    with telegram.has_news:
        telegram.waiting.append({"update_id": 1, "edited_message": {}})
    telegram.say(5, voice=telegram.upload("file_1.oga", BEARS.read_bytes()))
    telegram.say(10, text="Hello")

    wait_until(lambda: len(telegram.sent) == 2)
    unknown = "I do not know this chat. Its number for CHATS is 5."
    assert telegram.sent == [(5, unknown), (10, "Send me something to hear.")]
    assert unknown.replace("5", "4711") in (HOWTOS / "telegram.md").read_text()


def test_a_bot_that_is_killed_at_work_answers_after_its_start(telegram: Telegram, bot: Bot) -> None:
    telegram.gives_files.clear()
    telegram.say(4711, voice=telegram.upload("file_1.oga", BEARS.read_bytes()))
    wait_until(lambda: telegram.file_asked_for)
    bot.kill()
    telegram.gives_files.set()
    bot.start()

    wait_until(lambda: telegram.sent)
    assert telegram.sent == [(4711, SENTENCE)]
    wait_until(lambda: not telegram.waiting)  # and has told Telegram that it is done


def test_a_wrong_token_is_said_without_showing_it(telegram: Telegram, nano_server: Server, tmp_path: Path) -> None:
    with telegram.serving() as address:
        bot = Bot(address, nano_server, tmp_path, TELEGRAM_TOKEN="99:wrong")
        bot.start()
        try:
            said = wait_until(lambda: bot.log.read_text())
        finally:
            bot.kill()

    assert said == "Telegram: Unauthorized; trying again\n"
    assert said.strip() in (HOWTOS / "telegram.md").read_text()
