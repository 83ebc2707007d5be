INSERT INTO workflow_triggers (id, workflow_id, trigger_type, created_at)
    SELECT md5('trigger' || id)::uuid, id, 'schedule', '2024-03-02T00:00:00Z' FROM workflow_definitions;

UPDATE workflow_execution_logs l
    SET trigger_id = t.id, context = jsonb_build_object('run', l.id), duration_ms = 1000, retry_count = 1
    FROM workflow_triggers t
    WHERE t.workflow_id = l.workflow_id AND l.id % 3 = 0;

INSERT INTO workflow_execution_steps (id, execution_log_id, step_index, status, started_at)
    SELECT md5('step' || id)::uuid, id, 0, 'success', '2024-04-01T00:00:00Z'
    FROM workflow_execution_logs WHERE id % 5 = 0;

INSERT INTO workflow_versions (id, workflow_id, version_number, workflow_json, created_at)
    SELECT md5('version' || id)::uuid, id, 1, '{"steps": ["old"]}', '2024-03-02T00:00:00Z' FROM workflow_definitions;
