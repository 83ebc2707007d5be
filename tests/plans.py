"""A table big enough that a plan means something, and the plans of what is sent to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event

from tests.databases import Database, template


@template("many_logs", base="adopted_upgraded")
def many_logs(database: Database) -> None:
    """20,000 more runs, of 20 organizations with 5 workflows each, and what the planner knows of them."""
    # A commit that may not be on disk yet is not visible to all, and index-only scans read the table then.
    database.execute(
        """
        SET synchronous_commit = on;
        INSERT INTO organizations (name) SELECT 'Organization ' || n FROM generate_series(1, 18) AS n;
        INSERT INTO workflow_definitions
            (organization_id, name, natural_language_prompt, workflow_json, trigger_type)
        SELECT id, 'Many', 'Do', '{}', 'manual' FROM organizations, generate_series(1, 5);
        INSERT INTO workflow_execution_logs (workflow_id, status, created_at, execution_start)
        SELECT id, CASE WHEN n % 100 = 0 THEN 'running' WHEN n % 10 = 0 THEN 'error' ELSE 'success' END,
            timestamptz '2025-01-01' + n * interval '1 hour', timestamptz '2025-01-01' + n * interval '1 hour'
        FROM workflow_definitions, generate_series(1, 200) AS n WHERE name = 'Many'
        """
    )
    database.execute("VACUUM ANALYZE workflow_execution_logs", user=database.superuser)
    database.execute("ANALYZE workflow_definitions")


@contextmanager
def explained(engine: Engine) -> Iterator[list[dict[str, Any]]]:
    """The plan of each statement about logs that is sent in the block, asked for just before it."""
    plans: list[dict[str, Any]] = []

    def explain(connection: Connection, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "workflow_execution_logs" in statement and statement.lstrip()[:6] in (
            "SELECT",
            "UPDATE",
            "DELETE",
        ):
            cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
            plans.append(cursor.fetchone()[0][0]["Plan"])

    event.listen(engine, "before_cursor_execute", explain)
    try:
        yield plans
    finally:
        event.remove(engine, "before_cursor_execute", explain)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan and all its parts."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def indexes(plan: dict[str, Any]) -> set[str]:
    return {node["Index Name"] for node in nodes(plan) if "Index Name" in node}


def scanned(plan: dict[str, Any]) -> set[str]:
    """The tables that it reads as a whole."""
    return {node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"}
