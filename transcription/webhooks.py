"""Webhooks: a user's standing address and secret, and the delivery of one message.

The scheme is Standard Webhooks (https://www.standardwebhooks.com): with the secret a receiver can check that a message
is ours. A message is sent at least once, each time with the same id: if a worker dies after sending a message and
before storing that, the message is sent again.
"""

import base64
import hashlib
import hmac
import json
import logging
import secrets
import socket
import time
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext_noop

from transcription import errors, sentences
from transcription.models import Delivery, Webhook
from transcription.outbound import addresses, post
from transcription.outbound.addresses import LookUp
from transcription.outbound.post import Undelivered
from transcription.queue import wakeups
from transcription.queue.deliveries import DeliveryClaim, to_iso

log = logging.getLogger(__name__)

AT_ONCE = 8  # messages that one default worker sends
MOST_TEXT = 256 * 1024  # bytes; of a longer text only the links are sent

# Why a try failed. The body of a receiver's answer is not stored: it could be anything.
SENTENCES = MappingProxyType(
    {
        "not_allowed": gettext_noop(
            "This address is not on the public internet. Ask the administrator to name it in WEBHOOK_ALLOWED_HOSTS."
        ),
        "unresolved": gettext_noop("Nobody knows this name. Check the address."),
        "unreachable": gettext_noop("No connection: %(detail)s. Check that the receiver runs."),
        "not_secure": gettext_noop("The receiver's certificate is not accepted: %(detail)s."),
        "timeout": gettext_noop(
            "No answer within %(seconds)s seconds. A receiver should answer first and work afterwards."
        ),
        "not_http": gettext_noop("What answered does not speak HTTP. Check the port."),
        "redirect": gettext_noop(
            "The answer was a redirect (%(status)s), and none is followed. Give its goal instead."
        ),
        "status": gettext_noop("The answer was %(status)s. Any from 200 to 299 counts as delivered."),
        "internal": gettext_noop("Something went wrong on our side: %(detail)s."),
    }
)


UNKNOWN_CODE = gettext_noop("It failed with `%(code)s`, which this version has no words for.")


@dataclass(frozen=True)
class Try:
    """One try to deliver a message. `code` and `error` are empty if it arrived."""

    at: datetime | None
    seconds: float
    status_code: int | None
    code: str
    error: str


def tries(delivery: Delivery) -> list[Try]:
    """A message's tries, the newest last, with their sentences in the reader's language."""
    return [_read_try(stored) for stored in delivery.tries]


def _read_try(stored: dict[str, Any]) -> Try:
    """A stored try; another version may have stored fewer fields, or a code that this one does not know."""
    code = stored.get("code", "")
    values = {"code": code, **stored.get("values", {})}
    try:
        at = parse_datetime(stored["at"])
    except (KeyError, TypeError, ValueError):
        at = None
    return Try(
        at=at,
        seconds=stored.get("seconds", 0),
        status_code=stored.get("status_code"),
        code=code,
        error=sentences.translate(SENTENCES.get(code, UNKNOWN_CODE), values) if code else "",
    )


# ---------------------------------------------------------------- a user's webhook


def make_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def of(owner: AbstractBaseUser | int) -> Webhook:
    """A user's webhook, made at the first call: messages to a job's own address need its secret too."""
    key = owner if isinstance(owner, int) else owner.pk
    return Webhook.objects.get_or_create(owner_id=key, defaults={"secret": make_secret()})[0]


def check(url: str, *, name: str) -> None:
    """Raises InvalidParameter if nothing would be sent to an address; `name` is the field that it was sent in."""
    addresses.check(url, settings.WEBHOOK_ALLOWED_HOSTS, name=name)


def point(owner: AbstractBaseUser, url: str) -> Webhook:
    """Send a user's messages to an address that was checked, or to none if it is empty. The secret stays."""
    webhook = of(owner)
    webhook.url = url
    webhook.save(update_fields=["url"])
    return webhook


def renew_secret(owner: AbstractBaseUser) -> Webhook:
    """Make a new secret, with which everything is signed from now on, also messages that are tried again."""
    webhook = of(owner)
    webhook.secret = make_secret()
    webhook.save(update_fields=["secret"])
    return webhook


def send_test(owner: AbstractBaseUser) -> Delivery | None:
    """Have a test message sent to a user's standing address; None if there is no address."""
    webhook = of(owner)
    if not webhook.url:
        return None
    with transaction.atomic():
        test = Delivery.objects.create(owner_id=owner.pk, url=webhook.url, type=Delivery.Type.TEST)
        transaction.on_commit(wakeups.ring_default, robust=True)
    return test


# ---------------------------------------------------------------- one message


def deliver(claim: DeliveryClaim, *, resolve: LookUp = socket.getaddrinfo) -> None:
    """Try once to deliver a message, and store the result. Raises LeaseLost."""
    delivery = Delivery.objects.select_related("job").filter(pk=claim.delivery).first()
    if delivery is None:
        raise errors.LeaseLost
    began = time.monotonic()
    attempt: dict[str, Any] = {"at": to_iso(timezone.now()), "status_code": None, "code": "", "values": {}}
    try:
        attempt["status_code"] = _post(delivery, resolve)
        _check_status(attempt["status_code"])
    except Undelivered as problem:
        attempt |= {"code": problem.code, "values": problem.values}
    attempt["seconds"] = round(time.monotonic() - began, 3)
    result = attempt["code"] or "delivered"
    log.info("%s to %s: %s", delivery.type, urlsplit(delivery.url).hostname, result, extra={"job": delivery.job_id})
    if attempt["code"]:
        claim.retry_after(attempt)
    else:
        claim.finish(attempt)


def _post(delivery: Delivery, resolve: LookUp) -> int:
    body = message(delivery)
    moment = int(time.time())
    headers = {
        "content-type": "application/json",
        "user-agent": "Stenograf",
        "webhook-id": str(delivery.pk),
        "webhook-timestamp": str(moment),
        "webhook-signature": sign(of(delivery.owner_id).secret, str(delivery.pk), moment, body),
    }
    return post.post(
        delivery.url,
        body,
        headers,
        allowed=settings.WEBHOOK_ALLOWED_HOSTS,
        seconds=settings.WEBHOOK_TIMEOUT_SECONDS,
        resolve=resolve,
    )


def _check_status(status: int) -> None:
    """Raises Undelivered for a status that does not mean that the message was accepted."""
    if 300 <= status < 400:
        raise Undelivered("redirect", status=status)
    if not 200 <= status < 300:
        raise Undelivered("status", status=status)


def sign(secret: str, message_id: str, moment: int, body: bytes) -> str:
    """The value of the header webhook-signature; `moment` is in Unix seconds."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = b".".join((message_id.encode(), str(moment).encode(), body))
    return f"v1,{base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()}"


def message(delivery: Delivery) -> bytes:
    """The body that is sent: the job as it ended, with its name and text if it has not been deleted."""
    names: dict[str, Any] = {}
    if (job := delivery.job) is not None:
        has_text = delivery.type == Delivery.Type.DONE and len(job.text.encode()) <= MOST_TEXT
        names = {"name": job.name, "text": job.text if has_text else None}
    content = {
        "id": str(delivery.pk),
        "type": delivery.type,
        "created_at": to_iso(delivery.created_at),
        "data": delivery.data | names,
    }
    return json.dumps(content, ensure_ascii=False).encode()
