"""The application's readers, who asks, and what a variant makes of a question."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, event, func, select, text
from sqlalchemy.orm import Session

from bench.performance.variants import (
    END,
    LIMIT,
    OURS,
    SUPER_ADMIN,
    Variant,
    first_workflow,
    organization,
    user,
)
from workflow_models import WorkflowExecutionLog
from workflow_models.executions import Cursor, executions, failed_executions, summary
from workflow_models.tenancy import TenantSession

RANKS = {"small": 1000, "middle": 100, "large": 1}


@dataclass(frozen=True)
class Subject:
    """What is asked about."""

    # None where nobody names one: the caller's own, or everyone's.
    organization: UUID | None
    # The busiest workflow of the organization.
    workflow: UUID
    # The last row of the first page.
    cursor: Cursor


Reader = Callable[[Session, Subject], Any]


def _count(session: Session, subject: Subject) -> Any:
    query = select(func.count()).select_from(WorkflowExecutionLog)
    if subject.organization is not None:
        query = query.where(WorkflowExecutionLog.organization_id == subject.organization)
    return session.scalar(query)


READERS: Mapping[str, Reader] = {
    "latest 50": lambda session, of: executions(session, organization_id=of.organization, limit=50),
    "next page": lambda session, of: executions(
        session, organization_id=of.organization, before=of.cursor, limit=50
    ),
    # Nobody names an organization here: the workflow has one.
    "latest 20 of a workflow": lambda session, of: executions(session, workflow_id=of.workflow, limit=20),
    "failed, latest 50": lambda session, of: failed_executions(
        session, organization_id=of.organization, limit=50
    ),
    "failed, latest 20 of a workflow": lambda session, of: failed_executions(
        session, workflow_id=of.workflow, limit=20
    ),
    "counts per status, 7 days": lambda session, of: summary(
        session, END - timedelta(days=7), organization_id=of.organization
    ),
    "count": _count,
}
# Those whose answer has a size of its own, and that size: what they read must not grow with the table.
PAGES = {
    "latest 50": 50,
    "next page": 50,
    "latest 20 of a workflow": 20,
    "failed, latest 50": 50,
    "failed, latest 20 of a workflow": 20,
}


@dataclass(frozen=True)
class Caller:
    """Who asks, and about an organization of which size; None is everyone's."""

    role: str
    user: UUID | None
    size: str | None
    # Whether the statement names the organization where no row-level security is to find it.
    names_organization: bool = False

    def __str__(self) -> str:
        who = {"authenticated": "user", "workflow_worker": "worker"}[self.role]
        if self.user == SUPER_ADMIN:
            return "super admin, everyone's" if self.size is None else f"super admin, {self.size}"
        return f"{who}, {self.size}"

    @property
    def organization(self) -> UUID | None:
        return organization(RANKS[self.size]) if self.size else None


CALLERS = (
    *(Caller("authenticated", user(rank), size) for size, rank in RANKS.items()),
    *(Caller("workflow_worker", None, size) for size in RANKS),
    *(Caller("authenticated", SUPER_ADMIN, size, names_organization=True) for size in RANKS),
    Caller("authenticated", SUPER_ADMIN, None),
)


def is_asked(caller: Caller, reader: str) -> bool:
    """Everyone's failures are no page of the application."""
    return caller.organization is not None or reader != "failed, latest 50"


@dataclass(frozen=True)
class Asked:
    """A statement as it went to the database."""

    statement: str
    parameters: Any


class Asking:
    """One variant and one way to connect: plain sessions, or tenant sessions.

    :param super_admin_role: with `tenant`, what super admins act as in place of ``authenticated``.
    """

    def __init__(
        self, variant: Variant, *, tenant: bool = False, super_admin_role: str | None = None
    ) -> None:
        self.variant = variant
        self.tenant = tenant
        self.super_admin_role = super_admin_role
        self.name = "ours, tenant session" if tenant else variant.name
        if super_admin_role:
            self.name += ", role of their own"
        # Without row-level security the owner asks; it sees all.
        self.engine = variant.engine("app_owner" if variant.name == LIMIT else "authenticator")
        self._asked: list[Asked] = []
        event.listen(self.engine, "before_cursor_execute", self._listen)

    def _listen(self, connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        self._asked.append(Asked(statement, parameters))

    def can(self, caller: Caller) -> bool:
        """The application has no workers of its own before ours."""
        if self.super_admin_role:
            return caller.user == SUPER_ADMIN
        return caller.role != "workflow_worker" or self.variant.name in (LIMIT, OURS)

    @contextmanager
    def session(self, caller: Caller) -> Iterator[Session]:
        if self.tenant:
            worker = caller.role == "workflow_worker"
            with TenantSession(
                self.engine,
                user=caller.user,
                organization=caller.organization if worker else None,
                every_organization=caller.user == SUPER_ADMIN,
                super_admin_role=self.super_admin_role,
            ) as session:
                yield session
            return
        with Session(self.engine) as session:
            if self.variant.name != LIMIT:
                enter(session.connection(), caller)
            yield session

    def ask(self, session: Session, caller: Caller, subject: Subject, reader: str) -> Asked:
        """Let a reader ask, and give what it asked."""
        named = caller.names_organization or self.variant.name == LIMIT
        READERS[reader](session, subject if named else replace(subject, organization=None))
        session.expunge_all()
        return self._asked[-1]


def enter(connection: Connection, caller: Caller, *, knowing: bool = False) -> None:
    """Take role and identity as an API does, for one transaction.

    :param knowing: whether what is found of a user is told to later statements, as a tenant session does.
    """
    if knowing:
        connection.execute(_KNOW, {"user": str(caller.user or "")})
    connection.execute(
        text("""
            SELECT set_config('request.jwt.claim.sub', :user, true),
                set_config('workflow.organization_id', :organization, true), set_config('role', :role, true)
        """),
        {
            "user": str(caller.user or ""),
            "organization": str(caller.organization or ""),
            "role": caller.role,
        },
    )


_KNOW = text("""
    SELECT set_config('workflow.caller', coalesce(workflow_private.sealed_identity(), ''), true)
    FROM set_config('request.jwt.claim.sub', :user, true) AS subject
    WHERE subject <> ''
""")


def subjects(engine: Engine) -> dict[Caller, Subject]:
    """Find what each caller asks about; the same in all variants."""
    found = {}
    log = WorkflowExecutionLog
    with Session(engine) as session:
        for caller in CALLERS:
            own = [log.organization_id == caller.organization] if caller.organization else []
            # Everyone's busiest workflow is one of the largest organization.
            workflow = session.scalars(
                select(log.workflow_id).where(log.organization_id.is_not(None), *own)
                .group_by(log.workflow_id).order_by(func.count().desc(), log.workflow_id).limit(1)
            ).first()  # fmt: skip
            page = executions(session, organization_id=caller.organization, limit=50).executions
            found[caller] = Subject(
                caller.organization,
                # In a tiny table a small organization may have none.
                workflow or first_workflow(RANKS[caller.size or "large"]),
                Cursor(page[-1].created_at, page[-1].id) if page else Cursor(END, 0),
            )
    return found
