"""Finding jobs by what is said in them: text as it is compared, the same in every database.

SQLite ignores case in ASCII alone and PostgreSQL in every language, so a job stores its words folded, and what somebody
looks for is folded in the same way.
"""

import unicodedata
import uuid

from django.db.models import Q

from transcription.models import Job


def folded(text: str) -> str:
    """A text without case and with single spaces; `ё` is `е`, as Russian is mostly written."""
    composed = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(composed.replace("ё", "е").replace("\0", " ").split())


def matching(query: str) -> Q:
    """The jobs whose name, notes or text hold each of these words."""
    return Q(*(Q(searchable__contains=word) for word in folded(query).split()))


def index(job_id: uuid.UUID) -> None:
    """Store a job's words as they are looked for; call it in the transaction that changed its name, notes or text."""
    words = Job.objects.filter(pk=job_id).values_list("name", "notes", "text").first()
    if words is not None:
        Job.objects.filter(pk=job_id).update(searchable=folded("\n".join(words)))
