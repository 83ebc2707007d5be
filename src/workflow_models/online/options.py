"""How patient a run is: from ``-x name=value``, else the environment, else the default."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import UsageError

_ENVIRONMENT_PREFIX = "MIGRATION_"


@dataclass(frozen=True)
class Options:
    """Settings of one run.

    ``lock_timeout_ms`` stays below PostgreSQL's ``deadlock_timeout`` (1 s by default): above it, a
    client and not the migrator would be ended to resolve a deadlock.
    """

    lock_timeout_ms: int = 400
    lock_tries: int = 30
    migrator_wait_s: int = 600
    allow_data_loss: bool = False


_NAMES = {field.replace("_", "-"): field for field in Options.__dataclass_fields__}


def read_options(x: Mapping[str, str], other_names: frozenset[str] = frozenset({"url"})) -> Options:
    """Read the options of a run.

    :param x: the ``-x`` arguments as a mapping.
    :param other_names: further ``-x`` names, which somebody else reads.
    :raises UsageError: on a name that nobody reads, or a value of another kind.
    """
    for name in x:
        if name not in _NAMES and name not in other_names:
            known = ", ".join(sorted({*_NAMES, *other_names}))
            raise _unusable(f"-x {name} is not an option.", f"use one of {known}.")
    given: dict[str, Any] = {}
    for name, field in _NAMES.items():
        variable = _ENVIRONMENT_PREFIX + field.upper()
        source, text = (f"-x {name}", x[name]) if name in x else (variable, os.environ.get(variable))
        if text is not None:
            given[field] = _boolean(source, text) if field == "allow_data_loss" else _number(source, text)
    return Options(**given)


def _number(source: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise _unusable(f"{source}={text} is not a whole number above 0.", "give it one, without a unit.")
    return int(text)


def _boolean(source: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise _unusable(f"{source}={text} is neither true nor false.", "give it one of the two.")
    return text.lower() == "true"


def _unusable(happened: str, next_step: str) -> UsageError:
    return UsageError(
        "an option cannot be used.",
        happened=happened,
        unchanged="the database was not connected to.",
        next_step=next_step,
    )
