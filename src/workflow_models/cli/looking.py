"""Commands that print what is there: in a database, and in the models."""

import os
import sys

import click

from workflow_models.cli.group import main
from workflow_models.cli.group import url as _url


@main.command()
@_url
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
    print_database(database_url(url), console)


@main.command()
def diagram() -> None:
    """Print the tables of the models as a Mermaid diagram."""
    from workflow_models.diagram import mermaid

    click.echo(mermaid())
