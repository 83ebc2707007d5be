"""What a migration that stops says: what happened, what was left unchanged, the one next step."""

from collections.abc import Sequence


class MigrationError(Exception):
    """A migration stopped or was refused.

    ``str()`` gives the whole text, ready to print; it holds no password and no SQL but our own.

    :param summary: one line, without a full stop of its own unless it is a sentence.
    :param happened: one line, or one for each thing found.
    :param unchanged: the state that the database was left in.
    :param next_step: what to do now; several lines where statements are to be run.
    """

    exit_code = 1

    def __init__(
        self, summary: str, *, happened: str | Sequence[str], unchanged: str, next_step: str | Sequence[str]
    ) -> None:
        self.summary = summary
        self.happened = _lines(happened)
        self.unchanged = unchanged
        self.next_step = _lines(next_step)
        parts = (("Happened", self.happened), ("Unchanged", unchanged), ("Next", self.next_step))
        super().__init__(
            "\n".join([f"error: {summary}", *(f"  {title}:{_indented(text)}" for title, text in parts)])
        )


class UsageError(MigrationError):
    """An option that cannot be understood."""

    exit_code = 2


class RunInterruptedError(MigrationError):
    """Somebody pressed ^C."""

    exit_code = 130


def _lines(text: str | Sequence[str]) -> str:
    return text if isinstance(text, str) else "\n".join(text)


def _indented(text: str) -> str:
    """Put a text behind its title, or below it where it has several lines."""
    return f" {text}" if "\n" not in text else "\n    " + text.replace("\n", "\n    ")
