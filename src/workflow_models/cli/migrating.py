"""Commands that carry a database to a revision, or say at which one it is."""

import json
from collections.abc import Callable
from typing import Any

import click

from workflow_models.cli.group import differing, main, tell
from workflow_models.cli.group import url as _url


def _patience(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a run; where one is not given, MIGRATION_<NAME> counts, as for `alembic`."""
    for name, what in (
        ("--migrator-wait-s", "Seconds to wait for another migrator.  [default: 600]"),
        ("--lock-tries", "Tries of each step, with a pause after each.  [default: 30]"),
        ("--lock-timeout-ms", "Milliseconds that one try waits for a lock.  [default: 400]"),
    ):
        command = click.option(name, type=click.IntRange(min=1), help=what)(command)
    return command


def allow_data_loss(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option of that name."""
    return click.option(
        "--allow-data-loss", is_flag=True, help="Downgrade also where rows or values would be lost."
    )(command)


def as_x(options: dict[str, Any]) -> dict[str, str]:
    """Give the options that were given as `alembic` takes them with `-x`."""
    return {
        name.replace("_", "-"): str(value).lower()
        for name, value in options.items()
        if value not in (None, False)
    }


@main.command()
@click.argument("revision", default="head")
@_url
@_patience
def upgrade(revision: str, url: str | None, **options: Any) -> None:
    """Upgrade a database to REVISION, else to the last one.

    The application may go on meanwhile. Whatever was done by hand, or by an upgrade that stopped, is found
    and not done again.

    \b
    Examples:
      workflow-models upgrade --url postgresql://owner@host:5432/app
      workflow-models upgrade wf0003_add_organization_id
      workflow-models upgrade --lock-tries 100      # somebody reads for minutes
    """
    from workflow_models import migrations

    tell()
    migrations.upgrade(migrations.database_url(url), revision, x=as_x(options))


# -1 is a revision, not an option.
@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("revision")
@_url
@_patience
@allow_data_loss
def downgrade(revision: str, url: str | None, **options: Any) -> None:
    """Downgrade a database to REVISION, or to base.

    Refused as a whole, before its first step, where it would lose rows or drop what others depend on.

    \b
    Examples:
      workflow-models downgrade wf0005_index_by_organization
      workflow-models downgrade -1                  # by one
      workflow-models downgrade base --allow-data-loss
    """
    from workflow_models import migrations

    tell()
    migrations.downgrade(migrations.database_url(url), revision, x=as_x(options))


@main.command()
@click.option("--json", "as_json", is_flag=True, help='Print {"revisions": […], "head": …, "at_head": …}.')
@_url
def current(as_json: bool, url: str | None) -> None:
    """Print the revision that a database is at.

    \b
    Examples:
      workflow-models current
      workflow-models current --json | jq .at_head
    """
    from workflow_models import migrations

    tell()
    at, head = migrations.current(migrations.database_url(url)), migrations.known_revisions()[-1]
    if as_json:
        click.echo(json.dumps({"revisions": at, "head": head, "at_head": at == [head]}))
    else:
        click.echo(f"{', '.join(at) or 'base'} ({'head' if at == [head] else f'head is {head}'})")


@main.command()
@click.option(
    "--allow",
    multiple=True,
    metavar="TITLE",
    help="Something that may be in the database only, titled as this command does; several times for more.",
)
@click.option("--json", "as_json", is_flag=True, help='Print {"differences": […]}.')
@_url
def check(allow: tuple[str, ...], as_json: bool, url: str | None) -> None:
    """Compare a database with the models.

    Columns, constraints, indexes, policies, functions, triggers, grants. Ends with 1 where they differ.
    Changes nothing, and blocks nobody.

    \b
    Examples:
      workflow-models check
      workflow-models check --allow 'index idx_mine on workflow_execution_logs'
    """
    from workflow_models import migrations

    tell()
    differences = migrations.differences(migrations.database_url(url), allow_extra=allow)
    if as_json:
        click.echo(json.dumps({"differences": differences}))
        if differences:
            raise click.exceptions.Exit(1)
    elif differences:
        differing(
            "the database differs from the models.",
            happened=differences,
            unchanged="everything; the database was only looked at.",
            next_step="undo by hand what was done by hand; or, what may stay, name after --allow.",
        )
    else:
        click.echo("The database is as the models say.")


@main.command()
def history() -> None:
    """List the revisions, the last one first."""
    from alembic.script import ScriptDirectory

    from workflow_models.migrations import alembic_config

    for revision in ScriptDirectory.from_config(alembic_config()).walk_revisions():
        click.echo(f"{revision.revision}  {revision.doc}")
