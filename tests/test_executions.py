"""Recording runs, as the roles that do it, and what is left when something comes between; reading them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import pytest
from sqlalchemy import Engine, NullPool, event, func, make_url, select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from tests.application import ACME, ACME_SUPER, ACME_USER, ACME_WORKFLOW, GLOBEX, GLOBEX_WORKFLOW
from tests.databases import Database, Templates
from tests.plans import explained, indexes, nodes, scanned
from workflow_models import ExecutionStatus, WorkflowDefinition, WorkflowExecutionLog
from workflow_models.executions import (
    Cursor,
    ExecutionGoneError,
    ExecutionRefusedError,
    Page,
    WorkflowNotFoundError,
    async_executions,
    async_record_execution,
    async_summary,
    executions,
    failed_executions,
    record_execution,
    summary,
)
from workflow_models.tenancy import AsyncTenantSession, AsyncTenantSessionmaker, TenantSessionmaker

Workers: TypeAlias = Callable[[], Session]

UNKNOWN = UUID("e0000000-0000-4000-9000-000000000000")


@pytest.fixture(scope="module")
def live(templates: Templates) -> Iterator[Database]:
    """The application's database after `upgrade head`; each test has a workflow of its own in it."""
    database = templates.clone("adopted_upgraded")
    yield database
    templates.drop(database)


@pytest.fixture(scope="module")
def engine(live: Database) -> Iterator[Engine]:
    """As a service logs in: the login may do nothing but become one of the roles."""
    engine = live.engine("authenticator")
    yield engine
    engine.dispose()


@pytest.fixture
def workflow(live: Database) -> UUID:
    return new_workflow(live, ACME)


@pytest.fixture
def worker(engine: Engine) -> Iterator[Session]:
    with TenantSessionmaker(engine)(organization=ACME) as session:
        yield session


@pytest.fixture
def service(engine: Engine) -> Iterator[Session]:
    with as_service(engine) as session:
        yield session


def as_service(engine: Engine) -> Session:
    """A session of the application's server code, which sees every organization."""
    session = Session(engine)
    event.listen(
        session,
        "after_begin",
        lambda _, __, connection: connection.execute(text("SET LOCAL ROLE service_role")),
    )
    return session


def new_workflow(database: Database, organization: UUID | None) -> UUID:
    [(workflow,)] = database.execute(
        """
        INSERT INTO workflow_definitions
            (organization_id, name, natural_language_prompt, workflow_json, trigger_type)
        VALUES (%(organization)s, 'Test', 'Do', '{}', 'manual') RETURNING id
        """,
        {"organization": organization},
    )
    return UUID(str(workflow))


def logs_of(database: Database, workflow: UUID) -> list[Any]:
    """All its runs, the first one first, as the owner of the table sees them."""
    engine = database.engine()
    with Session(engine, expire_on_commit=False) as session:
        log = WorkflowExecutionLog
        return list(session.scalars(select(log).where(log.workflow_id == workflow).order_by(log.id)))


def log_of(database: Database, workflow: UUID) -> Any:
    (log,) = logs_of(database, workflow)
    return log


def definition_of(database: Database, workflow: UUID) -> WorkflowDefinition:
    with Session(database.engine()) as session:
        return session.get_one(WorkflowDefinition, workflow)


MOVE = "UPDATE workflow_definitions SET organization_id = %(to)s WHERE id = %(workflow)s"
DELETE = "DELETE FROM workflow_definitions WHERE id = %(workflow)s"


# A run from its start to its end.


@pytest.mark.parametrize(
    ("role", "organization"), [("worker", ACME), ("service", ACME), ("service", None)], ids=str
)
def test_a_run_is_committed_when_it_starts_and_when_it_ends(
    live: Database, request: pytest.FixtureRequest, role: str, organization: UUID | None
) -> None:
    session = request.getfixturevalue(role)
    workflow = new_workflow(live, organization)
    before = definition_of(live, workflow)

    with record_execution(session, workflow, trigger_data={"by": "test"}, context={"step": 0}) as run:
        started = log_of(live, workflow)
        run.result = {"sent": 3}
        run.context["step"] = 2
        run.steps_details += [{"name": "send"}, {"name": "tell"}]

    assert (started.id, started.organization_id) == (run.log_id, organization)
    assert (started.status, started.execution_end, started.trigger_data) == ("running", None, {"by": "test"})
    ended = log_of(live, workflow)
    assert (ended.status, ended.error_details, ended.retry_count) == (ExecutionStatus.SUCCESS, None, 0)
    assert (ended.execution_result, ended.context) == ({"sent": 3}, {"step": 2})
    assert ended.steps_details == [{"name": "send"}, {"name": "tell"}]
    assert ended.organization_id == organization
    elapsed = ended.execution_end - ended.execution_start
    assert abs(elapsed / timedelta(milliseconds=1) - ended.duration_ms) <= 1
    after = definition_of(live, workflow)
    assert (before.last_executed_at, after.last_executed_at) == (None, ended.execution_end)
    assert after.updated_at > before.updated_at


def test_a_run_starts_when_it_is_recorded_and_not_when_its_session_began_to_read(
    live: Database, worker: Session, workflow: UUID
) -> None:
    definition = worker.get_one(WorkflowDefinition, workflow)
    read_at = worker.scalar(select(func.now()))

    with record_execution(worker, definition):
        started = log_of(live, workflow)

    assert started.execution_start == started.created_at > read_at


def test_a_run_of_which_only_some_steps_succeeded_is_partial(
    live: Database, worker: Session, workflow: UUID
) -> None:
    with record_execution(worker, workflow) as run:
        run.partial("2 of 5 mails bounced")
        run.result = {"sent": 3}

    ended = log_of(live, workflow)
    assert (ended.status, ended.error_details) == (ExecutionStatus.PARTIAL, "2 of 5 mails bounced")
    assert ended.execution_result == {"sent": 3}


def test_the_session_can_be_used_in_the_block_which_is_committed_with_its_end(
    live: Database, worker: Session, workflow: UUID
) -> None:
    other = new_workflow(live, ACME)

    with record_execution(worker, workflow):
        worker.add(WorkflowExecutionLog(workflow_id=other, status=ExecutionStatus.RUNNING))
        worker.flush()
        assert logs_of(live, other) == []

    assert len(logs_of(live, other)) == 1


def test_what_is_pending_is_committed_with_the_start(live: Database, worker: Session, workflow: UUID) -> None:
    other = new_workflow(live, ACME)
    worker.add(WorkflowExecutionLog(workflow_id=other, status=ExecutionStatus.RUNNING))

    with record_execution(worker, workflow):
        assert len(logs_of(live, other)) == 1


# Errors.


@pytest.mark.parametrize(
    ("error", "details"),
    [
        (ValueError("no such mailbox"), "ValueError: no such mailbox"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit: 3"),
        (StopIteration("end"), "StopIteration: end"),
        (GeneratorExit(), "GeneratorExit"),
        (ValueError("nul \x00, half \ud800"), "ValueError: nul \\x00, half \\ud800"),
        (ValueError("x" * 20_000), "ValueError: " + "x" * 9_988),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_exception_is_recorded_and_passes_through_unchanged(
    live: Database, worker: Session, workflow: UUID, error: BaseException, details: str
) -> None:
    def fail() -> None:
        with record_execution(worker, workflow) as run:
            run.steps_details.append({"name": "send"})
            raise error

    with pytest.raises(type(error)) as raised:
        fail()

    assert raised.value is error
    assert (error.__cause__, error.__context__, getattr(error, "__notes__", [])) == (None, None, [])
    ended = log_of(live, workflow)
    assert (ended.status, ended.error_details) == (ExecutionStatus.ERROR, details)
    assert ended.steps_details == [{"name": "send"}]
    assert definition_of(live, workflow).last_executed_at == ended.execution_end


def test_an_exception_rolls_back_what_the_block_has_not_committed(
    live: Database, worker: Session, workflow: UUID
) -> None:
    other = new_workflow(live, ACME)

    def fail() -> None:
        with record_execution(worker, workflow):
            worker.add(WorkflowExecutionLog(workflow_id=other, status=ExecutionStatus.RUNNING))
            worker.commit()
            worker.add(WorkflowExecutionLog(workflow_id=other, status=ExecutionStatus.RUNNING))
            worker.flush()
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fail()

    assert len(logs_of(live, other)) == 1


def test_a_statement_that_fails_in_the_block_is_recorded(
    live: Database, worker: Session, workflow: UUID
) -> None:
    with pytest.raises(DBAPIError, match="division by zero"), record_execution(worker, workflow):
        worker.execute(text("SELECT 1 / 0"))

    assert "division by zero" in log_of(live, workflow).error_details


@pytest.mark.parametrize("result", [{"nul": "\x00"}, {"when": datetime.now(UTC)}], ids=["nul", "no JSON"])
def test_a_result_that_cannot_be_stored_is_an_error_of_the_run(
    live: Database, worker: Session, workflow: UUID, result: dict[str, Any]
) -> None:
    with pytest.raises((DBAPIError, TypeError)), record_execution(worker, workflow) as run:
        run.result = result

    ended = log_of(live, workflow)
    assert (ended.status, ended.execution_result) == (ExecutionStatus.ERROR, None)
    assert ended.error_details


def test_a_run_stays_a_success_where_only_the_answer_to_its_commit_was_lost(
    live: Database, engine: Engine, worker: Session, workflow: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = engine.dialect.do_commit

    def lose_the_answer(connection: Any) -> None:
        commit(connection)
        monkeypatch.undo()
        raise KeyboardInterrupt

    def run() -> None:
        with record_execution(worker, workflow):
            monkeypatch.setattr(engine.dialect, "do_commit", lose_the_answer)

    with pytest.raises(KeyboardInterrupt) as raised:
        run()

    assert getattr(raised.value, "__notes__", []) == []
    assert log_of(live, workflow).status == ExecutionStatus.SUCCESS


def test_a_run_whose_connection_was_killed_is_recorded_on_another_one(
    live: Database, worker: Session, workflow: UUID
) -> None:
    def lose_the_connection() -> None:
        with record_execution(worker, workflow):
            pid = worker.scalar(select(func.pg_backend_pid()))
            live.execute("SELECT pg_terminate_backend(%(pid)s)", {"pid": pid}, user=live.superuser)
            worker.execute(text("SELECT 1"))

    with pytest.raises(OperationalError):
        lose_the_connection()

    assert log_of(live, workflow).status == ExecutionStatus.ERROR


def test_an_error_that_cannot_be_recorded_comes_out_with_a_note(clone: Callable[[str], Database]) -> None:
    closed = clone("adopted_upgraded")
    recorded = []

    def fail() -> None:
        sessions = TenantSessionmaker(closed.engine("authenticator"))
        with sessions(organization=ACME) as worker, record_execution(worker, ACME_WORKFLOW) as run:
            recorded.append(run.log_id)
            closed.execute(f'ALTER DATABASE "{closed.name}" CONNECTION LIMIT 0', user=closed.superuser)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError) as raised:
        fail()

    (note,) = raised.value.__notes__
    assert note.startswith(f"Run {recorded[0]} could not be recorded as failed: ")
    assert "cannot be reached" in note
    status = "SELECT status FROM workflow_execution_logs WHERE id = %(id)s"
    assert closed.execute(status, {"id": recorded[0]}, user=closed.superuser) == [("running",)]


# Retries.


def test_each_retry_of_a_run_is_a_run_that_counts_one_more(
    live: Database, worker: Session, workflow: UUID
) -> None:
    earlier: int | None = None
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), record_execution(worker, workflow, retry_of=earlier) as run:
            _ = 1 / 0
        earlier = run.log_id

    assert [log.retry_count for log in logs_of(live, workflow)] == [0, 1, 2]


def test_tries_inside_a_run_are_counted_by_whoever_makes_them(
    live: Database, worker: Session, workflow: UUID
) -> None:
    with record_execution(worker, workflow) as run:
        run.retry_count += 2

    assert log_of(live, workflow).retry_count == 2


# Who may not, and when not.


@pytest.mark.parametrize("role", ["authenticated", "authenticator", "app_owner"])
def test_a_session_of_nobody_who_runs_workflows_is_refused_before_anything_is_written(
    live: Database, engine: Engine, workflow: UUID, role: str
) -> None:
    sessions: dict[str, Callable[[], Session]] = {
        "authenticated": lambda: TenantSessionmaker(engine)(user=ACME_SUPER.id),
        "authenticator": lambda: Session(engine),
        "app_owner": lambda: Session(live.engine()),
    }
    with sessions[role]() as session:
        session.add(WorkflowExecutionLog(workflow_id=workflow, status=ExecutionStatus.RUNNING))
        with pytest.raises(ExecutionRefusedError) as refused, record_execution(session, workflow):
            raise AssertionError("the block ran")

        assert len(session.new) == 1

    assert logs_of(live, workflow) == []
    assert str(refused.value) == (
        f"a session with the role {role} cannot record runs; only workflow_worker and service_role can.\n"
        "  Unchanged: nothing was written; the session's transaction is as it was.\n"
        "  Next: use a session of an organization, `with TenantSessionmaker(engine)(organization=…)`, "
        "or of service_role."
    )


@pytest.mark.parametrize("begin", ["begin", "begin_nested"])
def test_a_transaction_that_somebody_else_ends_is_refused(
    live: Database, worker: Session, workflow: UUID, begin: str
) -> None:
    with (
        getattr(worker, begin)(),
        pytest.raises(ExecutionRefusedError, match="commits"),
        record_execution(worker, workflow),
    ):
        raise AssertionError("the block ran")

    assert logs_of(live, workflow) == []


def test_a_workflow_that_was_never_flushed_is_refused(service: Session) -> None:
    unsaved = WorkflowDefinition(name="New")
    service.add(unsaved)

    with (
        pytest.raises(ExecutionRefusedError, match="not in the database"),
        record_execution(service, unsaved),
    ):
        raise AssertionError("the block ran")


def test_a_workflow_out_of_sight_is_not_found(live: Database, worker: Session) -> None:
    for workflow in (UNKNOWN, GLOBEX_WORKFLOW):
        before = logs_of(live, workflow)
        with pytest.raises(WorkflowNotFoundError, match=str(workflow)), record_execution(worker, workflow):
            raise AssertionError("the block ran")
        assert [log.id for log in logs_of(live, workflow)] == [log.id for log in before]


def test_a_workflow_is_named_by_the_text_of_its_id_too(worker: Session, workflow: UUID) -> None:
    with record_execution(worker, str(workflow)) as execution:
        assert execution.workflow_id == workflow

    with (
        pytest.raises(WorkflowNotFoundError, match="'welcome-mail'"),
        record_execution(worker, "welcome-mail"),
    ):
        raise AssertionError("the block ran")


def test_a_run_of_another_workflow_cannot_be_retried(worker: Session, workflow: UUID) -> None:
    with record_execution(worker, ACME_WORKFLOW) as other:
        pass

    with (
        pytest.raises(WorkflowNotFoundError, match=f"that has a run {other.log_id}"),
        record_execution(worker, workflow, retry_of=other.log_id),
    ):
        raise AssertionError("the block ran")


# A workflow that goes, or moves, while it runs.


@pytest.mark.parametrize("statement", [DELETE, MOVE], ids=["deleted", "moved"])
def test_a_run_whose_workflow_is_gone_says_so_and_rolls_its_block_back(
    live: Database, worker: Session, workflow: UUID, statement: str
) -> None:
    other = new_workflow(live, ACME)

    def run() -> None:
        with record_execution(worker, workflow):
            worker.add(WorkflowExecutionLog(workflow_id=other, status=ExecutionStatus.RUNNING))
            worker.flush()
            live.execute(statement, {"workflow": workflow, "to": GLOBEX})

    with pytest.raises(ExecutionGoneError, match=str(workflow)):
        run()

    assert logs_of(live, other) == []
    left = [(log.organization_id, log.status) for log in logs_of(live, workflow)]
    assert left == ([] if statement is DELETE else [(GLOBEX, ExecutionStatus.RUNNING)])


def test_an_error_in_a_run_whose_workflow_is_gone_comes_out_with_a_note(
    live: Database, worker: Session, workflow: UUID
) -> None:
    def fail() -> None:
        with record_execution(worker, workflow):
            live.execute(DELETE, {"workflow": workflow})
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError) as raised:
        fail()

    (note,) = raised.value.__notes__
    assert note.startswith("Run ")
    assert note.endswith(f"its workflow {workflow} was deleted, or moved out of this session's sight.")


def test_the_service_records_a_run_whose_workflow_moved(
    live: Database, service: Session, workflow: UUID
) -> None:
    with record_execution(service, workflow):
        live.execute(MOVE, {"workflow": workflow, "to": GLOBEX})

    ended = log_of(live, workflow)
    assert (ended.organization_id, ended.status) == (GLOBEX, ExecutionStatus.SUCCESS)


def test_the_end_of_a_run_waits_for_a_move_without_holding_its_log(
    live: Database, service: Session, workflow: UUID
) -> None:
    """A move locks the workflow, then its logs: whoever held the log and waited would deadlock with it."""
    with live.connect(autocommit=False) as mover, live.connect() as other, ThreadPoolExecutor(1) as thread:
        recording = record_execution(service, workflow)
        run = recording.__enter__()
        pid = service.scalar(select(func.pg_backend_pid()))
        mover.execute("UPDATE workflow_definitions SET name = 'Moving' WHERE id = %s", [workflow])
        end = thread.submit(recording.__exit__, None, None, None)
        while other.execute("SELECT pg_blocking_pids(%s)", [pid]).fetchone() != ([mover.info.backend_pid],):
            assert not end.done(), "did not wait"

        mover.execute(MOVE, {"workflow": workflow, "to": GLOBEX})
        mover.commit()
        end.result()

    assert run.log_id == log_of(live, workflow).id
    assert log_of(live, workflow).organization_id == GLOBEX
    assert log_of(live, workflow).status == ExecutionStatus.SUCCESS


def test_what_the_block_changed_in_its_log_is_written_after_the_workflow(
    live: Database, engine: Engine, worker: Session, workflow: UUID
) -> None:
    written: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith("UPDATE"):
            written.append(statement.split()[1])

    with record_execution(worker, workflow) as run:
        log = worker.get_one(WorkflowExecutionLog, run.log_id)
        log.context = {"step": 1}
        event.listen(engine, "before_cursor_execute", note)

    event.remove(engine, "before_cursor_execute", note)
    assert written[0] == "workflow_definitions"
    assert set(written[1:]) == {"workflow_execution_logs"}


# Async.

DRIVERS = pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])


@asynccontextmanager
async def async_worker(database: Database, driver: str, **options: Any) -> AsyncIterator[AsyncTenantSession]:
    url = make_url(database.url("authenticator")).set(drivername=f"postgresql+{driver}")
    engine = create_async_engine(url, poolclass=NullPool)
    async with AsyncTenantSessionmaker(engine, **options)(organization=ACME) as session:
        yield session


@DRIVERS
def test_runs_are_recorded_in_an_async_session(live: Database, workflow: UUID, driver: str) -> None:
    async def service() -> None:
        async with async_worker(live, driver) as session:
            definition = await session.get_one(WorkflowDefinition, workflow)
            async with async_record_execution(session, definition, trigger_data={"by": "test"}) as run:
                started = log_of(live, workflow)
                assert (started.status, started.trigger_data) == ("running", {"by": "test"})
                run.result = {"sent": 3}
                await session.scalars(select(WorkflowExecutionLog))
            # The first commit has expired the definition, which may not be loaded by touching it.
            with pytest.raises(ZeroDivisionError):
                async with async_record_execution(session, definition, retry_of=run.log_id):
                    _ = 1 / 0

    asyncio.run(service())

    succeeded, failed = logs_of(live, workflow)
    assert (succeeded.status, succeeded.execution_result) == (ExecutionStatus.SUCCESS, {"sent": 3})
    assert (failed.status, failed.error_details) == (
        ExecutionStatus.ERROR,
        "ZeroDivisionError: division by zero",
    )
    assert failed.retry_count == 1


@DRIVERS
@pytest.mark.parametrize("busy", [True, False], ids=["in a statement", "elsewhere"])
def test_a_cancelled_run_is_recorded_and_stays_cancelled(
    live: Database, workflow: UUID, driver: str, busy: bool
) -> None:
    async def run(working: asyncio.Future[int]) -> None:
        async with async_worker(live, driver) as session, async_record_execution(session, workflow):
            working.set_result(await session.scalar(select(func.pg_backend_pid())) or 0)
            if busy:
                await session.execute(text("SELECT pg_sleep(60)"))
            else:
                await asyncio.Event().wait()

    async def cancel() -> None:
        working = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(run(working))
        pid = await working
        while busy and not sleeps(live, pid):
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())

    ended = log_of(live, workflow)
    assert (ended.status, ended.error_details) == (
        ExecutionStatus.ERROR,
        "asyncio.exceptions.CancelledError",
    )


@DRIVERS
def test_a_user_records_no_run_in_an_async_session(live: Database, workflow: UUID, driver: str) -> None:
    async def service() -> None:
        url = make_url(live.url("authenticator")).set(drivername=f"postgresql+{driver}")
        engine = create_async_engine(url, poolclass=NullPool)
        async with AsyncTenantSessionmaker(engine)(user=ACME_SUPER.id) as session:
            with pytest.raises(ExecutionRefusedError, match="role authenticated"):
                async with async_record_execution(session, workflow):
                    raise AssertionError("the block ran")

    asyncio.run(service())

    assert logs_of(live, workflow) == []


def sleeps(database: Database, pid: int) -> bool:
    query = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = %(pid)s"
    return database.execute(query, {"pid": pid}, user=database.superuser) == [(True,)]


# Readers.

A_DAY = datetime(2025, 6, 1, tzinfo=UTC)


def write_logs(database: Database, workflow: UUID, status: str, created_at: datetime, rows: int) -> None:
    database.execute(
        """
        INSERT INTO workflow_execution_logs (workflow_id, status, created_at)
        SELECT %(workflow)s, %(status)s, %(created_at)s FROM generate_series(1, %(rows)s)
        """,
        {"workflow": workflow, "status": status, "created_at": created_at, "rows": rows},
    )


def pages(read: Callable[[Cursor | None], Page]) -> Iterator[Page]:
    page = read(None)
    yield page
    while page.next:
        # As a client hands it back in a URL.
        page = read(Cursor.parse(str(page.next)))
        yield page


@pytest.mark.parametrize("limit", [1, 7, 10, 30, 31])
def test_pages_show_each_run_once_also_where_many_began_at_once(
    live: Database, worker: Session, workflow: UUID, limit: int
) -> None:
    for microsecond in (1, 2, 3):
        write_logs(live, workflow, "success", A_DAY.replace(microsecond=microsecond), 10)
    latest_first = [log.id for log in reversed(logs_of(live, workflow))]

    read = []
    for page in pages(lambda before: executions(worker, workflow_id=workflow, before=before, limit=limit)):
        assert 0 < len(page.executions) <= limit
        read += [log.id for log in page.executions]
        write_logs(live, workflow, "success", A_DAY + timedelta(days=1), 1)

    assert read == latest_first


def test_a_page_of_nothing_is_the_last_one(worker: Session, workflow: UUID) -> None:
    assert executions(worker, workflow_id=workflow) == Page([], None)


def test_runs_are_chosen_by_workflow_and_by_status(live: Database, worker: Session, workflow: UUID) -> None:
    for rows, status in enumerate(ExecutionStatus, start=1):
        write_logs(live, workflow, status, A_DAY, rows)

    for rows, status in enumerate(ExecutionStatus, start=1):
        found = executions(worker, workflow_id=workflow, status=status).executions
        assert [(log.workflow_id, log.status) for log in found] == [(workflow, status)] * rows
    failed = failed_executions(worker, workflow_id=workflow).executions
    assert {log.status for log in failed} == {ExecutionStatus.ERROR}
    assert len(failed_executions(worker).executions) >= len(failed)


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_page_has_1_to_1000_runs(worker: Session, limit: int) -> None:
    with pytest.raises(ValueError, match=f"limit is {limit}: it may be 1 to 1000"):
        executions(worker, limit=limit)


@pytest.mark.parametrize(
    "given", ["", "1", "1-", "-1-2", "1-2-3", "١-٢", "1" * 18 + "-1", "1-" + "1" * 19, "1-2\n"]
)
def test_what_is_not_a_cursor_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        Cursor.parse(given)


def test_a_summary_counts_each_status_in_its_window(clone: Callable[[str], Database]) -> None:
    database = clone("upgraded")
    database.execute(
        "INSERT INTO organizations (id, name) VALUES (%(acme)s, 'Acme'), (%(globex)s, 'Globex')",
        {"acme": ACME, "globex": GLOBEX},
    )
    own, foreign = new_workflow(database, ACME), new_workflow(database, GLOBEX)
    write_logs(database, own, "error", A_DAY - timedelta(microseconds=1), 1)
    write_logs(database, own, "error", A_DAY, 2)
    write_logs(database, own, "success", A_DAY + timedelta(hours=1), 3)
    write_logs(database, own, "success", A_DAY + timedelta(days=1), 4)
    write_logs(database, foreign, "partial", A_DAY, 5)
    engine = database.engine("authenticator")

    def counts(session: Session, until: datetime | None, organization_id: UUID | None = None) -> list[int]:
        counted = summary(session, A_DAY, until, organization_id=organization_id)
        return [counted[ExecutionStatus(status)] for status in ("running", "success", "error", "partial")]

    with TenantSessionmaker(engine)(organization=ACME) as worker:
        assert counts(worker, A_DAY + timedelta(days=1)) == [0, 3, 2, 0]
        assert counts(worker, None) == [0, 7, 2, 0]
    with as_service(engine) as service:
        assert counts(service, None) == [0, 7, 2, 5]
        assert counts(service, None, GLOBEX) == [0, 0, 0, 5]


@DRIVERS
def test_readers_give_the_same_in_an_async_session(
    live: Database, worker: Session, workflow: UUID, driver: str
) -> None:
    write_logs(live, workflow, "error", A_DAY, 3)

    async def read() -> tuple[list[int], Cursor | None, dict[ExecutionStatus, int]]:
        async with async_worker(live, driver) as session:
            page = await async_executions(
                session, workflow_id=workflow, status=ExecutionStatus.ERROR, limit=2
            )
            return [log.id for log in page.executions], page.next, await async_summary(session, A_DAY)

    page = failed_executions(worker, workflow_id=workflow, limit=2)
    assert asyncio.run(read()) == (
        [log.id for log in page.executions],
        page.next,
        summary(worker, A_DAY),
    )


# Indexes.


@pytest.fixture(scope="module")
def many(templates: Templates) -> Iterator[Database]:
    database = templates.clone("many_logs")
    yield database
    templates.drop(database)


BEFORE = Cursor(datetime(2025, 1, 6, tzinfo=UTC), 10_000)
# Each reader with the indexes of which one serves it.
BY_TIME, BY_WORKFLOW = "idx_workflow_exec_org_time", "idx_workflow_execution_logs_workflow_id"
FAILED, BY_STATUS = "idx_failed_workflow_executions", "idx_workflow_execution_logs_status"
FAILED_OF_ALL = "idx_failed_organization_executions"
READERS: dict[str, tuple[Callable[[Session, UUID], Any], set[str]]] = {
    "latest": (lambda session, _: executions(session), {BY_TIME}),
    "next page": (lambda session, _: executions(session, before=BEFORE), {BY_TIME}),
    "of a workflow": (lambda session, of: executions(session, workflow_id=of), {BY_TIME, BY_WORKFLOW}),
    "of a workflow, next page": (
        lambda session, of: executions(session, workflow_id=of, before=BEFORE),
        {BY_TIME, BY_WORKFLOW},
    ),
    "running": (lambda session, _: executions(session, status=ExecutionStatus.RUNNING), {BY_TIME, BY_STATUS}),
    "failed": (lambda session, _: failed_executions(session), {FAILED_OF_ALL}),
    "failed of a workflow": (
        lambda session, of: failed_executions(session, workflow_id=of),
        {FAILED, "idx_failed_executions_by_workflow"},
    ),
    "summary of a day": (
        lambda session, _: summary(session, datetime(2025, 1, 8, tzinfo=UTC)),
        {BY_TIME},
    ),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("tenant", [{"user": ACME_USER.id}, {"organization": ACME}], ids=["user", "worker"])
def test_each_reader_is_served_by_an_index(many: Database, tenant: dict[str, Any], reader: str) -> None:
    read, served_by = READERS[reader]
    [(workflow,)] = many.execute(
        "SELECT id FROM workflow_definitions WHERE organization_id = %(acme)s AND name = 'Many' LIMIT 1",
        {"acme": ACME},
    )
    engine = many.engine("authenticator")

    with TenantSessionmaker(engine)(**tenant) as session, explained(engine) as plans:
        read(session, workflow)

    assert scanned(plans[-1]) == set()
    assert indexes(plans[-1]) & served_by, json.dumps(plans[-1], indent=1)


def test_failures_of_a_workflow_are_found_without_its_organization(many: Database) -> None:
    [(workflow,)] = many.execute("SELECT id FROM workflow_definitions WHERE name = 'Many' LIMIT 1")
    engine = many.engine("authenticator")

    with (
        TenantSessionmaker(engine)(user=ACME_SUPER.id, every_organization=True) as session,
        explained(engine) as plans,
    ):
        failed_executions(session, workflow_id=workflow)

    assert indexes(plans[-1]) == {"idx_failed_executions_by_workflow"}


def test_counts_of_an_organization_are_read_from_an_index_alone(many: Database) -> None:
    engine = many.engine("authenticator")

    with TenantSessionmaker(engine)(organization=ACME) as session, explained(engine) as plans:
        summary(session, datetime(2025, 1, 8, tzinfo=UTC))

    read = {node["Node Type"]: node.get("Index Name") for node in nodes(plans[-1])}
    assert read["Index Only Scan"] == BY_TIME
