"""What another index, policy or estimate would do to ours: tried in a transaction that is rolled back."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sqlalchemy import Connection, create_engine, text

from bench.performance.plans import Reading, explain
from bench.performance.readers import Asked, Caller, enter
from bench.performance.variants import SUPER_ADMIN, Variant
from workflow_models import WorkflowExecutionLog

LOGS = "workflow_execution_logs"
# There while a change gives it, and its transaction lasts.
SUPER_ADMIN_ROLE = "workflow_super_admin"
_VIEW = f'ALTER POLICY "Users can view workflow logs" ON {LOGS} '
_ANALYZE = f"ANALYZE {LOGS}"

# Once for each declared index but the primary key: what its absence costs, and whom.
DROPPED = {
    str(index.name): (f"DROP INDEX {index.name}",)
    for index in sorted(WorkflowExecutionLog.__table__.indexes, key=lambda index: str(index.name))  # type: ignore[attr-defined]
}

# Other ways to the same answer.
ALTERNATIVES: Mapping[str, Sequence[str]] = {
    "policy: matches(…), taken for true of a third of the rows": (
        f"{_VIEW} USING (workflow_private.matches(organization_id, (SELECT workflow_private.identity())))",
    ),
    "policy: own organization OR super admin": (
        f"""{_VIEW} USING (organization_id = ((SELECT workflow_private.identity())[1])::uuid
            OR (SELECT workflow_private.identity())[2] = 'super_admin')""",
    ),
    "policy: users alone; super admins have a role of their own": (
        f"CREATE ROLE {SUPER_ADMIN_ROLE}",
        f"GRANT SELECT ON {LOGS} TO {SUPER_ADMIN_ROLE}",
        f'CREATE POLICY "Super admins" ON {LOGS} FOR SELECT TO {SUPER_ADMIN_ROLE} USING (true)',
        f"{_VIEW} USING (organization_id = (SELECT (workflow_private.identity())[1]::uuid))",
    ),
    "estimates: n_distinct as ANALYZE finds it": (
        f"ALTER TABLE {LOGS} ALTER organization_id RESET (n_distinct), ALTER workflow_id RESET (n_distinct)",
        _ANALYZE,
    ),
    "estimates: n_distinct twice as large": (
        f"ALTER TABLE {LOGS} ALTER organization_id SET (n_distinct = 100)",
        f"ALTER TABLE {LOGS} ALTER workflow_id SET (n_distinct = 500)",
        _ANALYZE,
    ),
    "estimates: no extended statistics": (
        "DROP STATISTICS workflow_execution_logs_workflow_id_organization_id_stat",
    ),
    "index: one that covers the counts per status": (
        f"CREATE INDEX ON {LOGS} (organization_id, created_at DESC) INCLUDE (status)",
    ),
    "index: (workflow_id, created_at DESC) for failures": (
        "DROP INDEX idx_failed_workflow_executions",
        f"CREATE INDEX ON {LOGS} (workflow_id, created_at DESC) WHERE status = 'error'",
    ),
}


@dataclass(frozen=True)
class Question:
    """A statement of a tenant session or, of a user, a bare one; and who asked it."""

    caller: Caller
    reader: str
    asked: Asked
    bare: bool = False

    def __str__(self) -> str:
        return f"bare {self.caller}" if self.bare else str(self.caller)


@contextmanager
def changed(variant: Variant, statements: Sequence[str]) -> Iterator[Connection]:
    """Give the superuser's connection in a transaction in which the statements have been run."""
    engine = create_engine(variant.url(variant.server.user))
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        try:
            yield connection
        finally:
            connection.rollback()
    engine.dispose()


def read(variant: Variant, statements: Sequence[str], questions: Sequence[Question]) -> list[Reading]:
    """Ask everything again after a change."""
    found = []
    with changed(variant, statements) as connection:
        role_of_their_own = connection.scalar(text("SELECT to_regrole(:role)"), {"role": SUPER_ADMIN_ROLE})
        for question in questions:
            caller = question.caller
            if role_of_their_own and caller.user == SUPER_ADMIN:
                caller = replace(caller, role=SUPER_ADMIN_ROLE)
            with connection.begin_nested() as savepoint:
                enter(connection, caller)
                found.append(explain(connection, question.asked))
                savepoint.rollback()
    return found
