"""A generated revision is proven on a database: up ends clean against the models, down ends in the exact
earlier catalog, and no row is lost."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import sqlalchemy as sa
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.operations import Operations
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext
from sqlalchemy.dialects import postgresql

from tests import catalog
from tests.databases import OWNER, Database
from workflow_models import migrations
from workflow_models.base import metadata as models

_REFUSAL = re.compile(r"^    raise NotImplementedError\(.*\)\n", re.MULTILINE)


@dataclass(frozen=True)
class Generated:
    """A revision that autogenerate makes, and what it found."""

    titles: tuple[str, ...]
    changes: tuple[str, ...]
    upgrade: str
    downgrade: str

    @property
    def refuses(self) -> bool:
        """Whether somebody has to decide something before it can run."""
        return bool(_REFUSAL.search(self.upgrade))

    @property
    def decided(self) -> "Generated":
        """The same, after somebody has decided that what the models do not have is dropped."""
        upgrade = re.sub(r"(?m)^(    +)# (?=op\.drop_|with |    |\))", r"\1", _REFUSAL.sub("", self.upgrade))
        return Generated(self.titles, self.changes, upgrade, self.downgrade)


class Proof:
    """What is done with revisions in one database.

    :param user: who runs them.
    :param snapshot: reads the catalog that a downgrade has to restore.
    """

    def __init__(
        self,
        database: Database,
        *,
        user: str | None = None,
        metadata: sa.MetaData | Sequence[sa.MetaData] = models,
        snapshot: Callable[[psycopg.Connection[Any]], Any] = catalog.snapshot,
        **options: Any,
    ) -> None:
        self.database = database
        self.metadata = metadata
        # One connection for all, on which psycopg prepares what is sent again and again.
        self._observer = database.connect(database.superuser)
        self.engine = sa.create_engine(database.url(user or OWNER), pool_size=1, max_overflow=0)
        self.options = {
            "target_metadata": metadata,
            "version_table_schema": migrations.VERSION_TABLE_SCHEMA,
            "transaction_per_migration": True,
            "include_object": migrations.include_object,
            "autogenerate_plugins": ["alembic.autogenerate.*", "workflow_models.ddl"],
            **options,
        }
        self._snapshot = snapshot

    def close(self) -> None:
        self.engine.dispose()
        self._observer.close()

    def generate(self) -> Generated:
        """Compare, and write the revision; leaves no transaction open."""
        with self._connection() as connection:
            context = MigrationContext.configure(connection, opts=dict(self.options))
            with connection.begin():
                script = produce_migrations(context, self.metadata)  # type: ignore[arg-type]
            return _generated(script, context)

    def run(self, source: str) -> None:
        """Run one function of a revision as ``alembic upgrade`` does."""
        with self._connection() as connection:
            context = MigrationContext.configure(connection, opts=dict(self.options))
            namespace: dict[str, Any] = {"sa": sa, "postgresql": postgresql, "op": Operations(context)}
            exec(f"def revision():\n    {source.strip() or 'pass'}", namespace)
            with context.begin_transaction(_per_migration=True):
                namespace["revision"]()

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        with self.engine.connect() as connection:
            connection.exec_driver_sql("SET search_path = public")
            connection.commit()
            yield connection

    def snapshot(self) -> Any:
        return self._snapshot(self._observer)

    def rows(self) -> catalog.Rows:
        return catalog.rows(self._observer)

    def of(self, generated: Generated) -> None:
        """Prove a revision: up, clean, down, as before, and up again."""
        before, rows = self.snapshot(), self.rows()

        self.run(generated.upgrade)
        assert self.generate().changes == ()
        after = self.snapshot()

        self.run(generated.downgrade)
        assert self.snapshot() == before
        assert {table: set(found) for table, found in self.rows().items()} == {
            table: set(found) for table, found in rows.items()
        }

        self.run(generated.upgrade)
        assert self.snapshot() == after


def _generated(script: MigrationScript, context: MigrationContext) -> Generated:
    upgrade, downgrade = script.upgrade_ops, script.downgrade_ops
    assert upgrade is not None
    assert downgrade is not None
    found = [each for diff in upgrade.as_diffs() for each in (diff if isinstance(diff, list) else [diff])]
    return Generated(
        tuple(map(_title, found)),
        tuple(map(str, found)),
        render_python_code(upgrade, migration_context=context),
        render_python_code(downgrade, migration_context=context),
    )


def _title(diff: Any) -> str:
    """As ``modify policy Everyone on workflow_definitions``."""
    verb = str(diff[0])
    if verb in ("add_column", "remove_column"):
        return f"{verb.replace('_', ' ')} {diff[3].name} on {diff[2]}"
    if verb in ("add_table", "remove_table"):
        return f"{verb.replace('_', ' ')} {diff[1].name}"
    return f"{verb.partition('_')[0]} {diff[1]}"
