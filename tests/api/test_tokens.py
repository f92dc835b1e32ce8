"""A client shows a key."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from transcription.api.authentication import key_in
from transcription.models import ApiToken


def status_with(key: str) -> int:
    return Client(headers={"X-API-Key": key}).get("/api/v1/jobs/").status_code


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

    assert status_with(key) == 401


def test_a_key_that_will_stop_working_works_until_then(owner: User) -> None:
    key = ApiToken.make(owner)
    ApiToken.objects.update(expires_at=timezone.now() + timedelta(hours=1))

    assert status_with(key) == 200


def test_the_key_of_a_user_who_was_switched_off_is_refused(owner: User) -> None:
    key = ApiToken.make(owner)
    User.objects.update(is_active=False)

    assert status_with(key) == 401


def test_the_use_of_a_key_is_noted_at_most_every_five_minutes(owner: User) -> None:
    key = ApiToken.make(owner)
    status_with(key)
    first = ApiToken.objects.get().last_used_at
    status_with(key)
    assert ApiToken.objects.get().last_used_at == first

    ApiToken.objects.update(last_used_at=timezone.now() - timedelta(minutes=6))
    status_with(key)
    assert ApiToken.objects.filter(last_used_at__gt=timezone.now() - timedelta(minutes=1)).exists()


def test_a_proxys_password_is_not_taken_for_a_key() -> None:
    assert key_in({"Authorization": "Basic YTpi"}) is None
    assert key_in({"Authorization": "Basic YTpi", "X-API-Key": "st_key"}) == "st_key"


# ------------------------------------------------------------------ GET, POST, DELETE /api/v1/tokens/


def make(client: Client, **wishes: object) -> Any:
    return client.post("/api/v1/tokens/", wishes, content_type="application/json")


def test_a_key_is_told_once_and_opens_the_api(api: Client, owner: User) -> None:
    answer = make(api, name="bot", scope="read")

    assert answer.status_code == 201
    told = answer.json()
    assert (told["name"], told["scope"], told["expires_at"]) == ("bot", "read", None)
    assert told["key"].startswith(told["prefix"])
    assert answer["Cache-Control"] == "no-store"
    assert status_with(told["key"]) == 200
    assert ApiToken.objects.get(name="bot").user == owner
    listed = api.get("/api/v1/tokens/")
    assert [token["name"] for token in listed.json()["results"]] == ["bot", ""]
    assert told["key"] not in listed.content.decode()
    assert "digest" not in listed.content.decode()


def test_a_key_that_is_revoked_stops_working_at_once(api: Client) -> None:
    told = make(api, name="bot").json()
    client = Client(headers={"X-API-Key": told["key"]})
    assert client.get("/api/v1/jobs/").status_code == 200

    assert api.delete(f"/api/v1/tokens/{told['id']}/").status_code == 204

    assert client.get("/api/v1/jobs/").status_code == 401


def test_nobody_says_what_for_and_it_reads_and_writes(api: Client) -> None:
    assert make(api).json()["scope"] == "write"


def test_a_key_may_end_by_itself(api: Client) -> None:
    in_days = make(api, expires_in_days=7).json()["expires_at"]
    assert 6 <= (datetime.fromisoformat(in_days) - timezone.now()).days <= 7
    moment = (timezone.now() + timedelta(hours=1)).isoformat()
    assert datetime.fromisoformat(make(api, expires_at=moment).json()["expires_at"]) == datetime.fromisoformat(moment)


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"scope": "all"}, "scope"),
        ({"scop": "read"}, "scop"),
        ({"name": "x" * 101}, "name"),
        ({"expires_in_days": 0}, "expires_in_days"),
        ({"expires_in_days": 36501}, "expires_in_days"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"expires_at": "2099-01-01T00:00:00Z", "expires_in_days": 1}, "expires_in_days"),
    ],
)
def test_what_cannot_be_is_refused_by_name(api: Client, wishes: dict[str, object], field: str) -> None:
    answer = make(api, **wishes)

    assert answer.status_code == 400
    assert list(answer.json()) == [field]
    assert ApiToken.objects.count() == 1


def test_anothers_keys_are_not_there(api: Client, stranger: User) -> None:
    ApiToken.make(stranger)
    theirs = ApiToken.objects.get(user=stranger)

    assert api.delete(f"/api/v1/tokens/{theirs.pk}/").status_code == 404
    assert theirs.pk not in [token["id"] for token in api.get("/api/v1/tokens/").json()["results"]]


@pytest.mark.parametrize("scope", ["read", "write"])
def test_a_smaller_key_neither_sees_nor_makes_keys(owner: User, scope: str) -> None:
    client = Client(headers={"X-API-Key": ApiToken.make(owner, scope=scope)})
    token = ApiToken.objects.get()

    assert client.get("/api/v1/tokens/").status_code == 403
    assert make(client, scope="admin").status_code == 403
    assert client.delete(f"/api/v1/tokens/{token.pk}/").status_code == 403
    assert ApiToken.objects.count() == 1


def test_the_dashboards_session_makes_keys_and_says_the_word(owner: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(owner)
    assert client.get("/api/v1/tokens/").status_code == 200
    assert make(client, scope="admin").status_code == 403
    assert not ApiToken.objects.exists()

    client.get("/keys/")
    word = {"X-CSRFToken": client.cookies["csrftoken"].value}
    answer = client.post("/api/v1/tokens/", {"scope": "admin"}, content_type="application/json", headers=word)
    assert answer.status_code == 201


def test_a_key_of_the_file_is_not_revoked_here(api: Client) -> None:
    token = ApiToken.objects.get()
    ApiToken.objects.update(is_from_file=True, name="keys.txt")

    answer = api.delete(f"/api/v1/tokens/{token.pk}/")

    assert answer.status_code == 409
    assert "keys.txt" in answer.json()["detail"]
    assert ApiToken.objects.exists()
