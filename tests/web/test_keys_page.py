"""A person's page of keys."""

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from transcription.models import ApiToken


def text_of(answer: Any) -> str:
    return unescape(answer.content.decode())


def test_a_key_is_made_and_shown_once(page: Client, alice: User) -> None:
    answer = page.post("/keys/", {"name": "Bot", "scope": "read", "days": "30"})

    [key] = re.findall(r'<code id="key">(.+?)</code>', text_of(answer))
    assert Client(headers={"X-API-Key": key}).get("/api/v1/jobs/").status_code == 200
    token = ApiToken.objects.get()
    assert token.user == alice
    assert (token.name, token.scope) == ("Bot", "read")
    assert token.expires_at is not None
    assert answer["Cache-Control"] == "no-store"
    assert 'data-copy="#key"' in text_of(answer)
    listed = text_of(page.get("/keys/"))
    assert "Bot" in listed
    assert token.prefix in listed
    assert key not in listed
    assert "copy.js" not in listed


@pytest.mark.parametrize("sent", [{"name": ""}, {"name": " "}, {"scope": "all"}, {"days": "1"}, {"name": "x" * 101}])
def test_what_is_missing_is_said_and_no_key_is_made(page: Client, sent: dict[str, str]) -> None:
    answer = page.post("/keys/", {"name": "Bot", "scope": "read", "days": "0", **sent})

    assert answer.status_code == 400
    assert 'class="error"' in text_of(answer)
    assert not ApiToken.objects.exists()


def test_a_key_is_revoked_after_a_question(page: Client, alice: User) -> None:
    ApiToken.make(alice, "Bot")
    address = reverse("revoke-key", args=(ApiToken.objects.get().pk,))
    assert address in text_of(page.get("/keys/"))

    assert "Revoke “Bot”?" in text_of(page.get(address))
    assert ApiToken.objects.exists()
    answer = page.post(address, follow=True)

    assert not ApiToken.objects.exists()
    assert "Bot is revoked." in text_of(answer)


def test_a_key_of_the_file_says_where_it_stands(page: Client, alice: User) -> None:
    ApiToken.make(alice, "keys.txt")
    ApiToken.objects.update(is_from_file=True)
    address = reverse("revoke-key", args=(ApiToken.objects.get().pk,))

    assert address not in text_of(page.get("/keys/"))
    assert "Remove its line there" in text_of(page.get(address))
    assert "Remove its line there" in text_of(page.post(address, follow=True))
    assert ApiToken.objects.exists()


def test_another_persons_keys_are_not_there(page: Client, bob: User) -> None:
    ApiToken.make(bob, "Bobs")
    address = reverse("revoke-key", args=(ApiToken.objects.get().pk,))

    assert "Bobs" not in text_of(page.get("/keys/"))
    assert page.get(address).status_code == 404
    assert page.post(address).status_code == 404
    assert ApiToken.objects.exists()


def test_whoever_is_not_signed_in_is_asked_to(client: Client, alice: User) -> None:
    ApiToken.make(alice)
    assert client.get("/keys/").status_code == 302
    assert client.post("/keys/", {"name": "Bot", "scope": "admin", "days": "0"}).status_code == 302
    assert ApiToken.objects.count() == 1
    key = ApiToken.make(alice)
    assert client.get("/keys/", headers={"X-API-Key": key}).status_code == 302


def test_keys_are_made_with_the_word_of_the_page_alone(alice: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    assert client.post("/keys/", {"name": "Bot", "scope": "admin", "days": "0"}).status_code == 403
    assert not ApiToken.objects.exists()


def test_a_key_that_has_ended_says_so(page: Client, alice: User) -> None:
    ApiToken.make(alice, "Old", expires_at=timezone.now() - timedelta(days=1))
    assert "stopped" in text_of(page.get("/keys/"))


def test_a_name_is_shown_as_it_is_written(page: Client, alice: User) -> None:
    ApiToken.make(alice, "<script>alert(1)</script>")
    assert "<script>alert" not in page.get("/keys/").content.decode()


def test_a_key_without_a_name_is_known_by_its_beginning(page: Client, alice: User) -> None:
    ApiToken.make(alice)
    token = ApiToken.objects.get()
    address = reverse("revoke-key", args=(token.pk,))

    assert f"{token.prefix}…" in text_of(page.get("/keys/"))
    assert f"Revoke “{token.prefix}…”?" in text_of(page.get(address))
    assert f"{token.prefix}… is revoked." in text_of(page.post(address, follow=True))


def test_the_account_menu_leads_there(page: Client) -> None:
    assert 'href="/keys/"' in text_of(page.get("/"))
