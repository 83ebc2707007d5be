"""Ending runs that nobody will end, and deleting old ones: for the owner of the tables or ``service_role``.

Both work in batches, each a short transaction of its own, and pass over rows that somebody has locked:
writers hardly wait, two at once share the work, and one that was stopped is simply run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Engine,
    Interval,
    Select,
    Text,
    Update,
    any_,
    bindparam,
    delete,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError

from workflow_models.access import SERVICE
from workflow_models.errors import WorkflowModelsError
from workflow_models.execution_log import ExecutionStatus, WorkflowExecutionLog
from workflow_models.online.progress import Progress

_COMMITTED_STAYS = "what earlier batches have committed stays; the last one was rolled back."
_LONGEST_AGE = timedelta(days=36_500)

# Row security that would hide rows is an error instead. A migrator's lock is waited for, but not for long.
_CONFIGURE = text("""
    SELECT set_config('row_security', 'off', true), set_config('lock_timeout', '2s', true),
        set_config('statement_timeout', '0', true), set_config('search_path', 'public, pg_temp', true)
""")
# Holds off whoever would add a foreign key that points here.
_KEEP_KEYS = text("LOCK TABLE public.workflow_execution_logs IN ROW EXCLUSIVE MODE")
_PERMISSION = text("""
    SELECT now() - :age AS cutoff, current_user AS role, current_database() AS database,
        logs IS NOT NULL AS migrated, row_security_active(logs) AS limited,
        ARRAY(
            SELECT privilege FROM unnest(:privileges) AS privilege
            WHERE NOT has_table_privilege(logs, privilege)
        ) AS missing
    FROM CAST(to_regclass('public.workflow_execution_logs') AS oid) AS logs
""").bindparams(bindparam("age", type_=Interval), bindparam("privileges", type_=ARRAY(Text)))
_FOREIGN_KEYS = text("""
    SELECT key.conrelid::regclass::text AS table,
        string_agg(
            format('referencing.%I = workflow_execution_logs.%I', theirs.attname, ours.attname), ' AND '
        ) AS condition,
        has_schema_privilege(relation.relnamespace, 'USAGE')
            AND bool_and(has_column_privilege(key.conrelid, theirs.attnum, 'SELECT'))
            AND NOT row_security_active(key.conrelid) AS visible
    FROM pg_constraint AS key
    JOIN pg_class AS relation ON relation.oid = key.conrelid
    CROSS JOIN LATERAL unnest(key.conkey, key.confkey) AS pair (their_column, our_column)
    JOIN pg_attribute AS theirs ON theirs.attrelid = key.conrelid AND theirs.attnum = pair.their_column
    JOIN pg_attribute AS ours ON ours.attrelid = key.confrelid AND ours.attnum = pair.our_column
    WHERE key.contype = 'f' AND key.confrelid = 'public.workflow_execution_logs'::regclass
        AND key.conparentid = 0
    GROUP BY key.oid, key.conrelid, relation.relnamespace
""")


class MaintenanceError(WorkflowModelsError):
    """Runs could not be ended or deleted; the batches that were committed before stay so."""


@dataclass(frozen=True)
class Swept:
    """What a sweep found.

    :param found: runs that had been ``running`` for too long.
    :param marked: those of them that now say error; the others ended meanwhile, or somebody has locked them.
    """

    applied: bool
    found: int
    marked: int = 0


@dataclass(frozen=True)
class Pruned:
    """What a pruning found among the old runs.

    :param deletable: those that nothing holds.
    :param deleted: those that are gone; 0 unless applied.
    :param referenced: kept, since a row of another table points at them.
    :param running: kept, since they may yet be ended; 0 where it was ``running`` that was asked for.
    :param locked: left, since somebody is writing them.
    """

    applied: bool
    deletable: int = 0
    deleted: int = 0
    referenced: int = 0
    running: int = 0
    locked: int = 0


def sweep(engine: Engine, older_than: timedelta, *, apply: bool = False, batch_rows: int = 1000) -> Swept:
    """Mark runs as error that have been ``running`` for too long: their workers have crashed.

    A worker that is only slow still records its own end afterwards.

    :param engine: as the owner of the tables or as ``service_role``.
    :param older_than: since ``execution_start``; more than any run may take.
    :param apply: without it the runs are only counted.
    :raises MaintenanceError: for a role that may not, or whom row security limits; when it is stopped.
    :raises ValueError: for an age that is not positive, or above 100 years.
    """
    log = WorkflowExecutionLog
    with _connected(engine, older_than, ["SELECT", "UPDATE"]) as (connection, cutoff):
        with connection.begin():
            connection.execute(_CONFIGURE)
            abandoned = (log.status == _constant(ExecutionStatus.RUNNING), log.execution_start < cutoff)
            found = connection.scalars(select(log.id).where(*abandoned)).all()
        if not apply:
            return Swept(applied=False, found=len(found))
        marked = 0
        with Progress("sweeping", len(found)) as progress:
            for first in range(0, len(found), batch_rows):
                batch = found[first : first + batch_rows]
                unlocked = select(log.id).where(_among(batch), *abandoned).with_for_update(skip_locked=True)
                with connection.begin():
                    connection.execute(_CONFIGURE)
                    marked += connection.execute(_end_of(unlocked, older_than)).rowcount
                progress.advance(len(batch))
    return Swept(applied=True, found=len(found), marked=marked)


def _end_of(runs: Select[int], older_than: timedelta) -> Update:
    log = WorkflowExecutionLog
    return (
        update(log)
        .where(log.id.in_(runs))
        .values(
            status=ExecutionStatus.ERROR,
            execution_end=func.now(),
            error_details=f"Still running {older_than} after its start: its worker has not recorded an end. "
            "Marked by `workflow-models sweep`.",
        )
    )


def prune(
    engine: Engine,
    older_than: timedelta,
    *,
    status: ExecutionStatus | None = None,
    organization_id: UUID | None = None,
    apply: bool = False,
    batch_rows: int = 1000,
) -> Pruned:
    """Delete old runs, except for those that other tables point at, and those still ``running``.

    Which tables point at runs is looked up in the catalog for each batch, and what their foreign keys would
    do at a deletion does not matter: none of them comes to do it.

    :param engine: as the owner of the tables or as ``service_role``; it must see all rows that point at runs.
    :param older_than: since ``created_at``.
    :param status: only runs with this one; ``running`` too, where it is named.
    :param organization_id: only runs of this organization.
    :param apply: without it the runs are only counted.
    :raises MaintenanceError: for a role that may not, or whom row security limits; when it is stopped.
    :raises ValueError: for an age that is not positive, or above 100 years.
    """
    log = WorkflowExecutionLog
    with _connected(engine, older_than, ["SELECT", "UPDATE", "DELETE"]) as (connection, cutoff):
        chosen = [log.created_at < cutoff]
        if status is not None:
            chosen.append(log.status == _constant(status))
        if organization_id is not None:
            chosen.append(log.organization_id == organization_id)
        counts = Counter[str]()
        reached: tuple[datetime, int] | None = None
        with Progress("pruning" if apply else "counting", _estimate(connection, chosen)) as progress:
            while True:
                with connection.begin():
                    connection.execute(_CONFIGURE)
                    if apply:
                        connection.execute(_KEEP_KEYS)
                    rows = connection.execute(_next(chosen, reached, batch_rows)).all()
                    if not rows:
                        break
                    ended = [
                        row.id
                        for row in rows
                        if row.status != ExecutionStatus.RUNNING or row.status == status
                    ]
                    counts.update(_prune(connection, ended, chosen, apply=apply))
                counts["running"] += len(rows) - len(ended)
                reached = rows[-1].created_at, rows[-1].id
                progress.advance(len(rows))
    return Pruned(applied=apply, **counts)


def _estimate(connection: Connection, chosen: Sequence[ColumnElement[bool]]) -> int:
    """How many runs the planner expects: counting them would take as long as pruning them."""
    query = select(WorkflowExecutionLog.id).where(*chosen)
    written_out = query.compile(connection, compile_kwargs={"literal_binds": True})
    with connection.begin():
        connection.execute(_CONFIGURE)
        plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {written_out}").scalar_one()
    return int(plan[0]["Plan"]["Plan Rows"])


def _next(
    chosen: Sequence[ColumnElement[bool]], reached: tuple[datetime, int] | None, rows: int
) -> Select[int, datetime, ExecutionStatus]:
    """The oldest runs that have not been looked at."""
    log = WorkflowExecutionLog
    query = select(log.id, log.created_at, log.status).where(*chosen)
    if reached is not None:
        query = query.where(tuple_(log.created_at, log.id) > tuple_(*reached))
    return query.order_by(log.created_at, log.id).limit(rows)


def _prune(
    connection: Connection, runs: Sequence[int], chosen: Sequence[ColumnElement[bool]], *, apply: bool
) -> dict[str, int]:
    """Delete those of these runs that nothing points at, or count them."""
    log = WorkflowExecutionLog
    free = runs
    if apply:
        # Who comes to point at a run locks it. So in a statement after this one no such row is missed.
        unlocked = select(log.id).where(_among(runs), *chosen).with_for_update(skip_locked=True)
        free = connection.scalars(unlocked).all()
    deletable = (_among(free), ~or_(false(), *_references(connection)))
    if apply:
        found = connection.execute(delete(log).where(*deletable)).rowcount
    else:
        found = connection.scalar(select(func.count(log.id)).where(*deletable)) or 0
    return {
        "deletable": found,
        "deleted": found if apply else 0,
        "referenced": len(free) - found,
        "locked": len(runs) - len(free),
    }


def _references(connection: Connection) -> list[ColumnElement[bool]]:
    """For each foreign key that points at runs: whether a row does.

    :raises MaintenanceError: where this role may not see all such rows.
    """
    keys = connection.execute(_FOREIGN_KEYS).all()
    hidden = sorted({key.table for key in keys if not key.visible})
    if hidden:
        raise MaintenanceError(
            f"this role does not see all rows of {', '.join(hidden)}, which may point at old runs.",
            unchanged=_COMMITTED_STAYS,
            next_step=f"run it as {SERVICE} with SELECT on {', '.join(hidden)}, or as their owner.",
        )
    return [
        literal_column(f"EXISTS (SELECT FROM {key.table} AS referencing WHERE {key.condition})", Boolean())
        for key in keys
    ]


def _among(ids: Sequence[int]) -> ColumnElement[bool]:
    return WorkflowExecutionLog.id == any_(literal(ids, ARRAY(BigInteger)))


def _constant(status: ExecutionStatus) -> ColumnElement[ExecutionStatus]:
    return literal(status, WorkflowExecutionLog.status.type, literal_execute=True)


@contextmanager
def _connected(
    engine: Engine, older_than: timedelta, privileges: Sequence[str]
) -> Iterator[tuple[Connection, datetime]]:
    """A connection that may do this, and the time before which runs are old.

    :raises MaintenanceError: for one that may not, and for whatever the database refuses in the block.
    """
    if not timedelta(0) < older_than <= _LONGEST_AGE:
        raise ValueError(f"older_than is {older_than}: it must be positive, and at most 100 years")
    # Each statement has to see what was committed before it.
    isolated = engine.execution_options(isolation_level="READ COMMITTED")
    try:
        with isolated.connect() as connection:
            with connection.begin():
                cutoff = _cutoff(connection, older_than, privileges)
            yield connection, cutoff
    except DBAPIError as error:
        raise MaintenanceError(
            f"the database stopped it: {' '.join(str(error.orig).split())}",
            unchanged=_COMMITTED_STAYS,
            next_step="mend that, then run it again: it goes on with what is left.",
        ) from error


def _cutoff(connection: Connection, older_than: timedelta, privileges: Sequence[str]) -> datetime:
    may = connection.execute(_PERMISSION, {"age": older_than, "privileges": privileges}).one()
    if not may.migrated:
        problem = f"database {may.database} has no table workflow_execution_logs."
        step = "check the URL, or run `workflow-models upgrade` first."
    elif may.missing:
        problem = f"the role {may.role} lacks {', '.join(may.missing)} on workflow_execution_logs."
        step = f"run it as the owner of the table, or as {SERVICE}."
    elif may.limited:
        problem = f"row security shows the role {may.role} only some of the runs, or none."
        step = f"run it as the owner of the table, or as {SERVICE} with BYPASSRLS."
    else:
        cutoff: datetime = may.cutoff
        return cutoff
    raise MaintenanceError(problem, unchanged="everything.", next_step=step)
