"""What a tenant session costs: its transactions beside those of a plain session, in turn, in one run.

The plain session logs in as the owner, whom row-level security does not hold for, and names the organization
in its own statements. Part of `make bench`.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import Session
from sqlalchemy.sql import Select

from tests.server import Server
from workflow_models import WorkflowDefinition, WorkflowExecutionLog, migrations
from workflow_models.tenancy import TenantSession

OWNER, LOGIN = "app_owner", "authenticator"
ORGANIZATIONS = 200

BUILD = f"""
    INSERT INTO organizations (name) SELECT n FROM generate_series(1, {ORGANIZATIONS}) AS n;
    INSERT INTO profiles (id, organization_id) SELECT gen_random_uuid(), id FROM organizations;
    INSERT INTO workflow_definitions (
        organization_id, name, natural_language_prompt, workflow_json, trigger_type)
    SELECT id, 'Workflow ' || n, 'Do', '{{}}', 'manual' FROM organizations, generate_series(1, 5) AS n;
    INSERT INTO workflow_execution_logs (workflow_id, organization_id, status, created_at)
    SELECT id, organization_id, 'success', now() - n * interval '1 minute'
    FROM workflow_definitions, generate_series(1, 100) AS n;
    ANALYZE
"""

LATEST: Select[Any] = select(WorkflowExecutionLog).order_by(WorkflowExecutionLog.created_at.desc()).limit(20)
DEFINITIONS: Select[Any] = select(WorkflowDefinition.name)
# What a transaction reads.
TRANSACTIONS: dict[str, list[Select[Any]]] = {
    "names of 5 workflows": [DEFINITIONS],
    "latest 20 logs": [LATEST],
    "both, five times": [DEFINITIONS, LATEST] * 5,
}


def of_organization(statement: Select[Any], organization: UUID) -> Select[Any]:
    entity = statement.column_descriptions[0]["entity"]
    return statement.where(entity.organization_id == organization)


def measure(server: Server, rounds: int) -> dict[str, Any]:
    """Time each kind of session in turn; medians in microseconds, and their ratios to the plain session."""
    with psycopg.connect(
        host=server.host, port=server.port, user=server.user, dbname="postgres", autocommit=True
    ) as admin:
        admin.execute(f"CREATE DATABASE bench OWNER {OWNER}".encode())

    def url(user: str) -> str:
        return f"postgresql+psycopg://{user}@/bench?host={server.host}&port={server.port}"

    migrations.upgrade(url(OWNER))
    with psycopg.connect(url(OWNER).replace("+psycopg", "")) as connection:
        connection.execute(BUILD.encode())
        row = connection.execute("SELECT organization_id, id FROM profiles LIMIT 1").fetchone()
    assert row
    organization, user = row
    plain, tenants = create_engine(url(OWNER)), create_engine(url(LOGIN))
    sessions: dict[str, tuple[Callable[[], Session], bool]] = {
        "plain": (lambda: Session(plain), True),
        "user": (lambda: TenantSession(tenants, user=user), False),
        "worker": (lambda: TenantSession(tenants, organization=organization), False),
    }
    found = {
        name: in_turn(sessions, statements, organization, rounds) for name, statements in TRANSACTIONS.items()
    }
    dispose(plain, tenants)
    return {"rounds": rounds, "transactions": found}


def in_turn(
    sessions: dict[str, tuple[Callable[[], Session], bool]],
    statements: list[Select[Any]],
    organization: UUID,
    rounds: int,
) -> dict[str, dict[str, float]]:
    took: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, (open_session, names_organization) in sessions.items():
            asked = [of_organization(s, organization) if names_organization else s for s in statements]
            started = time.perf_counter()
            with open_session() as session:
                for statement in asked:
                    session.scalars(statement).all()
            took[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in took.items()}
    return {
        name: {"us": round(median * 1e6, 1), "ratio": round(median / medians["plain"], 2)}
        for name, median in medians.items()
    }


def dispose(*engines: Engine) -> None:
    for engine in engines:
        engine.dispose()


def as_table(found: dict[str, Any]) -> str:
    """Write the figures as Markdown."""
    lines = ["| a transaction that reads | plain | user | worker |", "|---|---|---|---|"]
    for name, kinds in found["transactions"].items():
        tenants = " | ".join(f"{kinds[kind]['ratio']:.2f}" for kind in ("user", "worker"))
        lines.append(f"| {name} | 1 ({kinds['plain']['us'] / 1000:.2f} ms) | {tenants} |")
    return "\n".join(lines) + "\n"
