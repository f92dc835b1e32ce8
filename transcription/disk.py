"""Files that come to their place from another disk, and stay there when the power goes."""

import errno
import os
import shutil
from pathlib import Path


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where that cannot be; the target is whole or not there at all."""
    try:
        os.link(source, target)
    except OSError:  # they lie on two disks, or on one where a file has one name only
        _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    draft = target.with_name(f"{target.name}.copy")
    try:
        shutil.copy(source, draft)
        sync_file(draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Return when a file's bytes would survive a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder would survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network shares cannot do it for folders
            raise
    finally:
        os.close(descriptor)
