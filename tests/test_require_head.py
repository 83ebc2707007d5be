"""What a service asks when it starts: is this database at the revision that my package needs?"""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, NullPool, create_engine, event, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from tests.application.states import REVISIONS, at
from tests.databases import Database, Templates
from workflow_models.migrations import alembic_config, async_require_head, require_head
from workflow_models.revisions import RevisionError, RevisionUnknownError, known_revisions

HEAD = REVISIONS[-1]
SAY = "UPDATE workflow_private.alembic_version SET version_num = %(revision)s"
RUN = "run `workflow-models upgrade` on it."

# Each way to ask takes the database, who logs in, and what is accepted.
Ask = Callable[..., None]


def ask(database: Database, user: str = "app_owner", **accepted: Any) -> None:
    require_head(database.engine(user), **accepted)


def ask_async(driver: str) -> Ask:
    def ask(database: Database, user: str = "app_owner", **accepted: Any) -> None:
        url = make_url(database.url(user)).set(drivername=f"postgresql+{driver}")
        asyncio.run(async_require_head(create_async_engine(url, poolclass=NullPool), **accepted))

    return ask


each_way = pytest.mark.parametrize(
    "ask", [ask, ask_async("psycopg"), ask_async("asyncpg")], ids=["sync", "async psycopg", "asyncpg"]
)


@pytest.fixture(scope="module")
def at_head(templates: Templates) -> Iterator[Database]:
    """For tests that change nothing."""
    database = templates.clone("adopted_upgraded")
    yield database
    templates.drop(database)


def message(refused: pytest.ExceptionInfo[RevisionError]) -> list[str]:
    happened, unchanged, step = str(refused.value).split("\n")
    assert unchanged == "  Unchanged: everything; the database was only asked."
    return [happened, step.removeprefix("  Next: ")]


def test_the_files_are_named_in_the_order_of_the_chain() -> None:
    script = ScriptDirectory.from_config(alembic_config())

    assert known_revisions() == [found.revision for found in reversed(list(script.walk_revisions()))]
    assert script.get_heads() == known_revisions()[-1:]


def test_asking_needs_neither_alembic_nor_a_driver() -> None:
    program = (
        "import sys, workflow_models.revisions; print({'alembic', 'psycopg', 'asyncpg'} & sys.modules.keys())"
    )

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ran.stdout == "set()\n"


@each_way
@pytest.mark.parametrize("user", ["app_owner", "authenticator"])
def test_a_database_at_head_is_accepted(at_head: Database, ask: Ask, user: str) -> None:
    ask(at_head, user)


@pytest.mark.parametrize("role", ["authenticated", "workflow_worker", "service_role"])
def test_each_role_may_ask(at_head: Database, role: str) -> None:
    require_head(at_head.engine("authenticator", connect_args={"options": f"-c role={role}"}))


def test_asking_is_one_statement_that_reads(at_head: Database) -> None:
    engine = at_head.engine()
    engine.connect().close()  # what SQLAlchemy asks a server once
    sent: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *call: sent.append(call[2]))
    event.listen(engine, "begin", lambda _: sent.append("BEGIN"))

    require_head(engine)

    assert [statement for statement in sent if statement != "BEGIN"] == [
        "SELECT version_num FROM workflow_private.alembic_version ORDER BY version_num"
    ]


def test_asking_leaves_nothing_on_a_pooled_connection(at_head: Database) -> None:
    engine = create_engine(at_head.url("authenticator"), pool_size=1, max_overflow=0)
    try:
        require_head(engine)

        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT current_user").scalar() == "authenticator"
            assert connection.get_isolation_level() == connection.default_isolation_level
            assert connection.connection.dbapi_connection.autocommit is False  # type: ignore[union-attr]
    finally:
        engine.dispose()


@each_way
def test_an_older_database_is_refused(clone: Callable[[str], Database], ask: Ask) -> None:
    database = clone(at("adopted", REVISIONS[2]))

    with pytest.raises(RevisionError) as refused:
        ask(database)

    assert message(refused) == [
        f"database {database.name} is at {REVISIONS[2]}; this package needs {HEAD}.", RUN
    ]  # fmt: skip
    assert (refused.value.found, refused.value.required) == ((REVISIONS[2],), HEAD)


@each_way
def test_a_database_without_a_revision_is_refused(empty: Database, ask: Ask) -> None:
    with pytest.raises(RevisionError) as refused:
        ask(empty)

    assert message(refused) == [
        f"database {empty.name} has no revision of workflow-models; this package needs {HEAD}.", RUN
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "happened", "step"),
    [
        (
            "UPDATE workflow_private.alembic_version SET version_num = 'wf9999_later'",
            "is at wf9999_later, which is newer than this package;",
            "install the release that it was upgraded with; during a rolling deploy pass or_newer=True.",
        ),
        (
            "UPDATE workflow_private.alembic_version SET version_num = '0001_of_others'",
            "is at 0001_of_others, which this package does not know;",
            "check the URL, or install the release that has this revision.",
        ),
        (
            "INSERT INTO workflow_private.alembic_version VALUES ('0001_of_others')",
            f"says that it is at 2 revisions, 0001_of_others, {HEAD};",
            "delete from workflow_private.alembic_version what another chain has written.",
        ),
        ("DELETE FROM workflow_private.alembic_version", "has no revision of workflow-models;", RUN),
    ],
    ids=["newer", "unknown", "several", "none"],
)
def test_another_revision_is_refused(upgraded: Database, statement: str, happened: str, step: str) -> None:
    upgraded.execute(statement)

    with pytest.raises(RevisionError) as refused:
        ask(upgraded)

    assert message(refused) == [f"database {upgraded.name} {happened} this package needs {HEAD}.", step]


def test_a_window_is_accepted_and_nothing_outside_of_it(upgraded: Database) -> None:
    def accepted(**window: Any) -> list[str]:
        found = []
        for revision in [*REVISIONS, "wf9999_later", "0001_of_others"]:
            upgraded.execute(SAY, {"revision": revision})
            try:
                ask(upgraded, **window)
            except RevisionError:
                continue
            found.append(revision)
        return found

    assert accepted() == [HEAD]
    assert accepted(oldest=REVISIONS[3]) == REVISIONS[3:]
    assert accepted(or_newer=True) == [HEAD, "wf9999_later"]
    assert accepted(oldest=REVISIONS[0], or_newer=True) == [*REVISIONS, "wf9999_later"]


@each_way
def test_a_window_from_a_revision_that_there_is_not_is_an_error_of_the_caller(
    at_head: Database, ask: Ask
) -> None:
    with pytest.raises(ValueError, match=f"no revision 'wf0005'; there are {', '.join(REVISIONS)}"):
        ask(at_head, oldest="wf0005")


@each_way
def test_a_login_that_may_not_read_the_revision_is_told_what_to_run(upgraded: Database, ask: Ask) -> None:
    upgraded.execute(
        "REVOKE USAGE ON SCHEMA workflow_private FROM authenticated, workflow_worker, service_role"
    )

    with pytest.raises(RevisionUnknownError) as refused:
        ask(upgraded, "authenticator")

    happened, step = message(refused)
    assert happened.startswith(f"database {upgraded.name} could not be asked for its revision: ")
    assert "permission denied for schema workflow_private" in happened
    assert step == "GRANT workflow_worker, or another role that reads workflow_private, to this login."


def unreachable(database: Database) -> dict[str, str]:
    return {
        "no server": "postgresql://app_owner:not-this-one@127.0.0.1:1/app",
        "no such database": database.url().replace(database.name, "wm_no_such_database"),
        "a wrong password": database.url(password="not-this-one", host="127.0.0.1"),
    }


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("why", ["no server", "no such database", "a wrong password"])
def test_a_database_that_cannot_be_reached_is_said_to_be_so(at_head: Database, why: str, driver: str) -> None:
    url = make_url(unreachable(at_head)[why])
    engine: Engine = create_engine(url.set(drivername="postgresql+psycopg"), poolclass=NullPool)
    later = create_async_engine(url.set(drivername=f"postgresql+{driver}"), poolclass=NullPool)

    with pytest.raises(RevisionUnknownError, match="could not be asked for its revision") as refused:
        require_head(engine)
    with pytest.raises(RevisionUnknownError, match="could not be asked for its revision") as refused_later:
        asyncio.run(async_require_head(later))

    for error in (refused.value, refused_later.value):
        assert "not-this-one" not in str(error)
        assert error.next_step == "check the URL, and that the server runs and takes this login."
