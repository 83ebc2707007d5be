"""`workflow-models …`, as a shell sees it."""

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest
from alembic.script import ScriptDirectory
from click.testing import CliRunner, Result

from tests.databases import Database
from workflow_models import metadata
from workflow_models.cli import main
from workflow_models.migrations import alembic_config

BOTH_TABLES = [table.name for table in metadata.sorted_tables]


def run(*arguments: str, env: Mapping[str, str | None] | None = None) -> Result:
    """In a pipe, with no database but the one that `env` names."""
    nowhere = {"DATABASE_URL": None, "MIGRATION_DATABASE_URL": None, "COLUMNS": None}
    return CliRunner().invoke(main, arguments, env={**nowhere, **(env or {})}, prog_name="workflow-models")


def show(database: Database, **env: str) -> str:
    shown = run("show", env={"DATABASE_URL": database.url(), **env})
    assert (shown.exit_code, shown.stderr) == (0, "")
    return shown.stdout


def names(database: Database, query: str) -> list[str]:
    return [row[0] for row in database.execute(query, {"tables": BOTH_TABLES})]


def test_show_names_the_revision_first(upgraded: Database) -> None:
    (head,) = ScriptDirectory.from_config(alembic_config()).get_heads()

    assert show(upgraded).startswith(f"revision {head} (head)\ndatabase {upgraded.name}, PostgreSQL ")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT attname FROM pg_attribute WHERE attrelid = ANY (%(tables)s::regclass[]) AND attnum > 0",
        "SELECT conname FROM pg_constraint WHERE conrelid = ANY (%(tables)s::regclass[]) AND contype <> 'n'",
        (
            "SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid"
            " WHERE indrelid = ANY (%(tables)s::regclass[])"
        ),
        "SELECT polname FROM pg_policy WHERE polrelid = ANY (%(tables)s::regclass[])",
        "SELECT tgname FROM pg_trigger WHERE tgrelid = ANY (%(tables)s::regclass[]) AND NOT tgisinternal",
        "SELECT stxname FROM pg_statistic_ext WHERE stxrelid = ANY (%(tables)s::regclass[])",
        (
            "SELECT DISTINCT grantee::regrole::text FROM pg_class, aclexplode(relacl)"
            " WHERE pg_class.oid = ANY (%(tables)s::regclass[]) AND grantee <> relowner"
        ),
    ],
    ids=["columns", "constraints", "indexes", "policies", "triggers", "statistics", "grants"],
)
def test_show_names_everything_on_both_tables(upgraded: Database, query: str) -> None:
    shown = show(upgraded)

    assert [name for name in names(upgraded, query) if name not in shown] == []


def test_show_stays_within_100_columns_and_sends_no_colours_into_a_pipe(upgraded: Database) -> None:
    shown = show(upgraded)

    assert [line for line in shown.splitlines() if len(line) > 100 or line != line.rstrip()] == []
    assert "\x1b" not in shown


def test_show_wraps_nothing_where_columns_says_so(upgraded: Database) -> None:
    constraint = (
        "FOREIGN KEY (workflow_id, organization_id) REFERENCES workflow_definitions(id, organization_id)"
        " ON UPDATE CASCADE ON DELETE CASCADE"
    )

    assert constraint in show(upgraded, COLUMNS="1000")
    assert constraint not in show(upgraded)


def test_show_says_which_index_and_which_constraint_do_not_hold(upgraded: Database) -> None:
    upgraded.execute(
        """
        ALTER TABLE workflow_execution_logs DROP CONSTRAINT workflow_execution_logs_status_check;
        ALTER TABLE workflow_execution_logs ADD CONSTRAINT workflow_execution_logs_status_check
            CHECK (status <> 'lost') NOT VALID;
        UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_workflow_exec_org_time'::regclass;
        """,
        user=upgraded.superuser,
    )

    shown = " ".join(show(upgraded, COLUMNS="1000").split())

    assert "workflow_execution_logs_status_check NOT VALID CHECK (status <> 'lost'::text)" in shown
    assert "idx_workflow_exec_org_time INVALID (organization_id, created_at DESC)" in shown
    assert shown.count("VALID") == 2


def test_show_says_which_trigger_is_disabled_and_where_row_security_is_off(upgraded: Database) -> None:
    upgraded.execute(
        """
        ALTER TABLE workflow_definitions DISABLE ROW LEVEL SECURITY;
        ALTER TABLE workflow_definitions DISABLE TRIGGER update_workflow_definitions_updated_at;
        """
    )

    shown = " ".join(show(upgraded).split())

    assert "row security off whoever has a grant sees every row" in shown
    assert "update_workflow_definitions_updated_at DISABLED BEFORE UPDATE FOR EACH ROW" in shown


def test_show_tells_grants_on_columns_and_the_sequence_from_those_on_the_table(upgraded: Database) -> None:
    upgraded.execute(
        """
        CREATE ROLE show_test;
        GRANT SELECT, UPDATE (status, duration_ms) ON workflow_execution_logs TO show_test;
        GRANT USAGE ON workflow_execution_logs_id_seq TO show_test WITH GRANT OPTION;
        """,
        user=upgraded.superuser,
    )
    try:
        shown = " ".join(show(upgraded).split())
    finally:
        upgraded.execute("DROP OWNED BY show_test; DROP ROLE show_test", user=upgraded.superuser)

    assert (
        "show_test SELECT, UPDATE (status, duration_ms), USAGE* ON SEQUENCE workflow_execution_logs_id_seq"
    ) in shown


def test_show_says_what_to_do_about_a_database_that_was_not_migrated(empty: Database) -> None:
    shown = run("show", "--url", empty.url())

    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr == (
        f"error: database {empty.name} has not been migrated.\n"
        "  Happened: workflow_private.alembic_version holds no revision.\n"
        "  Unchanged: everything; this command only reads.\n"
        "  Next: run `alembic upgrade head`, whatever tables there are already.\n"
    )


def test_show_does_not_repeat_a_password_that_fails(empty: Database) -> None:
    shown = run("show", "--url", empty.url(password="not-this-one", host="127.0.0.1"))

    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr.startswith("error: could not read postgresql+psycopg://")
    assert "not-this-one" not in shown.stderr
    assert "Traceback" not in shown.stderr


def test_show_refuses_another_kind_of_database() -> None:
    shown = run("show", "--url", "mysql://localhost/app")

    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "only PostgreSQL is supported" in shown.stderr


def test_the_diagram_has_every_column_and_every_foreign_key() -> None:
    diagram = run("diagram").stdout
    columns = [column.name for table in metadata.sorted_tables for column in table.columns]
    keys = [key for table in metadata.sorted_tables for key in table.foreign_key_constraints]

    assert diagram.startswith("erDiagram\n")
    assert [name for name in columns if f" {name}" not in diagram] == []
    assert diagram.count("--o{") == len(keys)


WITHOUT = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NotInstalled())
from workflow_models.cli import main
main({arguments!r}, prog_name="workflow-models")
"""


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [("click", ["--help"]), ("rich", ["show"]), ("alembic", ["show"]), ("psycopg", ["show"])],
)
def test_a_missing_extra_is_named(missing: str, arguments: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(missing=missing, arguments=arguments)],
        env={**os.environ, "DATABASE_URL": "postgresql://localhost/app"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"error: {missing} is not installed.\n  Next: pip install 'workflow-models[cli]'\n"


def test_python_m_runs_the_same_commands() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "workflow_models", "diagram"], capture_output=True, text=True, check=True
    )

    assert ran.stdout == run("diagram").stdout
