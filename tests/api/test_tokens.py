"""A client shows a key."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from transcription.api.authentication import key_in, user_of
from transcription.models import ApiToken


@pytest.mark.parametrize("header", ["Authorization: Token {}", "Authorization: bearer {}", "X-API-Key: {}"])
def test_a_key_opens_the_api_in_each_of_its_headers(owner: User, header: str) -> None:
    name, _colon, value = header.format(ApiToken.make(owner)).partition(": ")

    assert Client(headers={name: value}).get("/api/v1/jobs/").status_code == 200


def test_without_a_key_the_api_says_which_it_wants(db: None) -> None:
    answer = Client().get("/api/v1/jobs/")

    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Token")
    assert answer.json()["detail"]


def test_a_wrong_key_is_refused(db: None) -> None:
    assert Client(headers={"X-API-Key": "st_wrong"}).get("/api/v1/jobs/").status_code == 401


def test_a_wrong_key_is_refused_even_beside_a_session(owner: User) -> None:
    client = Client(headers={"X-API-Key": "st_wrong"})
    client.force_login(owner)

    assert client.get("/api/v1/jobs/").status_code == 401


def test_a_key_that_stopped_working_is_refused(owner: User) -> None:
    key = ApiToken.make(owner)
    ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    assert user_of(key) is None


def test_a_key_that_will_stop_working_works_until_then(owner: User) -> None:
    key = ApiToken.make(owner)
    ApiToken.objects.update(expires_at=timezone.now() + timedelta(hours=1))

    assert user_of(key) == owner


def test_the_key_of_a_user_who_was_switched_off_is_refused(owner: User) -> None:
    key = ApiToken.make(owner)
    User.objects.update(is_active=False)

    assert user_of(key) is None


def test_the_use_of_a_key_is_noted_at_most_every_five_minutes(owner: User) -> None:
    key = ApiToken.make(owner)
    user_of(key)
    first = ApiToken.objects.get().last_used_at
    user_of(key)
    assert ApiToken.objects.get().last_used_at == first

    ApiToken.objects.update(last_used_at=timezone.now() - timedelta(minutes=6))
    user_of(key)
    assert ApiToken.objects.filter(last_used_at__gt=timezone.now() - timedelta(minutes=1)).exists()


def test_a_proxys_password_is_not_taken_for_a_key() -> None:
    assert key_in({"Authorization": "Basic YTpi"}) is None
    assert key_in({"Authorization": "Basic YTpi", "X-API-Key": "st_key"}) == "st_key"
