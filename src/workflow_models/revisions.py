"""Which revisions the package has, and whether a database is at them: what a service asks when it starts.

Needs neither Alembic nor a driver of its own: a service that runs no migrations has only SQLAlchemy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from workflow_models.access import PRIVATE, SERVICE, USER, WORKER
from workflow_models.errors import WorkflowModelsError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_READ = f"SELECT version_num FROM {PRIVATE.name}.alembic_version ORDER BY version_num"
# For a login that inherits nothing, such as PostgREST's: one of our roles that it may become.
_BECOME = f"""
    SELECT set_config('role', rolname, true) FROM pg_catalog.pg_roles
    WHERE rolname IN ('{USER}', '{WORKER}', '{SERVICE}') AND pg_catalog.pg_has_role(oid, 'MEMBER')
    ORDER BY rolname LIMIT 1
"""
_UNDEFINED_TABLE, _INSUFFICIENT_PRIVILEGE = "42P01", "42501"
_UPGRADE = "run `workflow-models upgrade` on it."


class RevisionError(WorkflowModelsError):
    """A database is not at the revision that this package needs.

    :param found: the revisions that the database says it has; empty where it could not be read.
    :param required: the head of the package.
    """

    def __init__(
        self, happened: str, *, next_step: str, found: Sequence[str] = (), required: str = ""
    ) -> None:
        super().__init__(happened, unchanged="everything; the database was only asked.", next_step=next_step)
        self.found = tuple(found)
        self.required = required


class RevisionUnknownError(RevisionError):
    """The database cannot be reached, or this login may not read its revision."""


def script_location() -> Path:
    """Give the folder of ``env.py``: inside the installed package, else that of the checkout."""
    package = Path(__file__).parent
    installed = package / "alembic"
    return installed if installed.is_dir() else package.parents[1] / "alembic"


def known_revisions() -> list[str]:
    """Give the revisions of this package, the first one first.

    By the names of their files, which are numbered: the chain has no branches.
    """
    return sorted(file.stem for file in (script_location() / "versions").glob("wf*.py"))


def require_head(engine: Engine, *, oldest: str | None = None, or_newer: bool = False) -> None:
    """Refuse a database that is not at the last revision of this package.

    Reads only, in one round trip; with a login that has the privilege only through a role that it does not
    inherit, in two more.

    :param engine: any login that may read the version table: that of a service, or the owner's.
    :param oldest: also accepts revisions from this one on: for code that is deployed before the upgrade.
    :param or_newer: also accepts revisions after the package's last: for old code that is started again
        while a new release upgrades the database.
    :raises RevisionError: for any other revision, none, or several.
    :raises RevisionUnknownError: when the database cannot be asked.
    :raises ValueError: when this package has no revision ``oldest``.
    """
    accepted = _accepted(oldest)
    try:
        with engine.connect() as connection:
            found = _read(connection)
    except Exception as error:
        raise _unknown(engine, error) from error
    _judge(engine, found, accepted, or_newer)


async def async_require_head(
    engine: AsyncEngine, *, oldest: str | None = None, or_newer: bool = False
) -> None:
    """Refuse a database that is not at this package's last revision; ``require_head()`` says the rest."""
    accepted = _accepted(oldest)
    try:
        async with engine.connect() as connection:
            found = await connection.run_sync(_read)
    # Of whichever kind: what asyncpg raises while it connects is no error of SQLAlchemy's.
    except Exception as error:
        raise _unknown(engine.sync_engine, error) from error
    _judge(engine.sync_engine, found, accepted, or_newer)


def _accepted(oldest: str | None) -> list[str]:
    known = known_revisions()
    if oldest is None:
        return known[-1:]
    if oldest not in known:
        raise ValueError(f"no revision {oldest!r}; there are {', '.join(known)}")
    return known[known.index(oldest) :]


def _read(connection: Connection) -> Sequence[str]:
    """Give what the version table says; nothing where there is none."""
    # Each statement is its own transaction: no BEGIN, and nothing to end.
    connection.execution_options(isolation_level="AUTOCOMMIT")
    try:
        return connection.scalars(text(_READ)).all()
    except DBAPIError as error:
        if _sqlstate(error) == _UNDEFINED_TABLE:
            return ()
        if _sqlstate(error) != _INSUFFICIENT_PRIVILEGE:
            raise
    connection.rollback()
    connection.execution_options(isolation_level="READ COMMITTED")
    connection.execute(text(_BECOME))
    return connection.scalars(text(_READ)).all()


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)


def _unknown(engine: Engine, error: Exception) -> RevisionUnknownError:
    reason = " ".join(str(getattr(error, "orig", None) or error).split())
    if isinstance(error, DBAPIError) and _sqlstate(error) == _INSUFFICIENT_PRIVILEGE:
        step = f"GRANT {WORKER}, or another role that reads {PRIVATE.name}, to this login."
    else:
        step = "check the URL, and that the server runs and takes this login."
    return RevisionUnknownError(
        f"database {engine.url.database} could not be asked for its revision: {reason}",
        next_step=step,
        required=known_revisions()[-1],
    )


def _judge(engine: Engine, found: Sequence[str], accepted: Sequence[str], or_newer: bool) -> None:
    required, name = accepted[-1], f"database {engine.url.database}"
    if len(found) == 1 and (found[0] in accepted or (or_newer and _number(found[0]) > _number(required))):
        return
    needs = f"this package needs {required}."
    if not found:
        happened, step = f"{name} has no revision of workflow-models; {needs}", _UPGRADE
    elif len(found) > 1:
        happened = f"{name} says that it is at {len(found)} revisions, {', '.join(found)}; {needs}"
        step = f"delete from {PRIVATE.name}.alembic_version what another chain has written."
    elif found[0] in known_revisions():
        happened, step = f"{name} is at {found[0]}; {needs}", _UPGRADE
    elif _number(found[0]) > _number(required):
        happened = f"{name} is at {found[0]}, which is newer than this package; {needs}"
        step = "install the release that it was upgraded with; during a rolling deploy pass or_newer=True."
    else:
        happened = f"{name} is at {found[0]}, which this package does not know; {needs}"
        step = "check the URL, or install the release that has this revision."
    raise RevisionError(happened, next_step=step, found=found, required=required)


def _number(revision: str) -> int:
    """Give 7 for wf0007_add_priority; -1 for what is not numbered so."""
    numbered = re.match(r"wf(\d{4})", revision)
    return int(numbered[1]) if numbered else -1
