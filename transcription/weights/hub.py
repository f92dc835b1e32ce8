"""The child that fetches files from the hub.

    python -m transcription.weights.hub REPOSITORY REVISION FOLDER NAME:SIZE:SHA256…

It asks where and as HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN tell huggingface_hub. A file that is broken off stays as
NAME.part, and the next attempt goes on after its last byte: the library itself does so only within one attempt. Whether
the bytes are the published ones is for the parent to say.
"""

import os
import sys
import threading
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # loaded by name

FIRST_ANSWER = 5.0  # seconds; the library tries an unreachable hub for half a minute


def main() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Of the library's ten megabytes a killed child would lose as many, and a slow line would seem to stand still.
    constants.DOWNLOAD_CHUNK_SIZE = 64 * 1024
    repository, revision, folder, *files = sys.argv[1:]
    for name, size, sha256 in (file.split(":") for file in files):
        target = Path(folder) / name
        if not target.exists():
            _fetch(hf_hub_url(repository, name, revision=revision), target, int(size), sha256)


def _end_with_parent() -> None:
    """Its death closes the pipe; two children would write into one file."""
    try:
        while os.read(0, 1):
            pass
    finally:
        os._exit(1)  # also when the pipe cannot be read


def _fetch(url: str, target: Path, size: int, sha256: str) -> None:
    told = get_hf_file_metadata(url, timeout=FIRST_ANSWER)
    if told.size not in (None, size) or _is_another(told.etag, sha256):
        sys.exit(f"Another: {target.name}")  # seen before gigabytes of it have come
    part = target.with_name(f"{target.name}.part")
    with part.open("ab") as file:
        if file.tell() > size:
            file.truncate(0)
        http_get(url, file, resume_size=file.tell(), headers=build_hf_headers(), expected_size=size)
        file.flush()
        os.fsync(file.fileno())
    part.rename(target)


def _is_another(etag: str | None, sha256: str) -> bool:
    """Whether the hub says that its file has another sum. It says so of large files; the tags of others are none."""
    return etag is not None and len(etag) == len(sha256) and etag != sha256


if __name__ == "__main__":
    main()
