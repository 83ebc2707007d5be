"""Two connections, one of which waits for the other: no sleeps, the server says who waits for whom."""

from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import psycopg

from tests.databases import Database


class Waiting:
    """A statement that is sent in a thread of its own, since it has to wait."""

    def __init__(self, database: Database, connection: psycopg.Connection[Any]) -> None:
        self._database = database
        self._connection = connection
        self._thread = ThreadPoolExecutor(1)
        self._result: Future[psycopg.Cursor[Any]] | None = None

    def send(self, statement: str, parameters: dict[str, object] | None = None) -> None:
        self._result = self._thread.submit(self._connection.execute, statement.encode(), parameters)

    def until_blocked_by(self, other: psycopg.Connection[Any] | int) -> None:
        """Return once the statement waits for `other`: a connection, or a process id.

        :raises AssertionError: when it ended without waiting.
        """
        assert self._result
        pid = other if isinstance(other, int) else other.info.backend_pid
        with self._database.connect(self._database.superuser) as observer:
            # Not at every moment: that would take a processor from what is waited for.
            while not wait([self._result], timeout=0.005).done:
                pids = observer.execute(
                    "SELECT pg_blocking_pids(%s)", [self._connection.info.backend_pid]
                ).fetchone()
                if pids and pid in pids[0]:
                    return
        raise AssertionError(f"did not wait: {self._result.exception() or 'it succeeded'}")

    def result(self) -> psycopg.Cursor[Any]:
        """The statement's cursor, once it has ended; raises what it raised."""
        assert self._result
        self._thread.shutdown()
        return self._result.result()
