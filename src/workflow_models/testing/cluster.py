"""A PostgreSQL cluster that lives as long as this process, and then is gone with its data."""

import os
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workflow_models import embedded

SUPERUSER = "postgres"

# Nothing here has to outlive a crash; and the language of functions is not loaded by each connection anew.
SETTINGS = """
fsync = off
full_page_writes = off
synchronous_commit = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = '256MB'
max_connections = 200
max_prepared_transactions = 10
autovacuum = off
jit = off
shared_preload_libraries = 'plpgsql'
timezone = 'UTC'
listen_addresses = '127.0.0.1'
"""

# Only this account may enter the socket's folder; over TCP passwords count.
ACCESS = """
local all all              trust
host  all all 127.0.0.1/32 scram-sha-256
"""


class ClusterError(Exception):
    """The cluster cannot be made or does not start; the message holds what its programs said."""


@dataclass(frozen=True)
class Cluster:
    """Where it listens: in a folder, by a Unix socket, and at 127.0.0.1. Its superuser is `SUPERUSER`."""

    folder: Path
    port: int


@contextmanager
def cluster(binaries: Path, parent: Path | None = None) -> Iterator[Cluster]:
    """A new cluster in a temporary folder, as another account where we are root.

    :param binaries: the folder of `initdb`, `postgres` and `pg_ctl`.
    :param parent: where the folder is made; see `roomy`.
    :raises ClusterError: when one of them fails.
    :raises EmbeddedServerError: when root finds no account to run it as.
    """
    account = embedded.server_account()
    folder = Path(tempfile.mkdtemp(prefix="wm-", dir=parent or roomy()))
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
    # Programs do not always run from memory.
    copies = Path("/tmp") / f"{folder.name}-binaries"
    binaries = embedded.reachable(binaries, account, copies)
    pgdata = folder / "data"
    # PG… would reach the server's programs too.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}

    def run(*command: str | Path) -> None:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False, **embedded.as_account(account),
        )  # fmt: skip
        if done.returncode:
            log = folder / "log"
            raise ClusterError(
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
        yield Cluster(folder, port)


def roomy() -> Path:
    """Memory where there is enough, since many databases are copied: ten times as fast as a busy disk.

    Short either way: a Unix socket's path may have some hundred bytes.
    """
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30 else Path("/tmp")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
