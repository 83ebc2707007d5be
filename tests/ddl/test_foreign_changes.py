"""What belongs to the application, or is declared by nobody, is not reported."""

# SQL reads better in its own lines.
# ruff: noqa: E501

from collections.abc import Callable

import pytest

from tests.databases import Database
from tests.ddl.conftest import Shared
from tests.ddl.proof import Proof

_TABLE = (
    "CREATE TABLE steps (id bigserial PRIMARY KEY, execution_log_id bigint REFERENCES LOGS (id), note text)"
)
FOREIGN_CHANGES = {
    "table that refers to ours": _TABLE,
    "column of a foreign table": "ALTER TABLE organizations ADD COLUMN plan text",
    "column of profiles renamed": "ALTER TABLE profiles RENAME COLUMN role TO user_role",
    "index of a foreign table": "CREATE INDEX by_name ON organizations (name)",
    "policy of a foreign table": "CREATE POLICY everybody ON organizations USING (true)",
    "row security of a foreign table": "ALTER TABLE organizations DISABLE ROW LEVEL SECURITY",
    "grant on a foreign table": "GRANT SELECT ON organizations TO anon",
    "comment on a foreign table": "COMMENT ON TABLE organizations IS 'theirs'",
    "default of a foreign table": "ALTER TABLE organizations ALTER name SET DEFAULT ''",
    "CHECK of a foreign table": "ALTER TABLE organizations ADD CHECK (name <> '')",
    "trigger of a foreign table": "CREATE TRIGGER touch BEFORE UPDATE ON organizations FOR EACH ROW "
    "EXECUTE FUNCTION update_updated_at_column()",
    "trigger of the application on ours": "CREATE FUNCTION version_workflow() RETURNS trigger LANGUAGE plpgsql "
    "AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER trigger_auto_version_workflow BEFORE UPDATE ON DEFINITIONS "
    "FOR EACH ROW EXECUTE FUNCTION version_workflow()",
    "foreign key that the application added": "CREATE TABLE workflow_triggers (id uuid PRIMARY KEY); "
    "ALTER TABLE LOGS ADD CONSTRAINT workflow_execution_logs_trigger_id_fkey FOREIGN KEY (trigger_id) "
    "REFERENCES workflow_triggers",
    "foreign key to another schema": "CREATE SCHEMA auth; CREATE TABLE auth.users (id uuid PRIMARY KEY); "
    "ALTER TABLE DEFINITIONS ADD FOREIGN KEY (created_by) REFERENCES auth.users",
    "view of our table": "CREATE VIEW failed AS SELECT * FROM LOGS WHERE status = 'error'",
    "materialized view of our table": "CREATE MATERIALIZED VIEW counts AS SELECT count(*) FROM LOGS",
    "another schema": "CREATE SCHEMA reports; CREATE TABLE reports.daily (day date)",
    "function in public": "CREATE FUNCTION helper() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "body of the application's function": "CREATE OR REPLACE FUNCTION update_updated_at_column() RETURNS trigger "
    "LANGUAGE plpgsql AS 'BEGIN NEW.updated_at := now(); RETURN NEW; END'",
    "type in public": "CREATE TYPE mood AS ENUM ('good')",
    "storage parameter": "ALTER TABLE LOGS SET (autovacuum_vacuum_threshold = 500)",
    "fillfactor": "ALTER TABLE LOGS SET (fillfactor = 90)",
    "storage parameter of TOAST": "ALTER TABLE LOGS SET (toast.autovacuum_enabled = off)",
    "membership of roles": "GRANT authenticated TO authenticator",
    "comment on a policy": """COMMENT ON POLICY "Users can view workflow logs" ON LOGS IS 'of the dashboard'""",
    "comment on an index": "COMMENT ON INDEX idx_workflow_exec_org_time IS 'of the dashboard'",
    "comment on our schema": "COMMENT ON SCHEMA workflow_private IS 'private'",
    "publication": "CREATE PUBLICATION realtime FOR TABLE LOGS",
    "default privileges in public": "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO anon",
    "default privileges everywhere": "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO anon; "
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO anon; ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO anon",
    "value of the sequence": "SELECT setval('workflow_execution_logs_id_seq', 1000)",
    "planner's statistics": "ANALYZE LOGS",
    "unknown setting": "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''8MB''', current_database()); END $$",
    "rows": "UPDATE LOGS SET retry_count = 1",
}
_BY_SUPERUSER = ("membership of roles", "publication")


AT_ONCE = 6
_NAMES = list(FOREIGN_CHANGES)
_PARTS = [_NAMES[start : start + AT_ONCE] for start in range(0, len(_NAMES), AT_ONCE)]


@pytest.mark.parametrize("names", _PARTS, ids=", ".join)
def test_foreign_changes_are_not_reported(names: list[str], shared: Shared) -> None:
    database = shared.borrow()
    for name in names:
        change = (
            FOREIGN_CHANGES[name]
            .replace("DEFINITIONS", "workflow_definitions")
            .replace("LOGS", "workflow_execution_logs")
        )
        if name in _BY_SUPERUSER:
            database.execute(change, user=database.superuser)
        else:
            database.execute(change)
    # All of them together are no more than each of them.
    shared.clean = True

    assert shared.proof().generate().changes == ()


def test_there_are_twenty_five_of_them() -> None:
    assert len(FOREIGN_CHANGES) >= 25


def test_look_alikes_in_a_schema_of_the_search_path_are_not_taken_for_ours(
    upgraded: Database, prove: Callable[..., Proof]
) -> None:
    upgraded.execute(
        """
        CREATE SCHEMA auth;
        CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid';
        CREATE TABLE auth.organizations (id integer PRIMARY KEY);
        CREATE TABLE auth.workflow_definitions (id integer PRIMARY KEY);
        CREATE TABLE auth.workflow_execution_logs (id integer PRIMARY KEY, organization_id text);
        CREATE POLICY "Users can view workflow logs" ON auth.workflow_execution_logs USING (true);
        CREATE DOMAIN auth.text AS integer;
        """
    )
    for path in ("public, auth", "auth, public"):
        upgraded.execute(
            f"DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = {path}', current_database()); END $$"
        )
        assert prove(upgraded).generate().changes == ()
