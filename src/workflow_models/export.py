"""The revisions as migration files of the Supabase CLI.

That CLI sends the statements of a file as one transaction, but for a concurrent one, which it runs by
itself. So each transaction of a `--sql` script becomes a file, with the settings and the guard of a script.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from .errors import MissingExtraError

try:
    from alembic.script import Script, ScriptDirectory
    from alembic.script.revision import RevisionError
    from alembic.util import CommandError
except ImportError as error:
    raise MissingExtraError("workflow_models.export", "migrations", error) from None

from .migrations import VERSION_TABLE_SCHEMA, alembic_config, script
from .online import MigrationError, statements

LOWEST_CLI_VERSION = "2.110.0"
"""The first Supabase CLI whose `db push` was seen to run a concurrent statement beside others."""

_FROM_CLI = f"-- Supabase CLI {LOWEST_CLI_VERSION} or newer, which runs a concurrent statement by itself.\n"
_TIMESTAMP = "%Y%m%d%H%M%S"


@dataclass(frozen=True)
class MigrationFile:
    """One file of a Supabase project's `migrations` folder.

    :param revision: that it is a part of.
    :param refuses_unfilled: stands where the revision has a backfill.
    """

    name: str
    revision: str
    content: str
    refuses_unfilled: bool


def migration_files(start: str, end: str, *, first: datetime) -> list[MigrationFile]:
    """Give the files that carry a database from one revision to another.

    :param start: the revision that the database is at, or ``base``.
    :param end: a later revision, or ``head``.
    :param first: the time in the name of the first file; each of the others is a second later.
    :raises MigrationError: when no revision leads from the one to the other.
    """
    parts = [part for revision in _revisions(start, end) for part in _parts(revision)]
    return [
        replace(part, name=f"{first + timedelta(seconds=number):{_TIMESTAMP}}_{part.name}")
        for number, part in enumerate(parts)
    ]


def write(directory: Path, files: Sequence[MigrationFile]) -> None:
    """Write all files, or none; the folder is made where it is missing.

    :raises MigrationError: when the folder has these revisions or these times already, or cannot be written.
    """
    written: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _refuse_second(directory, files)
        for file in files:
            with (directory / file.name).open("x", encoding="utf-8") as opened:
                written.append(directory / file.name)
                opened.write(file.content)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise MigrationError(
            f"the files could not be written to {directory}.",
            happened=f"{error.strerror}: {error.filename}",
            unchanged="no file was left there.",
            next_step="make room there, or name another folder.",
        ) from error


def _refuse_second(directory: Path, files: Sequence[MigrationFile]) -> None:
    """A revision exported twice would run twice; of two files of one time the CLI records only one."""
    revisions = {file.revision for file in files}
    times = {file.name.partition("_")[0] for file in files}
    there = [path.name.partition("_") for path in sorted(directory.glob("*_*.sql"))]
    in_the_way = [
        f"{time}_{name}" for time, _, name in there if time in times or name.rpartition("_")[0] in revisions
    ]
    if in_the_way:
        raise MigrationError(
            f"the files were not written to {directory}.",
            happened=f"it has {in_the_way[0]}, of the same revision or time"
            + (f", and {len(in_the_way) - 1} more." if in_the_way[1:] else "."),
            unchanged="that folder.",
            next_step="export only what is newer, with --from, or give another --timestamp.",
        )


def _revisions(start: str, end: str) -> list[Script]:
    try:
        revisions = list(ScriptDirectory.from_config(alembic_config()).iterate_revisions(end, start))[::-1]
    except (CommandError, RevisionError) as error:
        raise _nothing(str(error)) from error
    if not revisions:
        raise _nothing(f"there is no revision after {start}, up to {end}.")
    return revisions


def _nothing(happened: str) -> MigrationError:
    return MigrationError(
        "there is nothing to export.",
        happened=happened,
        unchanged="no file was written.",
        next_step="name revisions that `alembic history` lists, the earlier one after --from.",
    )


def _parts(revision: Script) -> Iterator[MigrationFile]:
    """Give the files of a revision, without a time in their names."""
    name = revision.revision
    start = revision.down_revision or "base"
    assert isinstance(start, str)
    instead = f"Run `alembic upgrade {name}`, which fills them batch by batch, then this again."
    written = script(f"{start}:{name}", filled_elsewhere=instead)
    opening = written[: written.index("BEGIN;")]
    settings = [statement for statement in opening if statement.startswith("SET ")]
    transactions = list(_transactions(written[len(opening) :]))
    if start == "base":
        # What else opens a script but its guard, in place of which each file has its own.
        transactions[0][:0] = opening[len(settings) + 1 :]
    filled = any(instead in statement for transaction in transactions for statement in transaction)
    # Where a backfill is run online, all of its revision is: its other files find everything done.
    guard = statements.only_at(
        f"{VERSION_TABLE_SCHEMA}.alembic_version", start, also_at=name if filled else None
    )
    refusals: list[str] = []
    for number, transaction in enumerate(transactions, 1):
        heading = f"-- {name}, {number} of {len(transactions)}.\n{_FROM_CLI}"
        refuses = instead in transaction[0]
        if refuses:
            refusals = transaction
            heading += (
                "-- Here the revision has a backfill, which commits after each batch, and no migration file\n"
                f"-- can. Where a row is still to be filled, this stops: run `alembic upgrade {name}`,\n"
                "-- then this again.\n"
            )
        else:
            transaction = [*refusals, *transaction]
        body = [*settings, f"{guard};", *transaction, *map(_reset, settings)]
        content = "\n\n".join(body)
        yield MigrationFile(f"{name}_{number:02d}.sql", name, f"{heading}\n{content}\n", refuses)


def _transactions(written: Sequence[str]) -> Iterator[list[str]]:
    """Give the statements of each transaction.

    A concurrent statement is put with the block before it, which makes way for it, and the one after it,
    which clears up. Blocks beside each other, outside of a transaction, are one each.
    """
    transaction: list[str] = []
    explicit = has_block = False
    for statement in written:
        boundary = statement in ("BEGIN;", "COMMIT;")
        block = statement.startswith("DO ")
        if boundary or (block and not explicit and has_block):
            if transaction:
                yield transaction
            transaction = []
        has_block = block or (has_block and not boundary and " CONCURRENTLY " not in statement)
        if boundary:
            explicit = statement == "BEGIN;"
        elif not statement.startswith("--"):
            transaction.append(statement)


def _reset(setting: str) -> str:
    return f"RESET {setting.split()[1]};"
