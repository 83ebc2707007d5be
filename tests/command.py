"""The `alembic` command as a shell runs it: in the project's folder, with no database but the one named."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[1]
_OF_THE_SHELL = ("DATABASE_URL", "MIGRATION_", "WORKFLOW_MODELS_")


@dataclass(frozen=True)
class Ran:
    """How a command ended, and all that it printed."""

    status: int
    stdout: str
    stderr: str


def start(*command: str, env: Mapping[str, str]) -> "subprocess.Popen[str]":
    """Run Python with these arguments; variables of our own shell that name a database do not count."""
    shell = {name: value for name, value in os.environ.items() if not name.startswith(_OF_THE_SHELL)}
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=PROJECT, env={**shell, **env}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: "subprocess.Popen[str]") -> Ran:
    with process:
        stdout, stderr = process.communicate()
    return Ran(process.returncode, stdout, stderr)


def alembic(*arguments: str, **env: str) -> Ran:
    return ended(start("-m", "alembic", *arguments, env=env))
