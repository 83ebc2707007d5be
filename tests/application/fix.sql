-- The hand-written fix: the organization beside each log, all in one transaction.

ALTER TABLE workflow_execution_logs
    ADD COLUMN IF NOT EXISTS organization_id uuid REFERENCES organizations(id) ON DELETE CASCADE;
COMMENT ON COLUMN workflow_execution_logs.organization_id IS 'Organization of the workflow, copied for row level security';

UPDATE workflow_execution_logs l
    SET organization_id = d.organization_id
    FROM workflow_definitions d
    WHERE l.workflow_id = d.id AND l.organization_id IS NULL;

CREATE INDEX IF NOT EXISTS idx_workflow_execution_logs_organization_id
    ON workflow_execution_logs(organization_id)
    WHERE organization_id IS NOT NULL;

DROP POLICY IF EXISTS "Users can view workflow logs" ON workflow_execution_logs;
CREATE POLICY "Users can view workflow logs" ON workflow_execution_logs
    FOR SELECT
    USING (
        organization_id IN (SELECT organization_id FROM profiles WHERE id = auth.uid())
        OR EXISTS (SELECT 1 FROM profiles WHERE profiles.id = auth.uid() AND profiles.role = 'super_admin')
    );

DROP POLICY IF EXISTS "System can insert workflow logs" ON workflow_execution_logs;
CREATE POLICY "System can insert workflow logs" ON workflow_execution_logs
    FOR INSERT
    WITH CHECK (
        organization_id IN (SELECT organization_id FROM profiles WHERE id = auth.uid())
        OR EXISTS (SELECT 1 FROM profiles WHERE profiles.id = auth.uid() AND profiles.role = 'super_admin')
    );
