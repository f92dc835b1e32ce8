"""Somebody tries keys: each makes them wait longer, and whoever has a right one is not held up by them."""

import asyncio
import time
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from config.asgi import application
from config.gate import Gate
from tests.api.test_gate import FILE, FORM, Answer, Behind, knock
from transcription.api.client_address import KeyThrottle
from transcription.models import ApiToken
from transcription.proxies import Proxies

pytestmark = pytest.mark.django_db(transaction=True)

HERE, THERE = ("203.0.113.7", 1), ("203.0.113.8", 1)


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeyThrottle, "LONGEST_PAUSE", 0.0)


def knocks(gate: Gate, paths: list[str], **named: Any) -> list[Answer]:
    async def one_after_the_other() -> list[Answer]:
        return [await knock(gate, path, method="GET", **named) for path in paths]

    return asyncio.run(one_after_the_other())


@pytest.fixture
def gate() -> Gate:
    return Gate(application.application)


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize(
    ("path", "refused", "shape"),
    [("/api/v1/jobs/", 401, "detail"), ("/v1/models", 401, "error"), ("/models", 403, "error")],
)
def test_after_so_many_an_address_is_told_to_wait_and_a_right_key_still_works(
    gate: Gate, owner: User, path: str, refused: int, shape: str
) -> None:
    tried = knocks(gate, [path] * (KeyThrottle.TOO_MANY + 2), client=HERE, x_api_key="st_wrong")

    assert [answer.status for answer in tried] == [refused] * KeyThrottle.TOO_MANY + [429] * 2
    assert int(tried[-1].headers["retry-after"]) > 0
    assert shape in tried[-1].json
    [right] = knocks(gate, [path], client=HERE, x_api_key=ApiToken.make(owner))
    assert right.status == 200
    [elsewhere] = knocks(gate, [path], client=THERE, x_api_key="st_wrong")
    assert elsewhere.status == refused


@pytest.mark.usefixtures("_soon")
def test_keys_tried_with_an_upload_or_in_an_address_count_too(settings: Settings) -> None:
    gate = Gate(Behind())

    async def try_them() -> list[int]:
        named = {"client": HERE, "content_type": FORM["content-type"]}
        uploads = [await knock(gate, "/transcribe", [FILE], x_api_key="no", **named) for _ in range(20)]
        return [
            answer.status
            for answer in (*uploads, await knock(gate, "/v1/audio/transcriptions", [FILE], x_api_key="no", **named))
        ]

    assert asyncio.run(try_them()) == [403] * 20 + [429]


def test_a_request_without_a_key_is_no_attempt(gate: Gate) -> None:
    knocks(gate, ["/models"] * 30, client=HERE)
    assert gate.key_throttle.level(HERE[0], time.monotonic()) == 0


@pytest.mark.usefixtures("_soon")
def test_behind_a_proxy_each_client_is_counted_for_itself(gate: Gate, settings: Settings) -> None:
    settings.TRUSTED_PROXIES = Proxies.read(["127.0.0.1"])
    named = {"client": ("127.0.0.1", 1), "x_api_key": "st_wrong"}
    tried = knocks(gate, ["/models"] * 25, x_forwarded_for="198.51.100.1, 203.0.113.7", **named)
    assert tried[-1].status == 429
    [another] = knocks(gate, ["/models"], x_forwarded_for="203.0.113.7, 198.51.100.1", **named)
    assert another.status == 403


def test_the_answer_to_a_wrong_key_waits_and_holds_no_one_else_up(
    gate: Gate, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ApiToken.make(owner)
    monkeypatch.setattr(KeyThrottle, "FIRST_PAUSE", 3600.0)
    monkeypatch.setattr(KeyThrottle, "LONGEST_PAUSE", 3600.0)

    async def both() -> int:
        waiting = [
            asyncio.create_task(knock(gate, "/models", method="GET", client=HERE, x_api_key="st_wrong"))
            for _ in range(10)
        ]
        async with asyncio.timeout(30):
            while gate.key_throttle.level(HERE[0], time.monotonic()) < 9:
                await asyncio.sleep(0.01)
        right = await knock(gate, "/models", method="GET", client=HERE, x_api_key=key)
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return right.status

    assert asyncio.run(both()) == 200


# ------------------------------------------------------------------ the counting


def test_each_wrong_key_waits_longer_and_never_for_long() -> None:
    counted = KeyThrottle()
    pauses = []
    for _ in range(12):
        assert counted.another("203.0.113.7", now=0.0) == 0
        pauses.append(counted.pause("203.0.113.7", now=0.0))

    assert pauses == sorted(pauses)
    assert pauses[0] == KeyThrottle.FIRST_PAUSE
    assert pauses[-1] == KeyThrottle.LONGEST_PAUSE


def test_what_was_tried_is_forgotten_with_time() -> None:
    counted = KeyThrottle()
    for _ in range(1000):
        wait = counted.another("203.0.113.7", now=0.0)

    assert wait <= KeyThrottle.FULL * KeyThrottle.LEAKS_EVERY
    assert counted.another("203.0.113.7", now=wait + KeyThrottle.LEAKS_EVERY) == 0
    assert counted.level("203.0.113.7", now=wait + 10_000) == 0


def test_the_addresses_of_one_household_are_one() -> None:
    counted = KeyThrottle()
    for last in range(5):
        counted.another(f"2001:db8:1:2::{last}", now=0.0)
    counted.another("::ffff:203.0.113.7", now=0.0)

    assert counted.level("2001:db8:1:2:ffff::1", now=0.0) == 5
    assert counted.level("2001:db8:1:3::1", now=0.0) == 0
    assert counted.level("203.0.113.7", now=0.0) == 1


def test_only_so_many_addresses_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeyThrottle, "ADDRESSES", 3)
    counted = KeyThrottle()
    for last in range(9):
        counted.another(f"203.0.113.{last}", now=0.0)

    assert len(counted.shown) == 3
