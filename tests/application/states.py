"""The states that an adopted database may be in, each a template to clone.

`STATES` are whole ones; `BY_HAND` are one of them each, with small changes that somebody made by hand.
Every one of them must end in the same schema.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from alembic.script import ScriptDirectory

from tests.application import script
from tests.databases import OWNER, Database, template
from workflow_models import migrations

STATES = ("adopted_base_only", "adopted", "fixed", "phase3", "half_fixed", "user_role")
"""Those that end alike; `stray` ends without the two CHECKs."""


@template("adopted_base_only")
def adopted_base_only(database: Database) -> None:
    """The application before its orchestration: five columns and `workflow_triggers` are not there."""
    database.execute(script("base"))
    database.execute(script("data"))


@template("adopted", base="adopted_base_only")
def adopted(database: Database) -> None:
    """The application before the fix."""
    database.execute(script("orchestration"))
    database.execute(script("orchestration_data"))


@template("fixed", base="adopted")
def fixed(database: Database) -> None:
    """The application after its hand-written fix."""
    database.execute(script("fix"))


@template("phase3", base="fixed")
def phase3(database: Database) -> None:
    """The application after all four hand-written migrations."""
    database.execute(script("phase3"))


@template("half_fixed", base="adopted")
def half_fixed(database: Database) -> None:
    """A fix that stopped half way: wrong and missing values, an INVALID and a wrong index, FORCE."""
    database.execute(script("half_fixed"))
    database.execute(
        """
        UPDATE pg_index SET indisvalid = false
        WHERE indexrelid = 'idx_workflow_execution_logs_organization_id'::regclass
        """,
        user=database.superuser,
    )


@template("user_role", base="adopted")
def user_role(database: Database) -> None:
    """The role of a profile stands in `user_role`, as production later had it."""
    database.execute(script("user_role"))


@template("stray", base="adopted")
def stray(database: Database) -> None:
    """Old rows with a status or a trigger type outside the lists."""
    database.execute(script("stray"))


for _state in (*STATES, "stray"):

    @template(f"{_state}_upgraded", base=_state)
    def upgraded(database: Database) -> None:
        """That state after `upgrade head`."""
        migrations.upgrade(database.url())


REVISIONS = [
    script.revision
    for script in reversed(list(ScriptDirectory(str(migrations.script_location())).walk_revisions()))
]
# Not those that hold work of later revisions: going down, that would be left over.
CLIMBERS = ("empty", "adopted_base_only", "adopted")


def at(state: str, revision: str) -> str:
    """The template of a database that was in that state and went up to that revision, one by one."""
    return f"{state}_at_{revision[:6]}"


def _climb(state: str, earlier: str | None, revision: str) -> None:
    @template(at(state, revision), base=at(state, earlier) if earlier else state)
    def climb(database: Database) -> None:
        migrations.upgrade(database.url(), revision)
        if state == "empty" and earlier is None:
            database.execute(script("rows"))


for _state in CLIMBERS:
    for _earlier, _revision in zip([None, *REVISIONS], REVISIONS, strict=False):
        _climb(_state, _earlier, _revision)


@dataclass(frozen=True)
class ByHand:
    """Changes made by hand over the state `base`, as its owner unless they need the superuser."""

    base: str
    changes: Mapping[str, str]

    def __str__(self) -> str:
        return ", ".join(self.changes)

    def apply(self, database: Database) -> None:
        with database.connect(database.superuser) as connection:
            for statements in self.changes.values():
                role = database.superuser if "pg_index" in statements else OWNER
                connection.execute(f"SET ROLE {role}; {statements}".encode())


def _combined(base: str, *kinds: Mapping[str, str]) -> Iterator[ByHand]:
    """Give databases that have one change of each kind, until all have been made."""
    for changes in zip_longest(*(kind.items() for kind in kinds)):
        yield ByHand(base, dict(change for change in changes if change))


_ORGANIZATION_ID = {
    "organization_id_not_null": """
        DELETE FROM workflow_execution_logs WHERE organization_id IS NULL;
        ALTER TABLE workflow_execution_logs ALTER COLUMN organization_id SET NOT NULL
    """,
    "organization_id_with_a_default": """
        ALTER TABLE workflow_execution_logs
            ALTER COLUMN organization_id SET DEFAULT 'c0000000-0000-4000-8000-000000000000'
    """,
    "organization_id_with_another_comment": """
        COMMENT ON COLUMN workflow_execution_logs.organization_id IS 'Tenant'
    """,
    "organization_id_without_a_comment": """
        COMMENT ON COLUMN workflow_execution_logs.organization_id IS NULL
    """,
    "organization_id_of_an_organization_that_is_gone": """
        ALTER TABLE workflow_execution_logs DROP CONSTRAINT workflow_execution_logs_organization_id_fkey;
        UPDATE workflow_execution_logs SET organization_id = gen_random_uuid() WHERE id % 10 = 0
    """,
    "organization_id_lost_in_some_rows": """
        UPDATE workflow_execution_logs SET organization_id = NULL WHERE id % 10 = 0
    """,
    "organization_id_in_logs_of_global_workflows": """
        UPDATE workflow_execution_logs SET organization_id = 'a0000000-0000-4000-8000-000000000000'
        WHERE organization_id IS NULL
    """,
}

_OTHER_COLUMNS = {
    "retry_count_without_a_default": """
        ALTER TABLE workflow_execution_logs ALTER COLUMN retry_count DROP DEFAULT
    """,
    "context_with_another_default": """
        ALTER TABLE workflow_execution_logs ALTER COLUMN context SET DEFAULT '{"v": 1}'
    """,
    "id_without_a_default": "ALTER TABLE workflow_execution_logs ALTER COLUMN id DROP DEFAULT",
    # As PostgreSQL has it since 18; before that it is lost.
    "not_null_that_is_not_valid": """
        ALTER TABLE workflow_execution_logs ALTER COLUMN status DROP NOT NULL;
        DO $$ BEGIN
            IF current_setting('server_version_num')::integer >= 180000 THEN
                EXECUTE 'ALTER TABLE workflow_execution_logs ADD NOT NULL status NOT VALID';
            END IF;
        END $$
    """,
    "primary_key_of_another_name": """
        ALTER TABLE workflow_execution_logs RENAME CONSTRAINT workflow_execution_logs_pkey TO "Runs of it"
    """,
    "table_with_another_comment": "COMMENT ON TABLE workflow_execution_logs IS 'Runs'",
}

_KEYS_TO_ORGANIZATIONS = {
    "key_to_organizations_missing": """
        ALTER TABLE workflow_execution_logs DROP CONSTRAINT workflow_execution_logs_organization_id_fkey
    """,
    "key_to_organizations_without_cascade": """
        ALTER TABLE workflow_execution_logs
            DROP CONSTRAINT workflow_execution_logs_organization_id_fkey,
            ADD FOREIGN KEY (organization_id) REFERENCES organizations(id)
    """,
    "key_to_organizations_not_valid": """
        ALTER TABLE workflow_execution_logs
            DROP CONSTRAINT workflow_execution_logs_organization_id_fkey,
            ADD FOREIGN KEY (organization_id) REFERENCES organizations(id) ON DELETE CASCADE NOT VALID
    """,
    "key_to_organizations_deferrable": """
        ALTER TABLE workflow_execution_logs
            DROP CONSTRAINT workflow_execution_logs_organization_id_fkey,
            ADD FOREIGN KEY (organization_id) REFERENCES organizations(id) ON DELETE CASCADE DEFERRABLE
    """,
    "key_to_organizations_is_a_unique_constraint": """
        UPDATE workflow_execution_logs SET organization_id = NULL;
        ALTER TABLE workflow_execution_logs
            DROP CONSTRAINT IF EXISTS workflow_execution_logs_organization_id_fkey,
            ADD CONSTRAINT workflow_execution_logs_organization_id_fkey UNIQUE (organization_id)
    """,
}

_KEYS_TO_DEFINITIONS = {
    "key_to_definitions_without_cascade": """
        ALTER TABLE workflow_execution_logs
            DROP CONSTRAINT workflow_execution_logs_workflow_id_fkey,
            ADD FOREIGN KEY (workflow_id) REFERENCES workflow_definitions(id)
    """,
    # As PostgreSQL has it since 18; before that it is enforced.
    "key_to_definitions_not_enforced": """
        ALTER TABLE workflow_execution_logs DROP CONSTRAINT workflow_execution_logs_workflow_id_fkey;
        DO $$ BEGIN
            EXECUTE 'ALTER TABLE workflow_execution_logs ADD FOREIGN KEY (workflow_id)
                REFERENCES workflow_definitions(id) ON DELETE CASCADE'
                || CASE WHEN current_setting('server_version_num')::integer >= 180000
                    THEN ' NOT ENFORCED' ELSE '' END;
        END $$
    """,
}

_KEYS_TO_NEIGHBOURS = {
    "keys_to_neighbours_with_other_actions": """
        ALTER TABLE workflow_definitions
            DROP CONSTRAINT workflow_definitions_created_by_fkey,
            ADD FOREIGN KEY (created_by) REFERENCES auth.users(id) ON DELETE SET NULL;
        ALTER TABLE workflow_execution_logs
            DROP CONSTRAINT workflow_execution_logs_trigger_id_fkey,
            ADD CONSTRAINT by_trigger FOREIGN KEY (trigger_id)
                REFERENCES workflow_triggers(id) ON DELETE CASCADE
    """,
}

_COMPOSITE_KEYS = {
    "composite_key_there_without_cascade": """
        ALTER TABLE workflow_definitions ADD UNIQUE (id, organization_id);
        ALTER TABLE workflow_execution_logs
            ADD FOREIGN KEY (workflow_id, organization_id)
                REFERENCES workflow_definitions(id, organization_id)
    """,
    "composite_key_there_not_valid": """
        ALTER TABLE workflow_definitions ADD UNIQUE (id, organization_id);
        UPDATE workflow_execution_logs SET organization_id = 'c0000000-0000-4000-8000-000000000000'
        WHERE id % 10 = 0;
        ALTER TABLE workflow_execution_logs
            ADD FOREIGN KEY (workflow_id, organization_id)
                REFERENCES workflow_definitions(id, organization_id)
                ON UPDATE CASCADE ON DELETE CASCADE NOT VALID
    """,
    "unique_key_there": "ALTER TABLE workflow_definitions ADD UNIQUE (id, organization_id)",
    "unique_key_there_deferrable": """
        ALTER TABLE workflow_definitions ADD UNIQUE (id, organization_id) DEFERRABLE
    """,
    "unique_key_there_over_other_columns": """
        ALTER TABLE workflow_definitions
            ADD CONSTRAINT workflow_definitions_id_organization_id_key UNIQUE (organization_id, id)
    """,
    "unique_key_there_as_a_bare_index": """
        CREATE UNIQUE INDEX workflow_definitions_id_organization_id_key
            ON workflow_definitions(id, organization_id)
    """,
    "unique_key_there_as_a_partial_index": """
        CREATE UNIQUE INDEX workflow_definitions_id_organization_id_key
            ON workflow_definitions(id, organization_id)
            WHERE is_active
    """,
    "unique_key_invalid": """
        CREATE UNIQUE INDEX workflow_definitions_id_organization_id_key
            ON workflow_definitions(id, organization_id);
        UPDATE pg_index SET indisvalid = false
        WHERE indexrelid = 'workflow_definitions_id_organization_id_key'::regclass
    """,
}

_STATUS_CHECKS = {
    "status_checked": """
        ALTER TABLE workflow_execution_logs
            ADD CHECK (status IN ('running', 'success', 'error', 'partial'))
    """,
    "status_checked_not_valid": """
        ALTER TABLE workflow_execution_logs
            ADD CHECK (status IN ('running', 'success', 'error', 'partial')) NOT VALID
    """,
    "status_checked_against_another_list": """
        ALTER TABLE workflow_execution_logs
            ADD CHECK (status IN ('running', 'success', 'error', 'partial', 'failed'))
    """,
}

_TRIGGER_TYPE_CHECKS = {
    "trigger_type_checked_not_valid": """
        ALTER TABLE workflow_definitions
            ADD CHECK (trigger_type IN ('manual', 'schedule', 'event', 'condition')) NOT VALID
    """,
    "trigger_type_checked_against_another_list": """
        ALTER TABLE workflow_definitions
            ADD CHECK (trigger_type IN ('manual', 'schedule', 'event', 'condition', 'webhook'))
    """,
}

_INDEXES = {
    "base_index_missing": "DROP INDEX idx_workflow_execution_logs_status",
    "base_index_in_the_other_direction": """
        DROP INDEX idx_workflow_execution_logs_created_at;
        CREATE INDEX idx_workflow_execution_logs_created_at ON workflow_execution_logs(created_at)
    """,
    "composite_index_unique": """
        CREATE UNIQUE INDEX idx_workflow_exec_org_time
            ON workflow_execution_logs(organization_id, created_at DESC)
            WHERE organization_id IS NOT NULL
    """,
    "composite_index_unique_where_organizations_are": """
        DROP INDEX IF EXISTS idx_workflow_exec_org_time;
        UPDATE workflow_execution_logs SET organization_id = NULL;
        CREATE UNIQUE INDEX idx_workflow_exec_org_time ON workflow_execution_logs(organization_id)
    """,
    "composite_index_without_its_predicate": """
        CREATE INDEX idx_workflow_exec_org_time ON workflow_execution_logs(organization_id, created_at DESC)
    """,
    "composite_index_with_a_fillfactor": """
        CREATE INDEX idx_workflow_exec_org_time ON workflow_execution_logs(organization_id, created_at DESC)
            WITH (fillfactor = 70) WHERE organization_id IS NOT NULL
    """,
    "composite_index_of_another_kind": """
        CREATE INDEX idx_workflow_exec_org_time ON workflow_execution_logs USING hash (created_at)
    """,
}

_INVALID = {
    "composite_index_invalid_and_wrong": """
        CREATE INDEX idx_failed_workflow_executions ON workflow_execution_logs(organization_id, created_at);
        UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_failed_workflow_executions'::regclass
    """,
    "composite_index_invalid_and_not_ready": """
        CREATE INDEX idx_workflow_exec_org_time ON workflow_execution_logs(organization_id, created_at DESC)
            WHERE organization_id IS NOT NULL;
        UPDATE pg_index SET indisvalid = false, indisready = false
        WHERE indexrelid = 'idx_workflow_exec_org_time'::regclass
    """,
}

_POLICIES = {
    "policies_missing": """
        DROP POLICY "Users can view workflow logs" ON workflow_execution_logs;
        DROP POLICY "System can insert workflow logs" ON workflow_execution_logs;
        DROP POLICY "Users can view organization workflows" ON workflow_definitions;
        DROP POLICY "Admins can delete workflows" ON workflow_definitions
    """,
    "policy_that_lets_everyone_read": """
        ALTER POLICY "Users can view workflow logs" ON workflow_execution_logs USING (true)
    """,
    "policy_for_another_command": """
        DROP POLICY "Users can view workflow logs" ON workflow_execution_logs;
        CREATE POLICY "Users can view workflow logs" ON workflow_execution_logs FOR ALL USING (true)
    """,
    "policy_that_restricts": """
        DROP POLICY "Users can view workflow logs" ON workflow_execution_logs;
        CREATE POLICY "Users can view workflow logs" ON workflow_execution_logs AS RESTRICTIVE FOR SELECT
            TO anon, authenticated USING (false)
    """,
    "policies_that_trust_user_metadata": """
        ALTER POLICY "Users can view workflow logs" ON workflow_execution_logs
            USING (organization_id::text = current_setting('request.jwt.claims')::jsonb
                -> 'user_metadata' ->> 'organization_id');
        ALTER POLICY "Users can view organization workflows" ON workflow_definitions
            USING (organization_id::text = current_setting('request.jwt.claims')::jsonb
                -> 'user_metadata' ->> 'organization_id')
    """,
    "row_security_off": """
        ALTER TABLE workflow_definitions DISABLE ROW LEVEL SECURITY;
        ALTER TABLE workflow_execution_logs DISABLE ROW LEVEL SECURITY
    """,
    "row_security_forced": """
        ALTER TABLE workflow_definitions FORCE ROW LEVEL SECURITY;
        ALTER TABLE workflow_execution_logs FORCE ROW LEVEL SECURITY
    """,
}

_TRIGGERS = {
    "updated_at_trigger_missing": """
        DROP TRIGGER update_workflow_definitions_updated_at ON workflow_definitions
    """,
    "updated_at_trigger_disabled": """
        ALTER TABLE workflow_definitions DISABLE TRIGGER update_workflow_definitions_updated_at
    """,
    "updated_at_trigger_with_another_function": """
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        DROP TRIGGER update_workflow_definitions_updated_at ON workflow_definitions;
        CREATE TRIGGER update_workflow_definitions_updated_at AFTER UPDATE ON workflow_definitions
            FOR EACH ROW EXECUTE FUNCTION touch()
    """,
}

_GRANTS = {
    "grants_missing": """
        REVOKE ALL ON workflow_definitions, workflow_execution_logs FROM anon, authenticated, service_role;
        REVOKE ALL ON SEQUENCE workflow_execution_logs_id_seq FROM anon, authenticated, service_role
    """,
    "grants_too_wide": """
        GRANT ALL ON workflow_definitions, workflow_execution_logs TO PUBLIC, anon, workflow_worker;
        GRANT ALL ON workflow_definitions TO authenticated WITH GRANT OPTION;
        GRANT ALL ON SEQUENCE workflow_execution_logs_id_seq TO PUBLIC, workflow_worker;
        GRANT UPDATE (status), SELECT (trigger_data) ON workflow_execution_logs TO anon, PUBLIC;
        GRANT UPDATE (organization_id) ON workflow_definitions TO workflow_worker
    """,
    "grants_made_by_default": """
        ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO anon;
        ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO anon, PUBLIC;
        ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC;
        ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO anon;
        ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO anon, PUBLIC
    """,
}

_PRIVATE_SCHEMA = {
    "private_schema_there": """
        CREATE SCHEMA workflow_private;
        GRANT ALL ON SCHEMA workflow_private TO PUBLIC, anon
    """,
    "private_functions_there_with_other_bodies": """
        CREATE SCHEMA workflow_private;
        CREATE FUNCTION workflow_private.worker_organization() RETURNS uuid
            LANGUAGE sql AS 'SELECT NULL::uuid';
        CREATE FUNCTION workflow_private.administered_organization() RETURNS uuid
            LANGUAGE sql AS 'SELECT NULL::uuid';
        CREATE FUNCTION workflow_private.identity() RETURNS text[]
            LANGUAGE sql AS $$ SELECT ARRAY[NULL, 'super_admin'] $$;
        GRANT EXECUTE ON FUNCTION workflow_private.worker_organization() TO anon
    """,
}

_TABLES = {
    "logs_missing": "DROP TABLE workflow_execution_logs CASCADE",
    "some_orchestration_columns": """
        ALTER TABLE workflow_execution_logs ADD COLUMN context jsonb, ADD COLUMN trigger_id uuid,
            ADD COLUMN retry_count integer
    """,
}

BY_HAND: Sequence[ByHand] = [
    *_combined(
        "fixed",
        _ORGANIZATION_ID,
        _OTHER_COLUMNS,
        _KEYS_TO_ORGANIZATIONS,
        _KEYS_TO_DEFINITIONS,
        _COMPOSITE_KEYS,
        _STATUS_CHECKS,
        _TRIGGER_TYPE_CHECKS,
        _INDEXES,
        _INVALID,
        _POLICIES,
        _TRIGGERS,
    ),
    *_combined("adopted", _KEYS_TO_NEIGHBOURS, _GRANTS, _PRIVATE_SCHEMA),
    *_combined("adopted_base_only", _TABLES),
]
