"""Messages to be delivered: claimed, sent, retried, replayed, released."""

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
from transcription.queue import claims, wakeups
from transcription.queue.claims import UNCLAIMED, Claim

# Of a message that is sent anew again and again, so many tries are remembered.
TRIES_KEPT = 50


@dataclass(frozen=True)
class DeliveryClaim(Claim):
    """The right to try to deliver a message; a try that outlasts its lease is made once more."""

    delivery: uuid.UUID

    def finish(self, attempt: dict[str, object]) -> None:
        """Close a message with the try that reached its address. Raises LeaseLost: then it may be sent twice."""
        with transaction.atomic():
            tries = self._held().values_list("tries", flat=True).first() or []
            changes = {"status": Delivery.Status.DELIVERED, "ended_at": clock.now(), **UNCLAIMED}
            claims.must_win(self._held().update(tries=_with(tries, attempt), **changes))

    def retry(self, problem: errors.Problem) -> None:
        """Give a message back after a try that went wrong on our side."""
        detail = str(problem.values.get("detail", problem))
        failed = {"status_code": None, "code": "internal", "values": {"detail": detail}, "seconds": 0}
        self.retry_after({"at": written(timezone.now()), **failed})

    def retry_after(self, attempt: dict[str, object]) -> None:
        """Give a message back after a failed try, to be tried again at its time; after the last one it has failed."""
        with transaction.atomic():
            held = self._held().values_list("attempts", "type", "tries").first()
            if held is None:
                return
            made, kind, tries = held
            # Whoever sends a test looks at what comes of it, and sends another.
            seconds = settings.WEBHOOK_TRIES_SECONDS[: 1 if kind == Delivery.Type.TEST else None]
            again: dict[str, object] = {"status": Delivery.Status.FAILED, "ended_at": clock.now()}
            if made < len(seconds):
                again = {"next_attempt_at": clock.after(seconds[made] - seconds[made - 1])}
            self._held().update(tries=_with(tries, attempt), **UNCLAIMED, **again)

    def release(self) -> None:
        """Give a message back because this worker is stopping; a deploy is not a failed try."""
        self._held().update(attempts=F("attempts") - 1, **UNCLAIMED)

    def _held(self) -> QuerySet[Delivery]:
        return Delivery.objects.filter(pk=self.delivery, claim=self.token, status=Delivery.Status.WAITING)


def deliveries_due(most: int) -> int:
    """To how many addresses a message is to be sent now; no more than `most` are counted."""
    return len(_deliveries().order_by().values_list("url").distinct()[:most])


def _deliveries() -> QuerySet[Delivery]:
    """What is to be sent now, but for an address that is being spoken to: a slow one holds up itself alone."""
    waiting = Delivery.objects.filter(status=Delivery.Status.WAITING)
    due = waiting.filter(claim=None, next_attempt_at__lte=clock.now())
    return due.exclude(url__in=waiting.exclude(claim=None).values("url"))


def claim_delivery(worker: Worker) -> DeliveryClaim | None:
    """Take the message that waits longest, of the owner who has fewest on their way."""
    under_way = Delivery.objects.filter(owner=OuterRef("owner")).exclude(claim=None).order_by().values("owner")
    busy = Subquery(under_way.annotate(count=Count("pk")).values("count"))
    turn = _deliveries().annotate(busy=busy).order_by(F("busy").asc(nulls_first=True), "next_attempt_at", "created_at")
    waiting = Delivery.objects.filter(status=Delivery.Status.WAITING, claim=None, next_attempt_at__lte=clock.now())
    while (delivery := turn.values_list("pk", flat=True).first()) is not None:
        token = uuid.uuid4()
        # The constraint refuses a second message to an address that another worker has just begun to speak to.
        with contextlib.suppress(IntegrityError), transaction.atomic():
            if waiting.filter(pk=delivery).update(**claims.taken(worker, token)):
                return DeliveryClaim(token, delivery)
    return None


def written(moment: datetime) -> str:
    """A moment as messages and the log of their tries have it."""
    return moment.isoformat().replace("+00:00", "Z")


def _with(tries: list[object], attempt: dict[str, object]) -> list[object]:
    return [*tries, attempt][-TRIES_KEPT:]


def replay_delivery(delivery_id: uuid.UUID) -> bool:
    """Have a message sent anew, from now on and under its id; return False while it is being sent."""
    with transaction.atomic():
        fresh = {"attempts": 0, "next_attempt_at": clock.now(), "rung_at": clock.now(), "ended_at": None}
        idle = Delivery.objects.filter(pk=delivery_id, claim=None)
        won = bool(idle.update(status=Delivery.Status.WAITING, **fresh))
        transaction.on_commit(wakeups.ring_default, robust=True)
    return won
