"""What requests and responses hold."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, StringConstraints
from workflow_models import ExecutionStatus, TriggerType

# PostgreSQL stores no NUL.
Text = Annotated[str, StringConstraints(min_length=1, max_length=10_000, pattern=r"^[^\x00]+$")]


class Given(BaseModel):
    """A body; what it may not say, as an organization, is refused."""

    model_config = ConfigDict(extra="forbid")


class NewWorkflow(Given):
    name: Text
    natural_language_prompt: Text
    workflow_json: dict[str, Any]
    trigger_type: TriggerType = TriggerType.MANUAL


class WorkflowName(Given):
    name: Text


class NewRun(Given):
    workflow_id: UUID
    trigger_data: dict[str, Any] = {}


class NewComment(Given):
    body: Text


class Shown(BaseModel):
    """A row, as it is shown."""

    model_config = ConfigDict(from_attributes=True)


class Workflow(Shown):
    id: UUID
    name: str
    natural_language_prompt: str
    workflow_json: dict[str, Any]
    trigger_type: TriggerType
    is_active: bool
    last_executed_at: datetime | None


class Execution(Shown):
    id: int
    workflow_id: UUID
    status: ExecutionStatus
    execution_start: datetime
    duration_ms: int | None
    trigger_data: dict[str, Any] | None
    execution_result: dict[str, Any] | None
    error_details: str | None


class ExecutionPage(BaseModel):
    """Some runs, the latest first; `next` is `before` of the page after, None on the last one."""

    executions: list[Execution]
    next: str | None


class Comment(Shown):
    id: int
    author_id: UUID
    body: str
    created_at: datetime
