"""`manage.py create_token USER`: make an API token and print it."""

from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from transcription.keys import LONGEST_DAYS
from transcription.models import ApiToken

SCOPES = "read: look only; write: whatever its user may do with their own; admin: everything its user may (the default)"


class Command(BaseCommand):
    help = "Make an API token for a user and print it; it is never shown again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user")
        parser.add_argument("--name", default="", help="what the token is for")
        parser.add_argument("--scope", choices=ApiToken.Scope.values, default=ApiToken.Scope.ADMIN.value, help=SCOPES)
        parser.add_argument("--expires-in-days", type=_days, help="it stops working by itself; else it works for good")

    def handle(self, *args: Any, **options: Any) -> None:
        user = get_user_model().objects.filter(username=options["user"]).first()
        if user is None:
            raise CommandError(f"There is no user named {options['user']}. Make one in the admin, under Users.")
        days = options["expires_in_days"]
        expires_at = None if days is None else timezone.now() + timedelta(days=days)
        self.stdout.write(ApiToken.make(user, options["name"], scope=options["scope"], expires_at=expires_at))


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= LONGEST_DAYS:
        raise ArgumentTypeError(f"write a whole number of days, from 1 to {LONGEST_DAYS}")
    return int(text)
