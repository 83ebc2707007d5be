"""The rows that a test starts from."""

from typing import Any, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine, column, insert, table, text
from sqlalchemy.orm import Session

from workflow_models import ExecutionStatus, TriggerType, WorkflowDefinition, WorkflowExecutionLog

Made = TypeVar("Made", WorkflowDefinition, WorkflowExecutionLog)


class Rows:
    """Makes rows, each committed at once, as the owner of the tables.

    All take further columns by name. What the application's own tables want besides, columns that are NOT
    NULL without a default, is to be given: PostgreSQL's error names what is missing.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def organization(self, name: str = "An organization", **columns: Any) -> UUID:
        """Give the id of a new row of `organizations`."""
        with self._engine.begin() as connection:
            return _insert(connection, "organizations", {"name": name, **columns})

    def user(self, organization: UUID | None, role: str = "user", **columns: Any) -> UUID:
        """Give the id of a new row of `profiles`, and of `auth.users` where there is such a table.

        :param role: user, admin or super_admin.
        """
        with self._engine.begin() as connection:
            found = connection.scalars(
                text("""
                    SELECT attname FROM pg_attribute
                    WHERE attrelid = 'public.profiles'::regclass AND attname IN ('role', 'user_role')
                        AND NOT attisdropped
                """)
            )
            profile = {"id": uuid4(), "organization_id": organization, **dict.fromkeys(found, role)}
            if connection.scalar(text("SELECT to_regclass('auth.users') IS NOT NULL")):
                _insert(connection, "users", {"id": profile["id"]}, schema="auth")
            return _insert(connection, "profiles", profile | columns)

    def definition(self, organization: UUID | None, **columns: Any) -> WorkflowDefinition:
        """Give a new workflow, detached; without an organization a global one."""
        definition = WorkflowDefinition(
            **{
                "organization_id": organization,
                "name": "A workflow",
                "natural_language_prompt": "Do it",
                "workflow_json": {},
                "trigger_type": TriggerType.MANUAL,
                **columns,
            }
        )
        return self._made(definition)

    def execution(self, definition: WorkflowDefinition, **columns: Any) -> WorkflowExecutionLog:
        """Give a new run of a workflow, detached; it says `running` unless told otherwise."""
        log = WorkflowExecutionLog(
            **{"workflow_id": definition.id, "status": ExecutionStatus.RUNNING, **columns}
        )
        return self._made(log)

    def _made(self, row: Made) -> Made:
        with Session(self._engine, expire_on_commit=False) as session:
            session.add(row)
            session.flush()
            session.refresh(row)
            session.commit()
        return row


def _insert(connection: Connection, name: str, values: dict[str, Any], schema: str = "public") -> UUID:
    into = table(name, *map(column, {"id": None} | values), schema=schema)
    inserted: UUID = connection.scalars(insert(into).values(values).returning(into.c.id)).one()
    return inserted
