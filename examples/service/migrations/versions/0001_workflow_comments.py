"""Add workflow_comments.

Written by `alembic revision --autogenerate`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001_workflow_comments"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "workflow_comments",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("workflow_id", sa.Uuid(), nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflow_definitions.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    # What ALTER DEFAULT PRIVILEGES of this database may have given.
    op.execute(
        "DO $revoke$ DECLARE revoke text; BEGIN\n"
        "    FOR revoke IN\n"
        "        SELECT 'REVOKE ALL ON ' || CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END\n"
        "            || c.oid::regclass\n"
        "            || ' FROM ' || CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END\n"
        "        FROM pg_class AS c CROSS JOIN aclexplode(relacl)\n"
        "        WHERE grantee <> relowner AND (c.oid = 'workflow_comments'::regclass OR c.oid IN (\n"
        "            SELECT objid FROM pg_depend WHERE refobjid = 'workflow_comments'::regclass\n"
        "                AND classid = 'pg_class'::regclass AND deptype IN ('a', 'i')))\n"
        "    LOOP\n"
        "        EXECUTE revoke;\n"
        "    END LOOP;\n"
        "END $revoke$"
    )
    op.execute(
        'CREATE POLICY "Users can add comments" ON workflow_comments FOR INSERT TO authenticated WITH CHECK '
        "(EXISTS (SELECT FROM public.workflow_definitions AS w WHERE w.id = workflow_id))"
    )
    op.execute(
        'CREATE POLICY "Users can view comments" ON workflow_comments FOR SELECT TO authenticated USING '
        "(EXISTS (SELECT FROM public.workflow_definitions AS w WHERE w.id = workflow_id))"
    )
    op.execute("ALTER TABLE workflow_comments ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE workflow_comments NO FORCE ROW LEVEL SECURITY")
    op.execute("GRANT SELECT, INSERT ON TABLE workflow_comments TO authenticated")
    op.create_index("idx_workflow_comments_workflow_id", "workflow_comments", ["workflow_id", "created_at"])


def downgrade() -> None:
    op.drop_table("workflow_comments")
