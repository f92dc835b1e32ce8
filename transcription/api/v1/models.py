"""Models over the native API."""

from typing import Any

from rest_framework import permissions, status
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from transcription import model_library
from transcription.api.authentication import IsAdministrator
from transcription.api.v1.base import NativeViewSet
from transcription.model_library import LibraryModel
from transcription.models import Download
from transcription.weights import catalogue


class ModelViewSet(NativeViewSet[Download]):
    """The models: every user may list them, administrators may fetch and remove them."""

    def get_permissions(self) -> list[BasePermission]:
        needs_admin = self.action in ("download", "destroy")
        return [IsAdministrator() if needs_admin else permissions.IsAuthenticated()]

    def list(self, request: Request) -> Response:
        return Response({"results": [_to_dict(model) for model in model_library.models()]})

    def download(self, request: Request, name: str) -> Response:
        """Fetch a model in the background, unless it is here already."""
        model_library.request_download(name)
        model = model_library.find(name)
        return Response(_to_dict(model), status=status.HTTP_200_OK if model.local else status.HTTP_202_ACCEPTED)

    def destroy(self, request: Request, name: str) -> Response:
        """Remove a model from this machine, or cancel its download."""
        model_library.remove(name)
        return Response(status=status.HTTP_204_NO_CONTENT)


def _to_dict(model: LibraryModel) -> dict[str, Any]:
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
