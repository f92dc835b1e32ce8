"""Makes tests/data/formats: `python -m tests.make_formats`, where there are espeak-ng and AMR's encoders for FFmpeg.

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

H264 = ("-r", "5", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
AAC = ("-c:a", "aac", "-b:a", "32k")
MP3 = ("-c:a", "libmp3lame", "-b:a", "32k")
MP2 = ("-c:a", "libtwolame", "-b:a", "48k")
OPUS = ("-ar", "48000", "-c:a", "libopus", "-b:a", "16k")
VORBIS = ("-c:a", "libvorbis", "-q:a", "1")
AMR_NARROW = ("-ar", "8000", "-c:a", "libopencore_amrnb", "-b:a", "12.2k")

# A file, what makes it of a WAV (and of a black picture, in films), and what is said in it, by whom: what the model
# hears right also in half the loudness and a tenth of a second later, so that another machine's arithmetic changes no
# word. Of 100 sentences as AMR's narrow band has them it gets four right.
SAMPLES: tuple[tuple[str, tuple[str, ...], str, str, str], ...] = (
    ("speech.wav", ("-c:a", "pcm_s16le"), "ru", "+m5", "Пять птиц поют в лесу."),
    ("speech.mp3", MP3, "en", "+f3", "Ten cats sleep in the house."),
    ("speech.m4a", AAC, "ru", "+m5", "Двадцать кошек спят в доме."),
    ("speech.flac", ("-c:a", "flac"), "en", "+m5", "Six birds sing in the garden."),
    ("speech.aac", AAC, "ru", "+m5", "Сорок волков бегают на горе."),
    ("speech.ogg", VORBIS, "en", "+m5", "Five dogs run by the river."),
    ("speech.opus", OPUS, "ru", "+m5", "Семь коров живут у реки."),
    ("speech.oga", ("-c:a", "flac"), "en", "+m5", "Nine wolves sit on the mountain."),
    ("speech.wma", ("-c:a", "wmav2", "-b:a", "32k"), "ru", "+m5", "Восемь лошадей бегают на улице."),
    ("film.webm", ("-r", "5", "-c:v", "libvpx", *OPUS), "en", "+m5", "Seven mice play in the garden."),
    ("film.mp4", (*H264, *AAC), "ru", "+m5", "Десять медведей сидят в лесу."),
    ("film.mov", (*H264, "-c:a", "adpcm_ima_qt"), "en", "+f3", "Eight horses run in the street."),
    ("film.avi", ("-r", "5", "-c:v", "mpeg4", *MP3), "ru", "+m5", "Сто собак играют в саду."),
    ("film.mkv", (*H264, *VORBIS), "en", "+m5", "Forty cows live near the school."),
    ("film.mpeg", ("-c:v", "mpeg1video", *MP2), "ru", "+m5", "Шесть мышей живут под мостом."),
    ("speech.mpga", (*MP2, "-f", "mp2"), "en", "+f3", "Twenty bears sit under the bridge."),
    ("narrow.amr", AMR_NARROW, "ru", "+m5", "Ирина привезёт пять тарелок в понедельник."),
    ("wide.amr", ("-c:a", "libvo_amrwbenc", "-b:a", "23.85k"), "en", "+f3", "Nine dogs sing under the bridge."),
    ("film.3gp", ("-r", "5", "-c:v", "mpeg4", *AMR_NARROW), "en", "+m5", "The black bridge is very big."),
    ("wide.3gp", ("-c:a", "libvo_amrwbenc", "-b:a", "12.65k"), "ru", "+m5", "Тридцать коров спят около школы."),
    ("aac.3gp", AAC, "en", "+m5", "One hundred birds live in the street."),
)

# More formats that FFmpeg both writes and reads, which tests make of one of the samples: a file's name, what makes it.
DTS = ("-ar", "48000", "-c:a", "dca")
MADE: dict[str, tuple[str, ...]] = {
    "g722.wav": ("-c:a", "g722"),
    "g726.wav": ("-ar", "8000", "-c:a", "g726"),
    "g723.wav": ("-ar", "8000", "-c:a", "g723_1", "-b:a", "6.3k"),
    "gsm.wav": ("-ar", "8000", "-c:a", "libgsm_ms"),
    "large.rf64": ("-f", "wav", "-rf64", "always"),
    "large.w64": ("-c:a", "pcm_s24le"),
    "dts.mkv": DTS,
    "truehd.mkv": ("-ar", "48000", "-c:a", "truehd"),
    "packed.mkv": ("-c:a", "wavpack"),
    "real.mkv": ("-ar", "8000", "-c:a", "real_144"),
    "raw.dts": DTS,
    "raw.thd": ("-ar", "48000", "-c:a", "truehd"),
    "raw.eac3": ("-c:a", "eac3"),
    "raw.tta": ("-c:a", "tta"),
    "raw.loas": (*AAC, "-f", "latm"),
    "s32be.caf": ("-c:a", "pcm_s32be"),
    "alac.caf": ("-c:a", "alac"),
    "ima.aifc": ("-c:a", "adpcm_ima_qt", "-f", "aiff"),
    "bytes.voc": ("-c:a", "pcm_u8"),
    "mulaw.au": ("-c:a", "pcm_mulaw"),
    "university.sf": ("-f", "ircam"),
    "native.sox": ("-c:a", "pcm_s32le"),
    "every.nut": ("-c:a", "pcm_s64le"),
    "broadcast.mxf": ("-ar", "48000", "-f", "mxf_opatom"),
    "recorder.wtv": MP2,
    "receiver.ts": ("-c:a", "ac3"),
    "camera.m2ts": ("-ar", "48000", "-c:a", "pcm_bluray", "-f", "mpegts", "-mpegts_m2ts_mode", "1"),
    "disc.vob": ("-ar", "48000", "-c:a", "pcm_dvd"),
    "chat.flv": ("-ar", "16000", "-c:a", "nellymoser"),
    "player.rm": ("-c:a", "ac3"),
    "console.adx": ("-c:a", "adpcm_adx"),
    "bluetooth.sbc": ("-c:a", "sbc"),
    "voicemail.gsm": ("-ar", "8000", "-c:a", "libgsm"),
    "call.g722": ("-c:a", "g722"),
    "call.tco": ("-ar", "8000", "-c:a", "g723_1", "-b:a", "6.3k"),
    "call.ulaw": ("-ar", "8000", "-f", "mulaw"),
    "call.al": ("-ar", "8000", "-f", "alaw"),
    "call.sln": ("-ar", "8000", "-f", "s16le"),
    "brick.rso": ("-ar", "8000", "-c:a", "pcm_u8"),
}


def make_of(sample: Path, path: Path) -> bool:
    """Make one of MADE; return False if this machine's FFmpeg cannot write it."""
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(sample), *MADE[path.name], "-strict", "-2", str(path)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def make(path: Path, arguments: tuple[str, ...], language: str, voice: str, text: str) -> dict[str, object]:
    """Say `text` into a file of some format; return what is to be heard in it, and when."""
    with TemporaryDirectory() as folder:
        spoken = nano.speak(text, language, Path(folder) / "spoken.wav", voice=voice)
        with wave.open(str(spoken)) as sound:
            seconds = sound.getnframes() / sound.getframerate()
        command = ["ffmpeg", "-v", "error", "-y", "-i", str(spoken)]
        if "-c:v" in arguments:
            command += [
                "-f",
                "lavfi",
                "-i",
                "color=black:size=16x16:rate=25",
                "-g",
                "100",
                "-map",
                "0:a",
                "-map",
                "1:v",
            ]
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
