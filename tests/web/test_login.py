from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

RIGHT = {"username": "alice", "password": "correct horse"}
WRONG = {"username": "alice", "password": "wrong"}


def text_of(response: Any) -> str:
    return str(response.content.decode())


def test_the_right_password_leads_to_the_recordings(client: Client, alice: User) -> None:
    assert client.post("/login/", RIGHT)["Location"] == "/"


def test_a_wrong_password_is_said_in_a_sentence(client: Client, alice: User) -> None:
    shown = text_of(client.post("/login/", WRONG))
    assert "The name and the password do not match." in shown
    assert 'role="alert"' in shown


@pytest.mark.parametrize(("asked", "is_remembered"), [({"remember": "on"}, True), ({}, False)])
def test_the_browser_is_remembered_when_asked(
    client: Client, alice: User, asked: dict[str, str], is_remembered: bool
) -> None:
    response = client.post("/login/", RIGHT | asked)
    assert bool(response.cookies["sessionid"]["max-age"]) is is_remembered


def test_the_login_page_leads_to_no_other_site(client: Client, alice: User) -> None:
    assert client.post("/login/", RIGHT | {"next": "https://evil.example/"})["Location"] == "/"


def test_five_wrong_passwords_lock_the_endpoint_for_a_quarter_of_an_hour(client: Client, alice: User) -> None:
    for _ in range(5):
        response = client.post("/login/", WRONG)
    assert response.status_code == 429
    assert "Wait 15 minutes" in text_of(response)
    assert client.post("/login/", RIGHT).status_code == 429


def test_signing_out_needs_a_form_and_ends_the_session(page: Client) -> None:
    assert page.get("/logout/").status_code == 405
    page.post("/logout/")
    assert page.get("/").status_code == 302


def test_the_page_speaks_the_browsers_language(client: Client, db: None) -> None:
    shown = text_of(client.get("/login/", headers={"accept-language": "ru"}))
    assert '<html lang="ru"' in shown
    assert "Войти на testserver" in shown
    assert ">English</button>" in shown


def test_an_address_that_is_not_there_says_so(client: Client, db: None) -> None:
    response = client.get("/nowhere/")
    assert response.status_code == 404
    assert "There is no such page" in text_of(response)


def test_a_form_from_before_another_tab_signed_in_says_what_to_do(alice: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.get("/login/")
    response = client.post("/login/", RIGHT)
    assert response.status_code == 403
    assert "The page was out of date" in text_of(response)


@pytest.mark.parametrize("key", [r"\000" * 12, "x" * 5000, "' OR 1=1 --"])
@pytest.mark.parametrize("path", ["/", "/admin/", "/api/v1/jobs/"])
def test_a_cookie_that_was_never_a_session_is_none(db: None, path: str, key: str) -> None:
    stranger = Client(headers={"Cookie": f'sessionid="{key}"'})
    assert stranger.get(path).status_code in (302, 400, 401)
