"""Commands that write what others read: SQL, migration files, types."""

from datetime import UTC, datetime
from difflib import unified_diff
from pathlib import Path
from typing import Any

import click

from workflow_models.cli.group import differing, fail, main
from workflow_models.cli.migrating import allow_data_loss, as_x

_output = click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write.  [default: stdout]",
)
_from = click.option(
    "--from", "start", default="base", show_default=True, help="The revision that the databases are at."
)
_to = click.option("--to", "end", default="head", show_default=True, help="The revision to go to.")


@main.command()
@_from
@_to
@_output
@click.option(
    "--lock-timeout-ms", type=click.IntRange(min=1), help="Milliseconds to wait for a lock.  [default: 400]"
)
@allow_data_loss
def sql(start: str, end: str, output: Path | None, **options: Any) -> None:
    """Write the revisions as a script of plain SQL.

    Needs no database. The script stops where the database is not at the revision that it starts from.
    Each of its steps is safe to run again. It goes down where --to is before --from.

    \b
    Examples:
      workflow-models sql | psql -v ON_ERROR_STOP=1 "$DATABASE_URL"
      workflow-models sql --from wf0004_backfill_organization_id -o upgrade.sql
      workflow-models sql --from head --to wf0004_backfill_organization_id
    """
    from workflow_models import migrations

    order = ["base", *migrations.known_revisions(), "head"]
    down = start in order and end in order and order.index(end) < order.index(start)
    start = order[-2] if start == "head" else start
    statements = migrations.script(f"{start}:{end}", down=down, x=as_x(options))
    _write("\n\n".join(statements) + "\n", output)


@main.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False, allow_dash=True))
@_from
@_to
@click.option(
    "--timestamp",
    type=click.DateTime(["%Y%m%d%H%M%S"]),
    metavar="YYYYMMDDHHMMSS",
    help="The time in the first file's name; the others follow by seconds.  [default: now, in UTC]",
)
def export(directory: Path, start: str, end: str, timestamp: datetime | None) -> None:
    """Write the revisions for the Supabase CLI.

    They become migration files in DIRECTORY, as supabase/migrations; `-` prints them. No file is ever
    written over. A backfill cannot be exported; what stands in its place refuses a database with rows to
    fill, and says what to run.
    """
    from workflow_models.export import LOWEST_CLI_VERSION, migration_files, write

    files = migration_files(start, end, first=timestamp or datetime.now(UTC))
    if directory == Path("-"):
        for file in files:
            click.echo(f"-- {file.name}\n{file.content}")
    else:
        write(directory, files)
        for file in files:
            click.echo(directory / file.name)
    click.echo(f"{len(files)} files for the Supabase CLI, {LOWEST_CLI_VERSION} or newer.", err=True)
    for revision in dict.fromkeys(file.revision for file in files if file.refuses_unfilled):
        click.echo(
            f"{revision}: its backfill commits after each batch, and no migration file can. Where rows are "
            f"to be filled its files stop: run `workflow-models upgrade {revision}` there, then push again.",
            err=True,
        )


@main.command()
@_output
@click.option(
    "--check",
    "checked",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write nothing; end with 1 where this file is not what would be written.",
)
def typescript(output: Path | None, checked: Path | None) -> None:
    """Write the models as TypeScript interfaces.

    They are of rows as they come in JSON, from PostgreSQL or PostgREST.

    \b
    Examples:
      workflow-models typescript -o src/types/workflow-models.ts
      workflow-models typescript --check src/types/workflow-models.ts    # in a pipeline
    """
    from workflow_models.typescript import interfaces

    if checked is None:
        _write(interfaces(), output)
        return
    if output is not None:
        raise click.UsageError("--check writes nothing: leave --output out.")
    again = f"run `workflow-models typescript --output {checked}`, and commit it."
    try:
        found = checked.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"error: {checked} cannot be compared: {_reason(error)}.\n  Next: {again}")
    wanted = interfaces()
    if found != wanted:
        lines = unified_diff(
            found.splitlines(), wanted.splitlines(), str(checked), "the models", n=1, lineterm=""
        )
        differing(
            f"{checked} is not what the models say.",
            happened=list(lines),
            unchanged="that file.",
            next_step=again,
        )


def _write(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(
            f"error: {output} could not be written.\n  Happened: {_reason(error)}.\n"
            "  Unchanged: all else; no database was asked.\n  Next: name another file."
        )


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8"
