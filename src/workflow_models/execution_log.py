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

from workflow_models import access
from workflow_models.application import organizations
from workflow_models.base import Base, JsonArray, JsonObject, TextEnum
from workflow_models.ddl import (
    ColumnOptions,
    Grant,
    Policy,
    RowSecurity,
    Statistics,
    StorageParameters,
    Trigger,
)

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
        # docs/performance.md says what dropping each of these costs. Logs come in order of time, so that they
        # fill the pages of an ascending index, and leave those of a descending one half empty; those of the
        # application are descending.
        #
        # Reader: a workflow's latest runs; ON DELETE CASCADE and moves of a definition.
        Index("idx_workflow_execution_logs_workflow_id", "workflow_id", "created_at"),
        # Reader: runs in one state, above all those still running (sweep).
        Index("idx_workflow_execution_logs_status", "status"),
        # Reader: everyone's latest runs (super admins), and, in a role of their own, which need not look at
        # the organization, everyone's counts per status; deletion of old ones.
        Index("idx_workflow_execution_logs_created_at", "created_at", postgresql_include=["status"]),
        # Reader: ON DELETE from workflow_triggers.
        Index(
            "idx_workflow_execution_logs_trigger_id",
            "trigger_id",
            postgresql_where=text("trigger_id IS NOT NULL"),
        ),
        # Reader: ON DELETE CASCADE from organizations; counts of an organization, and, since those without
        # one are in it, of everyone's.
        Index("idx_workflow_execution_logs_organization_id", "organization_id"),
        # Reader: an organization's latest runs (dashboard); with the status, its counts per status.
        Index(
            "idx_workflow_exec_org_time",
            "organization_id",
            text("created_at DESC"),
            postgresql_include=["status"],
            postgresql_where=text("organization_id IS NOT NULL"),
        ),
        # Reader: a workflow's latest failures, for sessions of one organization. A failed run says 'error'.
        Index(
            "idx_failed_workflow_executions",
            "organization_id",
            "workflow_id",
            text("created_at DESC"),
            postgresql_where=text("status = 'error' AND organization_id IS NOT NULL"),
        ),
        # Reader: a workflow's latest failures, for who names no organization (super admins, service_role).
        Index(
            "idx_failed_executions_by_workflow",
            "workflow_id",
            "created_at",
            postgresql_where=text("status = 'error'"),
        ),
        # Reader: an organization's latest failures, of all workflows.
        Index(
            "idx_failed_organization_executions",
            "organization_id",
            "created_at",
            postgresql_where=text("status = 'error' AND organization_id IS NOT NULL"),
        ),
        # A workflow has one organization: without this the planner multiplies the two selectivities.
        Statistics(
            "workflow_execution_logs_workflow_id_organization_id_stat",
            "workflow_id",
            "organization_id",
            kinds=("ndistinct", "dependencies"),
        ),
        # Who asks is not known when a statement is planned, so the average stands for all. Taken for fewer
        # and larger than they are, large ones are read in the order of an index, not sorted as a whole; taken
        # for half as many still, small ones would be looked for among everyone's latest.
        ColumnOptions("organization_id", n_distinct=100),
        ColumnOptions("workflow_id", n_distinct=250),
        # Rows are added for ever, so a fraction of them is many; index-only scans need the visibility map
        # that VACUUM writes.
        StorageParameters(
            autovacuum_vacuum_scale_factor=0.05,
            autovacuum_vacuum_insert_scale_factor=0.05,
            autovacuum_analyze_scale_factor=0.05,
        ),
        # Writers that do not send the organization.
        Trigger(
            "workflow_execution_logs_fill_organization_on_insert",
            "BEFORE",
            "INSERT",
            "workflow_private.fill_organization()",
            when="NEW.organization_id IS NULL",
        ),
        # From NULL to a value is what a backfill does: it must not fire for each of its rows.
        Trigger(
            "workflow_execution_logs_fill_organization_on_update",
            "BEFORE",
            "UPDATE",
            "workflow_private.fill_organization()",
            when="NEW.workflow_id <> OLD.workflow_id OR (OLD.organization_id IS NOT NULL "
            "AND NEW.organization_id IS DISTINCT FROM OLD.organization_id)",
        ),
        RowSecurity(),
        # Reader: every list of runs; a super admin sees those of global workflows too.
        Policy("Users can view workflow logs", "SELECT", to=access.USER, using=access.OWN_OR_SUPER_ADMIN),
        # Writer: a run that a user starts.
        Policy("System can insert workflow logs", "INSERT", to=access.USER, check=access.OWN_OR_SUPER_ADMIN),
        # Workers record a run when it starts and when it ends.
        Policy("Workers can view workflow logs", "SELECT", to=access.WORKER, using=access.WORKERS_OWN),
        Policy("Workers can insert workflow logs", "INSERT", to=access.WORKER, check=access.WORKERS_OWN),
        Policy(
            "Workers can update workflow logs",
            "UPDATE",
            to=access.WORKER,
            using=access.WORKERS_OWN,
            check=access.WORKERS_OWN,
        ),
        Grant(("SELECT", "INSERT"), to=access.USER),
        Grant(("SELECT", "INSERT"), to=access.WORKER),
        Grant(
            "UPDATE",
            columns=(
                "execution_end",
                "status",
                "execution_result",
                "error_details",
                "context",
                "steps_details",
                "duration_ms",
                "retry_count",
            ),
            to=access.WORKER,
        ),
        Grant(("SELECT", "INSERT", "UPDATE", "DELETE"), to=access.SERVICE, if_exists=True),
        Grant("USAGE", sequence_of="id", to=(access.USER, access.WORKER)),
        Grant("USAGE", sequence_of="id", to=access.SERVICE, if_exists=True),
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
