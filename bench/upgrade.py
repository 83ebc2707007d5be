"""An upgrade under load: what the clients of a live application notice, ours beside the naive way.

`make bench-upgrade LOGS=2000000` builds the application's database, clones it, and migrates each clone while
clients of old code read and write and a mover moves definitions. It writes `upgrade.json`, `upgrade.md` and
`upgrade.png` beside this file's `results/`.
"""

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import psycopg
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, create_engine

from tests.application import script
from tests.server import Server, chosen, cluster, make_roles, serve
from workflow_models.migrations import alembic_config

RESULTS = Path(__file__).with_name("results")
OWNER = "app_owner"
ORGANIZATIONS, DEFINITIONS = 200, 5_000

# What somebody writes by hand: one transaction for all.
NAIVE = f"""
BEGIN;
{script("fix")}
CREATE INDEX idx_workflow_exec_org_time ON workflow_execution_logs (organization_id, created_at DESC)
    WHERE organization_id IS NOT NULL;
CREATE INDEX idx_failed_workflow_executions
    ON workflow_execution_logs (organization_id, workflow_id, created_at DESC)
    WHERE status = 'error' AND organization_id IS NOT NULL;
COMMIT;
"""
WRONG = """
SELECT count(*) FROM workflow_execution_logs AS log JOIN workflow_definitions AS d ON d.id = log.workflow_id
WHERE log.organization_id IS DISTINCT FROM d.organization_id
"""


@dataclass(frozen=True)
class Place:
    """A database to talk to, small enough to be handed to a process."""

    host: str
    port: int
    database: str

    def connect(self, user: str = OWNER) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=self.host, port=self.port, dbname=self.database, user=user, autocommit=True
        )

    def url(self) -> str:
        return f"postgresql+psycopg://{OWNER}@/{self.database}?host={self.host}&port={self.port}"


def build(place: Place, logs: int) -> None:
    """Fill the application's tables before the fix: skewed, with global workflows, the same each time."""
    with place.connect() as connection:
        connection.execute(script("base").encode())
        connection.execute(script("orchestration").encode())
        connection.execute("SELECT setseed(0.42)")
        connection.execute(
            "INSERT INTO organizations (name) SELECT 'Organization ' || n FROM generate_series(1, %s) AS n",
            [ORGANIZATIONS],
        )
        connection.execute(
            """
            INSERT INTO workflow_definitions (
                organization_id, name, natural_language_prompt, workflow_json, trigger_type)
            SELECT CASE WHEN n % 50 = 0 THEN NULL ELSE ids[1 + floor(power(random(), 3) * %s)] END,
                'Workflow ' || n, 'Do it', '{}', 'manual'
            FROM generate_series(1, %s) AS n CROSS JOIN (SELECT array_agg(id) AS ids FROM organizations) AS o
            """.replace("% 50", "%% 50"),
            [ORGANIZATIONS, DEFINITIONS],
        )
        connection.execute(
            """
            INSERT INTO workflow_execution_logs (
                workflow_id, status, execution_start, created_at, trigger_data, execution_result)
            SELECT ids[1 + floor(power(random(), 2) * %s)],
                CASE WHEN random() < 0.05 THEN 'error' ELSE 'success' END, at, at,
                '{"source": "bench"}', '{"steps": [1, 2, 3], "message": "done"}'
            FROM generate_series(1, %s) AS n
            CROSS JOIN LATERAL (SELECT now() - (%s - n) * interval '10 seconds' AS at) AS t
            CROSS JOIN (SELECT array_agg(id ORDER BY id) AS ids FROM workflow_definitions) AS d
            """,
            [DEFINITIONS, logs, logs],
        )
    with place.connect("postgres") as connection:
        connection.execute("VACUUM ANALYZE workflow_execution_logs, workflow_definitions")
        connection.execute("CHECKPOINT")


def client(place: Place, number: int, ready: Barrier, stop: Event, results: Any) -> None:
    """Run old code: start a run, end it, read a workflow's latest, and note how long each statement takes."""
    chance = random.Random(number)
    latencies: list[tuple[float, float]] = []
    errors: list[str] = []
    with place.connect() as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM workflow_definitions ORDER BY id")]

        def timed(statement: str, parameters: list[Any]) -> list[Any]:
            started = time.monotonic()
            try:
                cursor = connection.execute(statement.encode(), parameters)
                return cursor.fetchall() if cursor.description else []
            except psycopg.Error as error:
                errors.append(str(error))
                return []
            finally:
                latencies.append((started, time.monotonic() - started))

        ready.wait()
        while not stop.is_set():
            workflow = ids[int(chance.random() ** 2 * len(ids))]
            inserted = timed(
                "INSERT INTO workflow_execution_logs (workflow_id, status, trigger_data) "
                "VALUES (%s, 'running', '{}') RETURNING id",
                [workflow],
            )
            for row in inserted:
                timed(
                    "UPDATE workflow_execution_logs SET status = 'success', execution_end = now(), "
                    "execution_result = '{}' WHERE id = %s",
                    [row[0]],
                )
            timed(
                "SELECT id, status, created_at FROM workflow_execution_logs WHERE workflow_id = %s "
                "ORDER BY created_at DESC LIMIT 20",
                [workflow],
            )
            time.sleep(0.005)
    results.put((latencies, errors))


def mover(place: Place, ready: Barrier, stop: Event, results: Any) -> None:
    """Move definitions of up to a few hundred logs between organizations, to none and from none."""
    chance = random.Random(99)
    latencies: list[tuple[float, float]] = []
    errors: list[str] = []
    with place.connect() as connection:
        organizations = [row[0] for row in connection.execute("SELECT id FROM organizations ORDER BY id")]
        small = [
            row[0]
            for row in connection.execute(
                "SELECT workflow_id FROM workflow_execution_logs GROUP BY 1 HAVING count(*) < 500 ORDER BY 1"
            )
        ]
        ready.wait()
        while not stop.is_set():
            to = None if chance.random() < 0.2 else chance.choice(organizations)
            started = time.monotonic()
            try:
                connection.execute(
                    "UPDATE workflow_definitions SET organization_id = %s WHERE id = %s",
                    [to, chance.choice(small)],
                )
            except psycopg.Error as error:
                errors.append(str(error))
            latencies.append((started, time.monotonic() - started))
            time.sleep(0.05)
    results.put((latencies, errors))


@contextmanager
def load(place: Place, clients: int) -> Iterator[dict[str, Any]]:
    """Run the clients and the mover around a block; what they saw is in the mapping afterwards."""
    spawn = multiprocessing.get_context("spawn")
    ready, stop = spawn.Barrier(clients + 2), spawn.Event()
    results = [spawn.Queue() for _ in range(clients + 1)]
    processes = [
        spawn.Process(target=client, args=(place, n, ready, stop, results[n])) for n in range(clients)
    ]
    processes.append(spawn.Process(target=mover, args=(place, ready, stop, results[clients])))
    for process in processes:
        process.start()
    ready.wait(timeout=120)
    time.sleep(1)
    seen: dict[str, Any] = {"from": time.monotonic()}
    try:
        yield seen
    finally:
        seen["to"] = time.monotonic()
        time.sleep(1)
        stop.set()
        said = [result.get(timeout=300) for result in results]
        for process in processes:
            process.join()
    # A mover's statement writes hundreds of rows, migrated or not: a figure of its own.
    *of_clients, of_mover = [sorted(latencies) for latencies, _ in said]
    seen["latencies"], seen["moves"] = sorted(chain.from_iterable(of_clients)), of_mover
    seen["errors"] = [error for _, errors in said for error in errors]


def migrate_ours(place: Place) -> None:
    """Upgrade with no option but the URL."""
    environment = {**os.environ, "DATABASE_URL": place.url()}
    subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        check=True,
        env=environment,
        cwd=Path(__file__).parents[1],
    )


def migrate_naively(place: Place) -> None:
    """Run the hand-written fix and indexes in one transaction."""
    with place.connect() as connection:
        connection.execute(NAIVE.encode())


def under_load(place: Place, clients: int, migrate: Callable[[Place], None]) -> dict[str, Any]:
    """Migrate under load, and say what was noticed: seconds, rows, bytes."""
    with place.connect("postgres") as connection:
        before = connection.execute("SELECT pg_relation_size('workflow_execution_logs')").fetchone()
    with load(place, clients) as seen:
        migrate(place)
    with place.connect("postgres") as connection:
        after = connection.execute("SELECT pg_relation_size('workflow_execution_logs')").fetchone()
        wrong = connection.execute(WRONG).fetchone()
    assert before is not None
    assert after is not None
    assert wrong is not None
    during, moves = _during(seen, "latencies"), _during(seen, "moves")
    took = sorted(latency for _, latency in during)
    return {
        "seconds": seen["to"] - seen["from"],
        "statements": len(during),
        "worst": took[-1],
        "p99": took[int(len(took) * 0.99)],
        "worst_move": max(latency for _, latency in moves),
        "wrong_rows": wrong[0],
        "client_errors": len(seen["errors"]),
        "first_error": next(iter(seen["errors"]), None),
        "heap_growth": after[0] / before[0] - 1,
        "latencies": during,
        "moves": moves,
    }


def _during(seen: dict[str, Any], kind: str) -> list[tuple[float, float]]:
    """Give what overlapped the migration: a stalled statement started before it, or ran into its end."""
    return [
        (round(at - seen["from"], 4), round(took, 5))
        for at, took in seen[kind]
        if at + took >= seen["from"] and at <= seen["to"]
    ]


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


ONE_UPDATE = """
    UPDATE workflow_execution_logs AS log SET organization_id = d.organization_id
    FROM workflow_definitions AS d
    WHERE d.id = log.workflow_id AND log.organization_id IS DISTINCT FROM d.organization_id
"""


def fill_at_once(connection: Connection) -> None:
    """Fill the column with one UPDATE."""
    connection.exec_driver_sql(ONE_UPDATE)
    connection.commit()


def fill_in_batches(connection: Connection) -> None:
    """Fill the column with the directive, as wf0004 does."""
    revision = ScriptDirectory.from_config(alembic_config()).get_revision("wf0004_backfill_organization_id")
    assert revision is not None
    context = MigrationContext.configure(connection, opts={"transaction_per_migration": True})
    with Operations.context(context), context.begin_transaction(_per_migration=True):
        revision.module.fill(passes=8)


def cost(place: Place, fill: Callable[[Connection], None]) -> dict[str, float]:
    """Give the CPU seconds of the backend and the WAL bytes of filling the column, without load."""
    engine = create_engine(place.url(), poolclass=NullPool)
    with place.connect("postgres") as watcher, engine.connect() as connection:
        watcher.execute("CHECKPOINT")
        start = watcher.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        pid = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
        connection.rollback()
        before = _cpu(pid)
        fill(connection)
        cpu = _cpu(pid) - before
        end = watcher.execute("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", start).fetchone()
        assert end is not None
    return {"cpu_s": cpu, "wal_bytes": float(end[0])}


def behind_a_reader(place: Place, clients: int, seconds: int) -> float:
    """Give the worst latency of clients and mover while an upgrade starts behind somebody's long read."""
    with place.connect("postgres") as reader, load(place, clients) as seen:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM workflow_definitions, workflow_execution_logs LIMIT 0")
        ended = time.monotonic() + seconds
        upgrade = subprocess.Popen(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            env={**os.environ, "DATABASE_URL": place.url()},
            cwd=Path(__file__).parents[1],
        )
        while time.monotonic() < ended:
            time.sleep(0.1)
        reader.execute("COMMIT")
        assert upgrade.wait(timeout=600) == 0
    return max(took for _, took in _during(seen, "latencies") + _during(seen, "moves"))


def main() -> None:
    """Measure, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=400_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--reader-seconds", type=int, default=15)
    arguments = parser.parse_args()
    choice = chosen()[0]
    binaries = choice.binaries
    # On a disk, as a database in use is.
    with cluster(binaries, Path(tempfile.gettempdir())) if binaries else serve(choice) as server:
        make_roles(server)
        found = measure(server, arguments)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "upgrade.json").write_text(json.dumps(found, indent=1) + "\n")
    table = as_table(found)
    (RESULTS / "upgrade.md").write_text(table)
    plot(found, RESULTS / "upgrade.png")
    print(table)


def measure(server: Server, arguments: argparse.Namespace) -> dict[str, Any]:
    """Build the database, clone it for each measurement, and measure."""
    admin = psycopg.connect(
        host=server.host, port=server.port, user=server.user, dbname="postgres", autocommit=True
    )

    def clone(name: str, template: str | None) -> Place:
        admin.execute(
            f"CREATE DATABASE {name} OWNER {OWNER}"
            f"{f' TEMPLATE {template} STRATEGY file_copy' if template else ''}".encode()
        )
        return Place(server.host, server.port, name)

    def drop(place: Place) -> None:
        admin.execute(f"DROP DATABASE {place.database} WITH (FORCE)".encode())

    with admin:
        seed = clone("seed", None)
        build(seed, arguments.logs)
        found: dict[str, Any] = {"logs": arguments.logs, "clients": arguments.clients}
        for name, migrate in (("ours", migrate_ours), ("naive", migrate_naively)):
            place = clone(name, "seed")
            found[name] = under_load(place, arguments.clients, migrate)
            drop(place)
        place = clone("reader", "seed")
        found["worst_behind_reader"] = behind_a_reader(place, arguments.clients, arguments.reader_seconds)
        drop(place)
        for name, fill in (("one_update", fill_at_once), ("batches", fill_in_batches)):
            place = clone(name, "seed")
            with place.connect() as connection:
                connection.execute("ALTER TABLE workflow_execution_logs ADD COLUMN organization_id uuid")
            found[name] = cost(place, fill)
            drop(place)
    return found


def as_table(found: dict[str, Any]) -> str:
    """Write the figures as Markdown."""
    ours, naive = found["ours"], found["naive"]
    one, batches = found["one_update"], found["batches"]
    rows = [
        ("worst client statement", f"{ours['worst']:.3f} s", f"{naive['worst']:.1f} s"),
        ("… how many times shorter", f"{naive['worst'] / ours['worst']:.0f}", ""),
        (
            "worst move of a workflow with up to 500 logs",
            f"{ours['worst_move']:.3f} s",
            f"{naive['worst_move']:.3f} s",
        ),
        (
            "99th percentile of client statements",
            f"{ours['p99'] * 1000:.1f} ms",
            f"{naive['p99'] * 1000:.1f} ms",
        ),
        ("rows with a wrong or missing organization", ours["wrong_rows"], naive["wrong_rows"]),
        ("errors at clients", ours["client_errors"], naive["client_errors"]),
        ("duration", f"{ours['seconds']:.0f} s", f"{naive['seconds']:.0f} s"),
        ("heap growth", f"{ours['heap_growth']:.0%}", f"{naive['heap_growth']:.0%}"),
        ("CPU of the backfill, against one UPDATE", f"{batches['cpu_s'] / one['cpu_s']:.2f}", "1"),
        ("WAL of the backfill, against one UPDATE", f"{batches['wal_bytes'] / one['wal_bytes']:.2f}", "1"),
        ("worst of both, starting behind a long reader", f"{found['worst_behind_reader']:.2f} s", ""),
    ]
    lines = [
        f"| {found['logs']:,} logs, {found['clients']} clients and a mover | ours | naive |",
        "|---|---|---|",
    ]
    return "\n".join([*lines, *(f"| {a} | {b} | {c} |" for a, b, c in rows)]) + "\n"


def plot(found: dict[str, Any], path: Path) -> None:
    """Draw the latencies of both over time, on one axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4.5))
    for name, colour in (("naive", "tab:red"), ("ours", "tab:blue")):
        for kind, label, size, shape in (("latencies", name, 3, "o"), ("moves", f"{name}: moves", 8, "x")):
            at, took = zip(*found[name][kind], strict=True)
            axes.scatter(
                at,
                [each * 1000 for each in took],
                s=size,
                marker=shape,
                color=colour,
                linewidths=0.6,
                label=label,
            )
    axes.set_yscale("log")
    axes.set_xlabel("seconds since the upgrade began")
    axes.set_ylabel("statement, ms")
    axes.set_title(f"{found['logs']:,} logs, {found['clients']} clients of old code and a mover")
    axes.legend(markerscale=3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
