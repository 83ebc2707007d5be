"""The `alembic` command as a shell runs it: in the project's folder, with no database but the one named."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alembic import config as alembic_config

PROJECT = Path(__file__).parents[1]
_OF_THE_SHELL = ("DATABASE_URL", "MIGRATION_", "WORKFLOW_MODELS_")

# Most of a short command's time goes into its imports: it is forked from a process that has them.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["workflow_models.migrations", "workflow_models.ddl.plugin", __name__])


@dataclass(frozen=True)
class Ran:
    """How a command ended, and all that it printed."""

    status: int
    stdout: str
    stderr: str


def start(*command: str, env: Mapping[str, str]) -> "subprocess.Popen[str]":
    """Run Python with these arguments; variables of our own shell that name a database do not count."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=PROJECT, env=_environment(env), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
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
        process = _FORKS.Process(target=_run, args=(run, arguments, _environment(env or {}), streams))
        process.start()
        process.join()
        status = process.exitcode
        assert status is not None
        return Ran(status, *(stream.read_text() if stream.exists() else "" for stream in streams))


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
