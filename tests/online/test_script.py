"""`--sql`: a script that gives what the online way gives."""

import os
import re
from collections.abc import Callable
from typing import TypeAlias

import psycopg
import pytest

from tests.catalog import misplaced_logs, rows, rows_like, snapshot
from tests.command import Ran, alembic, ended, start
from tests.databases import Database

Clone: TypeAlias = Callable[[str], Database]

HEAD = "wf0006_check_organization"

# A statement: dollar-quoted texts, strings, names and comments are passed over as wholes.
STATEMENT = re.compile(r"""(?:\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|'[^']*'|"[^"]*"|--[^\n]*|[^;])+;""", re.DOTALL)


@pytest.fixture(scope="module")
def script() -> Ran:
    """The whole chain, written without any database."""
    return alembic("upgrade", "head", "--sql")


def run(script: str, database: Database) -> None:
    """One statement after the other, in one session, as a client does that knows nothing of Alembic."""
    with database.connect() as connection:
        for statement in STATEMENT.finditer(script):
            connection.execute(statement[0].encode())


def schema(database: Database) -> object:
    return snapshot(database.observer)


def test_a_script_is_written_without_a_server_and_to_stdout_only(script: Ran) -> None:
    assert (script.status, script.stderr) == (0, "")
    assert script.stdout


def test_a_script_is_plain_sql(script: Ran) -> None:
    assert re.findall(r"(?m)^\s*\\.*", script.stdout) == []
    assert STATEMENT.sub("", script.stdout).strip() == ""


def test_a_script_whose_reader_has_gone_ends_without_a_word() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    writing = start("-m", "alembic", "upgrade", "head", "--sql", env={}, stdout=writer)
    os.close(writer)

    ran = ended(writing)

    assert (ran.status, ran.stderr) == (1, "")


@pytest.mark.parametrize("state", ["empty", "adopted", "half_fixed"])
def test_a_script_gives_the_same_schema_as_the_online_way(
    clone: Clone, upgraded: Database, script: Ran, state: str
) -> None:
    database = clone(state)

    run(script.stdout, database)

    assert schema(database) == schema(upgraded)


def test_a_script_waits_for_a_lock_no_longer_than_it_was_told(clone: Clone) -> None:
    database = clone("adopted")
    written = alembic("-x", "lock-timeout-ms=50", "upgrade", "head", "--sql")

    with database.connect(autocommit=False) as reader:
        reader.execute("TABLE workflow_execution_logs LIMIT 1")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            run(written.stdout, database)


def test_a_script_replaces_no_index_by_which_publications_tell_rows_apart(clone: Clone, script: Ran) -> None:
    database = clone("adopted")
    database.execute(
        """
        DROP INDEX IF EXISTS idx_active_workflows;
        CREATE UNIQUE INDEX idx_active_workflows ON workflow_definitions (id, name);
        ALTER TABLE workflow_definitions REPLICA IDENTITY USING INDEX idx_active_workflows
        """
    )

    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="is the replica identity"):
        run(script.stdout, database)

    assert database.execute(
        "SELECT indisreplident FROM pg_index WHERE indexrelid = 'idx_active_workflows'::regclass"
    ) == [(True,)]


def test_a_script_says_in_the_database_where_it_ended(empty: Database, script: Ran) -> None:
    run(script.stdout, empty)

    assert empty.execute("SELECT version_num FROM workflow_private.alembic_version") == [(HEAD,)]


@pytest.mark.parametrize("state", ["adopted", "half_fixed"])
def test_a_script_keeps_every_row_and_gives_each_log_its_organization(
    clone: Clone, script: Ran, state: str
) -> None:
    database = clone(state)
    before = rows(database.observer)

    run(script.stdout, database)

    assert rows_like(rows(database.observer), before) == before
    assert misplaced_logs(database.observer) == []


def test_a_script_that_was_run_can_be_gone_on_from_online(empty: Database, script: Ran) -> None:
    run(script.stdout, empty)

    ran = alembic("upgrade", "head", DATABASE_URL=empty.url())

    assert (ran.status, ran.stderr) == (0, f"nothing to do: the database is at {HEAD}\n")


def test_a_script_of_the_way_down_gives_the_schema_of_the_earlier_revision(
    clone: Clone, upgraded: Database
) -> None:
    down = alembic("downgrade", f"{HEAD}:wf0001_create_workflow_tables", "--sql")
    assert (down.status, down.stderr) == (0, "")

    run(down.stdout, upgraded)

    assert schema(upgraded) == schema(clone("empty_at_wf0001"))
