"""A transaction pooler before the tests' server: Debian's pgbouncer."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest_postgresql.executors import NoopExecutor

from tests import server as servers
from workflow_models import embedded

# Four connections to the server for all: a migrator needs two, and its watch one now and then.
SIZE = 4
_SETTINGS = """
[databases]
* = host={server.host} port={server.port}
[pgbouncer]
unix_socket_dir = {folder}
listen_port = {port}
auth_type = trust
auth_file = {folder}/users
logfile = {folder}/log
pool_mode = transaction
default_pool_size = {size}
; one after the other, so that what one client leaves behind meets the next
server_round_robin = 1
"""


@contextmanager
def pooler(server: NoopExecutor) -> Iterator[NoopExecutor]:
    """A pooler that runs; shaped as a server."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        # .ci/run installs it.
        if os.environ.get("TEST_POOLER") == "required":
            raise servers.NoServerError("no pgbouncer to test with")
        pytest.skip("needs pgbouncer, which Debian has")
    account = embedded.server_account()
    folder = Path(tempfile.mkdtemp(prefix="wm-pooler-", dir="/tmp"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "ini").write_text(_SETTINGS.format(server=server, folder=folder, port=port, size=SIZE))
    passwords = {"app_owner": servers.PASSWORD, server.user: server.password or ""}
    (folder / "users").write_text("".join(f'"{user}" "{password}"\n' for user, password in passwords.items()))
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
    as_account = embedded.as_account(account)
    with (
        subprocess.Popen(
            [program, folder / "ini"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, **as_account,
        ) as process,
        # Ends when its standard input does, that is with us, however we end.
        subprocess.Popen(
            ["/bin/sh", "-c", f"read -r _; kill -9 {process.pid}; rm -rf {folder}"],
            stdin=subprocess.PIPE, start_new_session=True, **as_account,
        ),
    ):  # fmt: skip
        _until_it_listens(process, folder, port)
        yield NoopExecutor(str(folder), port, server.user, "", server.dbname)


def _until_it_listens(process: "subprocess.Popen[bytes]", folder: Path, port: int) -> None:
    while True:
        if process.poll() is not None:
            raise servers.NoServerError(f"pgbouncer ended:\n{(folder / 'log').read_text()}")
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(f"{folder}/.s.PGSQL.{port}") == 0:
                return
