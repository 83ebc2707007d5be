"""Databases to test on: each state is built once as a template, and cloned for each test."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from pytest_postgresql.executors import NoopExecutor
from sqlalchemy import URL, Engine, NullPool, create_engine

from tests.server import PASSWORD

OWNER = "app_owner"

# Builds a state in a database that is a clone of its base.
Builder = Callable[["Database"], None]
_builders: dict[str, tuple[str, Builder]] = {}


@dataclass(frozen=True)
class Database:
    """One database, and the ways to talk to it as this or that role.

    Only `authenticator` and the owner log in besides the superuser; `as_role` is for the others.
    """

    name: str
    server: NoopExecutor
    # Those that stay open, by what they are for: to connect takes longer than most that is done here.
    _open: dict[object, psycopg.Connection[TupleRow]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    # Those of proofs, which keep their connections.
    engines: dict[object, Engine] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def superuser(self) -> str:
        return self.server.user

    def url(self, user: str = OWNER, password: str | None = None, host: str | None = None) -> str:
        """For SQLAlchemy, through the server's own host, which is a Unix socket where we started it.

        Passwords count at 127.0.0.1 only; None stands for the right one.
        """
        host = host or self.server.host
        socket = host.startswith("/")
        return URL.create(
            "postgresql+psycopg",
            username=user,
            password=_password(self.server, host, user) if password is None else password,
            host=None if socket else host,
            port=None if socket else self.server.port,
            database=self.name,
            query={"host": host, "port": str(self.server.port)} if socket else {},
        ).render_as_string(hide_password=False)

    def connect(self, user: str = OWNER, *, autocommit: bool = True) -> psycopg.Connection[TupleRow]:
        return psycopg.connect(
            host=self.server.host,
            port=self.server.port,
            dbname=self.name,
            user=user,
            password=_password(self.server, self.server.host, user),
            autocommit=autocommit,
        )

    @property
    def observer(self) -> psycopg.Connection[TupleRow]:
        """The superuser's connection that stays open, to read what there is."""
        return self._opened("observer", self.superuser)

    def engine(self, user: str = OWNER, **options: Any) -> Engine:
        return create_engine(self.url(user), poolclass=NullPool, **options)

    def execute(
        self, script: str, parameters: Mapping[str, object] | None = None, *, user: str = OWNER
    ) -> list[TupleRow]:
        """Run a script in a session as new; the rows of its last statement, if it gives any.

        Several statements (only without parameters) are one transaction.
        """
        connection = self._opened((user, get_ident()), user)
        connection.prepare_threshold = None
        try:
            cursor = connection.execute(script.encode(), parameters)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []
        finally:
            if not connection.closed:
                connection.execute("DISCARD ALL")

    @contextmanager
    def as_role(
        self, role: str, settings: Mapping[str, str] | None = None
    ) -> Iterator[psycopg.Connection[TupleRow]]:
        """A request as PostgREST makes it: logged in as authenticator, claims and role local to one
        transaction, which is rolled back."""
        settings = settings or {}
        # One that was set once is never again as if it had not been: its connection is for its like.
        connection = self._opened(frozenset(settings), "authenticator", autocommit=False)
        assert connection.info.transaction_status == TransactionStatus.IDLE, "one in another"
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, true)", (name, value))
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        try:
            yield connection
        finally:
            connection.rollback()

    def _opened(self, purpose: object, user: str, **options: Any) -> psycopg.Connection[TupleRow]:
        if purpose not in self._open or self._open[purpose].closed:
            self._open[purpose] = self.connect(user, **options)
        return self._open[purpose]

    def close(self) -> None:
        """Close what has stayed open."""
        while self._open:
            self._open.popitem()[1].close()
        while self.engines:
            self.engines.popitem()[1].dispose()


def template(name: str, *, base: str = "empty") -> Callable[[Builder], Builder]:
    """Register what builds the state `name` on a clone of the state `base`."""

    def register(builder: Builder) -> Builder:
        if name in _builders or name == "empty":
            raise ValueError(f"template {name!r} is registered twice")
        _builders[name] = (base, builder)
        return builder

    return register


class Templates:
    """The states of one server, each built when it is first asked for."""

    def __init__(self, server: NoopExecutor, empty: str) -> None:
        self._server = server
        self._built = {"empty": empty}
        self._counter = itertools.count(1)
        self._to_drop: deque[str] = deque()
        # One for all that are made and dropped: the janitor takes a new one each time.
        self._maintenance = psycopg.connect(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            dbname=server.maintenance_dbname,
            autocommit=True,
        )

    def clone(self, name: str) -> Database:
        """A new database in that state; `drop` it when it is no longer needed."""
        return self._create(self._template(name), f"{self._server.dbname}_{name}_{next(self._counter)}")

    def drop(self, database: Database) -> None:
        """Whoever is still connected then is thrown out.

        A few tests later: PostgreSQL sleeps 100 ms for a connection that was closed only just before.
        """
        database.close()
        self._to_drop.append(database.name)
        if len(self._to_drop) > 8:
            self._drop(self._to_drop.popleft())

    def close(self) -> None:
        for name in [*self._to_drop, *(name for state, name in self._built.items() if state != "empty")]:
            self._drop(name)
        self._maintenance.close()

    def _template(self, name: str) -> str:
        if name not in self._built:
            if name not in _builders:
                raise LookupError(f"no template {name!r}; there are {', '.join(sorted(_builders))}")
            base, builder = _builders[name]
            database = self._create(self._template(base), f"{self._server.dbname}_{name}")
            try:
                builder(database)
            except BaseException:
                self._drop(database.name)
                raise
            finally:
                database.close()
            # A clone would wait for its connections to be gone, 100 ms at a time.
            connected = "SELECT FROM pg_stat_activity WHERE datname = %s"
            while self._maintenance.execute(connected, [database.name]).rowcount:
                pass
            self._built[name] = database.name
        return self._built[name]

    def _create(self, template_dbname: str, dbname: str) -> Database:
        # Not by way of the WAL, which is the default: that takes twice as long.
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} STRATEGY file_copy")
        names = map(sql.Identifier, (dbname, template_dbname, OWNER))
        self._maintenance.execute(create.format(*names))
        return Database(dbname, self._server)

    def _drop(self, dbname: str) -> None:
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self._maintenance.execute(drop.format(sql.Identifier(dbname)))


def _password(server: NoopExecutor, host: str, user: str) -> str | None:
    if host.startswith("/"):
        return None
    return server.password if user == server.user else PASSWORD
