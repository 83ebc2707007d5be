"""The models against the catalog of the database that they make."""

import subprocess
import sys
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, func, inspect, select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, selectinload

from tests.databases import Database
from workflow_models import (
    Base,
    ExecutionStatus,
    TriggerType,
    WorkflowDefinition,
    WorkflowExecutionLog,
)
from workflow_models.application import application_metadata, organizations

COLUMNS = {
    "workflow_definitions": """
        id uuid NOT NULL DEFAULT gen_random_uuid()
        organization_id uuid
        name text NOT NULL
        description text
        natural_language_prompt text NOT NULL
        workflow_json jsonb NOT NULL
        is_active boolean NOT NULL DEFAULT false
        trigger_type text NOT NULL
        trigger_config jsonb DEFAULT '{}'::jsonb
        created_by uuid
        created_at timestamp with time zone NOT NULL DEFAULT now()
        updated_at timestamp with time zone NOT NULL DEFAULT now()
        last_executed_at timestamp with time zone
    """,
    "workflow_execution_logs": """
        id bigint NOT NULL DEFAULT nextval('workflow_execution_logs_id_seq'::regclass)
        workflow_id uuid NOT NULL
        execution_start timestamp with time zone NOT NULL DEFAULT now()
        execution_end timestamp with time zone
        status text NOT NULL
        trigger_data jsonb
        execution_result jsonb
        error_details text
        created_at timestamp with time zone NOT NULL DEFAULT now()
        trigger_id uuid
        context jsonb DEFAULT '{}'::jsonb
        steps_details jsonb DEFAULT '[]'::jsonb
        duration_ms integer
        retry_count integer DEFAULT 0
        organization_id uuid
    """,
}
CONSTRAINTS = {
    "workflow_definitions": {
        "workflow_definitions_pkey": "PRIMARY KEY (id)",
        "workflow_definitions_id_organization_id_key": "UNIQUE (id, organization_id)",
        "workflow_definitions_organization_id_fkey": (
            "FOREIGN KEY (organization_id) REFERENCES organizations(id) ON DELETE CASCADE"
        ),
        "workflow_definitions_trigger_type_check": (
            "CHECK ((trigger_type = ANY (ARRAY['manual'::text, 'schedule'::text,"
            " 'event'::text, 'condition'::text])))"
        ),
    },
    "workflow_execution_logs": {
        "workflow_execution_logs_pkey": "PRIMARY KEY (id)",
        "workflow_execution_logs_organization_id_fkey": (
            "FOREIGN KEY (organization_id) REFERENCES organizations(id) ON DELETE CASCADE"
        ),
        "workflow_execution_logs_workflow_id_fkey": (
            "FOREIGN KEY (workflow_id) REFERENCES workflow_definitions(id) ON DELETE CASCADE"
        ),
        "workflow_execution_logs_workflow_id_organization_id_fkey": (
            "FOREIGN KEY (workflow_id, organization_id) REFERENCES"
            " workflow_definitions(id, organization_id) ON UPDATE CASCADE ON DELETE CASCADE"
        ),
        "workflow_execution_logs_status_check": (
            "CHECK ((status = ANY (ARRAY['running'::text, 'success'::text, 'error'::text, 'partial'::text])))"
        ),
    },
}
INDEXES = {
    "workflow_definitions": {
        "workflow_definitions_pkey": "btree (id)",
        "workflow_definitions_id_organization_id_key": "btree (id, organization_id)",
        "idx_workflow_definitions_organization_id": "btree (organization_id)",
        "idx_workflow_definitions_is_active": "btree (is_active)",
        "idx_workflow_definitions_trigger_type": "btree (trigger_type)",
        "idx_workflows_org_active": (
            "btree (organization_id, is_active, created_at DESC) WHERE (organization_id IS NOT NULL)"
        ),
        "idx_active_workflows": (
            "btree (organization_id, name) WHERE (is_active AND (organization_id IS NOT NULL))"
        ),
    },
    "workflow_execution_logs": {
        "workflow_execution_logs_pkey": "btree (id)",
        "idx_workflow_execution_logs_workflow_id": "btree (workflow_id, created_at)",
        "idx_workflow_execution_logs_status": "btree (status)",
        "idx_workflow_execution_logs_created_at": "btree (created_at) INCLUDE (status)",
        "idx_workflow_execution_logs_trigger_id": "btree (trigger_id) WHERE (trigger_id IS NOT NULL)",
        "idx_workflow_execution_logs_organization_id": "btree (organization_id)",
        "idx_workflow_exec_org_time": (
            "btree (organization_id, created_at DESC) INCLUDE (status) WHERE (organization_id IS NOT NULL)"
        ),
        "idx_failed_workflow_executions": (
            "btree (organization_id, workflow_id, created_at DESC)"
            " WHERE ((status = 'error'::text) AND (organization_id IS NOT NULL))"
        ),
        "idx_failed_executions_by_workflow": (
            "btree (workflow_id, created_at) WHERE (status = 'error'::text)"
        ),
        "idx_failed_organization_executions": (
            "btree (organization_id, created_at)"
            " WHERE ((status = 'error'::text) AND (organization_id IS NOT NULL))"
        ),
    },
}

BOTH_TABLES = pytest.mark.parametrize("table", ["workflow_definitions", "workflow_execution_logs"])


@pytest.fixture
def created(empty: Database) -> Database:
    """A database that `create_all` made, without revisions."""
    engine = empty.engine()
    application_metadata.create_all(engine)
    Base.metadata.create_all(engine)
    return empty


@pytest.fixture
def session(created: Database) -> Iterator[Session]:
    with Session(created.engine()) as session:
        yield session


def a_definition(organization_id: UUID | None = None) -> WorkflowDefinition:
    return WorkflowDefinition(
        organization_id=organization_id,
        name="Welcome mail",
        natural_language_prompt="Greet every new contact",
        workflow_json={"steps": []},
        trigger_type=TriggerType.EVENT,
    )


@BOTH_TABLES
def test_the_columns_are_those_of_the_application_in_its_order(created: Database, table: str) -> None:
    rows = created.execute(
        """
        SELECT concat_ws(' ', attname, format_type(atttypid, atttypmod),
            CASE WHEN attnotnull THEN 'NOT NULL' END,
            'DEFAULT ' || pg_get_expr(adbin, adrelid))
        FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attrelid = %(table)s::regclass AND attnum > 0 ORDER BY attnum
        """,
        {"table": table},
    )

    assert [row[0] for row in rows] == [line.strip() for line in COLUMNS[table].strip().splitlines()]


@BOTH_TABLES
def test_the_constraints_are_named_as_postgresql_names_them(created: Database, table: str) -> None:
    # PostgreSQL 18 lists NOT NULL as constraints too.
    rows = created.execute(
        """
        SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE conrelid = %(table)s::regclass AND contype <> 'n'
        """,
        {"table": table},
    )

    assert dict(rows) == CONSTRAINTS[table]


@BOTH_TABLES
def test_the_indexes_are_those_of_the_readers(created: Database, table: str) -> None:
    rows = created.execute(
        """
        SELECT relname, substring(pg_get_indexdef(indexrelid) FROM 'USING (.*)')
        FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE indrelid = %(table)s::regclass
        """,
        {"table": table},
    )

    assert dict(rows) == INDEXES[table]


def test_every_comment_can_be_copied_into_a_string_literal() -> None:
    comments = [
        item.comment
        for table in Base.metadata.sorted_tables
        for item in (table, *table.columns)
        if item.comment is not None
    ]

    assert [c for c in comments if not c.isascii() or not c.isprintable() or set(c) & set("'\"\\")] == []


@pytest.mark.parametrize(
    ("enum", "constraint"),
    [
        (ExecutionStatus, CONSTRAINTS["workflow_execution_logs"]["workflow_execution_logs_status_check"]),
        (TriggerType, CONSTRAINTS["workflow_definitions"]["workflow_definitions_trigger_type_check"]),
    ],
)
def test_a_check_lists_the_members_of_its_enum(
    enum: type[ExecutionStatus] | type[TriggerType], constraint: str
) -> None:
    members = ", ".join(f"'{member}'::text" for member in enum)

    assert f"ARRAY[{members}]" in constraint


def test_a_definition_without_organization_is_global(session: Session) -> None:
    definition = a_definition()
    definition.execution_logs = [WorkflowExecutionLog(status=ExecutionStatus.RUNNING)]
    session.add(definition)
    session.commit()

    log = session.scalars(select(WorkflowExecutionLog)).one()

    assert (definition.organization_id, log.organization_id) == (None, None)
    assert log.workflow_id == definition.id


@pytest.mark.parametrize("status", ExecutionStatus)
def test_a_status_is_read_as_a_member_of_the_enum(session: Session, status: ExecutionStatus) -> None:
    session.add(WorkflowExecutionLog(workflow=a_definition(), status=status))
    session.commit()

    assert session.scalars(select(WorkflowExecutionLog.status)).one() is status
    assert session.scalars(select(WorkflowExecutionLog)).one().status is status


def test_a_stray_status_of_an_old_row_is_read_and_found_as_text(session: Session) -> None:
    session.execute(
        text("ALTER TABLE workflow_execution_logs DROP CONSTRAINT workflow_execution_logs_status_check")
    )
    session.add(definition := a_definition())
    session.flush()
    session.execute(
        text("INSERT INTO workflow_execution_logs (workflow_id, status) VALUES (:id, 'RUNNING')"),
        {"id": definition.id},
    )

    log = session.scalars(select(WorkflowExecutionLog).where(WorkflowExecutionLog.status == "RUNNING")).one()

    assert (type(log.status), log.status) == (str, "RUNNING")


def test_none_in_a_json_column_is_null(session: Session) -> None:
    session.add(
        WorkflowExecutionLog(workflow=a_definition(), status=ExecutionStatus.RUNNING, trigger_data=None)
    )
    session.flush()

    assert session.scalars(select(WorkflowExecutionLog.trigger_data.is_(None))).one()


def test_what_the_database_fills_is_read_back_with_the_insert(session: Session) -> None:
    log = WorkflowExecutionLog(workflow=a_definition(), status=ExecutionStatus.RUNNING)
    session.add(log)
    session.flush()

    assert inspect(log).unloaded.isdisjoint(
        {"id", "execution_start", "created_at", "context", "steps_details", "retry_count"}
    )
    assert (log.context, log.steps_details, log.retry_count) == ({}, [], 0)
    assert log.created_at.utcoffset() is not None


def test_an_organization_that_a_trigger_fills_is_read_back_with_the_insert(
    session: Session,
) -> None:
    session.execute(
        text(
            "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " NEW.organization_id = (SELECT organization_id FROM workflow_definitions"
            "   WHERE id = NEW.workflow_id); RETURN NEW; END $$"
        )
    )
    session.execute(
        text(
            "CREATE TRIGGER fill BEFORE INSERT ON workflow_execution_logs"
            " FOR EACH ROW EXECUTE FUNCTION fill()"
        )
    )
    organization_id = session.execute(organizations.insert().returning(organizations.c.id)).scalar_one()
    log = WorkflowExecutionLog(workflow=a_definition(organization_id), status=ExecutionStatus.RUNNING)
    session.add(log)
    session.flush()

    assert log.organization_id == organization_id


def test_an_updated_at_that_a_trigger_sets_is_read_back_with_the_update(session: Session) -> None:
    session.execute(
        text(
            "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN NEW.updated_at = '2030-01-01Z'; RETURN NEW; END $$"
        )
    )
    session.execute(
        text(
            "CREATE TRIGGER z_touch BEFORE UPDATE ON workflow_definitions"
            " FOR EACH ROW EXECUTE FUNCTION touch()"
        )
    )
    session.add(definition := a_definition())
    session.flush()
    definition.name = "Farewell mail"
    session.flush()

    assert "updated_at" in inspect(definition).dict
    assert definition.updated_at.year == 2030


def test_neither_relationship_loads_by_itself(session: Session) -> None:
    session.add(WorkflowExecutionLog(workflow=a_definition(), status=ExecutionStatus.RUNNING))
    session.commit()
    session.expunge_all()

    definition = session.scalars(select(WorkflowDefinition)).one()
    log = session.scalars(select(WorkflowExecutionLog)).one()

    with pytest.raises(InvalidRequestError, match="lazy='raise'"):
        _ = definition.execution_logs
    with pytest.raises(InvalidRequestError, match="lazy='raise'"):
        _ = log.workflow


def test_both_relationships_load_when_asked_to(session: Session) -> None:
    session.add(WorkflowExecutionLog(workflow=a_definition(), status=ExecutionStatus.RUNNING))
    session.commit()
    session.expunge_all()

    definition = session.scalars(
        select(WorkflowDefinition).options(
            selectinload(WorkflowDefinition.execution_logs).joinedload(WorkflowExecutionLog.workflow)
        )
    ).one()

    assert definition.execution_logs[0].workflow is definition


def test_deleting_a_definition_deletes_logs_that_the_session_holds_and_others(
    session: Session,
) -> None:
    held, unseen = a_definition(), a_definition()
    for definition in (held, unseen):
        session.add(WorkflowExecutionLog(workflow=definition, status=ExecutionStatus.RUNNING))
    session.commit()
    session.expire_all()
    session.refresh(held, ["execution_logs"])
    for definition in (held, unseen):
        session.delete(definition)
    session.commit()

    assert session.scalar(select(func.count()).select_from(WorkflowExecutionLog)) == 0


def test_a_service_with_its_own_organizations_compares_clean(empty: Database) -> None:
    class Theirs(DeclarativeBase):
        metadata = MetaData()

    class Organization(Theirs):
        __tablename__ = "organizations"
        id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
        name: Mapped[str]

    engine = empty.engine()
    metadata = [Theirs.metadata, Base.metadata]
    for each in metadata:
        each.create_all(engine)

    with empty.engine().connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )

        # A list, as `target_metadata` takes it too; only the annotation knows of one alone.
        assert compare_metadata(context, metadata) == []  # type: ignore[arg-type]


IMPORT_ALONE = """
import sys

allowed = {*sys.stdlib_module_names, "sqlalchemy", "typing_extensions", "greenlet"}

class OnlySqlalchemy:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and not top.startswith(("_sysconfigdata", "workflow_models")):
            raise ModuleNotFoundError(f"{name} is not installed", name=name)

def watch(event, args):
    if event.startswith(("socket.", "subprocess.", "os.system", "sqlite3.")):
        opened.append(event)
    if event == "open" and not str(args[0]).endswith((".py", ".pyc", ".so", ".pyd")):
        opened.append(args[0])

opened = []
sys.meta_path.insert(0, OnlySqlalchemy())
sys.addaudithook(watch)
import workflow_models
from sqlalchemy.orm import configure_mappers
configure_mappers()
print(*opened, sep="\\n")
"""


def test_importing_needs_only_sqlalchemy_and_opens_nothing() -> None:
    imported = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_ALONE], capture_output=True, text=True, check=False
    )

    assert (imported.stdout.strip(), imported.stderr, imported.returncode) == ("", "", 0)
