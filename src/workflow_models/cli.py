"""`workflow-models …`: the package on the command line.

What a command needs is imported by that command, so that `--help` answers at once.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

INSTALL = "pip install 'workflow-models[cli]'"

try:
    import click
except ModuleNotFoundError as error:
    if error.name != "click":
        raise
    sys.exit(f"error: click is not installed.\n  Next: {INSTALL}")


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            name = (error.name or "").partition(".")[0]
            if name in ("", __package__):
                raise
            _fail(f"error: {name} is not installed.\n  Next: {INSTALL}")


@contextmanager
def _reporting() -> Iterator[None]:
    """End with the message and the exit status of a `MigrationError`, without a traceback."""
    from workflow_models.online import MigrationError

    try:
        yield
    except MigrationError as error:
        _fail(str(error), error.exit_code)


def _fail(message: str, exit_status: int = 1) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(exit_status)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="workflow-models", message="%(package)s %(version)s")
def main() -> None:
    """The workflow tables: what a database has, and what the models say."""


@main.command()
@click.option("--url", help="The database; by default the one that `alembic upgrade head` would take.")
def show(url: str | None) -> None:
    """Print what a migrated database has.

    Revision; then of both tables columns, constraints, indexes, row security, policies, grants and
    triggers, as the catalog has them. In a pipe lines are wrapped at 100 columns, or at $COLUMNS.
    """
    from rich.console import Console

    from workflow_models.migrations import database_url
    from workflow_models.show import print_database

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 100
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    with _reporting():
        print_database(database_url(url), console)


@main.command()
def diagram() -> None:
    """Print the tables of the models as a Mermaid diagram."""
    from workflow_models.diagram import mermaid

    click.echo(mermaid())
