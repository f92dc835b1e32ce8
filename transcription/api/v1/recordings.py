"""Recordings over the native API, with or without jobs."""

from uuid import UUID

from django.db.models import Prefetch, QuerySet
from django.utils.translation import gettext_lazy
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from transcription import jobs
from transcription.api.serializers import RecordingFacts
from transcription.api.v1.base import NativeViewSet, NewestFirst, PageQuestion
from transcription.models import Job, Recording


class RecordingSerializer(RecordingFacts):
    """A recording and its jobs, the newest first."""

    jobs = serializers.PrimaryKeyRelatedField(many=True, read_only=True)  # type: ignore[var-annotated]

    class Meta(RecordingFacts.Meta):
        fields: tuple[str, ...] = (*RecordingFacts.Meta.fields, "created_at", "removed_at", "jobs")


class RecordingViewSet(NativeViewSet[Recording]):
    """A user's recordings."""

    missing = gettext_lazy("There is no such recording.")
    pagination_class = NewestFirst
    serializer_class = RecordingSerializer

    def get_queryset(self) -> QuerySet[Recording]:
        jobs_of_each = Prefetch("jobs", Job.objects.only("pk", "recording_id", "created_at"))
        return Recording.objects.for_user(self.request.user).defer("peaks").prefetch_related(jobs_of_each)

    def list(self, request: Request) -> Response:
        PageQuestion.read(request)
        return self.get_paginated_response(
            self.get_serializer(self.paginate_queryset(self.get_queryset()), many=True).data
        )

    def retrieve(self, request: Request, pk: UUID) -> Response:
        return Response(self.get_serializer(self.get_object()).data)

    def destroy(self, request: Request, pk: UUID) -> Response:
        """Delete a recording and all of its jobs, including those that run."""
        jobs.delete_recording(self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)
