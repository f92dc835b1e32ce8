"""Films with several tracks, and calls with a voice in each channel, at every endpoint that takes a recording."""

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import nano
from tests.server import Server
from transcription.sound import audio

pytestmark = [pytest.mark.heavy, pytest.mark.needs("ffmpeg", "espeak-ng")]

ANNA, TEN = "Anna bought seven books yesterday.", "Ten cats sleep in the house."


def ffmpeg(*arguments: object) -> None:
    subprocess.run([audio.ffmpeg_path(), "-v", "error", "-y", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`film.mkv`, whose second of two tracks is the default, and `call.wav`, in which one voice answers another."""
    folder = tmp_path_factory.mktemp("sound")
    anna = nano.speak(ANNA, "en", folder / "anna.wav")
    ten = nano.speak(TEN, "en", folder / "ten.wav")
    tracks = ("-map", "0:a", "-map", "1:a", "-disposition:a:0", "0", "-disposition:a:1", "default")
    languages = ("-metadata:s:a:0", "language=rus", "-metadata:s:a:1", "language=eng")
    ffmpeg("-i", anna, "-i", ten, *tracks, *languages, "-c:a", "flac", folder / "film.mkv")
    channels = "[0:a]apad=pad_dur=4[x];[1:a]adelay=2600,apad=pad_dur=2[y];[x][y]join=inputs=2:channel_layout=stereo"
    ffmpeg("-i", anna, "-i", ten, "-filter_complex", channels, folder / "call.wav")
    return folder


@pytest.fixture
def film(folder: Path) -> Path:
    return folder / "film.mkv"


@pytest.fixture
def call(folder: Path) -> Path:
    return folder / "call.wav"


def post(server: Server, endpoint: str, path: Path, field: str = "file", **parameters: str) -> httpx.Response:
    with server.client() as client, path.open("rb") as sound:
        return client.post(endpoint, files={field: (path.name, sound)}, data=parameters, timeout=60)


def text(server: Server, job: dict[str, Any], format: str, language: str = "en") -> str:
    with server.client() as client:
        address = job["links"]["transcript"][format]
        return client.get(address, headers={"Accept-Language": language}).text


# ------------------------------------------------------------------ tracks


def test_a_job_tells_which_track_it_took(nano_server: Server, film: Path) -> None:
    played = nano_server.transcribe(film, language="en")

    assert (played["text"], played["track"], played["recording"]["tracks"]) == (TEN, 2, 2)
    assert played["warnings"] == ["several_tracks"]

    first = nano_server.transcribe(film, language="en", track="1")

    assert (first["text"], first["track"], first["warnings"]) == (ANNA, 1, [])


def test_the_waiting_endpoints_take_a_track(nano_server: Server, film: Path) -> None:
    whole = post(nano_server, "/transcribe", film, language="en", track="1").json()
    assert (whole["text"], whole["track"], whole["tracks"]) == (ANNA, 1, 2)

    told = post(nano_server, "/v1/audio/transcriptions", film, model="whisper-1", language="en", track="eng")
    assert told.json()["text"] == TEN

    told = post(nano_server, "/asr?output=txt&language=en&track=1", film, "audio_file")
    assert told.text.strip() == ANNA


@pytest.mark.parametrize(
    ("endpoint", "field", "status"),
    [("/transcribe", "file", 422), ("/v1/audio/transcriptions", "file", 400), ("/asr", "audio_file", 422)],
)
def test_a_track_that_is_not_there_is_refused_with_those_that_are(
    nano_server: Server, film: Path, endpoint: str, field: str, status: int
) -> None:
    answer = post(nano_server, endpoint, film, field, model="nano", track="3")

    assert answer.status_code == status
    assert "no track 3. Choose one of its tracks by number or language: 1 (rus, flac, mono); 2 (" in answer.text


# ------------------------------------------------------------------ channels


def test_a_call_is_transcribed_apart(nano_server: Server, call: Path) -> None:
    job = nano_server.transcribe(call, language="en", channels="separate")

    assert (job["text"], job["warnings"]) == (f"{ANNA}\n{TEN}", [])
    with nano_server.client() as client:
        segments = client.get(f"/api/v1/jobs/{job['id']}/segments/").json()["results"]
        events = client.get(f"/api/v1/jobs/{job['id']}/events/").text
    assert [(segment["channel"], segment["text"]) for segment in segments] == [(1, ANNA), (2, TEN)]
    assert segments[1]["start"] == pytest.approx(2.6, abs=0.5)
    assert events.count('"channel": 1') == events.count('"channel": 2') == 1
    assert text(nano_server, job, "txt", "ru") == f"Канал 1: {ANNA}\nКанал 2: {TEN}\n"
    assert f"\nChannel 2: {TEN}\n" in text(nano_server, job, "srt")
    assert text(nano_server, job, "csv").splitlines()[0].endswith("start,end,channel,text")
    assert '"channel":2' in text(nano_server, job, "json").replace(": ", ":")
    assert not list((nano_server.data / "recordings").glob(f"{job['id']}.pcm*"))


def test_a_call_that_was_mixed_says_that_apart_would_help(nano_server: Server, call: Path) -> None:
    assert nano_server.transcribe(call, language="en")["warnings"] == ["channels_differ"]
    assert nano_server.transcribe(call, language="en", channels="mix")["warnings"] == []


def test_the_waiting_endpoints_take_channels(nano_server: Server, call: Path) -> None:
    form = {"model": "whisper-1", "language": "en", "channels": "separate"}
    told = post(nano_server, "/v1/audio/transcriptions", call, response_format="verbose_json", **form).json()
    assert told["text"] == f"{ANNA}\n{TEN}"
    assert [segment["channel"] for segment in told["segments"]] == [1, 2]

    streamed = post(nano_server, "/v1/audio/transcriptions", call, stream="true", **form).text
    assert f'"text": "{ANNA}\\n{TEN}"' in streamed

    told = post(nano_server, "/asr?output=srt&language=en&channels=separate", call, "audio_file")
    assert f"\nChannel 1: {ANNA}\n" in told.text

    whole = post(nano_server, "/transcribe", call, language="en", channels="2").json()
    assert (whole["text"], whole["channels"]) == (TEN, 2)


def test_a_channel_that_is_not_there_is_refused_with_a_sentence(nano_server: Server, call: Path) -> None:
    answer = post(nano_server, "/v1/audio/transcriptions", call, model="whisper-1", channels="3")

    assert answer.status_code == 400
    assert "There is no channel 3: the sound has 2." in answer.json()["error"]["message"]
    refused = post(nano_server, "/v1/audio/transcriptions", call, model="whisper-1", channels="left")
    assert "`channels` is mix, separate, or the number of a channel" in refused.json()["error"]["message"]


def test_the_command_line_names_the_channels(nano_server: Server, call: Path) -> None:
    told = nano_server.manage("transcribe", "--model", "nano", "--language", "en", "--channels", "separate", str(call))

    assert told.stdout == f"Channel 1: {ANNA}\nChannel 2: {TEN}\n"
