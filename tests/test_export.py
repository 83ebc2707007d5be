"""`workflow-models export`: files that the Supabase CLI runs, to the same end as the online way."""

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest
from click.testing import CliRunner, Result

from tests.application.states import REVISIONS, at
from tests.catalog import misplaced_logs, rows, rows_like, snapshot
from tests.command import alembic
from tests.databases import Database
from tests.online.test_script import STATEMENT
from workflow_models import migrations
from workflow_models.cli import main
from workflow_models.export import MigrationFile, migration_files, write
from workflow_models.online import MigrationError

Clone: TypeAlias = Callable[[str], Database]
Push: TypeAlias = Callable[[Database, list[MigrationFile]], None]

HEAD = "wf0006_check_organization"
FILLING = "wf0004_backfill_organization_id"
NEW_YEAR = datetime(2026, 1, 1)

_LEADING_COMMENTS = re.compile(r"(?:\s|--[^\n]*\n)*")


@pytest.fixture(scope="module")
def files() -> list[MigrationFile]:
    return migration_files("base", "head", first=NEW_YEAR)


def of(revision: str, files: list[MigrationFile]) -> list[MigrationFile]:
    return [file for file in files if file.revision == revision]


def statements(file: MigrationFile) -> list[str]:
    """As the CLI splits a file."""
    return [_LEADING_COMMENTS.sub("", found[0], count=1) for found in STATEMENT.finditer(file.content)]


def is_concurrent(statement: str) -> bool:
    """What the CLI looks at to run a statement by itself."""
    return re.match(r"CREATE\s+(UNIQUE\s+)?INDEX\s+CONCURRENTLY\s", statement) is not None


def batches(file: MigrationFile) -> Iterator[list[str]]:
    batch: list[str] = []
    for statement in statements(file):
        if is_concurrent(statement):
            yield batch
            yield [statement]
            batch = []
        else:
            batch.append(statement)
    yield batch


def in_a_pipeline(connection: psycopg.Connection[Any], batch: list[str]) -> None:
    """From 2.115.0 on: one implicit transaction, which is no transaction block."""
    with connection.pipeline():
        for statement in batch:
            connection.execute(statement.encode(), prepare=False)


def in_a_block(connection: psycopg.Connection[Any], batch: list[str]) -> None:
    """Before 2.115.0: between BEGIN and COMMIT."""
    with connection.transaction():
        for statement in batch:
            connection.execute(statement.encode())


@pytest.fixture(params=[in_a_pipeline, in_a_block], ids=lambda run: run.__name__)
def push(request: pytest.FixtureRequest) -> Push:
    """Run files as `supabase db push` does, and stop at the first error."""

    def push(database: Database, files: list[MigrationFile]) -> None:
        with database.connect() as connection:
            for file in files:
                connection.execute("RESET ALL")
                for batch in batches(file):
                    if is_concurrent(batch[0]):
                        connection.execute(batch[0].encode())
                    else:
                        request.param(connection, batch)

    return push


def schema(database: Database) -> object:
    return snapshot(database.observer)


def version(database: Database) -> str:
    [(found,)] = database.execute("SELECT version_num FROM workflow_private.alembic_version")
    return str(found)


def test_the_files_carry_an_empty_database_to_the_schema_of_the_online_way(
    empty: Database, upgraded: Database, files: list[MigrationFile], push: Push
) -> None:
    push(empty, files)

    assert schema(empty) == schema(upgraded)


def test_alembic_goes_on_where_the_files_ended(empty: Database, files: list[MigrationFile]) -> None:
    with empty.connect() as connection:
        for file in files:
            for statement in statements(file):
                connection.execute(statement.encode())

    ran = alembic("upgrade", "head", DATABASE_URL=empty.url())

    assert (ran.status, ran.stderr) == (0, f"nothing to do: the database is at {HEAD}\n")


@pytest.mark.parametrize("state", ["adopted", "half_fixed"])
def test_the_files_stop_where_rows_are_to_be_filled_and_go_on_once_they_are(
    clone: Clone, upgraded: Database, files: list[MigrationFile], push: Push, state: str
) -> None:
    database = clone(state)
    before = rows(database.observer)
    stops = next(number for number, file in enumerate(files) if file.refuses_unfilled)
    push(database, files[:stops])
    misplaced = misplaced_logs(database.observer)
    assert misplaced

    with pytest.raises(psycopg.Error) as refused:
        push(database, files[stops:])

    assert refused.value.diag.message_primary == "rows of workflow_execution_logs are not filled yet"
    assert refused.value.diag.message_detail == (
        f"Run `alembic upgrade {FILLING}`, which fills them batch by batch, then this again."
    )
    assert misplaced_logs(database.observer) == misplaced

    migrations.upgrade(database.url(), FILLING)
    push(database, files[stops:])

    assert (schema(database), version(database)) == (schema(upgraded), HEAD)
    assert rows_like(rows(database.observer), before) == before
    assert misplaced_logs(database.observer) == []


def test_each_file_after_a_backfill_refuses_rows_that_are_not_filled(
    clone: Clone, files: list[MigrationFile], push: Push
) -> None:
    database = clone(at("adopted", "wf0003_add_organization_id"))
    parts = of(FILLING, files)
    after = parts[next(number for number, file in enumerate(parts) if file.refuses_unfilled) :]
    assert len(after) > 4
    before = schema(database)

    for file in after:
        with pytest.raises(psycopg.Error, match="rows of workflow_execution_logs are not filled yet"):
            push(database, [file])

    assert (schema(database), version(database)) == (before, "wf0003_add_organization_id")


def test_each_file_refuses_a_database_that_is_elsewhere(
    upgraded: Database, files: list[MigrationFile], push: Push
) -> None:
    before = schema(upgraded)

    for file in files:
        with pytest.raises(psycopg.Error, match=f"the database is at {HEAD}"):
            push(upgraded, [file])

    assert schema(upgraded) == before


def test_a_file_does_nothing_elsewhere_for_a_client_that_goes_on_after_an_error(
    clone: Clone, files: list[MigrationFile]
) -> None:
    database = clone(at("adopted", "wf0003_add_organization_id"))
    before = schema(database)

    with database.connect() as connection:
        for statement in statements(of(HEAD, files)[0]):
            try:
                connection.execute(statement.encode())
            except psycopg.Error:
                connection.rollback()

    assert schema(database) == before


def test_a_file_that_did_not_get_its_lock_can_be_run_again(
    clone: Clone, files: list[MigrationFile], push: Push
) -> None:
    database = clone(at("adopted", "wf0002_orchestration_columns"))
    before = schema(database)
    adds_column = of("wf0003_add_organization_id", files)[:1]

    with database.connect(autocommit=False) as reader:
        reader.execute("TABLE workflow_execution_logs LIMIT 1")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            push(database, adds_column)
    assert schema(database) == before
    push(database, adds_column)

    assert schema(database) != before


def test_an_index_whose_build_had_died_is_built_when_the_file_is_run_again(
    clone: Clone, files: list[MigrationFile], push: Push
) -> None:
    database = clone(at("adopted", FILLING))
    first = of("wf0005_index_by_organization", files)[:1]
    push(database, first)
    of_index = "indexrelid = 'idx_workflow_execution_logs_trigger_id'::regclass"
    database.execute(f"UPDATE pg_index SET indisvalid = false WHERE {of_index}", user=database.superuser)

    push(database, first)

    assert database.execute(f"SELECT indisvalid FROM pg_index WHERE {of_index}") == [(True,)]


def test_no_file_has_more_than_the_cli_can_run(files: list[MigrationFile]) -> None:
    for file in files:
        found = statements(file)
        assert STATEMENT.sub("", file.content).strip() == ""
        assert sum("CONCURRENTLY" in each for each in found) == sum(map(is_concurrent, found)) <= 1
        assert [each for each in found if re.match("BEGIN|COMMIT|ROLLBACK|START|LOCK|VACUUM", each)] == []
        # A block that commits cannot run in a transaction either.
        assert [each for each in found if re.search(r"^\s*COMMIT;", each, re.MULTILINE)] == []


def test_each_file_sets_its_own_timeouts_and_leaves_none_behind(
    empty: Database, files: list[MigrationFile]
) -> None:
    with empty.connect() as connection:
        connection.execute("SET statement_timeout = '1h'")
        for file in files[:2]:
            for statement in statements(file):
                connection.execute(statement.encode())

        assert connection.execute("SELECT name FROM pg_settings WHERE source = 'session'").fetchall() == []


def test_a_concurrent_build_waits_without_a_lock_timeout(files: list[MigrationFile]) -> None:
    before = [
        found[number - 1]
        for found in map(statements, files)
        for number, statement in enumerate(found)
        if is_concurrent(statement)
    ]

    assert set(before) == {"SET lock_timeout = 0;"}


def test_names_go_up_by_a_second(files: list[MigrationFile]) -> None:
    assert [file.name for file in files[:2]] == [
        "20260101000000_wf0001_create_workflow_tables_01.sql",
        "20260101000001_wf0001_create_workflow_tables_02.sql",
    ]
    assert [file.name for file in files] == sorted({file.name for file in files})


def test_the_same_revisions_give_the_same_contents(files: list[MigrationFile]) -> None:
    again = migration_files(REVISIONS[2], HEAD, first=datetime(2030, 1, 1))

    assert [file.content for file in again] == [file.content for r in REVISIONS[3:] for file in of(r, files)]


# The command.


def export(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", *arguments], prog_name="workflow-models")


def test_the_command_says_what_it_wrote_which_cli_runs_it_and_what_cannot_be_exported(tmp_path: Path) -> None:
    folder = tmp_path / "supabase" / "migrations"

    ran = export(str(folder), "--from", "wf0003_add_organization_id", "--timestamp", "20260101000000")

    assert ran.exit_code == 0
    assert ran.stdout.splitlines() == [str(path) for path in sorted(folder.iterdir())]
    assert ran.stderr == (
        f"{len(ran.stdout.splitlines())} files for the Supabase CLI, 2.110.0 or newer.\n"
        f"{FILLING}: its backfill commits after each batch, and no migration file can. Where rows are to be "
        f"filled its files stop: run `workflow-models upgrade {FILLING}` there, then push again.\n"
    )


def test_a_dash_prints_the_files_and_writes_none(files: list[MigrationFile]) -> None:
    ran = export("-", "--timestamp", "20260101000000")

    assert ran.stdout == "".join(f"-- {file.name}\n{file.content}\n" for file in files)


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ("20250101000000_wf0006_check_organization_01.sql", "a revision that was exported before"),
        ("20260101000001_theirs.sql", "another migration of that time"),
    ],
)
def test_a_folder_that_has_them_already_is_left_as_it_is(
    tmp_path: Path, files: list[MigrationFile], there: str, named: str
) -> None:
    del named
    (tmp_path / there).write_text("-- theirs")

    with pytest.raises(MigrationError) as refused:
        write(tmp_path, of(HEAD, files) + files[:2])

    assert str(refused.value) == (
        f"error: the files were not written to {tmp_path}.\n"
        f"  Happened: it has {there}, of the same revision or time.\n"
        "  Unchanged: that folder.\n"
        "  Next: export only what is newer, with --from, or give another --timestamp."
    )
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_migrations_of_others_are_left_alone(tmp_path: Path, files: list[MigrationFile]) -> None:
    (tmp_path / "20250101000000_theirs.sql").write_text("-- theirs")

    write(tmp_path, files)

    assert len(list(tmp_path.iterdir())) == len(files) + 1
    assert (tmp_path / "20250101000000_theirs.sql").read_text() == "-- theirs"


def test_a_folder_that_cannot_be_written_gets_none(tmp_path: Path, files: list[MigrationFile]) -> None:
    too_long = MigrationFile("x" * 300, HEAD, "", refuses_unfilled=False)

    with pytest.raises(MigrationError, match="no file was left there"):
        write(tmp_path / "new", [*files[:2], too_long])

    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (["--from", "wf0004_backfill_organization_id", "--to", "wf0002_orchestration_columns"], 1, "nothing"),
        (["--from", "head"], 1, "nothing to export"),
        (["--to", "nowhere"], 1, "nothing to export"),
        (["--timestamp", "yesterday"], 2, "Usage:"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, arguments: list[str], exit_code: int, says: str
) -> None:
    ran = export(str(tmp_path), *arguments)

    assert (ran.exit_code, ran.stdout) == (exit_code, "")
    assert says in ran.stderr
    assert list(tmp_path.iterdir()) == []
