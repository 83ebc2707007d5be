"""Changes that somebody makes by hand in a database that stands as the models say."""

# SQL reads better in its own lines.
# ruff: noqa: E501

from dataclasses import dataclass

LOGS = "workflow_execution_logs"
DEFINITIONS = "workflow_definitions"


@dataclass(frozen=True)
class Change:
    """One change.

    :param sql: what is run, DEFINITIONS and LOGS standing for the tables.
    :param found: what autogenerate finds, as ``modify policy … on …``, likewise.
    :param as_superuser: whether the owner of the tables may not do it.
    :param repaired_by_superuser: whether the owner of the tables may not undo it, or not do it again.
    :param proven: False where a way back into such a state cannot be written as SQL.
    """

    sql: str
    found: tuple[str, ...]
    as_superuser: bool = False
    repaired_by_superuser: bool = False
    proven: bool = True


def _named(text: str) -> str:
    return text.replace("DEFINITIONS", DEFINITIONS).replace("LOGS", LOGS)


def change(sql: str, *found: str, **flags: bool) -> Change:
    return Change(_named(sql), tuple(map(_named, found)), **flags)


_VIEW = '"Users can view workflow logs"'
_VIEWED = "policy Users can view workflow logs on LOGS"
_POLICIES = {
    "everybody sees all": change(f"ALTER POLICY {_VIEW} ON LOGS USING (true)", f"modify {_VIEWED}"),
    "nobody sees any": change(f"ALTER POLICY {_VIEW} ON LOGS USING (false)", f"modify {_VIEWED}"),
    "another role sees": change(f"ALTER POLICY {_VIEW} ON LOGS TO anon", f"modify {_VIEWED}"),
    "one more role sees": change(f"ALTER POLICY {_VIEW} ON LOGS TO authenticated, anon", f"modify {_VIEWED}"),
    "PUBLIC sees": change(f"ALTER POLICY {_VIEW} ON LOGS TO PUBLIC", f"modify {_VIEWED}"),
    "policy for another command": change(
        f"DROP POLICY {_VIEW} ON LOGS; CREATE POLICY {_VIEW} ON LOGS FOR ALL TO authenticated "
        "USING (workflow_private.matches(organization_id, (SELECT workflow_private.identity())))",
        f"modify {_VIEWED}",
    ),
    "policy made restrictive": change(
        f"DROP POLICY {_VIEW} ON LOGS; CREATE POLICY {_VIEW} ON LOGS AS RESTRICTIVE FOR SELECT TO authenticated "
        "USING (workflow_private.matches(organization_id, (SELECT workflow_private.identity())))",
        f"modify {_VIEWED}",
    ),
    "function asked once a row": change(
        f"ALTER POLICY {_VIEW} ON LOGS USING (workflow_private.matches(organization_id, workflow_private.identity()))",
        f"modify {_VIEWED}",
    ),
    "policy dropped": change(f"DROP POLICY {_VIEW} ON LOGS", f"add {_VIEWED}"),
    "policy renamed": change(
        f"ALTER POLICY {_VIEW} ON LOGS RENAME TO viewers", f"add {_VIEWED}", "remove policy viewers on LOGS"
    ),
    "policy added": change(
        "CREATE POLICY backdoor ON DEFINITIONS FOR SELECT TO anon USING (true)",
        "remove policy backdoor on DEFINITIONS",
    ),
    "restrictive policy added": change(
        'CREATE POLICY "Not at night" ON DEFINITIONS AS RESTRICTIVE USING (is_active)',
        "remove policy Not at night on DEFINITIONS",
    ),
    "anything may be inserted": change(
        'ALTER POLICY "System can insert workflow logs" ON LOGS WITH CHECK (true)',
        "modify policy System can insert workflow logs on LOGS",
    ),
    "check removed from an update": change(
        'DROP POLICY "Admins can update workflows" ON DEFINITIONS; '
        'CREATE POLICY "Admins can update workflows" ON DEFINITIONS FOR UPDATE TO authenticated '
        "USING (organization_id = (SELECT workflow_private.administered_organization()))",
        "modify policy Admins can update workflows on DEFINITIONS",
    ),
}
_ROW_SECURITY = {
    "row security disabled": change(
        "ALTER TABLE LOGS DISABLE ROW LEVEL SECURITY", "modify row security on LOGS"
    ),
    "row security forced": change("ALTER TABLE LOGS FORCE ROW LEVEL SECURITY", "modify row security on LOGS"),
}
_INSERTED = "workflow_execution_logs_fill_organization_on_insert"
_TRIGGERS = {
    "trigger disabled": change(
        f"ALTER TABLE LOGS DISABLE TRIGGER {_INSERTED}", f"modify trigger {_INSERTED} on LOGS"
    ),
    "trigger for replicas only": change(
        f"ALTER TABLE LOGS ENABLE REPLICA TRIGGER {_INSERTED}", f"modify trigger {_INSERTED} on LOGS"
    ),
    "trigger always": change(
        f"ALTER TABLE LOGS ENABLE ALWAYS TRIGGER {_INSERTED}", f"modify trigger {_INSERTED} on LOGS"
    ),
    "application's trigger disabled": change(
        "ALTER TABLE DEFINITIONS DISABLE TRIGGER update_workflow_definitions_updated_at",
        "modify trigger update_workflow_definitions_updated_at on DEFINITIONS",
    ),
    "trigger calls another function": change(
        f"CREATE OR REPLACE TRIGGER {_INSERTED} BEFORE INSERT ON LOGS FOR EACH ROW "
        "WHEN (NEW.organization_id IS NULL) EXECUTE FUNCTION public.update_updated_at_column()",
        f"modify trigger {_INSERTED} on LOGS",
    ),
    "trigger with another WHEN": change(
        f"CREATE OR REPLACE TRIGGER {_INSERTED} BEFORE INSERT ON LOGS FOR EACH ROW "
        "WHEN (NEW.organization_id IS NOT NULL) EXECUTE FUNCTION workflow_private.fill_organization()",
        f"modify trigger {_INSERTED} on LOGS",
    ),
    "trigger without its WHEN": change(
        f"CREATE OR REPLACE TRIGGER {_INSERTED} BEFORE INSERT ON LOGS FOR EACH ROW "
        "EXECUTE FUNCTION workflow_private.fill_organization()",
        f"modify trigger {_INSERTED} on LOGS",
    ),
    "trigger at another time": change(
        f"CREATE OR REPLACE TRIGGER {_INSERTED} AFTER INSERT ON LOGS FOR EACH ROW "
        "WHEN (NEW.organization_id IS NULL) EXECUTE FUNCTION workflow_private.fill_organization()",
        f"modify trigger {_INSERTED} on LOGS",
    ),
    "trigger for one column": change(
        "CREATE OR REPLACE TRIGGER workflow_definitions_carry_organization AFTER UPDATE OF name ON DEFINITIONS "
        "FOR EACH ROW WHEN (OLD.organization_id IS DISTINCT FROM NEW.organization_id) "
        "EXECUTE FUNCTION workflow_private.carry_organization()",
        "modify trigger workflow_definitions_carry_organization on DEFINITIONS",
    ),
    "trigger dropped": change(f"DROP TRIGGER {_INSERTED} ON LOGS", f"add trigger {_INSERTED} on LOGS"),
    "trigger renamed": change(
        f"ALTER TRIGGER {_INSERTED} ON LOGS RENAME TO fill",
        f"add trigger {_INSERTED} on LOGS",
        "remove trigger fill on LOGS",
    ),
    "one more trigger calls our function": change(
        "CREATE TRIGGER again BEFORE UPDATE ON LOGS FOR EACH ROW "
        "EXECUTE FUNCTION workflow_private.fill_organization()",
        "remove trigger again on LOGS",
    ),
}
_IDENTITY = "workflow_private.identity()"
_IDENTITY_FOUND = f"modify function {_IDENTITY}"
_MATCHES = "workflow_private.matches(uuid, text[])"
_FUNCTIONS = {
    "function with another body": change(
        "CREATE OR REPLACE FUNCTION workflow_private.worker_organization() RETURNS uuid LANGUAGE plpgsql STABLE "
        "PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN NULL; END $$",
        "modify function workflow_private.worker_organization()",
    ),
    "function in another language": change(
        "CREATE OR REPLACE FUNCTION workflow_private.worker_organization() RETURNS uuid LANGUAGE sql STABLE "
        "PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$ SELECT NULL::uuid $$",
        "modify function workflow_private.worker_organization()",
    ),
    "function volatile": change(f"ALTER FUNCTION {_IDENTITY} VOLATILE", _IDENTITY_FOUND),
    "function immutable": change(f"ALTER FUNCTION {_IDENTITY} IMMUTABLE", _IDENTITY_FOUND),
    "function strict": change(f"ALTER FUNCTION {_MATCHES} STRICT", f"modify function {_MATCHES}"),
    "function as its caller": change(f"ALTER FUNCTION {_IDENTITY} SECURITY INVOKER", _IDENTITY_FOUND),
    "function as its owner": change(
        f"ALTER FUNCTION {_MATCHES} SECURITY DEFINER", f"modify function {_MATCHES}"
    ),
    "function without search_path": change(f"ALTER FUNCTION {_IDENTITY} RESET search_path", _IDENTITY_FOUND),
    "function with another search_path": change(
        f"ALTER FUNCTION {_IDENTITY} SET search_path = public", _IDENTITY_FOUND
    ),
    "function without row_security": change(
        f"ALTER FUNCTION {_IDENTITY} RESET row_security", _IDENTITY_FOUND
    ),
    "function with another setting": change(
        f"ALTER FUNCTION {_IDENTITY} SET work_mem = '1GB'", _IDENTITY_FOUND
    ),
    "function parallel safe": change(f"ALTER FUNCTION {_IDENTITY} PARALLEL SAFE", _IDENTITY_FOUND),
    "function cheap": change(f"ALTER FUNCTION {_IDENTITY} COST 1", _IDENTITY_FOUND),
    "function leakproof": change(
        f"ALTER FUNCTION {_MATCHES} LEAKPROOF",
        f"modify function {_MATCHES}",
        as_superuser=True,
        repaired_by_superuser=True,
    ),
    "function of another owner": change(
        f"ALTER FUNCTION {_IDENTITY} OWNER TO service_role",
        f"modify owner {_IDENTITY}",
        as_superuser=True,
        repaired_by_superuser=True,
    ),
    "everybody executes": change(
        f"GRANT EXECUTE ON FUNCTION {_IDENTITY} TO PUBLIC",
        f"remove grant PUBLIC: EXECUTE on {_IDENTITY}",
    ),
    "anon executes": change(
        f"GRANT EXECUTE ON FUNCTION {_IDENTITY} TO anon",
        f"remove grant anon: EXECUTE on {_IDENTITY}",
    ),
    "users may not execute": change(
        f"REVOKE EXECUTE ON FUNCTION {_IDENTITY} FROM authenticated",
        f"add grant authenticated: EXECUTE on {_IDENTITY}",
    ),
    "extra function": change(
        "CREATE FUNCTION workflow_private.everything() RETURNS integer LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
        "remove function workflow_private.everything()",
    ),
    "overload": change(
        "CREATE FUNCTION workflow_private.identity(subject uuid) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "remove function workflow_private.identity(uuid)",
    ),
    "procedure": change(
        "CREATE PROCEDURE workflow_private.tidy() LANGUAGE sql AS 'SELECT 1'",
        "remove function workflow_private.tidy()",
    ),
    "set-returning function": change(
        "CREATE FUNCTION workflow_private.many() RETURNS SETOF integer LANGUAGE sql ROWS 7 AS 'SELECT 1'",
        "remove function workflow_private.many()",
    ),
    "function dropped with its trigger": change(
        "DROP FUNCTION workflow_private.carry_organization() CASCADE",
        "add function workflow_private.carry_organization()",
        "add trigger workflow_definitions_carry_organization on DEFINITIONS",
    ),
    "function with another result": change(
        "DROP FUNCTION workflow_private.worker_organization() CASCADE; "
        "CREATE FUNCTION workflow_private.worker_organization() RETURNS text LANGUAGE sql AS 'SELECT NULL'",
        "modify function workflow_private.worker_organization()",
        "add policy Workers can view workflows on DEFINITIONS",
        "add policy Workers can update workflows on DEFINITIONS",
        "add policy Workers can view workflow logs on LOGS",
        "add policy Workers can insert workflow logs on LOGS",
        "add policy Workers can update workflow logs on LOGS",
    ),
    "argument of another name": change(
        f"DROP FUNCTION {_MATCHES} CASCADE; CREATE FUNCTION workflow_private.matches(id uuid, caller text[]) "
        "RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        f"modify function {_MATCHES}",
        "add policy Users can view organization workflows on DEFINITIONS",
        f"add {_VIEWED}",
        "add policy System can insert workflow logs on LOGS",
    ),
}
_SCHEMA = {
    "everybody uses the schema": change(
        "GRANT USAGE ON SCHEMA workflow_private TO PUBLIC", "remove grant PUBLIC: USAGE on workflow_private"
    ),
    "users create in the schema": change(
        "GRANT CREATE ON SCHEMA workflow_private TO authenticated",
        "remove grant authenticated: CREATE on workflow_private",
    ),
    "workers may not use the schema": change(
        "REVOKE USAGE ON SCHEMA workflow_private FROM workflow_worker",
        "add grant workflow_worker: USAGE on workflow_private",
    ),
    "schema of another owner": change(
        "ALTER SCHEMA workflow_private OWNER TO service_role",
        "modify owner on workflow_private",
        "add grant service_role: USAGE on workflow_private",
        as_superuser=True,
        repaired_by_superuser=True,
    ),
    "default privileges in the schema": change(
        "ALTER DEFAULT PRIVILEGES IN SCHEMA workflow_private GRANT EXECUTE ON FUNCTIONS TO anon",
        "remove default privilege app_owner gives anon: EXECUTE on FUNCTIONS on workflow_private",
    ),
    "table in the schema": change(
        "CREATE TABLE workflow_private.notes (note text)",
        "remove other object table workflow_private.notes",
        proven=False,
    ),
    "view in the schema": change(
        "CREATE VIEW workflow_private.everything AS SELECT * FROM LOGS",
        "remove other object view workflow_private.everything",
        proven=False,
    ),
    "domain in the schema": change(
        "CREATE DOMAIN workflow_private.uuid AS text",
        "remove other object type workflow_private.uuid",
        proven=False,
    ),
    "aggregate in the schema": change(
        "CREATE AGGREGATE workflow_private.total(integer) (SFUNC = int4pl, STYPE = integer)",
        "remove other object function workflow_private.total(integer)",
        proven=False,
    ),
}
_GRANTS = {
    "anon reads": change("GRANT SELECT ON LOGS TO anon", "remove grant anon: SELECT on LOGS"),
    "everybody reads": change("GRANT SELECT ON LOGS TO PUBLIC", "remove grant PUBLIC: SELECT on LOGS"),
    "an unknown role reads": change(
        "GRANT SELECT ON LOGS TO authenticator", "remove grant authenticator: SELECT on LOGS"
    ),
    "users truncate": change(
        "GRANT TRUNCATE ON LOGS TO authenticated", "remove grant authenticated: TRUNCATE on LOGS"
    ),
    "users may not read": change(
        "REVOKE SELECT ON LOGS FROM authenticated", "add grant authenticated: SELECT on LOGS"
    ),
    "anon reads a column": change(
        "GRANT SELECT (name) ON DEFINITIONS TO anon", "remove grant anon: SELECT (name) on DEFINITIONS"
    ),
    "workers may not update a column": change(
        "REVOKE UPDATE (status) ON LOGS FROM workflow_worker",
        "add grant workflow_worker: UPDATE (status) on LOGS",
    ),
    "users may grant on": change(
        "GRANT SELECT ON LOGS TO authenticated WITH GRANT OPTION",
        "modify grant authenticated: SELECT on LOGS",
    ),
    "users set the sequence": change(
        "GRANT UPDATE ON SEQUENCE workflow_execution_logs_id_seq TO authenticated",
        "remove grant authenticated: UPDATE on the sequence of id on LOGS",
    ),
    "workers may not use the sequence": change(
        "REVOKE USAGE ON SEQUENCE workflow_execution_logs_id_seq FROM workflow_worker",
        "add grant workflow_worker: USAGE on the sequence of id on LOGS",
    ),
    "users write the version": change(
        "GRANT UPDATE ON workflow_private.alembic_version TO authenticated",
        "remove grant authenticated: UPDATE on workflow_private.alembic_version",
    ),
    "workers may not read the version": change(
        "REVOKE SELECT ON workflow_private.alembic_version FROM workflow_worker",
        "add grant workflow_worker: SELECT on workflow_private.alembic_version",
    ),
}
_TIME = "idx_workflow_exec_org_time"
_TIME_FOUND = f"modify index {_TIME} on LOGS"


def _other_index(columns: str, rest: str = " WHERE organization_id IS NOT NULL", using: str = "") -> Change:
    return change(f"DROP INDEX {_TIME}; CREATE INDEX {_TIME} ON LOGS {using} ({columns}){rest}", _TIME_FOUND)


_INDEXES = {
    "index dropped": change(f"DROP INDEX {_TIME}", f"add index {_TIME} on LOGS"),
    "index added": change("CREATE INDEX slow ON LOGS (error_details)", "remove index slow on LOGS"),
    "index on an expression added": change(
        "CREATE INDEX folded ON DEFINITIONS (lower(name))", "remove index folded on DEFINITIONS"
    ),
    "index with another predicate": _other_index(
        "organization_id, created_at DESC", " WHERE status = 'failed'"
    ),
    "index without its predicate": _other_index("organization_id, created_at DESC", ""),
    "index in another order": _other_index("organization_id, created_at"),
    "index with NULLs elsewhere": _other_index("organization_id, created_at DESC NULLS LAST"),
    "index on other columns": _other_index("organization_id, execution_start DESC"),
    "index with its columns swapped": _other_index("created_at DESC, organization_id"),
    "index including a column": _other_index(
        "organization_id, created_at DESC", " INCLUDE (id) WHERE organization_id IS NOT NULL"
    ),
    "index with a fillfactor": _other_index(
        "organization_id, created_at DESC", " WITH (fillfactor = 70) WHERE organization_id IS NOT NULL"
    ),
    "index without deduplication": _other_index(
        "organization_id, created_at DESC",
        " WITH (deduplicate_items = off) WHERE organization_id IS NOT NULL",
    ),
    "index with another operator class": change(
        "DROP INDEX idx_active_workflows; CREATE INDEX idx_active_workflows ON DEFINITIONS "
        "(organization_id, name text_pattern_ops) WHERE is_active AND organization_id IS NOT NULL",
        "modify index idx_active_workflows on DEFINITIONS",
    ),
    "index with another collation": change(
        "DROP INDEX idx_active_workflows; CREATE INDEX idx_active_workflows ON DEFINITIONS "
        """(organization_id, name COLLATE "POSIX") WHERE is_active AND organization_id IS NOT NULL""",
        "modify index idx_active_workflows on DEFINITIONS",
    ),
    "index of another method": change(
        "DROP INDEX idx_workflow_execution_logs_organization_id; "
        "CREATE INDEX idx_workflow_execution_logs_organization_id ON LOGS USING hash (organization_id)",
        "modify index idx_workflow_execution_logs_organization_id on LOGS",
    ),
    "index made unique": change(
        "DROP INDEX idx_workflow_definitions_organization_id; "
        "CREATE UNIQUE INDEX idx_workflow_definitions_organization_id ON DEFINITIONS (organization_id, id)",
        "modify index idx_workflow_definitions_organization_id on DEFINITIONS",
    ),
    "unique index where NULLs are equal": change(
        "CREATE UNIQUE INDEX once ON DEFINITIONS (id, created_by) NULLS NOT DISTINCT",
        "remove index once on DEFINITIONS",
    ),
    "statistics target of an index": change(
        "DROP INDEX idx_active_workflows; CREATE INDEX idx_active_workflows ON DEFINITIONS (lower(name)); "
        "ALTER INDEX idx_active_workflows ALTER COLUMN 1 SET STATISTICS 500",
        "modify index idx_active_workflows on DEFINITIONS",
    ),
    "index renamed": change(
        f"ALTER INDEX {_TIME} RENAME TO by_time", f"add index {_TIME} on LOGS", "remove index by_time on LOGS"
    ),
    "index INVALID": change(
        f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{_TIME}'::regclass",
        _TIME_FOUND,
        as_superuser=True,
        proven=False,
    ),
    "another storage parameter": change(
        "ALTER TABLE LOGS SET (autovacuum_vacuum_scale_factor = 0.2)",
        "modify storage parameter autovacuum_vacuum_scale_factor on LOGS",
    ),
    "storage parameter lost": change(
        "ALTER TABLE LOGS RESET (autovacuum_vacuum_scale_factor)",
        "add storage parameter autovacuum_vacuum_scale_factor on LOGS",
    ),
    "table clustered": change(
        "ALTER TABLE LOGS CLUSTER ON idx_workflow_execution_logs_organization_id", "modify clustering on LOGS"
    ),
}
_TO_ORGANIZATION = "workflow_execution_logs_organization_id_fkey"
_PAIR = "workflow_execution_logs_workflow_id_organization_id_fkey"
_STATUS = "workflow_execution_logs_status_check"


def _other_key(rest: str, to: str = "organizations (id)") -> Change:
    return change(
        f"ALTER TABLE LOGS DROP CONSTRAINT {_TO_ORGANIZATION}; "
        f"ALTER TABLE LOGS ADD CONSTRAINT {_TO_ORGANIZATION} FOREIGN KEY (organization_id) REFERENCES {to} {rest}",
        f"modify foreign key {_TO_ORGANIZATION} on LOGS",
    )


_CONSTRAINTS = {
    "CHECK with another expression": change(
        f"ALTER TABLE LOGS DROP CONSTRAINT {_STATUS}; ALTER TABLE LOGS ADD CONSTRAINT {_STATUS} "
        "CHECK (status IN ('running', 'success', 'error', 'partial', 'failed'))",
        f"modify check constraint {_STATUS} on LOGS",
    ),
    "CHECK dropped": change(
        f"ALTER TABLE LOGS DROP CONSTRAINT {_STATUS}", f"add check constraint {_STATUS} on LOGS"
    ),
    "CHECK added": change(
        "ALTER TABLE LOGS ADD CONSTRAINT brief CHECK (duration_ms < 1000000)",
        "remove check constraint brief on LOGS",
    ),
    "CHECK not validated": change(
        f"ALTER TABLE LOGS DROP CONSTRAINT {_STATUS}; ALTER TABLE LOGS ADD CONSTRAINT {_STATUS} "
        "CHECK (status IN ('running', 'success', 'error', 'partial')) NOT VALID",
        f"modify check constraint {_STATUS} on LOGS",
    ),
    "CHECK not inherited": change(
        f"ALTER TABLE LOGS DROP CONSTRAINT {_STATUS}; ALTER TABLE LOGS ADD CONSTRAINT {_STATUS} "
        "CHECK (status IN ('running', 'success', 'error', 'partial')) NO INHERIT",
        f"modify check constraint {_STATUS} on LOGS",
    ),
    "CHECK renamed": change(
        f"ALTER TABLE LOGS RENAME CONSTRAINT {_STATUS} TO states",
        f"add check constraint {_STATUS} on LOGS",
        "remove check constraint states on LOGS",
    ),
    "foreign key dropped": change(
        f"ALTER TABLE LOGS DROP CONSTRAINT {_TO_ORGANIZATION}", f"add foreign key {_TO_ORGANIZATION} on LOGS"
    ),
    "foreign key without its action": _other_key(""),
    "foreign key with another action": _other_key("ON DELETE SET NULL"),
    "foreign key not validated": _other_key("ON DELETE CASCADE NOT VALID"),
    "foreign key to another table": _other_key("ON DELETE CASCADE", "profiles (id)"),
    "foreign key deferrable": change(
        f"ALTER TABLE LOGS ALTER CONSTRAINT {_TO_ORGANIZATION} DEFERRABLE INITIALLY DEFERRED",
        f"modify foreign key {_TO_ORGANIZATION} on LOGS",
    ),
    "foreign key without a column": change(
        f"ALTER TABLE LOGS DROP CONSTRAINT {_PAIR}; ALTER TABLE LOGS ADD CONSTRAINT {_PAIR} "
        "FOREIGN KEY (workflow_id) REFERENCES DEFINITIONS ON UPDATE CASCADE ON DELETE CASCADE",
        f"modify foreign key {_PAIR} on LOGS",
    ),
    "foreign key that carries nothing": change(
        f"ALTER TABLE LOGS DROP CONSTRAINT {_PAIR}; ALTER TABLE LOGS ADD CONSTRAINT {_PAIR} "
        "FOREIGN KEY (workflow_id, organization_id) REFERENCES DEFINITIONS (id, organization_id) "
        "ON DELETE CASCADE",
        f"modify foreign key {_PAIR} on LOGS",
    ),
    "foreign key not enforced": change(
        f"""DO $$ DECLARE name text; BEGIN
            FOR name IN SELECT tgname FROM pg_trigger JOIN pg_constraint AS c ON c.oid = tgconstraint
                WHERE conname = '{_TO_ORGANIZATION}' AND tgrelid = 'LOGS'::regclass AND tgfoid = '"RI_FKey_check_ins"'::regproc
            LOOP EXECUTE format('ALTER TABLE LOGS DISABLE TRIGGER %I', name); END LOOP;
        END $$""",
        f"modify foreign key {_TO_ORGANIZATION} on LOGS",
        as_superuser=True,
        repaired_by_superuser=True,
    ),
    "unique constraint dropped with its foreign key": change(
        "ALTER TABLE DEFINITIONS DROP CONSTRAINT workflow_definitions_id_organization_id_key CASCADE",
        "add unique constraint workflow_definitions_id_organization_id_key on DEFINITIONS",
        f"add foreign key {_PAIR} on LOGS",
    ),
    "unique constraint deferrable": change(
        "ALTER TABLE DEFINITIONS DROP CONSTRAINT workflow_definitions_id_organization_id_key CASCADE; "
        "ALTER TABLE DEFINITIONS ADD CONSTRAINT workflow_definitions_id_organization_id_key "
        "UNIQUE (id, organization_id) DEFERRABLE",
        "modify unique constraint workflow_definitions_id_organization_id_key on DEFINITIONS",
        f"add foreign key {_PAIR} on LOGS",
    ),
    "unique constraint added": change(
        "ALTER TABLE DEFINITIONS ADD CONSTRAINT twice UNIQUE (id, name)",
        "remove unique constraint twice on DEFINITIONS",
    ),
    "primary key dropped": change(
        "ALTER TABLE LOGS DROP CONSTRAINT workflow_execution_logs_pkey",
        "add primary key workflow_execution_logs_pkey on LOGS",
    ),
    "primary key with one more column": change(
        "ALTER TABLE LOGS DROP CONSTRAINT workflow_execution_logs_pkey; "
        "ALTER TABLE LOGS ADD CONSTRAINT workflow_execution_logs_pkey PRIMARY KEY (id, workflow_id)",
        "modify primary key workflow_execution_logs_pkey on LOGS",
    ),
    "primary key renamed": change(
        "ALTER TABLE DEFINITIONS RENAME CONSTRAINT workflow_definitions_pkey TO pk",
        "add primary key workflow_definitions_pkey on DEFINITIONS",
        "remove primary key pk on DEFINITIONS",
    ),
    "unique constraint renamed": change(
        "ALTER TABLE DEFINITIONS RENAME CONSTRAINT workflow_definitions_id_organization_id_key TO pair",
        "add unique constraint workflow_definitions_id_organization_id_key on DEFINITIONS",
        "remove unique constraint pair on DEFINITIONS",
    ),
    "primary key with a fillfactor": change(
        "ALTER INDEX workflow_execution_logs_pkey SET (fillfactor = 70)",
        "modify primary key workflow_execution_logs_pkey on LOGS",
    ),
    "no trigger fires": change(
        "ALTER TABLE DEFINITIONS DISABLE TRIGGER ALL",
        "modify trigger update_workflow_definitions_updated_at on DEFINITIONS",
        "modify trigger workflow_definitions_carry_organization on DEFINITIONS",
        "modify foreign key workflow_definitions_organization_id_fkey on DEFINITIONS",
        f"modify foreign key {_PAIR} on LOGS",
        "modify foreign key workflow_execution_logs_workflow_id_fkey on LOGS",
        as_superuser=True,
        repaired_by_superuser=True,
    ),
    "exclusion constraint added": change(
        "ALTER TABLE LOGS ADD CONSTRAINT alone EXCLUDE USING btree (id WITH =)",
        "remove exclusion constraint alone on LOGS",
    ),
}
_COLUMNS = {
    "column added": change("ALTER TABLE LOGS ADD COLUMN note text", "remove column note on LOGS"),
    "column dropped": change(
        "ALTER TABLE LOGS DROP COLUMN duration_ms",
        "add column duration_ms on LOGS",
        "add grant workflow_worker: UPDATE (duration_ms) on LOGS",
    ),
    "column renamed": change(
        "ALTER TABLE LOGS RENAME COLUMN duration_ms TO duration",
        "add column duration_ms on LOGS",
        "remove column duration on LOGS",
        "add grant workflow_worker: UPDATE (duration_ms) on LOGS",
        "remove grant workflow_worker: UPDATE (duration) on LOGS",
    ),
    "column wider": change(
        "ALTER TABLE LOGS ALTER duration_ms TYPE bigint", "modify type duration_ms on LOGS"
    ),
    "column with a length": change(
        "ALTER TABLE DEFINITIONS ALTER description TYPE varchar(200)",
        "modify type description on DEFINITIONS",
    ),
    "column without a time zone": change(
        "ALTER TABLE LOGS ALTER execution_end TYPE timestamp", "modify type execution_end on LOGS"
    ),
    "column with a precision": change(
        "ALTER TABLE LOGS ALTER execution_end TYPE timestamptz(3)", "modify type execution_end on LOGS"
    ),
    "json instead of jsonb": change(
        "ALTER TABLE LOGS ALTER trigger_data TYPE json USING trigger_data::json",
        "modify type trigger_data on LOGS",
    ),
    "column with another collation": change(
        """ALTER TABLE DEFINITIONS ALTER description TYPE text COLLATE "POSIX" """,
        "modify type description on DEFINITIONS",
    ),
    "column may not be NULL": change(
        "ALTER TABLE DEFINITIONS ALTER trigger_config SET NOT NULL",
        "modify not null trigger_config on DEFINITIONS",
    ),
    "column may be NULL": change(
        "ALTER TABLE DEFINITIONS ALTER name DROP NOT NULL", "modify not null name on DEFINITIONS"
    ),
    "another default": change(
        "ALTER TABLE DEFINITIONS ALTER is_active SET DEFAULT true", "modify default is_active on DEFINITIONS"
    ),
    "default dropped": change(
        "ALTER TABLE DEFINITIONS ALTER id DROP DEFAULT", "add default id on DEFINITIONS"
    ),
    "default added": change(
        "ALTER TABLE DEFINITIONS ALTER description SET DEFAULT ''",
        "remove default description on DEFINITIONS",
    ),
    "default of an organization": change(
        "ALTER TABLE DEFINITIONS ALTER organization_id SET DEFAULT '00000000-0000-0000-0000-000000000001'",
        "remove default organization_id on DEFINITIONS",
    ),
    "serial's default dropped": change("ALTER TABLE LOGS ALTER id DROP DEFAULT", "add default id on LOGS"),
    "generated column": change(
        "ALTER TABLE LOGS DROP COLUMN trigger_id; "
        "ALTER TABLE LOGS ADD COLUMN trigger_id uuid GENERATED ALWAYS AS (workflow_id) STORED; "
        "COMMENT ON COLUMN LOGS.trigger_id IS 'The trigger that started it, a row of workflow_triggers'",
        "remove generated column trigger_id on LOGS",
        "add index idx_workflow_execution_logs_trigger_id on LOGS",
    ),
    "identity column": change(
        "ALTER TABLE LOGS ALTER retry_count DROP DEFAULT; ALTER TABLE LOGS ALTER retry_count SET NOT NULL; "
        "ALTER TABLE LOGS ALTER retry_count ADD GENERATED BY DEFAULT AS IDENTITY",
        "add default retry_count on LOGS",
        "modify not null retry_count on LOGS",
        "remove identity retry_count on LOGS",
        "remove identity sequence workflow_execution_logs_retry_count_seq on LOGS",
    ),
    "storage": change(
        "ALTER TABLE LOGS ALTER context SET STORAGE EXTERNAL", "modify storage context on LOGS"
    ),
    "compression": change(
        "ALTER TABLE LOGS ALTER context SET COMPRESSION pglz", "modify compression context on LOGS"
    ),
    "statistics target of a column": change(
        "ALTER TABLE LOGS ALTER workflow_id SET STATISTICS 1", "modify statistics target workflow_id on LOGS"
    ),
    "n_distinct": change(
        "ALTER TABLE LOGS ALTER organization_id SET (n_distinct = 5)",
        "modify column option n_distinct of organization_id on LOGS",
    ),
    "comment on a column": change(
        "COMMENT ON COLUMN LOGS.status IS 'failed, or not'", "modify column comment status on LOGS"
    ),
    "no comment on a column": change(
        "COMMENT ON COLUMN LOGS.status IS NULL", "modify column comment status on LOGS"
    ),
}
_TABLE = {
    "comment on a table": change("COMMENT ON TABLE LOGS IS 'old'", "modify table comment on LOGS"),
    "unlogged": change("ALTER TABLE LOGS SET UNLOGGED", "modify persistence on LOGS"),
    "replica identity": change("ALTER TABLE LOGS REPLICA IDENTITY FULL", "modify replica identity on LOGS"),
    "replica identity by an index": change(
        "ALTER TABLE LOGS REPLICA IDENTITY USING INDEX workflow_execution_logs_pkey",
        "modify replica identity on LOGS",
    ),
    "child table": change(
        "CREATE TABLE archived () INHERITS (LOGS)",
        "remove inheritance archived of LOGS on LOGS",
    ),
    "parent table": change(
        "CREATE TABLE everything (status text); ALTER TABLE LOGS INHERIT everything",
        "remove inheritance LOGS of everything on LOGS",
    ),
    "rule": change("CREATE RULE lost AS ON DELETE TO LOGS DO INSTEAD NOTHING", "remove rule lost on LOGS"),
    "table of another owner": change(
        "ALTER TABLE LOGS OWNER TO anon",
        "modify owner on LOGS",
        as_superuser=True,
        repaired_by_superuser=True,
    ),
    "statistics dropped": change(
        "DROP STATISTICS workflow_execution_logs_workflow_id_organization_id_stat",
        "add statistics workflow_execution_logs_workflow_id_organization_id_stat on LOGS",
    ),
    "other statistics": change(
        "DROP STATISTICS workflow_execution_logs_workflow_id_organization_id_stat; "
        "CREATE STATISTICS workflow_execution_logs_workflow_id_organization_id_stat (mcv) "
        "ON workflow_id, organization_id FROM LOGS",
        "modify statistics workflow_execution_logs_workflow_id_organization_id_stat on LOGS",
    ),
    "statistics added": change(
        "CREATE STATISTICS more ON status, workflow_id FROM LOGS", "remove statistics more on LOGS"
    ),
    "statistics of another owner": change(
        "ALTER STATISTICS workflow_execution_logs_workflow_id_organization_id_stat OWNER TO service_role",
        "modify owner workflow_execution_logs_workflow_id_organization_id_stat on LOGS",
        as_superuser=True,
        repaired_by_superuser=True,
    ),
    "target of statistics": change(
        "ALTER STATISTICS workflow_execution_logs_workflow_id_organization_id_stat SET STATISTICS 10",
        "modify statistics workflow_execution_logs_workflow_id_organization_id_stat on LOGS",
    ),
}
_ID = "workflow_execution_logs_id_seq"
_SEQUENCES = {
    "sequence in larger steps": change(
        f"ALTER SEQUENCE {_ID} INCREMENT 10", f"modify sequence {_ID} on LOGS"
    ),
    "sequence starts again": change(f"ALTER SEQUENCE {_ID} CYCLE", f"modify sequence {_ID} on LOGS"),
    "sequence with a cache": change(f"ALTER SEQUENCE {_ID} CACHE 50", f"modify sequence {_ID} on LOGS"),
    "sequence that ends": change(f"ALTER SEQUENCE {_ID} MAXVALUE 1000000", f"modify sequence {_ID} on LOGS"),
    "sequence owned by nothing": change(
        f"ALTER SEQUENCE {_ID} OWNED BY NONE", f"modify sequence {_ID} on LOGS"
    ),
    "sequence of a smaller type": change(
        f"ALTER SEQUENCE {_ID} AS integer", f"modify sequence {_ID} on LOGS"
    ),
    "sequence that a crash empties": change(
        f"ALTER SEQUENCE {_ID} SET UNLOGGED", f"remove sequence persistence {_ID} on LOGS"
    ),
    "sequence renamed": change(
        f"ALTER SEQUENCE {_ID} RENAME TO numbers",
        f"add sequence {_ID} on LOGS",
        "remove sequence numbers on LOGS",
        "modify default id on LOGS",
    ),
    "sequence dropped": change(
        f"DROP SEQUENCE {_ID} CASCADE",
        f"add sequence {_ID} on LOGS",
        "add default id on LOGS",
        "add grant authenticated: USAGE on the sequence of id on LOGS",
        "add grant workflow_worker: USAGE on the sequence of id on LOGS",
        "add grant service_role: USAGE on the sequence of id on LOGS",
    ),
}
_SETTINGS = {
    "everybody has an identity": change(
        """DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET "request.jwt.claims" = ''{"sub": "1"}''',
        current_database()); END $$""",
        "remove setting request.jwt.claims on the database",
        as_superuser=True,
        repaired_by_superuser=True,
    ),
    "a role has an organization": change(
        "ALTER ROLE workflow_worker SET workflow.organization_id = '00000000-0000-0000-0000-000000000001'",
        "remove setting workflow.organization_id on role workflow_worker",
        as_superuser=True,
        repaired_by_superuser=True,
    ),
    "a role has a subject here": change(
        """DO $$ BEGIN EXECUTE format('ALTER ROLE authenticator IN DATABASE %I SET request.jwt.claim.sub = ''1''',
        current_database()); END $$""",
        "remove setting request.jwt.claim.sub on role authenticator in the database",
        as_superuser=True,
        repaired_by_superuser=True,
    ),
    "triggers do not fire": change(
        """DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET session_replication_role = replica',
        current_database()); END $$""",
        "remove setting session_replication_role on the database",
        as_superuser=True,
        repaired_by_superuser=True,
    ),
}

HAND_CHANGES = {
    **_POLICIES,
    **_ROW_SECURITY,
    **_TRIGGERS,
    **_FUNCTIONS,
    **_SCHEMA,
    **_GRANTS,
    **_INDEXES,
    **_CONSTRAINTS,
    **_COLUMNS,
    **_TABLE,
    **_SEQUENCES,
    **_SETTINGS,
}
