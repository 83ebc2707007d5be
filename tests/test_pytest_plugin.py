"""The pytest plugin: what a service's tests get from it, what it leaves, and what it says when it cannot.

Whole test sessions run on the server of this one, except where the plugin is to start its own.
"""

import functools
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Engine, NullPool, create_engine, make_url, text
from sqlalchemy.exc import IntegrityError

from tests.application import script
from tests.databases import Database
from workflow_models import embedded, migrations
from workflow_models.testing import Database as PluginDatabase
from workflow_models.testing import Databases, Rows, TestingError, serve

pytest_plugins = ["pytester"]

SERVICE = """
from sqlalchemy import select, text
from workflow_models import WorkflowDefinition

def test_a_database_of_its_own(workflow_rows, workflow_sessions):
    acme, globex = workflow_rows.organization("Acme"), workflow_rows.organization("Globex")
    ada = workflow_rows.user(acme)
    workflow_rows.definition(globex)
    mine = workflow_rows.definition(acme)
    for tenant in ({"user": ada}, {"organization": acme}):
        with workflow_sessions(**tenant) as session:
            assert session.scalars(select(WorkflowDefinition.id)).all() == [mine.id]

def test_nothing_of_the_one_before(workflow_owner_engine):
    with workflow_owner_engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM workflow_definitions")) == 0

async def read(open_session, user):
    async with open_session(user=user) as session:
        return (await session.scalars(select(WorkflowDefinition.name))).all()

def test_asyncio(workflow_rows, workflow_async_sessions):
    import asyncio
    acme = workflow_rows.organization()
    workflow_rows.definition(acme, name="Welcome mail")
    found = asyncio.run(read(workflow_async_sessions, workflow_rows.user(acme)))
    assert found == ["Welcome mail"]
"""


@pytest.fixture
def left(workflow_server_url: str) -> Callable[[], list[str]]:
    """What the plugin has made on the server in this process."""
    engine = create_engine(workflow_server_url, poolclass=NullPool)

    def left() -> list[str]:
        with engine.connect() as connection:
            names = connection.scalars(
                text("SELECT datname FROM pg_database UNION ALL SELECT rolname FROM pg_roles")
            ).all()
        return sorted(name for name in names if name.startswith(f"workflow_test_{os.getpid()}_"))

    return left


def upgrade(database: PluginDatabase) -> None:
    migrations.upgrade(database.url)


def adopt(database: PluginDatabase) -> None:
    """As a service does that has tables of its own: they come first."""
    with create_engine(database.url, poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql(script("base"))
    migrations.upgrade(database.url)


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Run the tests that `pytester` holds, in this process, with warnings as errors."""
    # Of the plugins that are installed here, the one that takes seconds to sum up.
    return functools.partial(pytester.runpytest, "-p", "no:hypothesispytest", "-W", "error")


# Loading it.


def test_loading_the_plugin_imports_nothing_but_itself() -> None:
    code = """
import importlib.metadata, sys, pytest
before = set(sys.modules)
[plugin] = importlib.metadata.entry_points(group="pytest11", name="workflow_models")
plugin.load()
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)

    assert (done.stdout.split(), done.stderr) == (["workflow_models_pytest"], "")


def test_a_project_that_does_not_use_it_notices_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys

        def test_nothing_is_imported():
            assert not [name for name in sys.modules if name.startswith("workflow_models.")]
    """)

    result = pytester.runpytest_subprocess(
        "-p", "no:hypothesispytest", "-W", "error", "--strict-config", "--strict-markers"
    )

    result.assert_outcomes(passed=1)
    assert "workflow" not in re.sub(r"(?m)^(plugins|rootdir): .*", "", result.stdout.str()).lower()


# Sessions of tests.


@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_service_has_a_new_database_for_each_test_and_nothing_is_left(
    pytester: pytest.Pytester,
    run: Callable[..., pytest.RunResult],
    workflow_server_url: str,
    left: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    by: str,
) -> None:
    pytester.makepyfile(SERVICE)
    before = left()
    if by == "environment":
        monkeypatch.setenv("WORKFLOW_TEST_DATABASE_URL", workflow_server_url)

    result = run(*([f"--workflow-database-url={workflow_server_url}"] if by == "option" else []))

    result.assert_outcomes(passed=3)
    assert left() == before


def test_the_example_in_the_documents_passes(
    pytester: pytest.Pytester, run: Callable[..., pytest.RunResult], workflow_server_url: str
) -> None:
    section = (Path(__file__).parents[1] / "docs/services.md").read_text().partition("## Testing")[2]
    test, _, prepare = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[:3]
    pytester.makepyfile(test)
    pytester.makeconftest(f"import pytest\n{prepare}")

    run(f"--workflow-database-url={workflow_server_url}").assert_outcomes(passed=1)


@pytest.mark.skipif(not embedded.installed(), reason="needs the `embedded` extra")
def test_without_a_url_a_server_is_started_and_gone_with_its_data() -> None:
    with serve() as url:
        folder = Path(str(make_url(url).query["host"]))
        with Databases(url, upgrade) as databases, databases.clone() as database:
            engine = create_engine(database.service_url, poolclass=NullPool)
            with engine.connect() as connection:
                assert connection.scalar(text("SHOW server_version_num")).startswith(embedded.MAJOR_VERSION)

    assert not folder.exists()


def test_a_service_brings_a_server_and_migrations_of_its_own(
    pytester: pytest.Pytester, run: Callable[..., pytest.RunResult], workflow_server_url: str
) -> None:
    pytester.makeconftest(f"""
        import pytest
        from sqlalchemy import create_engine
        from workflow_models import migrations

        @pytest.fixture(scope="session")
        def workflow_server_url():
            return {workflow_server_url!r}

        @pytest.fixture(scope="session")
        def workflow_prepare_template():
            engines = []

            def prepare(database):
                migrations.upgrade(database.url)
                engines.append(create_engine(database.url))
                with engines[0].begin() as connection:  # which the pool keeps open
                    connection.exec_driver_sql("CREATE TABLE of_the_service AS SELECT 1 AS seed")

            yield prepare
            engines[0].dispose()
    """)
    pytester.makepyfile("""
        from sqlalchemy import text

        def test_its_own_table_is_there(workflow_owner_engine):
            with workflow_owner_engine.connect() as connection:
                assert connection.scalar(text("SELECT seed FROM of_the_service")) == 1
    """)

    run().assert_outcomes(passed=1)


def test_sessions_share_a_new_server_as_the_workers_of_xdist_do(empty_on_new_cluster: Database) -> None:
    url = empty_on_new_cluster.url(empty_on_new_cluster.superuser)
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        made = [Databases(url, upgrade) for _ in range(4)]
        list(threads.map(stack.enter_context, made))
        names = [stack.enter_context(databases.clone()).name for databases in made for _ in range(2)]
        assert len(set(names)) == 8

    roles = empty_on_new_cluster.execute("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1")
    assert roles == [("app_owner",), ("authenticated",), ("postgres",), ("workflow_worker",)]


@pytest.fixture
def administrator(workflow_server_url: str) -> Iterator[str]:
    """The URL of one who is no superuser, as managed servers have them."""
    engine = create_engine(workflow_server_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    name, password = f"wm_administrator_{secrets.token_hex(4)}", "secret"
    with engine.connect() as connection:
        for statement in (
            f"CREATE ROLE {name} LOGIN CREATEDB CREATEROLE PASSWORD '{password}'",
            f"GRANT authenticated, workflow_worker TO {name} WITH ADMIN OPTION",
        ):
            connection.exec_driver_sql(statement)
        yield engine.url.set(username=name, password=password).render_as_string(hide_password=False)
        connection.exec_driver_sql(f"DROP ROLE {name}")


def test_an_administrator_who_is_no_superuser_is_enough(administrator: str) -> None:
    with Databases(administrator, upgrade) as databases, databases.clone() as database:
        rows = Rows(create_engine(database.url, poolclass=NullPool))
        assert rows.definition(rows.organization()).id


# The logins and the rows.


def test_neither_login_is_above_row_level_security_and_the_services_owns_nothing(
    workflow_database: PluginDatabase,
) -> None:
    for url, owns in ((workflow_database.url, True), (workflow_database.service_url, False)):
        with create_engine(url, poolclass=NullPool).connect() as connection:
            found = connection.execute(
                text("""
                    SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb AS may_more,
                        EXISTS (
                            SELECT FROM pg_class WHERE relname = 'workflow_execution_logs'
                                AND pg_has_role(current_user, relowner, 'MEMBER')
                        ) AS owns
                    FROM pg_roles WHERE rolname = current_user
                """)
            ).one()
        assert tuple(found) == (False, owns)


def test_rows_beside_the_tables_of_an_application(workflow_server_url: str) -> None:
    with Databases(workflow_server_url, adopt) as databases, databases.clone() as database:
        rows = Rows(create_engine(database.url, poolclass=NullPool))
        acme = rows.organization("Acme")
        ada = rows.user(acme, "admin", full_name="Ada")
        log = rows.execution(rows.definition(acme), duration_ms=7)

        assert (log.organization_id, log.duration_ms) == (acme, 7)
        with create_engine(database.url, poolclass=NullPool).connect() as connection:
            profile = connection.execute(text("SELECT id, organization_id, role, full_name FROM profiles"))
            assert profile.all() == [(ada, acme, "admin", "Ada")]
        with pytest.raises(IntegrityError, match='null value in column "created_at"'):
            rows.organization(created_at=None)


def test_a_column_of_the_role_may_have_its_later_name(
    workflow_rows: Rows, workflow_owner_engine: Engine
) -> None:
    with workflow_owner_engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE profiles RENAME role TO user_role")

    user = workflow_rows.user(workflow_rows.organization(), "super_admin")

    with workflow_owner_engine.connect() as connection:
        assert connection.execute(text("SELECT id, user_role FROM profiles")).all() == [(user, "super_admin")]


# What it says.


def nothing(database: PluginDatabase) -> None:
    pass


def fail(database: PluginDatabase) -> None:
    with create_engine(database.url, poolclass=NullPool).connect() as connection:
        connection.exec_driver_sql("SELECT nothing")


def with_login(url: str, login: str) -> str:
    return make_url(url).set(username=login).render_as_string(hide_password=False)


ADMINISTRATOR = (
    "give the URL of a superuser; or of a role with CREATEDB and CREATEROLE, which has ADMIN OPTION for "
    "authenticated and workflow_worker where others have made these."
)
PREPARE = "mend what `workflow_prepare_template` does, or what it runs on."
FAILURES: dict[str, tuple[Callable[[str], str], Callable[[PluginDatabase], None], str, str]] = {
    "no server": (
        lambda _: "postgresql://postgres:hidden@127.0.0.1:1/postgres",
        upgrade,
        r"the server to test on does not answer at postgresql\+psycopg://postgres:\*\*\*@127.0.0.1:1/.*refused.*",
        "start it, or correct the URL.",
    ),
    "another database": (
        lambda _: "sqlite://",
        upgrade,
        "what is given for the server to test on is not a URL of PostgreSQL.",
        "give one like postgresql://postgres:password@host:5432/postgres.",
    ),
    "no roles": (
        lambda url: with_login(url, "authenticator"),
        upgrade,
        "authenticator may not make the tests' roles or databases: permission denied to create role.*",
        ADMINISTRATOR,
    ),
    "a migration fails": (
        lambda url: url,
        fail,
        'the template database of the tests could not be prepared: column "nothing" does not exist.*',
        PREPARE,
    ),
    "nothing is migrated": (
        lambda url: url,
        nothing,
        "the template database of the tests could not be prepared: .*workflow-models upgrade.*",
        PREPARE,
    ),
}


@pytest.mark.parametrize(("url", "prepare", "happened", "next_step"), FAILURES.values(), ids=FAILURES)
def test_what_keeps_tests_from_their_database_is_said_and_leaves_nothing(
    workflow_server_url: str,
    left: Callable[[], list[str]],
    url: Callable[[str], str],
    prepare: Callable[[PluginDatabase], None],
    happened: str,
    next_step: str,
) -> None:
    before = left()

    with pytest.raises(TestingError) as caught, Databases(url(workflow_server_url), prepare):
        pass

    assert re.fullmatch(happened, caught.value.happened, re.DOTALL)
    assert caught.value.next_step == next_step
    assert left() == before


def test_without_a_url_and_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "binaries", lambda: None)

    with pytest.raises(TestingError) as caught, serve():
        pass

    assert str(caught.value) == (
        "there is no PostgreSQL to test on: no URL is given, and the embedded server is not installed.\n"
        "  Unchanged: what was made for the tests on the server is dropped.\n"
        '  Next: pip install "workflow-models[pytest]", or give '
        "--workflow-database-url=postgresql://postgres@host/postgres"
    )


@pytest.mark.parametrize(
    ("fixture", "without", "said"),
    [
        ("workflow_sessions", None, "what is given for the server to test on is not a URL of PostgreSQL."),
        ("workflow_sessions", "workflow_models.testing", 'pip install "workflow-models[pytest]"'),
        ("workflow_sessions", "psycopg", 'pip install "workflow-models[pytest]"'),
        ("workflow_async_sessions", "sqlalchemy.ext.asyncio", 'pip install "workflow-models[asyncio]"'),
    ],
    ids=["no server", "no extra", "no driver", "no asyncio"],
)
def test_a_fixture_that_cannot_serve_says_so_without_a_traceback(
    pytester: pytest.Pytester,
    run: Callable[..., pytest.RunResult],
    workflow_server_url: str,
    monkeypatch: pytest.MonkeyPatch,
    fixture: str,
    without: str | None,
    said: str,
) -> None:
    if without:
        monkeypatch.setitem(sys.modules, without, None)
    pytester.makepyfile(f"def test_one({fixture}): ...")

    result = run(f"--workflow-database-url={workflow_server_url if without else 'sqlite://'}")

    result.assert_outcomes(errors=1)
    assert said in result.stdout.str()
    assert "workflow_models_pytest.py" not in result.stdout.str()


def test_the_embedded_server_says_why_it_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in ("initdb", "postgres"):
        (tmp_path / program).write_text("#!/bin/sh\necho no room; exit 1\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setattr(embedded, "binaries", lambda: tmp_path)
    monkeypatch.setattr(embedded, "server_account", lambda: None)

    with pytest.raises(TestingError, match=r"the embedded server does not start: .*initdb failed:\nno room"):
        serve().__enter__()
