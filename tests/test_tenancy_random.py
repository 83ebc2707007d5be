"""100,000 random operations of random tenants on pooled connections: none sees or writes another one's row.

Users and workers of several organizations share a pool that is too small for them. A session runs some
transactions, each of which is committed, rolled back or ended by an exception; savepoints, killed connections
and, with asyncio, cancelled tasks come in between. What is read names its organization, and what is written
carries that of its writer, so that the rows themselves tell of a leak.

Each operation is a statement. In tasks they go through the session one by one; in threads those that no
savepoint stands around go to its connection several at once.

A check that finds nothing has to be one that could: sessions written by hand, as is often seen, are caught.
"""

import asyncio
import itertools
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import (
    Connection,
    Engine,
    ExceptionContext,
    TextClause,
    bindparam,
    create_engine,
    event,
    func,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects.postgresql.psycopg import dialect as psycopg_dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.sql import Executable

from tests import server as servers
from tests.databases import Database, Templates
from workflow_models import WorkflowExecutionLog
from workflow_models.errors import UnreachableDatabaseError
from workflow_models.tenancy import AsyncTenantSession, TenantSession

# In all, on the servers that are tested on.
OPERATIONS = 100_000 // len(servers.chosen())
# With asyncio each takes twice as long.
IN_THREADS = OPERATIONS * 7 // 10
IN_TASKS = {"postgresql+asyncpg": OPERATIONS * 2 // 10, "postgresql+psycopg": OPERATIONS // 10}
SEED = int(os.environ.get("TENANCY_SEED") or random.randrange(1 << 32))

ORGANIZATIONS = 6
# A pool is not fair: whoever gives a connection back and asks again may go before those who wait.
POOL: dict[str, Any] = {"pool_size": 3, "max_overflow": 0, "pool_timeout": 300}
AT_ONCE = 8
# For each operation; rare, since a new connection takes as long as dozens of operations.
KILLED = CANCELLED = 1 / 250

# Not an array: about its type asyncpg asks the database in each new connection.
READ = text("SELECT organization_id FROM workflow_execution_logs WHERE id IN (:a, :b, :c, :d)")
READ_WITH_ORM = select(WorkflowExecutionLog.organization_id).where(WorkflowExecutionLog.id == bindparam("id"))
READ_DEFINITIONS = text("SELECT organization_id FROM workflow_definitions")
INSERT = text("""
    INSERT INTO workflow_execution_logs (workflow_id, status, error_details)
    VALUES (:workflow, 'running', :writer) RETURNING organization_id
""")
UPDATE = text(
    "UPDATE workflow_execution_logs SET error_details = :writer WHERE id = :id RETURNING organization_id"
)
MISWRITTEN = "SELECT id FROM workflow_execution_logs WHERE error_details <> organization_id::text"
WRITTEN = "SELECT organization_id, count(error_details) FROM workflow_execution_logs GROUP BY organization_id"

Disturb: TypeAlias = Callable[[], None]


@dataclass(frozen=True)
class Tenant:
    """A user or a worker, and whose rows it is to see."""

    organization: UUID
    options: dict[str, Any]


@dataclass(frozen=True)
class Operation:
    statement: Executable
    parameters: dict[str, Any]
    # Must be refused by the database, or reach no row.
    is_foreign: bool = False


class StoppedError(Exception):
    """Ends a transaction, as a bug in a service would."""


class KilledError(Exception):
    """The connection is gone, as the driver said."""


@dataclass
class World:
    """A database with organizations, their people, workflows and logs; and what was done in it."""

    database: Database
    tenants: list[Tenant]
    workflows: dict[UUID, list[UUID]]
    logs: int
    leaks: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def operation(self, tenant: Tenant, chance: random.Random) -> Operation:
        kind = chance.random()
        if kind < 0.70:
            return Operation(READ, {name: chance.randint(1, self.logs) for name in "abcd"})
        if kind < 0.72:
            return Operation(READ_WITH_ORM, {"id": chance.randint(1, self.logs)})
        if kind < 0.77:
            return Operation(READ_DEFINITIONS, {})
        whose = chance.choice(self.tenants).organization if kind < 0.80 else tenant.organization
        parameters = {"workflow": chance.choice(self.workflows[whose]), "writer": str(tenant.organization)}
        return Operation(INSERT, parameters, is_foreign=whose != tenant.organization)

    def update(self, tenant: Tenant, chance: random.Random) -> Operation:
        """The last of a transaction, since two could deadlock. Users may not update logs at all."""
        parameters = {"id": chance.randint(1, self.logs), "writer": str(tenant.organization)}
        return Operation(UPDATE, parameters, is_foreign="user" in tenant.options)

    def perform(
        self, session: Session, tenant: Tenant, chance: random.Random, disturb: Disturb,
        *, at_once: bool = False,
    ) -> None:  # fmt: skip
        """Run some transactions in a session; `at_once`: what the driver can run alone goes to it so."""
        for _ in range(chance.randint(1, 3)):
            info = session.connection().info
            self.done["handed over"] += info.get("tenant") not in (None, tenant)
            info["tenant"] = tenant
            operations = [self.operation(tenant, chance) for _ in range(chance.randint(1, 30))]
            if chance.random() < 0.3:
                operations.append(self.update(tenant, chance))
            steps = [(each, each.is_foreign or chance.random() < 0.01) for each in operations]
            for is_plain, group in itertools.groupby(steps, is_for_the_driver):
                if at_once and is_plain:
                    self._execute_at_once(session, tenant, [operation for operation, _ in group], disturb)
                    continue
                for operation, has_savepoint in group:
                    disturb()
                    self._execute(session, tenant, operation, has_savepoint=has_savepoint)
            end = chance.choice((session.commit, session.commit, session.rollback, None))
            if end is None:
                raise StoppedError
            end()

    def _execute(
        self, session: Session, tenant: Tenant, operation: Operation, *, has_savepoint: bool
    ) -> None:
        self.done["operations"] += 1
        if has_savepoint:
            try:
                with session.begin_nested():
                    found = session.scalars(operation.statement, operation.parameters).all()
            except DBAPIError as error:
                if error.connection_invalidated or not operation.is_foreign:
                    raise
                self.done["refused"] += 1
                return
        else:
            found = session.scalars(operation.statement, operation.parameters).all()
        self._look_at(found, tenant, operation)

    def _execute_at_once(
        self, session: Session, tenant: Tenant, operations: list[Operation], disturb: Disturb
    ) -> None:
        driver: Any = session.connection().connection.driver_connection
        cursors = []
        try:
            with driver.pipeline():
                for operation in operations:
                    disturb()
                    cursors.append(driver.execute(in_psycopg(operation.statement), operation.parameters))
        except psycopg.OperationalError as error:
            # Without one it is the driver that misses the server.
            if error.sqlstate not in (None, psycopg.errors.AdminShutdown.sqlstate):
                raise
            session.invalidate()
            raise KilledError from error
        self.done["operations"] += len(operations)
        for operation, cursor in zip(operations, cursors, strict=True):
            self._look_at([organization for (organization,) in cursor], tenant, operation)

    def _look_at(self, found: Sequence[UUID], tenant: Tenant, operation: Operation) -> None:
        self.done["rows"] += len(found)
        if any(organization != tenant.organization for organization in found):
            self.leaks.append(f"{tenant} reached {set(found)} by {operation}")

    def kill_somebody(self, superuser: psycopg.Connection[Any], chance: random.Random) -> None:
        if chance.random() < KILLED:
            self.done["killed"] += 1
            superuser.execute("""
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND usename = 'authenticator' ORDER BY random() LIMIT 1
            """)


@pytest.fixture
def world(templates: Templates) -> Iterator[World]:
    database = templates.clone("upgraded")
    database.execute(f"""
        INSERT INTO organizations (id, name)
        SELECT ('a0000000-0000-4000-8000-00000000000' || n)::uuid, n
        FROM generate_series(1, {ORGANIZATIONS}) AS n;
        INSERT INTO profiles (id, organization_id) SELECT id, id FROM organizations;
        INSERT INTO workflow_definitions (
            organization_id, name, natural_language_prompt, workflow_json, trigger_type)
        SELECT id, 'Workflow ' || n, 'Do', '{{}}', 'manual' FROM organizations, generate_series(1, 3) AS n;
        INSERT INTO workflow_execution_logs (workflow_id, status)
        SELECT id, 'success' FROM workflow_definitions, generate_series(1, 30) AS n
        ORDER BY n, organization_id, name;
        ANALYZE
    """)
    users = database.execute("SELECT organization_id, id FROM profiles ORDER BY organization_id")
    tenants = [
        tenant
        for organization, user in users
        for tenant in (
            Tenant(organization, {"user": user}),
            Tenant(organization, {"organization": organization}),
        )
    ]
    workflows: dict[UUID, list[UUID]] = dict(
        database.execute(
            "SELECT organization_id, array_agg(id ORDER BY name) FROM workflow_definitions GROUP BY 1"
        )
    )
    yield World(database, tenants, workflows, logs=ORGANIZATIONS * 3 * 30)
    templates.drop(database)


def is_for_the_driver(step: tuple[Operation, bool]) -> bool:
    operation, has_savepoint = step
    return isinstance(operation.statement, TextClause) and not has_savepoint


@cache
def in_psycopg(statement: TextClause) -> str:
    return str(statement.compile(dialect=psycopg_dialect()))  # type: ignore[no-untyped-call]


def keep_the_others(context: ExceptionContext) -> None:
    """Where one connection was killed the pool would close all, which are to change hands as they are."""
    context.invalidate_pool_on_disconnect = False


def in_threads(
    world: World, engine: Engine, open_session: Callable[[Tenant], Session], operations: int,
    *, are_errors_expected: bool = False,
) -> None:  # fmt: skip
    """Run that many operations, in threads that share the engine's pool."""

    def work(number: int) -> None:
        chance = random.Random(f"{SEED} {number}")
        with world.database.connect(world.database.superuser) as superuser:
            disturb = partial(world.kill_somebody, superuser, chance)
            while not world.leaks and world.done["operations"] < operations:
                tenant = chance.choice(world.tenants)
                try:
                    with open_session(tenant) as session:
                        world.perform(session, tenant, chance, disturb, at_once=True)
                except (StoppedError, KilledError, UnreachableDatabaseError):
                    pass
                except (DBAPIError, psycopg.Error) as error:
                    if not (getattr(error, "connection_invalidated", False) or are_errors_expected):
                        raise

    event.listen(engine, "handle_error", keep_the_others)
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for done in [pool.submit(work, number) for number in range(AT_ONCE)]:
                done.result()
    finally:
        engine.dispose()


async def in_tasks(world: World, driver: str, operations: int) -> None:
    """The same in tasks of one event loop, where they are cancelled too."""
    url = make_url(world.database.url("authenticator")).set(drivername=driver)
    engine = create_async_engine(url, **POOL)
    event.listen(engine.sync_engine, "handle_error", keep_the_others)
    loop = asyncio.get_running_loop()

    async def work(number: int, superuser: psycopg.Connection[Any]) -> None:
        chance = random.Random(f"{SEED} {number}")
        task = asyncio.current_task()
        assert task

        def cancel_in(turns: int) -> None:
            if turns:
                loop.call_soon(cancel_in, turns - 1)
            else:
                task.cancel()

        def disturb() -> None:
            world.kill_somebody(superuser, chance)
            if chance.random() < CANCELLED:
                world.done["cancelled"] += 1
                cancel_in(chance.randrange(6))

        while not world.leaks and world.done["operations"] < operations:
            tenant = chance.choice(world.tenants)
            try:
                async with AsyncTenantSession(engine, **tenant.options) as session:
                    await session.run_sync(world.perform, tenant, chance, disturb)
            except asyncio.CancelledError:
                task.uncancel()
            except (StoppedError, UnreachableDatabaseError):
                pass
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise

    try:
        with world.database.connect(world.database.superuser) as superuser:
            await asyncio.gather(*(work(number, superuser) for number in range(AT_ONCE)))
    finally:
        await engine.dispose()


def assert_nothing_leaked(world: World, operations: int) -> None:
    print(f"TENANCY_SEED={SEED}", dict(world.done))
    written = world.database.execute(WRITTEN, user=world.database.superuser)

    assert world.leaks == []
    assert world.database.execute(MISWRITTEN, user=world.database.superuser) == []
    assert world.done["operations"] >= operations
    # There was something to see, to write and to refuse, and the connections changed hands.
    assert len(written) == ORGANIZATIONS
    assert min(count for _, count in written) > operations / 1000
    assert world.done["rows"] > operations / 3
    assert world.done["refused"] > operations / 50
    assert world.done["killed"] > operations / 2500
    assert world.done["handed over"] > operations / 100


@pytest.mark.timeout(300)
def test_no_row_of_another_tenant_is_reached_in_threads(world: World) -> None:
    engine = create_engine(world.database.url("authenticator"), **POOL)

    in_threads(world, engine, lambda tenant: TenantSession(engine, **tenant.options), IN_THREADS)

    assert_nothing_leaked(world, IN_THREADS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("driver", "operations"), IN_TASKS.items(), ids=IN_TASKS)
def test_no_row_of_another_tenant_is_reached_in_tasks(world: World, driver: str, operations: int) -> None:
    asyncio.run(in_tasks(world, driver, operations))

    assert_nothing_leaked(world, operations)
    assert world.done["cancelled"] > operations / 2500


def set_in_the_first_transaction(tenant: Tenant, session: Session, *, is_local: bool) -> None:
    @event.listens_for(session, "after_begin", once=True)
    def identify(_: Session, transaction: SessionTransaction, connection: Connection) -> None:
        for name, value in (
            ("request.jwt.claim.sub", str(tenant.options.get("user", ""))),
            ("workflow.organization_id", str(tenant.options.get("organization", ""))),
            ("role", "authenticated" if "user" in tenant.options else "workflow_worker"),
        ):
            connection.execute(select(func.set_config(name, value, is_local)))


@pytest.mark.parametrize(
    ("login", "is_local"),
    [("authenticator", False), ("postgres", True)],
    ids=["a setting that stays with the connection", "a login above row-level security"],
)
def test_sessions_that_name_their_tenant_once_are_caught(world: World, login: str, is_local: bool) -> None:
    login = world.database.superuser if login == "postgres" else login
    engine = create_engine(world.database.url(login), **POOL)

    def open_session(tenant: Tenant) -> Session:
        session = Session(engine)
        set_in_the_first_transaction(tenant, session, is_local=is_local)
        return session

    in_threads(world, engine, open_session, IN_THREADS, are_errors_expected=True)

    assert world.leaks


def test_a_row_that_another_tenant_wrote_is_found(world: World) -> None:
    first, *_, last = world.tenants
    theirs = "SELECT min(id) FROM workflow_execution_logs WHERE organization_id = %(theirs)s"
    log = world.database.execute(theirs, {"theirs": last.organization})[0][0]
    engine = world.database.engine()

    with Session(engine) as session, session.begin():
        session.execute(UPDATE, {"id": log, "writer": str(first.organization)})

    assert world.database.execute(MISWRITTEN) == [(log,)]
