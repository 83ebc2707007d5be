"""Locks of a migration: short waits, many tries, one migrator at a time, and who was in the way."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from logging import getLogger

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from .errors import MigrationError
from .options import Options
from .progress import Observed

log = getLogger(__name__)

_LOCK_NOT_AVAILABLE, _DEADLOCK_DETECTED = "55P03", "40P01"


def sqlstate(error: BaseException) -> str | None:
    """Give the SQLSTATE that the server sent with an error, or None."""
    return getattr(getattr(error, "orig", error), "sqlstate", None)


def is_lock_failure(error: BaseException) -> bool:
    """Tell whether a statement failed only because somebody else held a lock."""
    return sqlstate(error) in (_LOCK_NOT_AVAILABLE, _DEADLOCK_DETECTED)


class LocksNotAcquiredError(Exception):
    """Every try to get a lock ran into the timeout."""

    def __init__(self, tries: int, blocker: str | None) -> None:
        super().__init__(tries, blocker)
        self.tries = tries
        self.blocker = blocker


@dataclass
class Patience:
    """Counts the tries of one statement or revision, and waits between them."""

    options: Options
    blocker: Callable[[], str | None] = lambda: None
    failures: int = 0

    def failed(self, error: DBAPIError) -> None:
        """Wait a little after a lock failure.

        :raises DBAPIError: the error itself, where it is of another kind.
        :raises LocksNotAcquiredError: when the tries are used up.
        """
        if not is_lock_failure(error):
            raise error
        self.failures += 1
        if self.failures >= self.options.lock_tries:
            raise LocksNotAcquiredError(self.failures, self.blocker()) from error
        # The pause leaves room for those who queued behind us; its jitter breaks a rhythm shared with them.
        time.sleep(random.uniform(0.5, 1.5) * min(0.1 * self.failures, 1.0))


@dataclass
class Watch:
    """Asks from a connection of its own what the migrator cannot say while it waits: for whom, and how far
    a long statement is. Where the migrators' lock is lost, it ends the migrator before another one begins.

    :param guard: the process that holds the lock.
    """

    engine: Engine
    guard: int
    interval_s: float = 0.1
    lock_is_lost: bool = False
    last_seen: str | None = None
    _pid: Callable[[], int | None] | None = None
    _step: Observed | None = None
    _telling: threading.Lock = field(default_factory=threading.Lock)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def watch(self, pid: Callable[[], int | None]) -> None:
        """Watch the backend with this process id from now on; behind a pooler it changes."""
        self._pid = pid

    def seen(self) -> str | None:
        """Say who was last seen in the way."""
        return self.last_seen

    @contextmanager
    def telling(self, step: Observed) -> Iterator[None]:
        """Tell how far the step is while the block runs it."""
        with step.progress:
            self._step = step
            try:
                yield
            finally:
                with self._telling:
                    self._step = None

    @contextmanager
    def running(self) -> Iterator["Watch"]:
        """Watch while the block runs."""
        thread = threading.Thread(target=self._ask, name="migration-watch", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            thread.join()

    def _ask(self) -> None:
        # Most steps are over before there is anything to see.
        if self._stopped.wait(self.interval_s):
            return
        try:
            with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                self._look(connection)
                while not self._stopped.wait(self.interval_s):
                    self._look(connection)
        except DBAPIError as error:  # it only serves messages; the migration goes on without it
            log.debug("cannot watch the migrator: %s", error.orig)

    def _look(self, connection: Connection) -> None:
        if connection.scalar(_IS_GONE, {"pid": self.guard}):
            self.lock_is_lost = True
            connection.execute(_END, {"pid": self._pid() if self._pid else None})
        step = self._step
        if step is None:
            self._blockers(connection, None)
            return
        reached = step.ask(connection, partial(self._blockers, connection))
        with self._telling:
            if step is self._step:
                step.progress.reached(reached)

    def _blockers(self, connection: Connection, pid: int | None) -> str | None:
        if pid is None and self._pid is not None:
            pid = self._pid()
        pids = connection.scalar(_BLOCKING, {"pid": pid})
        if not pids:
            return None
        blockers: str | None = connection.scalar(_BLOCKERS, {"pids": pids})
        self.last_seen = blockers or self.last_seen
        return blockers


# Age and state of others are NULL for a role without pg_read_all_stats.
_WHO = """
    'pid ' || activity.pid
    || ' (' || concat_ws(', ',
        nullif(activity.application_name, ''),
        'user ' || activity.usename,
        to_char(extract(epoch FROM clock_timestamp() - activity.xact_start), 'FM999999990')
            || ' s in a transaction',
        activity.state{more})
    || ')'
"""
# Of a statement only the first words are told: what follows may hold values.
_FIRST_WORDS = """,
        substring(
            nullif(activity.query, '<insufficient privilege>')
            FROM '^\\s*([A-Za-z]+(\\s+[A-Za-z_."]+){0,2})')"""
_BLOCKING = text("SELECT pg_blocking_pids(:pid)")
# A transaction that was prepared has no process: 0 stands for all of them.
_BLOCKERS = text(f"""
    SELECT string_agg(who, '; ' ORDER BY pid, who) FROM (
        SELECT activity.pid, {_WHO.format(more=_FIRST_WORDS)} AS who
        FROM pg_stat_activity AS activity WHERE activity.pid = ANY (:pids)
        UNION ALL
        SELECT 0, format('prepared transaction %L (user %s, %s s old; to end it: ROLLBACK PREPARED %1$L)',
            gid, owner, extract(epoch FROM clock_timestamp() - prepared)::integer)
        FROM pg_prepared_xacts WHERE database = current_database() AND 0 = ANY (:pids)
    ) AS blockers
""")
_IS_GONE = text("SELECT NOT EXISTS (SELECT FROM pg_stat_get_activity(:pid))")
_END = text("SELECT pg_terminate_backend(:pid)")
_HOLDER = text(
    f"SELECT {_WHO.format(more='')} FROM pg_locks AS held JOIN pg_stat_activity AS activity USING (pid) "
    "WHERE held.locktype = 'advisory' AND held.granted "
    "AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND (held.classid::bigint << 32) | held.objid::bigint = :key AND held.objsubid = 1 LIMIT 1"
)


@contextmanager
def only_migrator(connection: Connection, name: str, options: Options) -> Iterator[int]:
    """Hold the lock of migrators on this database while the block runs; gives the process that holds it.

    The lock lives in an open transaction that has no snapshot, so that concurrent index builds do not
    wait for it, and it goes with the connection, behind a pooler too.

    :param connection: used for nothing else.
    :param name: what is migrated; other names do not wait for each other.
    :raises MigrationError: when another migrator holds the lock for longer than the options allow.
    """
    key: int = connection.scalar(text("SELECT hashtextextended(:name, 0)"), {"name": f"migrator of {name}"})
    connection.commit()
    deadline = time.monotonic() + options.migrator_wait_s
    tell_at = time.monotonic()
    # Without parameters: the portal of a statement that has some stays open, and its snapshot with it.
    take = f"SELECT pg_try_advisory_xact_lock({key:d})"
    plain = {"no_parameters": True}
    while not connection.exec_driver_sql(take, execution_options=plain).scalar():
        holder = connection.scalar(_HOLDER, {"key": key}) or "a migrator that has just ended"
        connection.rollback()
        if time.monotonic() > deadline:
            raise MigrationError(
                "another migrator is at work on this database.",
                happened=f"waited {options.migrator_wait_s} s; {holder} holds the migrators' lock.",
                unchanged="this run did nothing.",
                next_step="let it finish, or end it, then run the same command again.",
            )
        if time.monotonic() >= tell_at:
            log.info("waiting for another migrator: %s", holder)
            tell_at = time.monotonic() + 5
        time.sleep(random.uniform(0.1, 0.3))
    try:
        yield connection.exec_driver_sql("SELECT pg_backend_pid()", execution_options=plain).scalar_one()
    finally:
        with suppress(DBAPIError):  # the lock went with its connection
            connection.rollback()
