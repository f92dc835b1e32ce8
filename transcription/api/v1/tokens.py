"""A user's keys over the native API, for whoever is signed in or has a key that may do everything."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import serializers, status
from rest_framework.parsers import JSONParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from transcription import keys
from transcription.api.authentication import HasFullAccess
from transcription.api.serializers import always
from transcription.api.v1.base import Conflict, NativeViewSet
from transcription.models import ApiToken


class TokenSerializer(serializers.ModelSerializer[ApiToken]):
    class Meta:
        model = ApiToken
        fields = ("id", "name", "prefix", "scope", "is_from_file", "created_at", "last_used_at", "expires_at")


class NewToken(serializers.Serializer[Any]):
    """A new key's name, scope and expiry."""

    name = serializers.CharField(max_length=100, required=False, allow_blank=True, default="")
    scope = serializers.ChoiceField(
        ApiToken.Scope.values,
        default=ApiToken.Scope.WRITE,
        error_messages=always(gettext_lazy("`scope` is read, write or admin.")),
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)
    expires_in_days = serializers.IntegerField(
        required=False,
        allow_null=True,
        default=None,
        min_value=1,
        max_value=keys.LONGEST_DAYS,
        error_messages=always(gettext_lazy("`expires_in_days` is a whole number from 1 to 36500.")),
    )

    def validate_expires_at(self, value: datetime | None) -> datetime | None:
        if value is not None and value <= timezone.now():
            raise serializers.ValidationError(_("This time is over. Choose a later one, or none."))
        return value

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        # If a misspelt `scope` were ignored, the key could do more than intended.
        if isinstance(data, Mapping) and (unknown := [name for name in data if name not in self.fields]):
            raise serializers.ValidationError({unknown[0]: [_("There is no such field.")]})
        values: dict[str, Any] = super().to_internal_value(data)
        return values

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["expires_in_days"] is not None:
            if attrs["expires_at"] is not None:
                raise serializers.ValidationError(
                    {"expires_in_days": [_("Send either `expires_at` or `expires_in_days`.")]}
                )
            attrs["expires_at"] = timezone.now() + timedelta(days=attrs["expires_in_days"])
        return attrs


class TokenViewSet(NativeViewSet[ApiToken]):
    """A user's keys. A key itself is shown once, when it is made."""

    permission_classes = (HasFullAccess,)
    parser_classes = (JSONParser, MultiPartParser)
    missing = gettext_lazy("There is no such key.")

    def get_queryset(self) -> QuerySet[ApiToken]:
        return keys.of_user(self.request.user)

    def list(self, request: Request) -> Response:
        return Response({"results": TokenSerializer(self.get_queryset(), many=True).data})

    def create(self, request: Request) -> Response:
        form = NewToken(data=request.data)
        form.is_valid(raise_exception=True)
        fields = form.validated_data
        key = ApiToken.make(request.user, fields["name"], scope=fields["scope"], expires_at=fields["expires_at"])
        token = self.get_queryset().get(digest=ApiToken.digest_of(key))
        headers = {"Cache-Control": "no-store"}
        body = {**TokenSerializer(token).data, "key": key}
        return Response(body, status=status.HTTP_201_CREATED, headers=headers)

    def destroy(self, request: Request, pk: int) -> Response:
        """Revoke a key: it stops working at once."""
        try:
            keys.revoke(self.get_object())
        except keys.StandsInFile as error:
            raise Conflict(str(error)) from error
        return Response(status=status.HTTP_204_NO_CONTENT)
