"""Add the columns of orchestrated runs to workflow_execution_logs.

Why: a run is started by a trigger, has steps that share values, takes time and is tried again.
Locks: ACCESS EXCLUSIVE on workflow_execution_logs for an instant, since the defaults are constants; SHARE
ROW EXCLUSIVE on it and on workflow_triggers, where that exists, for the foreign key.
"""

from alembic import op

revision = "wf0002_orchestration_columns"
down_revision = "wf0001_create_workflow_tables"
branch_labels = None
depends_on = None

_DECLARED = """
    FROM (
        VALUES ('trigger_id', 'uuid'), ('context', 'jsonb'), ('steps_details', 'jsonb'), ('duration_ms', 'integer'),
            ('retry_count', 'integer')
    ) AS declared (column_name, type)
    JOIN pg_attribute AS a ON a.attname = declared.column_name AND NOT a.attisdropped
    WHERE a.attrelid = (
        SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = 'public' AND c.relname = 'workflow_execution_logs')
"""
upgrade_refusals = (
    f"""
    SELECT format('column public.workflow_execution_logs.%I is generated.', a.attname),
        CASE a.attgenerated WHEN 's' THEN
            format('ALTER TABLE public.workflow_execution_logs ALTER COLUMN %I DROP EXPRESSION; '
                '-- whoever writes fills it from then on', a.attname)
            ELSE format('ALTER TABLE public.workflow_execution_logs ADD COLUMN %1$s_ %2$s; '
                'UPDATE public.workflow_execution_logs SET %1$s_ = %1$s; '
                'ALTER TABLE public.workflow_execution_logs DROP COLUMN %1$s; '
                'ALTER TABLE public.workflow_execution_logs RENAME COLUMN %1$s_ TO %1$s; '
                '-- whoever writes fills it from then on', a.attname, declared.type) END
    {_DECLARED} AND a.attgenerated <> ''
    UNION ALL
    SELECT format('column public.workflow_execution_logs.%I has type %s, not %s.',
            a.attname, format_type(a.atttypid, a.atttypmod), declared.type),
        format('ALTER TABLE public.workflow_execution_logs %sALTER COLUMN %I TYPE %s USING %I::%s;',
            CASE WHEN a.atthasdef THEN format('ALTER COLUMN %I DROP DEFAULT, ', a.attname) END,
            a.attname, declared.type, a.attname, declared.type)
    {_DECLARED} AND format_type(a.atttypid, a.atttypmod) <> declared.type
    """,
)
creates = {"workflow_execution_logs": ("workflow_execution_logs_trigger_id_fkey",)}
_COLUMNS = ("trigger_id", "context", "steps_details", "duration_ms", "retry_count")
downgrade_drops = tuple(f"workflow_execution_logs.{column}" for column in _COLUMNS)
downgrade_losses = {
    "rows of workflow_execution_logs with values in trigger_id, context, steps_details, duration_ms or retry_count": """
        SELECT count(*) FROM workflow_execution_logs
        WHERE trigger_id IS NOT NULL OR context IS DISTINCT FROM '{}' OR steps_details IS DISTINCT FROM '[]'
            OR duration_ms IS NOT NULL OR retry_count IS DISTINCT FROM 0
        """
}


def upgrade() -> None:
    op.ensure_columns(
        "workflow_execution_logs",
        """
        trigger_id uuid,
        context jsonb DEFAULT '{}'::jsonb,
        steps_details jsonb DEFAULT '[]'::jsonb,
        duration_ms integer,
        retry_count integer DEFAULT 0
        """,
        comments={
            "trigger_id": "The trigger that started it, a row of workflow_triggers",
            "context": "Values that its steps share",
            "steps_details": "One element for each step that ran",
            "duration_ms": "From start to end, in milliseconds",
            "retry_count": "Tries after the first",
        },
    )
    op.create_foreign_key_not_valid(
        "workflow_execution_logs_trigger_id_fkey",
        "workflow_execution_logs",
        "public.workflow_triggers",
        ["trigger_id"],
        ["id"],
        if_referent_exists=True,
    )
    op.validate_constraint("workflow_execution_logs_trigger_id_fkey", "workflow_execution_logs")
    grant_worker(
        "execution_end",
        "status",
        "execution_result",
        "error_details",
        "context",
        "steps_details",
        "duration_ms",
        "retry_count",
    )


def grant_worker(*ending_a_run: str) -> None:
    op.set_privileges(
        "TABLE",
        "workflow_execution_logs",
        {"workflow_worker": ("SELECT", "INSERT", ("UPDATE", ending_a_run))},
    )


def downgrade() -> None:
    drops = ", ".join(f"DROP COLUMN IF EXISTS {column}" for column in _COLUMNS)
    op.execute(f"ALTER TABLE workflow_execution_logs {drops}")
