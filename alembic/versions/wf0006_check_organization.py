"""Let the policies of workflow_execution_logs test the row's own organization_id.

Why: the nested policies looked up a definition for each log, and left the indexes by organization unused.
Locks: ACCESS EXCLUSIVE on workflow_execution_logs for an instant, for each policy.
"""

from alembic import op

revision = "wf0006_check_organization"
down_revision = "wf0005_index_by_organization"
branch_labels = None
depends_on = None

_NESTED = """EXISTS (
        SELECT FROM public.workflow_definitions AS definition
        WHERE definition.id = workflow_id AND {})"""


def upgrade() -> None:
    # (SELECT f()) is asked once a statement, a bare f() once a row. IS NOT NULL is taken for true of nearly all
    # rows, a bare function for true of a third of them.
    replace_policies(
        user="nullif(workflow_private.matches(organization_id, (SELECT workflow_private.identity())), false) IS NOT NULL",
        worker="organization_id = (SELECT workflow_private.worker_organization())",
    )


def downgrade() -> None:
    replace_policies(
        user=_NESTED.format(
            "workflow_private.matches(definition.organization_id, (SELECT workflow_private.identity()))"
        ),
        worker=_NESTED.format("definition.organization_id = (SELECT workflow_private.worker_organization())"),
    )


def replace_policies(*, user: str, worker: str) -> None:
    logs = "workflow_execution_logs"
    op.ensure_policy("Users can view workflow logs", logs, "SELECT", to="authenticated", using=user)
    op.ensure_policy("System can insert workflow logs", logs, "INSERT", to="authenticated", check=user)
    op.ensure_policy("Workers can view workflow logs", logs, "SELECT", to="workflow_worker", using=worker)
    op.ensure_policy("Workers can insert workflow logs", logs, "INSERT", to="workflow_worker", check=worker)
    op.ensure_policy(
        "Workers can update workflow logs", logs, "UPDATE", to="workflow_worker", using=worker, check=worker
    )
