"""Add organization_id to workflow_execution_logs, and keep it equal to the definition's.

Why: an organization's logs could only be found, and guarded, through their definitions. From here on
every new log has its organization, whoever writes it, and a move of a definition carries its logs, so
that the backfill that follows has nothing to run after.
Locks: ACCESS EXCLUSIVE for an instant on workflow_execution_logs (the column), then on
workflow_definitions (the constraint from its index); SHARE ROW EXCLUSIVE on each for its triggers; SHARE
UPDATE EXCLUSIVE on workflow_definitions while the unique index is built.
"""

from alembic import op

revision = "wf0003_add_organization_id"
down_revision = "wf0002_orchestration_columns"
branch_labels = None
depends_on = None

upgrade_refusals = (
    """
    SELECT 'column public.workflow_execution_logs.organization_id is generated.',
        'ALTER TABLE public.workflow_execution_logs '
            || CASE a.attgenerated WHEN 'v' THEN 'DROP COLUMN organization_id; -- it is added again, and filled'
                ELSE 'ALTER COLUMN organization_id DROP EXPRESSION;' END
    FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relname = 'workflow_execution_logs' AND a.attname = 'organization_id'
        AND NOT a.attisdropped AND a.attgenerated <> ''
    UNION ALL
    SELECT format('column public.workflow_execution_logs.organization_id has type %s, not uuid.',
            format_type(atttypid, atttypmod)),
        'ALTER TABLE public.workflow_execution_logs ALTER COLUMN organization_id TYPE uuid USING organization_id::uuid;'
    FROM pg_attribute
    WHERE attrelid = (
            SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = 'public' AND c.relname = 'workflow_execution_logs') AND attname = 'organization_id'
        AND NOT attisdropped AND atttypid <> 'uuid'::regtype
    UNION ALL
    SELECT format('the name %I is taken: %s.', c.relname,
            coalesce('an index of ' || t.oid::regclass, 'a relation that is no index')),
        format('ALTER TABLE public.%I RENAME TO %I;', c.relname, left(c.relname, 56) || '_others')
    FROM pg_class AS c
    LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
    LEFT JOIN pg_class AS t ON t.oid = i.indrelid
    WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'public')
        AND c.relname = 'workflow_definitions_id_organization_id_key'
        AND t.relname IS DISTINCT FROM 'workflow_definitions'
    """,
)
_KEY = "workflow_definitions_id_organization_id_key"
creates = {
    "workflow_definitions": (_KEY, "workflow_definitions_carry_organization"),
    "workflow_execution_logs": (
        "workflow_execution_logs_fill_organization_on_insert",
        "workflow_execution_logs_fill_organization_on_update",
    ),
}
# The values of the column go too: they are those of the definitions.
downgrade_drops = (
    "workflow_execution_logs.organization_id",
    _KEY,
    "workflow_private.fill_organization()",
    "workflow_private.carry_organization()",
)


def upgrade() -> None:
    # A global workflow's logs have no organization, so NOT NULL is dropped where it was set.
    op.ensure_columns(
        "workflow_execution_logs",
        "organization_id uuid",
        comments={
            "organization_id": "That of its workflow, filled by a trigger where left out; NULL if global"
        },
    )
    drop_unique_indexes()
    # Before the triggers: only with this key does FOR KEY SHARE hold off a move.
    op.create_index_concurrently(_KEY, "workflow_definitions", ["id", "organization_id"], unique=True)
    op.execute_unless(
        f"SELECT FROM pg_constraint WHERE conrelid = 'workflow_definitions'::regclass AND conname = '{_KEY}'",
        f"ALTER TABLE workflow_definitions ADD CONSTRAINT {_KEY} UNIQUE USING INDEX {_KEY}",
    )
    create_functions()
    op.ensure_trigger(
        "workflow_execution_logs_fill_organization_on_insert",
        "workflow_execution_logs",
        "BEFORE INSERT",
        "FOR EACH ROW WHEN (NEW.organization_id IS NULL) EXECUTE FUNCTION workflow_private.fill_organization()",
    )
    # From NULL to a value is what the backfill does: it must not fire for each of its rows.
    op.ensure_trigger(
        "workflow_execution_logs_fill_organization_on_update",
        "workflow_execution_logs",
        "BEFORE UPDATE",
        """FOR EACH ROW WHEN (
            NEW.workflow_id <> OLD.workflow_id
            OR (OLD.organization_id IS NOT NULL AND NEW.organization_id IS DISTINCT FROM OLD.organization_id)
        ) EXECUTE FUNCTION workflow_private.fill_organization()""",
    )
    op.ensure_trigger(
        "workflow_definitions_carry_organization",
        "workflow_definitions",
        "AFTER UPDATE",
        """FOR EACH ROW WHEN (OLD.organization_id IS DISTINCT FROM NEW.organization_id)
        EXECUTE FUNCTION workflow_private.carry_organization()""",
    )


def create_functions() -> None:
    # Fills what the writer did not send; a wrong value that was sent is for the foreign key to refuse.
    op.execute("""
CREATE OR REPLACE FUNCTION workflow_private.fill_organization() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET row_security = off
AS $body$
BEGIN
    IF NEW.organization_id IS NULL
        OR TG_OP = 'UPDATE' AND NEW.organization_id IS NOT DISTINCT FROM OLD.organization_id
    THEN
        NEW.organization_id := (
            SELECT definition.organization_id FROM public.workflow_definitions AS definition
            WHERE definition.id = NEW.workflow_id FOR KEY SHARE
        );
    END IF;
    RETURN NEW;
END
$body$
""")
    # The composite foreign key carries a move too, once it stands, but not one from none: MATCH SIMPLE
    # passes over logs without an organization.
    op.execute("""
CREATE OR REPLACE FUNCTION workflow_private.carry_organization() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET row_security = off
AS $body$
BEGIN
    IF OLD.organization_id IS NULL AND current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a global workflow can be given an organization only in READ COMMITTED'
            USING ERRCODE = 'feature_not_supported',
                DETAIL = 'The snapshot of this transaction could miss a log that is being written.',
                HINT = 'Run the UPDATE in a transaction with isolation level READ COMMITTED.';
    END IF;
    UPDATE public.workflow_execution_logs AS log SET organization_id = NEW.organization_id
    WHERE log.workflow_id = NEW.id AND log.organization_id IS DISTINCT FROM NEW.organization_id;
    RETURN NULL;
END
$body$
""")
    functions = ("workflow_private.fill_organization()", "workflow_private.carry_organization()")
    op.set_privileges("FUNCTION", functions, {}, to_nobody_else=True)


def drop_unique_indexes() -> None:
    """Under the names of later ones: they would refuse rows as soon as organizations are filled in."""
    for name in (
        "idx_workflow_execution_logs_organization_id",
        "idx_workflow_exec_org_time",
        "idx_failed_workflow_executions",
    ):
        op.execute_unless(
            f"SELECT WHERE NOT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('public.{name}') "
            "AND indrelid = 'workflow_execution_logs'::regclass AND indisunique)",
            f"DROP INDEX IF EXISTS public.{name}",
        )


def downgrade() -> None:
    # The next revision may have stopped half way, with its keys there and its end not reached.
    for key, referent in (
        ("workflow_execution_logs_workflow_id_organization_id_fkey", "workflow_definitions"),
        ("workflow_execution_logs_organization_id_fkey", "organizations"),
    ):
        op.drop_foreign_key(key, "workflow_execution_logs", referent)
    expect_that_the_column_can_go()
    for trigger, table in (
        ("workflow_definitions_carry_organization", "workflow_definitions"),
        ("workflow_execution_logs_fill_organization_on_update", "workflow_execution_logs"),
        ("workflow_execution_logs_fill_organization_on_insert", "workflow_execution_logs"),
    ):
        op.execute_step(f"DROP TRIGGER IF EXISTS {trigger} ON {table}")
    op.execute("DROP FUNCTION IF EXISTS workflow_private.carry_organization()")
    op.execute("DROP FUNCTION IF EXISTS workflow_private.fill_organization()")
    op.execute_step(f"ALTER TABLE workflow_definitions DROP CONSTRAINT IF EXISTS {_KEY}")
    op.execute_step("ALTER TABLE workflow_execution_logs DROP COLUMN IF EXISTS organization_id")


def expect_that_the_column_can_go() -> None:
    """Else the triggers would be gone, and the column would stay without them."""
    op.execute_step("""
        DO $expected$
        BEGIN
            DROP TRIGGER IF EXISTS workflow_execution_logs_fill_organization_on_update ON workflow_execution_logs;
            DROP TRIGGER IF EXISTS workflow_execution_logs_fill_organization_on_insert ON workflow_execution_logs;
            ALTER TABLE workflow_execution_logs DROP COLUMN IF EXISTS organization_id;
            RAISE EXCEPTION USING ERRCODE = '0ABLE';
        EXCEPTION WHEN SQLSTATE '0ABLE' THEN
            NULL; -- all of it is undone
        END $expected$
    """)
