"""Whatever a file says, FFmpeg reads it alone, calls nobody, and stays within its limits.

strace watches what is opened, run and called, by the very command of `audio.decode`. The files are made in hostile.py.
"""

import os
import random
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.hostile import FILES, FORMATS, TEXTS, Victim, wave
from tests.make_formats import MADE, make_of
from transcription import errors, processes
from transcription.sound import audio, formats

pytestmark = pytest.mark.heavy

NOBODY = "127.0.0.1:9"
LONGEST = 60  # seconds of sound that a recording may have here
FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS", "10" if os.environ.get("SLOW") else "2"))

WATCHED = "?open,openat,?openat2,?creat,execve,?execveat,%network"
# Libraries, and what they ask of the system: how many processors it has, whether it is certified for secrets.
SYSTEM = re.compile(
    r"/usr/.*|/lib(64)?/.*|/etc/(ld\.so\..*|gcrypt/hwf\.deny|localtime)|/dev/null|/sys/devices/system/(cpu|node)(/.*)?"
    r"|/proc/(self|\d+)/status|/proc/filesystems"
    r"|/proc/sys/(kernel/cap_last_cap|crypto/fips_enabled|vm/overcommit_memory)"
)


class Trace:
    """What a program and its children did, read from strace's log."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def before(self, arguments: list[str]) -> list[str]:
        strace = shutil.which("strace", path=os.defpath + ":/usr/local/bin")
        assert strace is not None
        shown = ["-f", "--seccomp-bpf", "-qq", "-xx", "-s", "99999", "-e", f"trace={WATCHED}", "-o", str(self.log)]
        return [strace, *shown, "--", *arguments]

    def _calls(self) -> list[tuple[str, str, str]]:
        """(name of the call, the path in it, all of its words)."""
        found = re.findall(
            r'^\d+ +(\w+)\((?:AT_FDCWD, )?(?:"((?:\\x\w\w)*)")?(.*)$', self.log.read_text(), re.MULTILINE
        )
        return [(name, plain(path), rest) for name, path, rest in found]

    @property
    def opened(self) -> set[str]:
        """The files that it opened or tried to open, but for the system's."""
        paths = {path for name, path, rest in self._calls() if "open" in name or "creat" in name}
        return {path for path in paths if not SYSTEM.fullmatch(path)}

    @property
    def written(self) -> set[str]:
        opened = [(path, rest) for name, path, rest in self._calls() if "open" in name or "creat" in name]
        return {path for path, rest in opened if re.search("O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", rest)} - {"/dev/null"}

    @property
    def executed(self) -> set[str]:
        return {path for name, path, rest in self._calls() if name.startswith("exec")}

    @property
    def called(self) -> list[str]:
        """The network, of any kind."""
        return [name for name, _, _ in self._calls() if not re.match("open|creat|exec", name)]


def plain(path: str) -> str:
    """A path as strace writes it, without dots and double slashes."""
    path = os.fsdecode(bytes.fromhex(path.replace("\\x", "")))
    return os.path.normpath(re.sub("^//+", "/", path)) if path else path


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return Trace(tmp_path / "trace.log")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the hostile file lies, with what it would find beside it."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("secret.wav", "sound001.wav", "frame001.jpg", "subtitles.sub", "movie.M00"):
        shutil.copy(FORMATS / "speech.wav", folder / name)
    return folder


@pytest.fixture
def pcm(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "sound.pcm"


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    secret = tmp_path_factory.mktemp("another") / "secret.wav"
    shutil.copy(FORMATS / "speech.wav", secret)
    return Victim(secret, NOBODY)


@cache
def content(name: str, victim: Victim) -> bytes:
    return FILES[name][1](victim)


def decode(source: Path, pcm: Path, name: str = "") -> float:
    return audio.decode(
        source,
        pcm,
        name=name or source.name,
        max_seconds=LONGEST,
        on_probe=lambda probe: None,
        on_progress=lambda seconds: None,
        should_stop=lambda: False,
    ).duration


def watched(trace: Trace, monkeypatch: pytest.MonkeyPatch, work: Callable[[], float]) -> float | errors.Problem:
    """What comes of decoding under strace: the seconds, or the problem."""
    start = processes.start
    monkeypatch.setattr(processes, "start", lambda arguments, **rest: start(trace.before(arguments), **rest))
    try:
        return work()
    except errors.Problem as problem:
        return problem


def only_this_was_touched(trace: Trace, source: Path, pcm: Path) -> None:
    drafts = {path for path in trace.opened if re.fullmatch(re.escape(str(pcm)) + r"\.\w+\.part", path)}
    assert trace.opened - drafts <= {str(source)}
    assert trace.written <= drafts
    assert trace.called == []
    assert audio.ffmpeg_path() in trace.executed
    assert trace.executed <= {*audio._die_with_parent()[:1], "/bin/sh", audio.ffmpeg_path()}


# ------------------------------------------------------------------ the watcher itself


@pytest.mark.needs("strace", "ffmpeg")
def test_without_walls_a_playlist_is_followed_and_the_watcher_sees_it(
    trace: Trace, folder: Path, victim: Victim
) -> None:
    (folder / "hls.wav").write_bytes(content("hls.wav", victim))
    bare = ["ffmpeg", "-v", "error", "-i", "hls.wav", "-f", "null", "-"]

    subprocess.run(trace.before(bare), cwd=folder, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    assert str(victim.secret) in trace.opened


@pytest.mark.needs("strace", "ffmpeg")
def test_the_watcher_sees_a_call_a_program_and_a_file_that_is_written(trace: Trace, tmp_path: Path) -> None:
    written = tmp_path / "written"
    commands = f"ffmpeg -v error -i http://{NOBODY}/x.wav -f null -; env true; echo > {written}"

    subprocess.run(trace.before(["/bin/sh", "-c", commands]), stderr=subprocess.DEVNULL, check=False)

    assert "connect" in trace.called
    assert {shutil.which("env"), shutil.which("true")} <= trace.executed
    assert str(written) in trace.written


# ------------------------------------------------------------------ hostile files


@pytest.mark.needs("strace")
@pytest.mark.parametrize("binary", ["machine", "package"])
@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_read_alone_and_nobody_is_called(
    trace: Trace, folder: Path, pcm: Path, victim: Victim, monkeypatch: pytest.MonkeyPatch, name: str, binary: str
) -> None:
    source = folder / name
    source.write_bytes(content(name, victim))
    before = sorted(folder.iterdir())
    if binary == "package":
        monkeypatch.setenv("PATH", "/nonexistent")

    outcome = watched(trace, monkeypatch, lambda: decode(source, pcm))

    only_this_was_touched(trace, source, pcm)
    expected = FILES[name][0]
    assert any(fits(outcome, one) for one in (expected if isinstance(expected, tuple) else (expected,))), outcome
    assert list(pcm.parent.iterdir()) == ([pcm] if isinstance(outcome, float) else [])
    assert sorted(folder.iterdir()) == before


def fits(outcome: float | errors.Problem, expected: type[errors.Problem] | float) -> bool:
    if isinstance(expected, float):
        return isinstance(outcome, float) and abs(outcome - expected) < 0.1
    return isinstance(outcome, expected)


@pytest.mark.needs("strace")
@pytest.mark.parametrize("binary", [pytest.param("machine", marks=pytest.mark.slow), "package"])
def test_no_format_that_is_read_opens_what_its_file_names(
    trace: Trace, folder: Path, pcm: Path, victim: Victim, monkeypatch: pytest.MonkeyPatch, binary: str
) -> None:
    """Each is told to read all the texts of hostile.py, by the very command of `audio.decode`."""
    source = folder / "texts"
    source.write_bytes(b"\n".join(content(name, victim) for name in TEXTS) * 3)
    if binary == "package":
        monkeypatch.setenv("PATH", "/nonexistent")
    readable = [formats.Headerless(name) for name in (*formats.DEMUXERS, *formats.NAMED)]
    levels = pcm.with_name("levels")
    outputs = [audio._pcm_output(pcm, "", LONGEST, 1.0, is_watched=True), audio._levels_output(levels, LONGEST)]
    commands = [shlex.join(audio._decoding_arguments(source, outputs, 1, forced)) for forced in readable]

    script = " </dev/null >/dev/null 2>&1\n".join([*commands, "true"])
    subprocess.run(trace.before(["/bin/sh"]), input=script.encode(), env=audio.ENVIRONMENT, check=True)

    assert trace.opened - {str(pcm), str(levels)} == {str(source)}
    assert trace.written <= {str(pcm), str(levels)}
    assert trace.called == []
    assert trace.executed == {"/bin/sh", audio.ffmpeg_path()}


NAMES = (
    "-i.wav", "-", "--help", "sound%03d.wav", "100%.wav", "*.wav", "[ab]?.wav", "~.wav", "pipe:0", "file:x.wav",
    "http:x.wav", "concat:a.wav|secret.wav", "subfile,,start,0,end,9,,:secret.wav", "data:audio,x", "$(touch x).wav",
    "`touch x`.wav", "a; touch x;.wav", "a\nb.wav", "\x1b[31m\r.wav", "a'b\"c\\.wav", " .wav", "Голос Анны.wav",
    "\u202evaw.x", "x" * 250, os.fsdecode(b"\xff\xfe.wav"),
)  # fmt: skip


@pytest.mark.needs("strace")
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_a_name_whatever_it_looks_like(
    trace: Trace, folder: Path, pcm: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source = folder / name
    source.write_bytes(wave())
    before = sorted(folder.iterdir())

    assert watched(trace, monkeypatch, lambda: decode(source, pcm)) == pytest.approx(1.0)

    only_this_was_touched(trace, source, pcm)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_not_opened(folder: Path, pcm: Path, kind: str) -> None:
    source = folder / "sound.wav"
    source.mkdir() if kind == "folder" else os.mkfifo(source)

    with pytest.raises(errors.RecordingMissing):
        decode(source, pcm)


# ------------------------------------------------------------------ damage


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """The same bytes, some of them changed, missing or added; more often near the beginning, where the sizes are."""
    file = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        place = chance.randrange(len(file) if chance.random() < 0.5 else min(len(file), 600))
        match chance.randrange(5):
            case 0:
                file[place] ^= 1 << chance.randrange(8)
            case 1:
                del file[place + 1 : place + 1 + chance.choice((1, 2, 4, 100, 5000))]
            case 2:
                file[place:place] = chance.randbytes(chance.choice((1, 2, 4, 100)))
            case 3:
                file[place : place + 4] = chance.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\1"))
            case 4:
                del file[place + 1 :]
    return bytes(file)


def test_a_damaged_recording_is_a_recording_or_a_problem_of_the_recording(
    tmp_path: Path, pcm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of each sample, and as many as there is time for, the same each time; FUZZ_SECONDS=3600 looks longer."""
    chance = random.Random(10)
    samples = sorted(path for path in FORMATS.iterdir() if path.suffix != ".json")
    source, paths = tmp_path / "damaged", [os.environ["PATH"], "/nonexistent"]
    began, tried = time.monotonic(), 0
    while tried < len(samples) or time.monotonic() - began < FUZZ_SECONDS:
        sample = samples[tried % len(samples)]
        source.write_bytes(damaged(sample.read_bytes(), chance))
        monkeypatch.setenv("PATH", paths[tried // len(samples) % 2])
        began_this = time.monotonic()
        assert_is_a_recording_or_at_fault(source, pcm, f"{sample.name}, number {tried}")
        assert list(pcm.parent.iterdir()) == []
        assert time.monotonic() - began_this < audio.PROBE_SECONDS / 2
        tried += 1


@pytest.mark.slow
@pytest.mark.needs("ffmpeg")
def test_a_damaged_recording_of_any_other_format_is_one_too(
    tmp_path: Path, pcm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of each, and three with other damage."""
    chance = random.Random(17)
    whole = [path for path in (tmp_path / name for name in MADE) if make_of(FORMATS / "speech.wav", path)]
    paths, source = [os.environ["PATH"], "/nonexistent"], tmp_path / "damaged"
    for number, path in enumerate(4 * whole):
        made = path.read_bytes()
        source.write_bytes(made[: len(made) // 2] if number < len(whole) else damaged(made, chance))
        monkeypatch.setenv("PATH", paths[number % 2])
        assert_is_a_recording_or_at_fault(source, pcm, f"{path.name}, number {number}", path.name)
        assert list(pcm.parent.iterdir()) == []


def assert_is_a_recording_or_at_fault(source: Path, pcm: Path, which: str, name: str = "") -> None:
    try:
        seconds = decode(source, pcm, name)
    except errors.InputProblem as problem:
        if "crashed" in str(problem):
            pytest.fail(f"{which}: {problem}")
    except errors.Problem as problem:
        pytest.fail(f"{which} is not said to be at fault: {problem!r}")
    else:
        assert 0 < seconds <= LONGEST
        pcm.unlink()
