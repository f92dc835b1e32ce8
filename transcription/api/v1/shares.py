"""Links to a transcript over the native API, for its owner."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from transcription import shares
from transcription.api import own_address
from transcription.api.serializers import always
from transcription.api.v1.base import NativeViewSet
from transcription.models import Job, Share

DEFAULT_DAYS, MOST_DAYS = 7, 365


class NewShare(serializers.Serializer[Any]):
    """How long a link is valid, and whether the recording can be heard there."""

    expires_in_days = serializers.IntegerField(
        default=DEFAULT_DAYS,
        min_value=1,
        max_value=MOST_DAYS,
        error_messages=always(gettext_lazy("`expires_in_days` is a number from 1 to 365.")),
    )
    has_audio = serializers.BooleanField(
        default=True, error_messages=always(gettext_lazy("`has_audio` is true or false."))
    )

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        sent = set(data) if isinstance(data, dict) else {""}
        if unknown := sorted(map(str, sent - set(self.fields))):
            message = _("There is no parameter `%(name)s`.") % {"name": unknown[0]}
            raise serializers.ValidationError({unknown[0]: [message]})
        values: dict[str, Any] = super().to_internal_value(data)
        return values


class ShareSerializer(serializers.ModelSerializer[Share]):
    class Meta:
        model = Share
        fields = ("id", "has_audio", "created_at", "expires_at")


class ShareViewSet(NativeViewSet[Share]):
    """The links to one of a user's jobs."""

    missing = gettext_lazy("There is no such job, or no such link to it.")
    serializer_class = ShareSerializer

    def get_queryset(self) -> QuerySet[Share]:
        return self._job().shares.filter(expires_at__gt=timezone.now())

    def _job(self) -> Job:
        return get_object_or_404(Job.objects.for_user(self.request.user).only("pk"), pk=self.kwargs["job_pk"])

    def list(self, request: Request, job_pk: UUID) -> Response:
        """The valid links. Their addresses were shown when they were made, and are not known any more."""
        return Response({"results": self.get_serializer(self.get_queryset(), many=True).data})

    def create(self, request: Request, job_pk: UUID) -> Response:
        """Make a link. Only this response has its address."""
        job = self._job()
        form = NewShare(data=request.data)
        form.is_valid(raise_exception=True)
        expires_at = timezone.now() + timedelta(days=form.validated_data["expires_in_days"])
        share, secret = shares.make(job, expires_at=expires_at, has_audio=form.validated_data["has_audio"])
        address = own_address.absolute(request, reverse("shared", args=(secret,)))
        return Response({**self.get_serializer(share).data, "url": address}, status=status.HTTP_201_CREATED)

    def destroy(self, request: Request, job_pk: UUID, pk: UUID) -> Response:
        """Revoke a link: it stops working at once."""
        self.get_object().delete()
        return Response(status=status.HTTP_204_NO_CONTENT)
