"""Every curl command of the compatibility API's documents, as it is printed there, with a real curl to a real server.

Put in their places are only the server's address, the file's path and the key; the keyless commands are let in by
LEGACY_ANONYMOUS. `turbo` and `base` are the tests' own model under those names.
"""

import json
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.server import NANO, Server, wait_until

BOOKS = NANO / "nano" / "books.ogg"  # Елена купила пять книг на рынке.
BEARS = NANO / "nano" / "bears.wav"  # Twelve bears live in the forest.
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: str
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ended(server: Server, command: str, *, path: Path, key: str = "") -> "subprocess.CompletedProcess[str]":
    """A command of a document, its lines joined, with our address, file and key in their places."""
    line = re.sub(r"\\?\n\s*", " ", command)
    line = re.sub(r"http://(localhost|192\.0\.2\.10):\d+", server.url, line)
    line = re.sub(r"(file=)@[^\"]+", rf"\1@{path}", line).replace("your-api-key", key)
    program = [*shlex.split(line), "-sS", "--max-time", "120", "-w", r"\n%{http_code}", "-D", "/dev/stderr"]
    return subprocess.run(program, capture_output=True, text=True, timeout=150, check=False)


def run(server: Server, command: str, *, path: Path = BOOKS, key: str = "") -> Answer:
    curl = ended(server, command, path=path, key=key)
    assert curl.returncode == 0, curl.stderr
    body, _, status = curl.stdout.rpartition("\n")
    return Answer(int(status), curl.stderr.lower(), body)


def is_same(text: str, spoken: str) -> bool:
    return re.findall(r"\w+", text.lower()) == re.findall(r"\w+", spoken.lower())


# ------------------------------------------------------------------ 000

LINE_56 = r"""
curl -X POST "http://localhost:8801/transcribe" \
  -F "file=@/path/to/audio.wav" \
  -F "language=ru" \
  -F "task=transcribe" \
  -F "model=turbo" \
  -F "word_timestamps=true" \
  -F "condition_on_previous_text=true"
"""
LINE_139 = r"""
curl -X POST "http://localhost:8801/transcribe" \
  -F "file=@tests/test.wav" \
  -F "language=ru"
"""


def test_000_line_56_asks_for_words(compat_server: Server) -> None:
    answer = run(compat_server, LINE_56)

    told = answer.json
    assert answer.status == 200
    assert (told["language"], told["model"], told["task"]) == ("ru", "turbo", "transcribe")
    assert is_same(told["text"], "Елена купила пять книг на рынке.")
    (segment, *_) = told["segments"]
    assert set(segment["words"][0]) >= {"word", "start", "end"}
    assert segment["text"] == segment["text"].strip()
    assert f"x-job-id: {told['job_id']}" in answer.headers


def test_000_line_139_names_the_language_alone(compat_server: Server) -> None:
    answer = run(compat_server, LINE_139)

    assert answer.status == 200
    assert answer.json["language"] == "ru"
    assert "words" not in answer.json["segments"][0]


# ------------------------------------------------------------------ 001 (no commands; its files)


def test_001_gives_the_files_that_it_names(compat_server: Server) -> None:
    told = run(compat_server, LINE_139).json

    said = run(compat_server, f"curl http://localhost:8801/files/{told['result_file']}")
    sound = run(compat_server, f"curl -I http://localhost:8801/files/{told['uploaded_file']}")
    looked_up = run(compat_server, f"curl http://localhost:8801/job/{told['job_id']}")

    assert (said.status, said.body) == (200, told["text"])
    assert sound.status == 200
    assert f"content-length: {BOOKS.stat().st_size}" in sound.headers
    assert looked_up.json["text"] == told["text"]


# ------------------------------------------------------------------ 002

LINE_88 = r"""
curl -X POST http://localhost:8000/api/transcribe
-F "file=@audio.mp3"
-F "model_name=base"
-F "upgrade_transcribation=true"
"""


def test_002_line_88_is_queued_and_polled_until_it_is_done(compat_server: Server) -> None:
    # Its last field asks for a language model, which this server has not got.
    answer = run(compat_server, LINE_88.replace('-F "upgrade_transcribation=true"', ""))

    assert answer.status == 200
    task_id = answer.json["task_id"]
    assert answer.json == {"task_id": task_id}
    assert UUID.fullmatch(task_id)
    status = f"curl http://localhost:8000/api/status/{task_id}"
    done = wait_until(lambda: told if (told := run(compat_server, status).json)["status"] == "done" else None, 60)
    assert done is not None
    assert done["task_id"] == task_id
    assert is_same(done["result"], "Елена купила пять книг на рынке.")
    assert (done["error"], done["model"], done["device"]) == (None, "base", "cpu")
    queue = run(compat_server, "curl http://localhost:8000/api/queue").json
    assert set(queue) == {"queue", "processing", "completed", "failed"}
    assert task_id in [task["id"] for task in queue["completed"]]
    events = run(compat_server, "curl http://localhost:8000/api/logs").json
    assert any(task_id in event["msg"] for event in events)


def test_002_line_88_as_printed_is_answered_plainly_without_a_language_model(compat_server: Server) -> None:
    answer = run(compat_server, LINE_88)

    assert answer.status == 422
    assert answer.json["field"] == "upgrade_transcribation"


# ------------------------------------------------------------------ 003

LINE_100 = r"""
curl -X POST "http://localhost:9854/keys/reload" \
  -H "X-API-Key: your-api-key"
"""
LINE_154 = r"""
curl -X POST "http://localhost:9854/transcribe" \
  -H "X-API-Key: your-api-key" \
  -H "Content-Type: application/json" \
  -d '{}' \
  --form "audio_file=@audio.wav"
"""
LINE_163 = r"""
curl -X POST "http://localhost:9854/transcribe" \
  -H "X-API-Key: your-api-key" \
  -H "Content-Type: application/json" \
  -d '{
    "language": "ru",
    "format": "simple",
    "word_timestamps": true,
    "temperature": 0.2
  }' \
  --form "audio_file=@audio.wav"
"""
LINE_177 = r"""
curl -X POST "http://localhost:9854/transcribe" \
  -H "X-API-Key: your-api-key" \
  -H "Content-Type: application/json" \
  -d '{"format": "text"}' \
  --form "audio_file=@audio.wav"
"""
LINE_186 = r"""
curl -X POST "http://localhost:9854/transcribe" \
  -H "X-API-Key: your-api-key" \
  -H "Content-Type: application/json" \
  -d '{
    "language": "en",
    "task": "translate",
    "temperature": 0.1,
    "beam_size": 5,
    "word_timestamps": true,
    "initial_prompt": "This is a technical presentation about AI",
    "format": "json"
  }' \
  --form "audio_file=@audio.wav"
"""
LINE_236 = 'curl "http://localhost:9854/health"'
TRANSCRIBE = {154: LINE_154, 163: LINE_163, 177: LINE_177, 186: LINE_186}


def without_d(command: str, *, as_params: bool = False) -> str:
    """The command without its `-d`, whose JSON goes into the field `params` or nowhere."""
    return re.sub(r"-d ('[^']*')", r"--form params=\1" if as_params else "", command)


def key_in_file(server: Server) -> str:
    return (server.data / "keys.txt").read_text().split()[0]


def test_003_line_100_reads_the_keys_again(compat_server: Server) -> None:
    answer = run(compat_server, LINE_100, key=key_in_file(compat_server))

    assert answer.status == 200
    assert answer.json["reloaded"] >= 1


@pytest.mark.parametrize("command", TRANSCRIBE.values(), ids=TRANSCRIBE)
def test_003_curl_itself_refuses_d_together_with_form(compat_server: Server, command: str) -> None:
    assert ended(compat_server, command, path=BOOKS, key="any").returncode == 2


@pytest.mark.parametrize("command", TRANSCRIBE.values(), ids=TRANSCRIBE)
def test_003_without_d_a_form_that_calls_itself_json_is_read(compat_server: Server, command: str) -> None:
    answer = run(compat_server, without_d(command), key=key_in_file(compat_server))

    assert answer.status == 200
    assert is_same(answer.json["text"], "Елена купила пять книг на рынке.")


def test_003_line_163_is_simple(compat_server: Server) -> None:
    answer = run(compat_server, without_d(LINE_163, as_params=True), key=key_in_file(compat_server))

    assert (answer.status, set(answer.json)) == (200, {"text"})


def test_003_line_177_is_text(compat_server: Server) -> None:
    answer = run(compat_server, without_d(LINE_177, as_params=True), key=key_in_file(compat_server))

    assert answer.status == 200
    assert "content-type: text/plain" in answer.headers
    assert is_same(answer.body, "Елена купила пять книг на рынке.")


def test_003_line_186_is_translated_with_words(compat_server: Server) -> None:
    command = without_d(LINE_186, as_params=True)

    told = run(compat_server, command, path=BEARS, key=key_in_file(compat_server)).json

    assert (told["language"], told["task"], told["beam_size"], told["word_timestamps"]) == ("en", "translate", 5, True)
    assert told["temperature"] == [0.1]
    assert told["initial_prompt"] == "This is a technical presentation about AI"


def test_003_line_236_is_healthy(compat_server: Server) -> None:
    answer = run(compat_server, LINE_236)

    assert answer.status == 200
    assert answer.json["status"] == "healthy"
    assert answer.json["model_name"]
    assert "model_loaded" in answer.json


@pytest.mark.parametrize(("key", "status"), [("", 401), ("wrong", 403)])
def test_003_errors_have_their_codes(nano_server: Server, key: str, status: int) -> None:
    answer = run(nano_server, without_d(LINE_154).replace("X-API-Key: your-api-key", f"X-API-Key: {key}"))

    assert answer.status == status
    assert answer.json["error"]


def test_003_bad_parameters_are_422_and_no_file_is_400(compat_server: Server) -> None:
    bad = run(compat_server, LINE_139.replace("language=ru", "beam_size=99"))
    none = run(compat_server, 'curl -X POST "http://localhost:9854/transcribe" --form "language=ru"')

    assert (bad.status, bad.json["field"]) == (422, "beam_size")
    assert (none.status, none.json["field"]) == (400, "file")


# ------------------------------------------------------------------ 004

LINE_151 = "curl http://192.0.2.10:5000/health"
LINE_162 = r"""
curl -X POST \
  -F "file=@voice.ogg" \
  http://192.0.2.10:5000/transcribe
"""


def test_004_line_151_is_well(compat_server: Server) -> None:
    told = run(compat_server, LINE_151).json

    assert told["ok"] is True
    assert told["model"].startswith("whisper-")


def test_004_line_162_is_a_voice_message(compat_server: Server) -> None:
    answer = run(compat_server, LINE_162)

    told = answer.json
    assert answer.status == 200
    assert is_same(told["text"], "Елена купила пять книг на рынке.")
    assert told["language"] == "ru"
    assert told["duration"] == pytest.approx(1.76, abs=0.1)
