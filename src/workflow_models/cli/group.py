"""The command itself, what its commands have in common, and how each of them fails."""

import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import click

from workflow_models.errors import WorkflowModelsError
from workflow_models.online import MigrationError

INSTALL = "pip install 'workflow-models[cli]'"

_SECTIONS = {
    "Migrate": ("upgrade", "downgrade", "current", "check", "history"),
    "Write": ("sql", "export", "typescript"),
    "Look": ("show", "diagram"),
    "Keep house": ("sweep", "prune"),
}
_EXAMPLES = """\b
Examples:
  export DATABASE_URL=postgresql://owner@host:5432/app
  workflow-models upgrade              # to the last revision, while the application runs
  workflow-models check                # in a pipeline: 1 where the database differs from the models
  workflow-models sql > upgrade.sql    # the same as a script

\b
Completion, in ~/.bashrc or ~/.zshrc:
  eval "$(_WORKFLOW_MODELS_COMPLETE=bash_source workflow-models)"    # or zsh_source
"""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [name for names in _SECTIONS.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = formatter.width - 6 - max(map(len, self.commands))
        for title, names in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(width)) for name in names])

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **options)
        except OSError as error:
            # That of a file or folder names it; one without a reason is not of the system.
            if error.filename is not None or error.strerror is None:
                raise
            # What could not be written is still there, and would be tried again when Python ends.
            with suppress(OSError):
                sys.stdout.close()
            fail(
                f"error: the output could not be written.\n  Happened: {error.strerror}.\n"
                "  Unchanged: what the command did stays done; only its output is cut short.\n"
                "  Next: make room, or send the output elsewhere, and run it again."
            )

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _reporting():
                return super().invoke(ctx)
        except ModuleNotFoundError as error:
            name = (error.name or "").partition(".")[0]
            if name in ("", "workflow_models"):
                raise
            fail(f"error: {name} is not installed.\n  Next: {INSTALL}")
        except KeyboardInterrupt:
            fail("interrupted.", 130)


@click.group(cls=_Commands, epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="workflow-models", message="%(package)s %(version)s")
def main() -> None:
    """The workflow tables of a PostgreSQL database: their revisions, and their models.

    Needs no checkout and no ini file. Ends with 0; 1 when it was refused, stopped, or found a difference; 2
    for a command line that cannot be understood; 130 when interrupted.
    """


url = click.option(
    "--url",
    help="The database.  [default: MIGRATION_DATABASE_URL, else DATABASE_URL, else the embedded server]",
)


@contextmanager
def _reporting() -> Iterator[None]:
    """End with the message and the exit status of our own errors, without a traceback."""
    try:
        yield
    except MigrationError as error:
        fail(str(error), error.exit_code)
    except WorkflowModelsError as error:
        fail(f"error: {error}")


def fail(message: str, exit_status: int = 1) -> NoReturn:
    """End with a message on stderr, coloured where that is a terminal."""
    message = re.sub(
        "(?m)^error:", click.style("error:", fg="red", bold=True), in_our_words(message), count=1
    )
    labels = r"(?m)^  (Happened|Unchanged|Next):"
    click.echo(re.sub(labels, lambda found: click.style(found[0], bold=True), message), err=True)
    sys.exit(exit_status)


def in_our_words(text: str) -> str:
    """Give the text with this program's commands and options in place of `alembic`'s, which needs an ini."""
    text = text.replace("`alembic upgrade head`", "`workflow-models upgrade`")
    text = text.replace("`alembic ", "`workflow-models ")
    return re.sub(r"-x ([a-z-]+)(?:=true)?", r"--\1", text)


class _Telling(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(in_our_words(self.format(record)), err=True)


def tell() -> None:
    """Have what the package logs printed to stderr until the command under way has ended."""
    # Not the root logger's level: SQLAlchemy would then print every statement.
    log = logging.getLogger("workflow_models")
    handler, level = _Telling(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)

    @click.get_current_context().call_on_close
    def leave_logging_as_it_was() -> None:
        log.removeHandler(handler)
        log.setLevel(level)


def differing(what: str, *, happened: Sequence[str], unchanged: str, next_step: str) -> NoReturn:
    """End since two things that shall be alike differ."""
    lines = "\n    ".join(["", *happened])
    fail(f"error: {what}\n  Happened:{lines}\n  Unchanged: {unchanged}\n  Next: {next_step}")
