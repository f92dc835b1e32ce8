"""A user's webhook over the native API, and the messages that were sent to it."""

from typing import Any, cast
from uuid import UUID

from django.contrib.auth.models import AbstractBaseUser
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from transcription import webhooks
from transcription.api.authentication import Caller, Scope
from transcription.api.serializers import WebAddressField
from transcription.api.v1.base import Conflict, NativeViewSet, NewestFirst, PageQuestion
from transcription.models import Delivery, Webhook
from transcription.queue import deliveries


class WebhookRequest(serializers.Serializer[Webhook]):
    """The address that a user's messages go to."""

    url = WebAddressField()


class WebhookViewSet(NativeViewSet[Webhook]):
    """The caller's webhook. Everybody has one; it may have no address."""

    def retrieve(self, request: Request) -> Response:
        return Response(_to_dict(request, webhooks.of(_person(request))))

    def update(self, request: Request) -> Response:
        """Set the address; the secret stays."""
        form = WebhookRequest(data=request.data)
        form.is_valid(raise_exception=True)
        return Response(_to_dict(request, webhooks.point(_person(request), form.validated_data["url"])))

    def destroy(self, request: Request) -> Response:
        """Remove the address; the secret stays, for jobs that name an address of their own."""
        webhooks.point(_person(request), "")
        return Response(status=status.HTTP_204_NO_CONTENT)

    def secret(self, request: Request) -> Response:
        """Make a new secret; messages are no longer signed with the old one."""
        return Response(_to_dict(request, webhooks.renew_secret(_person(request))))

    def test(self, request: Request) -> Response:
        """Send a test message; its delivery shows the outcome."""
        test = webhooks.send_test(_person(request))
        if test is None:
            raise Conflict(_("There is no address to send a test to. Set one first."))
        return Response(DeliveryFacts(test).data, status=status.HTTP_202_ACCEPTED)


class DeliveryFacts(serializers.ModelSerializer[Delivery]):
    tries = serializers.SerializerMethodField()
    next_attempt_at = serializers.SerializerMethodField()

    class Meta:
        model = Delivery
        fields = ("id", "type", "job", "url", "status", "tries", "next_attempt_at", "created_at", "ended_at")

    def get_tries(self, delivery: Delivery) -> list[dict[str, Any]]:
        return [
            {
                "at": tried.at,
                "seconds": tried.seconds,
                "status_code": tried.status_code,
                "error": {"code": tried.code, "message": tried.error} if tried.code else None,
            }
            for tried in webhooks.tries(delivery)
        ]

    def get_next_attempt_at(self, delivery: Delivery) -> Any:
        """Null when there will be none."""
        return delivery.next_attempt_at if delivery.status == Delivery.Status.WAITING else None


class DeliveryViewSet(NativeViewSet[Delivery]):
    """A user's messages, sent and waiting."""

    missing = gettext_lazy("There is no such delivery.")
    pagination_class = NewestFirst
    serializer_class = DeliveryFacts

    def get_queryset(self) -> QuerySet[Delivery]:
        return Delivery.objects.for_user(self.request.user)

    def list(self, request: Request) -> Response:
        PageQuestion.read(request)
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    def retrieve(self, request: Request, pk: UUID) -> Response:
        return Response(self.get_serializer(self.get_object()).data)

    def replay(self, request: Request, pk: UUID) -> Response:
        """Send a message again, now and with the same id, whatever its outcome was."""
        delivery = self.get_object()
        if not deliveries.replay_delivery(delivery.pk):
            raise Conflict(_("The message is being sent now. See what comes of it first."))
        delivery.refresh_from_db()
        return Response(self.get_serializer(delivery).data, status=status.HTTP_202_ACCEPTED)


def _to_dict(request: Request, webhook: Webhook) -> dict[str, Any]:
    """A webhook as JSON. A key that may only read gets no secret: with it one could sign messages in our name."""
    may_sign = not isinstance(request.auth, Caller) or request.auth.may(Scope.WRITE)
    return {"url": webhook.url or None, "secret": webhook.secret if may_sign else None}


def _person(request: Request) -> AbstractBaseUser:
    return cast(AbstractBaseUser, request.user)
