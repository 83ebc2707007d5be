"""What Python costs: importing the models, writing many logs at once, upgrading an empty database."""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import insert

from bench.performance.plans import interleaved
from bench.performance.variants import END, OWNER, Variant, organization
from tests.server import Server
from workflow_models import ExecutionStatus, WorkflowExecutionLog, migrations
from workflow_models.tenancy import TenantSessionmaker

ROOT = Path(__file__).parents[2]
_PACKAGE = "sqlalchemy.dialects.postgresql"
IMPORTS = {
    "sqlalchemy.orm": "import sqlalchemy.orm",
    "sqlalchemy.orm and its PostgreSQL dialect": f"import sqlalchemy.orm, {_PACKAGE}",
    "workflow_models": "import workflow_models",
    # How else it might be.
    "workflow_models, a JSONB and index options of its own in place of the dialect": f"""
import sys, types, sqlalchemy.orm
from sqlalchemy.engine.default import DefaultDialect
module = types.ModuleType({_PACKAGE!r})
module.JSONB = type("JSONB", (sqlalchemy.JSON,), {{"__visit_name__": "JSONB"}})
module.dialect = type("dialect", (DefaultDialect,), {{"construct_arguments": [
    (sqlalchemy.Index, {{"using": False, "include": None, "where": None, "ops": {{}}, "with": {{}}}}),
]}})
module.base = sys.modules[{_PACKAGE!r}] = sqlalchemy.dialects.postgresql = module
import workflow_models
""",
    "workflow_models, with the garbage collector off meanwhile": """
import sqlalchemy.orm, gc
gc.disable()
import workflow_models
gc.enable()
""",
    "workflow_models, loaded when a model is first used": """
import importlib.util, sys, sqlalchemy.orm
spec = importlib.util.find_spec("workflow_models")
spec.loader = importlib.util.LazyLoader(spec.loader)
sys.modules["workflow_models"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
""",
}
_TIMED = "import time\nstarted = time.perf_counter()\n{}\nprint(time.perf_counter() - started)"


def imports(times: int) -> dict[str, float]:
    """Give the median seconds of each import in a new interpreter; they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(times):
        for name, statement in IMPORTS.items():
            done = subprocess.run(
                [sys.executable, "-c", _TIMED.format(statement)], capture_output=True, text=True, check=True
            )
            taken[name].append(float(done.stdout))
    return {name: statistics.median(each) for name, each in taken.items()}


def bulk_insert(variant: Variant, logs: int, times: int) -> dict[str, float]:
    """Give the median seconds of writing logs, as a worker of one organization; all are rolled back."""
    of = organization(1)
    with variant.connect() as connection:
        row = connection.execute(
            "SELECT id FROM workflow_definitions WHERE organization_id = %s LIMIT 1", [of]
        ).fetchone()
        assert row is not None
    columns = ("workflow_id", "organization_id", "execution_start", "status", "duration_ms")
    rows = [
        (row[0], of, END + timedelta(seconds=second), ExecutionStatus.SUCCESS.value, 2000)
        for second in range(logs)
    ]
    mappings = [dict(zip(columns, each, strict=True)) for each in rows]
    sessions = TenantSessionmaker(variant.engine("authenticator"))
    listed = ", ".join(columns)

    @contextmanager
    def cursor(role: str) -> Iterator[psycopg.Cursor[Any]]:
        with variant.connect() as connection, connection.transaction(force_rollback=True):
            connection.execute("SELECT set_config('workflow.organization_id', %s, true)", [str(of)])
            connection.execute(f"SET LOCAL ROLE {role}".encode())
            with connection.cursor() as cursor:
                yield cursor

    def copy() -> None:
        # Refused where row-level security holds.
        statement = f"COPY workflow_execution_logs ({listed}) FROM STDIN".encode()
        with cursor("service_role") as to, to.copy(statement) as copying:
            for each in rows:
                copying.write_row(each)

    def executemany() -> None:
        with cursor("workflow_worker") as to:
            to.executemany(
                f"INSERT INTO workflow_execution_logs ({listed}) VALUES (%s, %s, %s, %s, %s)".encode(), rows
            )

    def orm_insert() -> None:
        with sessions(organization=of) as session:
            session.execute(insert(WorkflowExecutionLog), mappings)
            session.rollback()

    def add_all() -> None:
        with sessions(organization=of) as session:
            session.add_all([WorkflowExecutionLog(**each) for each in mappings])
            session.flush()
            session.rollback()

    return interleaved(
        {
            "COPY, as service_role": copy,
            "psycopg executemany": executemany,
            "session.execute(insert(…), rows)": orm_insert,
            "session.add_all(…)": add_all,
        },
        times,
    )


def upgrade_empty(server: Server, psql: str | None, times: int) -> dict[str, float]:
    """Give the median seconds of `upgrade head` on an empty database, and of psql, if there is one, with the
    same SQL."""
    script = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head", "--sql"],
        capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "DATABASE_URL": f"postgresql+psycopg://{OWNER}@localhost/empty"},
    ).stdout  # fmt: skip
    empty = Variant("empty", server, "empty")

    def alembic() -> None:
        subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            check=True, cwd=ROOT, env={**os.environ, "DATABASE_URL": empty.url()},
        )  # fmt: skip

    def plain() -> None:
        subprocess.run(
            [psql or "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null",
             f"--host={server.host}", f"--port={server.port}", f"--username={OWNER}", empty.database],
            input=script, text=True, check=True,
        )  # fmt: skip

    runs: dict[str, Callable[[], Any]] = {
        **({"psql": plain} if psql else {}),
        "migrations.upgrade()": lambda: migrations.upgrade(empty.url()),
        "alembic upgrade head": alembic,
    }
    taken: dict[str, list[float]] = {name: [] for name in runs}
    with psycopg.connect(
        host=server.host, port=server.port, dbname="postgres", user=server.user, autocommit=True
    ) as admin:
        for _ in range(times):
            for name, run in runs.items():
                admin.execute(f"CREATE DATABASE empty OWNER {OWNER}".encode())
                taken[name].append(interleaved({name: run}, 1)[name])
                admin.execute("DROP DATABASE empty WITH (FORCE)")
    return {name: statistics.median(each) for name, each in taken.items()}
