"""The project's settings over a data folder and models of the tests' own."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

os.environ["DATA_DIR"] = tempfile.mkdtemp(prefix="stenograf-tests-")
atexit.register(shutil.rmtree, os.environ["DATA_DIR"], ignore_errors=True)
os.environ["MODEL_DOWNLOAD_ROOT"] = str(Path(__file__).parent / "data")  # its faster-whisper-nano is the model `nano`
os.environ["DEFAULT_MODEL"] = "nano"
os.environ["ALLOWED_HOSTS"] = "testserver"

from config.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {  # noqa: F405
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
if CELERY_BROKER_URL.startswith("redis"):  # noqa: F405
    # What the tests ring for is no work of the server that has this database.
    CELERY_BROKER_TRANSPORT_OPTIONS["global_keyprefix"] = f"stenograf.tests.{os.getpid()}."  # noqa: F405
