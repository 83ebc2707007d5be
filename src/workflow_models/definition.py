"""The table workflow_definitions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import CheckConstraint, FetchedValue, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from workflow_models import access
from workflow_models.application import organizations
from workflow_models.base import Base, JsonObject, TextEnum
from workflow_models.ddl import Grant, Policy, RowSecurity, Trigger

if TYPE_CHECKING:
    from workflow_models.execution_log import WorkflowExecutionLog


class TriggerType(StrEnum):
    """What starts a workflow."""

    MANUAL = "manual"
    SCHEDULE = "schedule"
    EVENT = "event"
    CONDITION = "condition"


class WorkflowDefinition(Base):
    """A workflow of one organization, or, without one, of all: a global workflow."""

    __tablename__ = "workflow_definitions"
    __table_args__ = (
        # text, not an enum type: a new kind is one CHECK, without ALTER TYPE.
        CheckConstraint("trigger_type IN ('manual', 'schedule', 'event', 'condition')", name="trigger_type"),
        # Reader: the logs' composite foreign key, which keeps their organization equal to ours.
        UniqueConstraint("id", "organization_id"),
        # Reader: ON DELETE CASCADE from organizations.
        Index("idx_workflow_definitions_organization_id", "organization_id"),
        # Reader: the scheduler, which asks for what is active, in every organization.
        Index("idx_workflow_definitions_is_active", "is_active"),
        # Reader: the scheduler and the event dispatcher, each for its own kind.
        Index("idx_workflow_definitions_trigger_type", "trigger_type"),
        # Reader: an organization's workflows, the newest first (list page).
        Index(
            "idx_workflows_org_active",
            "organization_id",
            "is_active",
            text("created_at DESC"),
            postgresql_where=text("organization_id IS NOT NULL"),
        ),
        # Reader: an organization's active workflows by name (choosers).
        Index(
            "idx_active_workflows",
            "organization_id",
            "name",
            postgresql_where=text("is_active AND organization_id IS NOT NULL"),
        ),
        # The application's own function, as on its other tables.
        Trigger(
            "update_workflow_definitions_updated_at",
            "BEFORE",
            "UPDATE",
            "public.update_updated_at_column()",
        ),
        # A move takes the logs along; what the foreign key cannot carry is a move from none.
        Trigger(
            "workflow_definitions_carry_organization",
            "AFTER",
            "UPDATE",
            "workflow_private.carry_organization()",
            when="OLD.organization_id IS DISTINCT FROM NEW.organization_id",
        ),
        RowSecurity(),
        # Reader: the list page, and every lookup of a workflow.
        Policy(
            "Users can view organization workflows",
            "SELECT",
            to=access.USER,
            using=access.OWN_OR_SUPER_ADMIN,
        ),
        # Writers: the editor, for admins and super admins in their own organization.
        Policy("Admins can insert workflows", "INSERT", to=access.USER, check=access.ADMINISTERED),
        Policy(
            "Admins can update workflows",
            "UPDATE",
            to=access.USER,
            using=access.ADMINISTERED,
            check=access.ADMINISTERED,
        ),
        Policy("Admins can delete workflows", "DELETE", to=access.USER, using=access.ADMINISTERED),
        # Workers load what they run, and note when.
        Policy("Workers can view workflows", "SELECT", to=access.WORKER, using=access.WORKERS_OWN),
        Policy(
            "Workers can update workflows",
            "UPDATE",
            to=access.WORKER,
            using=access.WORKERS_OWN,
            check=access.WORKERS_OWN,
        ),
        Grant(("SELECT", "INSERT", "UPDATE", "DELETE"), to=access.USER),
        Grant("SELECT", to=access.WORKER),
        Grant("UPDATE", columns=("last_executed_at",), to=access.WORKER),
        Grant(("SELECT", "INSERT", "UPDATE", "DELETE"), to=access.SERVICE, if_exists=True),
        {"comment": "Workflows: what starts them and which steps they run"},
    )
    # updated_at comes back with the UPDATE: a later refresh would fail in an async session.
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
    organization_id: Mapped[UUID | None] = mapped_column(
        ForeignKey(organizations.c.id, ondelete="CASCADE"),
        comment="Owner; NULL is a global workflow, which only super admins see",
    )
    name: Mapped[str]
    description: Mapped[str | None]
    natural_language_prompt: Mapped[str] = mapped_column(
        comment="The request in the words of its author, from which workflow_json was made"
    )
    workflow_json: Mapped[JsonObject] = mapped_column(comment="The steps that a run executes")
    is_active: Mapped[bool] = mapped_column(
        server_default=text("false"), comment="Whether its trigger starts it"
    )
    trigger_type: Mapped[TriggerType] = mapped_column(
        TextEnum(TriggerType), comment="What starts it: manual, schedule, event or condition"
    )
    trigger_config: Mapped[JsonObject | None] = mapped_column(
        server_default=text("'{}'::jsonb"),
        comment="Settings of the trigger; their shape follows trigger_type",
    )
    # No foreign key here: the revisions add one to auth.users only where that table exists.
    created_by: Mapped[UUID | None] = mapped_column(comment="Author, a row of auth.users")
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    updated_at: Mapped[datetime] = mapped_column(
        server_default=text("now()"),
        server_onupdate=FetchedValue(),
        comment="Set by a trigger on each update",
    )
    last_executed_at: Mapped[datetime | None] = mapped_column(
        comment="When its latest run was recorded; NULL before the first"
    )

    # Its logs may be many: load them by name, never by touching the attribute. The database
    # deletes them with their definition; `delete` does so for those that the session holds.
    execution_logs: Mapped[list[WorkflowExecutionLog]] = relationship(
        back_populates="workflow",
        foreign_keys="WorkflowExecutionLog.workflow_id",
        cascade="save-update, merge, delete",
        passive_deletes=True,
        lazy="raise",
    )
