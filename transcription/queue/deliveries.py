"""Messages to be delivered: claim, finish, retry, release, replay."""

import contextlib
import uuid
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Count, F, OuterRef, QuerySet, Subquery
from django.utils import timezone

from transcription import clock, errors
from transcription.models import Delivery, Worker
from transcription.queue import leases, wakeups
from transcription.queue.leases import UNCLAIMED, Claim

# The newest tries of a message that are kept: it may be replayed any number of times.
TRIES_KEPT = 50


@dataclass(frozen=True)
class DeliveryClaim(Claim):
    """The right to try to deliver a message. After a try that outlasts its lease another worker tries once more."""

    delivery: uuid.UUID

    def finish(self, attempt: dict[str, object]) -> None:
        """Mark a message as delivered by this try. Raises LeaseLost: then it may be sent twice."""
        with transaction.atomic():
            tries = self._held().values_list("tries", flat=True).first() or []
            tries = [*tries, attempt][-TRIES_KEPT:]
            changes = {"status": Delivery.Status.DELIVERED, "ended_at": clock.now(), **UNCLAIMED}
            leases.must_win(self._held().update(tries=tries, **changes))

    def retry(self, problem: errors.Problem) -> None:
        """Give a message back after a try that failed on our side."""
        detail = str(problem.values.get("detail", problem))
        attempt = {"at": to_iso(timezone.now()), "status_code": None, "code": "internal", "values": {"detail": detail}}
        self.retry_after({**attempt, "seconds": 0})

    def retry_after(self, attempt: dict[str, object]) -> None:
        """Give a message back after a failed try; WEBHOOK_TRIES_SECONDS says when the next is due, if there is one."""
        with transaction.atomic():
            held = self._held().values_list("attempts", "type", "tries").first()
            if held is None:
                return
            attempts, message_type, tries = held
            # A test is tried once: its sender looks at the result and can send another.
            seconds = settings.WEBHOOK_TRIES_SECONDS[: 1 if message_type == Delivery.Type.TEST else None]
            changes: dict[str, object] = {"status": Delivery.Status.FAILED, "ended_at": clock.now()}
            if attempts < len(seconds):
                changes = {"next_attempt_at": clock.after(seconds[attempts] - seconds[attempts - 1])}
            self._held().update(tries=[*tries, attempt][-TRIES_KEPT:], **UNCLAIMED, **changes)

    def release(self) -> None:
        """Give a message back because this worker is stopping; this does not count as a try."""
        self._held().update(attempts=F("attempts") - 1, **UNCLAIMED)

    def _held(self) -> QuerySet[Delivery]:
        return Delivery.objects.filter(pk=self.delivery, claim=self.token, status=Delivery.Status.WAITING)


def deliveries_due(most: int) -> int:
    """The number of addresses that a message is due to, at most `most`."""
    return len(_due().order_by().values_list("url").distinct()[:most])


def _due() -> QuerySet[Delivery]:
    """The messages to be sent now. An address gets one at a time: a slow receiver delays its own messages alone."""
    waiting = Delivery.objects.filter(status=Delivery.Status.WAITING)
    due = waiting.filter(claim=None, next_attempt_at__lte=clock.now())
    return due.exclude(url__in=waiting.exclude(claim=None).values("url"))


def claim_delivery(worker: Worker) -> DeliveryClaim | None:
    """Claim the message that has waited longest, of the owner who has the fewest under way."""
    under_way = Delivery.objects.filter(owner=OuterRef("owner")).exclude(claim=None).order_by().values("owner")
    busy = Subquery(under_way.annotate(count=Count("pk")).values("count"))
    turn = _due().annotate(busy=busy).order_by(F("busy").asc(nulls_first=True), "next_attempt_at", "created_at")
    waiting = Delivery.objects.filter(status=Delivery.Status.WAITING, claim=None, next_attempt_at__lte=clock.now())
    while (delivery := turn.values_list("pk", flat=True).first()) is not None:
        token = uuid.uuid4()
        # A constraint refuses a second message to an address that another worker has just claimed one for.
        with contextlib.suppress(IntegrityError), transaction.atomic():
            if waiting.filter(pk=delivery).update(**leases.columns(worker, token)):
                return DeliveryClaim(token, delivery)
    return None


def to_iso(moment: datetime) -> str:
    """A moment in UTC as messages and the log of their tries write it."""
    return moment.isoformat().replace("+00:00", "Z")


def replay_delivery(delivery_id: uuid.UUID) -> bool:
    """Have a message sent again under its id, beginning now; return False while it is being sent."""
    with transaction.atomic():
        changes = {"attempts": 0, "next_attempt_at": clock.now(), "rung_at": clock.now(), "ended_at": None}
        unclaimed = Delivery.objects.filter(pk=delivery_id, claim=None)
        won = bool(unclaimed.update(status=Delivery.Status.WAITING, **changes))
        transaction.on_commit(wakeups.ring_default, robust=True)
    return won
