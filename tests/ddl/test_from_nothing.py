"""The chain of revisions can be replaced by one that is generated from the models."""

# SQL reads better in its own lines.
# ruff: noqa: E501

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import catalog
from tests.databases import Database

PROJECT = Path(__file__).parents[2]
STAND_INS = """
CREATE TABLE organizations (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text NOT NULL);
CREATE TABLE profiles (id uuid PRIMARY KEY, organization_id uuid REFERENCES organizations (id), role text DEFAULT 'user');
CREATE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$;
"""
# The interpreter's start takes longer than the commands.
ALEMBIC = "import sys; from alembic.config import main; [main(each.split()) for each in sys.argv[1:]]"


class Checkout:
    """A copy of the project without its revisions."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.database = database
        for name in ("alembic", "src"):
            shutil.copytree(PROJECT / name, folder / name)
        shutil.copy(PROJECT / "alembic.ini", folder)
        for revision in (folder / "alembic/versions").glob("*.py"):
            revision.unlink()

    def alembic(self, *commands: str) -> None:
        """Run commands one after the other, in a process of their own."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MIGRATION_")}
        done = subprocess.run(
            [sys.executable, "-c", ALEMBIC, *commands],
            cwd=self.folder,
            env={
                **environment,
                "DATABASE_URL": self.database.url(),
                "PYTHONPATH": str(self.folder / "src"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def snapshots(self) -> tuple[catalog.Snapshot, catalog.Snapshot]:
        return snapshots(self.database)


def snapshots(database: Database) -> tuple[catalog.Snapshot, catalog.Snapshot]:
    return catalog.snapshot(database.observer), catalog.foreign_snapshot(database.observer)


@pytest.fixture
def checkout(tmp_path: Path, empty: Database) -> Checkout:
    empty.execute(STAND_INS)
    return Checkout(tmp_path, empty)


def test_one_generated_revision_does_what_the_chain_does(checkout: Checkout, upgraded: Database) -> None:
    _, start = checkout.snapshots()

    checkout.alembic("revision --autogenerate -m everything", "upgrade head")
    (made,) = (checkout.folder / "alembic/versions").glob("*.py")

    assert checkout.snapshots()[0] == snapshots(upgraded)[0]

    checkout.alembic("check", "downgrade base")
    ours, others = checkout.snapshots()
    assert others == start
    # Alembic keeps its version table.
    left = {name for found in ours.values() for name in found}
    assert {name for name in left if "alembic_version" not in name} == {"workflow_private"}
    assert imported_by(made) == {"alembic", "sqlalchemy"}


def imported_by(revision: Path) -> set[str]:
    modules: list[str] = []
    for statement in ast.walk(ast.parse(revision.read_text())):
        if isinstance(statement, ast.Import):
            modules += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            modules.append(statement.module or ".")
    return {module.partition(".")[0] for module in modules}
