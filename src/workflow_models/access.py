"""Who may do what: the roles, and the functions that policies and triggers call.

Identity comes from claims that the API has verified, and organization and role from ``profiles``; never
from ``user_metadata``, which users can edit. What is missing, empty, malformed or unknown is nobody.
"""

from sqlalchemy import Sequence

from .base import metadata
from .ddl import Function, GrantOn, Role, Schema

ANONYMOUS = "anon"
USER = "authenticated"
WORKER = "workflow_worker"
SERVICE = "service_role"

# The others are the application's: used where they exist, never created.
for _role in (USER, WORKER):
    Role(_role, metadata)

# (SELECT f()) is asked once a statement, a bare f() once a row.
#
# PostgreSQL takes a boolean function for true of a third of the rows, and then leaves an index that gives a
# large organization's latest rows in order; an expression that IS NOT NULL it takes for true of nearly all.
OWN_OR_SUPER_ADMIN = (
    "nullif(workflow_private.matches(organization_id, (SELECT workflow_private.identity())), false) "
    "IS NOT NULL"
)
ADMINISTERED = "organization_id = (SELECT workflow_private.administered_organization())"
WORKERS_OWN = "organization_id = (SELECT workflow_private.worker_organization())"

PRIVATE = Schema("workflow_private", metadata, usage=(USER, WORKER, SERVICE), if_exists=True)
# Who runs the models asks at which revision the database is.
GrantOn("SELECT", "alembic_version", metadata, schema=PRIVATE.name, to=(USER, WORKER, SERVICE))

# pg_temp is named, and last: unnamed it would be searched first, for types too.
_SEARCH_PATH = {"search_path": "pg_catalog, pg_temp"}
# Turns rows that a policy would hide from the owner into an error.
_SEES_ALL_ROWS = {**_SEARCH_PATH, "row_security": "off"}

# A user as {organization, role}; NULL is nobody. The column of the profile is role or user_role. A JSON
# text cannot be tried in PostgreSQL 15 without an exception, hence not parallel safe.
#
# What has been sealed when this transaction began is not looked up again.
IDENTITY = Function(
    "identity",
    metadata,
    schema=PRIVATE.name,
    returns="text[]",
    volatility="STABLE",
    security="DEFINER",
    settings=_SEES_ALL_ROWS,
    execute=USER,
    body="""
DECLARE
    subject text := nullif(current_setting('request.jwt.claim.sub', true), '');
    sealed text := current_setting('workflow.caller', true);
    caller text[];
BEGIN
    IF sealed <> '' THEN
        BEGIN
            IF left(sealed, 64) = workflow_private.seal(substr(sealed, 65)) THEN
                RETURN substr(sealed, 65)::text[];
            END IF;
        EXCEPTION WHEN object_not_in_prerequisite_state OR data_exception THEN
            NULL; -- it is forged: nothing has been sealed on this connection
        END;
    END IF;
    IF subject IS NULL THEN
        BEGIN
            subject := nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub';
        EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
            RETURN NULL;
        END;
    END IF;
    IF subject ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN
        SELECT ARRAY[
            profile.organization_id::text,
            coalesce(to_jsonb(profile) ->> 'user_role', to_jsonb(profile) ->> 'role')
        ]
        INTO caller FROM public.profiles AS profile WHERE profile.id = subject::uuid;
    END IF;
    RETURN caller;
END
""",
)

# What only the functions here know, another on each connection: its currval().
Sequence("session_secret", schema=PRIVATE.name, metadata=metadata)

# Holds for these claims in this transaction.
SEAL = Function(
    "seal",
    metadata,
    schema=PRIVATE.name,
    arguments="caller text",
    returns="text",
    settings=_SEARCH_PATH,
    body="""
BEGIN
    RETURN encode(sha256(convert_to(ARRAY[
        currval('workflow_private.session_secret')::text,
        current_setting('request.jwt.claim.sub', true),
        current_setting('request.jwt.claims', true),
        extract(epoch FROM now())::text,
        caller
    ]::text, 'UTF8')), 'hex');
END
""",
)

# For sessions: who asks, to be left in the setting workflow.caller; see docs/decisions/0005. NULL where it is
# to be looked up each time: for nobody, and where a standby or a read-only transaction can have no secret.
SEALED_IDENTITY = Function(
    "sealed_identity",
    metadata,
    schema=PRIVATE.name,
    returns="text",
    security="DEFINER",
    settings=_SEARCH_PATH,
    execute=USER,
    body="""
DECLARE
    caller text := workflow_private.identity()::text;
BEGIN
    IF caller IS NULL THEN
        RETURN NULL;
    END IF;
    BEGIN
        PERFORM currval('workflow_private.session_secret');
    EXCEPTION WHEN object_not_in_prerequisite_state THEN
        IF current_setting('transaction_read_only')::boolean THEN
            RETURN NULL;
        END IF;
        PERFORM setval('workflow_private.session_secret',
            ('x' || left(encode(sha256(uuid_send(gen_random_uuid())), 'hex'), 16))::bit(64)::bigint
                & 9223372036854775807 | 1);
    END;
    RETURN workflow_private.seal(caller) || caller;
END
""",
)

# Whether a row is for this caller. Not SQL, since PostgreSQL would inline it and, expecting few rows, leave
# the index. Asked once a row, so without SET; every operator and type is qualified instead.
MATCHES = Function(
    "matches",
    metadata,
    schema=PRIVATE.name,
    arguments="organization_id uuid, caller text[]",
    returns="boolean",
    volatility="STABLE",
    parallel="SAFE",
    execute=USER,
    body="""
BEGIN
    RETURN coalesce(organization_id OPERATOR(pg_catalog.=) caller[1]::pg_catalog.uuid, false)
        OR coalesce(caller[2] OPERATOR(pg_catalog.=) 'super_admin', false);
END
""",
)

ADMINISTERED_ORGANIZATION = Function(
    "administered_organization",
    metadata,
    schema=PRIVATE.name,
    returns="uuid",
    language="sql",
    volatility="STABLE",
    settings=_SEARCH_PATH,
    execute=USER,
    body="""
    SELECT caller[1]::uuid FROM workflow_private.identity() AS caller
    WHERE caller[2] IN ('admin', 'super_admin')
""",
)

# SQL without SET, so that PostgreSQL inlines it: each policy of a worker asks it once a statement. Every
# function, operator and type is qualified instead.
WORKER_ORGANIZATION = Function(
    "worker_organization",
    metadata,
    schema=PRIVATE.name,
    returns="uuid",
    language="sql",
    volatility="STABLE",
    parallel="SAFE",
    execute=WORKER,
    body="""
    SELECT CASE
        WHEN pg_catalog.current_setting('workflow.organization_id', true)
            OPERATOR(pg_catalog.~) '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'
        THEN pg_catalog.current_setting('workflow.organization_id', true)::pg_catalog.uuid
    END
""",
)

# For sessions, since a worker may not read organizations. Where our owner may not either, every one is taken
# to exist: of one that does not there are no rows.
WORKER_ORGANIZATION_EXISTS = Function(
    "worker_organization_exists",
    metadata,
    schema=PRIVATE.name,
    returns="boolean",
    volatility="STABLE",
    security="DEFINER",
    settings=_SEES_ALL_ROWS,
    execute=WORKER,
    body="""
BEGIN
    IF has_column_privilege('public.organizations', 'id', 'SELECT')
        AND NOT row_security_active('public.organizations')
    THEN
        RETURN EXISTS (
            SELECT FROM public.organizations AS organization
            WHERE organization.id = workflow_private.worker_organization()
        );
    END IF;
    RETURN true;
END
""",
)

# For writers that do not send the organization; a wrong value is for the foreign key to refuse. The lock
# holds off a move of the definition until the log is committed.
FILL_ORGANIZATION = Function(
    "fill_organization",
    metadata,
    schema=PRIVATE.name,
    returns="trigger",
    security="DEFINER",
    settings=_SEES_ALL_ROWS,
    body="""
BEGIN
    IF NEW.organization_id IS NULL
        OR TG_OP = 'UPDATE' AND NEW.organization_id IS NOT DISTINCT FROM OLD.organization_id
    THEN
        NEW.organization_id := (
            SELECT definition.organization_id FROM public.workflow_definitions AS definition
            WHERE definition.id = NEW.workflow_id FOR KEY SHARE
        );
    END IF;
    RETURN NEW;
END
""",
)

# The composite foreign key carries a move too, but not one from none: MATCH SIMPLE passes over logs without
# an organization.
CARRY_ORGANIZATION = Function(
    "carry_organization",
    metadata,
    schema=PRIVATE.name,
    returns="trigger",
    security="DEFINER",
    settings=_SEES_ALL_ROWS,
    body="""
BEGIN
    IF OLD.organization_id IS NULL AND current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a global workflow can be given an organization only in READ COMMITTED'
            USING ERRCODE = 'feature_not_supported',
                DETAIL = 'The snapshot of this transaction could miss a log that is being written.',
                HINT = 'Run the UPDATE in a transaction with isolation level READ COMMITTED.';
    END IF;
    UPDATE public.workflow_execution_logs AS log SET organization_id = NEW.organization_id
    WHERE log.workflow_id = NEW.id AND log.organization_id IS DISTINCT FROM NEW.organization_id;
    RETURN NULL;
END
""",
)

# The application's own, shared by its tables: made only where there is no application.
Function(
    "update_updated_at_column",
    metadata,
    returns="trigger",
    settings=_SEARCH_PATH,
    body=" BEGIN NEW.updated_at := now(); RETURN NEW; END ",
    if_missing=True,
)
