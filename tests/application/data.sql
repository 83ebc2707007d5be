INSERT INTO organizations (id, name, created_at) VALUES
    ('a0000000-0000-4000-8000-000000000000', 'Acme', '2024-01-01T00:00:00Z'),
    ('b0000000-0000-4000-8000-000000000000', 'Globex', '2024-01-01T00:00:00Z'),
    ('c0000000-0000-4000-8000-000000000000', 'Initech', '2024-01-01T00:00:00Z');

INSERT INTO auth.users (id, email) VALUES
    ('a0000000-0000-4000-8000-000000000001', 'user@acme.example'),
    ('a0000000-0000-4000-8000-000000000002', 'admin@acme.example'),
    ('a0000000-0000-4000-8000-000000000003', 'super@acme.example'),
    ('b0000000-0000-4000-8000-000000000001', 'user@globex.example'),
    ('b0000000-0000-4000-8000-000000000002', 'admin@globex.example'),
    ('b0000000-0000-4000-8000-000000000003', 'super@globex.example'),
    ('f0000000-0000-4000-8000-000000000001', 'orphan@example'),
    ('f0000000-0000-4000-8000-000000000002', 'orphan-admin@example'),
    ('f0000000-0000-4000-8000-000000000003', 'orphan-super@example'),
    ('f0000000-0000-4000-8000-000000000009', 'without-profile@example');

INSERT INTO profiles (id, organization_id, role, full_name)
    SELECT
        id,
        (SELECT o.id FROM organizations o WHERE u.email LIKE '%@' || lower(o.name) || '.%'),
        CASE
            WHEN email LIKE '%super@%' THEN 'super_admin'
            WHEN email LIKE '%admin@%' THEN 'admin'
            ELSE 'user'
        END,
        email
    FROM auth.users u
    WHERE email <> 'without-profile@example';

INSERT INTO contacts (id, organization_id, name, created_at, updated_at)
    SELECT
        md5('contact' || n)::uuid,
        (ARRAY['a0000000-0000-4000-8000-000000000000', 'b0000000-0000-4000-8000-000000000000'])[n % 2 + 1]::uuid,
        'Contact ' || n, '2024-02-01T00:00:00Z', '2024-02-01T00:00:00Z'
    FROM generate_series(1, 20) n;

-- Three workflows for each of two organizations, and two global ones. Initech has none.
INSERT INTO workflow_definitions
    (id, organization_id, name, natural_language_prompt, workflow_json, is_active, trigger_type, created_by,
     created_at, updated_at)
    SELECT
        (left(o.id::text, 1) || '0000000-0000-4000-9000-00000000000' || n)::uuid,
        o.id, o.name || ' ' || n, 'Greet new contacts', '{"steps": []}', n <> 3,
        (ARRAY['manual', 'schedule', 'event'])[n],
        (left(o.id::text, 1) || '0000000-0000-4000-8000-000000000002')::uuid,
        '2024-03-01T00:00:00Z', '2024-03-01T00:00:00Z'
    FROM organizations o, generate_series(1, 3) n
    WHERE o.name <> 'Initech';
INSERT INTO workflow_definitions
    (id, name, natural_language_prompt, workflow_json, is_active, trigger_type, created_at, updated_at)
    SELECT
        ('f0000000-0000-4000-9000-00000000000' || n)::uuid,
        'Global ' || n, 'Health check', '{"steps": []}', true, 'condition',
        '2024-03-01T00:00:00Z', '2024-03-01T00:00:00Z'
    FROM generate_series(1, 2) n;

INSERT INTO workflow_execution_logs
    (workflow_id, execution_start, execution_end, status, trigger_data, execution_result, error_details, created_at)
    SELECT
        d.id, t.at, t.at + interval '1 second', s.status, jsonb_build_object('n', n),
        CASE WHEN s.status = 'success' THEN jsonb_build_object('ok', true) END,
        CASE WHEN s.status = 'error' THEN 'timed out' END,
        t.at
    FROM generate_series(1, 320) n
    JOIN (SELECT id, row_number() OVER (ORDER BY id) - 1 AS position FROM workflow_definitions) d
        ON d.position = n % 8,
    LATERAL (SELECT timestamptz '2024-04-01T00:00:00Z' + n * interval '1 minute' AS at) t,
    LATERAL (SELECT (ARRAY['running', 'success', 'error', 'partial'])[(n / 8) % 4 + 1] AS status) s
    ORDER BY n;
