"""A template database, migrated once, and a clone of it for each test."""

import itertools
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, Self

from sqlalchemy import URL, Connection, NullPool, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from workflow_models import embedded
from workflow_models.access import USER, WORKER
from workflow_models.errors import WorkflowModelsError
from workflow_models.revisions import require_head
from workflow_models.testing.cluster import SUPERUSER, ClusterError, cluster

_CONNECTED = text("SELECT count(*) FROM pg_stat_activity WHERE datname = :name")
_PLUGIN_OPTION = "--workflow-database-url=postgresql://postgres@host/postgres"


class TestingError(WorkflowModelsError):
    """The tests cannot have their database."""

    __test__ = False  # not what pytest collects by its name

    def __init__(self, happened: str, *, next_step: str) -> None:
        super().__init__(
            happened,
            unchanged="what was made for the tests on the server is dropped.",
            next_step=next_step,
        )


@dataclass(frozen=True)
class Database:
    """One database, and the URLs by which to reach it, as SQLAlchemy takes them, for psycopg.

    `url` is of its owner, who owns what migrations make, and is neither superuser nor BYPASSRLS.
    `service_url` is of the login that a service has: it owns nothing, inherits nothing, and may become
    ``authenticated`` and ``workflow_worker``. `admin_url` is of whom the server's URL names.
    """

    name: str
    url: str
    service_url: str
    admin_url: str


@contextmanager
def serve() -> Iterator[str]:
    """The URL of a server of the `embedded` extra, which is gone with its data when the block, or we, end.

    :raises TestingError: without the extra, or when the server does not start.
    """
    binaries = embedded.binaries()
    if binaries is None:
        raise TestingError(
            "there is no PostgreSQL to test on: no URL is given, and the embedded server is not installed.",
            next_step=f'pip install "workflow-models[pytest]", or give {_PLUGIN_OPTION}',
        )
    with ExitStack() as stack:
        try:
            server = stack.enter_context(cluster(binaries))
        except (ClusterError, embedded.EmbeddedServerError, OSError) as error:
            raise TestingError(
                f"the embedded server does not start: {error}",
                next_step=f"mend that, or give {_PLUGIN_OPTION}",
            ) from error
        yield URL.create(
            "postgresql+psycopg",
            username=SUPERUSER,
            database="postgres",
            query={"host": str(server.folder), "port": str(server.port)},
        ).render_as_string(hide_password=False)


class Databases:
    """The databases of one test session on one server; with `with`, they and their two logins go at its end.

    Several sessions, such as the workers of pytest-xdist, may share a server: each has its own. The roles
    ``authenticated`` and ``workflow_worker`` are made where they are missing, and stay.

    :param server_url: of a superuser, or of a role that may create databases and roles.
    :param prepare: migrates and fills the template, once.
    :raises TestingError: on entering, when the server does not answer, the roles cannot be made, or
        `prepare` fails or leaves the template at another revision than this package needs.
    """

    def __init__(self, server_url: str | URL, prepare: Callable[[Database], None]) -> None:
        self._server = _psycopg_url(server_url)
        self._prepare = prepare
        self._name = f"workflow_test_{os.getpid()}_{secrets.token_hex(4)}"
        self._owner = f"{self._name}_owner"
        self._service = f"{self._name}_service"
        self._password = secrets.token_hex(16)
        self._clones = itertools.count(1)
        self._made = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as made:
            self._make_roles()
            made.callback(self._drop_roles)
            made.callback(self._drop, self._name)
            self._make_template()
            self._made = made.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()

    @contextmanager
    def clone(self) -> Iterator[Database]:
        """A new database as the template is; dropped after the block, whoever is still connected."""
        database = self._database(f"{self._name}_{next(self._clones)}")
        with self._admin() as admin:
            # Where nothing is flushed, copying the files is the faster way by half.
            strategy = "STRATEGY file_copy" if admin.scalar(text("SHOW fsync")) == "off" else ""
            admin.exec_driver_sql(
                f"CREATE DATABASE {database.name} TEMPLATE {self._name} OWNER {self._owner} {strategy}"
            )
        try:
            yield database
        finally:
            self._drop(database.name)

    def _database(self, name: str) -> Database:
        def url(login: str) -> str:
            return _text(self._server.set(username=login, password=self._password, database=name))

        return Database(name, url(self._owner), url(self._service), _text(self._server.set(database=name)))

    @contextmanager
    def _admin(
        self, isolation_level: Literal["AUTOCOMMIT", "READ COMMITTED"] = "AUTOCOMMIT"
    ) -> Iterator[Connection]:
        engine = create_engine(self._server, isolation_level=isolation_level, poolclass=NullPool)
        with engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def _changing_roles(self) -> Iterator[Connection]:
        """Roles are the whole server's: one session changes them at a time, all or nothing."""
        with self._admin("READ COMMITTED") as admin:
            admin.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('workflow_models.testing'))")
            yield admin

    def _make_roles(self) -> None:
        with self._allowed(), self._changing_roles() as admin:
            for role in (USER, WORKER):
                if not admin.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}):
                    admin.exec_driver_sql(f"CREATE ROLE {role} NOLOGIN")
            login = f"LOGIN PASSWORD '{self._password}'"
            admin.exec_driver_sql(f"CREATE ROLE {self._owner} {login}")
            admin.exec_driver_sql(f"CREATE ROLE {self._service} {login} NOINHERIT")
            admin.exec_driver_sql(f"GRANT {USER}, {WORKER} TO {self._service}")
            # Who is no superuser gives a database only to a role that it may become.
            if not admin.scalar(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")):
                admin.exec_driver_sql(f"GRANT {self._owner} TO CURRENT_USER")

    @contextmanager
    def _allowed(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise TestingError(
                f"the server to test on does not answer at {self._server!r}: {_said(error)}",
                next_step="start it, or correct the URL.",
            ) from error
        except DBAPIError as error:
            raise TestingError(
                f"{self._server.username} may not make the tests' roles or databases: {_said(error)}",
                next_step="give the URL of a superuser; or of a role with CREATEDB and CREATEROLE, which has "
                f"ADMIN OPTION for {USER} and {WORKER} where others have made these.",
            ) from error

    def _drop_roles(self) -> None:
        with self._changing_roles() as admin:
            admin.exec_driver_sql(f"DROP ROLE {self._owner}, {self._service}")

    def _make_template(self) -> None:
        template = self._database(self._name)
        with self._allowed(), self._admin() as admin:
            admin.exec_driver_sql(f"CREATE DATABASE {template.name} OWNER {self._owner}")
        try:
            self._prepare(template)
            require_head(create_engine(template.url, poolclass=NullPool))
            with self._admin() as admin:
                # A connection that is left open would hold off each clone.
                admin.exec_driver_sql(f"ALTER DATABASE {template.name} ALLOW_CONNECTIONS false")
                admin.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
                    {"name": template.name},
                )
        except Exception as error:
            raise TestingError(
                f"the template database of the tests could not be prepared: {_said(error)}",
                next_step="mend what `workflow_prepare_template` does, or what it runs on.",
            ) from error

    def _drop(self, name: str) -> None:
        with self._admin() as admin:
            # DROP DATABASE sleeps 100 ms where a connection is only just going: that takes less.
            for _ in range(20):
                if not admin.scalar(_CONNECTED, {"name": name}):
                    break
                time.sleep(0.001)
            admin.exec_driver_sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _psycopg_url(url: str | URL) -> URL:
    try:
        parsed = make_url(re.sub("^postgres(?=[:+])", "postgresql", url) if isinstance(url, str) else url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.get_backend_name() != "postgresql":
        raise TestingError(
            "what is given for the server to test on is not a URL of PostgreSQL.",
            next_step="give one like postgresql://postgres:password@host:5432/postgres.",
        )
    return parsed.set(drivername="postgresql+psycopg")


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _said(error: Exception) -> str:
    """What the database or the migration says; of SQLAlchemy's errors without statement and link."""
    return str(error.orig).strip() if isinstance(error, DBAPIError) else f"{error or repr(error)}"
