"""The project: settings, addresses, and the two programs' entry points (ASGI and Celery)."""

from config.celery import app as celery_app

__all__ = ["celery_app"]
