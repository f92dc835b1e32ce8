import os
import subprocess
import sys

import pytest

from transcription import processes


def test_on_a_mac_nothing_stands_in_the_way_of_posix_spawn(monkeypatch):
    spawned = []
    spawn = os.posix_spawn
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "posix_spawn", lambda *args, **kwargs: spawned.append(args[0]) or spawn(*args, **kwargs))

    process = processes.start(["/bin/sh", "-c", "echo hello"], env={"LC_ALL": "C"}, stdout=subprocess.PIPE)

    assert process.communicate()[0] == b"hello\n"
    assert spawned == ["/bin/sh"]


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac gives up the session for posix_spawn")
def test_elsewhere_a_ctrl_c_in_the_terminal_does_not_reach_the_child():
    process = processes.start(["/bin/sleep", "30"])
    try:
        assert os.getsid(process.pid) != os.getsid(0)
    finally:
        process.kill()
        process.wait()


def test_a_program_without_its_path_is_refused():
    with pytest.raises(ValueError, match="ffmpeg is no absolute path"):
        processes.start(["ffmpeg"])
