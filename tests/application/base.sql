-- The application before any workflow revision: its own tables, and the first
-- version of ours, as its hand-written migrations make them.

CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role;

CREATE TABLE auth.users (
    id uuid PRIMARY KEY,
    email text UNIQUE
);

CREATE FUNCTION auth.uid() RETURNS uuid
    LANGUAGE sql STABLE
    AS $$
    SELECT coalesce(
        nullif(current_setting('request.jwt.claim.sub', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
    )::uuid
$$;

GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role;

CREATE FUNCTION update_updated_at_column() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    NEW.updated_at = now();
    RETURN NEW;
END;
$$;

CREATE TABLE organizations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE profiles (
    id uuid PRIMARY KEY REFERENCES auth.users(id) ON DELETE CASCADE,
    organization_id uuid REFERENCES organizations(id) ON DELETE SET NULL,
    role text DEFAULT 'user',
    full_name text
);

ALTER TABLE organizations ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Users can view own organization" ON organizations
    FOR SELECT
    USING (id IN (SELECT organization_id FROM profiles WHERE id = auth.uid()));

ALTER TABLE profiles ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Users can view own profile" ON profiles
    FOR SELECT
    USING (auth.uid() = id);
-- Lets everyone write their own role and organization: the hole that `upgrade` warns of.
CREATE POLICY "Users can update own profile" ON profiles
    FOR UPDATE
    USING (auth.uid() = id);

CREATE TABLE contacts (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    organization_id uuid REFERENCES organizations(id) ON DELETE CASCADE,
    name text NOT NULL,
    email text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_contacts_organization_id ON contacts(organization_id);

ALTER TABLE contacts ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Users can manage own contacts" ON contacts
    USING (organization_id IN (SELECT organization_id FROM profiles WHERE id = auth.uid()));

CREATE TRIGGER update_contacts_updated_at
    BEFORE UPDATE ON contacts
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

CREATE TABLE workflow_definitions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    organization_id uuid REFERENCES organizations(id) ON DELETE CASCADE,
    name text NOT NULL,
    description text,
    natural_language_prompt text NOT NULL,
    workflow_json jsonb NOT NULL,
    is_active boolean NOT NULL DEFAULT false,
    trigger_type text NOT NULL, -- manual, schedule, event, condition
    trigger_config jsonb DEFAULT '{}',
    created_by uuid REFERENCES auth.users(id),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    last_executed_at timestamptz
);

CREATE INDEX idx_workflow_definitions_organization_id ON workflow_definitions(organization_id);
CREATE INDEX idx_workflow_definitions_is_active ON workflow_definitions(is_active);
CREATE INDEX idx_workflow_definitions_trigger_type ON workflow_definitions(trigger_type);

ALTER TABLE workflow_definitions ENABLE ROW LEVEL SECURITY;

CREATE POLICY "Users can view organization workflows" ON workflow_definitions
    FOR SELECT
    USING (
        organization_id IN (SELECT organization_id FROM profiles WHERE id = auth.uid())
        OR EXISTS (SELECT 1 FROM profiles WHERE profiles.id = auth.uid() AND profiles.role = 'super_admin')
    );
CREATE POLICY "Admins can insert workflows" ON workflow_definitions
    FOR INSERT
    WITH CHECK (organization_id IN (
        SELECT organization_id FROM profiles WHERE id = auth.uid() AND role IN ('admin', 'super_admin')
    ));
CREATE POLICY "Admins can update workflows" ON workflow_definitions
    FOR UPDATE
    USING (organization_id IN (
        SELECT organization_id FROM profiles WHERE id = auth.uid() AND role IN ('admin', 'super_admin')
    ));
CREATE POLICY "Admins can delete workflows" ON workflow_definitions
    FOR DELETE
    USING (organization_id IN (
        SELECT organization_id FROM profiles WHERE id = auth.uid() AND role IN ('admin', 'super_admin')
    ));

CREATE TRIGGER update_workflow_definitions_updated_at
    BEFORE UPDATE ON workflow_definitions
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

CREATE TABLE workflow_execution_logs (
    id bigserial PRIMARY KEY,
    workflow_id uuid NOT NULL REFERENCES workflow_definitions(id) ON DELETE CASCADE,
    execution_start timestamptz NOT NULL DEFAULT now(),
    execution_end timestamptz,
    status text NOT NULL, -- running, success, error, partial
    trigger_data jsonb,
    execution_result jsonb,
    error_details text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX idx_workflow_execution_logs_workflow_id ON workflow_execution_logs(workflow_id);
CREATE INDEX idx_workflow_execution_logs_status ON workflow_execution_logs(status);
CREATE INDEX idx_workflow_execution_logs_created_at ON workflow_execution_logs(created_at DESC);

ALTER TABLE workflow_execution_logs SET (autovacuum_vacuum_threshold = 200, fillfactor = 90);
ALTER TABLE workflow_execution_logs ENABLE ROW LEVEL SECURITY;

CREATE POLICY "Users can view workflow logs" ON workflow_execution_logs
    FOR SELECT
    USING (
        workflow_id IN (
            SELECT id FROM workflow_definitions WHERE organization_id IN (
                SELECT organization_id FROM profiles WHERE id = auth.uid()
            )
        )
        OR EXISTS (SELECT 1 FROM profiles WHERE profiles.id = auth.uid() AND profiles.role = 'super_admin')
    );
CREATE POLICY "System can insert workflow logs" ON workflow_execution_logs
    FOR INSERT
    WITH CHECK (true);

CREATE VIEW workflow_report AS
    SELECT d.name, l.status, count(*) AS runs, max(l.created_at) AS latest
    FROM workflow_execution_logs l
    JOIN workflow_definitions d ON d.id = l.workflow_id
    GROUP BY d.name, l.status;
REVOKE ALL ON workflow_report FROM anon, authenticated;
