"""`assert_invisible`: it passes where a tenant cannot see, and fails where that was not shown.

Its subjects are our own readers, each as a user and as a worker, by the fixtures that a service uses.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

import pytest
from sqlalchemy import Engine, NullPool, create_engine, func, select, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from workflow_models import ExecutionStatus
from workflow_models import WorkflowDefinition as Definition
from workflow_models import WorkflowExecutionLog as Log
from workflow_models.executions import async_executions, executions, failed_executions
from workflow_models.tenancy import AsyncTenantSessionmaker, TenantSessionmaker
from workflow_models.testing import Database, Databases, Rows, assert_invisible, async_assert_invisible

Tenant: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Organization:
    id: UUID
    user: UUID
    workflow: Definition
    log: Log

    def __getitem__(self, kind: str) -> Tenant:
        return {"user": self.user} if kind == "user" else {"organization": self.id}


@pytest.fixture(scope="module")
def database(workflow_databases: Databases) -> Iterator[Database]:
    """For tests that commit nothing."""
    with workflow_databases.clone() as database:
        yield database


@pytest.fixture(scope="module")
def owner_engine(database: Database) -> Iterator[Engine]:
    engine = create_engine(database.url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def rows(owner_engine: Engine) -> Rows:
    return Rows(owner_engine)


@pytest.fixture(scope="module")
def sessions(database: Database) -> Iterator[TenantSessionmaker]:
    engine = create_engine(database.service_url)
    yield TenantSessionmaker(engine)
    engine.dispose()


def organization(rows: Rows) -> Organization:
    id = rows.organization()
    workflow = rows.definition(id)
    log = rows.execution(workflow, status=ExecutionStatus.ERROR, trigger_data={})
    return Organization(id, rows.user(id, "admin"), workflow, log)


@pytest.fixture(scope="module")
def acme(rows: Rows) -> Organization:
    return organization(rows)


@pytest.fixture(scope="module")
def globex(rows: Rows) -> Organization:
    return organization(rows)


READERS: dict[str, tuple[str, Any]] = {
    "select": ("log", select(Log)),
    "columns": ("log", select(Log.status, Log.id)),
    "a Core table": ("log", select(Log.__table__)),
    "text": ("log", text("SELECT * FROM workflow_execution_logs")),
    "workflows": ("workflow", lambda session: session.scalars(select(Definition)).all()),
    "ids": ("workflow", lambda session: session.scalars(select(Definition.id))),
    "texts of ids": ("workflow", text("SELECT id::text AS named FROM workflow_definitions")),
    "dictionaries": (
        "log",
        lambda session: {"logs": [{"id": log.id} for log in session.scalars(select(Log))]},
    ),
    "executions": ("log", executions),
    "failed executions": ("log", failed_executions),
}


@pytest.mark.parametrize("kind", ["user", "worker"])
@pytest.mark.parametrize(("table", "query"), READERS.values(), ids=READERS)
def test_no_reader_shows_another_tenants_row(
    sessions: TenantSessionmaker, acme: Organization, globex: Organization, kind: str, table: str, query: Any
) -> None:
    with sessions(**acme[kind]) as to, sessions(**globex[kind]) as owner:
        assert_invisible(query, row=getattr(globex, table), to=to, owner=owner)


def test_none_does_in_asyncio(database: Database, acme: Organization, globex: Organization) -> None:
    async def names(session: AsyncSession) -> Any:
        return await session.scalars(select(Definition.id))

    async def check() -> None:
        engine = create_async_engine(database.service_url)
        sessions = AsyncTenantSessionmaker(engine)
        async with sessions(**acme["user"]) as to, sessions(**globex["worker"]) as owner:
            await async_assert_invisible(select(Log), row=globex.log, to=to, owner=owner)
            await async_assert_invisible(async_executions, row=globex.log, to=to, owner=owner)
            await async_assert_invisible(names, row=globex.workflow, to=to, owner=owner)
            with pytest.raises(AssertionError, match="which is another tenant's"):
                await async_assert_invisible(select(Log), row=acme.log, to=to, owner=to)
        await engine.dispose()

    asyncio.run(check())


@pytest.mark.parametrize(("table", "query"), READERS.values(), ids=READERS)
def test_a_leak_is_seen_however_the_query_gives_its_rows(
    sessions: TenantSessionmaker, rows: Rows, acme: Organization, globex: Organization, table: str, query: Any
) -> None:
    leaking = sessions(user=rows.user(acme.id, "super_admin"), every_organization=True)
    row = getattr(globex, table)

    with leaking as to, sessions(**globex["user"]) as owner, pytest.raises(AssertionError) as failed:
        assert_invisible(query, row=row, to=to, owner=owner)

    told, gave = str(failed.value).split("\n  The query gave ")
    assert told == (
        f"the user {to.user} sees the row of {row.__tablename__} with id = {row.id}, "
        "which is another tenant's."
    )
    assert gave


def test_a_number_that_happens_to_be_the_same_is_no_leak(
    sessions: TenantSessionmaker, rows: Rows, acme: Organization, globex: Organization
) -> None:
    rows.execution(acme.workflow, retry_count=globex.log.id)

    with sessions(**acme["user"]) as to, sessions(**globex["user"]) as owner:
        assert_invisible(select(Log.id, Log.retry_count), row=globex.log, to=to, owner=owner)


class Service(DeclarativeBase):
    pass


class Plan(Service):
    """Of a service: its key is of two columns, one of which has another name here."""

    __tablename__ = "plans"
    owner: Mapped[UUID] = mapped_column("organization_id", primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)


@pytest.mark.parametrize(
    ("policy", "leaks"),
    [("organization_id = (SELECT workflow_private.worker_organization())", False), ("true", True)],
    ids=["confined", "open to all"],
)
@pytest.mark.parametrize(
    "query",
    [select(Plan), select(Plan.number, Plan.owner), text("SELECT * FROM plans")],
    ids=["objects", "attributes", "columns"],
)
def test_a_table_of_the_service_is_judged_too(
    workflow_owner_engine: Engine,
    workflow_rows: Rows,
    workflow_sessions: TenantSessionmaker,
    policy: str,
    leaks: bool,
    query: Any,
) -> None:
    acme, globex = workflow_rows.organization(), workflow_rows.organization()
    with workflow_owner_engine.begin() as connection:
        Service.metadata.create_all(connection)
        connection.exec_driver_sql("ALTER TABLE plans ENABLE ROW LEVEL SECURITY")
        connection.exec_driver_sql(f"CREATE POLICY own ON plans TO workflow_worker USING ({policy})")
        connection.exec_driver_sql("GRANT SELECT ON plans TO workflow_worker")
    with Session(workflow_owner_engine, expire_on_commit=False) as session:
        session.add_all([Plan(owner=acme, number=1), plan := Plan(owner=globex, number=1)])
        session.commit()

    expected: AbstractContextManager[Any] = (
        pytest.raises(AssertionError, match="sees the row of plans") if leaks else nullcontext()
    )
    with (
        workflow_sessions(organization=acme) as to,
        workflow_sessions(organization=globex) as owner,
        expected,
    ):
        assert_invisible(query, row=plan, to=to, owner=owner)


# What would prove nothing.


@pytest.mark.parametrize(
    "query",
    [
        select(Log).where(Log.status == ExecutionStatus.SUCCESS),
        # A number is no row, even where it is the number of the row.
        lambda session: session.scalars(select(Log.id)).all(),
        select(func.max(Log.id)),
        lambda session: None,
    ],
    ids=["an empty result", "bare numbers", "an aggregate", "nothing"],
)
def test_a_row_that_its_owner_does_not_see_proves_nothing(
    sessions: TenantSessionmaker, acme: Organization, globex: Organization, query: Any
) -> None:
    with (
        sessions(**acme["user"]) as to,
        sessions(**globex["user"]) as owner,
        pytest.raises(AssertionError, match=r"^this proves nothing: the query does not show the row of "),
    ):
        assert_invisible(query, row=globex.log, to=to, owner=owner)


def test_a_row_that_is_gone_proves_nothing(sessions: TenantSessionmaker, rows: Rows) -> None:
    one, other = organization(rows), organization(rows)
    with sessions.begin(user=other.user) as session:
        session.delete(session.get_one(Definition, other.workflow.id))

    with (
        sessions(**one["user"]) as to,
        sessions(**other["user"]) as owner,
        pytest.raises(AssertionError) as failed,
    ):
        assert_invisible(select(Log), row=other.log, to=to, owner=owner)

    assert str(failed.value) == (
        "this proves nothing: the query does not show the row of workflow_execution_logs with id = "
        f"{other.log.id} to its owner.\n"
        "  It gave []\n"
        "  Next: give the owner= that sees it, and a query that would show it, by its primary key."
    )


def test_a_row_that_is_not_committed_proves_nothing(
    sessions: TenantSessionmaker, acme: Organization, globex: Organization
) -> None:
    with sessions(**acme["user"]) as to, sessions(**globex["user"]) as owner:
        log = Log(workflow_id=globex.workflow.id, status=ExecutionStatus.RUNNING)
        owner.add(log)
        owner.flush()

        with pytest.raises(AssertionError) as failed:
            assert_invisible(select(Log), row=log, to=to, owner=owner)

        assert str(failed.value) == (
            "this proves nothing: the owner's session has written and not committed, and until then nobody "
            f"else can see the row of workflow_execution_logs with id = {log.id}.\n"
            "  Next: commit it first; and let the query only read."
        )


@pytest.mark.parametrize(
    ("login", "statement", "why"),
    [
        ("admin_url", "SELECT 1", "{login} is above the row-level security of workflow_execution_logs"),
        ("url", "SELECT 1", "{login} is above the row-level security of workflow_execution_logs"),
        (
            "admin_url",
            "SET ROLE authenticated",
            "the login {login} is above the row-level security of workflow_execution_logs",
        ),
        (
            "url",
            "ALTER TABLE workflow_execution_logs DISABLE ROW LEVEL SECURITY",
            "row-level security is off on workflow_execution_logs",
        ),
    ],
    ids=["a superuser", "the owner", "a superuser in a role", "no row-level security"],
)
def test_who_is_above_row_level_security_proves_nothing(
    workflow_database: Database,
    workflow_owner_engine: Engine,
    workflow_rows: Rows,
    login: str,
    statement: str,
    why: str,
) -> None:
    globex = organization(workflow_rows)
    engine = create_engine(
        getattr(workflow_database, login), isolation_level="AUTOCOMMIT", poolclass=NullPool
    )
    with Session(workflow_owner_engine) as owner, Session(engine) as to:
        to.execute(text(statement))

        with pytest.raises(AssertionError) as failed:
            assert_invisible(select(Log), row=globex.log, to=to, owner=owner)

    assert str(failed.value) == (
        f"this proves nothing: {why.format(login=engine.url.username)}.\n"
        "  Next: let to= be a session of a login that is neither superuser nor BYPASSRLS nor the table's "
        "owner, as `workflow_sessions` opens, and let row-level security be on."
    )


@pytest.mark.parametrize("row", [Log(), UUID(int=1), None, Log], ids=["new", "an id", "None", "a class"])
def test_what_stands_for_no_row_is_refused(
    sessions: TenantSessionmaker, acme: Organization, row: object
) -> None:
    with sessions(**acme["user"]) as session, pytest.raises(TypeError, match="mapped object"):
        assert_invisible(select(Log), row=row, to=session, owner=session)


def test_an_error_of_the_query_is_not_taken_for_invisible(
    sessions: TenantSessionmaker, acme: Organization, globex: Organization
) -> None:
    def failing(session: Session) -> Any:
        return session.scalars(select(Log) if session is owner else text("SELECT nothing")).all()

    with sessions(**acme["user"]) as to, sessions(**globex["user"]) as owner, pytest.raises(ProgrammingError):
        assert_invisible(failing, row=globex.log, to=to, owner=owner)
