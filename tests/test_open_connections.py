"""Readers that `SELECT *` on connections that stay open while the table gets its new columns.

A statement that was prepared on the server keeps its columns: PostgreSQL refuses it once `*` means more
("cached plan must not change result type"). Which clients prepare, and what they do then, is shown here.
"""

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeAlias

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest
from psycopg.errors import FeatureNotSupported
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import NotSupportedError
from sqlalchemy.ext.asyncio import create_async_engine

from tests.application import ACME_WORKFLOW
from tests.application.states import REVISIONS, at
from tests.databases import Database, Templates
from workflow_models import migrations

WHERE = (
    f"FROM workflow_execution_logs WHERE workflow_id = '{ACME_WORKFLOW}' ORDER BY created_at DESC LIMIT 20"
)
STAR = f"SELECT * {WHERE}"
NAMED = f"SELECT id, workflow_id, status, execution_result {WHERE}"
# As PostgREST asks, which answers the application's own clients.
AS_JSON = f"SELECT coalesce(json_agg(log), '[]') FROM (SELECT * {WHERE}) AS log"

COLUMNS_AFTER = {
    "wf0001_create_workflow_tables": 9,
    "wf0002_orchestration_columns": 14,
    "wf0003_add_organization_id": 15,
}
# Drivers prepare a statement that they have seen this often.
OFTEN = 6

# The application's database without those columns.
FIRST = at("adopted_base_only", REVISIONS[0])

# Reads, and gives how many columns it saw.
Read: TypeAlias = Callable[[], int]
Client: TypeAlias = Callable[[Database], AbstractContextManager[Read]]


def with_psycopg(statement: str, *, prepare_threshold: int | None = OFTEN - 1) -> Client:
    @contextmanager
    def connected(database: Database) -> Iterator[Read]:
        with database.connect() as connection:
            connection.prepare_threshold = prepare_threshold

            def read() -> int:
                return columns_of(connection.execute(statement.encode()))

            yield read

    return connected


def columns_of(cursor: psycopg.Cursor[Any]) -> int:
    assert cursor.description
    assert len(cursor.fetchall()) > 0
    return len(cursor.description)


def with_sqlalchemy(**options: Any) -> Client:
    @contextmanager
    def connected(database: Database) -> Iterator[Read]:
        engine = create_engine(database.url(), pool_size=1, max_overflow=0, connect_args=options)

        def read() -> int:
            with engine.begin() as connection:
                return len(connection.execute(text(STAR)).keys())

        try:
            yield read
        finally:
            engine.dispose()

    return connected


def with_async_sqlalchemy(**options: Any) -> Client:
    @contextmanager
    def connected(database: Database) -> Iterator[Read]:
        url = make_url(database.url()).set(drivername="postgresql+asyncpg")
        engine = create_async_engine(url, pool_size=1, max_overflow=0, connect_args=options)
        with asyncio.Runner() as runner:

            async def read() -> int:
                async with engine.begin() as connection:
                    return len((await connection.execute(text(STAR))).keys())

            try:
                yield lambda: runner.run(read())
            finally:
                runner.run(engine.dispose())

    return connected


@contextmanager
def with_asyncpg(database: Database, *, in_transactions: bool = False) -> Iterator[Read]:
    query = make_url(database.url()).query
    with asyncio.Runner() as runner:
        connection = runner.run(
            asyncpg.connect(
                host=query["host"], port=int(str(query["port"])), user="app_owner", database=database.name
            )
        )

        async def read() -> int:
            async with connection.transaction() if in_transactions else nullcontext():
                return len((await connection.fetch(STAR))[0])

        try:
            yield lambda: runner.run(read())
        finally:
            runner.run(connection.close())


UNAFFECTED: dict[str, tuple[Client, Collection[int]]] = {
    "psycopg": (with_psycopg(STAR, prepare_threshold=None), COLUMNS_AFTER.values()),
    "psycopg that names its columns": (with_psycopg(NAMED), [4, 4, 4]),
    "psycopg as PostgREST": (with_psycopg(AS_JSON), [1, 1, 1]),
    "SQLAlchemy on psycopg": (with_sqlalchemy(prepare_threshold=None), COLUMNS_AFTER.values()),
    "asyncpg": (with_asyncpg, COLUMNS_AFTER.values()),
    "SQLAlchemy on asyncpg": (
        with_async_sqlalchemy(prepared_statement_cache_size=0),
        COLUMNS_AFTER.values(),
    ),
}
# Fails once where the driver then forgets what it prepared, else until the connection is opened anew.
AFFECTED: dict[str, tuple[Client, list[int | str]]] = {
    "psycopg, prepared": (with_psycopg(STAR), ["FeatureNotSupported"] * OFTEN),
    "SQLAlchemy on psycopg, prepared": (
        with_sqlalchemy(),
        ["NotSupportedError", *[14] * (OFTEN - 1)],
    ),
    "SQLAlchemy on asyncpg, prepared": (
        with_async_sqlalchemy(),
        ["NotSupportedError", *[14] * (OFTEN - 1)],
    ),
    "asyncpg in a transaction": (
        partial(with_asyncpg, in_transactions=True),
        ["InvalidCachedStatementError", *[14] * (OFTEN - 1)],
    ),
}


@pytest.fixture(scope="module")
def seen(templates: Templates) -> Iterator[dict[str, list[list[int | str]]]]:
    """What each client gets, often at each revision: numbers of columns, or the errors' names."""
    database = templates.clone(FIRST)
    with ExitStack() as stack:
        readers = {
            name: stack.enter_context(connected(database))
            for name, (connected, _) in (UNAFFECTED | AFFECTED).items()
        }
        got: dict[str, list[list[int | str]]] = {name: [] for name in readers}
        for revision in COLUMNS_AFTER:
            migrations.upgrade(database.url(), revision)
            for name, read in readers.items():
                got[name].append([outcome(read) for _ in range(OFTEN)])
    yield got
    templates.drop(database)


def outcome(read: Read) -> int | str:
    try:
        return read()
    except (FeatureNotSupported, NotSupportedError, asyncpg.InvalidCachedStatementError) as error:
        return type(error).__name__


@pytest.mark.parametrize("client", UNAFFECTED)
def test_these_readers_never_notice(seen: dict[str, list[list[int | str]]], client: str) -> None:
    _, columns = UNAFFECTED[client]

    assert seen[client] == [[number] * OFTEN for number in columns]


@pytest.mark.parametrize("client", AFFECTED)
def test_these_readers_fail_on_their_open_connections(
    seen: dict[str, list[list[int | str]]], client: str
) -> None:
    _, after = AFFECTED[client]

    assert seen[client][:2] == [[9] * OFTEN, after]


def test_readers_go_on_while_the_upgrade_runs(clone: Callable[[str], Database]) -> None:
    database = clone(FIRST)
    began, ended = threading.Event(), threading.Event()

    def read_on() -> list[int]:
        with with_psycopg(STAR, prepare_threshold=None)(database) as read:
            results = [read()]
            began.set()
            while not ended.is_set():
                results.append(read())
            return [*results, read()]

    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(read_on)
        began.wait()
        try:
            migrations.upgrade(database.url())
        finally:
            ended.set()
        results = reading.result()

    assert results == sorted(results)
    assert (results[0], results[-1]) == (9, 15)
    assert len(results) > 2
