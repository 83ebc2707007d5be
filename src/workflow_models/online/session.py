"""The settings of a run, and how long they hold.

On a direct connection they are the session's. A transaction pooler gives each transaction another server
connection, and what is set on one stays there for whoever comes next: behind it each transaction takes the
settings along, and they end with it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

from sqlalchemy import URL, Connection, Dialect, Engine, NullPool, create_engine, event, text
from sqlalchemy.engine.interfaces import IsolationLevel
from sqlalchemy.exc import DBAPIError

from .options import Options

# Settings of role, database or pooler never decide. row_security = off turns rows that a policy would
# hide from the migrator into an error.
SETTINGS = {
    # Under a stricter one the migrators' lock would hold a snapshot, for which a concurrent build waits.
    "default_transaction_isolation": "'read committed'",
    "quote_all_identifiers": "off",
    # One process at work beside the clients, and not three.
    "max_parallel_maintenance_workers": "0",
    "max_parallel_workers_per_gather": "0",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "row_security": "off",
}

# Not on every server version. Without client_connection_check_interval the backend of a killed migrator
# works on after its lock is free.
_OPTIONAL_SETTINGS = {
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
    "client_connection_check_interval": "1000",
}


def milliseconds(setting: str) -> str:
    """Give SQL for a setting that is a time; pg_settings would compute all the others besides."""
    return f"(extract(epoch FROM current_setting('{setting}')::interval) * 1000)::bigint"


# lock_timeout stays below deadlock_timeout: else a client, and not we, would be ended for a deadlock.
_SET = f"""
    SELECT pg_backend_pid(), set_config(
        name,
        CASE name
            WHEN 'lock_timeout'
                THEN least(value::bigint, greatest({milliseconds("deadlock_timeout")} * 4 / 5, 1))::text
            ELSE value
        END,
        %(local)s
    )
    FROM jsonb_each_text(%(settings)s::jsonb) AS setting (name, value)
    WHERE current_setting(name, true) IS NOT NULL
"""


# In a database without an encoding psycopg would give bytes for text.
CONNECT_ARGUMENTS: Mapping[str, Any] = {"connect_timeout": 10, "client_encoding": "utf8"}


def create_session_engine(url: URL, options: Options, search_path: str) -> Engine:
    """Give an engine whose connections have the settings of a run; each connection is a new one."""
    engine = create_engine(
        url,
        poolclass=NullPool,
        connect_args={
            **CONNECT_ARGUMENTS,
            # Behind a transaction pooler a prepared statement belongs to somebody else's session.
            "prepare_threshold": None,
        },
    )
    settings = json.dumps(
        {
            **{name: value.strip("'") for name, value in SETTINGS.items()},
            **_OPTIONAL_SETTINGS,
            "lock_timeout": str(options.lock_timeout_ms),
            "search_path": search_path,
            # Not when connecting: a pooler would keep it for clients that give none.
            "application_name": "alembic",
        }
    )

    def connected(driver_connection: Any, record: Any) -> None:
        """Before SQLAlchemy asks its first question."""
        with driver_connection.cursor() as cursor:
            [(pid,)] = cursor.execute("SELECT pg_backend_pid()").fetchall()
            record.info["backend_pid"] = pid
            # What a pooler sends for a process id at the start is a number of its own.
            if pid != driver_connection.info.backend_pid:
                record.info["local_settings"] = settings
            else:
                cursor.execute(_SET, {"settings": settings, "local": False})
        driver_connection.commit()

    # Alembic asks the server for it before each statement of ours, in three round trips; SETTINGS say it.
    engine.dialect.get_isolation_level = _read_committed  # type: ignore[method-assign]
    event.listen(engine, "do_connect", _connect_without_timeout)
    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", _begun)
    return engine


def _read_committed(dbapi_connection: object) -> IsolationLevel:
    return "READ COMMITTED"


def behind_pooler(connection: Connection) -> bool:
    """Tell whether a connection of ours goes through a pooler."""
    return "local_settings" in connection.info


def backend_pid(connection: Connection) -> Callable[[], int | None]:
    """Give what tells the process id of the backend, in any thread.

    Behind a pooler it is that of the last transaction, and None where a statement is in none.
    """
    return partial(connection.info.get, "backend_pid")


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Run the block, in autocommit, as one transaction with the settings of the run."""
    connection.exec_driver_sql("BEGIN")
    try:
        if behind_pooler(connection):
            _settle(connection)
        yield
    except BaseException:
        with suppress(DBAPIError):  # it went with its connection
            connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


@contextmanager
def settled(connection: Connection, *, waits: bool = False) -> Iterator[None]:
    """Have the settings of the run hold for statements in autocommit; behind a pooler in one transaction.

    :param waits: without lock_timeout, for statements that nobody queues behind for long.
    """
    if behind_pooler(connection):
        with transaction(connection):
            if waits:
                connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            yield
    else:
        with without_lock_timeout(connection) if waits else nullcontext():
            yield


@contextmanager
def without_lock_timeout(connection: Connection) -> Iterator[None]:
    """Take lock_timeout off a session. Behind a pooler there is none: statements run as they find it."""
    if behind_pooler(connection):
        connection.info["backend_pid"] = None  # whichever the pooler takes
        yield
        return
    before, _ = connection.execute(
        text("SELECT current_setting('lock_timeout'), set_config('lock_timeout', '0', false)")
    ).one()
    try:
        yield
    finally:
        if not connection.invalidated:
            connection.exec_driver_sql(f"SET lock_timeout = '{before}'")


def _begun(connection: Connection) -> None:
    # In autocommit SQLAlchemy only imagines a transaction.
    if behind_pooler(connection) and not connection.connection.driver_connection.autocommit:  # type: ignore[union-attr]
        _settle(connection)


def _settle(connection: Connection) -> None:
    parameters = {"settings": connection.info["local_settings"], "local": True}
    connection.info["backend_pid"] = connection.exec_driver_sql(_SET, parameters).scalars().first()


def _connect_without_timeout(
    dialect: Dialect, _record: Any, arguments: tuple[Any, ...], parameters: dict[str, Any]
) -> Any:
    """Connect so that an inherited statement_timeout cannot end the statement that sets it."""
    options = f"{parameters.get('options', '')} -c statement_timeout=0".strip()
    try:
        return dialect.connect(*arguments, **{**parameters, "options": options})
    except dialect.loaded_dbapi.OperationalError as error:
        if "unsupported startup parameter" not in str(error):
            raise
        return None  # a pooler takes no options; SQLAlchemy connects without
