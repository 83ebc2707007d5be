"""The table workflow_execution_logs."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    FetchedValue,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from workflow_models.application import organizations
from workflow_models.base import Base, JsonArray, JsonObject, TextEnum

if TYPE_CHECKING:
    from workflow_models.definition import WorkflowDefinition


class ExecutionStatus(StrEnum):
    """How a run goes or went."""

    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"
    PARTIAL = "partial"


class WorkflowExecutionLog(Base):
    """One run of one workflow. Written twice: when it starts and when it ends."""

    __tablename__ = "workflow_execution_logs"
    __table_args__ = (
        # text, not an enum type: a new state is one CHECK, without ALTER TYPE.
        CheckConstraint("status IN ('running', 'success', 'error', 'partial')", name="status"),
        # A log's organization is that of its definition; a move of the definition carries it.
        # MATCH SIMPLE skips NULL, hence the plain key on workflow_id beside it.
        ForeignKeyConstraint(
            ["workflow_id", "organization_id"],
            ["workflow_definitions.id", "workflow_definitions.organization_id"],
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        # Reader: a workflow's runs; ON DELETE CASCADE and moves of a definition.
        Index("idx_workflow_execution_logs_workflow_id", "workflow_id"),
        # Reader: runs in one state, above all those still running.
        Index("idx_workflow_execution_logs_status", "status"),
        # Reader: everyone's latest runs (super admins); deletion of old ones.
        Index("idx_workflow_execution_logs_created_at", text("created_at DESC")),
        # Reader: ON DELETE CASCADE from organizations; counts of an organization.
        Index(
            "idx_workflow_execution_logs_organization_id",
            "organization_id",
            postgresql_where=text("organization_id IS NOT NULL"),
        ),
        # Reader: an organization's latest runs (dashboard).
        Index(
            "idx_workflow_exec_org_time",
            "organization_id",
            text("created_at DESC"),
            postgresql_where=text("organization_id IS NOT NULL"),
        ),
        # Reader: an organization's latest failures, of all workflows or of one.
        Index(
            "idx_failed_workflow_executions",
            "organization_id",
            "workflow_id",
            text("created_at DESC"),
            postgresql_where=text("status = 'error' AND organization_id IS NOT NULL"),
        ),
        {"comment": "Runs of workflows: a row is inserted when one starts, updated when it ends"},
    )

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)  # bigserial, as adopted
    workflow_id: Mapped[UUID] = mapped_column(
        ForeignKey("workflow_definitions.id", ondelete="CASCADE"),
        comment="The workflow that ran; deleting it deletes its logs",
    )
    execution_start: Mapped[datetime] = mapped_column(server_default=text("now()"))
    execution_end: Mapped[datetime | None] = mapped_column(comment="NULL while it runs")
    status: Mapped[ExecutionStatus] = mapped_column(
        TextEnum(ExecutionStatus),
        comment="running, then success, error, or partial when only some steps succeeded",
    )
    trigger_data: Mapped[JsonObject | None] = mapped_column(comment="What its trigger handed over")
    execution_result: Mapped[JsonObject | None] = mapped_column(comment="What it returned")
    error_details: Mapped[str | None] = mapped_column(comment="Why it failed")
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    # No foreign key here: the revisions add one to workflow_triggers only where that exists.
    trigger_id: Mapped[UUID | None] = mapped_column(
        comment="The trigger that started it, a row of workflow_triggers"
    )
    context: Mapped[JsonObject | None] = mapped_column(
        server_default=text("'{}'::jsonb"), comment="Values that its steps share"
    )
    steps_details: Mapped[JsonArray | None] = mapped_column(
        server_default=text("'[]'::jsonb"), comment="One element for each step that ran"
    )
    duration_ms: Mapped[int | None] = mapped_column(comment="From start to end, in milliseconds")
    retry_count: Mapped[int | None] = mapped_column(server_default=text("0"), comment="Tries after the first")
    # Left out of an INSERT and read back, unless set: a trigger fills it.
    organization_id: Mapped[UUID | None] = mapped_column(
        ForeignKey(organizations.c.id, ondelete="CASCADE"),
        FetchedValue(),
        comment="That of its workflow, filled by a trigger where left out; NULL if global",
    )

    workflow: Mapped[WorkflowDefinition] = relationship(
        back_populates="execution_logs", foreign_keys=[workflow_id], lazy="raise"
    )
