"""A log's organization is its definition's, whoever writes and whatever interleaves."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from psycopg import IsolationLevel
from psycopg.errors import ForeignKeyViolation, SerializationFailure

from tests.application import ACME, ACME_WORKFLOW, GLOBAL_WORKFLOW, GLOBEX, GLOBEX_WORKFLOW, INITECH
from tests.application.states import STATES, at
from tests.catalog import misplaced_logs
from tests.databases import Database
from tests.waiting import Waiting
from workflow_models import migrations

Connection: TypeAlias = psycopg.Connection[Any]
Clone: TypeAlias = Callable[[str], Database]

OLD_INSERT = """
    INSERT INTO workflow_execution_logs (workflow_id, execution_start, status, trigger_data)
    VALUES (%(workflow)s, now(), 'running', '{}')
    RETURNING id, organization_id
"""
NEW_INSERT = """
    INSERT INTO workflow_execution_logs (workflow_id, organization_id, execution_start, status, trigger_data)
    VALUES (%(workflow)s, %(organization)s, now(), 'running', '{}')
    RETURNING id, organization_id
"""
MOVE = "UPDATE workflow_definitions SET organization_id = %(to)s WHERE id = %(workflow)s"
END_OF_RUN = """
    UPDATE workflow_execution_logs
    SET status = 'success', execution_end = now(), execution_result = '{"ok": true}'
    WHERE id = %(log)s
"""

WORKFLOWS = pytest.mark.parametrize(
    ("workflow", "organization"),
    [(ACME_WORKFLOW, ACME), (GLOBEX_WORKFLOW, GLOBEX), (GLOBAL_WORKFLOW, None)],
    ids=["of Acme", "of Globex", "global"],
)
MOVES = pytest.mark.parametrize(
    ("workflow", "to"),
    [(ACME_WORKFLOW, GLOBEX), (ACME_WORKFLOW, None), (GLOBAL_WORKFLOW, ACME)],
    ids=["to another", "to none", "from none"],
)
STRICTER = pytest.mark.parametrize(
    "level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE], ids=lambda level: level.name
)


@pytest.fixture
def live(clone: Clone) -> Database:
    """The application's database after `upgrade head`."""
    return clone("adopted_upgraded")


@pytest.fixture
def writer(live: Database) -> Iterator[Connection]:
    with service(live) as connection:
        yield connection


@contextmanager
def service(database: Database, *, autocommit: bool = True) -> Iterator[Connection]:
    """Connected as the application's server code is."""
    with database.connect("authenticator", autocommit=True) as connection:
        connection.execute("SET ROLE service_role")
        connection.autocommit = autocommit
        yield connection


@pytest.fixture
def two(live: Database) -> Iterator[tuple[Connection, Connection]]:
    """Two connections, each in a transaction that ends when the test says so."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(service(live, autocommit=False)) for _ in range(2))
        yield first, second


def row(cursor: psycopg.Cursor[Any]) -> tuple[Any, ...]:
    found = cursor.fetchone()
    assert found
    return tuple(found)


def organization_of(database: Database, log: int) -> UUID | None:
    [(organization,)] = database.execute(
        "SELECT organization_id FROM workflow_execution_logs WHERE id = %(log)s", {"log": log}
    )
    return organization  # type: ignore[no-any-return]


def organizations_of(database: Database, workflow: UUID) -> list[tuple[Any, ...]]:
    return [
        tuple(found)
        for found in database.execute(
            """
            SELECT organization_id, count(*) FROM workflow_execution_logs
            WHERE workflow_id = %(workflow)s GROUP BY organization_id
            """,
            {"workflow": workflow},
        )
    ]


def misplaced(database: Database) -> list[tuple[Any, ...]]:
    return misplaced_logs(database.observer)


# Writers, one at a time.


@WORKFLOWS
def test_a_log_written_by_old_code_gets_the_organization_of_its_definition(
    writer: Connection, workflow: UUID, organization: UUID | None
) -> None:
    _, written = row(writer.execute(OLD_INSERT, {"workflow": workflow}))

    assert written == organization


@WORKFLOWS
def test_a_log_written_by_new_code_keeps_the_organization_it_sends(
    writer: Connection, workflow: UUID, organization: UUID | None
) -> None:
    _, written = row(writer.execute(NEW_INSERT, {"workflow": workflow, "organization": organization}))

    assert written == organization


def test_a_log_that_sends_null_gets_the_organization_of_its_definition(writer: Connection) -> None:
    _, written = row(writer.execute(NEW_INSERT, {"workflow": ACME_WORKFLOW, "organization": None}))

    assert written == ACME


@pytest.mark.parametrize("organization", [GLOBEX, INITECH, uuid4()], ids=["another", "idle", "unknown"])
@pytest.mark.parametrize("workflow", [ACME_WORKFLOW, GLOBAL_WORKFLOW], ids=["of Acme", "global"])
def test_a_log_that_sends_a_wrong_organization_is_refused(
    live: Database, writer: Connection, workflow: UUID, organization: UUID
) -> None:
    before = organizations_of(live, workflow)

    with pytest.raises(psycopg.errors.IntegrityError):
        writer.execute(NEW_INSERT, {"workflow": workflow, "organization": organization})

    assert organizations_of(live, workflow) == before


def test_a_log_of_an_unknown_workflow_is_refused_as_before(writer: Connection) -> None:
    with pytest.raises(ForeignKeyViolation, match="workflow_execution_logs_workflow_id_fkey"):
        writer.execute(OLD_INSERT, {"workflow": uuid4()})


def test_many_logs_written_by_one_statement_get_theirs_each(live: Database, writer: Connection) -> None:
    writer.execute(
        """
        INSERT INTO workflow_execution_logs (workflow_id, status)
        SELECT id, 'running' FROM workflow_definitions, generate_series(1, 5)
        """
    )

    assert misplaced(live) == []


def test_logs_written_by_copy_get_theirs_each(live: Database, writer: Connection) -> None:
    with writer.cursor().copy("COPY workflow_execution_logs (workflow_id, status) FROM STDIN") as copy:
        for workflow in (ACME_WORKFLOW, GLOBEX_WORKFLOW, GLOBAL_WORKFLOW):
            copy.write_row((workflow, "running"))

    assert misplaced(live) == []


@MOVES
def test_a_move_of_a_definition_carries_its_logs(
    live: Database, writer: Connection, workflow: UUID, to: UUID | None
) -> None:
    writer.execute(MOVE, {"workflow": workflow, "to": to})

    assert organizations_of(live, workflow) == [(to, 40)]


def test_a_move_leaves_the_logs_of_other_definitions(live: Database, writer: Connection) -> None:
    writer.execute(MOVE, {"workflow": ACME_WORKFLOW, "to": GLOBEX})

    assert misplaced(live) == []


def test_a_move_there_and_back_leaves_every_log_as_it_was(live: Database, writer: Connection) -> None:
    writer.execute(MOVE, {"workflow": ACME_WORKFLOW, "to": None})
    writer.execute(MOVE, {"workflow": ACME_WORKFLOW, "to": ACME})

    assert organizations_of(live, ACME_WORKFLOW) == [(ACME, 40)]


def test_organizations_may_swap_their_definitions_in_one_statement(
    live: Database, writer: Connection
) -> None:
    writer.execute(
        """
        UPDATE workflow_definitions
        SET organization_id = CASE organization_id WHEN %(a)s THEN %(b)s::uuid ELSE %(a)s::uuid END
        WHERE organization_id IS NOT NULL
        """,
        {"a": ACME, "b": GLOBEX},
    )

    assert misplaced(live) == []


def test_a_move_to_an_unknown_organization_is_refused(live: Database, writer: Connection) -> None:
    with pytest.raises(ForeignKeyViolation):
        writer.execute(MOVE, {"workflow": ACME_WORKFLOW, "to": uuid4()})

    assert organizations_of(live, ACME_WORKFLOW) == [(ACME, 40)]


@STRICTER
def test_a_move_from_none_is_refused_above_read_committed(
    live: Database, two: tuple[Connection, Connection], level: IsolationLevel
) -> None:
    mover, _ = two
    mover.isolation_level = level

    with pytest.raises(psycopg.Error):
        mover.execute(MOVE, {"workflow": GLOBAL_WORKFLOW, "to": ACME})
    mover.rollback()

    assert organizations_of(live, GLOBAL_WORKFLOW) == [(None, 40)]


@STRICTER
@pytest.mark.parametrize("to", [GLOBEX, None], ids=["to another", "to none"])
def test_a_move_of_an_organizations_definition_works_above_read_committed(
    live: Database, two: tuple[Connection, Connection], level: IsolationLevel, to: UUID | None
) -> None:
    mover, _ = two
    mover.isolation_level = level

    mover.execute(MOVE, {"workflow": ACME_WORKFLOW, "to": to})
    mover.commit()

    assert organizations_of(live, ACME_WORKFLOW) == [(to, 40)]


@pytest.mark.parametrize(
    ("source", "target", "organization"),
    [
        (ACME_WORKFLOW, GLOBEX_WORKFLOW, GLOBEX),
        (ACME_WORKFLOW, GLOBAL_WORKFLOW, None),
        (GLOBAL_WORKFLOW, ACME_WORKFLOW, ACME),
    ],
    ids=["another organization's", "a global one", "an organization's, from a global one"],
)
def test_a_log_moved_to_another_workflow_takes_its_organization(
    live: Database, writer: Connection, source: UUID, target: UUID, organization: UUID | None
) -> None:
    log, _ = row(writer.execute(OLD_INSERT, {"workflow": source}))

    writer.execute(
        "UPDATE workflow_execution_logs SET workflow_id = %(target)s WHERE id = %(log)s",
        {"target": target, "log": log},
    )

    assert organization_of(live, log) == organization


@pytest.mark.parametrize("workflow", [ACME_WORKFLOW, GLOBAL_WORKFLOW], ids=["of Acme", "global"])
@pytest.mark.parametrize(
    "value", [GLOBEX, INITECH, uuid4(), None], ids=["another", "idle", "unknown", "none"]
)
def test_no_update_of_a_log_gives_it_a_wrong_organization(
    live: Database, writer: Connection, workflow: UUID, value: UUID | None
) -> None:
    log, organization = row(writer.execute(OLD_INSERT, {"workflow": workflow}))

    with suppress(psycopg.errors.IntegrityError):  # refused or put right: both hold
        writer.execute(
            "UPDATE workflow_execution_logs SET organization_id = %(value)s WHERE id = %(log)s",
            {"value": value, "log": log},
        )

    assert organization_of(live, log) == organization


def test_the_end_of_a_run_is_written_as_before(live: Database, writer: Connection) -> None:
    log, _ = row(writer.execute(OLD_INSERT, {"workflow": ACME_WORKFLOW}))

    writer.execute(END_OF_RUN, {"log": log})

    assert organization_of(live, log) == ACME


def test_deleting_a_definition_deletes_its_logs_and_no_others(live: Database, writer: Connection) -> None:
    writer.execute("DELETE FROM workflow_definitions WHERE id = %(id)s", {"id": ACME_WORKFLOW})

    assert live.execute(
        "SELECT workflow_id = %(id)s, count(*) FROM workflow_execution_logs GROUP BY 1", {"id": ACME_WORKFLOW}
    ) == [(False, 280)]


def test_deleting_a_global_definition_deletes_its_logs(live: Database, writer: Connection) -> None:
    writer.execute("DELETE FROM workflow_definitions WHERE id = %(id)s", {"id": GLOBAL_WORKFLOW})

    assert organizations_of(live, GLOBAL_WORKFLOW) == []


def test_deleting_an_organization_deletes_its_definitions_and_logs_and_no_others(
    live: Database, writer: Connection
) -> None:
    writer.execute("DELETE FROM organizations WHERE id = %(id)s", {"id": ACME})

    assert live.execute(
        "SELECT organization_id, count(*) FROM workflow_execution_logs GROUP BY 1 ORDER BY 1 NULLS LAST"
    ) == [(GLOBEX, 120), (None, 80)]


def test_deleting_an_organization_leaves_the_logs_of_a_definition_that_moved_away(
    live: Database, writer: Connection
) -> None:
    writer.execute(MOVE, {"workflow": ACME_WORKFLOW, "to": GLOBEX})

    writer.execute("DELETE FROM organizations WHERE id = %(id)s", {"id": ACME})

    assert organizations_of(live, ACME_WORKFLOW) == [(GLOBEX, 40)]


# Two writers: what the first has not committed, the second waits for.


@MOVES
def test_an_old_insert_during_a_move_gets_where_the_definition_went(
    live: Database, two: tuple[Connection, Connection], workflow: UUID, to: UUID | None
) -> None:
    mover, inserter = two
    waiting = Waiting(live, inserter)
    mover.execute(MOVE, {"workflow": workflow, "to": to})

    waiting.send(OLD_INSERT, {"workflow": workflow})
    waiting.until_blocked_by(mover)
    mover.commit()

    assert row(waiting.result())[1] == to


@MOVES
def test_a_move_during_an_old_insert_carries_the_new_log(
    live: Database, two: tuple[Connection, Connection], workflow: UUID, to: UUID | None
) -> None:
    mover, inserter = two
    waiting = Waiting(live, mover)
    log, _ = row(inserter.execute(OLD_INSERT, {"workflow": workflow}))

    waiting.send(MOVE, {"workflow": workflow, "to": to})
    waiting.until_blocked_by(inserter)
    inserter.commit()
    waiting.result()
    mover.commit()

    assert organization_of(live, log) == to


@MOVES
def test_an_old_insert_during_a_move_that_rolls_back_gets_where_the_definition_stayed(
    live: Database, two: tuple[Connection, Connection], workflow: UUID, to: UUID | None
) -> None:
    mover, inserter = two
    waiting = Waiting(live, inserter)
    mover.execute(MOVE, {"workflow": workflow, "to": to})

    waiting.send(OLD_INSERT, {"workflow": workflow})
    waiting.until_blocked_by(mover)
    mover.rollback()
    waiting.result()
    inserter.commit()

    assert misplaced(live) == []


@pytest.mark.parametrize("to", [GLOBEX, None], ids=["to another", "to none"])
def test_a_new_insert_during_a_move_is_refused_since_what_it_sends_is_no_longer_right(
    live: Database, two: tuple[Connection, Connection], to: UUID | None
) -> None:
    mover, inserter = two
    waiting = Waiting(live, inserter)
    mover.execute(MOVE, {"workflow": ACME_WORKFLOW, "to": to})

    waiting.send(NEW_INSERT, {"workflow": ACME_WORKFLOW, "organization": ACME})
    waiting.until_blocked_by(mover)
    mover.commit()

    with pytest.raises(psycopg.errors.IntegrityError):
        waiting.result()


def test_a_move_during_a_new_insert_carries_the_new_log(
    live: Database, two: tuple[Connection, Connection]
) -> None:
    mover, inserter = two
    waiting = Waiting(live, mover)
    log, _ = row(inserter.execute(NEW_INSERT, {"workflow": ACME_WORKFLOW, "organization": ACME}))

    waiting.send(MOVE, {"workflow": ACME_WORKFLOW, "to": GLOBEX})
    waiting.until_blocked_by(inserter)
    inserter.commit()
    waiting.result()
    mover.commit()

    assert organization_of(live, log) == GLOBEX


@STRICTER
@MOVES
def test_a_move_whose_snapshot_is_older_than_a_log_never_leaves_it_behind(
    live: Database,
    two: tuple[Connection, Connection],
    level: IsolationLevel,
    workflow: UUID,
    to: UUID | None,
) -> None:
    mover, inserter = two
    mover.isolation_level = level
    mover.execute("SELECT count(*) FROM workflow_execution_logs")
    inserter.execute(OLD_INSERT, {"workflow": workflow})
    inserter.commit()

    try:
        mover.execute(MOVE, {"workflow": workflow, "to": to})
        mover.commit()
    except psycopg.Error:
        mover.rollback()  # refused: the log stays right

    assert misplaced(live) == []


@STRICTER
@MOVES
def test_an_insert_whose_snapshot_is_older_than_a_move_never_writes_where_the_definition_was(
    live: Database,
    two: tuple[Connection, Connection],
    level: IsolationLevel,
    workflow: UUID,
    to: UUID | None,
) -> None:
    mover, inserter = two
    inserter.isolation_level = level
    inserter.execute("SELECT count(*) FROM workflow_definitions")
    mover.execute(MOVE, {"workflow": workflow, "to": to})
    mover.commit()

    try:
        inserter.execute(OLD_INSERT, {"workflow": workflow})
        inserter.commit()
    except SerializationFailure:
        inserter.rollback()

    assert misplaced(live) == []


def test_the_end_of_a_run_during_a_move_stays_where_the_definition_went(
    live: Database, two: tuple[Connection, Connection]
) -> None:
    mover, ender = two
    waiting = Waiting(live, ender)
    log, _ = row(ender.execute(OLD_INSERT, {"workflow": ACME_WORKFLOW}))
    ender.commit()
    mover.execute(MOVE, {"workflow": ACME_WORKFLOW, "to": GLOBEX})

    waiting.send(END_OF_RUN, {"log": log})
    waiting.until_blocked_by(mover)
    mover.commit()
    waiting.result()
    ender.commit()

    assert organization_of(live, log) == GLOBEX


def test_a_move_during_the_end_of_a_run_keeps_the_end(
    live: Database, two: tuple[Connection, Connection]
) -> None:
    mover, ender = two
    waiting = Waiting(live, mover)
    log, _ = row(ender.execute(OLD_INSERT, {"workflow": ACME_WORKFLOW}))
    ender.commit()
    ender.execute(END_OF_RUN, {"log": log})

    waiting.send(MOVE, {"workflow": ACME_WORKFLOW, "to": GLOBEX})
    waiting.until_blocked_by(ender)
    ender.commit()
    waiting.result()
    mover.commit()

    assert live.execute(
        "SELECT organization_id, status FROM workflow_execution_logs WHERE id = %(log)s", {"log": log}
    ) == [(GLOBEX, "success")]


def test_a_log_moved_to_a_workflow_that_moves_takes_where_that_went(
    live: Database, two: tuple[Connection, Connection]
) -> None:
    mover, writer = two
    waiting = Waiting(live, writer)
    log, _ = row(writer.execute(OLD_INSERT, {"workflow": ACME_WORKFLOW}))
    writer.commit()
    mover.execute(MOVE, {"workflow": GLOBEX_WORKFLOW, "to": INITECH})

    waiting.send(
        "UPDATE workflow_execution_logs SET workflow_id = %(target)s WHERE id = %(log)s",
        {"target": GLOBEX_WORKFLOW, "log": log},
    )
    waiting.until_blocked_by(mover)
    mover.commit()
    waiting.result()
    writer.commit()

    assert organization_of(live, log) == INITECH


@pytest.mark.parametrize("workflow", [ACME_WORKFLOW, GLOBAL_WORKFLOW], ids=["of Acme", "global"])
def test_an_insert_during_the_delete_of_its_definition_is_refused(
    live: Database, two: tuple[Connection, Connection], workflow: UUID
) -> None:
    deleter, inserter = two
    waiting = Waiting(live, inserter)
    deleter.execute("DELETE FROM workflow_definitions WHERE id = %(id)s", {"id": workflow})

    waiting.send(OLD_INSERT, {"workflow": workflow})
    waiting.until_blocked_by(deleter)
    deleter.commit()

    with pytest.raises(ForeignKeyViolation, match="workflow_execution_logs_workflow_id_fkey"):
        waiting.result()


@pytest.mark.parametrize("workflow", [ACME_WORKFLOW, GLOBAL_WORKFLOW], ids=["of Acme", "global"])
def test_the_delete_of_a_definition_during_an_insert_deletes_the_new_log_too(
    live: Database, two: tuple[Connection, Connection], workflow: UUID
) -> None:
    deleter, inserter = two
    waiting = Waiting(live, deleter)
    inserter.execute(OLD_INSERT, {"workflow": workflow})

    waiting.send("DELETE FROM workflow_definitions WHERE id = %(id)s", {"id": workflow})
    waiting.until_blocked_by(inserter)
    inserter.commit()
    waiting.result()
    deleter.commit()

    assert organizations_of(live, workflow) == []


def test_an_insert_during_the_delete_of_its_organization_is_refused(
    live: Database, two: tuple[Connection, Connection]
) -> None:
    deleter, inserter = two
    waiting = Waiting(live, inserter)
    deleter.execute("DELETE FROM organizations WHERE id = %(id)s", {"id": ACME})

    waiting.send(OLD_INSERT, {"workflow": ACME_WORKFLOW})
    waiting.until_blocked_by(deleter)
    deleter.commit()

    with pytest.raises(ForeignKeyViolation):
        waiting.result()


def test_the_delete_of_an_organization_during_an_insert_deletes_the_new_log_too(
    live: Database, two: tuple[Connection, Connection]
) -> None:
    deleter, inserter = two
    waiting = Waiting(live, deleter)
    inserter.execute(OLD_INSERT, {"workflow": ACME_WORKFLOW})

    waiting.send("DELETE FROM organizations WHERE id = %(id)s", {"id": ACME})
    waiting.until_blocked_by(inserter)
    inserter.commit()
    waiting.result()
    deleter.commit()

    assert organizations_of(live, ACME_WORKFLOW) == []


def test_the_delete_of_an_organization_during_a_move_away_leaves_what_moved(
    live: Database, two: tuple[Connection, Connection]
) -> None:
    mover, deleter = two
    waiting = Waiting(live, deleter)
    mover.execute(MOVE, {"workflow": ACME_WORKFLOW, "to": GLOBEX})

    waiting.send("DELETE FROM organizations WHERE id = %(id)s", {"id": ACME})
    waiting.until_blocked_by(mover)
    mover.commit()
    waiting.result()
    deleter.commit()

    assert organizations_of(live, ACME_WORKFLOW) == [(GLOBEX, 40)]


def test_inserts_for_one_definition_do_not_wait_for_each_other(two: tuple[Connection, Connection]) -> None:
    first, second = two
    second.execute("SET lock_timeout = 1")
    first.execute(OLD_INSERT, {"workflow": ACME_WORKFLOW})

    _, written = row(second.execute(OLD_INSERT, {"workflow": ACME_WORKFLOW}))

    assert written == ACME


def test_an_insert_does_not_wait_for_an_edit_of_its_definition_that_leaves_the_organization(
    two: tuple[Connection, Connection],
) -> None:
    editor, inserter = two
    inserter.execute("SET lock_timeout = 1")
    editor.execute(
        "UPDATE workflow_definitions SET name = 'Other', last_executed_at = now() WHERE id = %(id)s",
        {"id": ACME_WORKFLOW},
    )

    _, written = row(inserter.execute(OLD_INSERT, {"workflow": ACME_WORKFLOW}))

    assert written == ACME


# Between the revisions: the triggers stand, the keys do not yet.


@pytest.fixture
def half_way(clone: Clone) -> Database:
    """The application's database once the triggers stand, before the backfill."""
    return clone(at("adopted", "wf0003"))


def test_a_log_written_before_the_backfill_gets_its_organization(half_way: Database) -> None:
    with service(half_way) as writer:
        _, written = row(writer.execute(OLD_INSERT, {"workflow": ACME_WORKFLOW}))

    assert written == ACME


@MOVES
def test_a_move_before_the_backfill_carries_what_was_written_by_then(
    half_way: Database, workflow: UUID, to: UUID | None
) -> None:
    with service(half_way) as writer:
        log, _ = row(writer.execute(OLD_INSERT, {"workflow": workflow}))
        writer.execute(MOVE, {"workflow": workflow, "to": to})

    assert organization_of(half_way, log) == to


@MOVES
def test_a_move_before_the_backfill_that_an_insert_waits_for_gives_it_its_goal(
    half_way: Database, workflow: UUID, to: UUID | None
) -> None:
    with service(half_way, autocommit=False) as mover, service(half_way) as inserter:
        waiting = Waiting(half_way, inserter)
        mover.execute(MOVE, {"workflow": workflow, "to": to})
        waiting.send(OLD_INSERT, {"workflow": workflow})
        waiting.until_blocked_by(mover)
        mover.commit()

        assert row(waiting.result())[1] == to


@pytest.mark.parametrize("state", STATES)
def test_moves_between_the_triggers_and_the_backfill_end_in_the_right_place(clone: Clone, state: str) -> None:
    database = clone(state)
    migrations.upgrade(database.url(), "wf0003_add_organization_id")
    with service(database) as writer:
        writer.execute(MOVE, {"workflow": ACME_WORKFLOW, "to": GLOBEX})
        writer.execute(MOVE, {"workflow": GLOBEX_WORKFLOW, "to": None})
        writer.execute(MOVE, {"workflow": GLOBAL_WORKFLOW, "to": ACME})

    migrations.upgrade(database.url())

    assert misplaced(database) == []


# Any order of writes.


class Writers(RuleBasedStateMachine):
    """One transaction of many writes, against a model that knows where each definition and log is."""

    workflow = st.sampled_from([ACME_WORKFLOW, GLOBEX_WORKFLOW, GLOBAL_WORKFLOW])
    organization = st.sampled_from([ACME, GLOBEX, INITECH, None])
    log = st.integers(0, 9)

    connection: Connection

    def __init__(self) -> None:
        super().__init__()
        self.organizations = {ACME, GLOBEX, INITECH}
        self.owner: dict[UUID, UUID | None] = {
            ACME_WORKFLOW: ACME,
            GLOBEX_WORKFLOW: GLOBEX,
            GLOBAL_WORKFLOW: None,
        }
        self.logs: dict[int, UUID] = {}

    def teardown(self) -> None:
        self.connection.rollback()

    def written(self, statement: str, **parameters: object) -> list[Any] | None:
        """What the statement gives, or None where it is refused."""
        try:
            with self.connection.transaction():
                cursor = self.connection.execute(statement.encode(), parameters)
                return cursor.fetchall() if cursor.description else []
        except psycopg.errors.IntegrityError:
            return None

    @rule(workflow=workflow)
    def old_code_inserts(self, workflow: UUID) -> None:
        rows = self.written(OLD_INSERT, workflow=workflow)
        assert (rows is not None) == (workflow in self.owner)
        if rows:
            self.logs[rows[0][0]] = workflow

    @rule(workflow=workflow, organization=organization)
    def new_code_inserts(self, workflow: UUID, organization: UUID | None) -> None:
        rows = self.written(NEW_INSERT, workflow=workflow, organization=organization)
        assert (rows is not None) == (workflow in self.owner and organization in (None, self.owner[workflow]))
        if rows:
            self.logs[rows[0][0]] = workflow

    @rule(workflow=workflow, to=organization)
    def definition_moves(self, workflow: UUID, to: UUID | None) -> None:
        if self.written(MOVE, workflow=workflow, to=to) is not None and workflow in self.owner:
            self.owner[workflow] = to

    @rule(log=log, workflow=workflow)
    def log_moves(self, log: int, workflow: UUID) -> None:
        chosen = self.choose(log)
        changed = self.written(
            "UPDATE workflow_execution_logs SET workflow_id = %(workflow)s WHERE id = %(id)s",
            workflow=workflow, id=chosen,
        )  # fmt: skip
        if chosen is not None and changed is not None:
            self.logs[chosen] = workflow

    @rule(log=log, organization=organization)
    def log_is_given_an_organization(self, log: int, organization: UUID | None) -> None:
        self.written(
            "UPDATE workflow_execution_logs SET organization_id = %(to)s WHERE id = %(id)s",
            to=organization, id=self.choose(log),
        )  # fmt: skip

    @rule(log=log)
    def run_ends(self, log: int) -> None:
        assert self.written(END_OF_RUN, log=self.choose(log)) is not None

    @rule(workflow=workflow)
    def definition_is_deleted(self, workflow: UUID) -> None:
        assert self.written("DELETE FROM workflow_definitions WHERE id = %(id)s", id=workflow) is not None
        self.forget([workflow])

    @rule(organization=organization)
    def organization_is_deleted(self, organization: UUID | None) -> None:
        assert self.written("DELETE FROM organizations WHERE id = %(id)s", id=organization) is not None
        self.forget([w for w, owner in self.owner.items() if owner == organization and owner is not None])

    @invariant()
    def every_log_is_where_its_definition_is(self) -> None:
        rows = self.written("SELECT id, workflow_id, organization_id FROM workflow_execution_logs")
        assert rows is not None
        found = {id_: (workflow, organization) for id_, workflow, organization in rows if id_ > 320}
        assert found == {id_: (workflow, self.owner[workflow]) for id_, workflow in self.logs.items()}
        assert misplaced_logs(self.connection) == []

    def choose(self, number: int) -> int | None:
        logs = sorted(self.logs)
        return logs[number % len(logs)] if logs else None

    def forget(self, workflows: list[UUID]) -> None:
        for workflow in workflows:
            self.owner.pop(workflow, None)
        self.logs = {id_: workflow for id_, workflow in self.logs.items() if workflow in self.owner}


def test_no_order_of_writes_leaves_a_log_in_a_wrong_organization(live: Database) -> None:
    with service(live, autocommit=False) as service_connection:

        class ServiceWriters(Writers):
            connection = service_connection

        run_state_machine_as_test(
            ServiceWriters,
            settings=settings(deadline=None, max_examples=25, stateful_step_count=20, database=None),
        )
