"""Proves a revision on a database: up ends clean against the models, down ends in the exact earlier catalog,
and no row is lost. For tests; needs Alembic.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.autogenerate.api import AutogenContext
from alembic.operations import Operations
from alembic.operations.ops import DowngradeOps, MigrationScript, UpgradeOps
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, MetaData, NullPool, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import ProgrammingError

from . import snapshot as catalog
from .item import quoted

_REFUSAL = re.compile(
    r"^    from alembic\.util import CommandError\n    raise CommandError\(.*\)\n", re.MULTILINE
)
_SHOWN = 10
_NOT_PERMITTED = "42501"

Step = str | Callable[[], object]


class ProofError(AssertionError):
    """A revision that does not do what it should; says what differs."""


@dataclass(frozen=True)
class Generated:
    """A revision that autogenerate makes, and what it found.

    :param titles: as ``modify policy Everyone on tickets``.
    :param changes: what differs, in words.
    :param upgrade: the body of ``upgrade()``.
    :param downgrade: the body of ``downgrade()``.
    """

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
        if not re.search(r"(?m)^ +[^# ]", upgrade):
            upgrade += "\n    pass"
        return Generated(self.titles, self.changes, upgrade, self.downgrade)


class Proof:
    """What is done with revisions in one database, which is changed by it: use a copy, as of ``clone()``.

    :param engine: as who migrates.
    :param metadata: the models, as in ``target_metadata``.
    :param observer: as who may read everything, if that is another role.
    :param search_path: of the connections that migrate.
    :param snapshot: reads the catalog that a downgrade has to restore.
    :param options: as in ``context.configure()`` of the ``env.py``.
    """

    def __init__(
        self,
        engine: Engine,
        metadata: MetaData | Sequence[MetaData],
        *,
        observer: Engine | None = None,
        search_path: str = "public",
        snapshot: Callable[[Connection], Any] = catalog.snapshot,
        **options: Any,
    ) -> None:
        self.engine = engine
        self.metadata = metadata
        self.search_path = search_path
        self.options: Mapping[str, Any] = {
            "target_metadata": metadata,
            "transaction_per_migration": True,
            "autogenerate_plugins": ["alembic.autogenerate.*", "workflow_models.ddl"],
            **options,
        }
        self._observer = (observer or engine).connect()
        self._snapshot = snapshot

    def close(self) -> None:
        """Close its own connection."""
        self._observer.close()

    def __enter__(self) -> "Proof":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def generate(self) -> Generated:
        """Compare, and write the revision; leaves no transaction open."""
        with self._connection() as connection:
            context = MigrationContext.configure(connection, opts=dict(self.options))
            with connection.begin():
                script = produce_migrations(context, self.metadata)  # type: ignore[arg-type]
            return _generated(script, context)

    def run(self, step: Step) -> None:
        """Run one direction of a revision.

        :param step: the body of its function, run as ``alembic upgrade`` does; or what runs it, as
            ``lambda: command.upgrade(config, "head")``.
        """
        if callable(step):
            step()
            return
        with self._connection() as connection:
            context = MigrationContext.configure(connection, opts=dict(self.options))
            namespace: dict[str, Any] = {"sa": sa, "postgresql": postgresql, "op": Operations(context)}
            exec(f"def revision():\n    {step.strip() or 'pass'}", namespace)
            with context.begin_transaction(_per_migration=True):
                namespace["revision"]()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with self.engine.connect() as connection:
            connection.execute(
                text("SELECT set_config('search_path', :path, false)"), {"path": self.search_path}
            )
            connection.commit()
            yield connection

    def snapshot(self) -> Any:
        """Read the catalog."""
        return self._snapshot(self._observer)

    def rows(self) -> catalog.Rows:
        """Read which rows there are.

        :raises ProofError: where row security hides some from the observer.
        """
        each = [self.metadata] if isinstance(self.metadata, MetaData) else self.metadata
        try:
            return catalog.rows(self._observer, each)
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) != _NOT_PERMITTED:
                raise
            raise ProofError(
                f"{self._observer.engine.url.username} may not see all rows: {error.orig}. "
                "Give Proof() an observer= that does: the tables' owner, a superuser, a role with BYPASSRLS."
            ) from error

    def of(self, revision: Generated) -> None:
        """Prove a generated revision; it is applied in the end.

        :raises ProofError: when it does not do what it should.
        """
        self.of_steps(revision.upgrade, revision.downgrade)

    def of_steps(self, up: Step, down: Step, *, clean: bool = True) -> None:
        """Prove a revision: up, clean, down, as before, and up again.

        :param clean: whether the database then stands as the models say; not so in the middle of a chain.
        :raises ProofError: when it does not do what it should.
        """
        before, rows = self.snapshot(), self.rows()
        self.run(up)
        if clean:
            differing = self.generate().changes
            if differing:
                raise ProofError(
                    "\n  ".join(["after the upgrade the database differs from the models:", *differing])
                )
        after = self.snapshot()
        _expect_rows("the upgrade", rows, self.rows())
        self.run(down)
        _expect_same("the downgrade does not restore", before, self.snapshot())
        _expect_rows("the downgrade", rows, self.rows())
        self.run(up)
        _expect_same("a second upgrade ends otherwise than the first:", after, self.snapshot())


# Of the copy of a database that is a template for everybody, who may not give it away.
_OWNER = text("""
    SELECT CASE WHEN pg_has_role(datdba, 'MEMBER') THEN pg_get_userbyid(datdba) ELSE current_user END
    FROM pg_database WHERE datname = :name
""")


@contextmanager
def clone(url: str | sa.URL, *, name: str) -> Iterator[sa.URL]:
    """Give a copy of a database, gone afterwards.

    The role must be allowed to create databases, and nobody may be connected to the original. Both have
    the same owner.

    :param name: of the copy; one of that name is dropped first.
    """
    original = sa.make_url(url)
    maintenance = sa.create_engine(original.set(database="postgres"), poolclass=NullPool)
    drop = f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)"
    with maintenance.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(drop)
        owner = connection.scalar(_OWNER, {"name": original.database})
        connection.exec_driver_sql(
            f"CREATE DATABASE {quoted(name)} OWNER {quoted(owner)} TEMPLATE {quoted(original.database)}"
        )
        try:
            yield original.set(database=name)
        finally:
            connection.exec_driver_sql(drop)


def _expect_same(what: str, expected: Any, found: Any) -> None:
    if expected == found:
        return
    lines = [
        f"{name}: {found.get(name, 'is not there')}; it was {expected.get(name, 'not there')}"
        for name in sorted({*expected, *found})
        if expected.get(name) != found.get(name)
    ]
    raise ProofError("\n  ".join([what, *lines[:_SHOWN]]))


def _expect_rows(what: str, expected: catalog.Rows, found: catalog.Rows) -> None:
    for table, keys in expected.items():
        lost = keys - found.get(table, frozenset())
        if lost:
            raise ProofError(f"{what} loses {len(lost)} rows of {table}: {', '.join(sorted(lost)[:_SHOWN])}")


def _generated(script: MigrationScript, context: MigrationContext) -> Generated:
    upgrade, downgrade = script.upgrade_ops, script.downgrade_ops
    assert upgrade is not None
    assert downgrade is not None
    found = [each for diff in upgrade.as_diffs() for each in (diff if isinstance(diff, list) else [diff])]
    return Generated(
        tuple(map(_title, found)),
        tuple(str(each).strip() for each in found),
        _rendered(upgrade, context),
        _rendered(downgrade, context),
    )


def _rendered(ops: UpgradeOps | DowngradeOps, context: MigrationContext) -> str:
    """Write the body of a function, with the imports that it needs."""
    imports: set[str] = set()

    def render_item(type_: str, item: Any, autogen_context: AutogenContext) -> str | Literal[False]:
        as_configured = context.opts.get("render_item")
        rendered: str | Literal[False] = (
            as_configured and as_configured(type_, item, autogen_context)
        ) or False
        imports.update(autogen_context.imports)
        return rendered

    body = render_python_code(
        ops,
        migration_context=context,
        render_item=render_item,
        user_module_prefix=context.opts.get("user_module_prefix"),
    )
    return "".join(f"    {line}\n" for line in sorted(imports)) + body


def _title(diff: Any) -> str:
    verb = str(diff[0])
    if verb in ("add_column", "remove_column"):
        return f"{verb.replace('_', ' ')} {diff[3].name} on {diff[2]}"
    if verb in ("add_table", "remove_table"):
        return f"{verb.replace('_', ' ')} {diff[1].name}"
    return f"{verb.partition('_')[0]} {diff[1]}"
