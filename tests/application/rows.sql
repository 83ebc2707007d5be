-- For databases that no application has filled.

INSERT INTO organizations (id, name) VALUES ('a0000000-0000-4000-8000-000000000000', 'Acme');
INSERT INTO workflow_definitions (organization_id, name, natural_language_prompt, workflow_json, trigger_type) VALUES
    ('a0000000-0000-4000-8000-000000000000', 'Own', 'Do', '{}', 'manual'),
    (NULL, 'Global', 'Do', '{}', 'manual');
INSERT INTO workflow_execution_logs (workflow_id, status)
    SELECT id, 'success' FROM workflow_definitions, generate_series(1, 10);
