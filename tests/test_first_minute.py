"""What a newcomer tries first: the recordings in this folder, sent by the README's first command to real `base`."""

import json
import os
import re
import subprocess

import pytest

from tests.server import ROOT, Server

# Spoken by Festival's voices cmu_us_slt_arctic_hts and msu_ru_nsh_clunits.
SPOKEN = {
    "test.wav": "Hello! This recording came with the program, so that you can try it at once. It was sent by one "
    "command. The words that you are reading are the answer.",
    "2_5258335770527167268.ogg": "Добрый день! Сегодня хорошая погода. Мы идём гулять в парк. Жду вас в пять часов. "
    "Спасибо за внимание!",
}
COMMAND = 'curl -H "Authorization: Bearer $KEY" -F file=@tests/test.wav http://localhost:8801/transcribe'


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower().replace("ё", "е"))


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", " -F language=ru"], ids=["as it is", "as the compatibility documents send it"])
@pytest.mark.parametrize("name", SPOKEN)
def test_every_word_of_the_first_recording_is_heard(base_server: Server, name: str, more: str) -> None:
    command = COMMAND.replace("test.wav", name).replace("http://localhost:8801", base_server.url) + more
    environment = {**os.environ, "KEY": base_server.token}
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=True
    )
    assert words(json.loads(done.stdout)["text"]) == words(SPOKEN[name])
