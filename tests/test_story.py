"""The whole story, on one live database.

Its performance indexes fail for want of a column; the revisions bring that while old and new code go on
writing; then everything that was promised is looked at; then all of it goes down and up again.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from itertools import cycle
from threading import Condition, Event
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, UndefinedColumn
from sqlalchemy.orm import Session

from tests.application import (
    ACME,
    ACME_SUPER,
    ACME_USER,
    ACME_WORKFLOW,
    GLOBAL_WORKFLOW,
    GLOBEX,
    GLOBEX_USER,
    GLOBEX_WORKFLOW,
    ORPHAN_SUPER,
    Person,
    script,
)
from tests.application.states import REVISIONS
from tests.catalog import Rows, Snapshot, misplaced_logs, rows, snapshot
from tests.databases import Database
from workflow_models import ExecutionStatus, WorkflowDefinition, WorkflowExecutionLog, migrations
from workflow_models.online import MigrationError

Connection: TypeAlias = psycopg.Connection[Any]
Write: TypeAlias = Callable[[Connection, UUID], int]

WORKFLOWS = {ACME_WORKFLOW: ACME, GLOBEX_WORKFLOW: GLOBEX, GLOBAL_WORKFLOW: None}

OLD_INSERT = """
    INSERT INTO workflow_execution_logs (workflow_id, execution_start, status, trigger_data)
    VALUES (%(workflow)s, now(), 'running', '{"by": "old code"}')
    RETURNING id
"""
NEW_INSERT = """
    INSERT INTO workflow_execution_logs (workflow_id, organization_id, execution_start, status, trigger_data)
    VALUES (%(workflow)s, %(organization)s, now(), 'running', '{"by": "new code"}')
    RETURNING id
"""
END_OF_RUN = """
    UPDATE workflow_execution_logs
    SET execution_end = now(), status = 'success', execution_result = '{"ok": true}'
    WHERE id = %(log)s
"""
NOTE_EXECUTION = "UPDATE workflow_definitions SET last_executed_at = now() WHERE id = %(workflow)s"
# Of a definition, changed by each execution.
TIMES_OF_EXECUTION = ("last_executed_at", "updated_at")
# Of a log, lost on the way down to the first revision.
OF_ORCHESTRATION = ("trigger_id", "context", "steps_details", "duration_ms", "retry_count")

INDEXES = {
    "idx_workflow_execution_logs_organization_id": "(organization_id)",
    "idx_workflow_exec_org_time": (
        "(organization_id, created_at DESC) INCLUDE (status) WHERE (organization_id IS NOT NULL)"
    ),
    "idx_failed_workflow_executions": (
        "(organization_id, workflow_id, created_at DESC)"
        " WHERE ((status = 'error'::text) AND (organization_id IS NOT NULL))"
    ),
}
# What the composite ones are for.
READERS = {
    "idx_workflow_exec_org_time": """
        SELECT * FROM workflow_execution_logs
        WHERE organization_id = %(organization)s
        ORDER BY created_at DESC LIMIT 50
    """,
    "idx_failed_workflow_executions": """
        SELECT * FROM workflow_execution_logs
        WHERE organization_id = %(organization)s AND workflow_id = %(workflow)s AND status = 'error'
        ORDER BY created_at DESC LIMIT 20
    """,
}


def test_a_live_application_gets_organization_id_while_old_and_new_code_go_on_writing(
    clone: Callable[[str], Database],
) -> None:
    live = clone("adopted")
    before = kept(live)

    the_performance_indexes_fail_for_want_of_a_column(live)
    ended, open_runs = every_revision_is_applied_under_writers(live)

    no_log_is_lost_or_altered(live, before, ended, open_runs)
    every_log_has_the_organization_of_its_definition(live)
    the_indexes_are_there_and_valid(live)
    the_policies_let_each_read_and_write_their_own(live)
    executing_a_workflow_creates_a_log_with_its_organization(live)
    the_readers_use_the_composite_indexes(live)
    the_performance_indexes_no_longer_fail(live)
    going_down_and_up_again_ends_in_the_same(live)


def the_performance_indexes_fail_for_want_of_a_column(live: Database) -> None:
    before = schema(live)

    with pytest.raises(UndefinedColumn, match='column "organization_id" does not exist'):
        live.execute(script("phase3"))

    assert schema(live) == before


def every_revision_is_applied_under_writers(live: Database) -> tuple[set[int], set[int]]:
    """Gives the logs written meanwhile: those of runs that ended, and those still running.

    Each revision meets an open transaction of old code, which has started a run and ended another. While
    the migrator waits for that one, and between revisions, every other writer gets on.
    """
    ended: set[int] = set()
    open_runs: set[int] = set()
    waited: set[str] = set()
    with ExitStack() as stack:
        writers = [stack.enter_context(writing(live, run_of_old_code)) for _ in range(2)]
        for revision in REVISIONS:
            with ThreadPoolExecutor(1) as migrator, service(live, autocommit=False) as old:
                for run in open_runs:
                    end_run(old, run)
                ended |= open_runs
                open_runs = {insert(old, OLD_INSERT, workflow) for workflow in WORKFLOWS}
                upgrade = migrator.submit(migrations.upgrade, live.url(), revision)
                if comes_to_wait_for(live, old, upgrade):
                    waited.add(revision)
                    for writer in writers:
                        writer.until_it_wrote_more()
                open_runs.add(insert(old, OLD_INSERT, ACME_WORKFLOW))
                old.commit()
                upgrade.result()
            if revision == "wf0003_add_organization_id":
                writers.append(stack.enter_context(writing(live, run_of_new_code)))
            for writer in writers:
                writer.until_it_wrote_more()
    # The application has the orchestration's columns already: nothing there to wait for.
    assert waited >= set(REVISIONS) - {"wf0002_orchestration_columns"}
    return ended.union(*(writer.logs for writer in writers)), open_runs


def no_log_is_lost_or_altered(live: Database, before: Rows, ended: set[int], open_runs: set[int]) -> None:
    after = kept(live)
    logs = after["workflow_execution_logs"]

    assert logs.keys() == before["workflow_execution_logs"].keys() | ended | open_runs
    assert {logs[log]["status"] for log in ended} == {"success"}
    assert {logs[log]["status"] for log in open_runs} == {"running"}
    for log in ended | open_runs:
        del logs[log]
    assert without(after, *TIMES_OF_EXECUTION) == without(before, *TIMES_OF_EXECUTION)


def every_log_has_the_organization_of_its_definition(live: Database) -> None:
    assert misplaced_logs(live.observer) == []
    of_global_workflows = live.execute(
        """
        SELECT DISTINCT log.organization_id
        FROM workflow_execution_logs AS log
        JOIN workflow_definitions AS definition ON definition.id = log.workflow_id
        WHERE definition.organization_id IS NULL
        """
    )
    assert of_global_workflows == [(None,)]


def the_indexes_are_there_and_valid(live: Database) -> None:
    found = live.execute(
        """
        SELECT relname, split_part(pg_get_indexdef(indexrelid), ' USING btree ', 2)
        FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE indrelid = 'workflow_execution_logs'::regclass AND relname = ANY (%(names)s)
            AND indisvalid AND indisready AND indislive
        """,
        {"names": list(INDEXES)},
    )

    assert dict(found) == INDEXES


def the_policies_let_each_read_and_write_their_own(live: Database) -> None:
    policies: dict[str, str] = dict(
        live.execute(
            """
            SELECT policyname, coalesce(qual, with_check) FROM pg_policies
            WHERE tablename = 'workflow_execution_logs' AND roles = '{authenticated}'
            """
        )
    )
    assert policies.keys() == {"Users can view workflow logs", "System can insert workflow logs"}
    for expression in policies.values():  # of the row's own column, without a look at its definition
        assert "organization_id" in expression
        assert "workflow_definitions" not in expression

    every_log = organizations(live)
    for person in (ACME_USER, GLOBEX_USER):
        own = {log: owner for log, owner in every_log.items() if owner == person.organization}
        assert seen_by(live, person) == own
        assert own.keys() < every_log.keys()
    for person in (ACME_SUPER, ORPHAN_SUPER):
        assert seen_by(live, person) == every_log

    for workflow, owner in WORKFLOWS.items():
        assert may_insert(live, ACME_USER, workflow) == (owner == ACME)
        assert may_insert(live, ACME_SUPER, workflow)


def executing_a_workflow_creates_a_log_with_its_organization(live: Database) -> None:
    for workflow_id, organization in WORKFLOWS.items():
        with live.engine("authenticator").connect() as connection, Session(connection) as session:
            connection.exec_driver_sql("SET ROLE service_role")
            connection.commit()
            workflow = session.get_one(WorkflowDefinition, workflow_id)
            sent = WorkflowExecutionLog(
                workflow_id=workflow.id,
                organization_id=workflow.organization_id,
                status=ExecutionStatus.RUNNING,
                trigger_data={"by": "the models"},
            )
            left_out = WorkflowExecutionLog(workflow_id=workflow.id, status=ExecutionStatus.RUNNING)
            session.add_all([sent, left_out])
            session.commit()

            assert (sent.organization_id, left_out.organization_id) == (organization, organization)


def the_readers_use_the_composite_indexes(live: Database) -> None:
    """By the planner's own choice, for a user under the policies."""
    for index, query in READERS.items():
        with live.as_role("authenticated", claims(ACME_USER)) as connection:
            explained = connection.execute(
                f"EXPLAIN (FORMAT JSON) {query}".encode(),
                {"organization": ACME, "workflow": ACME_WORKFLOW},
            ).fetchone()
        assert explained
        assert list(scans(explained[0][0]["Plan"])) == [index]


def the_performance_indexes_no_longer_fail(live: Database) -> None:
    before = schema(live)

    live.execute(script("phase3"))

    assert schema(live) == before
    migrations.check(live.url())


def going_down_and_up_again_ends_in_the_same(live: Database) -> None:
    before = everything(live)
    catalog, every_row, organization_of_each = before
    first, second, *_ = REVISIONS

    migrations.downgrade(live.url(), second)
    assert kept(live) == every_row
    migrations.upgrade(live.url())
    assert everything(live) == before

    # Nothing could derive the values of the orchestration's columns again.
    with pytest.raises(MigrationError, match="would lose what cannot be derived again"):
        migrations.downgrade(live.url(), first)
    assert everything(live) == before

    migrations.downgrade(live.url(), first, x={"allow-data-loss": "true"})
    rest = kept(live)
    assert rest == without(every_row, *OF_ORCHESTRATION)
    migrations.upgrade(live.url())
    assert (schema(live), organizations(live)) == (catalog, organization_of_each)
    assert without(kept(live), *OF_ORCHESTRATION) == rest
    migrations.check(live.url())


# The writers, who speak to the database as the application's server code does.


def run_of_old_code(connection: Connection, workflow: UUID) -> int:
    log = insert(connection, OLD_INSERT, workflow)
    end_run(connection, log)
    connection.execute(NOTE_EXECUTION, {"workflow": workflow})
    return log


def run_of_new_code(connection: Connection, workflow: UUID) -> int:
    log = insert(connection, NEW_INSERT, workflow)
    end_run(connection, log)
    connection.execute(NOTE_EXECUTION, {"workflow": workflow})
    return log


def insert(connection: Connection, statement: str, workflow: UUID) -> int:
    written = connection.execute(
        statement.encode(), {"workflow": workflow, "organization": WORKFLOWS[workflow]}
    ).fetchone()
    assert written
    return int(written[0])


def end_run(connection: Connection, log: int) -> None:
    assert connection.execute(END_OF_RUN, {"log": log}).rowcount == 1


class Writer:
    """Does one run after the other in a thread of its own, until it is stopped or gets an error."""

    def __init__(self, live: Database, run: Write) -> None:
        self.logs: list[int] = []
        self._live = live
        self._run = run
        self._stop = Event()
        self._ended = False
        self._wrote = Condition()
        self._thread = ThreadPoolExecutor(1)
        self._result = self._thread.submit(self._work)

    def until_it_wrote_more(self) -> None:
        """Return once each workflow has run twice more; raise the writer's error, if it got one."""
        with self._wrote:
            goal = len(self.logs) + 2 * len(WORKFLOWS)
            self._wrote.wait_for(lambda: self._ended or len(self.logs) >= goal)
        if self._ended:
            self.stop()

    def stop(self) -> None:
        """Let it end the run that is under way; raise the writer's error, if it got one."""
        self._stop.set()
        self._thread.shutdown()
        self._result.result()

    def _work(self) -> None:
        try:
            with service(self._live) as connection:
                for workflow in cycle(WORKFLOWS):
                    if self._stop.is_set():
                        return
                    log = self._run(connection, workflow)
                    with self._wrote:
                        self.logs.append(log)
                        self._wrote.notify_all()
        finally:
            with self._wrote:
                self._ended = True
                self._wrote.notify_all()


@contextmanager
def writing(live: Database, run: Write) -> Iterator[Writer]:
    writer = Writer(live, run)
    try:
        yield writer
    finally:
        writer.stop()


@contextmanager
def service(live: Database, *, autocommit: bool = True) -> Iterator[Connection]:
    with live.connect("authenticator") as connection:
        connection.execute("SET ROLE service_role")
        connection.autocommit = autocommit
        yield connection


def comes_to_wait_for(live: Database, connection: Connection, upgrade: Future[None]) -> bool:
    """Whether the migrator waits for this connection, or else ends without doing so."""
    with live.connect(live.superuser) as observer:
        while not wait([upgrade], timeout=0.005).done:
            waiting = observer.execute(
                """
                SELECT pid FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'alembic'
                    AND %s = ANY (pg_blocking_pids(pid))
                """,
                [connection.info.backend_pid],
            )
            if waiting.fetchone():
                return True
    return False


# What there is, and who sees it.


def schema(live: Database) -> Snapshot:
    return snapshot(live.observer)


def kept(live: Database) -> Rows:
    return rows(live.observer)


def everything(live: Database) -> tuple[Snapshot, Rows, dict[int, UUID | None]]:
    return schema(live), kept(live), organizations(live)


def without(found: Rows, *columns: str) -> Rows:
    return {
        table: {
            id: {name: value for name, value in row.items() if name not in columns}
            for id, row in of_table.items()
        }
        for table, of_table in found.items()
    }


def organizations(live: Database) -> dict[int, UUID | None]:
    """The organization of each log, as the superuser sees them."""
    return dict(live.execute("SELECT id, organization_id FROM workflow_execution_logs", user=live.superuser))


def seen_by(live: Database, person: Person) -> dict[int, UUID | None]:
    with live.as_role("authenticated", claims(person)) as connection:
        return dict(connection.execute("SELECT id, organization_id FROM workflow_execution_logs").fetchall())


def may_insert(live: Database, person: Person, workflow: UUID) -> bool:
    with live.as_role("authenticated", claims(person)) as connection:
        try:
            insert(connection, OLD_INSERT, workflow)
        except InsufficientPrivilege:
            return False
        return True


def claims(person: Person) -> Mapping[str, str]:
    return {"request.jwt.claims": json.dumps({"sub": str(person.id), "role": "authenticated"})}


def scans(plan: Mapping[str, Any]) -> Iterator[str]:
    """The index of each scan in a plan, or `Seq Scan`."""
    if "Index Name" in plan or plan["Node Type"] == "Seq Scan":
        yield plan.get("Index Name", "Seq Scan")
    for child in plan.get("Plans", ()):
        yield from scans(child)
