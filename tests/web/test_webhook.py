"""The page where a person says where messages go, and sees what became of them."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from tests.web.conftest import MakeJob
from transcription import webhooks
from transcription.models import Delivery
from transcription.outbound.addresses import Allowed

URL = "http://127.0.0.1:9/hook"
MOMENT = "2026-11-21T10:00:00Z"
REFUSED = {"at": MOMENT, "seconds": 0.2, "status_code": 500, "code": "status", "values": {"status": 500}}
TAKEN = {"at": MOMENT, "seconds": 0.14, "status_code": 204, "code": "", "values": {}}


@pytest.fixture(autouse=True)
def _loopback_is_allowed(settings: Settings) -> None:
    settings.WEBHOOK_ALLOWED_HOSTS = (Allowed.read("127.0.0.1"),)


def delivery(owner: User, *tries: dict[str, Any], **values: Any) -> Delivery:
    return Delivery.objects.create(owner=owner, tries=tries, **{"url": URL, "type": "job.done", **values})


def shown(page: Client) -> str:
    return page.get("/webhook/").content.decode()


def test_the_page_is_a_signed_in_persons(client: Client, db: None) -> None:
    assert client.get("/webhook/").headers["Location"].startswith("/login/")
    assert client.get("/webhook/log/").status_code == 401


def test_it_shows_the_secret_to_its_owner_and_is_kept_nowhere(page: Client, alice: User, bob: User) -> None:
    answer = page.get("/webhook/")
    assert webhooks.of(alice).secret in answer.content.decode()
    assert webhooks.of(bob).secret not in answer.content.decode()
    assert answer["Cache-Control"] == "no-store"
    assert "None has been sent yet." in answer.content.decode()
    assert "Send a test" not in answer.content.decode()


def test_an_address_is_saved_and_taken_away(page: Client, alice: User) -> None:
    answer = page.post("/webhook/", {"url": URL}, follow=True).content.decode()
    assert "The address is saved." in answer
    assert f'value="{URL}"' in answer
    assert "Send a test" in answer
    answer = page.post("/webhook/", {"url": ""}, follow=True).content.decode()
    assert "No more messages are sent" in answer
    assert webhooks.of(alice).url == ""


def test_a_private_address_is_refused_at_its_field(page: Client, alice: User) -> None:
    answer = page.post("/webhook/", {"url": "http://192.168.1.1/"})
    assert answer.status_code == 400
    assert "The address leads to 192.168.1.1, which is not on the public internet." in answer.content.decode()
    assert webhooks.of(alice).url == ""


def test_a_secret_is_renewed(page: Client, alice: User) -> None:
    before = webhooks.of(alice).secret
    answer = page.post("/webhook/secret/", follow=True).content.decode()
    assert before not in answer
    assert webhooks.of(alice).secret in answer


def test_a_test_is_sent(page: Client, alice: User) -> None:
    assert "Set one first." in page.post("/webhook/test/", follow=True).content.decode()
    webhooks.point(alice, URL)
    assert "Being sent" in page.post("/webhook/test/", follow=True).content.decode()
    assert Delivery.objects.get().type == "webhook.test"


def test_the_log_tells_what_became_of_each_message(page: Client, alice: User, bob: User, make_job: MakeJob) -> None:
    delivery(alice, TAKEN, job=make_job(), status="delivered")
    delivery(alice, REFUSED, REFUSED, status="failed")
    delivery(alice, REFUSED, type="job.failed")
    delivery(bob, url="https://bob.example.org/")
    text = shown(page)
    assert "talk_<wbr>one.mp3" in text
    assert "Delivered: 204 in 0.1 s" in text
    assert "The answer was 500. Any from 200 to 299 counts as delivered. It is not tried again by itself." in text
    assert "1 try before" in text
    assert "Next try at" in text
    assert "bob.example.org" not in text


def test_the_log_asks_for_news_while_something_moves(page: Client, alice: User) -> None:
    done = delivery(alice, TAKEN, status="delivered")
    assert "hx-get" not in shown(page).partition('id="deliveries"')[2]
    assert page.post(f"/webhook/{done.pk}/replay/", follow=True).status_code == 200
    text = shown(page)
    news = text.partition('hx-get="')[2].partition('"')[0]
    assert news.startswith("/webhook/log/?seen=")
    assert page.get(news).status_code == 204
    Delivery.objects.update(status="delivered")
    assert "hx-get" not in page.get(news).content.decode()


def test_anothers_message_is_not_there(page: Client, bob: User) -> None:
    others = delivery(bob, status="failed")
    assert page.post(f"/webhook/{others.pk}/replay/").status_code == 404
    assert Delivery.objects.get().status == "failed"
