"""What recording runs costs: WAL, processor time, and whether the end of a run touches the indexes."""

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from bench.performance.variants import BARE, OURS, OWNER, SEED, Variant, organization

# Runs that have begun and not ended, at any moment.
IN_FLIGHT = 100
TABLE = "workflow_execution_logs"

# Who records runs; nobody but the owner may do so in a table without grants to workers.
ROLES = {OURS: "workflow_worker", SEED: "service_role", BARE: OWNER}

# As the application does it.
_BEGIN = f"""
    INSERT INTO {TABLE} (workflow_id, organization_id, execution_start, status, trigger_data)
    VALUES (%s, %s, now(), 'running', %s) RETURNING id
"""
_END = f"""
    UPDATE {TABLE} SET execution_end = now(), status = %s, execution_result = %s, error_details = %s,
        steps_details = %s, duration_ms = 2000
    WHERE id = %s
"""
_TRIGGER_DATA = json.dumps({"source": "schedule"})
_STEPS = json.dumps([{"step": 1, "status": "success"}, {"step": 2, "status": "success"}])
_SUCCESS = ("success", json.dumps({"sent": 12, "message": "done"}), None, _STEPS)
_ERROR = ("error", None, "SMTPRecipientsRefused: mailbox unavailable", _STEPS)
_ONE_FAILS_IN = 20


# What else the table might be like: the statements that make it so, from top to bottom.
_BY_TIME = "idx_workflow_execution_logs_created_at"
_OF_ORGANIZATION = "idx_workflow_exec_org_time"
DESIGNS: Mapping[str, Sequence[str]] = {
    "ours, and counts per status from the table": (
        f"DROP INDEX {_BY_TIME}, {_OF_ORGANIZATION}",
        f"CREATE INDEX {_BY_TIME} ON {TABLE} (created_at)",
        f"CREATE INDEX {_OF_ORGANIZATION} ON {TABLE} (organization_id, created_at DESC)",
    ),
    "… and no index on status": ("DROP INDEX idx_workflow_execution_logs_status",),
    # 19 of 20 ends of a run leave them as they were: NULL.
    "… and failures found by their details": (
        "DROP INDEX idx_failed_workflow_executions",
        "DROP INDEX idx_failed_executions_by_workflow",
        "DROP INDEX idx_failed_organization_executions",
        f"CREATE INDEX ON {TABLE} (workflow_id, created_at) WHERE error_details IS NOT NULL",
        f"CREATE INDEX ON {TABLE} (organization_id, created_at) WHERE error_details IS NOT NULL",
    ),
    **{
        f"… and fillfactor {fill}": (f"ALTER TABLE {TABLE} SET (fillfactor = {fill})",)
        for fill in (90, 80, 70, 60, 50, 45, 40)
    },
    "… and no foreign keys and triggers": (f"ALTER TABLE {TABLE} DISABLE TRIGGER ALL",),
}


@dataclass(frozen=True)
class Cost:
    """Of one statement, on average, in a transaction of its own."""

    wal_bytes: float
    cpu_us: float


@dataclass(frozen=True)
class Recording:
    """Of recording runs one after the other, many at a time."""

    insert: Cost
    end: Cost
    # Of the ends of runs, how many were written to the same page and to no index.
    hot: float
    heap_bytes: float
    index_bytes: float


@contextmanager
def flushed(variant: Variant) -> Iterator[None]:
    """Let the variant's server write commits to disk, as one does that is not there for tests."""

    def wait_for(fsync: str) -> None:
        while True:
            with variant.connect() as connection:
                connection.execute("SELECT pg_reload_conf()")
            with variant.connect() as connection:
                if connection.execute("SHOW fsync").fetchone() == (fsync,):
                    return

    with variant.connect() as connection:
        connection.execute("ALTER SYSTEM SET fsync = on")
    wait_for("on")
    yield
    with variant.connect() as connection:
        connection.execute("ALTER SYSTEM RESET fsync")
    wait_for("off")


def record(variant: Variant, runs: int, role: str, synchronous_commit: str = "on") -> Recording:
    """Begin and end runs of the largest organization's workflows, each statement in its own transaction."""
    of = organization(1)
    with variant.connect() as watcher, variant.connect() as connection:
        workflows = [
            row[0]
            for row in watcher.execute(
                "SELECT id FROM workflow_definitions WHERE organization_id = %s ORDER BY id", [of]
            )
        ]
        connection.execute("SELECT set_config('workflow.organization_id', %s, false)", [str(of)])
        connection.execute(f"SET synchronous_commit = {synchronous_commit}".encode())
        connection.execute(f"SET ROLE {role}".encode())

        def begin(number: int) -> int:
            workflow = workflows[number % len(workflows)]
            row = connection.execute(_BEGIN, [workflow, of, _TRIGGER_DATA]).fetchone()
            assert row is not None
            return int(row[0])

        def end(number: int, log: int) -> None:
            connection.execute(_END, [*(_SUCCESS if number % _ONE_FAILS_IN else _ERROR), log])

        open_runs = deque(begin(number) for number in range(IN_FLIGHT))
        before, sizes = _updates(watcher), _sizes(watcher)
        begun, ended = _Meter(watcher, connection), _Meter(watcher, connection)
        # In turns, so that pages fill as they do when runs overlap, and in batches, which a meter can tell.
        batch = IN_FLIGHT // 2
        for first in range(0, runs, batch):
            with begun.running():
                open_runs.extend(begin(number) for number in range(first, first + batch))
            with ended.running():
                for number in range(first, first + batch):
                    end(number, open_runs.popleft())
        after, larger = _updates(connection), _sizes(watcher)
    runs = -(-runs // batch) * batch
    return Recording(
        begun.cost(runs),
        ended.cost(runs),
        (after[1] - before[1]) / (after[0] - before[0]),
        (larger[0] - sizes[0]) / runs,
        (larger[1] - sizes[1]) / runs,
    )


def record_in_turn(
    compared: Mapping[str, tuple[Variant, str, str]], runs: int, rounds: int
) -> dict[str, Recording]:
    """Give the medians of some rounds, in which variants, roles and ways to commit take turns."""
    rounds_of: dict[str, list[Recording]] = {name: [] for name in compared}
    for _ in range(rounds):
        for name, (variant, role, commit) in compared.items():
            rounds_of[name].append(record(variant, max(runs // rounds, IN_FLIGHT), role, commit))
    return {name: _median(recordings) for name, recordings in rounds_of.items()}


# Of ours: each foreign key and each index that an insert need not find, with what takes it away for a while.
_PARTS = f"""
    SELECT conname, format('ALTER TABLE {TABLE} DROP CONSTRAINT %I', conname),
        format('ALTER TABLE {TABLE} ADD CONSTRAINT %I %s NOT VALID', conname,
            replace(pg_get_constraintdef(oid), ' NOT VALID', ''))
    FROM pg_constraint WHERE conrelid = '{TABLE}'::regclass AND contype = 'f'
    UNION ALL
    SELECT relname, format('DROP INDEX %I', relname), pg_get_indexdef(oid)
    FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indrelid = '{TABLE}'::regclass AND NOT indisprimary
    ORDER BY 1
"""


def take_apart(ours: Variant, bare: Variant, runs: int, rounds: int) -> dict[str, Cost]:
    """Give medians of an insert into ours, whole and without each of its parts, and into bare, in turns."""
    with ours.connect() as connection:
        found = connection.execute(_PARTS.encode()).fetchall()
    parts = {f"without {name}": ([away], [back]) for name, away, back in found}
    keys = [(away, back) for name, away, back in found if name.endswith("_fkey")]
    cases: dict[str, tuple[Variant, str, Sequence[str], Sequence[str]]] = {
        "a bare table": (bare, ROLES[BARE], (), ()),
        "ours": (ours, ROLES[OURS], (), ()),
        "without policies (as service_role)": (ours, "service_role", (), ()),
        "without foreign keys": (ours, ROLES[OURS], [away for away, _ in keys], [back for _, back in keys]),
        **{name: (ours, ROLES[OURS], away, back) for name, (away, back) in parts.items()},
    }
    costs: dict[str, list[Cost]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (variant, role, away, back) in cases.items():
            run_sql(variant, away)
            costs[name].append(record(variant, max(runs // rounds, IN_FLIGHT), role).insert)
            run_sql(variant, back)
    return {
        name: Cost(median(each.wal_bytes for each in of), median(each.cpu_us for each in of))
        for name, of in costs.items()
    }


def _median(recordings: Sequence[Recording]) -> Recording:
    def of(value: Callable[[Recording], float]) -> float:
        return median(map(value, recordings))

    return Recording(
        Cost(of(lambda each: each.insert.wal_bytes), of(lambda each: each.insert.cpu_us)),
        Cost(of(lambda each: each.end.wal_bytes), of(lambda each: each.end.cpu_us)),
        of(lambda each: each.hot),
        of(lambda each: each.heap_bytes),
        of(lambda each: each.index_bytes),
    )


class _Meter:
    """Adds up what one connection's process writes and how long it runs."""

    def __init__(self, watcher: psycopg.Connection[Any], connection: psycopg.Connection[Any]) -> None:
        self._watcher = watcher
        self._schedule = Path(f"/proc/{connection.info.backend_pid}/schedstat")
        self._wal_bytes = self._cpu_ns = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        wal, cpu = self._read()
        yield
        wal_after, cpu_after = self._read()
        self._wal_bytes += wal_after - wal
        self._cpu_ns += cpu_after - cpu

    def _read(self) -> tuple[int, int]:
        row = self._watcher.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
        assert row is not None
        return int(row[0]), int(self._schedule.read_text().split()[0])

    def cost(self, statements: int) -> Cost:
        return Cost(self._wal_bytes / statements, self._cpu_ns / statements / 1_000)


def _updates(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    connection.execute("RESET ROLE")
    # A process reports what it did when it is idle, or when told to.
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = %s", [TABLE]
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def _sizes(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    row = connection.execute("SELECT pg_relation_size(%s), pg_indexes_size(%s)", [TABLE, TABLE]).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def index_sizes(variant: Variant) -> dict[str, int]:
    with variant.connect() as connection:
        return dict(
            connection.execute(
                "SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index "
                "WHERE indrelid = %s::regclass ORDER BY 1",
                [TABLE],
            ).fetchall()
        )


def move(variant: Variant, by_hand: bool) -> tuple[int, Cost]:
    """Move a workflow to another organization, in one transaction, and give how many logs went along.

    :param by_hand: with an UPDATE of the logs, where no trigger or key carries them.
    """
    with variant.connect() as watcher, variant.connect() as connection:
        row = watcher.execute(
            f"SELECT workflow_id, count(*) FROM {TABLE} WHERE organization_id = %s "
            "GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 1",
            [organization(100)],
        ).fetchone()
        assert row is not None
        to, workflow, logs = organization(1000), row[0], row[1]
        meter = _Meter(watcher, connection)
        with meter.running(), connection.transaction():
            connection.execute(
                "UPDATE workflow_definitions SET organization_id = %s WHERE id = %s", [to, workflow]
            )
            if by_hand:
                connection.execute(
                    f"UPDATE {TABLE} SET organization_id = %s WHERE workflow_id = %s", [to, workflow]
                )
    return logs, meter.cost(logs)


def run_sql(variant: Variant, statements: Sequence[str]) -> None:
    with variant.connect() as connection:
        for statement in statements:
            connection.execute(statement.encode())
