"""Fill organization_id of the old logs from their definitions, and let foreign keys hold it.

Why: logs written before the triggers have no organization, or a wrong one where it was filled by hand.
Locks: rows only, batch by batch, for the backfill; SHARE ROW EXCLUSIVE for an instant on
workflow_execution_logs and the referenced table for each key; SHARE UPDATE EXCLUSIVE on
workflow_execution_logs and ROW SHARE on the referenced table while a key is validated. ACCESS EXCLUSIVE
for an instant where a key of that name goes to another table, or one of ours is called otherwise.
"""

from alembic import op

revision = "wf0004_backfill_organization_id"
down_revision = "wf0003_add_organization_id"
branch_labels = None
depends_on = None

# The check of a key reads what it refers to as the owner, on whom that was forced.
upgrade_refusals = (
    """
    SELECT format('row security is forced on the owner of %s, so that the key of workflow_execution_logs to it '
            'cannot be validated.', r.oid::regclass),
        format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY; -- and FORCE again after the upgrade', r.oid::regclass)
    FROM pg_class AS r JOIN pg_namespace AS n ON n.oid = r.relnamespace AND n.nspname = 'public'
    WHERE r.relname = 'organizations' AND r.relforcerowsecurity AND row_security_active(r.oid)
        AND pg_has_role(r.relowner, 'USAGE') AND NOT EXISTS (
            SELECT FROM pg_constraint AS key
            JOIN pg_class AS c ON c.oid = key.conrelid AND c.relname = 'workflow_execution_logs'
            JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'organization_id'
            WHERE key.contype = 'f' AND key.confrelid = r.oid AND key.convalidated AND key.conkey = ARRAY[a.attnum]
                AND key.confdeltype = 'c' AND NOT key.condeferrable)
    """,
)
_TO_ORGANIZATION = "workflow_execution_logs_organization_id_fkey"
_TO_DEFINITION = "workflow_execution_logs_workflow_id_organization_id_fkey"
creates = {"workflow_execution_logs": (_TO_ORGANIZATION, _TO_DEFINITION)}


def upgrade() -> None:
    lift_force()
    drop_other_constraint(_TO_ORGANIZATION, "organizations", "(organization_id)", "(id)")
    drop_other_constraint(
        _TO_DEFINITION, "workflow_definitions", "(workflow_id, organization_id)", "(id, organization_id)"
    )
    fill(passes=8)
    op.create_foreign_key_not_valid(
        _TO_ORGANIZATION,
        "workflow_execution_logs",
        "organizations",
        ["organization_id"],
        ["id"],
        ondelete="CASCADE",
    )
    op.create_foreign_key_not_valid(
        _TO_DEFINITION,
        "workflow_execution_logs",
        "workflow_definitions",
        ["workflow_id", "organization_id"],
        ["id", "organization_id"],
        onupdate="CASCADE",
        ondelete="CASCADE",
    )
    # Until the keys stood, a writer could send an organization that a move had just made wrong.
    fill(passes=1)
    expect_all_filled()
    op.validate_constraint(_TO_ORGANIZATION, "workflow_execution_logs")
    op.validate_constraint(_TO_DEFINITION, "workflow_execution_logs")


def lift_force() -> None:
    """It may have been set since the first revision."""
    for table in ("workflow_definitions", "workflow_execution_logs"):
        op.execute_unless(
            f"SELECT FROM pg_class WHERE oid = '{table}'::regclass AND NOT relforcerowsecurity",
            f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
        )


def drop_other_constraint(key: str, referent: str, columns: str, referred: str) -> None:
    """One of the key's name that is something else could refuse rows as soon as they are filled."""
    op.execute_unless(
        "SELECT WHERE NOT EXISTS (SELECT FROM pg_constraint "
        f"WHERE conrelid = 'workflow_execution_logs'::regclass AND conname = '{key}' "
        f"AND contype IN ('f', 'c', 'u', 'x') AND NOT (confrelid = '{referent}'::regclass "
        f"AND pg_get_constraintdef(oid) LIKE 'FOREIGN KEY {columns} REFERENCES %{referred}%'))",
        f"ALTER TABLE workflow_execution_logs DROP CONSTRAINT {key}",
    )


def fill(*, passes: int) -> None:
    # FOR KEY SHARE keeps a definition from moving until its logs are committed; workflow_id is asked
    # again, since the log itself may have moved to another workflow.
    op.backfill(
        "workflow_execution_logs",
        "id",
        """
        WITH stale AS MATERIALIZED (
            SELECT log.id, log.workflow_id, definition.organization_id
            FROM workflow_execution_logs AS log
            JOIN workflow_definitions AS definition ON definition.id = log.workflow_id
            WHERE log.id BETWEEN :first AND :last AND log.id % :passes = :pass
                AND log.organization_id IS DISTINCT FROM definition.organization_id
            FOR KEY SHARE OF definition
        )
        UPDATE workflow_execution_logs AS log SET organization_id = stale.organization_id
        FROM stale WHERE log.id = stale.id AND log.workflow_id = stale.workflow_id
        """,
        passes=passes,
    )


def expect_all_filled() -> None:
    """Somebody's trigger or rule may have undone it, and a key passes over a log that has no organization."""
    op.execute(
        """
        DO $expected$
        DECLARE
            unfilled bigint := (
                SELECT count(*) FROM workflow_execution_logs AS log
                JOIN workflow_definitions AS definition ON definition.id = log.workflow_id
                WHERE log.organization_id IS DISTINCT FROM definition.organization_id);
        BEGIN
            IF unfilled > 0 THEN
                RAISE EXCEPTION '% logs did not get the organization of their workflow', unfilled
                USING HINT = 'on workflow_execution_logs this may undo it: ' || concat_ws(', ',
                    (SELECT string_agg('trigger ' || quote_ident(tgname), ', ' ORDER BY tgname)
                        FROM pg_trigger WHERE tgrelid = 'workflow_execution_logs'::regclass
                        AND NOT tgisinternal AND tgenabled <> 'D' AND tgname <> ALL (ARRAY[
                            'workflow_execution_logs_fill_organization_on_insert',
                            'workflow_execution_logs_fill_organization_on_update'])),
                    (SELECT string_agg('rule ' || quote_ident(rulename), ', ' ORDER BY rulename)
                        FROM pg_rewrite WHERE ev_class = 'workflow_execution_logs'::regclass));
            END IF;
        END $expected$
        """
    )


def downgrade() -> None:
    op.drop_foreign_key(_TO_DEFINITION, "workflow_execution_logs", "workflow_definitions")
    op.drop_foreign_key(_TO_ORGANIZATION, "workflow_execution_logs", "organizations")
