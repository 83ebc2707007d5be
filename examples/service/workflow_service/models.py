"""The service's own table, beside those of workflow-models."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, ForeignKey, Identity, Index, Text, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from workflow_models import WorkflowDefinition
from workflow_models.access import USER
from workflow_models.ddl import Grant, Policy, RowSecurity

# Who sees a workflow sees its comments, since row-level security holds in a policy's subquery too.
OF_A_VISIBLE_WORKFLOW = "EXISTS (SELECT FROM public.workflow_definitions AS w WHERE w.id = workflow_id)"


class Base(DeclarativeBase):
    """A MetaData of its own: nothing of workflow-models is in it."""


class WorkflowComment(Base):
    """What a user has to say about a workflow."""

    __tablename__ = "workflow_comments"
    __table_args__ = (
        # Reader: the comments of one workflow; its deletion.
        Index("idx_workflow_comments_workflow_id", "workflow_id", "created_at"),
        RowSecurity(),
        Policy("Users can view comments", "SELECT", to=USER, using=OF_A_VISIBLE_WORKFLOW),
        Policy("Users can add comments", "INSERT", to=USER, check=OF_A_VISIBLE_WORKFLOW),
        Grant(("SELECT", "INSERT"), to=USER),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    workflow_id: Mapped[UUID] = mapped_column(ForeignKey(WorkflowDefinition.id, ondelete="CASCADE"))
    author_id: Mapped[UUID]
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
