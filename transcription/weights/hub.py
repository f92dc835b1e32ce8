"""The child process that downloads files from the hub.

    python -m transcription.weights.hub REPOSITORY REVISION FOLDER NAME:SIZE:SHA256…

huggingface_hub reads HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN. A partial file stays as NAME.part, and the next attempt
continues after its last byte; the library itself continues within one attempt only. The parent verifies the bytes.
"""

import os
import sys
import threading
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # loaded by name

FIRST_ANSWER = 5.0  # seconds; by itself the library tries an unreachable hub for half a minute


def main() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # By default ten megabytes: a killed child would lose that much, and a slow download would seem to stand still.
    constants.DOWNLOAD_CHUNK_SIZE = 64 * 1024
    repository, revision, folder, *files = sys.argv[1:]
    for name, size, sha256 in (file.split(":") for file in files):
        target = Path(folder) / name
        if not target.exists():
            _fetch(hf_hub_url(repository, name, revision=revision), target, int(size), sha256)


def _end_with_parent() -> None:
    """End this process when the parent's death closes the pipe; otherwise two children could write into one file."""
    try:
        while os.read(0, 1):
            pass
    finally:
        os._exit(1)  # also when the pipe cannot be read


def _fetch(url: str, target: Path, size: int, sha256: str) -> None:
    metadata = get_hf_file_metadata(url, timeout=FIRST_ANSWER)
    # The etag of a large file is its SHA-256; those of small files have another length.
    has_other_sum = metadata.etag is not None and len(metadata.etag) == len(sha256) and metadata.etag != sha256
    if metadata.size not in (None, size) or has_other_sum:
        sys.exit(f"Another: {target.name}")  # before gigabytes of it are downloaded
    part = target.with_name(f"{target.name}.part")
    with part.open("ab") as file:
        if file.tell() > size:
            file.truncate(0)
        http_get(url, file, resume_size=file.tell(), headers=build_hf_headers(), expected_size=size)
        file.flush()
        os.fsync(file.fileno())
    part.rename(target)


if __name__ == "__main__":
    main()
