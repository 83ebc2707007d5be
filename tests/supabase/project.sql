-- What a Supabase project has before its first migration, as far as tables, policies and functions meet it.
-- Run as superuser, which there is supabase_admin. The project's own role is called postgres there; here that
-- is the superuser's name, so it is supabase_postgres.

CREATE SCHEMA extensions;
GRANT USAGE ON SCHEMA extensions TO anon, authenticated, service_role;

CREATE SCHEMA auth;
CREATE TABLE auth.users (
    id uuid PRIMARY KEY,
    email text UNIQUE,
    encrypted_password text,
    raw_app_meta_data jsonb,
    raw_user_meta_data jsonb,
    is_anonymous boolean NOT NULL DEFAULT false
);
ALTER TABLE auth.users ENABLE ROW LEVEL SECURITY;

CREATE FUNCTION auth.uid() RETURNS uuid
    LANGUAGE sql STABLE
    AS $$
    SELECT coalesce(
        nullif(current_setting('request.jwt.claim.sub', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
    )::uuid
$$;
CREATE FUNCTION auth.jwt() RETURNS jsonb
    LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb $$;

GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role;
-- Not the owner of anything there, but may refer to it.
GRANT ALL ON SCHEMA auth, extensions, public TO supabase_postgres;
GRANT ALL ON ALL TABLES IN SCHEMA auth TO supabase_postgres;

GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_postgres IN SCHEMA public
    GRANT ALL ON TABLES TO supabase_postgres, anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_postgres IN SCHEMA public
    GRANT ALL ON SEQUENCES TO supabase_postgres, anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_postgres IN SCHEMA public
    GRANT ALL ON FUNCTIONS TO supabase_postgres, anon, authenticated, service_role;

-- PostgREST reads the schema again when it is told that something has changed; temporary objects are nothing.
CREATE FUNCTION extensions.pgrst_ddl_watch() RETURNS event_trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_event_trigger_ddl_commands()
        WHERE command_tag ~ '^(CREATE|ALTER) (SCHEMA|TABLE|VIEW|FUNCTION|TYPE)|^COMMENT'
            AND schema_name IS DISTINCT FROM 'pg_temp'
    ) THEN
        NOTIFY pgrst, 'reload schema';
    END IF;
END
$$;
CREATE EVENT TRIGGER pgrst_ddl_watch ON ddl_command_end EXECUTE FUNCTION extensions.pgrst_ddl_watch();
