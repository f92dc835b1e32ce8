"""Files that come to their place on another disk than the one they came in on."""

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest
from django.conf import LazySettings

from transcription import disk


def another_disk(*_: object) -> NoReturn:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def test_on_one_disk_nothing_is_copied(tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(b"sound")
    disk.link_or_copy(tmp_path / "given", tmp_path / "kept")
    assert (tmp_path / "given").samefile(tmp_path / "kept")


def test_on_two_disks_a_copy_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", another_disk)
    (tmp_path / "given").write_bytes(b"sound")
    disk.link_or_copy(tmp_path / "given", tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == b"sound"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given", "kept"]


def test_a_copy_that_finds_the_disk_full_is_not_there_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", another_disk)
    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "given").write_bytes(b"sound")
    with pytest.raises(OSError, match="No space left"):
        disk.link_or_copy(tmp_path / "given", tmp_path / "kept")
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


def test_the_draft_of_a_process_with_our_pid_in_another_container_stays(tmp_path: Path, settings: LazySettings) -> None:
    settings.DATA_DIR = tmp_path
    draft = tmp_path / f".weights.json.{os.getpid()}"
    draft.write_text("{")
    disk.remember("weights.json", "model.bin", {"sha256": "ab"})
    assert draft.read_text() == "{"
    assert disk.remembered("weights.json") == {"model.bin": {"sha256": "ab"}}


def test_the_space_of_a_folder_that_is_not_there_yet_is_that_of_its_disk(tmp_path: Path) -> None:
    assert disk.free_bytes(tmp_path / "a" / "b") == pytest.approx(disk.free_bytes(tmp_path), rel=0.1)
