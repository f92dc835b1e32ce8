"""`manage.py create_token USER`: make an API token and print it."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from transcription.models import ApiToken


class Command(BaseCommand):
    help = "Make an API token for a user and print it; it is never shown again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user")
        parser.add_argument("--name", default="", help="what the token is for")

    def handle(self, *args: Any, **options: Any) -> None:
        user = get_user_model().objects.filter(username=options["user"]).first()
        if user is None:
            raise CommandError(f"There is no user named {options['user']}. Make one in the admin, under Users.")
        self.stdout.write(ApiToken.make(user, options["name"]))
