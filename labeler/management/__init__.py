"""What our commands share: refused, they say one line in words on stderr, with no class's name before it and
no usage above it. Django's own commands keep its ways."""

import sys
from collections.abc import Sequence
from typing import NoReturn

from django.core.management import base
from django.core.management.base import CommandError

__all__ = ["BaseCommand", "CommandError"]


class Parser(base.CommandParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help tells more.\n")


class BaseCommand(base.BaseCommand):
    def create_parser(self, prog_name: str, subcommand: str, **kwargs) -> base.CommandParser:
        found = super().create_parser(prog_name, subcommand, **kwargs)
        if getattr(self, "_called_from_command_line", False):
            found.__class__ = Parser
        return found

    def run_from_argv(self, argv: Sequence[str]) -> None:
        try:
            # Without this, Django says the refusal itself, after the words “CommandError: ”.
            super().run_from_argv([*argv[:2], "--traceback", *argv[2:]])
        except CommandError as refused:
            self.stderr.write(str(refused))
            sys.exit(refused.returncode)
