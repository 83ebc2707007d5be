"""A migrator behind a transaction pooler: it works, it is alone, and it leaves nothing to other clients."""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TypeAlias

import psycopg
import pytest
from pytest_postgresql.executors import NoopExecutor

from tests.command import FORKS, alembic, forked
from tests.databases import Database
from tests.online.library import Chain, Migrator, revisions
from tests.online.pooler import SIZE, pooler
from tests.online.test_kills import each_statement, ends, upgrade_killed_after
from workflow_models import migrations
from workflow_models.online import MigrationError, progress

Clone: TypeAlias = Callable[[str], Database]
Through: TypeAlias = Callable[[Database], Database]

# All that one client can leave on a connection for the next; PL/pgSQL's own settings come with its first use.
LEFT = """
    SELECT name, setting FROM pg_settings WHERE name NOT LIKE 'plpgsql.%'
    UNION ALL SELECT 'prepared statement', name FROM pg_prepared_statements
    UNION ALL SELECT 'advisory lock', objid::text FROM pg_locks
        WHERE locktype = 'advisory' AND pid = pg_backend_pid()
    UNION ALL SELECT 'temporary relation', relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()
    UNION ALL SELECT 'channel', channel FROM pg_listening_channels() AS channel
"""
BUILDING = """
    SELECT pid FROM pg_stat_progress_create_index
    WHERE datname = current_database() AND phase LIKE 'waiting for writers%'
"""


@pytest.fixture(scope="module")
def pooled_server(executor: NoopExecutor) -> Iterator[NoopExecutor]:
    with pooler(executor) as server:
        yield server


@pytest.fixture
def through(pooled_server: NoopExecutor) -> Through:
    """Gives the way to a database that goes through the pooler."""
    return lambda database: replace(database, server=pooled_server)


@pytest.fixture(scope="module")
def undisturbed(templates: Any) -> Iterator[tuple[int, Any]]:
    """The number of statements of an upgrade on a direct connection, and what it ends in."""
    database = templates.clone("half_fixed")
    statements: list[str] = []
    with each_statement(lambda _, statement: statements.append(statement)):
        migrations.upgrade(database.url())
    yield len(statements), ends(database)
    templates.drop(database)


def neighbours(pooled: Database) -> list[dict[str, str]]:
    """What as many other clients find as the pool has connections, each on another one."""
    with ExitStack() as stack:
        clients = [stack.enter_context(pooled.connect(autocommit=False)) for _ in range(SIZE)]
        found = [(client.execute("SELECT pg_backend_pid()").fetchall(), left(client)) for client in clients]
    assert len({str(pid) for pid, _ in found}) == SIZE
    return [each for _, each in found]


def left(client: psycopg.Connection[Any]) -> dict[str, str]:
    return dict(client.execute(LEFT).fetchall())


def until(database: Database, query: str) -> int:
    """What the query gives, once it does."""
    with database.connect(database.superuser) as observer:
        while not (row := observer.execute(query.encode()).fetchone()):
            time.sleep(0.005)
    return int(row[0])


def test_an_upgrade_ends_as_on_a_direct_connection(
    clone: Clone, through: Through, undisturbed: tuple[int, Any]
) -> None:
    database = clone("half_fixed")

    migrations.upgrade(through(database).url())
    migrations.check(through(database).url())

    assert ends(database) == undisturbed[1]


def test_other_clients_find_nothing_of_a_migrator_at_any_time(clone: Clone, through: Through) -> None:
    pooled = through(clone("half_fixed"))
    before = neighbours(pooled)
    assert before == [before[0]] * SIZE
    seen = []
    with pooled.connect() as neighbour:
        neighbour.prepare_threshold = None
        with each_statement(lambda *_: seen.append(left(neighbour))):
            migrations.upgrade(pooled.url())
            migrations.downgrade(pooled.url(), "-2")

    assert len(seen) > 100
    found = [set(each.items()) ^ set(before[0].items()) for each in [*seen, *neighbours(pooled)]]
    assert set().union(*found) == set()


def test_of_several_migrators_one_works_and_the_others_find_nothing_to_do(
    clone: Clone, through: Through
) -> None:
    url = through(clone("half_fixed")).url()

    with ThreadPoolExecutor(4) as threads:
        ran = list(threads.map(lambda _: alembic("upgrade", "head", DATABASE_URL=url), range(4)))

    assert [each.status for each in ran] == [0] * 4
    assert sorted("+ wf0003" in each.stderr for each in ran) == [False, False, False, True]


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_after_a_killed_process_the_next_run_ends_as_an_undisturbed_one(
    clone: Clone, through: Through, undisturbed: tuple[int, Any], place: float
) -> None:
    statements, expected = undisturbed
    pooled = through(database := clone("half_fixed"))
    killed = forked(upgrade_killed_after, int(statements * place), pooled.url())
    assert killed.status == -signal.SIGKILL

    migrations.upgrade(pooled.url())

    assert ends(database) == expected


def test_after_a_process_was_killed_in_a_concurrent_build_the_next_run_ends_as_an_undisturbed_one(
    clone: Clone, through: Through, undisturbed: tuple[int, Any]
) -> None:
    pooled = through(database := clone("half_fixed"))
    migrations.upgrade(pooled.url(), "wf0004_backfill_organization_id")
    database.execute("DROP INDEX idx_workflow_execution_logs_organization_id")
    with database.connect(autocommit=False) as writer:
        writer.execute("LOCK TABLE workflow_execution_logs IN ROW EXCLUSIVE MODE")
        process = FORKS.Process(target=migrations.upgrade, args=[pooled.url()])
        process.start()
        orphan = until(database, BUILDING)
        process.kill()
        process.join()
        migrator = Migrator(database, lambda: migrations.upgrade(pooled.url()))
        # Nobody tells a backend outside of a transaction that its client has gone: it builds on.
        until(database, f"SELECT pid FROM pg_stat_activity WHERE {orphan} = ANY (pg_blocking_pids(pid))")
        writer.rollback()
        migrator.result()

    assert ends(database) == undisturbed[1]


@pytest.mark.parametrize("setting", ["statement_timeout", "idle_in_transaction_session_timeout"])
def test_an_inherited_timeout_ends_no_upgrade(clone: Clone, through: Through, setting: str) -> None:
    database = clone("half_fixed")
    database.execute(
        f"ALTER ROLE app_owner IN DATABASE {database.name} SET {setting} = '1s'", user=database.superuser
    )

    migrations.upgrade(through(database).url())


INDEX = """
def upgrade(): op.create_index_concurrently("books_title_idx", "books", ["title"])
def downgrade(): op.drop_index_concurrently("books_title_idx")
"""


def test_what_ends_a_concurrent_build_behind_a_pooler_is_told_and_how_to_get_round_it(
    library: Database, chain: Callable[..., Chain], through: Through
) -> None:
    index = chain(INDEX)
    library.execute(
        f"ALTER ROLE app_owner IN DATABASE {library.name} SET statement_timeout = '300ms'",
        user=library.superuser,
    )
    with library.connect(library.superuser, autocommit=False) as writer:
        writer.execute("LOCK TABLE library.books IN ROW EXCLUSIVE MODE")
        with pytest.raises(MigrationError) as refused:
            index.upgrade(through(library))

    assert str(refused.value) == (
        "error: the database refused a statement.\n"
        "  Happened: canceling statement due to statement timeout (57014)\n"
        "  Unchanged: the database is at base; "
        "what the next revision had built stays and is used next time.\n"
        "  Next: connect to the server itself and not to the pooler, where no timeout can be set for this, "
        "then run the same command again."
    )
    index.upgrade(through(library))
    index.downgrade(through(library), "base")
    assert revisions(library) == []


def test_a_build_behind_a_pooler_tells_for_whom_it_waits(
    library: Database,
    chain: Callable[..., Chain],
    through: Through,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO, logger="workflow_models")
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0)
    index = chain(INDEX)
    with library.connect(autocommit=False) as writer:
        writer.execute("LOCK TABLE library.books IN ROW EXCLUSIVE MODE")
        migrator = Migrator(library, lambda: index.upgrade(through(library)))
        migrator.until_it_says(f"waiting for pid {writer.info.backend_pid} (user app_owner", caplog)
        writer.rollback()
        migrator.result()
