"""Django's sessions in the database, for cookies that may hold anything."""

from django.contrib.sessions.backends import db


class SessionStore(db.SessionStore):
    """Takes no key for one that Django does not make: PostgreSQL refuses to look for some of them."""

    def _validate_session_key(self, key: str | None) -> bool:
        return bool(key and len(key) >= 8 and key.isascii() and key.isalnum())
