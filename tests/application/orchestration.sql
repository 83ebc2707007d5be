-- The application's second migration: its orchestration tables around ours, and five columns in the logs.

CREATE TABLE workflow_triggers (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workflow_id uuid REFERENCES workflow_definitions(id) ON DELETE CASCADE,
    trigger_type text NOT NULL,
    trigger_config jsonb NOT NULL DEFAULT '{}',
    is_active boolean DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_workflow_triggers_workflow ON workflow_triggers(workflow_id);

CREATE TABLE workflow_versions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workflow_id uuid REFERENCES workflow_definitions(id) ON DELETE CASCADE,
    version_number integer NOT NULL,
    workflow_json jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (workflow_id, version_number)
);

ALTER TABLE workflow_execution_logs
    ADD COLUMN IF NOT EXISTS trigger_id uuid REFERENCES workflow_triggers(id),
    ADD COLUMN IF NOT EXISTS context jsonb DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS steps_details jsonb DEFAULT '[]',
    ADD COLUMN IF NOT EXISTS duration_ms integer,
    ADD COLUMN IF NOT EXISTS retry_count integer DEFAULT 0;

CREATE TABLE workflow_execution_steps (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    execution_log_id bigint REFERENCES workflow_execution_logs(id) ON DELETE CASCADE,
    step_index integer NOT NULL,
    status text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_workflow_execution_steps_log ON workflow_execution_steps(execution_log_id, step_index);

ALTER TABLE workflow_triggers ENABLE ROW LEVEL SECURITY;
ALTER TABLE workflow_versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE workflow_execution_steps ENABLE ROW LEVEL SECURITY;

CREATE POLICY "Users can view workflow triggers" ON workflow_triggers
    FOR SELECT
    USING (workflow_id IN (
        SELECT id FROM workflow_definitions WHERE organization_id IN (
            SELECT organization_id FROM profiles WHERE id = auth.uid()
        )
    ));
CREATE POLICY "Users can view their execution steps" ON workflow_execution_steps
    FOR SELECT
    USING (execution_log_id IN (
        SELECT id FROM workflow_execution_logs WHERE workflow_id IN (
            SELECT id FROM workflow_definitions WHERE organization_id IN (
                SELECT organization_id FROM profiles WHERE id = auth.uid()
            )
        )
    ));

CREATE FUNCTION auto_version_workflow() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$
BEGIN
    IF OLD.workflow_json IS DISTINCT FROM NEW.workflow_json THEN
        INSERT INTO public.workflow_versions (workflow_id, version_number, workflow_json)
        SELECT NEW.id, coalesce(max(version_number), 0) + 1, OLD.workflow_json
        FROM public.workflow_versions WHERE workflow_id = NEW.id;
    END IF;
    RETURN NEW;
END;
$$;

CREATE TRIGGER trigger_auto_version_workflow
    BEFORE UPDATE ON workflow_definitions
    FOR EACH ROW EXECUTE FUNCTION auto_version_workflow();
