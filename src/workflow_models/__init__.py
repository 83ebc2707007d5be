"""The workflow domain's tables as SQLAlchemy models. Importing opens nothing."""

from workflow_models.base import Base, metadata
from workflow_models.definition import TriggerType, WorkflowDefinition
from workflow_models.execution_log import ExecutionStatus, WorkflowExecutionLog

__all__ = [
    "Base",
    "ExecutionStatus",
    "TriggerType",
    "WorkflowDefinition",
    "WorkflowExecutionLog",
    "metadata",
]
