"""Workflows, what is said of them, and starting them."""

from collections.abc import Sequence
from uuid import UUID

from fastapi import APIRouter, HTTPException, Request, status
from sqlalchemy import select, update
from workflow_models import WorkflowDefinition

from workflow_service.dependencies import Session, User
from workflow_service.models import WorkflowComment
from workflow_service.schemas import Comment, NewComment, NewRun, NewWorkflow, Workflow, WorkflowName
from workflow_service.worker import Job

router = APIRouter(tags=["workflows"])


async def visible(session: Session, workflow_id: UUID) -> WorkflowDefinition:
    """The workflow, if the tenant sees it: another's is answered as one that does not exist."""
    workflow = await session.get(WorkflowDefinition, workflow_id)
    if workflow is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "No such workflow")
    return workflow


@router.get("/workflows", response_model=list[Workflow])
async def list_workflows(session: Session) -> Sequence[WorkflowDefinition]:
    newest = select(WorkflowDefinition).order_by(WorkflowDefinition.created_at.desc()).limit(100)
    return (await session.scalars(newest)).all()


@router.post("/workflows", response_model=Workflow, status_code=status.HTTP_201_CREATED)
async def create_workflow(session: Session, user: User, new: NewWorkflow) -> WorkflowDefinition:
    workflow = WorkflowDefinition(
        organization_id=session.own_organization, created_by=user, **new.model_dump()
    )
    session.add(workflow)
    await session.flush()
    return workflow


@router.get("/workflows/{workflow_id}", response_model=Workflow)
async def get_workflow(session: Session, workflow_id: UUID) -> WorkflowDefinition:
    return await visible(session, workflow_id)


@router.patch("/workflows/{workflow_id}", response_model=Workflow)
async def rename_workflow(session: Session, workflow_id: UUID, new: WorkflowName) -> WorkflowDefinition:
    await visible(session, workflow_id)
    renamed: WorkflowDefinition | None = await session.scalar(
        update(WorkflowDefinition)
        .where(WorkflowDefinition.id == workflow_id)
        .values(name=new.name)
        .returning(WorkflowDefinition)
    )
    # Of what a user may see and not change an UPDATE finds no row.
    if renamed is None:
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Only an admin may change workflows")
    return renamed


@router.get("/workflows/{workflow_id}/comments", response_model=list[Comment])
async def list_comments(session: Session, workflow_id: UUID) -> Sequence[WorkflowComment]:
    await visible(session, workflow_id)
    comments = (
        select(WorkflowComment)
        .where(WorkflowComment.workflow_id == workflow_id)
        .order_by(WorkflowComment.created_at)
        .limit(100)
    )
    return (await session.scalars(comments)).all()


@router.post("/workflows/{workflow_id}/comments", response_model=Comment, status_code=status.HTTP_201_CREATED)
async def add_comment(session: Session, user: User, workflow_id: UUID, new: NewComment) -> WorkflowComment:
    workflow = await visible(session, workflow_id)
    comment = WorkflowComment(workflow_id=workflow.id, author_id=user, body=new.body)
    session.add(comment)
    await session.flush()
    return comment


@router.post("/runs", status_code=status.HTTP_202_ACCEPTED)
async def start_run(request: Request, session: Session, new: NewRun) -> None:
    """Queue a run. It appears among the executions when the worker begins it."""
    workflow = await visible(session, new.workflow_id)
    # The organization of a row that this user has seen, and not one that the request could name.
    request.state.jobs.put_nowait(Job(workflow.organization_id, workflow.id, new.trigger_data))
