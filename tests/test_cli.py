"""`workflow-models …`, as a shell sees it."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from click import Context
from click.testing import CliRunner, Result
from psycopg import sql

from tests.application.states import REVISIONS
from tests.command import alembic, ended, start
from tests.databases import OWNER, Database
from workflow_models import metadata
from workflow_models.cli import main
from workflow_models.online.locks import only_migrator
from workflow_models.online.options import Options
from workflow_models.typescript import interfaces

HEAD = REVISIONS[-1]
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
    assert show(upgraded).startswith(f"revision {HEAD} (head)\ndatabase {upgraded.name}, PostgreSQL ")


def test_a_database_that_knows_no_encoding_is_like_any_other(empty: Database) -> None:
    database = replace(empty, name=f"{empty.name}_ascii")
    name, owner = sql.Identifier(database.name), sql.Identifier(OWNER)
    with empty.connect(empty.superuser) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'").format(
                name, owner
            )
        )
        try:
            for command in ("upgrade", "check", "current", "show"):
                ran = run(command, "--url", database.url())
                assert (ran.exit_code, ran.exception) == (0, None)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {}").format(name))


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
        "  Next: run `workflow-models upgrade`, whatever tables there are already.\n"
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


@pytest.fixture
def old_runs(clone: Callable[[str], Database]) -> Database:
    """Three runs of 90 days ago: one of them still running, and one that another table points at."""
    database = clone("adopted_upgraded")
    database.execute(
        """
        DELETE FROM workflow_execution_logs;
        INSERT INTO workflow_execution_logs (workflow_id, status, created_at, execution_start)
        SELECT 'a0000000-0000-4000-9000-000000000001', status, old, old
        FROM CAST(now() - interval '90 days' AS timestamptz) AS old,
            unnest(ARRAY['success', 'error', 'running']) AS status;
        INSERT INTO workflow_execution_steps (execution_log_id, step_index, status)
        SELECT id, 1, 'ok' FROM workflow_execution_logs WHERE status = 'error'
        """
    )
    return database


def statuses(database: Database) -> list[str]:
    return names(database, "SELECT status FROM workflow_execution_logs ORDER BY status")


SWEEP = ["sweep", "--older-than", "2h"]
PRUNE = ["prune", "--older-than", "30d"]
KEPT = "Kept: 1 that other tables point at.\nKept: 1 still running, for `workflow-models sweep`."


@pytest.mark.parametrize(
    ("arguments", "printed", "left"),
    [
        (SWEEP, "1 run would be marked as error; --apply does it.", ["error", "running", "success"]),
        ([*SWEEP, "--apply"], "1 of 1 run marked as error.", ["error", "error", "success"]),
        (
            [*SWEEP, "--json"],
            '{"applied": false, "found": 1, "marked": 0}',
            ["error", "running", "success"],
        ),
        (
            PRUNE,
            f"1 run would be deleted; --apply does it.\n{KEPT}",
            ["error", "running", "success"],
        ),
        (
            [*PRUNE, "--apply"],
            f"1 run deleted.\n{KEPT}",
            ["error", "running"],
        ),
        (
            [*PRUNE, "--apply", "--status", "running", "--json"],
            '{"applied": true, "deletable": 1, "deleted": 1, "referenced": 0, "running": 0, "locked": 0}',
            ["error", "success"],
        ),
        (
            [*PRUNE, "--apply", "--organization", "b0000000-0000-4000-8000-000000000000"],
            "0 runs deleted.",
            ["error", "running", "success"],
        ),
        (["prune", "--older-than", "91d", "--apply"], "0 runs deleted.", ["error", "running", "success"]),
        (
            ["prune", "--older-than", "129000m"],
            f"1 run would be deleted; --apply does it.\n{KEPT}",
            ["error", "running", "success"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "-" in "".join(value) else "",
)
def test_sweep_and_prune_change_what_they_say(
    old_runs: Database, arguments: list[str], printed: str, left: list[str]
) -> None:
    ran = run(*arguments, env={"DATABASE_URL": old_runs.url()})

    assert (ran.exit_code, ran.stderr, ran.stdout) == (0, "", f"{printed}\n")
    assert statuses(old_runs) == left


@pytest.mark.parametrize("command", ["sweep", "prune"])
@pytest.mark.parametrize(
    "given", ["", "90", "d", "-1d", "0h", "1.5d", "90 d", "3w", "36501d", "99999999999d", "٣d"]
)
def test_what_is_not_a_duration_is_a_usage_error(command: str, given: str) -> None:
    ran = run(command, "--older-than", given)

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.endswith(
        f"Error: Invalid value for '--older-than': {given!r} is not a duration like 90d, 12h or 30m, "
        "of at most 36500d.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune"], "Missing option '--older-than'."),
        ([*PRUNE, "--organization", "acme"], "'acme' is not a valid UUID."),
        ([*PRUNE, "--status", "failed"], "'failed' is not one of 'running', 'success', 'error', 'partial'."),
    ],
    ids=["no age", "organization", "status"],
)
def test_an_option_that_prune_does_not_understand_is_a_usage_error(
    arguments: list[str], message: str
) -> None:
    ran = run(*arguments)

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.endswith(f"{message}\n")
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("arguments", [SWEEP, PRUNE], ids=["sweep", "prune"])
def test_sweep_and_prune_say_why_they_do_not_run(empty: Database, arguments: list[str]) -> None:
    ran = run(*arguments, "--url", empty.url())

    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr == (
        f"error: database {empty.name} has no table workflow_execution_logs.\n"
        "  Unchanged: everything.\n"
        "  Next: check the URL, or run `workflow-models upgrade` first.\n"
    )


def test_a_database_is_upgraded_compared_and_downgraded(empty: Database) -> None:
    env = {"DATABASE_URL": empty.url()}
    assert run("current", env=env).stdout == f"base (head is {HEAD})\n"

    upgraded = run("upgrade", env=env)

    assert (upgraded.exit_code, upgraded.stdout) == (0, "")
    assert [line[:6] for line in upgraded.stderr.splitlines()] == [
        "from: ",
        *(f"+ {r[:4]}" for r in REVISIONS),
    ]
    assert run("current", env=env).stdout == f"{HEAD} (head)\n"
    checked = run("check", env=env)
    assert (checked.exit_code, checked.stdout, checked.stderr) == (
        0,
        "The database is as the models say.\n",
        "",
    )

    assert logging.getLogger("workflow_models").handlers == []

    downgraded = run("downgrade", REVISIONS[1], "--url", empty.url())

    assert downgraded.exit_code == 0
    assert json.loads(run("current", "--json", env=env).stdout) == {
        "revisions": [REVISIONS[1]],
        "head": HEAD,
        "at_head": False,
    }


def test_a_refused_downgrade_names_the_option_that_allows_it(clone: Callable[[str], Database]) -> None:
    database = clone("adopted_upgraded")

    refused = run("downgrade", "wf0001_create_workflow_tables", "--url", database.url())
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.endswith("  Next: back it up; if it may go, add --allow-data-loss.\n")

    allowed = run("downgrade", "wf0001_create_workflow_tables", "--url", database.url(), "--allow-data-loss")
    assert allowed.exit_code == 0


def test_check_names_what_differs_but_for_what_may(upgraded: Database) -> None:
    upgraded.execute("CREATE INDEX slow ON workflow_execution_logs (error_details)")
    env = {"DATABASE_URL": upgraded.url()}

    checked = run("check", env=env)

    assert (checked.exit_code, checked.stdout) == (1, "")
    assert checked.stderr == (
        "error: the database differs from the models.\n"
        "  Happened:\n"
        "    index slow on workflow_execution_logs: found, not declared\n"
        "  Unchanged: everything; the database was only looked at.\n"
        "  Next: undo by hand what was done by hand; or, what may stay, name after --allow.\n"
    )
    as_json = run("check", "--json", env=env)
    found = {"differences": ["index slow on workflow_execution_logs: found, not declared"]}
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (1, found)
    assert run("check", "--allow", "index slow on workflow_execution_logs", env=env).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "of_alembic"),
    [
        ([], ["upgrade", "head"]),
        (["--from", "wf0004_backfill_organization_id"], ["upgrade", "wf0004_backfill_organization_id:head"]),
        (
            ["--from", "head", "--to", "base", "--allow-data-loss", "--lock-timeout-ms", "50"],
            ["-x", "allow-data-loss=true", "-x", "lock-timeout-ms=50", "downgrade", f"{HEAD}:base"],
        ),
    ],
    ids=["all", "from one on", "down"],
)
def test_sql_is_what_alembic_writes(arguments: list[str], of_alembic: list[str], tmp_path: Path) -> None:
    script = tmp_path / "script.sql"

    written = run("sql", *arguments, "-o", str(script))

    assert (written.exit_code, written.output) == (0, "")
    assert script.read_text() == run("sql", *arguments).stdout
    assert script.read_text().split() == alembic(*of_alembic, "--sql").stdout.split()


def test_the_types_are_written_and_compared(tmp_path: Path) -> None:
    file = tmp_path / "types.ts"
    assert run("typescript", "--output", str(file)).exit_code == 0
    assert file.read_text() == run("typescript").stdout == interfaces()
    assert run("typescript", "--check", str(file)).output == ""
    file.write_text(interfaces().replace("duration_ms: number", "duration_ms: string"))

    stale = run("typescript", "--check", str(file))

    assert (stale.exit_code, stale.stdout) == (1, "")
    assert stale.stderr.startswith(f"error: {file} is not what the models say.\n")
    assert "    -    duration_ms: string | null;\n    +    duration_ms: number | null;\n" in stale.stderr
    assert stale.stderr.endswith(
        f"  Unchanged: that file.\n  Next: run `workflow-models typescript --output {file}`, and commit it.\n"
    )


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file or directory"), (b"\xff", "it is not UTF-8")]
)
def test_types_that_cannot_be_compared_are_an_error(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "types.ts"
    if content is not None:
        file.write_bytes(content)

    checked = run("typescript", "--check", str(file))

    assert (checked.exit_code, checked.stdout) == (1, "")
    assert checked.stderr == (
        f"error: {file} cannot be compared: {reason}.\n"
        f"  Next: run `workflow-models typescript --output {file}`, and commit it.\n"
    )


@pytest.mark.parametrize("command", ["sql", "typescript"])
def test_a_file_that_cannot_be_written_is_named(command: str, tmp_path: Path) -> None:
    file = tmp_path / "missing" / "file"

    written = run(command, "--output", str(file))

    assert (written.exit_code, written.stdout) == (1, "")
    assert written.stderr == (
        f"error: {file} could not be written.\n"
        "  Happened: No such file or directory.\n"
        "  Unchanged: all else; no database was asked.\n"
        "  Next: name another file.\n"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
@pytest.mark.parametrize("command", ["--help", "typescript"])
def test_an_output_that_cannot_be_written_is_one_message(command: str) -> None:
    expect_one_message(command)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
@pytest.mark.parametrize("command", ["current --json", "show"])
def test_what_is_said_of_a_database_and_cannot_be_written_is_one_message(
    upgraded: Database, command: str
) -> None:
    expect_one_message(command, DATABASE_URL=upgraded.url())


def expect_one_message(command: str, **environment: str) -> None:
    # Buffered, as for anyone: what is left in the buffer is not tried a second time when Python ends.
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "workflow_models", *command.split()],
            env={**os.environ, **environment, "PYTHONUNBUFFERED": ""},
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip

    assert ran.returncode == 1
    assert ran.stderr == (
        "error: the output could not be written.\n"
        "  Happened: No space left on device.\n"
        "  Unchanged: what the command did stays done; only its output is cut short.\n"
        "  Next: make room, or send the output elsewhere, and run it again.\n"
    )


def test_a_database_that_is_newer_than_the_package_is_told_by_each_command(upgraded: Database) -> None:
    upgraded.execute("UPDATE workflow_private.alembic_version SET version_num = 'wf9999_from_the_future'")
    env = {"DATABASE_URL": upgraded.url()}

    for command in (["upgrade"], ["downgrade", "base"], ["check"]):
        ran = run(*command, env=env)
        assert (ran.exit_code, ran.stdout) == (1, "")
        assert ran.stderr.startswith(
            "error: the database is at wf9999_from_the_future, which these revisions do not know.\n"
        )
    for command in (SWEEP, PRUNE):
        ran = run(*command, "--apply", env=env)
        assert (ran.exit_code, ran.stdout) == (1, "")
        assert ran.stderr.startswith(
            f"error: database {upgraded.name} is at wf9999_from_the_future, which is newer than this package"
        )
    assert run("current", env=env).stdout == f"wf9999_from_the_future (head is {HEAD})\n"


EVERY = [["upgrade"], ["downgrade", "base"], ["current"], ["check"], ["show"], SWEEP, PRUNE]


@pytest.mark.parametrize("arguments", EVERY, ids=lambda arguments: arguments[0])
def test_a_server_that_does_not_answer_is_one_message(arguments: list[str]) -> None:
    ran = run(*arguments, "--url", "postgresql://owner:secret@127.0.0.1:1/app")

    assert (ran.exit_code, ran.stdout) == (1, "")
    assert isinstance(ran.exception, SystemExit)
    assert ran.stderr.startswith("error: ")
    assert "\n  Next: " in ran.stderr
    assert "secret" not in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["upgarde"], 2, "Error: No such command 'upgarde'. Did you mean 'upgrade'?"),
        (
            ["upgrade", "--lock-tries", "0"],
            2,
            "Error: Invalid value for '--lock-tries': 0 is not in the range x>=1.",
        ),
        (["typescript", "-o", "a", "--check", "b"], 2, "Error: --check writes nothing: leave --output out."),
        (["sql", "--from", "wf0009"], 1, "error: Alembic cannot do that."),
    ],
    ids=["a command", "an option", "two options", "a revision"],
)
def test_what_is_misspelt_is_told(arguments: list[str], status: int, message: str) -> None:
    ran = run(*arguments)

    assert (ran.exit_code, ran.stdout) == (status, "")
    assert message in ran.stderr.splitlines()


def test_help_lists_every_command() -> None:
    assert sorted(main.list_commands(Context(main))) == sorted(main.commands)
    assert [name for name in main.commands if f"\n  {name} " not in run("--help").stdout] == []


def test_history_lists_the_revisions_from_the_last_to_the_first() -> None:
    listed = [line.split()[0] for line in run("history").stdout.splitlines()]

    assert listed == REVISIONS[::-1]


def test_an_error_is_coloured_on_a_terminal_only() -> None:
    arguments = ["show", "--url", "mysql://localhost/app"]

    assert "\x1b" not in run(*arguments).stderr
    assert "\x1b[31m" in CliRunner().invoke(main, arguments, color=True).stderr


def test_an_interrupted_upgrade_ends_with_130(upgraded: Database) -> None:
    lock = "workflow_private.alembic_version"
    with upgraded.engine().connect() as first, only_migrator(first, lock, Options()):
        waiting = start("-m", "workflow_models", "downgrade", "base", env={"DATABASE_URL": upgraded.url()})
        assert waiting.stderr is not None
        told = waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        ran = ended(waiting)

    assert told.startswith("waiting for another migrator: ")
    assert (ran.status, ran.stdout) == (130, "")
    assert ran.stderr.startswith("error: interrupted.\n")


def test_a_shell_completes_commands() -> None:
    completing = {
        "_WORKFLOW_MODELS_COMPLETE": "bash_complete",
        "COMP_WORDS": "workflow-models s",
        "COMP_CWORD": "1",
    }

    ran = ended(start("-m", "workflow_models", env=completing))

    assert ran.stdout.splitlines() == ["plain,sql", "plain,show", "plain,sweep"]


def test_python_m_runs_the_same_commands() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "workflow_models", "diagram"], capture_output=True, text=True, check=True
    )

    assert ran.stdout == run("diagram").stdout
