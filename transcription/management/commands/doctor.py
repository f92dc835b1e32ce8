"""`manage.py doctor`: print what is wrong with this installation and how to mend it."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from transcription import doctor
from transcription.doctor import State

MARKS = {State.WELL: "✓", State.NOTE: "·", State.WRONG: "✗"}


class Command(BaseCommand):
    help = "Say what is wrong with this installation and how to mend it; exit with 1 if anything is."
    requires_system_checks: list[str] = []  # one of the questions runs them

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("question", nargs="*", help=f"only these: {', '.join(doctor.QUESTIONS)}")
        parser.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *args: Any, **arguments: Any) -> None:
        names = arguments["question"]
        if unknown := set(names) - doctor.QUESTIONS.keys():
            raise CommandError(f"There is no {', '.join(sorted(unknown))}. Ask for {', '.join(doctor.QUESTIONS)}.")
        findings = []
        for name, finding in doctor.examine(names):
            findings.append({"question": name, "state": finding.state, "said": finding.sentence})
            if not arguments["json"]:
                self.stdout.write(f"{MARKS[finding.state]} {finding.sentence}")
                self.stdout.flush()
        is_well = all(finding["state"] != State.WRONG for finding in findings)
        if arguments["json"]:
            self.stdout.write(json.dumps({"ok": is_well, "findings": findings}, ensure_ascii=False, indent=2))
        if not is_well:
            raise CommandError("What is marked ✗ is wrong, and says how to mend it.")
