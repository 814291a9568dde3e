"""What a command says of an error, and the exit code that a script decides by."""

from __future__ import annotations

import argparse

import pytest

from migration.answers import CLEAN, EXIT_CODES, REFUSED, RETRY, WRONG_USE, answering
from migration.backup_manifest import BackupError
from migration.state import BusyError


def answered(error: BaseException | None) -> int:
    def command(args: argparse.Namespace) -> int:
        if error is not None:
            raise error
        return CLEAN

    return answering("begin again")(command)(argparse.Namespace())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, CLEAN),
        (ValueError("no good"), WRONG_USE),
        (OSError("no good"), RETRY),
        (ConnectionResetError("no good"), RETRY),
        (BackupError("no good"), RETRY),
        (BusyError("no good"), REFUSED),
    ],
)
def test_the_first_class_that_fits_decides(
    error: Exception | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answered(error) == code
    assert capsys.readouterr().err == ("modchat: no good\n" if error else "")


def test_notes_are_said_in_the_same_line(capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError("no room")
    error.add_note("the backup is whole")
    assert answered(error) == RETRY
    assert capsys.readouterr().err == "modchat: no room; the backup is whole\n"


def test_an_interrupted_command_says_how_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert answered(KeyboardInterrupt()) == RETRY
    assert capsys.readouterr().err == "modchat: interrupted; begin again\n"


def test_a_fault_of_the_program_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        answered(ZeroDivisionError())


def test_no_row_is_hidden_by_one_before_it() -> None:
    kinds = [kind for kind, _ in EXIT_CODES]
    assert [kind for n, kind in enumerate(kinds) if any(issubclass(kind, before) for before in kinds[:n])] == []
