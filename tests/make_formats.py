"""Makes tests/data/formats: `python -m tests.make_formats`, where the machine has espeak-ng and FFmpeg with AMR's encoders.

Debian's are in libavcodec-extra. The samples are in the repository, so that the tests need none of them.
"""

import json
import subprocess
import wave
from pathlib import Path
from tempfile import TemporaryDirectory

from tests import nano

FOLDER = Path(__file__).parent / "data" / "formats"
PAUSE = 0.25  # seconds of silence before and after what is said

H264 = ("-r", "5", "-c:v", "libx264", "-preset", "ultrafast", "-x264-params", "bframes=0:keyint=1000", "-pix_fmt", "yuv420p")

# Each promised format: the file, what makes it of a WAV and, in films, of a black picture, and what is said in it.
SAMPLES: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("speech.wav", ("-c:a", "pcm_s16le"), "ru", "Пять птиц поют в лесу."),
    ("speech.mp3", ("-c:a", "libmp3lame", "-b:a", "32k"), "en", "Ten cats sleep in the house."),
    ("speech.m4a", ("-c:a", "aac", "-b:a", "32k"), "ru", "Двадцать кошек спят в доме."),
    ("speech.flac", ("-c:a", "flac"), "en", "Six birds sing in the garden."),
    ("speech.aac", ("-c:a", "aac", "-b:a", "32k"), "ru", "Сорок волков бегают на горе."),
    ("speech.ogg", ("-c:a", "libvorbis", "-q:a", "1"), "en", "Five dogs run by the river."),
    ("speech.opus", ("-ar", "48000", "-c:a", "libopus", "-b:a", "16k"), "ru", "Семь коров живут у реки."),
    ("speech.oga", ("-c:a", "flac"), "en", "Nine wolves sit on the mountain."),
    ("speech.wma", ("-c:a", "wmav2", "-b:a", "32k"), "ru", "Восемь лошадей бегают на улице."),
    ("film.webm", ("-r", "5", "-c:v", "libvpx", "-ar", "48000", "-c:a", "libopus", "-b:a", "16k"), "en", "Seven mice play in the garden."),
    ("film.mp4", (*H264, "-c:a", "aac", "-b:a", "32k"), "ru", "Десять медведей сидят в лесу."),
    ("film.mov", (*H264, "-c:a", "adpcm_ima_qt"), "en", "Eight horses run in the street."),
    ("film.avi", ("-r", "5", "-c:v", "mpeg4", "-c:a", "libmp3lame", "-b:a", "32k"), "ru", "Сто собак играют в саду."),
    ("film.mkv", (*H264, "-c:a", "libvorbis", "-q:a", "1"), "en", "Forty cows live near the school."),
    ("film.mpeg", ("-c:v", "mpeg1video", "-c:a", "mp2", "-b:a", "48k"), "ru", "Шесть мышей живут под мостом."),
    ("speech.mpga", ("-c:a", "mp2", "-b:a", "48k", "-f", "mp2"), "en", "Twenty bears sit under the bridge."),
    ("narrow.amr", ("-ar", "8000", "-c:a", "libopencore_amrnb", "-b:a", "12.2k"), "ru", "Мария привезёт пять тарелок в понедельник."),
    ("wide.amr", ("-c:a", "libvo_amrwbenc", "-b:a", "12.65k"), "en", "Eleven cats play by the river."),
    ("film.3gp", ("-r", "5", "-c:v", "mpeg4", "-ar", "8000", "-c:a", "libopencore_amrnb", "-b:a", "12.2k"), "en", "Maria will bring eleven plates on Wednesday."),
    ("wide.3gp", ("-c:a", "libvo_amrwbenc", "-b:a", "12.65k"), "ru", "Тридцать коров спят около школы."),
    ("new.3gp", ("-c:a", "aac", "-b:a", "32k"), "en", "One hundred birds live in the street."),
)  # fmt: skip


def make(path: Path, arguments: tuple[str, ...], language: str, text: str) -> dict[str, object]:
    """Say `text` into a file of some format; return what is to be heard in it, and when."""
    with TemporaryDirectory() as folder:
        spoken = nano.speak(text, language, Path(folder) / "spoken.wav", voice=nano.VOICES[language == "en"])
        with wave.open(str(spoken)) as sound:
            seconds = sound.getnframes() / sound.getframerate()
        command = [*("ffmpeg", "-v", "error", "-y", "-i", str(spoken))]
        if "-c:v" in arguments:
            command += ["-f", "lavfi", "-i", "color=black:size=16x16:rate=25", "-g", "100", "-map", "0:a", "-map", "1:v"]
        command += ["-af", f"adelay={1000 * PAUSE:.0f},apad=pad_dur={PAUSE}", "-t", f"{seconds + 2 * PAUSE:.3f}"]
        exact = ["-fflags", "+bitexact", "-flags:a", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1"]
        subprocess.run([*command, *arguments, *exact, str(path)], check=True)
    start, end = round(PAUSE, 2), round(PAUSE + seconds, 2)
    return {"file": path.name, "language": language, "text": text, "start": start, "end": end}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    made = [make(FOLDER / name, *rest) for name, *rest in SAMPLES]
    lines = ",\n".join(f"  {json.dumps(sample, ensure_ascii=False)}" for sample in made)
    (FOLDER / "samples.json").write_text(f"[\n{lines}\n]\n")
