"""What tests of every command share: running one in this process."""

from __future__ import annotations

import json

import pytest

from glassgpt.cli.main import main


@pytest.fixture
def ask(capsys):
    """Run a command: (exit code, standard output, standard error)."""

    def run(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse ends the program itself
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def ask_json(ask):
    """Run a command with --json that must succeed: the one object that it prints."""

    def run(*arguments):
        code, out, err = ask(*arguments, "--json")
        assert code == 0, err
        return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))

    return run
