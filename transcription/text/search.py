"""Finds jobs by their text, in the same way in every database.

SQLite ignores case in ASCII only, PostgreSQL in every language. So a job stores its text folded, and a query is folded
in the same way.
"""

import unicodedata
import uuid

from django.db.models import Q

from transcription.models import Job


def folded(text: str) -> str:
    """A text without case and with single spaces. `ё` becomes `е`, as most Russian texts have it."""
    composed = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(composed.replace("ё", "е").replace("\0", " ").split())


def matching(query: str) -> Q:
    """The jobs whose name, notes and text together contain each of the query's words."""
    return Q(*(Q(searchable__contains=word) for word in folded(query).split()))


def index(job_id: uuid.UUID) -> None:
    """Update a job's folded text. Call it in the transaction that changed its name, notes or text."""
    texts = Job.objects.filter(pk=job_id).values_list("name", "notes", "text").first()
    if texts is not None:
        Job.objects.filter(pk=job_id).update(searchable=folded("\n".join(texts)))
