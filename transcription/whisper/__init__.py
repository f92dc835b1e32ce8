"""Whisper as a plain library: no Django, no Celery, no database."""
