-- Rows older than the lists of states and trigger kinds.

UPDATE workflow_execution_logs SET status = 'failed' WHERE id % 50 = 0;
UPDATE workflow_execution_logs SET status = 'cancelled' WHERE id % 100 = 1;
ALTER TABLE workflow_definitions DISABLE TRIGGER update_workflow_definitions_updated_at;
UPDATE workflow_definitions SET trigger_type = 'webhook' WHERE name = 'Acme 2';
ALTER TABLE workflow_definitions ENABLE TRIGGER update_workflow_definitions_updated_at;
