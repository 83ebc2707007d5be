-- The application's performance indexes; the failed-executions one tests a status that no run ever has.

CREATE INDEX IF NOT EXISTS idx_contacts_org_name
    ON contacts(organization_id, name)
    WHERE organization_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_workflows_org_active
    ON workflow_definitions(organization_id, is_active, created_at DESC)
    WHERE organization_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_active_workflows
    ON workflow_definitions(organization_id, name)
    WHERE is_active = true AND organization_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_workflow_exec_org_time
    ON workflow_execution_logs(organization_id, created_at DESC)
    WHERE organization_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_failed_workflow_executions
    ON workflow_execution_logs(organization_id, workflow_id, created_at DESC)
    WHERE status = 'failed' AND organization_id IS NOT NULL;

ALTER TABLE workflow_execution_logs SET (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);
ALTER TABLE contacts SET (autovacuum_vacuum_scale_factor = 0.1);
