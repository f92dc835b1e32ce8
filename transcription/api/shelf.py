"""Models over the native API."""

from typing import Any

from rest_framework import permissions, status, viewsets
from rest_framework.exceptions import NotAuthenticated, NotFound
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from transcription import catalogue, errors, shelf
from transcription.api.authentication import IsAdministrator, no_key
from transcription.api.errors import sentence
from transcription.api.native import Conflict
from transcription.shelf import ShelfModel


class ModelViewSet(viewsets.ViewSet):
    """What can be transcribed with: everybody may look, administrators fetch and remove."""

    def get_permissions(self) -> list[BasePermission]:
        needs_admin = self.action in ("download", "destroy")
        return [IsAdministrator() if needs_admin else permissions.IsAuthenticated()]

    def handle_exception(self, exc: Exception) -> Response:
        return super().handle_exception(_in_our_words(exc))

    def list(self, request: Request) -> Response:
        return Response({"results": [_told(model) for model in shelf.models()]})

    def download(self, request: Request, name: str) -> Response:
        """Have a model fetched in the background; one that is here is left as it is."""
        shelf.order(name)
        model = shelf.find(name)
        return Response(_told(model), status=status.HTTP_200_OK if model.local else status.HTTP_202_ACCEPTED)

    def destroy(self, request: Request, name: str) -> Response:
        """Remove a model from this machine, or call its download off."""
        shelf.remove(name)
        return Response(status=status.HTTP_204_NO_CONTENT)


def _told(model: ShelfModel) -> dict[str, Any]:
    published = catalogue.MODELS.get(model.name)
    failed = model.download if model.state == "failed" else None
    return {
        "name": model.name,
        "aliases": list(published.aliases) if published else [],
        "engine": model.engine,
        "state": model.state,
        "progress": round(model.progress, 3),
        "size_bytes": model.size_bytes,
        "default": model.is_default,
        "verified": catalogue.is_known_to_be_verified(model.local) if model.local else None,
        "error": {"code": failed.error_code, "message": failed.error_message} if failed else None,
    }


def _in_our_words(exc: Exception) -> Exception:
    """The exception with the sentence that the other doors say in its place."""
    if isinstance(exc, errors.UnknownModel | errors.ModelMissing):
        return NotFound(sentence(exc))
    if isinstance(exc, errors.ModelInUse):
        return Conflict(sentence(exc))
    if isinstance(exc, NotAuthenticated):
        return NotAuthenticated(no_key())
    return exc
