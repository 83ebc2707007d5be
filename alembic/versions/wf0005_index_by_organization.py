"""Index logs and definitions by organization.

Why: an organization's latest runs, its counts per status, its failures and its active workflows were found
by reading everyone's.
Locks: SHARE UPDATE EXCLUSIVE on one table at a time; writers never wait.
"""

from alembic import op
from sqlalchemy import text

revision = "wf0005_index_by_organization"
down_revision = "wf0004_backfill_organization_id"
branch_labels = None
depends_on = None

_STATISTICS = "workflow_execution_logs_workflow_id_organization_id_stat"
_FOUND = (
    f"SELECT FROM pg_statistic_ext WHERE stxname = '{_STATISTICS}' AND stxnamespace = 'public'::regnamespace"
)
_AS_DECLARED = (
    "stxrelid = 'workflow_execution_logs'::regclass "
    "AND pg_get_statisticsobjdef_columns(oid) = 'workflow_id, organization_id' "
    "AND stxkind @> '{d,f}' AND stxkind <@ '{d,f}'"
)
_FAILED = "status = 'error'"  # not 'failed', which no run ever says
# Of each index its columns, those that it only carries, and its predicate.
_OF_LOGS = {
    "idx_workflow_execution_logs_trigger_id": (["trigger_id"], (), "trigger_id IS NOT NULL"),
    "idx_workflow_execution_logs_organization_id": (["organization_id"], (), None),
    "idx_workflow_exec_org_time": (
        ["organization_id", text("created_at DESC")],
        ("status",),
        "organization_id IS NOT NULL",
    ),
    "idx_failed_workflow_executions": (
        ["organization_id", "workflow_id", text("created_at DESC")],
        (),
        f"{_FAILED} AND organization_id IS NOT NULL",
    ),
    "idx_failed_executions_by_workflow": (["workflow_id", "created_at"], (), _FAILED),
    "idx_failed_organization_executions": (
        ["organization_id", "created_at"],
        (),
        f"{_FAILED} AND organization_id IS NOT NULL",
    ),
}
# Taken for fewer and larger than they are, large organizations and busy workflows are read in the order of an
# index, not sorted as a whole; for half as many still, small ones would be looked for among everyone's latest.
_N_DISTINCT = {"organization_id": 100, "workflow_id": 250}
_OF_DEFINITIONS = {
    "idx_workflows_org_active": (
        ["organization_id", "is_active", text("created_at DESC")],
        (),
        "organization_id IS NOT NULL",
    ),
    "idx_active_workflows": (["organization_id", "name"], (), "is_active AND organization_id IS NOT NULL"),
}
creates = {
    "workflow_execution_logs": (*_OF_LOGS, _STATISTICS),
    "workflow_definitions": tuple(_OF_DEFINITIONS),
}


upgrade_refusals = (
    f"""
    SELECT format('the name %I is taken: %s.', c.relname,
            coalesce('an index of ' || t.oid::regclass, 'a relation that is no index')),
        format('ALTER TABLE public.%I RENAME TO %I;', c.relname, left(c.relname, 56) || '_others')
    FROM pg_class AS c
    LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
    LEFT JOIN pg_class AS t ON t.oid = i.indrelid
    WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'public')
        AND (c.relname IN {tuple(_OF_LOGS)} AND t.relname IS DISTINCT FROM 'workflow_execution_logs'
            OR c.relname IN {tuple(_OF_DEFINITIONS)} AND t.relname IS DISTINCT FROM 'workflow_definitions')
    UNION ALL
    SELECT format('the name %I is taken: statistics of %s.', stxname, stxrelid::regclass),
        format('ALTER STATISTICS public.%I RENAME TO %I;', stxname, left(stxname, 56) || '_others')
    FROM pg_statistic_ext JOIN pg_class AS t ON t.oid = stxrelid
    WHERE stxnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'public') AND stxname = '{_STATISTICS}'
        AND NOT (t.relname = 'workflow_execution_logs' AND t.relnamespace = stxnamespace)
    """,
)


def upgrade() -> None:
    for table, indexes in (("workflow_execution_logs", _OF_LOGS), ("workflow_definitions", _OF_DEFINITIONS)):
        for name, (columns, include, where) in indexes.items():
            op.create_index_concurrently(name, table, columns, include=include, where=where)
    for column, number in _N_DISTINCT.items():
        op.execute_unless(
            "SELECT FROM pg_attribute WHERE attrelid = 'workflow_execution_logs'::regclass "
            f"AND attname = '{column}' AND attoptions @> ARRAY['n_distinct={number}']",
            f"ALTER TABLE workflow_execution_logs ALTER COLUMN {column} SET (n_distinct = {number})",
        )
    # A workflow has one organization: without this the planner multiplies the two selectivities.
    op.execute_unless(
        f"SELECT WHERE NOT EXISTS ({_FOUND}) OR EXISTS ({_FOUND} AND {_AS_DECLARED})",
        f"DROP STATISTICS {_STATISTICS}",
    )
    op.execute_unless(
        _FOUND,
        f"CREATE STATISTICS {_STATISTICS} (ndistinct, dependencies) "
        "ON workflow_id, organization_id FROM workflow_execution_logs",
    )
    # Before the policies that rely on what the planner knows of the filled column.
    op.execute("ANALYZE workflow_execution_logs")
    op.execute("ANALYZE workflow_definitions")


def downgrade() -> None:
    for column in _N_DISTINCT:
        op.execute(f"ALTER TABLE workflow_execution_logs ALTER COLUMN {column} RESET (n_distinct)")
    op.execute(f"DROP STATISTICS IF EXISTS {_STATISTICS}")
    for name in (*_OF_DEFINITIONS, *_OF_LOGS):
        op.drop_index_concurrently(name)
