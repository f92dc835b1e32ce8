"""What the native API's views share: errors as sentences, pages of lists, JSON bodies, query strings."""

import datetime
from typing import IO, Any, ClassVar, TypeVar

from django.db import models
from django.http import Http404
from django.utils import timezone
from django.utils.datastructures import MultiValueDict
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import serializers, status, viewsets
from rest_framework.exceptions import APIException, NotAuthenticated, NotFound, ParseError, Throttled
from rest_framework.pagination import CursorPagination
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.response import Response

from transcription import errors, jobs, sentences
from transcription.api import idempotency
from transcription.api.authentication import NoKey
from transcription.api.serializers import UploadField, always, parameters

Row = TypeVar("Row", bound=models.Model)

# How DRF's messages about a malformed body begin; the rest is in the parser's own words.
MALFORMED_BODY = ("Multipart form parse error", "JSON parse error")


class NoSpace(APIException):
    status_code = status.HTTP_507_INSUFFICIENT_STORAGE


class Conflict(APIException):
    status_code = status.HTTP_409_CONFLICT


class Unprocessable(APIException):
    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY


class TryAgainLater(Throttled):
    """429 with our own sentence, without the one that DRF would append."""

    def __init__(self, problem: errors.RetryLater) -> None:
        APIException.__init__(self, sentences.describe(problem))
        self.wait = problem.values.get("seconds")  # seconds, for Retry-After


class ParametersParser(JSONParser):
    """Reads a JSON object of parameters as if it were a form."""

    def parse(self, stream: IO[bytes], *_arguments: Any, **_named: Any) -> MultiValueDict[str, Any]:
        try:
            return parameters(stream.read())
        except ValueError as error:
            raise ParseError(_("The body is not a JSON object of parameters.")) from error


def form_of(request: Request) -> MultiValueDict[str, Any]:
    """The form in a request's body; empty if there is no body, for which DRF has a plain dict."""
    return request.data if isinstance(request.data, MultiValueDict) else MultiValueDict()


class NativeViewSet(viewsets.GenericViewSet[Row]):
    """A view of the native API: another user's objects do not exist, and each error is a sentence."""

    missing: ClassVar[str | Promise] = gettext_lazy("There is no such job.")

    def handle_exception(self, exc: Exception) -> Response:
        return super().handle_exception(self._translated(exc))

    def _translated(self, exc: Exception) -> Exception:
        """The DRF exception that answers `exc`, with the same sentence as the other endpoints."""
        match exc:
            case errors.DiskFull():  # raised also while the form is read, before the view begins
                return NoSpace(sentences.describe(exc))
            case errors.RetryLater():
                return TryAgainLater(exc)
            case errors.RecordingMissing() | errors.ModelInUse():
                return Conflict(sentences.describe(exc))
            case errors.UnknownModel() | errors.ModelMissing():
                return NotFound(sentences.describe(exc))
            case jobs.KeyTaken():
                return Unprocessable(idempotency.key_taken())
            case idempotency.KeyTooLong():
                return serializers.ValidationError({idempotency.HEADER: [str(exc)]})
            case jobs.UploadGone():
                return serializers.ValidationError({"upload": [UploadField.default_error_messages["invalid"]]})
            case ParseError() if str(exc.detail).startswith(MALFORMED_BODY):
                return ParseError(_("The request could not be read. Check its form and send it again."))
            case NotAuthenticated():
                return NotAuthenticated(str(NoKey()))
            case Http404():
                return NotFound(str(self.missing))
        return exc


class NewestFirst(CursorPagination):
    """Pages, the newest rows first, that do not shift when rows are added meanwhile."""

    ordering = ("-created_at", "-id")
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200

    def decode_cursor(self, request: Request) -> Any:
        """Raises NotFound, also for a position that no page of this order could begin at."""
        cursor = super().decode_cursor(request)
        if cursor is not None and cursor.position is not None and not self._is_position(str(cursor.position)):
            raise NotFound(self.invalid_cursor_message)
        return cursor

    def _is_position(self, text: str) -> bool:
        """Whether the database can compare the column of the ordering with a text."""
        if not self.ordering[0].endswith("created_at"):
            return "\0" not in text
        try:
            MomentField().to_internal_value(text)
        except serializers.ValidationError:
            return False
        return True


# ------------------------------------------------------------------ query strings


class MomentField(serializers.Field[datetime.datetime, str, str, Any]):
    """A moment, or a day, which begins at midnight in the server's time zone."""

    default_error_messages: ClassVar[dict[str, Any]] = always(
        gettext_lazy("Write a day or a moment, such as 2026-11-21 or 2026-11-21T09:30:00Z.")
    )

    def to_internal_value(self, data: str) -> datetime.datetime:
        try:
            # An unescaped `+` arrives as a space.
            moment = parse_datetime(data.replace(" ", "+", 1) if data.count(":") > 2 else data)
            if moment is None and (day := parse_date(data)) is not None:
                moment = datetime.datetime.combine(day, datetime.time())
        except ValueError:
            moment = None
        if moment is None:
            self.fail("invalid")
        try:
            aware = moment if timezone.is_aware(moment) else timezone.make_aware(moment)
            return aware.astimezone(datetime.UTC)  # overflows in the first and the last year that there are
        except (OverflowError, ValueError):
            self.fail("invalid")


class Question(serializers.Serializer[Any]):
    """The parameters of a query string. An unknown name is refused rather than ignored."""

    several: ClassVar[tuple[str, ...]] = ()  # parameters that may be given more than once

    @classmethod
    def read(cls, request: Request, **context: Any) -> dict[str, Any]:
        """The checked values. Raises ValidationError, which names the parameter."""
        sent = {name: values for name, values in request.query_params.lists() if any(values)}
        known = cls().fields
        unknown = {
            name: [_("There is no parameter `%(name)s`.") % {"name": name}] for name in sent if name not in known
        }
        if unknown:
            raise serializers.ValidationError(unknown)
        data = {name: values if name in cls.several else values[-1] for name, values in sent.items()}
        question = cls(data=data, context=context)
        question.is_valid(raise_exception=True)
        return dict(question.validated_data)


class PageQuestion(Question):
    """Which page of a list to answer with."""

    page_size = serializers.IntegerField(
        required=False,
        min_value=1,
        max_value=NewestFirst.max_page_size,
        error_messages=always(gettext_lazy("`page_size` is a number from 1 to 200.")),
    )
    cursor = serializers.CharField(required=False)
