"""Webhooks: a user's standing address and secret, and the delivery of one message.

The scheme is Standard Webhooks (https://www.standardwebhooks.com): whoever has the secret can tell that a message is
ours. A message is sent at least once, each time with the same id: a worker that dies after sending and before it could
write that down sends it again.
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
from django.utils.translation import gettext, gettext_noop

from transcription import errors
from transcription.models import Delivery, Webhook
from transcription.outbound import addresses, post
from transcription.outbound.addresses import LookUp
from transcription.outbound.post import Undelivered
from transcription.queue import wakeups
from transcription.queue.deliveries import DeliveryClaim, to_iso

log = logging.getLogger(__name__)

AT_ONCE = 8  # messages, of one default worker
MOST_TEXT = 256 * 1024  # bytes; of more only the links are sent

# Why a try failed. What a receiver answered stays with it: it could be anything.
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
    """One of a message's tries. `code` and `error` are empty when it arrived."""

    at: datetime | None
    seconds: float
    status_code: int | None
    code: str
    error: str


def tries(delivery: Delivery) -> list[Try]:
    """A message's tries, the newest last, their sentences in the reader's language."""
    return [_try(tried) for tried in delivery.tries]


def _try(tried: dict[str, Any]) -> Try:
    """A stored try; another version may have stored less of it, or a code that this one does not know."""
    code = tried.get("code", "")
    sentence = gettext(SENTENCES.get(code, UNKNOWN_CODE)) if code else ""
    return Try(
        at=_moment(tried.get("at")),
        seconds=tried.get("seconds", 0),
        status_code=tried.get("status_code"),
        code=code,
        error=errors.filled(sentence, {"code": code, **tried.get("values", {})}),
    )


def _moment(written: Any) -> datetime | None:
    try:
        return parse_datetime(written)
    except (TypeError, ValueError):
        return None


# ---------------------------------------------------------------- the standing one


def make_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def of(owner: AbstractBaseUser | int) -> Webhook:
    """A user's webhook; made when it is first asked for, since a job's own address needs the secret too."""
    key = owner if isinstance(owner, int) else owner.pk
    return Webhook.objects.get_or_create(owner_id=key, defaults={"secret": make_secret()})[0]


def check(url: str, *, name: str) -> None:
    """Raises InvalidParameter for an address that nothing would be sent to; `name` is the field it came in."""
    addresses.check(url, settings.WEBHOOK_ALLOWED_HOSTS, name=name)


def point(owner: AbstractBaseUser, url: str) -> Webhook:
    """Have a user's messages sent to an address that was checked, or to none when it is empty; the secret stays."""
    webhook = of(owner)
    webhook.url = url
    webhook.save(update_fields=["url"])
    return webhook


def renew_secret(owner: AbstractBaseUser) -> Webhook:
    """Make a new secret; from now on nothing is signed with the old one, not even what is tried again."""
    webhook = of(owner)
    webhook.secret = make_secret()
    webhook.save(update_fields=["secret"])
    return webhook


def send_test(owner: AbstractBaseUser) -> Delivery | None:
    """Have a test sent to a user's standing address; None when there is no address."""
    webhook = of(owner)
    if not webhook.url:
        return None
    with transaction.atomic():
        test = Delivery.objects.create(owner_id=owner.pk, url=webhook.url, type=Delivery.Type.TEST)
        transaction.on_commit(wakeups.ring_default, robust=True)
    return test


# ---------------------------------------------------------------- one message


def deliver(claim: DeliveryClaim, *, resolve: LookUp = socket.getaddrinfo) -> None:
    """Try once to deliver a message, and write down what came of it. Raises LeaseLost."""
    delivery = Delivery.objects.select_related("job").filter(pk=claim.delivery).first()
    if delivery is None:
        raise errors.LeaseLost
    began = time.monotonic()
    tried: dict[str, Any] = {"at": to_iso(timezone.now()), "status_code": None, "code": "", "values": {}}
    try:
        tried["status_code"] = _post(delivery, resolve)
        _judge(tried["status_code"])
    except Undelivered as problem:
        tried |= {"code": problem.code, "values": problem.values}
    tried["seconds"] = round(time.monotonic() - began, 3)
    said = tried["code"] or "delivered"
    log.info("%s to %s: %s", delivery.type, urlsplit(delivery.url).hostname, said, extra={"job": delivery.job_id})
    if tried["code"]:
        claim.retry_after(tried)
    else:
        claim.finish(tried)


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


def _judge(status: int) -> None:
    """Raises Undelivered for an answer that does not say that the message was taken."""
    if 300 <= status < 400:
        raise Undelivered("redirect", status=status)
    if not 200 <= status < 300:
        raise Undelivered("status", status=status)


def sign(secret: str, message_id: str, moment: int, body: bytes) -> str:
    """The header webhook-signature; `moment` is in Unix seconds."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join((message_id.encode(), str(moment).encode(), body))
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def message(delivery: Delivery) -> bytes:
    """The body that is sent: what is known of the job, its name and text if it is still there."""
    told = {
        "id": str(delivery.pk),
        "type": delivery.type,
        "created_at": to_iso(delivery.created_at),
        "data": delivery.data | _words(delivery),
    }
    return json.dumps(told, ensure_ascii=False).encode()


def _words(delivery: Delivery) -> dict[str, Any]:
    job = delivery.job
    if job is None:
        return {}
    is_told = delivery.type == Delivery.Type.DONE and len(job.text.encode()) <= MOST_TEXT
    return {"name": job.name, "text": job.text if is_told else None}
