"""Real voices: telephone prompts of Debian packages, with their texts. Neither is in the repository."""

import gzip
import subprocess
from pathlib import Path

from transcription import audio

SOUNDS = Path("/usr/share/asterisk/sounds")
VOICES = {"ru": "ru_RU_f_IvrvoiceRU", "en": "en_US_f_Allison"}
# Prompts of 4 to 8 s that real `base` hears word for word.
HEARD = {
    "ru": ["pbx-invalid", "queue-youarenext", "tt-allbusy", "confbridge-lock-no-join"],
    "en": ["agent-alreadyon", "confbridge-pin", "demo-thanks", "followme/status"],
}


def is_here() -> bool:
    return all((SOUNDS / voice).is_dir() and _texts(language).exists() for language, voice in VOICES.items())


def _texts(language: str) -> Path:
    return Path(f"/usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz")


def text(language: str, name: str) -> str:
    """What is said in a prompt."""
    with gzip.open(_texts(language), "rt", encoding="utf-8", errors="replace") as lines:
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


def write(language: str, name: str, path: Path) -> None:
    """Write a prompt as a WAV file; G.722 in a bare file is nothing that a person would upload."""
    source = SOUNDS / VOICES[language] / f"{name}.g722"
    program = [audio.ffmpeg_path(), "-nostdin", "-loglevel", "error", "-f", "g722", "-i", str(source), str(path)]
    subprocess.run(program, check=True)
