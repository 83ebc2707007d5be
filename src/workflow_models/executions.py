"""Recording the runs of a workflow, and reading them.

A run is recorded by a worker (role ``workflow_worker``) or by ``service_role``; who reads is decided by row
security, so the readers are for every session.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar
from uuid import UUID

from sqlalchemy import Integer, Select, cast, func, insert, inspect, literal, select, tuple_, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, SessionTransactionOrigin, aliased

from workflow_models.access import SERVICE, WORKER
from workflow_models.base import JsonArray, JsonObject
from workflow_models.definition import WorkflowDefinition
from workflow_models.errors import WorkflowModelsError
from workflow_models.execution_log import ExecutionStatus, WorkflowExecutionLog

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

P = ParamSpec("P")
T = TypeVar("T")

_LONGEST_ERROR = 10_000  # characters
_LONGEST_DURATION_MS = 2**31 - 1  # what the column holds: 24 days
_MOST_ROWS = 1_000
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


class NotRecordedError(WorkflowModelsError):
    """A run was not begun: nothing of it was written."""

    def __init__(self, happened: str, *, next_step: str) -> None:
        super().__init__(
            happened,
            unchanged="nothing was written; the session's transaction is as it was.",
            next_step=next_step,
        )


class ExecutionRefusedError(NotRecordedError):
    """This session, as it is, cannot record a run."""


class WorkflowNotFoundError(NotRecordedError):
    """The workflow, or the run to try again, is not there for this session."""


class ExecutionGoneError(WorkflowModelsError):
    """The run's workflow was deleted or moved to another organization before the run ended."""


@dataclass
class Execution:
    """A run that is being recorded. What is set here is stored when the run ends, however it ends."""

    log_id: int
    workflow_id: UUID
    organization_id: UUID | None
    # Tries after the first; to be counted up by whoever tries again inside the block.
    retry_count: int
    context: JsonObject
    result: JsonObject | None = None
    steps_details: JsonArray = field(default_factory=list)
    _incomplete: str | None = None

    def partial(self, why: str) -> None:
        """Let the run end as ``partial``: only some of its steps succeeded.

        :param why: stored as ``error_details``.
        """
        self._incomplete = why


@contextmanager
def record_execution(
    session: Session,
    definition: WorkflowDefinition | UUID | str,
    *,
    trigger_data: JsonObject | None = None,
    trigger_id: UUID | None = None,
    context: JsonObject | None = None,
    retry_of: int | None = None,
) -> Iterator[Execution]:
    """Record a run: ``running`` while the block runs, then success, partial or error.

    The session commits at the start, together with what was pending, so that a crash leaves a ``running``
    row. It is free to use in the block. At the end the log, the workflow's ``last_executed_at`` and what the
    block has not committed itself are committed in one transaction. An exception rolls the block's open
    transaction back, is recorded as error, and passes through unchanged; if it cannot be recorded, it
    carries a note that says so, and the row stays ``running`` for ``workflow-models sweep``.

    :param session: of a worker or of ``service_role``, not inside ``with session.begin()``.
    :param definition: the workflow, or its id, also as text.
    :param trigger_data: what the trigger handed over.
    :param trigger_id: the trigger, a row of ``workflow_triggers``.
    :param context: values that the steps share; stored again at the end.
    :param retry_of: the ``log_id`` of an earlier run of this workflow, of which this is the next try.
    :raises ExecutionRefusedError: in a session of a user or of any other role, or one inside ``begin()``.
    :raises WorkflowNotFoundError: when this session sees no such workflow, or no such run of it.
    :raises ExecutionGoneError: at the end of a block that succeeded, when the workflow was deleted or moved
        out of sight meanwhile: what the block has not committed is rolled back.
    """
    given = _given(trigger_data, trigger_id, context)
    execution = _start(session, definition, given, retry_of)
    try:
        yield execution
    except BaseException as error:
        _record_error(session, execution, error)
        raise
    _finish(session, execution)


@asynccontextmanager
async def async_record_execution(
    session: AsyncSession,
    definition: WorkflowDefinition | UUID | str,
    *,
    trigger_data: JsonObject | None = None,
    trigger_id: UUID | None = None,
    context: JsonObject | None = None,
    retry_of: int | None = None,
) -> AsyncIterator[Execution]:
    """Record a run in an ``AsyncSession``; ``record_execution()`` says the rest.

    A cancelled run is recorded as error. If it is cancelled again while that is written, it stays
    ``running``.
    """
    given = _given(trigger_data, trigger_id, context)
    execution = await session.run_sync(_start, definition, given, retry_of)
    try:
        yield execution
    except BaseException as error:
        await session.run_sync(_record_error, execution, error)
        raise
    await session.run_sync(_finish, execution)


def _given(
    trigger_data: JsonObject | None, trigger_id: UUID | None, context: JsonObject | None
) -> dict[str, Any]:
    return {"trigger_data": trigger_data, "trigger_id": trigger_id, "context": context or {}}


def _start(
    session: Session,
    definition: WorkflowDefinition | UUID | str,
    given: Mapping[str, Any],
    retry_of: int | None,
) -> Execution:
    """Insert the running log, and commit it."""
    workflow_id = _id_of(definition)
    _refuse_foreign_transaction(session)
    # What is pending is not written before it is known that this session may record a run.
    with session.no_autoflush:
        role = session.scalar(select(func.current_user()))
        if role not in (WORKER, SERVICE):
            raise ExecutionRefusedError(
                f"a session with the role {role} cannot record runs; only {WORKER} and {SERVICE} can.",
                next_step="use a session of an organization, "
                "`with TenantSessionmaker(engine)(organization=…)`, or of service_role.",
            )
        started = session.execute(_insert(workflow_id, given, retry_of)).one_or_none()
    if started is None:
        run = "" if retry_of is None else f" that has a run {retry_of}"
        raise WorkflowNotFoundError(
            f"this session sees no workflow {workflow_id}{run}.",
            next_step="if it was deleted, drop the job; else use a session of the workflow's organization.",
        )
    session.commit()
    return Execution(
        started.id, workflow_id, started.organization_id, started.retry_count, dict(given["context"])
    )


def _id_of(definition: WorkflowDefinition | UUID | str) -> UUID:
    if isinstance(definition, UUID):
        return definition
    if isinstance(definition, str):
        try:
            return UUID(definition)
        except ValueError:
            raise WorkflowNotFoundError(
                f"the id of a workflow is no UUID: {definition!r}.", next_step="pass a UUID, or its text."
            ) from None
    # Not `definition.id`: that of an expired object would be loaded, which an async session cannot.
    identity = inspect(definition).identity
    if identity is None:
        raise ExecutionRefusedError(
            "the workflow is not in the database yet.",
            next_step="commit the session that holds it, then record its run.",
        )
    found: UUID = identity[0]
    return found


def _refuse_foreign_transaction(session: Session) -> None:
    transaction = session.get_transaction()
    if session.in_nested_transaction() or (
        transaction is not None and transaction.origin is not SessionTransactionOrigin.AUTOBEGIN
    ):
        raise ExecutionRefusedError(
            "a run cannot be recorded inside `session.begin()` or a savepoint, since recording commits.",
            next_step="open the session without begin(); recording commits what is pending.",
        )


def _insert(workflow_id: UUID, given: Mapping[str, Any], retry_of: int | None) -> Any:
    """One statement: a workflow that moves or goes meanwhile is either seen as it is now or not at all."""
    log = WorkflowExecutionLog
    earlier = aliased(WorkflowExecutionLog)
    retry_count = literal(0) if retry_of is None else func.coalesce(earlier.retry_count, 0) + 1
    columns = {
        "workflow_id": WorkflowDefinition.id,
        "organization_id": WorkflowDefinition.organization_id,
        "status": literal(ExecutionStatus.RUNNING, log.status.type),
        # Not now(), which is when the session began to read.
        "execution_start": func.statement_timestamp(),
        "created_at": func.statement_timestamp(),
        "retry_count": retry_count,
        **{name: literal(value, getattr(log, name).type) for name, value in given.items()},
    }
    chosen = select(*columns.values()).where(WorkflowDefinition.id == workflow_id)
    if retry_of is not None:
        chosen = chosen.join(earlier, earlier.workflow_id == WorkflowDefinition.id).where(
            earlier.id == retry_of
        )
    return (
        insert(log)
        .from_select(list(columns), chosen.with_for_update(read=True, key_share=True, of=WorkflowDefinition))
        .returning(log.id, log.organization_id, log.retry_count)
    )


def _finish(session: Session, execution: Execution) -> None:
    """Record that the block succeeded, wholly or partly."""
    status = ExecutionStatus.SUCCESS if execution._incomplete is None else ExecutionStatus.PARTIAL
    try:
        _write_end(session, execution, status, execution._incomplete, _outcome(execution))
    except ExecutionGoneError:
        session.rollback()
        raise
    except BaseException as error:
        # The commit may have arrived although its answer did not: what is no longer running stays.
        _record_error(session, execution, error, unless_ended=True)
        raise


def _record_error(
    session: Session, execution: Execution, error: BaseException, *, unless_ended: bool = False
) -> None:
    """Record that the run failed; where that fails too, add a note to the error."""
    # Once more without the outcome, since that may be what cannot be stored.
    for outcome in (_outcome(execution), {}):
        try:
            session.rollback()
            _write_end(
                session, execution, ExecutionStatus.ERROR, _text_of(error), outcome, unless_ended=unless_ended
            )
        except Exception as failure:
            reason = failure.happened if isinstance(failure, WorkflowModelsError) else _text_of(failure)
        else:
            return
    with suppress(SQLAlchemyError):
        session.rollback()
    error.add_note(f"Run {execution.log_id} could not be recorded as failed: {reason}")


def _write_end(
    session: Session,
    execution: Execution,
    status: ExecutionStatus,
    error_details: str | None,
    outcome: Mapping[str, Any],
    *,
    unless_ended: bool = False,
) -> None:
    """Write the end of a run, and commit.

    The workflow comes first: a move of it locks it, then its logs, and the other order would deadlock.

    :param unless_ended: leave a log alone that no longer says ``running``.
    """
    workflow, log = WorkflowDefinition, WorkflowExecutionLog
    update_workflow = (
        update(workflow)
        .where(workflow.id == execution.workflow_id)
        .values(last_executed_at=func.greatest(workflow.last_executed_at, func.statement_timestamp()))
        .returning(func.statement_timestamp())
    )
    # What is pending may be about logs, and comes after the workflow.
    with session.no_autoflush:
        unchecked = {"synchronize_session": False}
        ended_at = session.scalar(update_workflow, execution_options=unchecked)
        elapsed_ms = func.extract("epoch", literal(ended_at) - log.execution_start) * 1000
        update_log = (
            update(log)
            .where(log.id == execution.log_id)
            .values(
                status=status,
                execution_end=ended_at,
                duration_ms=cast(func.greatest(0, func.least(elapsed_ms, _LONGEST_DURATION_MS)), Integer),
                error_details=error_details,
                retry_count=execution.retry_count,
                **outcome,
            )
            .returning(log.id)
        )
        if unless_ended:
            update_log = update_log.where(log.status == ExecutionStatus.RUNNING)
        written = ended_at and session.scalar(update_log, execution_options=unchecked)
    if not (written or (ended_at and unless_ended)):
        raise ExecutionGoneError(
            f"run {execution.log_id} ended, but its workflow {execution.workflow_id} was deleted, "
            "or moved out of this session's sight.",
            unchanged="the log went with the workflow; what the block had not committed is rolled back.",
            next_step="nothing, if the workflow was deleted; else `workflow-models sweep` ends the log.",
        )
    session.commit()


def _outcome(execution: Execution) -> dict[str, Any]:
    return {
        "execution_result": execution.result,
        "context": execution.context,
        "steps_details": execution.steps_details,
    }


def _text_of(error: BaseException) -> str:
    """What happened, as Python prints it after a traceback; without what PostgreSQL cannot store."""
    text = "".join(traceback.format_exception_only(error)).strip().replace("\x00", "\\x00")
    return text.encode("utf-8", "backslashreplace").decode()[:_LONGEST_ERROR]


class Cursor(NamedTuple):
    """The last run of a page; as text it fits into a URL."""

    created_at: datetime
    id: int

    def __str__(self) -> str:
        return f"{(self.created_at - _EPOCH) // _MICROSECOND}-{self.id}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what ``str()`` gave.

        :raises ValueError: for anything else.
        """
        found = re.fullmatch(r"(\d{1,17})-(\d{1,18})", text, re.ASCII)
        if found is None:
            raise ValueError(f"not a cursor: {text[:40]!r}")
        return cls(_EPOCH + int(found[1]) * _MICROSECOND, int(found[2]))


@dataclass(frozen=True)
class Page:
    """Some runs, the latest first."""

    executions: Sequence[WorkflowExecutionLog]
    # For ``before`` of the next page; None on the last one.
    next: Cursor | None


def select_executions(
    *,
    workflow_id: UUID | None = None,
    status: ExecutionStatus | None = None,
    organization_id: UUID | None = None,
    before: Cursor | None = None,
) -> Select[WorkflowExecutionLog]:
    """Give the query of ``executions()``, without a limit."""
    log = WorkflowExecutionLog
    query = select(log).order_by(log.created_at.desc(), log.id.desc())
    if organization_id is not None:
        query = query.where(log.organization_id == organization_id)
    if workflow_id is not None:
        query = query.where(log.workflow_id == workflow_id)
    if status is not None:
        # As a constant: for a parameter of a prepared statement a partial index would not do.
        query = query.where(log.status == literal(status, log.status.type, literal_execute=True))
    if before is not None:
        query = query.where(tuple_(log.created_at, log.id) < tuple_(before.created_at, before.id))
    return query


def executions(
    session: Session,
    *,
    workflow_id: UUID | None = None,
    status: ExecutionStatus | None = None,
    organization_id: UUID | None = None,
    before: Cursor | None = None,
    limit: int = 20,
) -> Page:
    """Give runs that this session sees, the latest first.

    Pages neither repeat nor miss a run that was there when the first one was read.

    :param organization_id: for a session that sees more than one organization, such as one of
        ``service_role``: without it the indexes by organization do not serve.
    :param before: ``next`` of the page before.
    :param limit: runs on a page, 1 to 1000.
    :raises ValueError: for another limit.
    """
    if not 1 <= limit <= _MOST_ROWS:
        raise ValueError(f"limit is {limit}: it may be 1 to {_MOST_ROWS}")
    query = select_executions(
        workflow_id=workflow_id, status=status, organization_id=organization_id, before=before
    )
    found = session.scalars(query.limit(limit + 1)).all()
    page = found[:limit]
    return Page(page, Cursor(page[-1].created_at, page[-1].id) if len(found) > limit else None)


def failed_executions(
    session: Session,
    *,
    workflow_id: UUID | None = None,
    organization_id: UUID | None = None,
    before: Cursor | None = None,
    limit: int = 20,
) -> Page:
    """Give the runs that ended with an error; ``executions()`` says the rest."""
    return executions(
        session,
        workflow_id=workflow_id,
        status=ExecutionStatus.ERROR,
        organization_id=organization_id,
        before=before,
        limit=limit,
    )


def select_summary(
    since: datetime, until: datetime | None = None, *, organization_id: UUID | None = None
) -> Select[ExecutionStatus, int]:
    """Give the query of ``summary()``."""
    log = WorkflowExecutionLog
    query = select(log.status, func.count()).where(log.created_at >= since).group_by(log.status)
    if until is not None:
        query = query.where(log.created_at < until)
    if organization_id is not None:
        query = query.where(log.organization_id == organization_id)
    return query


def summary(
    session: Session, since: datetime, until: datetime | None = None, *, organization_id: UUID | None = None
) -> dict[ExecutionStatus, int]:
    """Count the runs of an organization by status.

    :param since: the first ``created_at`` that counts.
    :param until: the first that no longer does; None for all up to now.
    :param organization_id: as of ``executions()``; in a session that sees several, without it all count.
    :returns: each status, also where it has none.
    """
    counts = session.execute(select_summary(since, until, organization_id=organization_id))
    return {**dict.fromkeys(ExecutionStatus, 0), **dict(counts.all())}


def _async(
    read: Callable[Concatenate[Session, P], T],
) -> Callable[Concatenate[AsyncSession, P], Awaitable[T]]:
    async def reader(session: AsyncSession, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await session.run_sync(read, *args, **kwargs)

    reader.__name__ = reader.__qualname__ = f"async_{read.__name__}"
    reader.__doc__ = f"``{read.__name__}()`` for an ``AsyncSession``."
    return reader


async_executions = _async(executions)
async_failed_executions = _async(failed_executions)
async_summary = _async(summary)
