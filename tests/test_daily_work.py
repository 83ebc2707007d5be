"""A model is changed, and the next revision made of it, in a checkout of one's own."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import Script

from tests.application import script
from tests.application.states import REVISIONS
from tests.catalog import Snapshot, snapshot
from tests.command import forked
from tests.databases import Database, Templates

PROJECT = Path(__file__).parents[1]
HEAD = REVISIONS[-1]
NUMBER = f"wf{int(HEAD[2:6]) + 1:04d}"

ADD_PRIORITY = f"alembic/versions/{NUMBER}_add_priority.py"
HEADER = f'''"""Add priority.

Adds: column priority on workflow_execution_logs; index idx_workflow_execution_logs_priority on
workflow_execution_logs.

Why:
Locks: ACCESS EXCLUSIVE on workflow_execution_logs for an instant; SHARE UPDATE EXCLUSIVE on
workflow_execution_logs while an index is built or dropped.
"""

import sqlalchemy as sa
from alembic import op

revision = "{NUMBER}_add_priority"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None
downgrade_losses = {{
    "rows of workflow_execution_logs with a value in priority": (
        "SELECT count(*) FROM workflow_execution_logs WHERE priority IS NOT NULL"
    ),
}}
'''
EMPTY_REVISION = f'''"""Tidy up.

Why:
Locks:
"""

from alembic import op

revision = "{NUMBER}_tidy_up"
down_revision = "{HEAD}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
'''


@dataclass(frozen=True)
class Checkout:
    """A copy of the project, and a database at the head of its revisions."""

    folder: Path
    database: Database

    def add_to_logs(self, *, column: str, item: str) -> None:
        """Give the logs' model another column, and something about it in `__table_args__`."""
        model = self.folder / "src/workflow_models/execution_log.py"
        source = model.read_text()
        items, first = "    __table_args__ = (\n", "    id: Mapped[int] ="
        for place, filled in ((items, f"{items}        {item},\n"), (first, f"    {column}\n{first}")):
            assert source.count(place) == 1
            source = source.replace(place, filled)
        model.write_text(source)

    def retype(self, column: str, type_: str, *imported: str) -> None:
        """Give a column of the logs' model another type, one of SQLAlchemy's."""
        model = self.folder / "src/workflow_models/execution_log.py"
        declared = rf"(    {column}: Mapped\[.*\] = mapped_column\()"
        source, count = re.subn(declared, rf"\g<1>{type_}, ", model.read_text())
        assert count == 1
        names = ", ".join(imported)
        model.write_text(source.replace("import (", f"import (\n    {names},", 1))

    def alembic(self, *arguments: str) -> str:
        """What the command prints, once it has succeeded."""
        done = forked(_alembic_in, self.folder, list(arguments), env={"DATABASE_URL": self.database.url()})
        assert done.status == 0, done.stdout + done.stderr
        return done.stdout

    def fails(self, *arguments: str) -> str:
        """What the command says of why it did not succeed."""
        done = forked(_alembic_in, self.folder, list(arguments), env={"DATABASE_URL": self.database.url()})
        assert done.status == 1, done.stdout + done.stderr
        return done.stderr

    def lint(self, revision: str | Path) -> None:
        ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", revision]
        done = subprocess.run(ruff, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout

    def new_revision(self, *arguments: str) -> Path:
        """The one file that `alembic revision` adds."""
        versions = self.folder / "alembic/versions"
        before = set(versions.glob("*.py"))
        self.alembic("revision", *arguments)
        (made,) = set(versions.glob("*.py")) - before
        return made

    def schema(self) -> Snapshot:
        return snapshot(self.database.observer)


def _alembic_in(folder: Path, arguments: list[str]) -> None:
    # Alembic imports our package, and is to import the checkout's.
    for module in list(sys.modules):
        if module.partition(".")[0] in ("alembic", "workflow_models"):
            del sys.modules[module]
    sys.path.insert(0, str(folder / "src"))
    os.chdir(folder)
    importlib.import_module("alembic.config").main(arguments, prog="alembic")


def copied(source: Path, target: Path) -> Path:
    """A checkout of what is in another one."""
    for folder in ("alembic", "src"):
        shutil.copytree(source / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("alembic.ini", "pyproject.toml"):
        shutil.copy(source / file, target)
    return target


@pytest.fixture
def checkout(tmp_path: Path, upgraded: Database) -> Checkout:
    return Checkout(copied(PROJECT, tmp_path), upgraded)


@pytest.fixture(scope="module")
def folder_with_priority(tmp_path_factory: pytest.TempPathFactory, templates: Templates) -> Path:
    """A checkout where a column and an index were added to a model, and a revision was made of that."""
    database = templates.clone("upgraded")
    checkout = Checkout(copied(PROJECT, tmp_path_factory.mktemp("checkout")), database)
    checkout.add_to_logs(
        column='priority: Mapped[int | None] = mapped_column(comment="The lowest first")',
        item='Index("idx_workflow_execution_logs_priority", "priority")',
    )
    checkout.new_revision("--autogenerate", "-m", "add priority")
    templates.drop(database)
    return checkout.folder


@pytest.fixture
def with_priority(folder_with_priority: Path, tmp_path: Path, upgraded: Database) -> Checkout:
    """The same, for this test, and a database that has not seen the revision."""
    return Checkout(copied(folder_with_priority, tmp_path), upgraded)


def test_a_new_column_and_its_index_become_the_next_revision(folder_with_priority: Path) -> None:
    header, upgrade, downgrade = parts(folder_with_priority / ADD_PRIORITY)

    assert header == HEADER
    assert "sa.Column('priority', sa.Integer(), nullable=True, comment='The lowest first')" in upgrade
    assert "idx_workflow_execution_logs_priority" in upgrade
    assert "op.drop_column('workflow_execution_logs', 'priority', if_exists=True)" in downgrade


def test_the_linter_leaves_a_new_revision_as_it_is(with_priority: Checkout) -> None:
    with_priority.lint(ADD_PRIORITY)


def test_a_new_revision_goes_up_checks_clean_and_goes_down(with_priority: Checkout) -> None:
    before = with_priority.schema()

    with_priority.alembic("upgrade", "head")
    assert added(before, with_priority.schema()) == {
        "columns": {"public.workflow_execution_logs.priority"},
        "indexes": {"public.idx_workflow_execution_logs_priority"},
    }
    with_priority.alembic("check")

    with_priority.alembic("downgrade", "-1")
    assert with_priority.schema() == before


def test_a_new_revision_does_not_go_down_over_values_without_leave(with_priority: Checkout) -> None:
    with_priority.database.execute(script("rows"))
    with_priority.alembic("upgrade", "head")
    with_priority.database.execute("UPDATE workflow_execution_logs SET priority = 7 WHERE id % 2 = 0")
    before = with_priority.schema()

    refused = with_priority.fails("downgrade", "-1")

    assert with_priority.schema() == before
    [(count,)] = with_priority.database.execute("SELECT count(priority) FROM workflow_execution_logs")
    told = f"{NUMBER}_add_priority: {count} rows of workflow_execution_logs with a value in priority"
    assert f"Happened: {told}\n" in refused
    with_priority.alembic("-x", "allow-data-loss=true", "downgrade", "-1")


def test_a_new_revision_that_stopped_half_way_runs_again(with_priority: Checkout) -> None:
    # What its first transaction has committed when the index could not be built.
    with_priority.database.execute("ALTER TABLE workflow_execution_logs ADD COLUMN priority integer")

    with_priority.alembic("upgrade", "head")

    with_priority.alembic("downgrade", "-1")


def test_the_chain_goes_down_to_base_with_a_new_revision_on_top(with_priority: Checkout) -> None:
    with_priority.alembic("upgrade", "head")

    with_priority.alembic("downgrade", "base")

    assert with_priority.database.execute("SELECT to_regclass('workflow_execution_logs')") == [(None,)]


def test_the_types_of_the_models_become_those_of_the_database(checkout: Checkout) -> None:
    checkout.add_to_logs(
        column="outcome: Mapped[ExecutionStatus | None] = mapped_column(TextEnum(ExecutionStatus))",
        item="CheckConstraint(\"outcome IN ('success', 'error')\", name='outcome')",
    )
    checkout.add_to_logs(
        column="""labels: Mapped[JsonObject] = mapped_column(server_default='{"a": "100%"}')""",
        item='Index(None, "labels")',
    )

    made = checkout.new_revision("--autogenerate", "-m", "add outcome and labels")

    _, upgrade, _ = parts(made)
    assert "sa.Column('outcome', sa.Text(), nullable=True)" in upgrade
    assert "postgresql.JSONB(" in upgrade
    assert imported_by(made) == {"alembic", "sqlalchemy"}
    checkout.lint(made)
    checkout.database.execute(script("rows"))
    checkout.alembic("upgrade", "head")
    checkout.alembic("check")
    checkout.alembic("downgrade", "-1")


def test_another_type_cuts_no_value_without_leave(checkout: Checkout) -> None:
    checkout.add_to_logs(
        column="notes: Mapped[JsonObject] = mapped_column(JSON(), server_default='{}')",
        item='CheckConstraint("retry_count >= 0", name="retry_count_counts")',
    )
    checkout.retype("duration_ms", "Numeric(12, 3)", "JSON", "Numeric")
    checkout.new_revision("--autogenerate", "-m", "measure exactly")
    checkout.database.execute(script("rows"))
    checkout.alembic("upgrade", "head")
    checkout.database.execute("UPDATE workflow_execution_logs SET duration_ms = 1.5 WHERE id % 2 = 0")
    [(count,)] = checkout.database.execute(
        "SELECT count(*) FROM workflow_execution_logs WHERE duration_ms = 1.5"
    )

    refused = checkout.fails("downgrade", "-1")

    told = f"{count} values of duration_ms in workflow_execution_logs that integer cannot hold"
    assert f"Happened: {NUMBER}_measure_exactly: {told}\n" in refused
    checkout.alembic("-x", "allow-data-loss=true", "downgrade", "-1")


def test_a_shorter_text_is_refused_where_a_value_is_longer(checkout: Checkout) -> None:
    checkout.retype("error_details", "String(4)", "String")
    checkout.new_revision("--autogenerate", "-m", "shorten")
    checkout.database.execute(script("rows"))
    checkout.database.execute("UPDATE workflow_execution_logs SET error_details = 'timed out'")
    before = checkout.schema()

    refused = checkout.fails("upgrade", "head")

    assert "value too long for type character varying(4)" in refused
    assert checkout.schema() == before
    checkout.database.execute("UPDATE workflow_execution_logs SET error_details = 'late'")
    checkout.alembic("upgrade", "head")
    checkout.alembic("downgrade", "-1")
    assert checkout.schema() == before


def test_a_revision_that_nothing_was_generated_for_is_ready_to_be_filled_in(checkout: Checkout) -> None:
    made = checkout.new_revision("-m", "tidy up")

    assert made.name == f"{NUMBER}_tidy_up.py"
    assert made.read_text() == EMPTY_REVISION


@pytest.mark.parametrize(
    ("message", "asked_for", "revision"),
    [
        ("let the dashboard list the failures of a user", None, f"{NUMBER}_let_the_dashboard_list_th"),
        ("Tidy up: don't keep `retry_count`.", None, f"{NUMBER}_tidy_up_don_t_keep_retry"),
        (None, None, NUMBER),
        # Looks like one of Alembic's own, and was asked for all the same.
        ("tidy up", "0123456789ab", "0123456789ab"),
    ],
    ids=["cut to 32 characters", "of words only", "without a message", "as asked for"],
)
def test_a_revision_is_named_by_number_and_message_unless_an_id_is_asked_for(
    checkout: Checkout, message: str | None, asked_for: str | None, revision: str
) -> None:
    config = Config(
        checkout.folder / "alembic.ini", attributes={"x": {"url": checkout.database.url()}}, stdout=StringIO()
    )

    made = command.revision(config, message, rev_id=asked_for)

    assert isinstance(made, Script)
    assert (made.revision, Path(made.path).name) == (revision, f"{revision}.py")
    assert len(revision) <= 32


def parts(revision: Path) -> tuple[str, str, str]:
    """What stands before the two functions, as it is, and their statements, however they are wrapped."""
    header, found, _ = revision.read_text().partition("\n\ndef upgrade()")
    assert found
    upgrade, downgrade = (
        ast.unparse(statement)
        for statement in ast.parse(revision.read_text()).body
        if isinstance(statement, ast.FunctionDef)
    )
    return header, upgrade, downgrade


def imported_by(revision: Path) -> set[str]:
    """The packages that a revision imports."""
    modules: list[str] = []
    for statement in ast.walk(ast.parse(revision.read_text())):
        if isinstance(statement, ast.Import):
            modules += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            modules.append(statement.module or ".")
    return {module.partition(".")[0] for module in modules}


def added(before: Snapshot, after: Snapshot) -> dict[str, set[str]]:
    """The names of what is new, by kind, where nothing else has changed."""
    assert {kind: {name: found[name] for name in before[kind]} for kind, found in after.items()} == before
    return {
        kind: found.keys() - before[kind].keys() for kind, found in after.items() if found != before[kind]
    }
