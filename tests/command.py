"""The `alembic` command as a shell runs it: in the project's folder, with no database but the one named."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from multiprocessing.connection import Connection
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingMixIn, UnixStreamServer
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from alembic import config as alembic_config

PROJECT = Path(__file__).parents[1]
_OF_THE_SHELL = ("DATABASE_URL", "MIGRATION_", "WORKFLOW_MODELS_")

# Most of a short command's time goes into its imports: it is forked from a process that has them.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([
    "logging.config", "workflow_models.migrations", "workflow_models.ddl.autogenerate", "pytest",
    "tests.application.states", __name__,
])  # fmt: skip

# A program that hands on how it was called, and ends as what was run in its place.
_STAND_IN = """\
#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as forks:
    forks.connect({address!r})
    socket.send_fds(forks, [b" "], [0, 1, 2])
    forks.sendall(json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode())
    forks.shutdown(socket.SHUT_WR)
    sys.exit(forks.recv(1)[0])
"""


@dataclass(frozen=True)
class Ran:
    """How a command ended, and all that it printed."""

    status: int
    stdout: str
    stderr: str


def start(*command: str, env: Mapping[str, str], stdout: int = subprocess.PIPE) -> "subprocess.Popen[str]":
    """Run Python with these arguments; variables of our own shell that name a database do not count."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=PROJECT, env=_environment(env), text=True,
        stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: "subprocess.Popen[str]") -> Ran:
    with process:
        stdout, stderr = process.communicate()
    return Ran(process.returncode, stdout, stderr)


def alembic(*arguments: str, **env: str) -> Ran:
    return forked(_alembic, list(arguments), env=env)


def forked(run: Callable[..., object], *arguments: Any, env: Mapping[str, str] | None = None) -> Ran:
    """Run a function of a module in a process of its own, as `start` runs Python."""
    with TemporaryDirectory() as folder:
        streams = [Path(folder, "stdout"), Path(folder, "stderr")]
        process = FORKS.Process(target=_run, args=(run, arguments, _environment(env or {}), streams))
        process.start()
        process.join()
        status = process.exitcode
        assert status is not None
        return Ran(status, *(stream.read_text() if stream.exists() else "" for stream in streams))


@contextmanager
def stand_ins(folder: Path, *names: str) -> Iterator[None]:
    """Make console scripts in a folder that shells can use; each is run in a fork while this is open."""
    with TemporaryDirectory() as runtime, _Forks(f"{runtime}/socket", _Fork) as forks:
        for name in names:
            script = folder / name
            script.write_text(_STAND_IN.format(python=sys.executable, address=forks.server_address))
            script.chmod(0o755)
        thread = Thread(target=forks.serve_forever, args=[0.05])
        thread.start()
        try:
            yield
        finally:
            forks.shutdown()
            thread.join()


class _Forks(ThreadingMixIn, UnixStreamServer):
    """Shells run several at once."""


class _Fork(BaseRequestHandler):
    def handle(self) -> None:
        _, descriptors, _, _ = socket.recv_fds(self.request, 1, 3)
        call = json.load(self.request.makefile())
        streams = [Connection(descriptor) for descriptor in descriptors]
        process = FORKS.Process(target=_run_script, args=(*call, streams))
        process.start()
        # Whoever reads what it prints waits until all have closed it.
        for stream in streams:
            stream.close()
        process.join()
        assert process.exitcode is not None
        self.request.sendall(bytes([process.exitcode & 0xFF]))


def _run_script(
    called_as: list[str], folder: str, environment: dict[str, str], streams: list[Connection]
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, stream in enumerate(streams):
        os.dup2(stream.fileno(), descriptor)
    sys.argv = called_as
    (script,) = entry_points(group="console_scripts", name=Path(called_as[0]).name)
    sys.exit(script.load()())


def _alembic(arguments: list[str]) -> None:
    alembic_config.main(arguments, prog="alembic")


def _run(
    run: Callable[..., object], arguments: tuple[Any, ...], environment: dict[str, str], streams: list[Path]
) -> None:
    os.chdir(PROJECT)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    run(*arguments)


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    shell = {name: value for name, value in os.environ.items() if not name.startswith(_OF_THE_SHELL)}
    return {**shell, **more}
