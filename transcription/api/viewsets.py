"""Jobs over the native API."""

from collections.abc import Callable
from pathlib import PurePath
from typing import IO, Any, cast
from uuid import UUID

from django.contrib.auth.models import AbstractBaseUser
from django.db.models import QuerySet
from django.http import Http404, HttpResponse
from django.urls import reverse
from django.utils.datastructures import MultiValueDict
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from rest_framework import serializers, status, viewsets
from rest_framework.exceptions import APIException, NotAuthenticated, NotFound, ParseError
from rest_framework.pagination import CursorPagination
from rest_framework.parsers import JSONParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from transcription import errors, exports, jobs
from transcription.api import transcript
from transcription.api.answers import Json
from transcription.api.authentication import no_key
from transcription.api.errors import sentence
from transcription.api.serializers import JobInList, JobSerializer, NewJobRequest, parameters
from transcription.api.uploads import clean_name
from transcription.models import Job


class NoSpace(APIException):
    status_code = status.HTTP_507_INSUFFICIENT_STORAGE


class Conflict(APIException):
    status_code = status.HTTP_409_CONFLICT


class ParametersParser(JSONParser):
    """A JSON object of parameters, as the form that it stands for."""

    def parse(self, stream: IO[bytes], *_arguments: Any, **_named: Any) -> MultiValueDict[str, Any]:
        try:
            return parameters(stream.read())
        except ValueError as error:
            raise ParseError(_("The body is not a JSON object of parameters.")) from error


class NewestFirst(CursorPagination):
    ordering = ("-created_at", "-id")
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200


class JobViewSet(viewsets.GenericViewSet[Job]):
    """A user's jobs; another's are not there."""

    pagination_class = NewestFirst
    parser_classes = (MultiPartParser, ParametersParser)
    serializer_class = JobSerializer

    def get_queryset(self) -> QuerySet[Job]:
        return Job.objects.for_user(self.request.user).select_related("recording").defer("recording__peaks")

    def handle_exception(self, exc: Exception) -> Response:
        return super().handle_exception(_in_our_words(exc))

    def create(self, request: Request) -> Response:
        """Queue a job for a file, or for a recording that is here: a new transcript beside the others."""
        owner = cast(AbstractBaseUser, request.user)
        asked = NewJobRequest.of(cast(MultiValueDict[str, Any], request.data), request.query_params, owner=owner)
        asked.is_valid(raise_exception=True)
        if (recording := asked.recording_here) is not None:
            job = jobs.again(recording, **asked.wishes)
        else:
            job = jobs.submit(owner, asked.upload, **asked.wishes)
        headers = {"Location": reverse("api:job", args=(job.pk,)), "X-Job-Id": str(job.pk)}
        return Response(self.get_serializer(job).data, status=status.HTTP_202_ACCEPTED, headers=headers)

    def list(self, request: Request) -> Response:
        page = self.paginate_queryset(self.get_queryset().defer("text", "recording__peaks"))
        return self.get_paginated_response(JobInList(page, many=True).data)

    def retrieve(self, request: Request, pk: UUID) -> Response:
        return Response(self.get_serializer(self.get_object()).data)

    def destroy(self, request: Request, pk: UUID) -> Response:
        jobs.delete(self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)

    def cancel(self, request: Request, pk: UUID) -> Response:
        """Stop a job; its text so far is kept."""
        return self._turned(jobs.cancel, _("The job has ended: there is nothing to cancel."))

    def retry(self, request: Request, pk: UUID) -> Response:
        """Queue a failed or cancelled job again, as it was asked for."""
        return self._turned(jobs.retry, _("Only a failed or cancelled job can be tried again."))

    def _turned(self, turn: Callable[[Job], bool], otherwise: str) -> Response:
        job = self.get_object()
        if not turn(job):
            raise Conflict(otherwise)
        job.refresh_from_db()
        return Response(self.get_serializer(job).data)

    def transcript(self, request: Request, pk: UUID, extension: str) -> HttpResponse:
        """The text in a format; what there is of it when the job failed or was cancelled."""
        job = self.get_object()
        if not (job.is_ended or self._wants_partial()):
            raise Conflict(
                _("The transcript is not finished yet. Wait until it is, or add ?partial=true for what there is.")
            )
        answer = self._export(job, extension)
        answer["Content-Disposition"] = _as_download(job, extension)
        return answer

    def _wants_partial(self) -> bool:
        return self.request.query_params.get("partial", "").lower() in serializers.BooleanField.TRUE_VALUES

    def _export(self, job: Job, extension: str) -> HttpResponse:
        if extension == "json":
            return Json(transcript.body(job))
        export = exports.FORMATS.get(extension)
        if export is None:
            known = ", ".join((*exports.FORMATS, "json"))
            raise NotFound(
                _("There is no format `%(name)s`. Choose one of: %(known)s.") % {"name": extension, "known": known}
            )
        text = export.render(transcript.segments(job), job.transcription_options.highlight)
        return HttpResponse(text, content_type=export.content_type)


def _in_our_words(exc: Exception) -> Exception:
    """The exception with the sentence that the other doors say in its place."""
    if isinstance(exc, errors.DiskFull):  # while the form is read, long before `create`
        return NoSpace(sentence(exc))
    if isinstance(exc, errors.RecordingMissing):
        return Conflict(sentence(exc))
    if isinstance(exc, NotAuthenticated):
        return NotAuthenticated(no_key())
    if isinstance(exc, Http404):
        return NotFound(_("There is no such job."))
    return exc


def _as_download(job: Job, extension: str) -> str:
    """The header that saves a transcript under the job's name, without the recording's extension."""
    stem = job.name.removesuffix(PurePath(job.recording.original_name).suffix)
    return content_disposition_header(True, clean_name(f"{stem or job.name}.{extension}")) or "attachment"
