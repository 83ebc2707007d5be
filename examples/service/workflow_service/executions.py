"""The runs of workflows."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, status
from fastapi.responses import StreamingResponse
from workflow_models import ExecutionStatus, WorkflowExecutionLog
from workflow_models.executions import (
    Cursor,
    Page,
    async_executions,
    async_failed_executions,
    async_summary,
)
from workflow_models.tenancy import AsyncTenantSessionmaker

from workflow_service.dependencies import Session, User
from workflow_service.schemas import Execution, ExecutionPage
from workflow_service.workflows import visible

router = APIRouter(prefix="/executions", tags=["executions"])


def cursor(before: str | None = None) -> Cursor | None:
    """`next` of the page before."""
    try:
        return Cursor.parse(before) if before else None
    except ValueError as error:
        raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, str(error)) from error


Before = Annotated[Cursor | None, Depends(cursor)]
Limit = Annotated[int, Query(ge=1, le=100)]


@router.get("")
async def list_executions(
    session: Session,
    before: Before,
    workflow_id: UUID | None = None,
    status: ExecutionStatus | None = None,
    limit: Limit = 20,
) -> ExecutionPage:
    page = await async_executions(session, workflow_id=workflow_id, status=status, before=before, limit=limit)
    return _shown(page)


@router.get("/failed")
async def list_failed(
    session: Session, before: Before, workflow_id: UUID | None = None, limit: Limit = 20
) -> ExecutionPage:
    return _shown(await async_failed_executions(session, workflow_id=workflow_id, before=before, limit=limit))


@router.get("/summary")
async def count_executions(
    session: Session, days: Annotated[int, Query(ge=1, le=366)] = 7
) -> dict[ExecutionStatus, int]:
    return await async_summary(session, since=datetime.now(UTC) - timedelta(days=days))


@router.get("/export")
async def export_executions(
    request: Request, session: Session, user: User, workflow_id: UUID
) -> StreamingResponse:
    """All runs of a workflow, each a line of JSON."""
    await visible(session, workflow_id)
    return StreamingResponse(
        _lines(request.state.sessions, user, workflow_id), media_type="application/x-ndjson"
    )


@router.get("/{execution_id}", response_model=Execution)
async def get_execution(
    session: Session, execution_id: Annotated[int, Path(ge=1, lt=2**63)]
) -> WorkflowExecutionLog:
    log = await session.get(WorkflowExecutionLog, execution_id)
    if log is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "No such execution")
    return log


def _shown(page: Page) -> ExecutionPage:
    return ExecutionPage(
        executions=[Execution.model_validate(log) for log in page.executions],
        next=str(page.next) if page.next else None,
    )


async def _lines(sessions: AsyncTenantSessionmaker, user: UUID, workflow_id: UUID) -> AsyncIterator[str]:
    # That of the request is over when the response begins. A transaction for each page, so that a client
    # that reads slowly holds no connection.
    before: Cursor | None = None
    while True:
        async with sessions.begin(user=user) as session:
            page = await async_executions(session, workflow_id=workflow_id, before=before, limit=500)
        for log in page.executions:
            yield Execution.model_validate(log).model_dump_json() + "\n"
        if page.next is None:
            return
        before = page.next
