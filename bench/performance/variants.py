"""The databases that are compared: the same rows under other indexes, policies and functions.

Rows do not depend on the variant or on the machine: 2,000 organizations, of which the n-th has about 1/n of
the first one's logs; 10,000 workflows; 10,000 logs a day, the last one at `END`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import md5
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import Engine, create_engine

from tests.application import script
from tests.server import Server
from workflow_models import migrations

END = datetime(2026, 6, 1, tzinfo=UTC)
ORGANIZATIONS, WORKFLOWS, LOGS_A_DAY = 2_000, 10_000, 10_000
OWNER = "app_owner"

LIMIT, NESTED, SEED, OURS, BARE = "limit", "nested", "seed", "ours", "bare"

# For each reader the index that nothing beats, and none that no reader uses. What covers a whole answer is
# there too, although no table that is written could afford it: it holds `status`.
IDEAL_INDEXES = """
    CREATE INDEX ON workflow_execution_logs (organization_id, created_at DESC, id DESC);
    CREATE INDEX ON workflow_execution_logs (workflow_id, created_at DESC, id DESC);
    CREATE INDEX ON workflow_execution_logs (created_at DESC, id DESC);
    CREATE INDEX ON workflow_execution_logs (organization_id);
    CREATE INDEX ON workflow_execution_logs (organization_id, created_at) INCLUDE (status);
    CREATE INDEX ON workflow_execution_logs (created_at) INCLUDE (status);
    CREATE INDEX ON workflow_execution_logs (organization_id, created_at DESC, id DESC)
        WHERE status = 'error';
    CREATE INDEX ON workflow_execution_logs (workflow_id, created_at DESC, id DESC) WHERE status = 'error'
"""
_WITHOUT_ROW_SECURITY = """
    ALTER TABLE workflow_execution_logs DISABLE ROW LEVEL SECURITY;
    ALTER TABLE workflow_definitions DISABLE ROW LEVEL SECURITY;
    DROP INDEX idx_workflow_execution_logs_workflow_id, idx_workflow_execution_logs_status,
        idx_workflow_execution_logs_created_at
"""
_WITHOUT_GUARDS = """
    ALTER TABLE workflow_execution_logs DISABLE ROW LEVEL SECURITY,
        DROP CONSTRAINT workflow_execution_logs_workflow_id_fkey,
        DROP CONSTRAINT workflow_execution_logs_organization_id_fkey,
        DROP CONSTRAINT workflow_execution_logs_trigger_id_fkey
"""
_COLUMN = "ALTER TABLE workflow_execution_logs ADD COLUMN organization_id uuid"

# What each one makes of the application's tables; ours is the chain of revisions.
_SCRIPTS = {
    LIMIT: (_COLUMN, _WITHOUT_ROW_SECURITY, IDEAL_INDEXES),
    # With the column, so that all answer the same SELECT.
    NESTED: (_COLUMN,),
    SEED: (script("fix"), script("phase3")),
    OURS: (),
    # What is written to without a policy, a trigger or a foreign key, with as many indexes as the seed has.
    BARE: (script("fix"), script("phase3"), _WITHOUT_GUARDS),
}

# What docs/performance.md offers besides; in ours, where it changes nothing for anybody else.
SUPER_ADMIN_ROLE = "bench_super_admin"
_ROLE_OF_THEIR_OWN = f"""
    DO $$
    BEGIN
        IF to_regrole('{SUPER_ADMIN_ROLE}') IS NULL THEN
            CREATE ROLE {SUPER_ADMIN_ROLE} NOLOGIN IN ROLE authenticated;
        END IF;
    END $$;
    GRANT {SUPER_ADMIN_ROLE} TO authenticator;
    CREATE POLICY super_admins ON workflow_definitions FOR SELECT TO {SUPER_ADMIN_ROLE} USING (true);
    CREATE POLICY super_admins ON workflow_execution_logs FOR SELECT TO {SUPER_ADMIN_ROLE} USING (true)
"""

# The logarithm makes ranks of which the n-th is drawn with a chance of about 1/n.
_FILL = (
    "SELECT setseed(0.42)",
    f"""
    INSERT INTO organizations (id, name)
    SELECT md5('organization ' || n)::uuid, 'Organization ' || n FROM generate_series(1, {ORGANIZATIONS}) AS n
    """,
    f"""
    INSERT INTO auth.users (id)
    SELECT md5('user ' || n)::uuid FROM generate_series(1, {ORGANIZATIONS}) AS n
    UNION ALL SELECT md5('super admin')::uuid
    """,
    f"""
    INSERT INTO profiles (id, organization_id, role)
    SELECT md5('user ' || n)::uuid, md5('organization ' || n)::uuid, 'user'
    FROM generate_series(1, {ORGANIZATIONS}) AS n
    UNION ALL SELECT md5('super admin')::uuid, md5('organization 100')::uuid, 'super_admin'
    """,
    # Each organization has one, the first ones have most; one in fifty of the others is global.
    f"""
    CREATE TEMPORARY TABLE drawn AS
    SELECT n, md5('workflow ' || n)::uuid AS id,
        CASE WHEN n <= {ORGANIZATIONS} THEN n
            WHEN n % 50 = 0 THEN {ORGANIZATIONS + 1}
            ELSE floor(power({ORGANIZATIONS + 1}, random()))::integer
        END AS rank
    FROM generate_series(1, {WORKFLOWS}) AS n
    """,
    f"""
    INSERT INTO workflow_definitions (
        id, organization_id, name, natural_language_prompt, workflow_json, is_active, trigger_type,
        created_at)
    SELECT id, CASE WHEN rank <= {ORGANIZATIONS} THEN md5('organization ' || rank)::uuid END,
        'Workflow ' || n, 'Send a reminder to everyone whose invoice is due, and tell the team.',
        jsonb_build_object('steps', (SELECT jsonb_agg(jsonb_build_object('step', step, 'do', 'send_mail'))
            FROM generate_series(1, 10) AS step)),
        n % 4 > 0, 'schedule', timestamptz '{END}' - n * interval '1 hour'
    FROM drawn
    """,
    f"""
    INSERT INTO workflow_execution_logs (
        id, workflow_id, organization_id, execution_start, execution_end, status, trigger_data,
        execution_result, error_details, created_at, steps_details, duration_ms)
    SELECT n, workflow, CASE WHEN rank <= {ORGANIZATIONS} THEN md5('organization ' || rank)::uuid END,
        at, CASE WHEN status <> 'running' THEN at + interval '2 seconds' END, status,
        '{{"source": "schedule"}}',
        CASE WHEN status IN ('success', 'partial') THEN '{{"sent": 12, "message": "done"}}'::jsonb END,
        CASE WHEN status IN ('error', 'partial') THEN 'SMTPRecipientsRefused: mailbox unavailable' END, at,
        '[{{"step": 1, "status": "success"}}, {{"step": 2, "status": "success"}}]', 2000
    FROM (
        SELECT n, timestamptz '{END}' - (%(logs)s - n) * interval '1 day' / {LOGS_A_DAY} AS at, rank,
            workflows[firsts[rank] + floor(counts[rank] * power(random(), 2))::integer] AS workflow,
            -- The latest may still run.
            CASE WHEN n > %(logs)s - 200 AND luck < 0.5 THEN 'running'
                WHEN luck < 0.05 THEN 'error' WHEN luck < 0.06 THEN 'partial' ELSE 'success' END AS status
        FROM (
            SELECT n, random() AS luck, CASE WHEN random() < 0.02 THEN {ORGANIZATIONS + 1}
                ELSE floor(power({ORGANIZATIONS + 1}, random()))::integer END AS rank
            FROM generate_series(1, %(logs)s) AS n
        ) AS run
        CROSS JOIN (SELECT array_agg(id ORDER BY rank, n) AS workflows FROM drawn) AS w
        CROSS JOIN (
            SELECT array_agg(count ORDER BY rank) AS counts, array_agg(first ORDER BY rank) AS firsts
            FROM (SELECT rank, count(*)::integer AS count,
                (1 + sum(count(*)) OVER (ORDER BY rank) - count(*))::integer AS first
                FROM drawn GROUP BY rank) AS each
        ) AS c
    ) AS drawn_run
    """,
    "SELECT setval('workflow_execution_logs_id_seq', %(logs)s)",
    "DROP TABLE drawn",
)


@dataclass(frozen=True)
class Variant:
    """A filled database."""

    name: str
    server: Server
    database: str

    def connect(self, user: str | None = None) -> psycopg.Connection[Any]:
        """Connect for plain SQL, as superuser unless said otherwise."""
        return psycopg.connect(
            host=self.server.host, port=self.server.port, dbname=self.database,
            user=user or self.server.user, autocommit=True,
        )  # fmt: skip

    def url(self, user: str = OWNER) -> str:
        return f"postgresql+psycopg://{user}@/{self.database}?host={self.server.host}&port={self.server.port}"

    def engine(self, user: str) -> Engine:
        return create_engine(self.url(user))


def organization(rank: int) -> UUID:
    return _id(f"organization {rank}")


def user(rank: int) -> UUID:
    return _id(f"user {rank}")


def first_workflow(rank: int) -> UUID:
    """Each organization has at least this one."""
    return _id(f"workflow {rank}")


SUPER_ADMIN = UUID(md5(b"super admin", usedforsecurity=False).hexdigest())


def _id(name: str) -> UUID:
    return UUID(md5(name.encode(), usedforsecurity=False).hexdigest())


def build(server: Server, name: str, logs: int) -> Variant:
    """Create and fill a database; its tables are vacuumed and analyzed, as live ones are."""
    variant = Variant(name, server, f"{name}_{logs}")
    with psycopg.connect(
        host=server.host, port=server.port, dbname="postgres", user=server.user, autocommit=True
    ) as admin:
        admin.execute(f"CREATE DATABASE {variant.database} OWNER {OWNER}".encode())
    with variant.connect(OWNER) as connection:
        for statements in (script("base"), script("orchestration"), *_SCRIPTS[name]):
            connection.execute(statements.encode())
    if name == OURS:
        migrations.upgrade(variant.url())
        with variant.connect() as connection:
            connection.execute(_ROLE_OF_THEIR_OWN.encode())
    fill(variant, {"logs": logs})
    return variant


def fill(variant: Variant, parameters: Mapping[str, int]) -> None:
    with variant.connect() as connection:
        options = _options(connection)
        # Runs that have ended fill their pages; the room that a fill factor leaves is for their end.
        connection.execute("ALTER TABLE workflow_execution_logs SET (fillfactor = 100)")
        # Neither triggers nor foreign keys: the rows are as they would have them.
        connection.execute("SET session_replication_role = replica")
        # Else VACUUM finds rows whose commit may not be on disk yet, and marks no page all-visible.
        connection.execute("SET synchronous_commit = on")
        for statement in _FILL:
            connection.execute(statement.replace("%", "%%").replace("%%(", "%(").encode(), parameters)
        if "fillfactor" in options:
            connection.execute(
                f"ALTER TABLE workflow_execution_logs SET (fillfactor = {options['fillfactor']})".encode()
            )
    settle(variant)


def _options(connection: psycopg.Connection[Any]) -> dict[str, str]:
    return dict(
        connection.execute(
            "SELECT option_name, option_value FROM pg_options_to_table("
            "(SELECT reloptions FROM pg_class WHERE oid = 'workflow_execution_logs'::regclass))"
        ).fetchall()
    )


def settle(variant: Variant) -> None:
    """What autovacuum would have done by now."""
    with variant.connect() as connection:
        connection.execute("VACUUM (ANALYZE) workflow_execution_logs, workflow_definitions, profiles")
        connection.execute("VACUUM (ANALYZE) organizations, auth.users")
        connection.execute("CHECKPOINT")


def drop(variant: Variant) -> None:
    with psycopg.connect(
        host=variant.server.host, port=variant.server.port, dbname="postgres", user=variant.server.user,
        autocommit=True,
    ) as admin:  # fmt: skip
        admin.execute(f"DROP DATABASE {variant.database} WITH (FORCE)".encode())
