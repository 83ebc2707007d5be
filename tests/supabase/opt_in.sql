-- Since 30 October 2026 nothing new in public is for the API until it is granted. As Supabase announced it:
-- TRUNCATE, REFERENCES and TRIGGER on tables, and UPDATE on sequences, are still granted by default.

ALTER DEFAULT PRIVILEGES FOR ROLE supabase_postgres IN SCHEMA public
    REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLES FROM anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_postgres IN SCHEMA public
    REVOKE USAGE, SELECT ON SEQUENCES FROM anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_postgres IN SCHEMA public
    REVOKE EXECUTE ON FUNCTIONS FROM anon, authenticated, service_role, PUBLIC;
