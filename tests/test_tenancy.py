"""Tenant sessions: whose rows they reach, in every transaction and every statement, and what they refuse.

The statements that name the organization are seen with a super admin: row-level security shows those every
row, so that the criterion alone keeps them to their own.
"""

import asyncio
import contextlib
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import pytest
from pytest_postgresql.executors import NoopExecutor
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    NullPool,
    create_engine,
    delete,
    event,
    exists,
    func,
    insert,
    make_url,
    select,
    text,
    true,
    union_all,
    update,
)
from sqlalchemy.exc import InvalidRequestError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import (
    Session,
    aliased,
    contains_eager,
    joinedload,
    lazyload,
    selectinload,
    subqueryload,
    with_parent,
)
from sqlalchemy.sql import Executable

from tests.application import (
    ACME,
    ACME_ADMIN,
    ACME_SUPER,
    ACME_USER,
    ACME_WORKFLOW,
    GLOBEX,
    GLOBEX_USER,
    GLOBEX_WORKFLOW,
    INITECH,
    ORPHAN,
    ORPHAN_SUPER,
    UNKNOWN,
    WITHOUT_PROFILE,
)
from tests.databases import Database, Templates
from tests.online.pooler import pooler
from workflow_models import ExecutionStatus, errors
from workflow_models import WorkflowDefinition as Definition
from workflow_models import WorkflowExecutionLog as Log
from workflow_models.tenancy import (
    AsyncTenantSession,
    AsyncTenantSessionmaker,
    TenantSession,
    TenantSessionmaker,
)

Clone: TypeAlias = Callable[[str], Database]
Tenant: TypeAlias = dict[str, Any]
Counts: TypeAlias = dict[UUID | None, int]

EVERY = {ACME: 120, GLOBEX: 120, None: 80}
COUNT = select(Log.organization_id, func.count()).group_by(Log.organization_id)
COUNT_AS_TEXT = text("SELECT organization_id, count(*) FROM workflow_execution_logs GROUP BY organization_id")
WHO = text("""
    SELECT current_user::text AS role, current_setting('request.jwt.claim.sub', true) AS subject,
        nullif(current_setting('request.jwt.claims', true), '')::jsonb AS claims,
        current_setting('workflow.organization_id', true) AS organization
""")
OWN = "organization_id = (SELECT %("

each_driver = pytest.mark.parametrize("driver", ["postgresql+asyncpg", "postgresql+psycopg"])


@pytest.fixture(scope="module")
def live(templates: Templates) -> Iterator[Database]:
    """The application's database after `upgrade head`, for tests that commit nothing."""
    database = templates.clone("adopted_upgraded")
    yield database
    templates.drop(database)


@pytest.fixture
def new_engine() -> Iterator[Callable[..., Engine]]:
    """Gives engines, pooled, that are disposed of at the end; as authenticator unless told otherwise."""
    made: list[Engine] = []

    def new_engine(database: Database, user: str = "authenticator", **options: Any) -> Engine:
        made.append(create_engine(database.url(user), **options))
        return made[-1]

    yield new_engine
    for engine in made:
        engine.dispose()


@pytest.fixture
def engine(live: Database, new_engine: Callable[..., Engine]) -> Engine:
    """A pool of one connection, which each session of a test thus has in turn."""
    return new_engine(live, pool_size=1, max_overflow=0)


@pytest.fixture
def open_session(engine: Engine) -> TenantSessionmaker:
    return TenantSessionmaker(engine)


def note_statements(engine: Engine) -> list[tuple[str, Any]]:
    """What the engine sends from now on, with parameters, but for the statements by which sessions begin."""
    sent: list[tuple[str, Any]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_: Connection, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if "ts_stat" not in statement:
            sent.append((statement, parameters))

    return sent


@pytest.fixture
def sent(engine: Engine) -> list[tuple[str, Any]]:
    return note_statements(engine)


def counts(session: Session, statement: Executable = COUNT) -> Counts:
    return dict(session.execute(statement).all())


def who(session: Session) -> dict[str, Any]:
    return dict(session.execute(WHO).one()._mapping)


def as_user(user: UUID) -> dict[str, Any]:
    return {
        "role": "authenticated",
        "subject": str(user),
        "claims": {"sub": str(user), "role": "authenticated"},
        "organization": "",
    }


def as_worker(organization: UUID) -> dict[str, Any]:
    return {"role": "workflow_worker", "subject": "", "claims": None, "organization": str(organization)}


def run_async(url: str, driver: str, act: Callable[[AsyncEngine], Awaitable[Any]], **options: Any) -> Any:
    """Run a coroutine with an engine of its own, as every event loop needs."""

    async def run() -> Any:
        engine = create_async_engine(make_url(url).set(drivername=driver), **options)
        try:
            return await act(engine)
        finally:
            await engine.dispose()

    return asyncio.run(run())


# Whose rows.


@pytest.mark.parametrize(
    ("tenant", "by_statement", "by_row_security"),
    [
        ({"user": ACME_USER.id}, {ACME}, {ACME}),
        ({"user": str(GLOBEX_USER.id).upper()}, {GLOBEX}, {GLOBEX}),
        ({"user": ACME_SUPER.id}, {ACME}, {ACME, GLOBEX, None}),
        ({"user": ACME_SUPER.id, "every_organization": True}, {ACME, GLOBEX, None}, {ACME, GLOBEX, None}),
        ({"user": ORPHAN_SUPER.id, "every_organization": True}, {ACME, GLOBEX, None}, {ACME, GLOBEX, None}),
        # Asking for more gives nobody more.
        ({"user": ACME_ADMIN.id, "every_organization": True}, {ACME}, {ACME}),
        ({"organization": ACME}, {ACME}, {ACME}),
        ({"organization": str(GLOBEX)}, {GLOBEX}, {GLOBEX}),
        ({"organization": INITECH}, set(), set()),
    ],
    ids=str,
)
def test_a_session_reads_these_organizations(
    open_session: TenantSessionmaker,
    tenant: Tenant,
    by_statement: set[UUID | None],
    by_row_security: set[UUID | None],
) -> None:
    with open_session(**tenant) as session:
        assert counts(session) == {key: EVERY[key] for key in by_statement}
        assert counts(session, COUNT_AS_TEXT) == {key: EVERY[key] for key in by_row_security}


@pytest.mark.parametrize("tenant", [{"user": ACME_USER.id}, {"organization": ACME}], ids=["user", "worker"])
def test_a_session_writes_its_own_logs_and_no_others(
    open_session: TenantSessionmaker, tenant: Tenant
) -> None:
    with open_session(**tenant) as session:
        log = Log(workflow_id=ACME_WORKFLOW, status=ExecutionStatus.RUNNING)
        session.add(log)
        session.flush()
        assert log.organization_id == ACME

        session.add(Log(workflow_id=GLOBEX_WORKFLOW, status=ExecutionStatus.RUNNING))
        with pytest.raises(ProgrammingError, match="row-level security"):
            session.flush()


def test_a_session_says_whose_it_is(open_session: TenantSessionmaker) -> None:
    with open_session(user=str(ACME_SUPER.id), every_organization=True) as session:
        assert (session.user, session.organization, session.every_organization) == (
            ACME_SUPER.id, None, True,
        )  # fmt: skip
    with open_session(organization=ACME) as session:
        assert (session.user, session.organization, session.every_organization) == (None, ACME, False)


# Every transaction.


def start_a_run(session: Session) -> None:
    session.add(Log(workflow_id=ACME_WORKFLOW, status=ExecutionStatus.RUNNING))
    session.flush()


def fail(session: Session) -> None:
    with pytest.raises(ProgrammingError):
        session.execute(text("SELECT nothing"))


def leave_the_role(session: Session) -> None:
    session.execute(text("RESET ROLE"))


BEFORE: dict[str, list[Callable[[TenantSession], object]]] = {
    "nothing": [],
    "a commit": [who, Session.commit],
    "a rollback": [who, Session.rollback],
    "close": [who, Session.close],
    "reset": [who, Session.reset],
    "a savepoint": [Session.begin_nested],
    "a savepoint rolled back": [lambda session: session.begin_nested().rollback()],
    "a savepoint released": [lambda session: session.begin_nested().commit()],
    "begin": [Session.begin],
    "a flush": [start_a_run],
    "the connection": [Session.connection],
    "a commit on the connection": [lambda session: session.connection().commit()],
    "a rollback on the connection": [lambda session: session.connection().rollback()],
    "a failure": [fail, Session.rollback],
    "another isolation level": [
        lambda session: session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
    ],
    "a role left in an earlier transaction": [leave_the_role, Session.commit],
}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize(
    ("tenant", "expected"),
    [({"user": ACME_USER.id}, as_user(ACME_USER.id)), ({"organization": ACME}, as_worker(ACME))],
    ids=["user", "worker"],
)
def test_a_transaction_is_the_tenants_after(
    open_session: TenantSessionmaker,
    tenant: Tenant,
    expected: dict[str, Any],
    before: list[Callable[[TenantSession], object]],
) -> None:
    with open_session(**tenant) as session:
        for step in before:
            step(session)

        assert who(session) == expected


def test_a_connection_of_ones_own_from_the_sessions_bind_is_the_tenants_too(
    new_engine: Callable[..., Engine], live: Database
) -> None:
    with (
        TenantSessionmaker(new_engine(live))(user=ACME_USER.id) as session,
        session.get_bind().connect() as connection,  # type: ignore[union-attr]
    ):
        assert connection.scalar(text("SELECT current_user")) == "authenticated"


@pytest.mark.parametrize(
    "end",
    [Session.commit, Session.rollback, Session.close, lambda session: session.connection().commit()],
    ids=["commit", "rollback", "close", "commit on the connection"],
)
def test_a_user_who_is_moved_is_so_from_the_next_transaction_on(
    clone: Clone, new_engine: Callable[..., Engine], end: Callable[[Session], object]
) -> None:
    database = clone("adopted_upgraded")
    with TenantSessionmaker(new_engine(database))(user=ACME_USER.id) as session:
        assert counts(session) == {ACME: EVERY[ACME]}

        database.execute(
            "UPDATE profiles SET organization_id = %(globex)s WHERE id = %(id)s",
            {"globex": GLOBEX, "id": ACME_USER.id},
            user=database.superuser,
        )
        assert counts(session) == {ACME: EVERY[ACME]}
        end(session)

        assert counts(session) == {GLOBEX: EVERY[GLOBEX]}


SEALED = text("SELECT current_setting('workflow.caller')")
SEAL = text("SELECT set_config('workflow.caller', :sealed, true)")


def test_what_has_been_sealed_for_a_user_is_no_others_and_of_no_other_transaction(
    clone: Clone, new_engine: Callable[..., Engine]
) -> None:
    database = clone("adopted_upgraded")
    with TenantSessionmaker(new_engine(database))(user=ACME_USER.id) as session:
        sealed = session.scalar(SEALED)
        assert sealed.endswith(f"{{{ACME},user}}")

        for forged in (sealed.replace("user", "super_admin"), sealed.replace(str(ACME), str(GLOBEX))):
            session.execute(SEAL, {"sealed": forged})
            assert counts(session, COUNT_AS_TEXT) == {ACME: EVERY[ACME]}
        session.commit()
        database.execute(
            "UPDATE profiles SET organization_id = %(globex)s WHERE id = %(id)s",
            {"globex": GLOBEX, "id": ACME_USER.id},
            user=database.superuser,
        )
        session.execute(SEAL, {"sealed": sealed})
        assert counts(session, COUNT_AS_TEXT) == {GLOBEX: EVERY[GLOBEX]}


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT currval('workflow_private.session_secret')",
        "SELECT last_value FROM workflow_private.session_secret",
        "SELECT setval('workflow_private.session_secret', 1)",
        "SELECT workflow_private.seal('{NULL,super_admin}')",
    ],
)
@pytest.mark.parametrize("tenant", [{"user": ACME_USER.id}, {"organization": ACME}], ids=["user", "worker"])
def test_nobody_knows_what_it_is_sealed_with(
    open_session: TenantSessionmaker, tenant: Tenant, statement: str
) -> None:
    with open_session(user=ACME_USER.id) as session:
        session.execute(WHO)  # on this connection something has been sealed now
    with open_session(**tenant) as session, pytest.raises(ProgrammingError, match="permission denied"):
        session.execute(text(statement))


def test_a_read_only_session_looks_up_who_asks(live: Database, new_engine: Callable[..., Engine]) -> None:
    engine = new_engine(live, execution_options={"postgresql_readonly": True})

    with TenantSessionmaker(engine)(user=ACME_USER.id) as session:
        assert session.scalar(SEALED) == ""
        assert counts(session, COUNT_AS_TEXT) == {ACME: EVERY[ACME]}


def test_claims_that_somebody_changes_name_another_user(open_session: TenantSessionmaker) -> None:
    with open_session(user=ACME_USER.id) as session:
        assert counts(session, COUNT_AS_TEXT) == {ACME: EVERY[ACME]}
        session.execute(text(f"SET LOCAL request.jwt.claim.sub = '{GLOBEX_USER.id}'"))

        assert counts(session, COUNT_AS_TEXT) == {GLOBEX: EVERY[GLOBEX]}


def test_begin_commits_and_an_exception_rolls_back(clone: Clone, new_engine: Callable[..., Engine]) -> None:
    database = clone("adopted_upgraded")
    open_session = TenantSessionmaker(new_engine(database))

    with open_session.begin(user=ACME_USER.id) as session:
        start_a_run(session)
    with contextlib.suppress(ProgrammingError), open_session.begin(organization=ACME) as session:
        start_a_run(session)
        session.execute(text("SELECT nothing"))

    with open_session(organization=ACME) as session:
        assert counts(session) == {ACME: EVERY[ACME] + 1}


@pytest.mark.parametrize("tenant", [{"user": ACME_USER.id}, {"user": UNKNOWN.id}], ids=["known", "unknown"])
@pytest.mark.parametrize("reset", ["rollback", None])
def test_nothing_is_left_on_a_pooled_connection(
    live: Database, new_engine: Callable[..., Engine], tenant: Tenant, reset: str | None
) -> None:
    engine = new_engine(live, pool_size=1, max_overflow=0, pool_reset_on_return=reset)
    with TenantSessionmaker(engine)(**tenant) as session:
        if tenant["user"] == UNKNOWN.id:
            with pytest.raises(errors.UnknownUserError):
                session.connection()
        else:
            session.connection()

    with Session(engine) as session:
        assert who(session) == {
            "role": "authenticator", "subject": "", "claims": None, "organization": "",
        }  # fmt: skip


LEFT_OVER = {
    "claim of before": f"SET request.jwt.claim.sub = '{GLOBEX_USER.id}'",
    "claims": f"""SET request.jwt.claims = '{{"sub": "{GLOBEX_USER.id}"}}'""",
    "malformed claims": "SET request.jwt.claims = '{'",
    "somebody's caller": "SET workflow.caller = '{NULL,super_admin}'",
    "organization": f"SET workflow.organization_id = '{GLOBEX}'",
    "role": "SET ROLE service_role",
    "search path": "SET search_path = pg_temp, public, pg_catalog",
}


@pytest.mark.parametrize("statement", LEFT_OVER.values(), ids=LEFT_OVER)
@pytest.mark.parametrize("tenant", [{"user": ACME_USER.id}, {"organization": ACME}], ids=["user", "worker"])
def test_what_somebody_left_on_the_connection_does_not_win(
    engine: Engine, tenant: Tenant, statement: str
) -> None:
    with engine.connect() as connection:
        connection.execute(text(statement))
        connection.commit()

    with TenantSessionmaker(engine)(**tenant) as session:
        assert counts(session) == {ACME: EVERY[ACME]}
        assert who(session) == (as_user(ACME_USER.id) if "user" in tenant else as_worker(ACME))


def test_a_superusers_login_is_set_down_to_the_role(
    live: Database, new_engine: Callable[..., Engine]
) -> None:
    with TenantSessionmaker(new_engine(live, live.superuser))(user=ACME_USER.id) as session:
        assert counts(session, COUNT_AS_TEXT) == {ACME: EVERY[ACME]}


# Every statement.

other_log = aliased(Log)
log_of_subquery = aliased(Log, select(Log).subquery())
in_cte = select(Log.id).cte()

# With the number of rows, and how often each statement that is sent names the organization.
SELECTS: dict[str, tuple[Executable, int, list[int]]] = {
    "entity": (select(Log), 120, [1]),
    "columns": (select(Log.id, Log.status), 120, [1]),
    "alias": (select(other_log), 120, [1]),
    "join": (select(Definition, Log).join(Log.workflow), 120, [2]),
    "outer join": (select(Definition).outerjoin(other_log, other_log.workflow_id == Definition.id), 120, [2]),
    "subquery": (select(log_of_subquery), 120, [2]),
    "Core over a subquery": (select(select(Log.id).subquery().c.id), 120, [1]),
    "CTE": (select(in_cte.c.id), 120, [1]),
    "join with a CTE": (select(Definition).join(in_cte, true()), 360, [2]),
    "union": (union_all(select(Log.id), select(other_log.id)), 240, [2]),
    "entities from a union": (select(Log).from_statement(union_all(select(Log), select(Log))), 240, [2]),
    "any": (select(Definition).where(Definition.execution_logs.any()), 3, [2]),
    "in": (select(Definition).where(Definition.id.in_(select(Log.workflow_id))), 3, [2]),
    "scalar subquery": (
        select(Definition.id, select(func.count(Log.id)).correlate(Definition).scalar_subquery()), 3, [2],
    ),
    "joined load": (select(Log).options(joinedload(Log.workflow)), 120, [1]),
    "contained load": (select(Log).join(Log.workflow).options(contains_eager(Log.workflow)), 120, [2]),
    "select-in load": (select(Definition).options(selectinload(Definition.execution_logs)), 3, [1, 2]),
    "subquery load": (select(Definition).options(subqueryload(Definition.execution_logs)), 3, [1, 4]),
    "update": (update(Definition).values(name="New"), 3, [1]),
    "update returning": (update(Definition).values(name="New").returning(Definition.id), 3, [1]),
    "delete": (delete(Definition), 3, [1]),
}  # fmt: skip


def named(sent: list[tuple[str, Any]], by: str = OWN) -> list[int]:
    return [statement.count(by) for statement, _ in sent]


@pytest.mark.parametrize(("statement", "rows", "times"), SELECTS.values(), ids=SELECTS)
def test_a_statement_names_the_organization(
    open_session: TenantSessionmaker,
    sent: list[tuple[str, Any]],
    statement: Executable,
    rows: int,
    times: list[int],
) -> None:
    with open_session(user=ACME_SUPER.id) as session:
        result: Any = session.execute(statement)
        changed = getattr(result, "rowcount", -1)

        assert (len(result.all()) if changed == -1 else changed) == rows

    assert named(sent) == times


def test_one_statement_of_the_cache_names_each_sessions_organization(
    open_session: TenantSessionmaker, sent: list[tuple[str, Any]]
) -> None:
    tenants: list[Tenant] = [{"user": ACME_SUPER.id}, {"organization": GLOBEX}, {"user": GLOBEX_USER.id}]
    for tenant in tenants:
        with open_session(**tenant) as session:
            session.execute(COUNT)

    assert len({statement for statement, _ in sent}) == 1
    assert [set(parameters.values()) for _, parameters in sent] == [{ACME}, {GLOBEX}, {GLOBEX}]


def test_a_workers_statement_names_the_workers_organization(
    open_session: TenantSessionmaker, sent: list[tuple[str, Any]]
) -> None:
    with open_session(organization=ACME) as session:
        session.execute(select(Definition, Log).join(Log.workflow))

    assert named(sent) == [2]


def test_statements_for_every_organization_name_none(
    open_session: TenantSessionmaker, sent: list[tuple[str, Any]]
) -> None:
    with open_session(user=ACME_SUPER.id, every_organization=True) as session:
        session.execute(select(Definition, Log).join(Log.workflow))

    assert named(sent) == [0]


def a_log(database: Database, workflow: UUID) -> int:
    query = "SELECT min(id) FROM workflow_execution_logs WHERE workflow_id = %(workflow)s"
    return int(database.execute(query, {"workflow": workflow})[0][0])


def _lazy_load(session: Session) -> object:
    definition = session.scalars(
        select(Definition).options(lazyload(Definition.execution_logs)).where(Definition.id == ACME_WORKFLOW)
    ).one()
    return len(definition.execution_logs)


def _parent(session: Session) -> object:
    definition = session.get_one(Definition, ACME_WORKFLOW)
    return len(session.scalars(select(Log).where(with_parent(definition, Definition.execution_logs))).all())


OTHER_WAYS: dict[str, tuple[Callable[[Session], object], object, list[int]]] = {
    "query": (lambda session: session.query(Log).count(), 120, [1]),
    "count": (lambda session: session.scalar(select(func.count()).select_from(Log)), 120, [1]),
    "lazy load": (_lazy_load, 40, [1, 1]),
    "with_parent": (_parent, 40, [1, 1]),
    "get of a foreign row": (lambda session: session.get(Definition, GLOBEX_WORKFLOW), None, [1]),
    "exists of a foreign row": (
        lambda session: session.scalar(
            select(select(Definition).where(Definition.id == GLOBEX_WORKFLOW).exists())
        ),
        False,
        [1],
    ),
    "streamed": (
        lambda session: len(list(session.scalars(select(Log).execution_options(yield_per=50)))), 120, [1],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("ask", "answer", "times"), OTHER_WAYS.values(), ids=OTHER_WAYS)
def test_other_ways_to_ask_name_the_organization(
    open_session: TenantSessionmaker,
    sent: list[tuple[str, Any]],
    ask: Callable[[Session], object],
    answer: object,
    times: list[int],
) -> None:
    with open_session(user=ACME_SUPER.id) as session:
        assert ask(session) == answer

    assert named(sent) == times


# What docs/services.md says rests on row-level security alone.
BY_ROW_SECURITY: dict[str, Callable[[Session], object]] = {
    "text": lambda session: session.execute(text("SELECT id FROM workflow_execution_logs")),
    "Core table": lambda session: session.execute(select(Log.__table__)),
    "bare exists": lambda session: session.scalar(select(exists().where(Log.id > 0))),
    "flush": start_a_run,
    "bulk update": lambda session: session.execute(
        update(Definition), [{"id": ACME_WORKFLOW, "name": "New"}]
    ),
    "insert": lambda session: session.execute(
        insert(Log).values(workflow_id=ACME_WORKFLOW, status=ExecutionStatus.RUNNING)
    ),
}


@pytest.mark.parametrize("ask", BY_ROW_SECURITY.values(), ids=BY_ROW_SECURITY)
def test_these_rest_on_row_level_security(
    open_session: TenantSessionmaker, sent: list[tuple[str, Any]], ask: Callable[[Session], object]
) -> None:
    with open_session(user=ACME_ADMIN.id) as session:
        ask(session)

    assert named(sent) == [0]


def test_an_update_that_python_would_evaluate_is_refused(open_session: TenantSessionmaker) -> None:
    with open_session(user=ACME_ADMIN.id) as session, pytest.raises(InvalidRequestError, match="evaluate"):
        session.execute(
            update(Definition).values(name="New"), execution_options={"synchronize_session": "evaluate"}
        )


@pytest.fixture(scope="module")
def crowded(templates: Templates) -> Iterator[Database]:
    """Two hundred organizations more, with a hundred logs each."""
    database = templates.clone("adopted_upgraded")
    database.execute("""
        INSERT INTO organizations (name) SELECT 'Organization ' || n FROM generate_series(1, 200) AS n;
        INSERT INTO workflow_definitions (
            organization_id, name, natural_language_prompt, workflow_json, trigger_type)
        SELECT id, name || n, 'Do', '{}', 'manual' FROM organizations, generate_series(1, 10) AS n
        WHERE name LIKE 'Organization %';
        INSERT INTO workflow_execution_logs (workflow_id, organization_id, status, created_at)
        SELECT id, organization_id, CASE WHEN n = 1 THEN 'error' ELSE 'success' END,
            now() - n * interval '1 min'
        FROM workflow_definitions, generate_series(1, 10) AS n;
        ANALYZE workflow_definitions, workflow_execution_logs
    """)
    yield database
    templates.drop(database)


INDEXED: dict[str, Executable] = {
    "latest": select(Log).order_by(Log.created_at.desc()).limit(20),
    "count": select(func.count()).select_from(Log),
    "failed": select(Log).where(Log.status == ExecutionStatus.ERROR).order_by(Log.created_at.desc()),
    "joined": select(Log).options(joinedload(Log.workflow)).order_by(Log.created_at.desc()).limit(20),
    "definitions": select(Definition),
    "update": update(Definition).values(name="New"),
    "delete": delete(Definition),
}


@pytest.mark.parametrize("statement", INDEXED.values(), ids=INDEXED)
def test_a_statement_uses_an_index_of_the_organization(
    crowded: Database, new_engine: Callable[..., Engine], statement: Executable
) -> None:
    engine = new_engine(crowded)
    sent = note_statements(engine)

    with TenantSessionmaker(engine)(user=ACME_SUPER.id) as session:
        session.execute(statement)
        sql, parameters = sent[-1]
        plan = "\n".join(session.connection().exec_driver_sql(f"EXPLAIN {sql}", parameters).scalars())

    assert "Index Cond: (organization_id = " in plan
    assert "Seq Scan" not in plan


# What is refused.

NOT_RUN = "\n  Unchanged: no statement of this session's transaction was run.\n  Next: "

REFUSED_AT_ONCE: dict[str, tuple[Tenant, type[errors.TenancyError], str]] = {
    "nobody": (
        {},
        errors.MissingTenantError,
        f"a tenant session was to be opened for nobody.{NOT_RUN}pass user=, or in a worker organization=.",
    ),
    "both": (
        {"user": ACME_USER.id, "organization": ACME},
        errors.AmbiguousTenantError,
        (
            f"a tenant session was to be opened for a user and an organization at once.{NOT_RUN}"
            "pass user= or organization=; the organization of a user is that of the profile."
        ),
    ),
    "every organization for a worker": (
        {"organization": ACME, "every_organization": True},
        errors.AmbiguousTenantError,
        (
            f"a worker's session was to be opened for every organization.{NOT_RUN}"
            "pass the user= of a super admin, or leave every_organization out."
        ),
    ),
    "every organization for nobody": (
        {"every_organization": True},
        errors.MissingTenantError,
        f"a tenant session was to be opened for nobody.{NOT_RUN}pass user=, or in a worker organization=.",
    ),
    **{
        f"{name} {value!r}": (
            {name: value},
            errors.MalformedTenantError,
            f"{name} is not a UUID: {value!r}.{NOT_RUN}pass the {name}'s id as a UUID or its text.",
        )
        for name in ("user", "organization")
        for value in ("", "acme", f"{ACME}'; RESET ROLE; --", 7, ACME.bytes)
    },
}


@pytest.mark.parametrize(("tenant", "error", "message"), REFUSED_AT_ONCE.values(), ids=REFUSED_AT_ONCE)
def test_a_session_is_refused_at_once(
    open_session: TenantSessionmaker, tenant: Tenant, error: type[errors.TenancyError], message: str
) -> None:
    with pytest.raises(error) as refused:
        open_session(**tenant)

    assert str(refused.value) == message


REFUSED_AT_THE_FIRST_STATEMENT: dict[str, tuple[Tenant, type[errors.TenancyError], str]] = {
    "unknown user": (
        {"user": WITHOUT_PROFILE.id},
        errors.UnknownUserError,
        (
            f"there is no profile of the user {WITHOUT_PROFILE.id}.{NOT_RUN}"
            "pass the id of a row of profiles, which is the `sub` of the user's token."
        ),
    ),
    "user without an organization": (
        {"user": ORPHAN.id},
        errors.UserWithoutOrganizationError,
        (
            f"the profile of the user {ORPHAN.id} names no organization.{NOT_RUN}"
            "give the profile an organization; a super admin without one needs every_organization=True."
        ),
    ),
    "super admin without an organization": (
        {"user": ORPHAN_SUPER.id},
        errors.UserWithoutOrganizationError,
        (
            f"the profile of the user {ORPHAN_SUPER.id} names no organization.{NOT_RUN}"
            "give the profile an organization; a super admin without one needs every_organization=True."
        ),
    ),
    "user without an organization, asking for every one": (
        {"user": ORPHAN.id, "every_organization": True},
        errors.UserWithoutOrganizationError,
        (
            f"the profile of the user {ORPHAN.id} names no organization.{NOT_RUN}"
            "give the profile an organization; a super admin without one needs every_organization=True."
        ),
    ),
    "unknown organization": (
        {"organization": UNKNOWN.id},
        errors.UnknownOrganizationError,
        f"there is no organization {UNKNOWN.id}.{NOT_RUN}pass the id of a row of organizations.",
    ),
}


@pytest.mark.parametrize(
    ("tenant", "error", "message"),
    REFUSED_AT_THE_FIRST_STATEMENT.values(),
    ids=REFUSED_AT_THE_FIRST_STATEMENT,
)
def test_a_session_is_refused_before_its_first_statement_and_each_time_again(
    open_session: TenantSessionmaker,
    sent: list[tuple[str, Any]],
    tenant: Tenant,
    error: type[errors.TenancyError],
    message: str,
) -> None:
    with open_session(**tenant) as session:
        for _ in range(2):
            with pytest.raises(error) as refused:
                session.execute(COUNT_AS_TEXT)
            assert str(refused.value) == message
        session.begin_nested()
        with pytest.raises(error):
            session.execute(COUNT_AS_TEXT)

    assert sent == []


def test_a_user_who_is_gone_is_refused_on_a_connection_that_is_still_held(
    clone: Clone, new_engine: Callable[..., Engine]
) -> None:
    database = clone("adopted_upgraded")
    with TenantSessionmaker(new_engine(database))(user=ACME_USER.id) as session:
        connection = session.connection()
        connection.commit()
        database.execute(
            "DELETE FROM profiles WHERE id = %(id)s", {"id": ACME_USER.id}, user=database.superuser
        )

        for _ in range(2):
            with pytest.raises(errors.UnknownUserError):
                connection.execute(WHO)


ABOVE_ROW_SECURITY = {
    "it owns the tables": """
        ALTER TABLE workflow_definitions OWNER TO authenticated;
        ALTER TABLE workflow_execution_logs OWNER TO authenticated
    """,
    "it owns one table": "ALTER TABLE workflow_execution_logs OWNER TO authenticated",
    "it is off": "ALTER TABLE workflow_definitions DISABLE ROW LEVEL SECURITY",
}


@pytest.mark.parametrize("statement", ABOVE_ROW_SECURITY.values(), ids=ABOVE_ROW_SECURITY)
def test_a_role_that_row_security_does_not_hold_for_is_refused(
    clone: Clone, new_engine: Callable[..., Engine], statement: str
) -> None:
    database = clone("adopted_upgraded")
    database.execute(statement, user=database.superuser)

    with (
        TenantSessionmaker(new_engine(database))(user=ACME_USER.id) as session,
        pytest.raises(errors.RowSecurityBypassedError) as refused,
    ):
        session.execute(COUNT)

    assert str(refused.value) == (
        f"row-level security does not hold for authenticated on both workflow tables.{NOT_RUN}"
        "take SUPERUSER, BYPASSRLS and the tables' owner from authenticated; then run "
        "`workflow-models upgrade`, which switches row-level security on."
    )


@pytest.mark.parametrize(
    ("tenant", "role"),
    [({"user": ACME_USER.id}, "authenticated"), ({"organization": ACME}, "workflow_worker")],
    ids=["user", "worker"],
)
def test_a_login_that_may_not_take_the_role_is_refused(
    live: Database, new_engine: Callable[..., Engine], tenant: Tenant, role: str
) -> None:
    with (
        TenantSessionmaker(new_engine(live, "app_owner"))(**tenant) as session,
        pytest.raises(errors.RoleNotGrantedError) as refused,
    ):
        session.execute(COUNT)

    assert str(refused.value) == (
        f"the login app_owner may not take the role {role}.{NOT_RUN}"
        f"let an administrator run: GRANT {role} TO app_owner;"
    )


SUPER_ADMIN_ROLE = "super admin's"


@pytest.fixture
def with_super_admin_role(clone: Clone) -> Iterator[Database]:
    database = clone("adopted_upgraded")
    database.execute(
        """
        CREATE ROLE "super admin's" NOLOGIN IN ROLE authenticated;
        CREATE POLICY super_admins ON workflow_definitions FOR SELECT TO "super admin's" USING (true);
        CREATE POLICY super_admins ON workflow_execution_logs FOR SELECT TO "super admin's" USING (true)
        """,
        user=database.superuser,
    )
    yield database
    database.execute("""DROP OWNED BY "super admin's"; DROP ROLE "super admin's\"""", user=database.superuser)


@pytest.mark.parametrize(
    ("tenant", "role", "reads"),
    [
        ({"user": ACME_SUPER.id, "every_organization": True}, SUPER_ADMIN_ROLE, {ACME, GLOBEX, None}),
        ({"user": ORPHAN_SUPER.id, "every_organization": True}, SUPER_ADMIN_ROLE, {ACME, GLOBEX, None}),
        # Who asks for the own organization needs no other role, and who is no super admin gets none.
        ({"user": ACME_SUPER.id}, "authenticated", {ACME}),
        ({"user": ACME_ADMIN.id, "every_organization": True}, "authenticated", {ACME}),
        ({"organization": ACME}, "workflow_worker", {ACME}),
    ],
    ids=str,
)
def test_super_admins_of_every_organization_take_a_role_of_their_own(
    with_super_admin_role: Database,
    new_engine: Callable[..., Engine],
    tenant: Tenant,
    role: str,
    reads: set[UUID | None],
) -> None:
    database = with_super_admin_role
    database.execute("""GRANT "super admin's" TO authenticator""", user=database.superuser)
    open_session = TenantSessionmaker(new_engine(database), super_admin_role=SUPER_ADMIN_ROLE)

    with open_session(**tenant) as session:
        for _ in range(2):
            assert who(session)["role"] == role
            assert counts(session) == {key: EVERY[key] for key in reads}
            session.commit()
        # What it may do as authenticated it may do still.
        session.add(Log(workflow_id=ACME_WORKFLOW, status=ExecutionStatus.RUNNING))
        session.flush()
        assert session.scalar(select(session.own_organization)) == (
            None if tenant.get("user") == ORPHAN_SUPER.id else ACME
        )


def test_a_super_admins_role_that_row_security_does_not_hold_for_is_refused(
    with_super_admin_role: Database, new_engine: Callable[..., Engine]
) -> None:
    database = with_super_admin_role
    database.execute(
        """ALTER ROLE "super admin's" BYPASSRLS; GRANT "super admin's" TO authenticator""",
        user=database.superuser,
    )
    open_session = TenantSessionmaker(new_engine(database), super_admin_role=SUPER_ADMIN_ROLE)

    with (
        open_session(user=ACME_SUPER.id, every_organization=True) as session,
        pytest.raises(errors.RowSecurityBypassedError, match="does not hold for super admin's on"),
    ):
        session.execute(COUNT)


def test_a_login_that_may_not_take_the_super_admins_role_is_refused(
    with_super_admin_role: Database, new_engine: Callable[..., Engine]
) -> None:
    open_session = TenantSessionmaker(new_engine(with_super_admin_role), super_admin_role=SUPER_ADMIN_ROLE)

    with (
        open_session(user=ACME_SUPER.id, every_organization=True) as session,
        pytest.raises(errors.RoleNotGrantedError) as refused,
    ):
        session.execute(COUNT)

    assert str(refused.value) == (
        f"the login authenticator may not take the role super admin's.{NOT_RUN}"
        """let an administrator run: GRANT "super admin's" TO authenticator;"""
    )


@pytest.mark.parametrize(
    "state", ["empty", "adopted", "adopted_at_wf0001", "adopted_at_wf0002", "without the functions"]
)
@pytest.mark.parametrize("tenant", [{"user": ACME_USER.id}, {"organization": ACME}], ids=["user", "worker"])
def test_an_outdated_schema_is_refused(
    clone: Clone, new_engine: Callable[..., Engine], tenant: Tenant, state: str
) -> None:
    if state == "without the functions":
        database = clone("adopted_upgraded")
        database.execute("DROP SCHEMA workflow_private CASCADE")
    else:
        database = clone(state)

    with (
        TenantSessionmaker(new_engine(database))(**tenant) as session,
        pytest.raises(errors.OutdatedSchemaError) as refused,
    ):
        session.execute(COUNT)

    assert str(refused.value) == (
        f"the database lacks a table, column, function, role or grant of the models.{NOT_RUN}"
        "run `workflow-models upgrade` on it."
    )


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE organizations OWNER TO postgres_",
        "ALTER TABLE organizations OWNER TO postgres_; GRANT SELECT ON organizations TO app_owner",
    ],
    ids=["no privilege", "row security"],
)
def test_every_organization_is_taken_to_exist_where_the_owner_may_not_look(
    clone: Clone, new_engine: Callable[..., Engine], statement: str
) -> None:
    database = clone("adopted_upgraded")
    database.execute(statement.replace("postgres_", database.superuser), user=database.superuser)
    open_session = TenantSessionmaker(new_engine(database))

    with open_session(organization=ACME) as session:
        assert counts(session) == {ACME: EVERY[ACME]}
    with open_session(organization=UNKNOWN.id) as session:
        assert counts(session, COUNT_AS_TEXT) == {}


UNREACHABLE = (
    f"the database cannot be reached, or closed the connection.{NOT_RUN}"
    "see that it runs and that the engine's URL is right; then try the transaction again."
)


def nowhere(tmp_path: Path) -> str:
    return URL.create("postgresql+psycopg", "authenticator", query={"host": str(tmp_path)}).render_as_string()


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    engine = create_engine(nowhere(tmp_path))

    with (
        TenantSessionmaker(engine)(user=ACME_USER.id) as session,
        pytest.raises(errors.UnreachableDatabaseError) as refused,
    ):
        session.execute(COUNT)

    assert str(refused.value) == UNREACHABLE


@each_driver
def test_a_database_that_is_not_there_is_told_to_asyncio_too(tmp_path: Path, driver: str) -> None:
    async def act(engine: AsyncEngine) -> None:
        async with AsyncTenantSessionmaker(engine)(user=ACME_USER.id) as session:
            await session.execute(COUNT)

    with pytest.raises(errors.UnreachableDatabaseError) as refused:
        run_async(nowhere(tmp_path), driver, act)

    assert str(refused.value) == UNREACHABLE


def test_a_pooled_connection_that_was_killed_is_told_and_the_next_transaction_goes_on(
    live: Database, engine: Engine
) -> None:
    with TenantSessionmaker(engine)(user=ACME_USER.id) as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        session.close()
        kill(live, pid)

        with pytest.raises(errors.UnreachableDatabaseError):
            session.execute(COUNT)
        assert counts(session) == {ACME: EVERY[ACME]}


def kill(database: Database, pid: int | None) -> None:
    """End a backend; it is gone when this returns."""
    query = "SELECT pg_terminate_backend(%(pid)s, 10000)"
    assert database.execute(query, {"pid": pid}, user=database.superuser) == [(True,)]


def test_a_connection_that_cannot_be_confined_to_a_transaction_is_refused(
    live: Database, new_engine: Callable[..., Engine]
) -> None:
    message = (
        f"the connection is in autocommit mode, where role and identity end with each statement.{NOT_RUN}"
        "give the session an engine without isolation_level='AUTOCOMMIT'."
    )
    autocommit = TenantSessionmaker(new_engine(live, isolation_level="AUTOCOMMIT"))
    with autocommit(user=ACME_USER.id) as session, pytest.raises(errors.AutocommitError) as refused:
        session.execute(COUNT)
    assert str(refused.value) == message

    with (
        TenantSessionmaker(new_engine(live))(user=ACME_USER.id) as session,
        pytest.raises(errors.AutocommitError),
    ):
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})


ELSEWHERE: dict[str, Callable[[TenantSessionmaker, Engine], object]] = {
    "a connection": lambda maker, other: TenantSession(other.connect(), user=ACME_USER.id),  # type: ignore[arg-type]
    "no engine": lambda maker, other: TenantSession(None, user=ACME_USER.id),  # type: ignore[arg-type]
    "binds": lambda maker, other: maker(user=ACME_USER.id, binds={Log: other}),
    "a statement's bind": lambda maker, other: maker(user=ACME_USER.id).execute(
        COUNT, bind_arguments={"bind": other}
    ),
    "a connection's bind": lambda maker, other: maker(user=ACME_USER.id).connection({"bind": other}),
    "the session's bind replaced": lambda maker, other: _rebound(maker(user=ACME_USER.id), other),
    "a mapper's bind": lambda maker, other: maker(user=ACME_USER.id).bind_mapper(Log, other),
    "a table's bind": lambda maker, other: maker(user=ACME_USER.id).bind_table(Log.__table__, other),
    "two phases": lambda maker, other: maker(user=ACME_USER.id, twophase=True).execute(COUNT),
    "two phases on the connection": lambda maker, other: _two_phases(maker(user=ACME_USER.id)),
}


def _rebound(session: Session, other: Engine) -> None:
    session.bind = other
    session.execute(COUNT)


def _two_phases(session: Session) -> None:
    with session:
        session.connection().commit()
        session.connection().begin_twophase()


@pytest.mark.parametrize("act", ELSEWHERE.values(), ids=ELSEWHERE)
def test_what_leads_out_of_the_session_is_refused(
    live: Database,
    new_engine: Callable[..., Engine],
    open_session: TenantSessionmaker,
    act: Callable[[TenantSessionmaker, Engine], object],
) -> None:
    with pytest.raises(errors.UnsupportedSessionError, match="a tenant session was asked to"):
        act(open_session, new_engine(live, "app_owner"))


# asyncio.


@each_driver
def test_an_async_session_is_the_tenants_in_each_transaction(live: Database, driver: str) -> None:
    async def act(engine: AsyncEngine) -> None:
        open_session = AsyncTenantSessionmaker(engine)
        async with open_session(user=ACME_USER.id) as session:
            assert await session.run_sync(who) == as_user(ACME_USER.id)
            await session.commit()
            assert await session.run_sync(counts) == {ACME: EVERY[ACME]}
            await session.rollback()
            async with session.begin_nested():
                assert await session.run_sync(counts) == {ACME: EVERY[ACME]}
            assert (session.user, session.organization, session.every_organization) == (
                ACME_USER.id, None, False,
            )  # fmt: skip
        async with open_session.begin(organization=GLOBEX) as session:
            assert await session.run_sync(who) == as_worker(GLOBEX)
            assert len((await session.scalars(select(Definition))).all()) == 3
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT current_user")) == "authenticator"

    run_async(live.url("authenticator"), driver, act, pool_size=1, max_overflow=0)


@each_driver
@pytest.mark.parametrize(
    ("tenant", "error"),
    [
        ({"user": UNKNOWN.id}, errors.UnknownUserError),
        ({"user": ORPHAN.id}, errors.UserWithoutOrganizationError),
        ({"organization": UNKNOWN.id}, errors.UnknownOrganizationError),
        ({}, errors.MissingTenantError),
        ({"user": "acme"}, errors.MalformedTenantError),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_async_session_is_refused_alike(
    live: Database, driver: str, tenant: Tenant, error: type[errors.TenancyError]
) -> None:
    async def act(engine: AsyncEngine) -> None:
        async with AsyncTenantSessionmaker(engine)(**tenant) as session:
            for _ in range(2):
                with pytest.raises(error):
                    await session.execute(COUNT_AS_TEXT)
            raise error("", next_step="")

    with pytest.raises(error):
        run_async(live.url("authenticator"), driver, act, pool_size=1, max_overflow=0)


@pytest.mark.parametrize(
    ("driver", "state", "error"),
    [
        ("postgresql+asyncpg", "empty", errors.OutdatedSchemaError),
        ("postgresql+psycopg", "empty", errors.OutdatedSchemaError),
    ],
)
def test_an_async_session_finds_an_outdated_schema(
    clone: Clone, driver: str, state: str, error: type[errors.TenancyError]
) -> None:
    async def act(engine: AsyncEngine) -> None:
        async with AsyncTenantSessionmaker(engine)(user=ACME_USER.id) as session:
            await session.execute(COUNT)

    with pytest.raises(error):
        run_async(clone(state).url("authenticator"), driver, act)


@each_driver
def test_parallel_requests_on_one_pooled_connection_see_their_own(live: Database, driver: str) -> None:
    async def request(open_session: AsyncTenantSessionmaker, tenant: Tenant) -> set[UUID | None]:
        async with open_session(**tenant) as session:
            await session.execute(COUNT_AS_TEXT)
            await session.commit()
            return set((await session.scalars(select(Log.organization_id))).all())

    async def act(engine: AsyncEngine) -> list[set[UUID | None]]:
        open_session = AsyncTenantSessionmaker(engine)
        tenants: list[Tenant] = [
            {"user": ACME_USER.id},
            {"organization": GLOBEX},
            {"user": GLOBEX_USER.id},
            {"organization": ACME},
        ]
        return await asyncio.gather(*(request(open_session, tenant) for tenant in tenants * 3))

    seen = run_async(live.url("authenticator"), driver, act, pool_size=1, max_overflow=0)

    assert seen == [{ACME}, {GLOBEX}, {GLOBEX}, {ACME}] * 3


# Round trips.


class RoundTrips:
    """A Unix socket before the server; counts how often the server says that it is ready for a query."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.count = 0
        self.folder = folder
        self._database = database
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, user: str, driver: str) -> URL:
        query = {"host": str(self.folder), "port": "5432"}
        return make_url(self._database.url(user)).set(drivername=driver, host=None, port=None, query=query)

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = self._connect()
                threading.Thread(target=self._relay, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._relay, args=(server, client, True), daemon=True).start()

    def _connect(self) -> socket.socket:
        host, port = self._database.server.host, self._database.server.port
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _relay(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        """Hand on; an answer is a row of messages, each a letter, its length and as many bytes."""
        unread = b""
        with source, contextlib.suppress(OSError):
            while received := source.recv(65536):
                unread += received if is_answer else b""
                while len(unread) >= 5 and len(unread) > (length := int.from_bytes(unread[1:5])):
                    self.count += unread[:1] == b"Z"
                    unread = unread[length + 1 :]
                target.sendall(received)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def round_trips(live: Database) -> Iterator[RoundTrips]:
    # A socket's path is short, that of tmp_path may not be.
    with tempfile.TemporaryDirectory() as folder:
        round_trips = RoundTrips(live, Path(folder))
        yield round_trips
        round_trips.close()


def three_transactions(session: Session) -> None:
    for end in (session.commit, session.rollback, session.close):
        session.scalars(select(Definition.name)).all()
        with session.begin_nested():
            session.scalars(select(Log.status)).all()
        end()


def test_a_transaction_takes_one_round_trip_more_than_a_plain_one(round_trips: RoundTrips) -> None:
    def trips(user: str, open_session: Callable[[Engine], Session]) -> int:
        engine = create_engine(round_trips.url(user, "postgresql+psycopg"))
        with open_session(engine) as session:
            # psycopg prepares a statement the sixth time.
            for _ in range(3):
                three_transactions(session)
            before = round_trips.count
            three_transactions(session)
            after = round_trips.count
        engine.dispose()
        return after - before

    plain = trips("app_owner", Session)
    tenants = trips("authenticator", lambda engine: TenantSession(engine, user=ACME_USER.id))

    assert tenants - plain == 3


@each_driver
def test_an_async_transaction_takes_one_round_trip_more_than_a_plain_one(
    round_trips: RoundTrips, driver: str
) -> None:
    async def trips(user: str, open_session: Callable[[AsyncEngine], AsyncSession]) -> int:
        engine = create_async_engine(round_trips.url(user, driver))
        async with open_session(engine) as session:
            for _ in range(3):
                await session.run_sync(three_transactions)
            before = round_trips.count
            await session.run_sync(three_transactions)
            after = round_trips.count
        await engine.dispose()
        return after - before

    plain = asyncio.run(trips("app_owner", AsyncSession))
    tenants = asyncio.run(
        trips("authenticator", lambda engine: AsyncTenantSession(engine, user=ACME_USER.id))
    )

    assert tenants - plain == 3


# Poolers.


def test_nothing_outlives_a_transaction_behind_a_pooler(live: Database, executor: NoopExecutor) -> None:
    tenants: list[Tenant] = [{"user": ACME_USER.id}, {"organization": GLOBEX}]
    with pooler(executor) as server, contextlib.ExitStack() as stack:
        engine = create_engine(
            replace(live, server=server).url(live.superuser),
            poolclass=NullPool,
            connect_args={"prepare_threshold": None},
        )
        sessions = [stack.enter_context(TenantSession(engine, **tenant)) for tenant in tenants]
        plain = stack.enter_context(Session(engine))
        # One after the other, each on the connections that those before it have given back.
        for _ in range(5):
            for session, organization in zip(sessions, (ACME, GLOBEX), strict=True):
                assert counts(session, COUNT_AS_TEXT) == {organization: EVERY[organization]}
                session.commit()
                assert plain.scalar(text("SELECT current_user")) == live.superuser
                assert who(plain)["organization"] in (None, "")
                plain.rollback()
