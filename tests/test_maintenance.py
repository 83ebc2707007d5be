"""Sweeping and pruning: what goes, what stays, who may, and what happens beside others."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from psycopg.errors import LockNotAvailable
from sqlalchemy import Engine, NullPool, create_engine, event

from tests.application import ACME, ACME_WORKFLOW, GLOBEX, GLOBEX_WORKFLOW
from tests.databases import Database
from tests.plans import explained, indexes, scanned
from workflow_models import ExecutionStatus
from workflow_models.executions import record_execution
from workflow_models.maintenance import MaintenanceError, Pruned, Swept, prune, sweep
from workflow_models.tenancy import TenantSessionmaker

AN_HOUR, A_MONTH = timedelta(hours=1), timedelta(days=30)


@pytest.fixture
def live(clone: Callable[[str], Database]) -> Database:
    """The application's database after `upgrade head`, without any runs."""
    database = clone("adopted_upgraded")
    database.execute("DELETE FROM workflow_execution_logs")
    return database


def write(
    database: Database,
    rows: int,
    status: str = "success",
    *,
    age: str = "90 days",
    workflow: object = ACME_WORKFLOW,
) -> list[int]:
    """Runs of that age; gives their ids."""
    written = database.execute(
        """
        INSERT INTO workflow_execution_logs (workflow_id, status, created_at, execution_start)
        SELECT %(workflow)s, %(status)s, now() - %(age)s::interval, now() - %(age)s::interval
        FROM generate_series(1, %(rows)s) RETURNING id
        """,
        {"workflow": workflow, "status": status, "age": age, "rows": rows},
    )
    return [id for (id,) in written]


def ids(database: Database) -> list[int]:
    return [id for (id,) in database.execute("SELECT id FROM workflow_execution_logs ORDER BY id")]


def statuses(database: Database) -> dict[int, str]:
    return dict(database.execute("SELECT id, status FROM workflow_execution_logs"))


def as_service(database: Database) -> Engine:
    return as_role(database, "service_role")


def as_role(database: Database, role: str) -> Engine:
    return database.engine("authenticator", connect_args={"options": f"-c role={role}"})


# Sweeping.


def test_a_sweep_marks_runs_that_have_been_running_for_too_long(live: Database) -> None:
    old = write(live, 5, "running", age="61 minutes")
    young, ended = write(live, 1, "running", age="59 minutes"), write(live, 1)
    engine = live.engine()

    assert sweep(engine, AN_HOUR) == Swept(applied=False, found=5)
    assert set(statuses(live).values()) == {"running", "success"}
    assert sweep(engine, AN_HOUR, apply=True, batch_rows=2) == Swept(applied=True, found=5, marked=5)

    assert statuses(live) == {**dict.fromkeys(old, "error"), young[0]: "running", ended[0]: "success"}
    rows = live.execute(
        """
        SELECT DISTINCT error_details, now() - execution_end < interval '1 minute', duration_ms
        FROM workflow_execution_logs WHERE status = 'error'
        """
    )
    why = (
        "Still running 1:00:00 after its start: its worker has not recorded an end. "
        "Marked by `workflow-models sweep`."
    )
    assert rows == [(why, True, None)]
    assert sweep(engine, AN_HOUR, apply=True) == Swept(applied=True, found=0)


def test_a_worker_that_was_only_slow_records_its_end_after_a_sweep(live: Database) -> None:
    sessions = TenantSessionmaker(live.engine("authenticator"))
    with sessions(organization=ACME) as worker, record_execution(worker, ACME_WORKFLOW) as run:
        sweep(live.engine(), timedelta(microseconds=1), apply=True)
        assert statuses(live) == {run.log_id: "error"}

    assert live.execute("SELECT status, error_details FROM workflow_execution_logs") == [("success", None)]


def test_a_sweep_passes_over_a_run_that_is_just_being_ended(live: Database) -> None:
    first, second = write(live, 2, "running")
    with live.connect(autocommit=False) as ending:
        ending.execute("UPDATE workflow_execution_logs SET status = 'success' WHERE id = %s", [first])

        assert sweep(live.engine(), AN_HOUR, apply=True) == Swept(applied=True, found=2, marked=1)

    assert statuses(live) == {first: "success", second: "error"}


# Pruning.


def test_pruning_deletes_old_runs_that_have_ended(live: Database) -> None:
    for status in ("success", "error", "partial"):
        write(live, 3, status, age="31 days")
    kept = write(live, 2, age="29 days") + write(live, 1, "running", age="31 days")
    engine = live.engine()

    assert prune(engine, A_MONTH) == Pruned(applied=False, deletable=9, running=1)
    assert len(ids(live)) == 12
    assert prune(engine, A_MONTH, apply=True, batch_rows=2) == Pruned(
        applied=True, deletable=9, deleted=9, running=1
    )

    assert ids(live) == kept


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ({"status": ExecutionStatus.ERROR}, {"success", "running", "foreign"}),
        ({"status": ExecutionStatus.RUNNING}, {"success", "error", "foreign"}),
        ({"organization_id": ACME}, {"running", "foreign"}),
        ({"organization_id": GLOBEX}, {"success", "error", "running"}),
        ({"organization_id": ACME, "status": ExecutionStatus.SUCCESS}, {"error", "running", "foreign"}),
    ],
    ids=["failed", "running", "of Acme", "of Globex", "of Acme that succeeded"],
)
def test_pruning_can_be_narrowed(live: Database, chosen: dict[str, Any], left: set[str]) -> None:
    written = {status: write(live, 1, status) for status in ("success", "error", "running")}
    written["foreign"] = write(live, 1, workflow=GLOBEX_WORKFLOW)

    prune(live.engine(), A_MONTH, apply=True, **chosen)

    assert ids(live) == sorted(id for name in left for id in written[name])


def test_runs_that_began_at_once_are_all_looked_at(live: Database) -> None:
    live.execute(
        """
        INSERT INTO workflow_execution_logs (workflow_id, status, created_at)
        SELECT %(workflow)s, 'success', '2025-01-01' FROM generate_series(1, 10)
        """,
        {"workflow": ACME_WORKFLOW},
    )

    assert prune(live.engine(), A_MONTH, batch_rows=3).deletable == 10
    assert prune(live.engine(), A_MONTH, apply=True, batch_rows=3).deleted == 10


POINTING = {
    "cascade": "CREATE TABLE pointing (log bigint REFERENCES workflow_execution_logs ON DELETE CASCADE)",
    "set null": "CREATE TABLE pointing (log bigint REFERENCES workflow_execution_logs ON DELETE SET NULL)",
    "no action": "CREATE TABLE pointing (log bigint REFERENCES workflow_execution_logs)",
    "not valid": """
        CREATE TABLE pointing (log bigint);
        ALTER TABLE pointing
            ADD FOREIGN KEY (log) REFERENCES workflow_execution_logs ON DELETE CASCADE NOT VALID
    """,
    "two columns": """
        ALTER TABLE workflow_execution_logs ADD UNIQUE (workflow_id, id);
        CREATE TABLE pointing (
            log bigint, workflow uuid DEFAULT 'a0000000-0000-4000-9000-000000000001',
            FOREIGN KEY (workflow, log) REFERENCES workflow_execution_logs(workflow_id, id) ON DELETE CASCADE
        )
    """,
    "partitioned": """
        CREATE TABLE pointing (log bigint REFERENCES workflow_execution_logs ON DELETE CASCADE)
            PARTITION BY RANGE (log);
        CREATE TABLE pointing_1 PARTITION OF pointing DEFAULT
    """,
    "odd names": """
        CREATE SCHEMA "of :others %s";
        CREATE TABLE "of :others %s"."a ""table" (
            "the :log" bigint REFERENCES workflow_execution_logs ON DELETE CASCADE
        );
        CREATE VIEW pointing AS SELECT "the :log" AS log FROM "of :others %s"."a ""table"
    """,
    "the runs themselves": """
        ALTER TABLE workflow_execution_logs
            ADD COLUMN log bigint REFERENCES workflow_execution_logs ON DELETE CASCADE;
        CREATE FUNCTION insert_pointing() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO workflow_execution_logs (workflow_id, status, log)
            VALUES ('a0000000-0000-4000-9000-000000000001', 'success', NEW.log);
            RETURN NEW;
        END $$;
        CREATE VIEW pointing AS SELECT log FROM workflow_execution_logs WHERE log IS NOT NULL;
        CREATE TRIGGER insert_pointing INSTEAD OF INSERT ON pointing
            FOR EACH ROW EXECUTE FUNCTION insert_pointing()
    """,
}


@pytest.mark.parametrize("pointing", POINTING)
def test_runs_that_others_point_at_are_kept_and_counted(live: Database, pointing: str) -> None:
    live.execute(POINTING[pointing])
    _, pointed_at, _ = write(live, 3)
    live.execute("INSERT INTO pointing (log) VALUES (%(log)s)", {"log": pointed_at})

    assert prune(live.engine(), A_MONTH) == Pruned(applied=False, deletable=2, referenced=1)
    assert prune(live.engine(), A_MONTH, apply=True, batch_rows=1) == Pruned(
        applied=True, deletable=2, deleted=2, referenced=1
    )

    assert pointed_at in ids(live)
    assert live.execute("SELECT log FROM pointing") == [(pointed_at,)]


HIDDEN = {
    "no privilege": "",
    "no privilege on its key": "GRANT SELECT (other) ON pointing TO app_owner",
    "row security": """
        ALTER TABLE pointing ENABLE ROW LEVEL SECURITY;
        CREATE POLICY nothing ON pointing USING (false);
        GRANT SELECT ON pointing TO app_owner
    """,
}


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("apply", [False, True], ids=["dry run", "apply"])
def test_nothing_is_deleted_where_rows_that_point_at_runs_may_be_hidden(
    live: Database, hidden: str, apply: bool
) -> None:
    live.execute(
        "CREATE TABLE pointing (other int, log bigint REFERENCES workflow_execution_logs ON DELETE CASCADE);"
        + HIDDEN[hidden],
        user=live.superuser,
    )
    written = write(live, 2)

    with pytest.raises(MaintenanceError) as refused:
        prune(live.engine(), A_MONTH, apply=apply)

    assert str(refused.value) == (
        "this role does not see all rows of pointing, which may point at old runs.\n"
        "  Unchanged: what earlier batches have committed stays; the last one was rolled back.\n"
        "  Next: run it as service_role with SELECT on pointing, or as their owner."
    )
    assert ids(live) == written


def test_a_run_that_somebody_is_pointing_at_is_left(live: Database) -> None:
    first, second = write(live, 2)
    steps = "INSERT INTO workflow_execution_steps (execution_log_id, step_index, status) VALUES (%s, 1, 'ok')"
    with live.connect(autocommit=False) as other:
        other.execute(steps, [first])

        assert prune(live.engine(), A_MONTH, apply=True) == Pruned(
            applied=True, deletable=1, deleted=1, locked=1
        )

    assert ids(live) == [first]
    assert second not in ids(live)


def test_a_foreign_key_cannot_come_between_the_look_and_the_deletion(live: Database) -> None:
    write(live, 1)
    engine = live.engine()
    refused = []
    key = "CREATE TABLE pointing (log bigint REFERENCES workflow_execution_logs ON DELETE CASCADE)"

    def point(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith("DELETE"):
            with live.connect() as other:
                other.execute("SET lock_timeout = '20ms'")
                with pytest.raises(LockNotAvailable):
                    other.execute(key.encode())
                refused.append(True)

    event.listen(engine, "before_cursor_execute", point)
    prune(engine, A_MONTH, apply=True)

    assert refused == [True]


def test_two_at_once_share_the_work(live: Database) -> None:
    """The second one runs while the first holds its first batch."""
    written = write(live, 6)
    first, second = live.engine(), live.engine()
    of_second: list[Pruned] = []

    def run_second(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith("DELETE") and not of_second:
            of_second.append(prune(second, A_MONTH, apply=True, batch_rows=2))

    event.listen(first, "before_cursor_execute", run_second)
    of_first = prune(first, A_MONTH, apply=True, batch_rows=2)

    assert of_second == [Pruned(applied=True, deletable=4, deleted=4, locked=2)]
    assert of_first == Pruned(applied=True, deletable=2, deleted=2)
    assert ids(live) == []
    assert len(written) == 6


@pytest.mark.parametrize("run", [sweep, prune])
def test_each_batch_is_committed_by_itself(live: Database, run: Callable[..., object]) -> None:
    """Stopped in its last batch, it has done the ones before."""
    write(live, 6, "running" if run is sweep else "success")
    engine = live.engine()
    batches = []

    def stop(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith(("UPDATE", "DELETE")):
            batches.append(statement)
            if len(batches) == 3:
                raise KeyboardInterrupt

    event.listen(engine, "before_cursor_execute", stop)
    with pytest.raises(KeyboardInterrupt):
        run(engine, A_MONTH, apply=True, batch_rows=2)

    left = [status for status in statuses(live).values() if run is prune or status == "running"]
    assert len(left) == 2


@pytest.mark.parametrize(
    ("run", "lines"),
    [
        (partial(sweep, apply=True), ["sweeping: 2 of 3 rows", "sweeping: 3 of 3 rows"]),
        (prune, ["counting: 2 of 3 rows", "counting: 3 of 3 rows"]),
        (partial(prune, apply=True, organization_id=ACME), ["pruning: 2 of 3 rows", "pruning: 3 of 3 rows"]),
    ],
    ids=["sweep", "dry run", "prune"],
)
def test_each_batch_tells_how_far_it_is(
    live: Database,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., object],
    lines: list[str],
) -> None:
    write(live, 3, "running")
    write(live, 4, "running", age="1 minute")
    live.execute("ANALYZE workflow_execution_logs")
    monkeypatch.setattr("workflow_models.online.progress.LINE_EVERY_S", 0.0)

    with caplog.at_level("INFO", "workflow_models"):
        run(live.engine(), AN_HOUR, batch_rows=2)

    assert [message.strip().partition(" rows")[0] + " rows" for message in caplog.messages] == lines


# Who may.


@pytest.mark.parametrize("engine_of", [Database.engine, as_service], ids=["owner", "service_role"])
def test_the_owner_and_the_service_see_every_run(
    live: Database, engine_of: Callable[[Database], Engine]
) -> None:
    write(live, 1, "running")
    write(live, 1, "running", workflow=GLOBEX_WORKFLOW)

    assert sweep(engine_of(live), AN_HOUR, apply=True).marked == 2
    assert prune(engine_of(live), A_MONTH, apply=True).deleted == 2


@pytest.mark.parametrize(
    ("role", "run", "reason"),
    [
        ("authenticated", sweep, "the role authenticated lacks UPDATE on workflow_execution_logs."),
        (
            "workflow_worker",
            prune,
            "the role workflow_worker lacks UPDATE, DELETE on workflow_execution_logs.",
        ),
        ("anon", prune, "the role anon lacks SELECT, UPDATE, DELETE on workflow_execution_logs."),
    ],
)
def test_others_are_refused(live: Database, role: str, run: Callable[..., object], reason: str) -> None:
    with pytest.raises(MaintenanceError) as refused:
        run(as_role(live, role), AN_HOUR)

    assert str(refused.value) == (
        f"{reason}\n  Unchanged: everything.\n  Next: run it as the owner of the table, or as service_role."
    )


@pytest.mark.parametrize("run", [sweep, prune])
def test_an_owner_whom_row_security_limits_is_refused(live: Database, run: Callable[..., object]) -> None:
    live.execute("ALTER TABLE workflow_execution_logs FORCE ROW LEVEL SECURITY")

    with pytest.raises(MaintenanceError, match="row security shows the role app_owner only some of the runs"):
        run(live.engine(), AN_HOUR, apply=True)


@pytest.mark.parametrize("run", [sweep, prune])
def test_a_database_without_the_table_is_refused(empty: Database, run: Callable[..., object]) -> None:
    with pytest.raises(MaintenanceError, match="has no table workflow_execution_logs"):
        run(empty.engine(), AN_HOUR)


def test_what_the_database_says_is_told_without_a_password(live: Database) -> None:
    engine = create_engine(live.url(password="not-this-one", host="127.0.0.1"), poolclass=NullPool)

    with pytest.raises(MaintenanceError, match="password authentication failed") as refused:
        sweep(engine, AN_HOUR)

    assert "not-this-one" not in str(refused.value)


@pytest.mark.parametrize("age", [timedelta(0), timedelta(days=-1), timedelta(days=36_501)])
@pytest.mark.parametrize("run", [sweep, prune])
def test_an_age_must_be_positive_and_below_100_years(
    live: Database, run: Callable[..., object], age: timedelta
) -> None:
    with pytest.raises(ValueError, match="must be positive, and at most 100 years"):
        run(live.engine(), age)


# Indexes.


def test_old_and_abandoned_runs_are_found_by_an_index(clone: Callable[[str], Database]) -> None:
    many = clone("many_logs")
    engine = many.engine()

    with explained(engine) as plans:
        sweep(engine, AN_HOUR, apply=True)
        prune(engine, A_MONTH, apply=True, batch_rows=500)

    assert all("workflow_execution_logs" not in scanned(plan) for plan in plans)
    used = set().union(*map(indexes, plans))
    assert {"idx_workflow_execution_logs_status", "idx_workflow_execution_logs_created_at"} <= used
