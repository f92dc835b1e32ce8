"""A transcript's segments over the native API: what the engine heard, the current text, and a person's edits."""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from transcription.api.serializers import always, finite, without_controls
from transcription.api.v1.base import Conflict, NativeViewSet, Question
from transcription.models import BY_TIME, Job, Segment
from transcription.text import edits
from transcription.whisper.result import Word

MOST = 1000
LAST_OFFSET = 2**31 - 1


class SegmentsQuestion(Question):
    """Which of a job's segments to list."""

    page_size = serializers.IntegerField(
        default=200,
        min_value=1,
        max_value=MOST,
        error_messages=always(gettext_lazy("`page_size` is a number from 1 to 1000.")),
    )
    offset = serializers.IntegerField(
        default=0,
        min_value=0,
        max_value=LAST_OFFSET,
        error_messages=always(gettext_lazy("`offset` is a number from 0 to 2147483647.")),
    )


class Edit(serializers.Serializer[Any]):
    """A segment's new text; null restores what was heard."""

    text = serializers.CharField(
        allow_null=True,
        allow_blank=True,
        max_length=10_000,
        error_messages=always(gettext_lazy("`text` is what the segment shall read, or null to undo its edit."))
        | {"max_length": gettext_lazy("`text` has at most 10,000 characters.")},
    )


class SegmentSerializer(serializers.ModelSerializer[Segment]):
    """A segment's current text, and what was heard."""

    channel = serializers.SerializerMethodField()
    text = serializers.SerializerMethodField()
    language = serializers.SerializerMethodField()
    words = serializers.SerializerMethodField()
    heard = serializers.SerializerMethodField()
    improved = serializers.SerializerMethodField()

    class Meta:
        model = Segment
        fields = ("id", "start", "end", "channel", "text", "language", "words", "heard", "improved", "edited_at")

    def get_channel(self, segment: Segment) -> int | None:
        """The channel of the recording that it is of, from 1; null if all of them were mixed."""
        return segment.section.channel or None

    def get_text(self, segment: Segment) -> str:
        return segment.reads.strip()

    def get_language(self, segment: Segment) -> str | None:
        return segment.language or segment.job.language or None

    def get_words(self, segment: Segment) -> list[dict[str, Any]] | None:
        """Words with times; null unless `word_timestamps` was set. Edited words take their times from those heard."""
        words = edits.spoken(segment)
        return None if words is None else [_word_body(word) for word in words]

    def get_heard(self, segment: Segment) -> dict[str, Any]:
        words = None if segment.words is None else [_word_body(Word.from_json(word)) for word in segment.words]
        return {"text": segment.text.strip(), "words": words}

    def get_improved(self, segment: Segment) -> str | None:
        return None if segment.improved_text is None else segment.improved_text.strip()

    def to_representation(self, instance: Segment) -> dict[str, Any]:
        representation: dict[str, Any] = finite(super().to_representation(instance))
        return representation


def _word_body(word: Word) -> dict[str, Any]:
    return {"word": word.word.strip(), "start": word.start, "end": word.end, "probability": word.probability}


class SegmentViewSet(NativeViewSet[Segment]):
    """The segments of one of a user's jobs."""

    serializer_class = SegmentSerializer

    def get_queryset(self) -> QuerySet[Segment]:
        own = Job.objects.for_user(self.request.user)
        job = get_object_or_404(own.only("pk", "language"), pk=self.kwargs["job_pk"])
        return job.segments.select_related("section").order_by(*BY_TIME).defer("tokens")

    def list(self, request: Request, job_pk: UUID) -> Response:
        """Some of the segments, in the order of the recording."""
        question = SegmentsQuestion.read(request)
        segments = self.get_queryset()
        page = segments[question["offset"] : question["offset"] + question["page_size"]]
        return Response({"count": segments.count(), "results": self.get_serializer(page, many=True).data})

    def partial_update(self, request: Request, job_pk: UUID, pk: int) -> Response:
        """Change a segment's text. What the engine heard is kept beside it."""
        segment = self.get_object()
        edit = Edit(data=request.data)
        edit.is_valid(raise_exception=True)
        text = edit.validated_data["text"]
        if not edits.edit(segment, None if text is None else without_controls(text)):
            raise Conflict(_("The job still works on its text. Edit it when it has ended."))
        segment.refresh_from_db()
        return Response(self.get_serializer(segment).data)
