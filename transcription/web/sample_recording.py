"""The bundled sample recording, for users who have none at hand."""

from django.conf import settings
from django.utils import translation

from transcription.api.upload_handler import HashedUpload


def upload() -> HashedUpload:
    """The sample in the reader's language, as an uploaded file."""
    source = settings.SAMPLES_DIR / ("sample-ru.ogg" if translation.get_language() == "ru" else "sample-en.ogg")
    upload = HashedUpload(source.name, "audio/ogg")
    upload.add(source.read_bytes())
    upload.finish()
    return upload
