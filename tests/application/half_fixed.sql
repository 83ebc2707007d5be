-- The hand-written fix, stopped half way and tried again by someone else.

ALTER TABLE workflow_execution_logs ADD COLUMN organization_id uuid REFERENCES organizations(id) ON DELETE CASCADE;

UPDATE workflow_execution_logs l
    SET organization_id = d.organization_id
    FROM workflow_definitions d
    WHERE l.workflow_id = d.id AND l.id <= 150;

-- Right where the definition was then, wrong since it moved; one of a global workflow too.
UPDATE workflow_execution_logs l
    SET organization_id = o.id
    FROM organizations o
    WHERE l.id % 7 = 0 AND o.name = 'Initech';

CREATE INDEX idx_workflow_exec_org_time ON workflow_execution_logs(created_at, organization_id);
CREATE INDEX idx_workflow_execution_logs_organization_id
    ON workflow_execution_logs(organization_id)
    WHERE organization_id IS NOT NULL;

ALTER TABLE workflow_definitions FORCE ROW LEVEL SECURITY;
ALTER TABLE workflow_execution_logs FORCE ROW LEVEL SECURITY;
