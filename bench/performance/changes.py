"""What another index, policy, estimate or statement would do: tried in a transaction that is rolled back."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sqlalchemy import Connection, create_engine

from bench.performance.plans import Reading, explain
from bench.performance.readers import Asked, Caller, enter
from bench.performance.variants import END, SUPER_ADMIN, SUPER_ADMIN_ROLE, Variant
from workflow_models import WorkflowExecutionLog

LOGS = "workflow_execution_logs"
_VIEW = f'ALTER POLICY "Users can view workflow logs" ON {LOGS} '
_ANALYZE = f"ANALYZE {LOGS}"
_USERS_ALONE = f"{_VIEW} USING (organization_id = (SELECT (workflow_private.identity())[1]::uuid))"

# Once for each declared index but the primary key: what its absence costs, and whom.
DROPPED = {
    str(index.name): (f"DROP INDEX {index.name}",)
    for index in sorted(WorkflowExecutionLog.__table__.indexes, key=lambda index: str(index.name))  # type: ignore[attr-defined]
}

# What no reader of the application asks: who does, and what.
UPKEEP: Mapping[str, tuple[str, str]] = {
    "idx_workflow_execution_logs_status": (
        "`workflow-models sweep`: runs that still run",
        f"SELECT id FROM {LOGS} WHERE status = 'running' AND execution_start < '{END}' ORDER BY id",
    ),
    "idx_workflow_execution_logs_trigger_id": (
        "the foreign key, when a trigger is deleted",
        f"SELECT FROM {LOGS} WHERE trigger_id = '{SUPER_ADMIN}'",
    ),
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
    "policy: users alone; super admins have a role of their own": (_USERS_ALONE,),
    # What is in a token that the API has verified is believed until it expires, whatever the profile says.
    "policy: organization and role stand in the token, not in the profile": (
        f"""CREATE OR REPLACE FUNCTION workflow_private.identity() RETURNS text[] LANGUAGE sql STABLE AS $$
            SELECT ARRAY[nullif(current_setting('workflow.organization_id', true), ''),
                CASE current_setting('request.jwt.claim.sub', true)
                    WHEN '{SUPER_ADMIN}' THEN 'super_admin' ELSE 'user' END]
        $$""",
    ),
    "estimates: n_distinct as ANALYZE finds it": (
        f"ALTER TABLE {LOGS} ALTER organization_id RESET (n_distinct), ALTER workflow_id RESET (n_distinct)",
        _ANALYZE,
    ),
    "estimates: n_distinct twice as large": (
        f"ALTER TABLE {LOGS} ALTER organization_id SET (n_distinct = 200)",
        f"ALTER TABLE {LOGS} ALTER workflow_id SET (n_distinct = 500)",
        _ANALYZE,
    ),
    "estimates: n_distinct a third as large": (
        f"ALTER TABLE {LOGS} ALTER organization_id SET (n_distinct = 33)",
        f"ALTER TABLE {LOGS} ALTER workflow_id SET (n_distinct = 83)",
        _ANALYZE,
    ),
    "estimates: no extended statistics": (
        "DROP STATISTICS workflow_execution_logs_workflow_id_organization_id_stat",
    ),
    "index: an organization's without the status": (
        "DROP INDEX idx_workflow_exec_org_time",
        f"CREATE INDEX ON {LOGS} (organization_id, created_at DESC) WHERE organization_id IS NOT NULL",
    ),
    # The policy needs the organization, so an index that shall do without the table has it too.
    "index: that of created_at with status and organization": (
        "DROP INDEX idx_workflow_execution_logs_created_at",
        f"CREATE INDEX ON {LOGS} (created_at) INCLUDE (status, organization_id)",
    ),
    "index: that of created_at without the status": (
        "DROP INDEX idx_workflow_execution_logs_created_at",
        f"CREATE INDEX ON {LOGS} (created_at)",
    ),
}

# What a tenant session could do instead: not tell its statements who asks.
EACH_LOOKS_UP = "session: each statement looks up who asks"
# How it names the organization, and what a user's could send instead.
_NAMED = re.compile(r"\(SELECT (%\(\w+\)s::UUID) AS \w+\)")
STATEMENTS: Mapping[str, str] = {
    "statement: asks for the organization, too": "(SELECT (workflow_private.identity())[1]::uuid)",
    "statement: names the organization where its plan may depend on it": r"\1",
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


def restated(questions: Sequence[Question], instead: str) -> list[Question]:
    """Give users' questions to tenant sessions with something else for the organization that they name."""
    return [
        replace(
            question, asked=replace(question.asked, statement=_NAMED.sub(instead, question.asked.statement))
        )
        for question in questions
        if question.caller.role == "authenticated"
        and not question.bare
        and question.caller.user != SUPER_ADMIN
    ]


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


def upkeep(variant: Variant) -> dict[str, dict[str, int]]:
    """Give the buffers of what reads an index besides, with it and without it."""
    found: dict[str, dict[str, int]] = {}
    for index, (_, statement) in UPKEEP.items():
        for how, statements in (("with", ()), ("without", DROPPED[index])):
            with changed(variant, statements) as connection:
                found.setdefault(index, {})[how] = explain(connection, Asked(statement, None)).buffers
    return found


def read(
    variant: Variant, statements: Sequence[str], questions: Sequence[Question], *, knowing: bool = True
) -> list[Reading]:
    """Ask everything again after a change.

    :param knowing: whether statements of a tenant session know who asks, as they do.
    """
    found = []
    with changed(variant, statements) as connection:
        for question in questions:
            caller = question.caller
            if _USERS_ALONE in statements and caller.user == SUPER_ADMIN:
                caller = replace(caller, role=SUPER_ADMIN_ROLE)
            with connection.begin_nested() as savepoint:
                enter(connection, caller, knowing=knowing and not question.bare)
                found.append(explain(connection, question.asked))
                savepoint.rollback()
    return found
