"""A migrator, or its backend, that is killed at some statement: the next run ends as an undisturbed one."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event

from tests.catalog import misplaced_logs, rows, snapshot
from tests.command import forked
from tests.databases import Database
from workflow_models import migrations
from workflow_models.online import MigrationError

# Shares of all statements of an upgrade, so that every step has its turn.
PLACES = [place / 12 for place in range(12)]


@contextmanager
def each_statement(do: Callable[[Any, str], None]) -> Iterator[None]:
    def listen(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.current_thread() is threading.main_thread():  # not the watch for blockers
            do(connection, statement)

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", listen)


@pytest.fixture(scope="module")
def undisturbed(templates: Any) -> Iterator[tuple[int, Any]]:
    """The number of statements of an upgrade of the half fixed application, and what it ends in."""
    database = templates.clone("half_fixed")
    statements: list[str] = []
    with each_statement(lambda _, statement: statements.append(statement)):
        migrations.upgrade(database.url())
    yield len(statements), ends(database)
    templates.drop(database)


def upgrade_killed_after(statements: int, url: str) -> None:
    def kill(_connection: Any, _statement: str) -> None:
        nonlocal statements
        statements -= 1
        if statements < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    with each_statement(kill):
        migrations.upgrade(url)


def ends(database: Database) -> Any:
    assert misplaced_logs(database.observer) == []
    return snapshot(database.observer), rows(database.observer)


def until_gone(observer: psycopg.Connection[Any], pid: int) -> None:
    while observer.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]).rowcount:
        pass


@pytest.mark.parametrize("place", PLACES)
def test_after_a_killed_process_the_next_run_ends_as_an_undisturbed_one(
    clone: Callable[[str], Database], undisturbed: tuple[int, Any], place: float
) -> None:
    statements, expected = undisturbed
    database = clone("half_fixed")
    killed = forked(upgrade_killed_after, int(statements * place), database.url())
    assert killed.status == -signal.SIGKILL

    migrations.upgrade(database.url())

    assert ends(database) == expected


@pytest.mark.parametrize("place", PLACES)
def test_after_a_killed_backend_the_next_run_ends_as_an_undisturbed_one(
    clone: Callable[[str], Database], undisturbed: tuple[int, Any], place: float
) -> None:
    statements, expected = undisturbed
    database = clone("half_fixed")
    left = int(statements * place)

    def kill(connection: Any, _statement: str) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            with database.connect(database.superuser) as killer:
                pid = connection.connection.driver_connection.info.backend_pid
                killer.execute("SELECT pg_terminate_backend(%s)", [pid])
                until_gone(killer, pid)

    with each_statement(kill), pytest.raises(MigrationError):
        migrations.upgrade(database.url())

    migrations.upgrade(database.url())

    assert ends(database) == expected


def test_a_run_whose_lock_is_lost_ends_before_another_one_works_beside_it(
    clone: Callable[[str], Database], undisturbed: tuple[int, Any]
) -> None:
    statements, expected = undisturbed
    database = clone("half_fixed")
    left = statements // 2

    def end_the_lock(connection: Any, _statement: str) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            with database.connect(database.superuser) as watcher:
                worker = connection.connection.driver_connection.info.backend_pid
                ended = watcher.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
                    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                ).fetchall()
                assert ended == [(True,)]
                until_gone(watcher, worker)

    with (
        each_statement(end_the_lock),
        pytest.raises(MigrationError, match="held the migrators' lock") as told,
    ):
        migrations.upgrade(database.url())
    assert told.value.next_step == "run the same command again."

    migrations.upgrade(database.url())

    assert ends(database) == expected
